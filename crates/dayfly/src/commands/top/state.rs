//! The choices of the person at the screen: the list in use, the order, the filter, the rows that are selected. Pure.

use std::cmp::Reverse;

use dayfly_fleet::state::Phase;

use super::board::{Board, MachineKey, MachineRow, PoolKey, PoolRow};
use super::usage::sum;

/// The state of the screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    pub(super) mode: Mode,
    pub(super) focus: Focus,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    /// The pool that is selected; the first one if it is none or gone.
    pub(super) pool: Option<PoolKey>,
    /// The machine that is selected; the first one if it is none or gone.
    pub(super) machine: Option<MachineKey>,
    /// The last message, until the next key.
    pub(super) message: Option<String>,
}

impl State {
    /// Keeps the view of a log within its lines.
    pub(super) fn keep_in_log(&mut self, lines: usize) {
        if let Mode::Log(view) = &mut self.mode {
            view.back = view.back.min(lines.saturating_sub(1));
        }
    }

    /// Takes in that a log has so many new lines, and `lines` now. A view that was scrolled up stays where it is.
    pub(super) fn log_grew(&mut self, count: usize, lines: usize) {
        if let Mode::Log(view) = &mut self.mode
            && view.back > 0
        {
            view.back = view.back.saturating_add(count);
        }
        self.keep_in_log(lines);
    }
}

/// The meaning of keys at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// They work on the lists.
    #[default]
    Lists,
    /// They write the filter.
    Filter {
        /// The filter before, which Esc restores.
        before: String,
    },
    /// The list of keys is shown.
    Help,
    /// A drain waits for a yes.
    Confirm(PoolKey),
    /// A log is shown.
    Log(LogView),
}

/// The part of a log that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogView {
    /// Id of the runner.
    pub(super) runner: String,
    /// Number of lines between the last one on the screen and the last one of the log; 0 follows it.
    pub(super) back: usize,
    /// Columns that are left out at the beginning of each line.
    pub(super) shift: usize,
}

/// A list of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Focus {
    Pools,
    #[default]
    Machines,
}

/// The order of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    /// Those with a job first, of these the one that has it longest.
    #[default]
    State,
    Runner,
    Age,
    Cpu,
    Memory,
    Network,
    Disk,
}

impl Sort {
    /// All orders, in that of the key.
    const ALL: [Self; 7] =
        [Self::State, Self::Runner, Self::Age, Self::Cpu, Self::Memory, Self::Network, Self::Disk];

    /// Returns the word for people.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Runner => "runner",
            Self::Age => "age",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Network => "network",
            Self::Disk => "disk",
        }
    }

    /// Returns the order after this one; after the last one comes the first.
    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|one| *one == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// The rows that the filter lets through, in their order.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) pools: Vec<&'a PoolRow>,
    pub(super) machines: Vec<&'a MachineRow>,
    /// The list that keys work on: the chosen one, unless it is empty and the other is not.
    pub(super) focus: Focus,
}

impl<'a> Shown<'a> {
    pub(super) fn of(board: &'a Board, state: &State) -> Self {
        let filter = state.filter.to_lowercase();
        let pools: Vec<&PoolRow> = board.pools.iter().filter(|row| has(&pool_words(row), &filter)).collect();
        let machines = board.machines.iter().filter(|row| has(&machine_words(row), &filter));
        let mut machines: Vec<&MachineRow> = machines.collect();
        // A stable sort: rows that are alike stay in the order of their instances and loops.
        sort(&mut machines, state.sort);
        if state.is_reversed {
            machines.reverse();
        }
        let focus = match state.focus {
            Focus::Machines if machines.is_empty() => Focus::Pools,
            Focus::Pools if pools.is_empty() => Focus::Machines,
            chosen => chosen,
        };
        Self { pools, machines, focus }
    }

    /// Returns the number of the selected pool among those shown; none if none is shown.
    pub(super) fn pool_at(&self, state: &State) -> Option<usize> {
        let found = self.pools.iter().position(|row| Some(&row.key) == state.pool.as_ref());
        (!self.pools.is_empty()).then(|| found.unwrap_or_default())
    }

    /// Returns the number of the selected machine among those shown; none if none is shown.
    pub(super) fn machine_at(&self, state: &State) -> Option<usize> {
        let found = self.machines.iter().position(|row| Some(&row.key) == state.machine.as_ref());
        (!self.machines.is_empty()).then(|| found.unwrap_or_default())
    }

