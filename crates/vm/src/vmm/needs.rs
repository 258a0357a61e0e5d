//! The needs of a machine, from which a VMM's command line follows.

use serde::{Deserialize, Serialize};

use super::Platform;

/// The needs of a machine.
#[derive(Debug, Clone)]
pub(crate) struct VmmNeeds<'a> {
    /// The program, its firmware, the accelerator and the processor model.
    pub(crate) platform: &'a Platform,
    /// Name of the machine, shown in the list of processes.
    pub(crate) name: &'a str,
    /// Frequency of the host's time stamp counter, kHz.
    pub(crate) tsc_khz: u64,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory, MiB.
    pub(crate) memory_mib: u32,
    /// How the machine starts.
    pub(crate) boot: Boot,
}

/// The way in which a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// From its kernel, only to find out whether a guest reaches user space.
    Probe,
    /// From its kernel.
    Cold {
        /// The back end of its network card.
        card: NetworkCard,
        /// Number of the host's folders and files that are shared with it.
        shares: usize,
    },
    /// From its kernel, with memory that outlives it, because other machines are forked from it.
    Template {
        /// The back end of its network card.
        card: NetworkCard,
    },
    /// From the memory, devices and disk of a machine that was kept. Its devices must be those of the machine, in the same
    /// order.
    Thaw {
        /// The back end of its network card: that of the machine.
        card: NetworkCard,
        /// True if the machine was a fork, whose disk is over that of its template.
        is_fork: bool,
    },
    /// From a template's memory, devices and disk. Its devices must be those of [`Boot::Template`], in the same order.
    Fork {
        /// The back end of its network card.
        card: NetworkCard,
    },
}

impl Boot {
    /// Returns true if the machine's kernel boots.
    pub(super) fn is_from_kernel(self) -> bool {
        !matches!(self, Self::Fork { .. } | Self::Thaw { .. })
    }

    /// Returns the back end of the network card, if there is one.
    pub(super) fn card(self) -> Option<NetworkCard> {
        match self {
            Self::Probe => None,
            Self::Cold { card, .. }
            | Self::Template { card }
            | Self::Fork { card }
            | Self::Thaw { card, .. } => Some(card),
        }
    }

    /// Returns the number of shares.
    pub(super) fn shares(self) -> usize {
        match self {
            Self::Cold { shares, .. } => shares,
            Self::Probe | Self::Template { .. } | Self::Fork { .. } | Self::Thaw { .. } => 0,
        }
    }
}

/// The back end of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NetworkCard {
    /// A tap device.
    Tap,
    /// The VMM's own network (slirp).
    User,
}
