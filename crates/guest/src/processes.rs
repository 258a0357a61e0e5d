//! Reads processes and their processor time from /proc.

use rustix::process::Pid;
use std::collections::HashMap;

/// Returns a process and all its descendants, parents before children.
pub(crate) fn with_descendants(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<Pid>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parse_parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&pid) = family.get(next) {
        family.extend(children.remove(&pid.as_raw_nonzero().get()).unwrap_or_default());
        next += 1;
    }
    family
}

/// Parses the parent's id from a process's `stat`. The name in the second field may contain spaces and parentheses.
pub(crate) fn parse_parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Returns a process's name as the kernel stores it: 15 bytes at most.
pub(crate) fn name(pid: Pid) -> String {
    let path = format!("/proc/{}/comm", pid.as_raw_nonzero());
    std::fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// Returns the time that all processors together were busy since the machine's start, in hundredths of a second.
pub(crate) fn busy_ticks() -> u64 {
    parse_busy(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// Sums the fields of the first line (user, nice, system, idle, iowait, irq, softirq, ...) except idle and iowait.
fn parse_busy(stat: &str) -> u64 {
    let fields = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
    let is_work = |&(index, _): &(usize, u64)| !matches!(index, 3 | 4);
    fields.map(|field| field.parse().unwrap_or(0)).enumerate().filter(is_work).map(|(_, ticks)| ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        assert_eq!(parse_parent("7 (a) b) S 42 7 7 0"), Some(42));
        assert_eq!(parse_parent(""), None);
        assert_eq!(parse_busy("cpu  10 1 20 5000 300 2 3 0 0 0\ncpu0 1 1 1 1\n"), 36);
        assert_eq!(parse_busy(""), 0);
    }

    #[test]
    fn a_family_begins_with_its_head() {
        let mut child =
            std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().expect("spawn");
        let head = Pid::from_child(&child);
        let family = loop {
            let family = with_descendants(head);
            if family.len() == 2 {
                break family;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        assert_eq!(family[0], head);
        for pid in family {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        child.wait().expect("end");
    }
}
