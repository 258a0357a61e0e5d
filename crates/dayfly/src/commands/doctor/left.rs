//! The checks for what processes have left that have died, and for what is kept until a person has looked at it.

use std::time::Duration;

use dayfly_fleet::remains::{self, Remains};
use dayfly_host::quantity::quantity;
use dayfly_host::space::SpaceMeter;
use dayfly_vm::host::{Check, CheckState};
use dayfly_vm::kept;

use crate::commands::lab::soak::{self, left::LeftSoak};
use crate::commands::ps::{host_of, name_of};
use crate::commands::thaw::KeptSummary;
use crate::settings::Places;
use crate::units::{mebibytes, span};

/// Time within which a start usually follows, e.g. after an upgrade or a crash. Until then this is no warning.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(600);

/// Most files of soaks whose space is measured, and the longest time for that.
const MEASURED: (usize, Duration) = (200_000, Duration::from_secs(2));

/// Checks that no instance has been left for long, because only a start for the same prefix, scope and forge takes it over.
pub(super) fn checks(places: &Places, now_ms: u64) -> Vec<Check> {
    match remains::all(&places.state) {
        Ok(all) => all.iter().map(|remains| check(remains, now_ms)).collect(),
        Err(error) => {
            let name = "instances".into();
            vec![Check { name, state: CheckState::Warn, seen: error.to_string(), mend: None }]
        }
    }
}

/// Names the machines that are kept after failed jobs.
pub(super) fn kept_machines(places: &Places) -> Option<Check> {
    let name = "kept machines".into();
    match kept::list(&places.state) {
        Ok(machines) => KeptSummary::of(&machines).map(|kept| Check {
            name,
            state: CheckState::Note,
            seen: kept.sentence(),
            mend: Some(kept.advice()),
        }),
        Err(error) => Some(Check { name, state: CheckState::Warn, seen: error.to_string(), mend: None }),
    }
}

/// Checks that no soak was killed, because nothing else removes its folder.
pub(super) fn soaks(places: &Places) -> Vec<Check> {
    let warn = |name: String, seen: String, mend: Option<String>| Check {
        name: name.into(),
        state: CheckState::Warn,
        seen,
        mend,
    };
    match soak::left::all(&places.state) {
        Ok(all) => {
            let mut meter = SpaceMeter::new(MEASURED.0, MEASURED.1);
            let check = |left: &LeftSoak| {
                let bytes = mebibytes(meter.allocated(left.folder()));
                let seen = format!("it was killed and has left {bytes} in {}", left.folder().display());
                warn(format!("soak {}", left.name()), seen, Some("dayfly clear --all".to_owned()))
            };
            all.iter().map(check).collect()
        }
        Err(error) => vec![warn("soaks".to_owned(), error.to_string(), None)],
    }
}

fn check(remains: &Remains, now_ms: u64) -> Check {
    let age = Duration::from_millis(now_ms.saturating_sub(remains.since_ms));
    let instance = name_of(remains);
    let runs = quantity(remains.runs.len(), "run", "runs");
    let alive = match remains.machines() {
        0 => "no machine lives".to_owned(),
        count => quantity(count, "machine lives", "machines live"),
    };
    let places = remains
        .places
        .iter()
        .map(|place| format!("{} of {} at {}", place.prefix, place.scope, host_of(&place.forge)));
    let places: Vec<_> = places.collect();
    let places = if places.is_empty() { "an unknown place".to_owned() } else { places.join(", ") };
    let unread = remains.runs.iter().find_map(|run| run.problem.as_ref());
    let unread = unread.map(|problem| format!("; {problem}")).unwrap_or_default();
    let is_new = age < FOLLOWED_WITHIN;
    Check {
        name: format!("instance {instance}").into(),
        state: if is_new { CheckState::Note } else { CheckState::Warn },
        seen: format!(
            "its process has died and left {runs} ({alive}) for {places}; its last sign of life is {} old{unread}",
            span(age)
        ),
        mend: Some(format!("dayfly clear {instance}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::ps::left_for_tests;

    #[test]
    fn an_instance_that_no_start_has_followed_for_long_is_a_problem_with_its_command() {
        let now_ms = 1_800_000_000_000;
        let shown = left_for_tests(now_ms).map(|remains| {
            let Check { name, state, seen, mend } = check(&remains, now_ms);
            format!("{name}: {state:?}: {seen}{}", mend.map(|mend| format!(" -> {mend}")).unwrap_or_default())
        });
        insta::assert_snapshot!(shown.join("\n"), @r"
        instance Qm3vT8xA: Note: its process has died and left 1 run (1 machine lives) for GH-runner of o/r at api.github.com; its last sign of life is 40 s old -> dayfly clear Qm3vT8xA
        instance k3V9x0q1: Warn: its process has died and left 2 runs (1 machine lives) for build-host-7 of an-organisation at ghes.example.com, small of o/r at 127.0.0.1:8080; its last sign of life is 3 days old -> dayfly clear k3V9x0q1
        instance z0z0z0z0: Warn: its process has died and left 1 run (no machine lives) for an unknown place; its last sign of life is 400 days old -> dayfly clear z0z0z0z0
        ");
    }
}
