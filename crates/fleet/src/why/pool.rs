//! Explains a pool: what holds its jobs up.

use dayfly_host::quantity::quantity;

use super::{Process, Reason, Situation, span};
use crate::cause::Cause;
use crate::orchestrator::{SLOTS_MAX, Scarce, Wait};
use crate::status::{ForgeTrouble, LoopStatus, Phase, PoolState, PoolStatus};

/// Explains the pools of this name, of all processes.
pub(super) fn named(name: &str, situation: &Situation) -> Vec<Reason> {
    situation.processes.iter().flat_map(|process| named_of(process, name, situation.now_ms)).collect()
}

/// Explains the pools of this name of a process. A pool that drains may have the name of its successor.
pub(super) fn named_of(process: &Process, name: &str, now_ms: u64) -> Vec<Reason> {
    let of_pools = process.status.pools.iter().filter(|(_, pool)| pool.name.as_deref() == Some(name));
    let of_loops = process.status.loops.iter().filter(|(_, one)| one.pool.as_deref() == Some(name));
    let firsts =
        of_pools.map(|(&first, _)| first).chain(of_loops.map(|(index, _)| index - index % SLOTS_MAX));
    let firsts: std::collections::BTreeSet<u32> = firsts.collect();
    if firsts.is_empty() && process.serves.iter().any(|serves| serves.pool.as_deref() == Some(name)) {
        return vec![Reason::new("idle", format!("The pool {name} has no runner, and no job waits for it."))];
    }
    firsts.into_iter().flat_map(|first| explain(process, first, now_ms)).collect()
}

/// Explains the pool whose loops have the numbers after `first`.
pub(super) fn explain(process: &Process, first: u32, now_ms: u64) -> Vec<Reason> {
    let loops: Vec<&LoopStatus> =
        process.status.loops.range(first..first.saturating_add(SLOTS_MAX)).map(|(_, one)| one).collect();
    let default =
        PoolStatus { name: loops.first().and_then(|one| one.pool.clone()), ..PoolStatus::default() };
    let pool = process.status.pools.get(&first).unwrap_or(&default);
    let name = pool.name.as_deref().unwrap_or("of the command line");
    let mut reasons: Vec<Reason> = stopped(name, pool, now_ms).into_iter().collect();
    reasons.extend(pool.forge.values().map(|trouble| forge(name, trouble, now_ms)));
    reasons.extend(failing(name, (pool.wait, &loops), now_ms));
    if pool.state == PoolState::Running {
        reasons.extend(pool.wait.map(|wait| held(name, wait, pool.waiting)));
    }
    reasons.push(counts(name, pool, &loops));
    reasons
}

/// Explains a pool that an administrator has stopped.
fn stopped(name: &str, pool: &PoolStatus, now_ms: u64) -> Option<Reason> {
    let since = span(now_ms.saturating_sub(pool.since_ms));
    match pool.state {
        PoolState::Running => None,
        PoolState::Paused => Some(
            Reason::new(
                "paused",
                format!("The pool {name} is paused since {since} ago, so no runner starts."),
            )
            .todo(format!("dayfly resume \"{name}\"")),
        ),
        PoolState::Draining => Some(
            Reason::new(
                "draining",
                format!("The pool {name} drains since {since} ago, so no runner starts."),
            )
            .todo(format!(
                "dayfly resume \"{name}\" starts it again, if the configuration file still has it"
            )),
        ),
        PoolState::GivenUp => {
            let why = pool.given_up.as_deref().unwrap_or("the log says more");
            let text =
                format!("The pool {name} was given up {since} ago, because it could not be started: {why}.");
            Some(Reason::new("given_up", text).todo("mend that, then: dayfly reload"))
        }
    }
}

