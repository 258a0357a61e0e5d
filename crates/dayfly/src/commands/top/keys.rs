//! The effect of a key: the next state of the screen, and at most one thing to do. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::board::{Board, PoolKey};
use super::state::{Focus, LogView, Mode, Shown, State};
use super::text::{LINE_MAX, foreign};

/// Rows that a page key moves by.
const PAGE: usize = 10;
/// Columns that a log moves by.
const SHIFT: usize = 20;
/// Longest filter, characters.
const FILTER_MAX: usize = 60;

/// A key that has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    First,
    Last,
    Tab,
    Enter,
    Esc,
    Backspace,
    /// Ctrl-C.
    Interrupt,
}

impl Key {
    /// Returns the key of an event of the terminal; none if it has no meaning here.
    pub(super) fn of(event: KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        let is_held = |modifier| event.modifiers.contains(modifier);
        if is_held(KeyModifiers::CONTROL) || is_held(KeyModifiers::ALT) {
            let is_interrupt = event.code == KeyCode::Char('c') && is_held(KeyModifiers::CONTROL);
            return is_interrupt.then_some(Self::Interrupt);
        }
        Some(match event.code {
            KeyCode::Char(c) => Self::Char(c),
            KeyCode::Up => Self::Up,
            KeyCode::Down => Self::Down,
            KeyCode::Left => Self::Left,
            KeyCode::Right => Self::Right,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown => Self::PageDown,
            KeyCode::Home => Self::First,
            KeyCode::End => Self::Last,
            KeyCode::Tab | KeyCode::BackTab => Self::Tab,
            KeyCode::Enter => Self::Enter,
            KeyCode::Esc => Self::Esc,
            KeyCode::Backspace => Self::Backspace,
            _ => return None,
        })
    }
}

/// Something to do after a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Quit,
    /// Show the log of this runner as it grows.
    Follow(String),
    /// Close the log.
    Unfollow,
    /// Give the order to drain this pool.
    Drain(PoolKey),
}

/// Returns the state after a key, and the thing to do.
pub(super) fn press(state: State, key: Key, board: &Board) -> (State, Effect) {
    let state = State { message: None, ..state };
    if key == Key::Interrupt {
        return (state, Effect::Quit);
    }
    match state.mode.clone() {
        Mode::Lists => in_lists(state, key, board),
        Mode::Filter { before } => in_filter(state, key, before),
        Mode::Help => (State { mode: Mode::Lists, ..state }, Effect::None),
        Mode::Confirm(pool) => confirmed(state, key, pool),
        Mode::Log(view) => in_log(state, key, view),
    }
}

fn in_lists(mut state: State, key: Key, board: &Board) -> (State, Effect) {
    match key {
        Key::Char('q') => return (state, Effect::Quit),
        // It first takes the filter away, because that hides rows.
        Key::Esc => state.filter.clear(),
        Key::Char('?' | 'h') => state.mode = Mode::Help,
        Key::Char('/') => state.mode = Mode::Filter { before: state.filter.clone() },
        Key::Char('s') => state.sort = state.sort.next(),
        Key::Char('r') => state.is_reversed = !state.is_reversed,
        Key::Tab => {
            state.focus = match Shown::of(board, &state).focus {
                Focus::Pools => Focus::Machines,
                Focus::Machines => Focus::Pools,
            };
        }
        Key::Char('l') | Key::Enter => return follow(state, board),
        Key::Char('d') => return ask_drain(state, board),
        key => select(&mut state, key, board),
    }
    (state, Effect::None)
}

/// Moves the selection of the list in use.
fn select(state: &mut State, key: Key, board: &Board) {
    let shown = Shown::of(board, state);
    let (at, count) = match shown.focus {
        Focus::Pools => (shown.pool_at(state), shown.pools.len()),
        Focus::Machines => (shown.machine_at(state), shown.machines.len()),
    };
    let Some(at) = at else { return };
    let next = match key {
        Key::Up | Key::Char('k') => at.saturating_sub(1),
        Key::Down | Key::Char('j') => at + 1,
        Key::PageUp => at.saturating_sub(PAGE),
        Key::PageDown => at + PAGE,
        Key::First => 0,
        Key::Last => count,
        _ => return,
    };
    let next = next.min(count - 1);
    match shown.focus {
        Focus::Pools => state.pool = Some(shown.pools[next].key.clone()),
        Focus::Machines => state.machine = Some(shown.machines[next].key.clone()),
    }
}

