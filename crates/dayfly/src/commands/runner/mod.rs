//! `dayfly runner`: runs one slot without an orchestrator.

pub(crate) mod credential;
pub(crate) mod prepare;
pub(crate) mod pump;
pub(crate) mod refresh;
pub(crate) mod request;

use dayfly_fleet::fact::FactRecord;
use dayfly_fleet::slot::{Slot, environment_in};
use dayfly_fleet::stop::{StopOrder, StopSender};
use dayfly_fleet::{LoopEnd, RunnerEnd, run_loop};
use dayfly_fleet::{history, kept};
use dayfly_vm::VmHost;
use tokio::sync::mpsc;

use super::machine;
use crate::cli::LoopOptions;
use crate::exit::{Failure, Outcome, Result, Signal};
use crate::settings::Places;
use crate::signals::Signals;
use prepare::Prepared;
use pump::Pump;
use refresh::Keepers;
use request::PoolRequest;

pub(crate) async fn run(places: &Places, options: LoopOptions) -> Result<Outcome> {
    let mut signals = Signals::take_over()?.with_hand_over()?;
    let json = options.args.looping.json;
    let index = options.args.index.unwrap_or(0);
    let request = PoolRequest::read(&options, places)?;
    let host = machine::unchecked_host(places);
    let resolved = prepare::resolve(places, &host, prepare::ask(vec![request]).await?, json).await?;
    let Prepared { host, instance, mut pools } =
        prepare::prepare(places, host, resolved, Some(index), json).await?;
    let inherited = pools[0].inherited.pop();
    let pools: Vec<_> = pools.into_iter().map(|prepared| prepared.pool).collect();
    let pool = &pools[0];
    let mut pump = Pump::open(&places.state, &instance, json)?;
    // Another orchestrator may have created the directory, and then waits for the note in it that a runner is up.
    let given = options.args.looping.environment.clone();
    let leaves_tkn = given.is_some();
    let environment =
        given.unwrap_or_else(|| environment_in(&instance.environment(), &pool.spec.prefix, index));
    let slot = Slot { leaves_tkn, ..Slot::new(pool, index, environment) };
    let (facts, stream) = dayfly_fleet::stream::channel();
    let (sender, stop) = dayfly_fleet::stop::channel();
    let keepers = Keepers::of(&pools, json);
    let running = run_loop((pool, &slot, &host), inherited, &facts, stop);
    let (end, stopped_by) = follow(running, &host, &mut signals, &sender, stream, &mut pump).await;
    drop(keepers);
    prepare::close(&host, instance, stopped_by).await?;
    match (end, stopped_by) {
        (LoopEnd::Failed(error), _) => Err(Failure::cannot(error)),
        (_, Some(signal)) => Ok(Outcome::StoppedBy(signal)),
        (LoopEnd::Finished(RunnerEnd::MachineLost { exit }), None) => {
            Err(Failure::cannot(format!("the machine has ended in the middle of its work: {exit}")))
        }
        (LoopEnd::Finished(_) | LoopEnd::Broken | LoopEnd::Stopped, None) => Ok(Outcome::Success),
    }
}

/// Passes facts and signals on until `running` has ended. The first signal stops the runners gently, the second one at once.
/// SIGUSR2 hands them over to the next start.
pub(crate) async fn follow<T>(
    running: impl Future<Output = T>,
    host: &VmHost,
    signals: &mut Signals,
    sender: &StopSender,
    mut stream: mpsc::Receiver<FactRecord>,
    pump: &mut Pump,
) -> (T, Option<Signal>) {
    let mut stopped_by: Option<Signal> = None;
    let upkeep = history::keep_up(pump.history(), |trouble| tracing::warn!("{trouble}"));
    let kept = kept::keep_up(host, |word| tracing::info!("{word}"));
    tokio::pin!(running, upkeep, kept);
    let end = loop {
        tokio::select! {
            biased;
            signal = signals.next() => {
                pump.stopping();
                sender.order(match signal {
                    Signal::HandOver => StopOrder::HandOver,
                    _ if stopped_by.is_none() => StopOrder::Gently,
                    _ => StopOrder::AtOnce,
                });
                stopped_by = stopped_by.or(Some(signal));
            }
            Some(record) = stream.recv() => pump.take(&record),
            () = pump.due() => pump.write_status(),
            never = &mut upkeep => match never {},
            never = &mut kept => match never {},
            end = &mut running => break end,
        }
    };
    while let Ok(record) = stream.try_recv() {
        pump.take(&record);
    }
    pump.write_status();
    (end, stopped_by)
}