fn forge(name: &str, trouble: &ForgeTrouble, now_ms: u64) -> Reason {
    let ForgeTrouble { source, since_ms, cause, message } = trouble;
    let since = span(now_ms.saturating_sub(*since_ms));
    match cause {
        Cause::RateLimit { until_ms } => Reason::new(
            "rate_limit",
            format!(
                "The forge's rate limit holds the pool {name} up for {} more ({source}: {message}).",
                span(until_ms.saturating_sub(now_ms))
            ),
        )
        .todo("nothing: it ends by itself; a GitHub App, or a credential of its own for each organisation, has more calls"),
        Cause::Refused => Reason::new(
            "forge_refuses",
            format!("The forge refuses the credential of the pool {name} since {since} ago ({source}: {message})."),
        )
        .todo("dayfly doctor --forge says which permission is missing; after a change of the credential: dayfly reload"),
        _ => Reason::new(
            "forge_unreachable",
            format!("The forge cannot be used for the pool {name} since {since} ago ({source}: {message})."),
        )
        .todo("check that this host reaches the forge: dayfly doctor --forge; dayfly tries again by itself"),
    }
}

/// Explains runners that could not be created, by the last cause of each kind.
fn failing(name: &str, (wait, loops): (Option<Wait>, &[&LoopStatus]), now_ms: u64) -> Vec<Reason> {
    // A loop of a scaled pool that has failed does not pause itself.
    let is_failing = |one: &&&LoopStatus| match one.phase {
        Phase::Pausing => one.cause.is_some(),
        Phase::Ended => one.cause.is_some() && wait == Some(Wait::Pausing),
        _ => false,
    };
    let failing = loops.iter().filter(is_failing);
    let mut reasons: Vec<Reason> = Vec::new();
    for one in failing {
        let words = one.trouble.as_deref().unwrap_or("the log says more");
        let words = words.lines().next().unwrap_or_default();
        let cause = one.cause.unwrap_or(Cause::Other);
        let (reason, what, todo) = advice(cause, now_ms);
        if reasons.iter().all(|other| other.reason != reason) {
            reasons.push(
                Reason::new(reason, format!("Runners of the pool {name} fail: {what}: {words}")).todo(todo),
            );
        }
    }
    reasons
}

/// Returns the word, the cause in words, and what to do.
fn advice(cause: Cause, now_ms: u64) -> (&'static str, String, &'static str) {
    let (reason, what, todo) = match cause {
        Cause::Image => (
            "image",
            "the image cannot be had",
            "dayfly image pull NAME shows the error at once; check the name, the registry and its credentials",
        ),
        Cause::AppTooOld => (
            "runner_version_too_old",
            "the forge refuses the version of the runner app as too old",
            "put a newer runner app in the image: dayfly image build, or another image",
        ),
        Cause::App => (
            "runner_app",
            "the runner app does not come up, or ends before it has a job",
            "dayfly logs RUNNER of its last runner (dayfly runs --conclusion not-up) has the app's own log",
        ),
        Cause::Machine => (
            "machine",
            "the machine does not come up",
            "dayfly doctor boots a guest on this host and says what is wrong",
        ),
        Cause::NoSpace => (
            "disk_full",
            "the disk of this host has no room for a machine",
            "dayfly image gc and dayfly template gc free space in the state folder",
        ),
        Cause::NoMemory => (
            "no_memory",
            "this host has no memory for a machine",
            "run fewer or smaller machines (memory_overcommit in the table [host]), or end what else uses this host's memory",
        ),
        Cause::NoProcesses => (
            "no_processes",
            "no further process can be started on this host",
            "raise TasksMax= of the service, the limit nproc of its user, or kernel.pid_max; dayfly tries again by itself",
        ),
        Cause::NoDescriptors => (
            "no_descriptors",
            "dayfly, or all of this host, may open no more files",
            "raise LimitNOFILE= of the service, or fs.file-max of the host; dayfly doctor says for how many machines it is enough",
        ),
        Cause::Unreachable => (
            "forge_unreachable",
            "the forge cannot be used",
            "check that this host reaches the forge: dayfly doctor --forge; dayfly tries again by itself",
        ),
        Cause::Refused => (
            "forge_refuses",
            "the forge refuses the credential",
            "dayfly doctor --forge says which permission is missing",
        ),
        Cause::RateLimit { until_ms } => {
            let left = span(until_ms.saturating_sub(now_ms));
            return (
                "rate_limit",
                format!("the forge's rate limit is used up for {left} more"),
                "nothing: it ends by itself",
            );
        }
        Cause::Other => {
            ("failing", "they end before they have a job", "dayfly runs --conclusion not-up lists them")
        }
    };
    (reason, what.to_owned(), todo)
}