fn follow(state: State, board: &Board) -> (State, Effect) {
    let told = |state: State, text: &str| (State { message: Some(text.to_owned()), ..state }, Effect::None);
    let shown = Shown::of(board, &state);
    if shown.focus == Focus::Pools {
        return told(state, "a pool has no log: Tab goes to the machines");
    }
    let runner = shown.machine(&state).and_then(|row| row.runner.clone());
    let Some(runner) = runner else { return told(state, "there is no runner whose log could be shown") };
    let view = LogView { runner: runner.clone(), back: 0, shift: 0 };
    (State { mode: Mode::Log(view), ..state }, Effect::Follow(runner))
}

/// Asks whether to drain the selected pool, or that of the selected machine.
fn ask_drain(state: State, board: &Board) -> (State, Effect) {
    let shown = Shown::of(board, &state);
    let pool = match shown.focus {
        Focus::Pools => shown.pool(&state).map(|row| row.key.clone()),
        Focus::Machines => shown.machine(&state).map(|row| row.pool.clone()),
    };
    // Without a name, an order would drain all pools of the process.
    match pool.filter(|pool| !pool.pool.is_empty()) {
        Some(pool) => (State { mode: Mode::Confirm(pool), ..state }, Effect::None),
        None => {
            let message = Some("there is no pool that could be drained".to_owned());
            (State { message, ..state }, Effect::None)
        }
    }
}

fn confirmed(state: State, key: Key, pool: PoolKey) -> (State, Effect) {
    let state = State { mode: Mode::Lists, ..state };
    if key == Key::Char('y') {
        let message = Some(format!("draining {} ...", foreign(&pool.pool)));
        return (State { message, ..state }, Effect::Drain(pool));
    }
    (State { message: Some("nothing was drained".to_owned()), ..state }, Effect::None)
}

fn in_filter(mut state: State, key: Key, before: String) -> (State, Effect) {
    match key {
        Key::Enter => state.mode = Mode::Lists,
        Key::Esc => (state.filter, state.mode) = (before, Mode::Lists),
        Key::Backspace => drop(state.filter.pop()),
        Key::Char(c) if !c.is_control() && state.filter.chars().count() < FILTER_MAX => state.filter.push(c),
        _ => {}
    }
    (state, Effect::None)
}

