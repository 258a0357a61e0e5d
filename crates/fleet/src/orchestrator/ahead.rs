//! Prepares the template of a scaled pool at the start, so that its first job does not wait for it.

use std::ops::ControlFlow;

use dayfly_vm::VmHost;
use tokio::task::JoinSet;

use crate::demand::Demand;
use crate::fact::Fact;
use crate::pool::Pool;
use crate::runner::{Relay, network_of_template};
use crate::stop::Stop;
use crate::stream::{FactSink, FactWriter};

/// Starts the preparation for a pool whose runners come with its jobs. Others prepare it with their first runner.
pub(super) fn start(
    (pool, first_slot): (&Pool, u32),
    host: &VmHost,
    (facts, stop): (&FactSink, &Stop),
    tasks: &mut JoinSet<()>,
) {
    if let Demand::Scaled(_) = pool.spec.demand {
        let facts = facts.of_pool(pool).of_loop(first_slot);
        tasks.spawn(prepare(pool.clone(), host.clone(), facts, stop.clone()));
    }
}

async fn prepare(pool: Pool, host: VmHost, mut facts: FactWriter, stop: Stop) {
    let network = network_of_template(&pool.spec);
    let relay = Relay::new();
    let mut tell = relay.teller();
    let preparing = dayfly_vm::prepare(&host, &pool.machine, &network, &pool.spec.mounts, &mut tell);
    if let ControlFlow::Continue(Err(error)) = relay.wait(preparing, &mut facts, stop).await {
        // The first runner meets the same error, and its pool pauses.
        let (source, message) = ("template".to_owned(), error.to_string());
        facts.tell(Fact::SourceTrouble { source, message }).await;
    }
}
