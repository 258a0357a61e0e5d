//! The figures that the kernel counts for a machine's group: at any time, and once more before the group is removed.

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

/// The counts of a machine's group at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct GroupLoad {
    /// Processor time so far, microseconds.
    pub(crate) cpu_us: Option<u64>,
    /// Memory in use, bytes, with the page cache of its files.
    pub(crate) memory: Option<u64>,
    /// Bytes read from disks of the host so far, and bytes written to them.
    pub(crate) disk: Option<(u64, u64)>,
}

/// Returns what the machine of a run folder has used so far; nothing is known of a machine without a control group.
pub fn machine_use(run_dir: &Path) -> MachineUse {
    let folders = folders_of(run_dir);
    MachineUse {
        cpu_ms: folders.iter().find_map(cpu_us).map(|us| us / 1000),
        memory_peak_mib: folders.iter().find_map(memory_peak_mib),
    }
}

/// Returns the counts of the group of a run folder as they are now.
pub(crate) fn load(run_dir: &Path) -> GroupLoad {
    let folders = folders_of(run_dir);
    GroupLoad {
        cpu_us: folders.iter().find_map(cpu_us),
        memory: folders.iter().find_map(memory),
        disk: folders.iter().find_map(disk),
    }
}

fn cpu_us(folder: &GroupFolder) -> Option<u64> {
    match folder.version {
        Version::V2 => {
            let text = fs::read_to_string(folder.path.join("cpu.stat")).ok()?;
            let used = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            used.trim().parse().ok()
        }
        // It is there if this hierarchy has the controller cpuacct too, as it has on most hosts.
        Version::V1 => number(folder, "cpuacct.usage").map(|ns| ns / 1000),
    }
}

fn memory(folder: &GroupFolder) -> Option<u64> {
    number(
        folder,
        match folder.version {
            Version::V2 => "memory.current",
            Version::V1 => "memory.usage_in_bytes",
        },
    )
}

/// Returns the bytes that were read from all disks, and those that were written.
fn disk(folder: &GroupFolder) -> Option<(u64, u64)> {
    let file = match folder.version {
        Version::V2 => "io.stat",
        Version::V1 => "blkio.throttle.io_service_bytes",
    };
    let text = fs::read_to_string(folder.path.join(file)).ok()?;
    let sum = |values: &mut dyn Iterator<Item = &str>| {
        values.filter_map(|value| value.trim().parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    // Version 2: `8:0 rbytes=1 wbytes=2 rios=...`. Version 1: `8:0 Read 1`, `8:0 Write 2` and other lines.
    let of = |key: &str, word: &str| match folder.version {
        Version::V2 => sum(&mut text.split_whitespace().filter_map(|field| field.strip_prefix(key))),
        Version::V1 => {
            sum(&mut text.lines().filter_map(|line| line.split_once(word).map(|(_, value)| value)))
        }
    };
    Some((of("rbytes=", " Read "), of("wbytes=", " Write ")))
}

fn number(folder: &GroupFolder, file: &str) -> Option<u64> {
    fs::read_to_string(folder.path.join(file)).ok()?.trim().parse().ok()
}

fn memory_peak_mib(folder: &GroupFolder) -> Option<u64> {
    let file = match folder.version {
        Version::V2 => "memory.peak", // since Linux 5.19
        Version::V1 => "memory.max_usage_in_bytes",
    };
    Some(number(folder, file)?.div_ceil(1 << 20))
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
        assert_eq!((cpu_us(&group), memory_peak_mib(&group)), (Some(1_234_567), Some(101)));
        let files = [("cpuacct.usage", "5000000000\n"), ("memory.max_usage_in_bytes", "1048576\n")];
        let (_here, group) = folder(Version::V1, &files);
        assert_eq!((cpu_us(&group), memory_peak_mib(&group)), (Some(5_000_000), Some(1)));
    }

    #[test]
    fn both_versions_tell_the_memory_and_the_bytes_of_all_disks_at_this_moment() {
        let io = "8:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n254:0 rbytes=1 wbytes=2 rios=1\n";
        let (_here, group) = folder(Version::V2, &[("memory.current", "4096\n"), ("io.stat", io)]);
        assert_eq!((memory(&group), disk(&group)), (Some(4096), Some((101, 9))));
        let io =
            "8:0 Read 100\n8:0 Write 7\n8:0 Sync 5\n8:0 Total 107\n8:16 Read 1\n8:16 Write 2\nTotal 110\n";
        let files = [("memory.usage_in_bytes", "8192\n"), ("blkio.throttle.io_service_bytes", io)];
        let (_here, group) = folder(Version::V1, &files);
        assert_eq!((memory(&group), disk(&group)), (Some(8192), Some((101, 9))));
        let (_here, group) = folder(Version::V2, &[("io.stat", "")]);
        assert_eq!(disk(&group), Some((0, 0)), "it has used no disk yet");
    }

    #[test]
    fn what_the_kernel_does_not_count_is_unknown_and_not_zero() {
        for version in [Version::V1, Version::V2] {
            let (_here, group) = folder(version, &[("cpu.stat", "nr_periods 0\n")]);
            assert_eq!((cpu_us(&group), memory_peak_mib(&group)), (None, None));
            assert_eq!((memory(&group), disk(&group)), (None, None));
        }
        let run = tempfile::tempdir().expect("a folder");
        assert_eq!(machine_use(run.path()), MachineUse::default(), "it has no group");
    }
}
