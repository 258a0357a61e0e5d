use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use super::*;
use crate::commands::top::board::PoolKey;
use crate::commands::top::board::tests::{few, hostile, many};

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 50);

fn drawn((columns, rows): (u16, u16), scene: &Scene<'_>) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal");
    terminal.draw(|frame| draw(frame, scene)).expect("drawn");
    terminal
}

fn scene<'a>(board: &'a Board, state: &'a State, log: &'a VecDeque<String>) -> Scene<'a> {
    Scene { board, state, log, place: "/var/lib/dayfly", look: Look { has_colour: true } }
}

/// Returns the lines of the screen.
fn picture(size: (u16, u16), board: &Board, state: &State) -> String {
    let log = VecDeque::new();
    let terminal = drawn(size, &scene(board, state, &log));
    lines(terminal.backend().buffer())
}

/// Returns the text of a screen, without the blanks at the ends of lines.
fn lines(buffer: &Buffer) -> String {
    let rows = buffer.content().chunks(usize::from(buffer.area.width));
    let line = |row: &[ratatui::buffer::Cell]| {
        let mut text = String::new();
        let mut skip = 0;
        for cell in row {
            // A wide character covers the cells after it.
            if skip == 0 {
                text.push_str(cell.symbol());
                skip = Span::raw(cell.symbol()).width().max(1);
            }
            skip -= 1;
        }
        text.trim_end().to_owned()
    };
    rows.map(line).collect::<Vec<_>>().join("\n")
}

fn in_mode(mode: Mode) -> State {
    State { mode, ..State::default() }
}

#[test]
fn a_host_without_processes_says_so_in_80_columns() {
    insta::assert_snapshot!(picture(SMALL, &Board::default(), &State::default()));
}

#[test]
fn a_host_without_processes_says_so_in_200_columns() {
    insta::assert_snapshot!(picture(LARGE, &Board::default(), &State::default()));
}

#[test]
fn three_machines_in_80_columns() {
    insta::assert_snapshot!(picture(SMALL, &few(), &State::default()));
}

#[test]
fn three_machines_in_200_columns() {
    insta::assert_snapshot!(picture(LARGE, &few(), &State::default()));
}

#[test]
fn two_hundred_machines_in_80_columns() {
    insta::assert_snapshot!(picture(SMALL, &many(200), &State::default()));
}

#[test]
fn two_hundred_machines_in_200_columns() {
    let board = many(200);
    let machine = Some(board.machines[150].key.clone());
    insta::assert_snapshot!(picture(LARGE, &board, &State { machine, ..State::default() }));
}

#[test]
fn hostile_names_are_shown_as_text_in_80_columns() {
    insta::assert_snapshot!(picture(SMALL, &hostile(), &State::default()));
}

#[test]
fn hostile_names_are_shown_as_text_in_200_columns() {
    insta::assert_snapshot!(picture(LARGE, &hostile(), &State { focus: Focus::Pools, ..State::default() }));
}

#[test]
fn the_selected_pool_has_its_reasons_below_the_lists() {
    insta::assert_snapshot!(picture(SMALL, &few(), &State { focus: Focus::Pools, ..State::default() }));
}

#[test]
fn the_keys_the_filter_and_the_question_before_a_drain_are_shown() {
    let before = String::new();
    let filter = State { filter: "site".to_owned(), ..in_mode(Mode::Filter { before }) };
    let pool = PoolKey { instance: "k3V9x0q1".to_owned(), pool: "a very long name of a pool".repeat(3) };
    let all = [in_mode(Mode::Help), filter, in_mode(Mode::Confirm(pool))];
    insta::assert_snapshot!(all.map(|state| picture((80, 16), &few(), &state)).join("\n=====\n"));
}

#[test]
fn a_log_shows_its_last_lines_or_those_before_and_can_be_shifted() {
    let log: VecDeque<String> =
        (1..=30).map(|number| format!("08:00:00 line {number} {}", "-".repeat(60))).collect();
    let board = few();
    let of = |back, shift| {
        let state = in_mode(Mode::Log(LogView { runner: "1001-k3V9x0q".to_owned(), back, shift }));
        let terminal = drawn((60, 10), &scene(&board, &state, &log));
        lines(terminal.backend().buffer())
    };
    insta::assert_snapshot!([of(0, 0), of(12, 20), of(29, 0)].join("\n=====\n"));
}

#[test]
fn a_message_takes_the_place_of_the_keys() {
    let state = State { message: Some("k3V9x0q1: draining: build".to_owned()), ..State::default() };
    let text = picture(SMALL, &few(), &state);
    assert_eq!(text.lines().last(), Some("k3V9x0q1: draining: build"));
}

#[test]
fn no_size_of_a_terminal_is_a_problem() {
    for board in [Board::default(), few(), hostile(), many(50)] {
        for (columns, rows) in
            [(1, 1), (10, 3), (39, 24), (40, 10), (80, 10), (139, 11), (140, 12), (500, 200)]
        {
            let text = picture((columns, rows), &board, &State::default());
            assert!(columns < 10 || !text.trim().is_empty(), "{columns}x{rows}");
        }
    }
}

#[test]
fn no_name_steers_the_terminal_or_turns_the_text_around() {
    let log: VecDeque<String> = VecDeque::new();
    for size in [SMALL, LARGE] {
        for focus in [Focus::Pools, Focus::Machines] {
            let (board, state) = (hostile(), State { focus, ..State::default() });
            let terminal = drawn(size, &scene(&board, &state, &log));
            for cell in terminal.backend().buffer().content() {
                let is_bad = |c: char| {
                    c.is_control()
                        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
                };
                assert!(!cell.symbol().chars().any(is_bad), "{:?}", cell.symbol());
            }
        }
    }
}

#[test]
fn without_colours_the_text_is_the_same_and_no_cell_has_one() {
    let (board, log) = (few(), VecDeque::new());
    for mode in [Mode::Lists, Mode::Confirm(board.pools[0].key.clone())] {
        let state = in_mode(mode);
        let coloured = drawn(SMALL, &scene(&board, &state, &log));
        let look = Look { has_colour: false };
        let plain = drawn(SMALL, &Scene { look, ..scene(&board, &state, &log) });
        let (coloured, plain) = (coloured.backend().buffer(), plain.backend().buffer());
        assert_eq!(lines(coloured), lines(plain));
        let has_colour = |buffer: &Buffer| {
            buffer.content().iter().any(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset))
        };
        assert!(has_colour(coloured) && !has_colour(plain));
    }
}
