//! `dayfly lab soak`: runs many jobs while the forge fails and processes are killed, and judges whether each ran
//! exactly once.
//!
//! ```text
//!   seed ─> plan (jobs, faults, kills, troubles)                             pure
//!            │
//!   drive: lab in this process ── events ──> stories ──┐
//!          ├─ orders faults at its desk                │
//!          ├─ kills ──> children: orchestrator, loops ─┼─ words ("job_concluded", exits)
//!          ├─ troubles of the host ──┘                 │
//!          │                └─ machines (adopted)      │
//!          └─ end: /proc, folders, registrations ──────┴─> judge ─> verdict   pure
//! ```
//!
//! The lab and the judge share a process, and dayfly's processes are the real binary, each started again after it was
//! killed. A kill of a `loop` is one of a `dayfly runner` process, because a loop of an orchestrator is a task, which
//! no signal reaches. A kill of a `vm` is one of the VMM; with the driver `process` it is one of the keeper, with which
//! all processes of the runner die.

mod children;
mod dice;
mod drive;
mod host;
mod judge;
pub(crate) mod left;
mod menu;
mod mounts;
mod plan;
mod stage;
mod story;
mod trouble;
mod view;

use dayfly_lab::fault::Fault;

use self::drive::Soak;
use self::mounts::Namespace;
use self::plan::{Plan, PlanRequest};
use self::stage::{Folder, Sizes};
use self::view::View;
use crate::cli::{LabSoakArgs, SoakDriver, Trouble};
use crate::exit::{Failure, Outcome, Result};
use crate::settings::Places;
use crate::signals::Signals;

/// Random seeds are below this, because people type them.
const SEEDS: u128 = 1_000_000;

pub(crate) async fn run(places: &Places, args: &LabSoakArgs) -> Result<Outcome> {
    check(args)?;
    let (troubles, left_out) = possible(&args.host.0)?;
    let mut signals = Signals::take_over()?;
    host::adopt_orphans().map_err(|error| Failure::cannot(format!("cannot adopt orphans: {error}")))?;
    let seed = args.seed.unwrap_or_else(random_seed);
    let plan = Plan::draw(&PlanRequest {
        seed,
        jobs: args.jobs,
        faults: args.faults.0.clone(),
        kills: args.kill.0.clone(),
        troubles: troubles.clone(),
        kill_every: args.kill_pause(),
        loops: Sizes::of(args.parallel).other,
    });
    let folder = Folder::create(places, args, seed, troubles.contains(&Trouble::Disk))?;
    let view = View::begin(args, seed, folder.path());
    if let Some(why) = left_out {
        view.warning(&format!("the troubles disk and memory are left out: {why}"));
    }
    match Soak::set_up(places, args, plan, &folder, seed, view).await {
        Ok(soak) => soak.run(&mut signals, folder).await,
        Err(failure) => {
            // The failure counts, not a rest of the folder.
            let _ = folder.remove();
            Err(failure)
        }
    }
}

/// Returns the troubles that can be made, and the reason why some are left out, which happens only if all were asked for.
fn possible(wanted: &[Trouble]) -> Result<(Vec<Trouble>, Option<String>)> {
    let (mounted, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|trouble| trouble.needs_mounts());
    if mounted.is_empty() {
        return Ok((others, None));
    }
    let namespace = match rustix::process::geteuid().is_root() {
        true => {
            Namespace::make().map_err(|error| format!("this host does not let root make mounts ({error})"))
        }
        false => Err("only root can make them".to_owned()),
    };
    match namespace {
        Ok(_) => Ok((wanted.to_vec(), None)),
        Err(why) if wanted == Trouble::ALL => Ok((others, Some(why))),
        Err(why) => Err(Failure::usage(format!("the troubles disk and memory cannot be made: {why}"))
            .hint("leave --host out, or name stop and descriptors")),
    }
}

/// Refuses options that a soak cannot follow.
fn check(args: &LabSoakArgs) -> Result<()> {
    let faults = &args.faults.0;
    if *faults != Fault::ALL
        && let Some(fault) = faults.iter().find(|fault| menu::places(**fault).is_empty())
    {
        let name = fault.name();
        return Err(Failure::usage(format!("a soak has no pool with webhooks, so it cannot play {name}")));
    }
    let Some(app) = &args.runner_app else { return Ok(()) };
    if args.driver != SoakDriver::Process {
        let text = "--runner-app is for --driver process; machines have the runner app of their image";
        return Err(Failure::usage(text));
    }
    if app.join("run.sh").is_file() || app.join("bin/Runner.Listener").is_file() {
        return Ok(());
    }
    let text = format!("{} holds no runner app: neither run.sh nor bin/Runner.Listener", app.display());
    Err(Failure::usage(text))
}

fn random_seed() -> u64 {
    let nanoseconds = dayfly_host::clock::since_epoch().as_nanos() / 1000;
    u64::try_from(nanoseconds % SEEDS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, LabCommand};

    fn refusal(words: &str) -> String {
        let words = ["dayfly", "lab", "soak"].into_iter().chain(words.split_whitespace());
        match Cli::try_parse_from(words).expect("options").command {
            Command::Lab(LabCommand::Soak(args)) => match check(&args) {
                Ok(()) => String::new(),
                Err(failure) => failure.to_string(),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_that_a_soak_cannot_follow_are_refused() {
        assert_eq!(refusal(""), "");
        assert_eq!(refusal("--faults none --kill vm --driver process"), "");
        assert!(refusal("--faults webhook-loss").contains("cannot play webhook-loss"));
        assert!(refusal("--runner-app /tmp").contains("--driver process"));
        assert!(refusal("--driver process --runner-app /nonexistent").contains("holds no runner app"));
    }
}
