//! The figures that the kernel has counted for a machine's group, read once before the group is removed.

use std::fs;
use std::path::Path;

use super::Version;
use super::group::GroupFolder;
use super::record::folders_of;

/// The use that a machine has made of this host: its VMM and its servers of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineUse {
    /// Processor time, milliseconds; none if the kernel does not count it for groups here.
    pub cpu_ms: Option<u64>,
    /// Most memory at once, MiB, with the page cache of its files; none if the kernel does not count it here.
    pub memory_peak_mib: Option<u64>,
}

/// Returns what the machine of a run folder has used so far; nothing is known of a machine without a control group.
pub fn machine_use(run_dir: &Path) -> MachineUse {
    let folders = folders_of(run_dir);
    MachineUse {
        cpu_ms: folders.iter().find_map(cpu_ms),
        memory_peak_mib: folders.iter().find_map(memory_peak_mib),
    }
}

fn cpu_ms(folder: &GroupFolder) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(folder.path.join(file)).ok();
    match folder.version {
        Version::V2 => {
            let text = read("cpu.stat")?;
            let used = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            Some(used.trim().parse::<u64>().ok()? / 1000)
        }
        // It is there if this hierarchy has the controller cpuacct too, as it has on most hosts.
        Version::V1 => Some(read("cpuacct.usage")?.trim().parse::<u64>().ok()? / 1_000_000),
    }
}

fn memory_peak_mib(folder: &GroupFolder) -> Option<u64> {
    let file = match folder.version {
        Version::V2 => "memory.peak", // since Linux 5.19
        Version::V1 => "memory.max_usage_in_bytes",
    };
    let bytes = fs::read_to_string(folder.path.join(file)).ok()?;
    Some(bytes.trim().parse::<u64>().ok()?.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, GroupFolder) {
        let here = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(here.path().join(name), text).expect("written");
        }
        let group = GroupFolder { version, path: here.path().to_owned(), has_memory: true };
        (here, group)
    }

    #[test]
    fn both_versions_of_control_groups_tell_processor_time_and_the_most_memory() {
        let stat = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n";
        let (_here, group) = folder(Version::V2, &[("cpu.stat", stat), ("memory.peak", "104857601\n")]);
        assert_eq!((cpu_ms(&group), memory_peak_mib(&group)), (Some(1234), Some(101)));
        let files = [("cpuacct.usage", "5000000000\n"), ("memory.max_usage_in_bytes", "1048576\n")];
        let (_here, group) = folder(Version::V1, &files);
        assert_eq!((cpu_ms(&group), memory_peak_mib(&group)), (Some(5000), Some(1)));
    }

    #[test]
    fn what_the_kernel_does_not_count_is_unknown_and_not_zero() {
        for version in [Version::V1, Version::V2] {
            let (_here, group) = folder(version, &[("cpu.stat", "nr_periods 0\n")]);
            assert_eq!((cpu_ms(&group), memory_peak_mib(&group)), (None, None));
        }
        let run = tempfile::tempdir().expect("a folder");
        assert_eq!(machine_use(run.path()), MachineUse::default(), "it has no group");
    }
}
