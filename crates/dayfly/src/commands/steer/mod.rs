//! `dayfly pause`, `resume`, `drain` and `scale`: sends an order to an orchestrator, and shows what it has changed.

mod wait;

use std::path::PathBuf;

use dayfly_fleet::instance::InstanceInfo;

use super::reload::{self, Row};
use crate::cli::{DrainArgs, PoolsArgs, ScaleArgs, TargetArgs};
use crate::control::{Answer, PoolOrder, Request, Steered};
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;
use wait::Wait;

/// Runs `dayfly pause`.
pub(crate) async fn pause(places: &Places, args: PoolsArgs) -> Result<Outcome> {
    give(places, &args.target, PoolOrder::Pause { pools: args.pools }).await.map(|_| Outcome::Success)
}

/// Runs `dayfly resume`.
pub(crate) async fn resume(places: &Places, args: PoolsArgs) -> Result<Outcome> {
    give(places, &args.target, PoolOrder::Resume { pools: args.pools }).await.map(|_| Outcome::Success)
}

/// Runs `dayfly scale`.
pub(crate) async fn scale(places: &Places, args: ScaleArgs) -> Result<Outcome> {
    let ScaleArgs { pool, max, min_idle, target } = args;
    give(places, &target, PoolOrder::Scale { pool, max, min_idle }).await.map(|_| Outcome::Success)
}

/// Runs `dayfly drain`.
pub(crate) async fn drain(places: &Places, args: DrainArgs) -> Result<Outcome> {
    let DrainArgs { pools, wait, timeout, target } = args;
    let (folder, steered) = give(places, &target, PoolOrder::Drain { pools }).await?;
    if !wait {
        return Ok(Outcome::Success);
    }
    // Those of the answer, because a pool's sizes are pools of their own.
    let pools = (!steered.ends).then(|| [steered.changed, steered.already].concat());
    Wait { folder, pools, json: target.json }.for_the_end(places, timeout.map(|time| time.0)).await
}

/// Gives an order to an orchestrator, and shows the answer. Returns the folder of its instance too.
///
/// # Errors
/// There is no such orchestrator, or it does not carry the order out.
async fn give(places: &Places, target: &TargetArgs, order: PoolOrder) -> Result<(PathBuf, Steered)> {
    let request = Request::Steer { config: reload::absolute(target.config.as_deref())?, order };
    let mut answers = Vec::new();
    for one in choose(reload::orchestrators(places)?, target)? {
        answers.extend(reload::ask(&one, &request).await.map(|row| (one.folder, row)));
    }
    // If no file is named, there is one answer. Of one file, one orchestrator is what its owner means.
    let Some((folder, row)) = answers.pop() else { return Err(no_orchestrator(target)) };
    if target.json {
        printer::json(&row);
    }
    let instance = row.instance.clone();
    let steered = steered(row)?;
    if !target.json {
        show(&instance, &request, &steered);
    }
    Ok((folder, steered))
}

/// Returns the orchestrators that may be meant. Of several, one must be named, because an order for the wrong one stops its
/// runners.
///
/// # Errors
/// None is meant, or it is not clear which one.
fn choose(all: Vec<InstanceInfo>, target: &TargetArgs) -> Result<Vec<InstanceInfo>> {
    let names = |all: &[InstanceInfo]| all.iter().map(reload::name_of).collect::<Vec<_>>().join(", ");
    let everyone = names(&all);
    let begins = |one: &InstanceInfo| {
        target.instance.as_ref().is_none_or(|name| !name.is_empty() && reload::name_of(one).starts_with(name))
    };
    let meant: Vec<InstanceInfo> = all.into_iter().filter(begins).collect();
    match meant.len() {
        0 if target.instance.is_some() && !everyone.is_empty() => {
            Err(no_orchestrator(target).hint(format!("those that run are {everyone}")))
        }
        0 => Err(no_orchestrator(target)),
        1 => Ok(meant),
        _ if target.config.is_some() => Ok(meant),
        count => {
            Err(Failure::usage(format!("{count} orchestrators of this host may be meant: {}", names(&meant)))
                .hint("name one with --instance NAME or --config FILE"))
        }
    }
}

fn no_orchestrator(target: &TargetArgs) -> Failure {
    reload::no_orchestrator(match (&target.config, &target.instance) {
        (Some(config), _) => reload::none_runs_from(config),
        (None, Some(name)) => format!("no orchestrator of this host has the instance {name:?}"),
        (None, None) => "no orchestrator runs on this host".to_owned(),
    })
}

fn show(instance: &str, request: &Request, steered: &Steered) {
    let Request::Steer { order, .. } = request else { return };
    lines(instance, order, steered).into_iter().for_each(printer::line);
    steered.notes.iter().for_each(printer::note);
}

