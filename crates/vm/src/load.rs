//! The load of a machine at one moment, from the kernel's own counts on this host. It asks neither the machine nor the
//! process that owns it, so it slows neither down.

use std::path::Path;

/// The counts of a machine. Each is none if the kernel does not count it for this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineLoad {
    /// Processor time so far, microseconds.
    pub cpu_us: Option<u64>,
    /// Memory of this host in use, bytes, with the page cache of the machine's files.
    pub memory: Option<u64>,
    /// Traffic so far.
    pub traffic: Option<Flow>,
    /// Use of disks of this host so far.
    pub disk: Option<Flow>,
}

/// Bytes in both directions, as the machine sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Bytes received, or read.
    pub inward: u64,
    /// Bytes sent, or written.
    pub outward: u64,
}

/// Returns the load of the machine of a run folder. Only reads: the two records in the folder, and a few files of the kernel.
pub fn machine_load(run_dir: &Path) -> MachineLoad {
    let group = crate::cgroup::load(run_dir);
    let flow = |(inward, outward)| Flow { inward, outward };
    MachineLoad {
        cpu_us: group.cpu_us,
        memory: group.memory,
        traffic: crate::network::traffic(run_dir).map(flow),
        disk: group.disk.map(flow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_of_a_machine_without_records() {
        let run = tempfile::tempdir().expect("a folder");
        assert_eq!(machine_load(run.path()), MachineLoad::default());
        assert_eq!(machine_load(&run.path().join("gone")), MachineLoad::default());
    }
}