fn in_log(state: State, key: Key, mut view: LogView) -> (State, Effect) {
    match key {
        Key::Esc | Key::Char('q' | 'l') => return (State { mode: Mode::Lists, ..state }, Effect::Unfollow),
        // `State::keep_in_log` knows how many lines there are.
        Key::Up | Key::Char('k') => view.back += 1,
        Key::Down | Key::Char('j') => view.back = view.back.saturating_sub(1),
        Key::PageUp => view.back += PAGE,
        Key::PageDown => view.back = view.back.saturating_sub(PAGE),
        Key::First => view.back = usize::MAX / 2,
        Key::Last => view.back = 0,
        Key::Left => view.shift = view.shift.saturating_sub(SHIFT),
        Key::Right => view.shift = (view.shift + SHIFT).min(LINE_MAX),
        _ => {}
    }
    (State { mode: Mode::Log(view), ..state }, Effect::None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::board::tests::{few, many};
    use super::super::state::Sort;
    use super::*;

    /// Presses keys, and returns the state and the last effect.
    fn pressed(board: &Board, keys: &[Key]) -> (State, Effect) {
        let begin = (State::default(), Effect::None);
        keys.iter().fold(begin, |(state, _), key| press(state, *key, board))
    }

    fn typed(text: &str) -> Vec<Key> {
        text.chars().map(Key::Char).collect()
    }

    #[test]
    fn keys_work_on_the_pools_while_no_machine_is_listed() {
        let board = Board { machines: Vec::new(), ..few() };
        let (state, effect) = pressed(&board, &[Key::Down, Key::Char('d'), Key::Char('y')]);
        assert_eq!(effect, Effect::Drain(board.pools[1].key.clone()), "{state:?}");
    }

    #[test]
    fn a_filter_is_written_after_a_slash_and_escape_restores_the_one_before() {
        let keys =
            [typed("/bui"), vec![Key::Enter], typed("/q"), vec![Key::Backspace, Key::Char('x')]].concat();
        let (state, effect) = pressed(&few(), &keys);
        assert_eq!((state.filter.as_str(), &effect), ("buix", &Effect::None), "q is a letter here");
        let (state, _) = press(state, Key::Esc, &few());
        assert_eq!((state.filter.as_str(), &state.mode), ("bui", &Mode::Lists));
        let (state, _) = press(state, Key::Esc, &few());
        assert_eq!(state.filter, "", "and once more takes it away");
    }

    #[test]
    fn the_selection_stays_on_its_machine_if_the_order_changes() {
        let board = few();
        let (state, _) = pressed(&board, &[Key::Down, Key::Char('s'), Key::Char('r')]);
        assert_eq!((state.sort, state.is_reversed), (Sort::Runner, true));
        let shown = Shown::of(&board, &state);
        assert_eq!(shown.machine(&state).and_then(|row| row.runner.as_deref()), Some("1002-aB3dE5f"));
    }

    #[test]
    fn the_selection_ends_at_both_ends_of_the_list() {
        let board = many(200);
        let at = |keys: &[Key]| {
            let (state, _) = pressed(&board, keys);
            Shown::of(&board, &state).machine_at(&state)
        };
        assert_eq!(at(&[Key::Up]), Some(0));
        assert_eq!(at(&[Key::PageDown, Key::Down, Key::Up, Key::Char('j')]), Some(11));
        assert_eq!(at(&[Key::Last, Key::Down]), Some(199));
        assert_eq!(at(&[Key::Last, Key::First]), Some(0));
    }

    #[test]
    fn the_log_of_the_selected_runner_is_followed_until_it_is_closed() {
        let board = few();
        let (state, effect) = pressed(&board, &[Key::Down, Key::Char('l')]);
        assert_eq!(effect, Effect::Follow("1002-aB3dE5f".to_owned()));
        let (state, effect) = press(state, Key::PageUp, &board);
        assert!(matches!(&state.mode, Mode::Log(view) if view.back == PAGE), "{:?}", state.mode);
        assert_eq!(effect, Effect::None);
        let (state, effect) = press(state, Key::Esc, &board);
        assert_eq!((state.mode, effect), (Mode::Lists, Effect::Unfollow));
    }

    #[test]
    fn a_drain_is_ordered_only_after_a_yes_and_for_the_selected_pool() {
        let board = few();
        let of_pool = pressed(&board, &[Key::Tab, Key::Down, Key::Char('d'), Key::Char('y')]).1;
        let of_machine = pressed(&board, &[Key::Char('d'), Key::Char('y')]).1;
        let key = |pool: &str| PoolKey { instance: "k3V9x0q1".to_owned(), pool: pool.to_owned() };
        assert_eq!((of_pool, of_machine), (Effect::Drain(key("docs")), Effect::Drain(key("build"))));
        for other in [Key::Enter, Key::Char('n'), Key::Esc, Key::Char('Y'), Key::Char('d')] {
            let (state, effect) = pressed(&board, &[Key::Char('d'), other]);
            assert_eq!((effect, state.message.as_deref()), (Effect::None, Some("nothing was drained")));
        }
    }

    #[test]
    fn keys_for_things_that_are_not_there_say_so() {
        let nothing = Board::default();
        for keys in [vec![Key::Char('l')], vec![Key::Char('d')], vec![Key::Tab, Key::Char('l')]] {
            let (state, effect) = pressed(&nothing, &keys);
            assert!(
                effect == Effect::None && state.message.is_some() && state.mode == Mode::Lists,
                "{keys:?}"
            );
        }
    }

    #[test]
    fn control_c_ends_it_in_every_mode_and_other_keys_with_control_mean_nothing() {
        let board = few();
        for keys in ["", "/", "?", "d", "l"] {
            let (state, _) = pressed(&board, &typed(keys));
            assert_eq!(press(state, Key::Interrupt, &board).1, Effect::Quit, "{keys}");
        }
        assert_eq!(pressed(&board, &[Key::Char('q')]).1, Effect::Quit);
        let event = |c, modifiers| Key::of(KeyEvent::new(KeyCode::Char(c), modifiers));
        assert_eq!(event('c', KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(event('d', KeyModifiers::CONTROL), None);
        assert_eq!(event('d', KeyModifiers::NONE), Some(Key::Char('d')));
    }

    fn any_key() -> impl Strategy<Value = Key> {
        let named = [
            Key::Up,
            Key::Down,
            Key::Left,
            Key::Right,
            Key::PageUp,
            Key::PageDown,
            Key::First,
            Key::Last,
            Key::Tab,
            Key::Enter,
            Key::Esc,
            Key::Backspace,
        ];
        prop_oneof![
            any::<char>().prop_map(Key::Char),
            "[a-z/?]".prop_map(|text| Key::Char(text.as_bytes()[0].into())),
            proptest::sample::select(named.to_vec())
        ]
    }

    proptest! {
        #[test]
        fn no_keys_drain_a_pool_without_a_yes_right_before(keys in proptest::collection::vec(any_key(), 0..60)) {
            let board = few();
            let mut state = State::default();
            for key in keys {
                let asked = match &state.mode { Mode::Confirm(pool) => Some(pool.clone()), _ => None };
                let (next, effect) = press(state, key, &board);
                if let Effect::Drain(pool) = effect {
                    prop_assert_eq!((key, asked), (Key::Char('y'), Some(pool)));
                }
                prop_assert!(next.filter.chars().count() <= FILTER_MAX);
                state = next;
            }
        }
    }
}