    /// Returns the selected pool.
    pub(super) fn pool(&self, state: &State) -> Option<&'a PoolRow> {
        self.pool_at(state).map(|at| self.pools[at])
    }

    /// Returns the selected machine.
    pub(super) fn machine(&self, state: &State) -> Option<&'a MachineRow> {
        self.machine_at(state).map(|at| self.machines[at])
    }
}

fn has(words: &[Option<&str>], filter: &str) -> bool {
    filter.is_empty() || words.iter().flatten().any(|word| word.to_lowercase().contains(filter))
}

fn pool_words(row: &PoolRow) -> [Option<&str>; 2] {
    [Some(&row.key.pool), Some(&row.key.instance)]
}

fn machine_words(row: &MachineRow) -> [Option<&str>; 7] {
    [
        Some(&row.pool.pool),
        Some(&row.pool.instance),
        Some(row.phase.as_str()),
        row.runner.as_deref(),
        row.job.as_deref(),
        row.repository.as_deref(),
        row.workflow.as_deref(),
    ]
}

fn sort(machines: &mut [&MachineRow], by: Sort) {
    match by {
        Sort::State => machines.sort_by_key(|row| (row.phase != Phase::Busy, row.phase as u8, row.since_ms)),
        Sort::Runner => machines.sort_by(|a, b| a.runner.cmp(&b.runner)),
        Sort::Age => machines.sort_by_key(|row| row.since_ms),
        Sort::Cpu => machines.sort_by_key(|row| Reverse(row.usage.cpu_percent)),
        Sort::Memory => machines.sort_by_key(|row| Reverse(row.usage.memory)),
        Sort::Network => machines.sort_by_key(|row| Reverse(row.usage.traffic.map(sum))),
        Sort::Disk => machines.sort_by_key(|row| Reverse(row.usage.disk.map(sum))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::tests::{few, many};
    use super::*;

    fn runners(state: &State) -> Vec<String> {
        let board = few();
        Shown::of(&board, state).machines.iter().map(|row| row.runner.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn jobs_come_first_and_each_order_has_its_largest_first() {
        let of = |sort| runners(&State { sort, ..State::default() });
        assert_eq!(of(Sort::State), ["1001-k3V9x0q", "1002-aB3dE5f", "1-zzzzzzz"]);
        assert_eq!(of(Sort::Runner), ["1-zzzzzzz", "1001-k3V9x0q", "1002-aB3dE5f"]);
        assert_eq!(of(Sort::Memory), ["1002-aB3dE5f", "1001-k3V9x0q", "1-zzzzzzz"], "unknown is last");
        let reversed = State { sort: Sort::Memory, is_reversed: true, ..State::default() };
        assert_eq!(runners(&reversed), ["1-zzzzzzz", "1001-k3V9x0q", "1002-aB3dE5f"]);
    }

    #[test]
    fn the_key_goes_through_all_orders_and_back_to_the_first() {
        let mut sort = Sort::default();
        let words = [(); 8].map(|()| {
            let word = sort.word();
            sort = sort.next();
            word
        });
        assert_eq!(words, ["state", "runner", "age", "cpu", "memory", "network", "disk", "state"]);
    }

    #[test]
    fn a_filter_looks_at_names_states_and_jobs_in_any_case() {
        let of = |filter: &str| runners(&State { filter: filter.to_owned(), ..State::default() });
        assert_eq!(of("COMPILE"), ["1001-k3V9x0q"]);
        assert_eq!(of("idle"), ["1-zzzzzzz"]);
        assert_eq!(of("owner/tool"), ["1001-k3V9x0q"]);
        assert_eq!(of("nothing has this"), Vec::<String>::new());
    }

    #[test]
    fn a_log_that_grows_moves_only_a_view_that_follows_it() {
        let view = |back| Mode::Log(LogView { runner: "1-aaaaaaa".to_owned(), back, shift: 0 });
        let after = |back| {
            let mut state = State { mode: view(back), ..State::default() };
            state.log_grew(3, 10);
            state.mode
        };
        assert_eq!((after(0), after(4), after(usize::MAX)), (view(0), view(7), view(9)));
    }

    #[test]
    fn a_selection_whose_row_is_gone_falls_back_to_the_first_row() {
        let board = many(20);
        let gone = MachineKey { instance: "gone".to_owned(), index: 1 };
        let state = State { machine: Some(gone), ..State::default() };
        assert_eq!(Shown::of(&board, &state).machine_at(&state), Some(0));
        let none = State { filter: "nothing has this".to_owned(), ..state };
        assert_eq!(Shown::of(&board, &none).machine_at(&none), None);
    }
}
