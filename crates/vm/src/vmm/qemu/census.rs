//! Finds the machines that run on this host, whichever process has started them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::plan::NAME_PREFIX;
use crate::launch::is_user_of_vmm;
use crate::process;

/// The sizes of machines, added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineSizes {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
}

impl MachineSizes {
    fn plus(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_add(other.vcpus),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
        }
    }
}

/// Returns the sum of the memory of all machines of this user on this host, MiB. The VMMs' command lines have their sizes,
/// so machines of other dayfly processes and spares count too, and so do those that have outlived their process. A machine
/// counts as soon as its program runs. Blocks for some milliseconds.
pub(crate) fn committed_mib() -> io::Result<u64> {
    Ok(sum(|_| true)?.memory_mib)
}

/// Returns the sizes of those machines of this user on this host that this process has neither started nor taken over, with the
/// spares of other processes. Blocks for some milliseconds.
///
/// # Errors
/// `/proc` cannot be read.
pub fn machines_of_others() -> io::Result<MachineSizes> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let taken_over = process::taken_over();
    let id = |process: &Path| process.file_name()?.to_str()?.parse().ok();
    let is_taken_over = |process: &Path| id(process).is_some_and(|id| taken_over.contains(&id));
    sum(|process| parent(process) != Some(own) && !is_taken_over(process))
}

/// Adds up the machines whose process passes the test. It gets the process's folder in `/proc`.
fn sum(test: impl Fn(&Path) -> bool) -> io::Result<MachineSizes> {
    let mut sum = MachineSizes::default();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes()[0].is_ascii_digit()
            && let Some(size) = size_of(&entry.path()).filter(|_| test(&entry.path()))
        {
            sum = sum.plus(size);
        }
    }
    Ok(sum)
}

/// Returns the size of the machine whose VMM has this folder in `/proc`. Returns none for any other process, and for one that
/// has exited. Other users' processes do not count, because anybody may start a program with such arguments.
fn size_of(process: &Path) -> Option<MachineSizes> {
    let own = rustix::process::geteuid().as_raw();
    let user = fs::metadata(process).ok()?.uid();
    if user != own && !is_user_of_vmm(user) {
        return None;
    }
    size_in(&fs::read(process.join("cmdline")).ok()?)
}

/// Returns the size of a machine from the command line of its VMM as the kernel shows it. Returns none for any other program.
fn size_in(words: &[u8]) -> Option<MachineSizes> {
    let words: Vec<&[u8]> = words.split(|&byte| byte == 0).collect();
    let value = |option: &[u8]| words.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1]);
    value(b"-name").filter(|name| name.starts_with(NAME_PREFIX.as_bytes()))?;
    let memory_mib = std::str::from_utf8(value(b"-m")?).ok()?.strip_suffix('M')?.parse().ok()?;
    let vcpus = std::str::from_utf8(value(b"-smp")?).ok()?.parse().ok()?;
    Some(MachineSizes { vcpus, memory_mib })
}

/// Returns the parent of the process with this folder in `/proc`; none if it has exited.
fn parent(process: &Path) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name of the program, in brackets, may hold anything; the state and the parent follow it (proc_pid_stat(5)).
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn only_the_command_line_of_a_machine_has_a_size() {
        let of = |line: &str| size_in(line.replace(' ', "\0").as_bytes());
        assert_eq!(
            of("/usr/bin/qemu-system-x86_64 -name dayfly-p-0-abc -smp 2 -m 2048M -nodefaults"),
            Some(MachineSizes { vcpus: 2, memory_mib: 2048 })
        );
        for other in [
            "qemu -name debian -smp 2 -m 2048M",
            "qemu -smp 2 -m 2048M -name",
            "qemu -name dayfly-x -smp 2 -m 2G",
            "",
            "-name",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_machine_of_any_process_is_counted_until_it_has_exited() {
        // It waits for its input, which is this process.
        let mut machine = Command::new("sh")
            .args(["-c", "read x", "sh", "-name", "dayfly-of-a-test", "-smp", "3", "-m", "64M"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("spawn");
        let process = PathBuf::from(format!("/proc/{}", machine.id()));
        // The kernel continues this process before it has set the other one's command line.
        let begin = Instant::now();
        while size_of(&process).is_none() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(size_of(&process), Some(MachineSizes { vcpus: 3, memory_mib: 64 }));
        assert!(committed_mib().expect("counted") >= 64);
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!(parent(&process), Some(own), "it is no machine of another process");
        assert_eq!(sum(|found| found == process).ok(), size_of(&process));
        assert_eq!(
            sum(|found| found == process && parent(found) != Some(own)).ok(),
            Some(MachineSizes::default())
        );
        machine.kill().expect("kill");
        machine.wait().expect("wait");
        assert_eq!(size_of(&process), None);
        assert_eq!(size_of(Path::new("/proc/self")), None);
    }
}
