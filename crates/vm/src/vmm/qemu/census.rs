//! Finds the machines that run on this host, whichever process has started them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::plan::NAME_PREFIX;
use crate::launch::is_user_of_vmm;

/// Returns the sum of the memory of all machines of this user on this host, MiB. The VMMs' command lines have their sizes,
/// so machines of other dayfly processes and spares count too, and so do those that have outlived their process. A machine
/// counts as soon as its program runs. Blocks for some milliseconds.
pub(crate) fn committed_mib() -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes()[0].is_ascii_digit() {
            sum += size_of(&entry.path()).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// Returns the memory of the machine whose VMM has this folder in `/proc`, MiB. Returns none for any other process, and for
/// one that has exited. Other users' processes do not count, because anybody may start a program with such arguments.
fn size_of(process: &Path) -> Option<u64> {
    let own = rustix::process::geteuid().as_raw();
    let user = fs::metadata(process).ok()?.uid();
    if user != own && !is_user_of_vmm(user) {
        return None;
    }
    memory_mib(&fs::read(process.join("cmdline")).ok()?)
}

/// Returns the memory of a machine, MiB, from the command line of its VMM as the kernel shows it. Returns none for any other
/// program.
fn memory_mib(words: &[u8]) -> Option<u64> {
    let words: Vec<&[u8]> = words.split(|&byte| byte == 0).collect();
    let value = |option: &[u8]| words.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1]);
    value(b"-name").filter(|name| name.starts_with(NAME_PREFIX.as_bytes()))?;
    std::str::from_utf8(value(b"-m")?).ok()?.strip_suffix('M')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn only_the_command_line_of_a_machine_has_a_size() {
        let of = |line: &str| memory_mib(line.replace(' ', "\0").as_bytes());
        assert_eq!(
            of("/usr/bin/qemu-system-x86_64 -name dayfly-p-0-abc -smp 2 -m 2048M -nodefaults"),
            Some(2048)
        );
        for other in
            ["qemu -name debian -m 2048M", "qemu -m 2048M -name", "qemu -name dayfly-x -m 2G", "", "-name"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_machine_of_any_process_is_counted_until_it_has_exited() {
        // It waits for its input, which is this process.
        let mut machine = Command::new("sh")
            .args(["-c", "read x", "sh", "-name", "dayfly-of-a-test", "-m", "64M"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("spawn");
        let process = PathBuf::from(format!("/proc/{}", machine.id()));
        // The kernel continues this process before it has set the other one's command line.
        let begin = Instant::now();
        while size_of(&process).is_none() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(size_of(&process), Some(64));
        assert!(committed_mib().expect("counted") >= 64);
        machine.kill().expect("kill");
        machine.wait().expect("wait");
        assert_eq!(size_of(&process), None);
        assert_eq!(size_of(Path::new("/proc/self")), None);
    }
}
