//! Measures what the walls around machines cost: jail, control group, a network of its own.
//!
//! ```text
//!   bench ── in turns ──┬─> machine with all walls, with a tap
//!                       └─> the bench again, in a mount namespace without control groups (`bare`)
//!                             └─> the same machine without walls, with the VMM's own network (slirp)
//! ```
//!
//! dayfly cannot start a VMM without walls. Here the bench is its own launcher, which takes dayfly's order for a VMM and executes
//! the command line alone ([`bare`]).

pub(crate) mod bare;
mod traffic;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use dayfly_vm::{NetworkPolicy, Vm, VmEvent};

use self::bare::Bare;
use self::traffic::Peer;
use crate::figures::Figure;
use crate::machines::{Stage, Times, What};
use crate::{Args, Error, measure};

/// Time after a machine's answer at which its memory is measured.
const SETTLED: Duration = Duration::from_secs(1);
/// Longest time for the data of one machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A measured fork.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Fork {
    /// From the call until the agent has answered, milliseconds.
    ms: f64,
    /// Memory of its processes, MiB.
    mib: f64,
}

/// Measures the costs of walls, as far as this process may make them.
pub(crate) async fn measure(args: &Args) -> Result<Vec<Figure>, Error> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("bench: walls: only root has all of them");
        return Ok(Vec::new());
    }
    let walled = stage(args, NetworkPolicy::Guarded).await?;
    let mut bare = Bare::start(args)?;
    let mut figures = forks(&walled, &mut bare, args.samples).await?;
    figures.extend(traffic(args, &walled, &mut bare).await?);
    Ok(figures)
}

async fn stage(args: &Args, policy: NetworkPolicy) -> Result<Stage, Error> {
    let mut stage = Stage::new(&args.state, &args.binary, &args.image)?;
    stage.connect_by(policy);
    stage.prepare().await?;
    Ok(stage)
}

async fn forks(walled: &Stage, bare: &mut Bare, samples: u32) -> Result<Vec<Figure>, Error> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for number in 0..samples {
        with.push(fork(walled, &format!("walled{number}"), &BTreeSet::from([bare.pid()])).await?);
        without.push(bare.fork()?);
    }
    let figure = |name, unit, all: &[Fork], value: fn(&Fork) -> f64| {
        Figure::of(name, unit, "-", all.iter().map(value).collect())
    };
    let all = [
        figure("fork with all walls: asked for -> agent's answer", "ms", &with, |fork| fork.ms),
        figure("fork without walls: asked for -> agent's answer", "ms", &without, |fork| fork.ms),
        figure("memory (PSS) of a fork with its gate", "MiB", &with, |fork| fork.mib),
        figure("memory (PSS) of a fork without walls", "MiB", &without, |fork| fork.mib),
    ];
    let added =
        |name, unit, goal, at: usize| Figure::of(name, unit, goal, vec![all[at].p50 - all[at + 1].p50]);
    let time = added("walls: time that they add to a fork (medians)", "ms", "25 ms", 0);
    let memory = added("walls: memory that they add to a fork (medians)", "MiB", "3 MiB", 2);
    Ok(all.into_iter().chain([time, memory]).collect())
}

/// Measures one fork. `others` are processes of this one that do not belong to it.
async fn fork(stage: &Stage, name: &str, others: &BTreeSet<u32>) -> Result<Fork, Error> {
    let (vm, times) = stage.start(name, stage.machine(Some(0)), What::Answer).await?;
    tokio::time::sleep(SETTLED).await;
    let ms = Times::between(times.asked, times.identified)?;
    let mib = children()?.difference(others).map(|&pid| measure::pss_mib(pid)).sum::<Result<f64, _>>()?;
    end(vm).await?;
    Ok(Fork { ms, mib })
}

async fn end(mut vm: Vm) -> Result<(), Error> {
    vm.kill().await;
    Ok(vm.destroy().await?)
}

/// Returns the processes that this one has started and that live: of a machine its VMM, which was its launcher, and its gate.
fn children() -> Result<BTreeSet<u32>, Error> {
    let mut pids = BTreeSet::new();
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("children"))?;
        pids.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    // One that has exited has no command line.
    pids.retain(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()));
    Ok(pids)
}

async fn traffic(args: &Args, guarded: &Stage, bare: &mut Bare) -> Result<Vec<Figure>, Error> {
    let peer = Peer::start()?;
    let listed = vec![format!("{}:{}", traffic::PEER, traffic::PORT).parse()?];
    let allowed = stage(args, NetworkPolicy::Allow(listed)).await?;
    let audited = stage(args, NetworkPolicy::Audit(Vec::new())).await?;
    let mut rates = [const { Vec::new() }; 4];
    for number in 0..args.samples.div_ceil(4) {
        let [tap, allow, audit, slirp] = &mut rates;
        for (stage, word, rates) in
            [(guarded, "guarded", tap), (&allowed, "allow", allow), (&audited, "audit", audit)]
        {
            rates.push(send(stage, &format!("{word}{number}"), &peer).await?);
        }
        bare.send()?;
        slirp.push(peer.rate()?);
    }
    let [tap, allow, audit, slirp] = rates;
    let figures = [
        Figure::of("TCP from a guest to a peer: tap, guarded", "MiB/s", "-", tap),
        Figure::of("TCP from a guest to a peer: tap, through the gate (allow)", "MiB/s", "-", allow),
        Figure::of("TCP from a guest to a peer: tap, through the gate (audit)", "MiB/s", "-", audit),
        Figure::of("TCP from a guest to a peer: the VMM's own network (slirp)", "MiB/s", "-", slirp),
    ];
    let ratio = |name, goal, at: usize| Figure::of(name, ":1", goal, vec![figures[at].p50 / figures[3].p50]);
    let of_tap = ratio("TCP from a guest: tap, guarded : slirp (medians)", "2", 0);
    let of_gate = ratio("TCP from a guest: tap, through the gate (allow) : slirp (medians)", "-", 1);
    Ok(figures.into_iter().chain([of_tap, of_gate]).collect())
}

async fn send(stage: &Stage, name: &str, peer: &Peer) -> Result<f64, Error> {
    sender(stage, name).await?;
    peer.rate()
}

/// Starts a machine that sends data to the peer, and ends it when the data are sent.
async fn sender(stage: &Stage, name: &str) -> Result<(), Error> {
    let mut vm =
        dayfly_e2e::machines::Stage::start(stage, name, stage.machine(Some(0)), traffic::sender()).await?;
    let sent = async {
        loop {
            match vm.next_event().await.ok_or("the machine is gone")? {
                VmEvent::Line { text, .. } if text.ends_with(traffic::SENT) => return Ok(()),
                VmEvent::Gone { exit, console_tail } => return Err(format!("{exit}\n{console_tail}").into()),
                VmEvent::EntrypointExited { .. } => return Err("the guest could not send".into()),
                _ => {}
            }
        }
    };
    let sent: Result<(), Error> = tokio::time::timeout(PATIENCE, sent).await?;
    end(vm).await?;
    sent
}
