//! Reports each process that the kernel kills because the machine has run out of memory: to the host, in the output of
//! the process, which is the job's log, and at the end of the job.

use super::Agent;
use crate::{console, hook};
use dayfly_guest::protocol::GuestMessage;
use rustix::fs::{FileType, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

const KERNEL_LOG: &str = "/dev/kmsg";
/// Longest record of the kernel's log (`CONSOLE_EXT_LOG_MAX` of Linux's printk.h).
const RECORD_MAX: usize = 8 * 1024;
/// Most reports of one machine: a job that uses up its memory again and again says nothing new.
const REPORTS_MAX: usize = 10;

/// A process that the kernel has killed.
#[derive(Debug, PartialEq, Eq)]
struct Victim {
    pid: u32,
    /// Its name, at most 15 bytes.
    name: String,
    /// The memory that it used, MiB.
    used_mib: u64,
}

/// Reads the kernel's log from now on, forever. The read blocks, so an idle machine does nothing for it.
pub(super) fn watch(agent: &Agent) {
    if let Err(error) = read(agent) {
        console::say(&format!("a machine that runs out of memory is not reported: {KERNEL_LOG}: {error}"));
    }
}

fn read(agent: &Agent) -> io::Result<()> {
    let mut log = File::open(KERNEL_LOG)?;
    log.seek(SeekFrom::End(0))?;
    let (mut record, mut reports) = ([0; RECORD_MAX], 0);
    while reports < REPORTS_MAX {
        let length = match log.read(&mut record) {
            Ok(length) => length,
            // The kernel has overwritten records that were not read yet; the next read goes on after them.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
        if let Some(victim) = parse(&text) {
            reports += 1;
            report(agent, victim);
        }
    }
    Ok(())
}

/// Parses a record of the kernel's log (Documentation/ABI/testing/dev-kmsg). Programs can write records too, but none with
/// the facility 0, which is the kernel's. A container that has used up a limit of its own is another matter.
fn parse(record: &str) -> Option<Victim> {
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    if priority >> 3 != 0 {
        return None;
    }
    let (pid, rest) = text.strip_prefix("Out of memory: Killed process ")?.split_once(" (")?;
    // The name can contain anything, so the text is read from its end.
    let (name, sizes) = rest.rsplit_once(") total-vm:")?;
    let kib = |key: &str| {
        let value = sizes.split_once(key).map(|(_, value)| value).unwrap_or_default();
        value.split_once("kB").and_then(|(number, _)| number.parse::<u64>().ok()).unwrap_or_default()
    };
    let used_kib = kib(" anon-rss:") + kib(" file-rss:") + kib(" shmem-rss:");
    Some(Victim { pid: pid.parse().ok()?, name: name.to_owned(), used_mib: used_kib >> 10 })
}

fn report(agent: &Agent, victim: Victim) {
    let memory_mib = memory_mib(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let Victim { pid, name, used_mib } = victim;
    let text = format!(
        "this machine's memory ({memory_mib} MiB) is used up: the kernel has killed {name} (process {pid}), which used \
         {used_mib} MiB"
    );
    // First, because the process exits meanwhile.
    write_to_output_of(pid, &text);
    console::say(&text);
    if let Err(error) = hook::keep_warning(&text) {
        console::say(&format!("the job is not warned: {}: {error}", hook::WARNINGS_FILE));
    }
    agent.outbox.fact(GuestMessage::OutOfMemory { process: name, used_mib, memory_mib });
}

/// Returns the memory of the machine, MiB.
fn memory_mib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    total.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() >> 10
}

/// Writes a line to the standard error of a process, or of its parent if it has none any more. Only a pipe or a terminal is
/// written to: it leads to the program that shows the output.
fn write_to_output_of(pid: u32, text: &str) {
    let line = format!("\ndayfly: {text}\n");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = crate::processes::parse_parent(&stat).and_then(|parent| u32::try_from(parent).ok());
    for pid in [Some(pid), parent].into_iter().flatten() {
        // A full pipe must not stop the agent.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let Ok(pipe) = rustix::fs::open(format!("/proc/{pid}/fd/2"), flags, Mode::empty()) else { continue };
        let is_shown = rustix::fs::fstat(&pipe).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::Fifo || rustix::termios::isatty(&pipe)
        });
        if is_shown && rustix::io::write(&pipe, line.as_bytes()).is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const RECORD: &str = "3,1234,98765432,-;Out of memory: Killed process 812 (stress ) total-vm:x) total-vm:900000kB, \
                          anon-rss:819200kB, file-rss:1024kB, shmem-rss:0kB, UID:1001 pgtables:1700kB oom_score_adj:0\n";

    #[test]
    fn a_process_that_the_kernel_has_killed_is_known_by_its_record() {
        let victim = Victim { pid: 812, name: "stress ) total-vm:x".to_owned(), used_mib: 801 };
        assert_eq!(parse(RECORD), Some(victim));
    }

    #[test]
    fn neither_a_program_nor_the_limit_of_a_container_makes_such_a_record() {
        for other in [
            RECORD.replacen("3,", "11,", 1).as_str(),
            &RECORD.replace("Out of memory", "Memory cgroup out of memory"),
            "6,1,2,-;usb 1-1: new device",
            "3,1,2,-;Out of memory: Killed process (x) total-vm:",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_memory_of_the_machine_is_the_kernels_total() {
        assert_eq!(memory_mib("MemTotal:        2014208 kB\nMemFree: 1 kB\n"), 1967);
        assert_eq!(memory_mib(""), 0);
    }

    #[test]
    fn a_line_comes_out_of_the_pipe_of_the_process_or_of_its_parent() {
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 60 2>/dev/null & echo $!; wait"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut child = String::new();
        let mut stdout = io::BufReader::new(parent.stdout.take().expect("a pipe"));
        io::BufRead::read_line(&mut stdout, &mut child).expect("a line");
        let child = child.trim().parse().expect("a pid");
        write_to_output_of(parent.id(), "of its own");
        // Its own standard error is no pipe.
        write_to_output_of(child, "of a child");
        let end = |pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        end(rustix::process::Pid::from_raw(child.cast_signed()).expect("a pid")).expect("it runs");
        parent.wait().expect("end");
        let mut told = String::new();
        parent.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
        assert_eq!(told, "\ndayfly: of its own\n\ndayfly: of a child\n");
    }
}