/// Returns what an order has changed, in words.
fn lines(instance: &str, order: &PoolOrder, steered: &Steered) -> Vec<String> {
    let (done, already) = match order {
        PoolOrder::Pause { .. } => ("paused", "paused already"),
        PoolOrder::Resume { .. } => ("resumed", "running already"),
        PoolOrder::Drain { .. } => ("draining", "draining or drained already"),
        PoolOrder::Scale { .. } => ("scaled", "scaled so already"),
    };
    let names = [(done, &steered.changed), (already, &steered.already)].into_iter();
    let names = names.filter(|(_, names)| !names.is_empty());
    let mut lines: Vec<String> =
        names.map(|(word, names)| format!("{instance}: {word}: {}", names.join(", "))).collect();
    if steered.ends {
        lines.push(format!("{instance}: it ends with its last runner"));
    }
    lines
}

/// Gives the order to drain one pool to the orchestrator of an instance. Returns what has changed, in words.
///
/// # Errors
/// There is no such orchestrator, or it does not carry the order out.
pub(super) async fn drain_pool(places: &Places, instance: &str, pool: String) -> Result<String> {
    let order = PoolOrder::Drain { pools: vec![pool] };
    let target = TargetArgs { config: None, instance: Some(instance.to_owned()), json: false };
    // A name may be the beginning of another one only if a person writes it.
    let mut all = reload::orchestrators(places)?;
    all.retain(|one| reload::name_of(one) == instance);
    let Some(one) = choose(all, &target)?.pop() else { return Err(no_orchestrator(&target)) };
    let request = Request::Steer { config: None, order: order.clone() };
    let row = reload::ask(&one, &request).await.ok_or_else(|| no_orchestrator(&target))?;
    let steered = steered(row)?;
    let notes = steered.notes.iter().cloned();
    Ok(lines(instance, &order, &steered).into_iter().chain(notes).collect::<Vec<_>>().join("; "))
}

/// Returns what an orchestrator has changed.
///
/// # Errors
/// It has not carried the order out.
fn steered(Row { instance, answer, .. }: Row) -> Result<Steered> {
    match answer {
        Answer::Steered { steered, .. } => Ok(steered),
        Answer::Refused { why, hint, .. } => {
            Err(hint.into_iter().fold(Failure::usage(format!("{instance}: {why}")), Failure::hint))
        }
        Answer::Failed { why } => Err(Failure::cannot(format!("{instance}: {why}"))),
        Answer::Reloaded { .. } | Answer::OtherFile { .. } | Answer::NoFile => {
            Err(Failure::cannot(format!("{instance}: it has answered something else")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(names: &[&str]) -> Vec<InstanceInfo> {
        let one = |name: &&str| InstanceInfo {
            folder: format!("/state/instances/{name}").into(),
            serves: Vec::new(),
            alive: true,
        };
        names.iter().map(one).collect()
    }

    fn target(config: Option<&str>, instance: Option<&str>) -> TargetArgs {
        TargetArgs { config: config.map(PathBuf::from), instance: instance.map(str::to_owned), json: false }
    }

    /// Returns the names of those that may be meant, or the error with its status and its hint.
    fn chosen(names: &[&str], target: &TargetArgs) -> String {
        match choose(instances(names), target) {
            Ok(meant) => meant.iter().map(reload::name_of).collect::<Vec<_>>().join(" "),
            Err(failure) => {
                format!("{} {failure}; {}", failure.code(), failure.what_to_do().unwrap_or_default())
            }
        }
    }

    #[test]
    fn an_order_is_for_the_only_orchestrator_or_for_the_one_that_is_named() {
        assert_eq!(chosen(&["abc"], &target(None, None)), "abc");
        assert_eq!(chosen(&["abc", "abd"], &target(None, Some("abd"))), "abd");
        assert_eq!(chosen(&["abc", "xyz"], &target(None, Some("x"))), "xyz");
        assert_eq!(chosen(&["abc", "xyz"], &target(Some("/f"), None)), "abc xyz", "each knows its file");
    }

    #[test]
    fn an_order_that_could_reach_the_wrong_orchestrator_reaches_none() {
        assert_eq!(
            chosen(&["abc", "abd"], &target(None, None)),
            "2 2 orchestrators of this host may be meant: abc, abd; name one with --instance NAME or --config FILE"
        );
        assert!(chosen(&["abc", "abd", "x"], &target(None, Some("ab"))).contains("may be meant: abc, abd;"));
        let none = chosen(&["abc"], &target(None, Some("q")));
        assert_eq!(none, "3 no orchestrator of this host has the instance \"q\"; those that run are abc");
        assert!(chosen(&[], &target(None, None)).starts_with("3 no orchestrator runs on this host;"));
        assert!(
            chosen(&[], &target(Some("/f"), None))
                .starts_with("3 no orchestrator of this host runs from /f;")
        );
        assert!(chosen(&["abc"], &target(None, Some(""))).starts_with('3'));
    }
}
