//! The use of a machine, from two looks at the kernel's counts. Pure.

use std::time::Duration;

use dayfly_vm::{Flow, MachineLoad};

/// A look at the counts of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Time since the start of this command.
    pub(super) at: Duration,
    pub(super) load: MachineLoad,
    /// Space of its files on the disk of this host, bytes.
    pub(super) space: Option<u64>,
}

/// The use of a machine. A number is none if the kernel does not count it, or if only one look was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// Processor time, in hundredths of one processor of this host.
    pub(super) cpu_percent: Option<u64>,
    /// Memory, bytes.
    pub(super) memory: Option<u64>,
    /// Traffic, bytes a second.
    pub(super) traffic: Option<Flow>,
    /// Use of the disk, bytes a second.
    pub(super) disk: Option<Flow>,
    /// Space on the disk, bytes.
    pub(super) space: Option<u64>,
}

/// Returns the use of a machine between two looks.
pub(super) fn usage(before: Option<&Sample>, now: &Sample) -> Usage {
    let rates = before.and_then(|before| {
        let time = now.at.checked_sub(before.at).filter(|time| !time.is_zero())?;
        Some((before, time))
    });
    let rate = |of: fn(&MachineLoad) -> Option<Flow>| {
        let (before, time) = rates?;
        let (before, now) = (of(&before.load)?, of(&now.load)?);
        let inward = per_second(before.inward, now.inward, time)?;
        Some(Flow { inward, outward: per_second(before.outward, now.outward, time)? })
    };
    let cpu_percent = rates.and_then(|(before, time)| {
        // Microseconds a second are millionths of a processor.
        Some(per_second(before.load.cpu_us?, now.load.cpu_us?, time)? / 10_000)
    });
    Usage {
        cpu_percent,
        memory: now.load.memory,
        traffic: rate(|load| load.traffic),
        disk: rate(|load| load.disk),
        space: now.space,
    }
}

/// Returns the growth of a count in a second; none if it fell, because the machine is another one then.
fn per_second(before: u64, now: u64, time: Duration) -> Option<u64> {
    let growth = u128::from(now.checked_sub(before)?);
    u64::try_from(growth * 1_000_000 / time.as_micros().max(1)).ok()
}

/// Returns the sum of both directions.
pub(super) fn sum(flow: Flow) -> u64 {
    flow.inward.saturating_add(flow.outward)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, cpu_us: u64, received: u64) -> Sample {
        let flow = |inward| Some(Flow { inward, outward: 2 * inward });
        let load =
            MachineLoad { cpu_us: Some(cpu_us), memory: Some(7), traffic: flow(received), disk: flow(1) };
        Sample { at: Duration::from_millis(at_ms), load, space: Some(9) }
    }

    #[test]
    fn rates_are_the_growth_between_two_looks() {
        let now = usage(Some(&sample(1000, 500_000, 100)), &sample(3000, 3_500_000, 1100));
        assert_eq!((now.cpu_percent, now.memory, now.space), (Some(150), Some(7), Some(9)));
        assert_eq!(now.traffic, Some(Flow { inward: 500, outward: 1000 }));
        assert_eq!(now.disk, Some(Flow::default()), "it is idle, which is not unknown");
    }

    #[test]
    fn a_first_look_and_counts_that_fell_have_no_rate() {
        for before in [None, Some(sample(1000, 9, 9)), Some(sample(2000, 1, 1))] {
            let now = usage(before.as_ref(), &sample(2000, 1, 1));
            assert_eq!((now.cpu_percent, now.traffic), (None, None), "{before:?}");
            assert_eq!(now.memory, Some(7));
        }
    }
}