/// Explains what holds up a pool that runs.
fn held(name: &str, wait: Wait, waiting: u32) -> Reason {
    let jobs = quantity(waiting, "job waits", "jobs wait");
    match wait {
        Wait::Starting => Reason::new(
            "starting",
            format!("Runners of the pool {name} start, or wait for the forge to give them a job; {jobs}."),
        ),
        Wait::Full { max } => {
            let all =
                if max == 1 { "its only runner".to_owned() } else { format!("all of its {max} runners") };
            Reason::new("pool_full", format!("The pool {name} has {all}, and {jobs}."))
                .todo(format!("wait until jobs end, or let it have more: dayfly scale \"{name}\" --max N"))
        }
        Wait::Budget { scarce, limit } => {
            let (what, key) = match scarce {
                Scarce::Machines => ("machines", "max_machines"),
                Scarce::Vcpus => ("virtual CPUs", "vcpu_overcommit"),
                Scarce::MemoryMib => ("MiB of memory", "memory_overcommit"),
                Scarce::ScratchMib | Scarce::PoolScratchMib => return no_scratch(name, scarce, limit, &jobs),
            };
            Reason::new(
                "host_budget",
                format!("The machines of this host use its budget of {limit} {what} up, and {jobs} for the pool {name}."),
            )
            .todo(format!("wait until jobs end, or raise {key} in the table [host], or give the pool a higher weight"))
        }
        Wait::Measuring => Reason::new(
            "measuring",
            format!(
                "The scratch space in use on this host is being measured, and {jobs} for the pool {name}."
            ),
        ),
        Wait::Turn => Reason::new(
            "turn",
            format!("Another pool of this host has its turn first, and {jobs} for the pool {name}."),
        )
        .todo("wait, or give the pool a higher weight"),
        // The failures say why.
        Wait::Pausing => Reason::new(
            "pausing",
            format!(
                "The pool {name} pauses because its last runners failed, and {jobs}; the pauses double up to a minute."
            ),
        ),
    }
}

/// Explains a limit of scratch space that is used up. `jobs` says how many wait.
fn no_scratch(name: &str, scarce: Scarce, limit_mib: u64, jobs: &str) -> Reason {
    let (code, whose, key, frees) = match scarce {
        Scarce::PoolScratchMib => (
            "pool_scratch",
            format!("The pool {name}"),
            "scratch of the pool",
            "dayfly clear frees what dead processes have left",
        ),
        _ => (
            "host_scratch",
            "This host".to_owned(),
            "scratch in the table [host]",
            "dayfly clear and dayfly template rm --all free some of it",
        ),
    };
    let limit = match limit_mib % 1024 {
        0 => format!("{} GiB", limit_mib / 1024),
        _ => format!("{limit_mib} MiB"),
    };
    Reason::new(
        code,
        format!("{whose} has no scratch space left for another machine within its limit of {limit}, and {jobs} for the pool {name}."),
    )
    .todo(format!("wait until jobs end, or raise {key}; dayfly disk lists who has the space, and {frees}"))
}

/// Returns the sentence about the runners and jobs of a pool.
fn counts(name: &str, pool: &PoolStatus, loops: &[&LoopStatus]) -> Reason {
    let count = |phases: &[Phase]| loops.iter().filter(|one| phases.contains(&one.phase)).count();
    let busy = loops.iter().filter(|one| one.job.is_some() || one.phase == Phase::Busy).count();
    let text = format!(
        "The pool {name} has {} with a job, {} for one and {}; {}.",
        quantity(busy, "runner", "runners"),
        quantity(count(&[Phase::Idle]), "that waits", "that wait"),
        quantity(count(&[Phase::Preparing, Phase::Booting, Phase::Starting]), "that starts", "that start"),
        quantity(pool.waiting, "job waits", "jobs wait")
    );
    Reason::new("counts", text)
}
