//! Names that a shell completes: those of the instances, pools and runners of this host. A user who may not read the state, or a
//! host without a process of dayfly, has none.

use std::collections::BTreeSet;
use std::path::Path;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use dayfly_fleet::instance;
use dayfly_fleet::status::Status;

use crate::settings;

/// The names in a state folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Names {
    instances: BTreeSet<String>,
    /// Without the sizes of pools, whose names have blanks that shells do not quote.
    pools: BTreeSet<String>,
    /// The ids of the runners that live.
    runners: BTreeSet<String>,
}

/// Completes names of pools.
pub(crate) fn pools() -> ArgValueCandidates {
    of(|names| names.pools)
}

/// Completes ids of runners.
pub(crate) fn runners() -> ArgValueCandidates {
    of(|names| names.runners)
}

/// Completes names of pools and ids of runners.
pub(crate) fn subjects() -> ArgValueCandidates {
    of(|names| names.pools.into_iter().chain(names.runners).collect())
}

/// Completes ids of runners whose machines are kept.
pub(crate) fn kept() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let machines = settings::usual_state().and_then(|state| dayfly_vm::kept::list(&state).ok());
        let ids = machines.unwrap_or_default().into_iter().map(|one| one.manifest().about.runner.clone());
        ids.map(CompletionCandidate::new).collect()
    })
}

/// Completes names of instances.
pub(crate) fn instances() -> ArgValueCandidates {
    of(|names| names.instances)
}

fn of(part: impl Fn(Names) -> BTreeSet<String> + Send + Sync + 'static) -> ArgValueCandidates {
    ArgValueCandidates::new(move || {
        // The options of the command line are not known here, so `--state` does not count.
        let names = settings::usual_state().map(|state| names_in(&state)).unwrap_or_default();
        part(names).into_iter().map(CompletionCandidate::new).collect()
    })
}

fn names_in(state: &Path) -> Names {
    let mut names = Names::default();
    for one in instance::all(state).unwrap_or_default() {
        names.instances.extend(one.folder.file_name().map(|name| name.to_string_lossy().into_owned()));
        if !one.alive {
            continue;
        }
        let pools = one.serves.into_iter().filter_map(|serves| serves.pool);
        names.pools.extend(pools.filter(|name| !name.contains(char::is_whitespace)));
        let loops = Status::read(&one.folder).ok().flatten().unwrap_or_default().loops;
        names.runners.extend(loops.into_values().filter_map(|one| one.runner));
    }
    names
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dayfly_fleet::instance::{Instance, Serves};
    use dayfly_fleet::status::LoopStatus;
    use dayfly_forge::RunnerScope;

    use super::*;

    fn serves(pool: &str) -> Serves {
        Serves {
            pool: Some(pool.to_owned()),
            forge: "https://api.github.com/".to_owned(),
            scope: RunnerScope::Organization("acme".to_owned()),
            prefix: "p".to_owned(),
            private_lab: false,
            labels: Vec::new(),
        }
    }

    #[test]
    fn the_names_are_those_of_processes_that_live_and_a_dead_instance_has_only_its_own() {
        let state = tempfile::tempdir().expect("a folder");
        assert_eq!(names_in(state.path()), Names::default());
        let pools = ["build", "build (dayfly-4cpu-8gb)"].map(serves).to_vec();
        let instance = Instance::create(state.path(), pools).expect("an instance");
        let runner = LoopStatus { runner: Some("1-k3V9x0q".to_owned()), ..LoopStatus::default() };
        let status = Status { loops: [(1, runner)].into(), ..Status::default() };
        status.write(instance.folder()).expect("written");
        let name = instance.folder().file_name().expect("a name").to_string_lossy().into_owned();
        let one = |text: &str| BTreeSet::from([text.to_owned()]);
        let alive = Names { instances: one(&name), pools: one("build"), runners: one("1-k3V9x0q") };
        assert_eq!(names_in(state.path()), alive);
        drop(instance);
        // A child that another test is just starting has the lock open until its exec.
        let is_alive = || instance::all(state.path()).expect("read").iter().any(|one| one.alive);
        for _ in 0..1000 {
            if !is_alive() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(names_in(state.path()), Names { instances: one(&name), ..Names::default() });
    }
}
