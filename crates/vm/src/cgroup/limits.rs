//! The limits of a machine's group, from the size of the machine. Pure.

use super::{Controller, Version};
use crate::accel::Accel;

/// Memory of a VMM beside its guest's, MiB: its program, its devices, its page tables' fixed part, and the page cache
/// of the machine's disks, which the kernel also counts and gives back first.
const VMM_MIB: u64 = 256;
/// The same for translated code under emulation, MiB: QEMU's `tb-size`.
const TRANSLATED_CODE_MIB: u64 = 256;
/// Part of the guest's memory that its page tables and the structures of its devices need on this host: 1/64, eight
/// times the 1/512 of small pages.
const TABLES_PART: u64 = 64;
/// Memory of a server of files, MiB: its program, its open files, and the page cache of what the guest reads and
/// writes.
const SERVER_MIB: u64 = 256;
/// Most processes and threads of a VMM beside its virtual processors: QEMU has up to 64 threads for disks, and some
/// others.
const VMM_THREADS: u64 = 128;
/// Most processes and threads of a server of files, which has up to 64 for requests.
const SERVER_THREADS: u64 = 128;
/// Share of processor time for each virtual processor, as a weight: that of one ordinary process.
const WEIGHT_PER_CPU: u64 = 100;
/// Largest weight of version 2.
const WEIGHT_MAX: u64 = 10_000;
/// The same share in the unit of version 1.
const SHARES_PER_CPU: u64 = 1024;
/// Largest share of version 1.
const SHARES_MAX: u64 = 262_144;
/// Period for which processor time is counted, microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// The size of a machine, as far as limits follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupSize {
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) accel: Accel,
    /// Number of servers of files.
    pub(crate) shares: usize,
}

/// The limits of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupLimits {
    memory_mib: u64,
    processes: u64,
    cpus: u64,
    /// Processors that it may use at the same time. A VMM does work of its own beside that of its virtual processors.
    cpus_max: u64,
}

impl From<GroupSize> for GroupLimits {
    fn from(size: GroupSize) -> Self {
        let GroupSize { memory_mib, cpus, accel, shares } = size;
        let (memory_mib, cpus) = (u64::from(memory_mib), u64::from(cpus));
        let shares = u64::try_from(shares).unwrap_or(u64::MAX);
        let code_mib = match accel {
            Accel::Tcg => TRANSLATED_CODE_MIB,
            Accel::Kvm => 0,
        };
        let overhead_mib = VMM_MIB + code_mib + memory_mib / TABLES_PART + shares * SERVER_MIB;
        Self {
            memory_mib: memory_mib + overhead_mib,
            processes: VMM_THREADS + cpus + shares * SERVER_THREADS,
            cpus,
            cpus_max: cpus + 1 + shares,
        }
    }
}

impl GroupLimits {
    /// Returns the files of a controller and their values, in the order in which they are written.
    pub(super) fn files(&self, controller: Controller, version: Version) -> Vec<(&'static str, String)> {
        let bytes = (self.memory_mib << 20).to_string();
        let quota = self.cpus_max * PERIOD_US;
        match (controller, version) {
            // If one process is killed, all are: a VMM without its servers, or a server without its VMM, is of no use.
            (Controller::Memory, Version::V2) => {
                vec![("memory.max", bytes), ("memory.oom.group", "1".to_owned())]
            }
            (Controller::Memory, Version::V1) => vec![("memory.limit_in_bytes", bytes)],
            (Controller::Pids, _) => vec![("pids.max", self.processes.to_string())],
            (Controller::Cpu, Version::V2) => vec![
                ("cpu.weight", (self.cpus * WEIGHT_PER_CPU).clamp(1, WEIGHT_MAX).to_string()),
                ("cpu.max", format!("{quota} {PERIOD_US}")),
            ],
            (Controller::Cpu, Version::V1) => vec![
                ("cpu.shares", (self.cpus * SHARES_PER_CPU).clamp(2, SHARES_MAX).to_string()),
                ("cpu.cfs_period_us", PERIOD_US.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ],
            // A group of its own is enough: schedulers of disks are fair among groups. Rates are the disk's own
            // settings.
            (Controller::Io, _) => Vec::new(),
        }
    }

    /// Returns the limit of a controller, in words for people.
    pub(super) fn words(&self, controller: Controller) -> String {
        match controller {
            Controller::Memory => format!("{} MiB of memory", self.memory_mib),
            Controller::Pids => format!("{} processes", self.processes),
            Controller::Cpu => {
                format!("{} processors at most, and the share of {}", self.cpus_max, self.cpus)
            }
            Controller::Io => "a fair share of disk access".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn size(memory_mib: u32, cpus: u32, accel: Accel, shares: usize) -> GroupSize {
        GroupSize { memory_mib, cpus, accel, shares }
    }

    #[test]
    fn the_files_of_both_versions_are_as_the_kernel_wants_them() {
        let mut text = String::new();
        for size in [size(4096, 2, Accel::Kvm, 0), size(1024, 1, Accel::Tcg, 2)] {
            let limits = GroupLimits::from(size);
            writeln!(text, "{size:?}").expect("text");
            for version in [Version::V1, Version::V2] {
                for controller in Controller::ALL {
                    for (file, value) in limits.files(controller, version) {
                        writeln!(text, "  {version:?} {file} = {value}").expect("text");
                    }
                }
            }
            for controller in Controller::ALL {
                writeln!(text, "  {}", limits.words(controller)).expect("text");
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_limit_is_never_below_what_the_machine_is_made_of() {
        for memory_mib in [64, 512, 4096, 65_536, u32::MAX] {
            for cpus in [1, 2, 64, 512] {
                for (accel, shares) in [(Accel::Kvm, 0), (Accel::Tcg, 16)] {
                    let limits = GroupLimits::from(size(memory_mib, cpus, accel, shares));
                    assert!(limits.memory_mib >= u64::from(memory_mib) + VMM_MIB);
                    assert!(limits.processes > u64::from(cpus) && limits.cpus_max > u64::from(cpus));
                    let value = |name: &str, controller, version| {
                        let files = limits.files(controller, version);
                        let found = files.iter().find(|(file, _)| *file == name).expect("a file");
                        found.1.parse::<u64>().expect("a number")
                    };
                    assert!((1..=10_000).contains(&value("cpu.weight", Controller::Cpu, Version::V2)));
                    assert!((2..=262_144).contains(&value("cpu.shares", Controller::Cpu, Version::V1)));
                }
            }
        }
    }
}
