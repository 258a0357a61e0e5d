//! Records what machines could leave behind in the process that starts them, and in its network.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::comes_true;

/// The resources of this process and of its network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Number of open files, by what they are.
    descriptors: BTreeMap<String, usize>,
    threads: usize,
    /// Child processes, including zombies.
    children: Vec<String>,
    /// Links, routes and rules.
    network: String,
}

impl Footprint {
    pub(crate) fn now() -> Self {
        let threads = fs::read_dir("/proc/self/task").expect("threads").count();
        Self { descriptors: descriptors(), threads, children: children_told(), network: network() }
    }

    /// Asserts that nothing was added since this footprint. Waits first, because threads and connections take time to end.
    pub(crate) async fn assert_back(&self) {
        // The network is not compared in the loop, because the processes that inspect it would be children of this one.
        let is_back = comes_true(|| self.misses_nothing_of(&descriptors())).await;
        assert!(is_back, "some of these stay: {:#?}, because these were there: {self:#?}", Self::now());
        let now = Self::now();
        assert_eq!((&now.children, &now.network), (&self.children, &self.network));
    }

    fn misses_nothing_of(&self, descriptors: &BTreeMap<String, usize>) -> bool {
        let is_known = |(name, count): (&String, &usize)| self.descriptors.get(name) >= Some(count);
        let threads = fs::read_dir("/proc/self/task").expect("threads").count();
        descriptors.iter().all(is_known) && threads <= self.threads && children_told() == self.children
    }
}

/// Counts open files by what they are, without the numbers that distinguish two of a kind.
fn descriptors() -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").expect("descriptors").flatten() {
        // A descriptor may be closed before its link is read.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let name = link.to_string_lossy().replace(|character: char| character.is_ascii_digit(), "");
        *all.entry(name).or_default() += 1;
    }
    all
}

/// Returns the child processes of this process, including zombies: pid and program.
pub(crate) fn children() -> Vec<(u32, String)> {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let child = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        // The third field is the state, the fourth the parent.
        let parent = rest.split_ascii_whitespace().nth(1)?;
        (parent == own).then(|| (pid, name.split_once('(').map_or("", |(_, name)| name).to_owned()))
    };
    processes.filter_map(|entry| child(entry.ok()?)).collect()
}

fn children_told() -> Vec<String> {
    children().into_iter().map(|(pid, name)| format!("{pid} {name}")).collect()
}

/// Returns the links, routes and rules of this thread's network namespace.
fn network() -> String {
    let mut looks = vec![vec!["ip", "-o", "link"], vec!["ip", "route", "show", "table", "all"]];
    if rustix::process::geteuid().is_root() {
        looks.push(vec!["nft", "list", "ruleset"]);
    }
    let mut all = String::new();
    for look in looks {
        let output = Command::new(look[0]).args(&look[1..]).output();
        let output = output.unwrap_or_else(|error| panic!("{look:?}: {error}"));
        assert!(output.status.success(), "{look:?}: {}", String::from_utf8_lossy(&output.stderr));
        all.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    all
}

/// Asserts that the network has nothing of any machine. The rules that guard a host which forwards for the first time stay.
pub(crate) fn assert_no_network_of_a_machine() {
    let network = network();
    for part in [": dayfly", "198.19.", "table ip dayfly {"] {
        assert!(!network.contains(part), "{network}");
    }
}

/// Returns the anonymous memory of this process, in KiB.
pub(crate) fn memory_kib() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("its status");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
