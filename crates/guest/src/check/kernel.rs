//! Checks the kernel options that Docker needs: the list of moby's `check-config.sh`, looked up in the kernel's own files.
//!
//! A kernel's configuration is not always available (Debian's is a file of its package, and others have it in `/proc`).
//! Without it, the kernel's modules, file systems, control groups and files show which options are set.

use dayfly_guest::finding::{Finding, FindingState, Part};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// The sign that shows an option if no configuration does.
#[derive(Debug, Clone, Copy)]
enum Sign {
    Module(&'static str),
    FileSystem(&'static str),
    /// A cgroup controller of version 1, or its replacement in version 2.
    Group(&'static str),
    File(&'static str),
    /// No sign: without a configuration, the option is not checked.
    None,
}

use Sign::{File, FileSystem, Group, Module};

/// The options that moby calls generally necessary.
const NEEDED: [(&str, Sign); 24] = [
    ("NET_NS", File("/proc/self/ns/net")),
    ("PID_NS", File("/proc/self/ns/pid")),
    ("IPC_NS", File("/proc/self/ns/ipc")),
    ("UTS_NS", File("/proc/self/ns/uts")),
    ("CGROUPS", File("/proc/cgroups")),
    ("CGROUP_CPUACCT", Group("cpuacct")),
    ("CGROUP_DEVICE", Group("devices")),
    ("CGROUP_FREEZER", Group("freezer")),
    ("CGROUP_SCHED", Group("cpu")),
    ("CPUSETS", Group("cpuset")),
    ("MEMCG", Group("memory")),
    ("KEYS", File("/proc/keys")),
    ("VETH", Module("veth")),
    ("BRIDGE", Module("bridge")),
    ("BRIDGE_NETFILTER", Module("br_netfilter")),
    ("IP_NF_FILTER", Module("iptable_filter")),
    ("IP_NF_NAT", Module("iptable_nat")),
    ("IP_NF_TARGET_MASQUERADE", Module("xt_MASQUERADE")),
    ("NETFILTER_XT_MATCH_ADDRTYPE", Module("xt_addrtype")),
    ("NETFILTER_XT_MATCH_CONNTRACK", Module("xt_conntrack")),
    ("NETFILTER_XT_MARK", Module("xt_mark")),
    ("NF_NAT", Module("nf_nat")),
    ("POSIX_MQUEUE", FileSystem("mqueue")),
    ("OVERLAY_FS", FileSystem("overlay")),
];

/// The options that moby calls optional, if they are useful in a machine for one job.
const OPTIONAL: [(&str, Sign); 17] = [
    ("USER_NS", File("/proc/self/ns/user")),
    ("SECCOMP", File("/proc/sys/kernel/seccomp")),
    ("CGROUP_PIDS", Group("pids")),
    ("BLK_CGROUP", Group("blkio")),
    ("CGROUP_PERF", Group("perf_event")),
    ("CGROUP_HUGETLB", Group("hugetlb")),
    ("CFS_BANDWIDTH", Sign::None),
    ("EXT4_FS", FileSystem("ext4")),
    ("NFT_COMPAT", Module("nft_compat")),
    ("NETFILTER_XT_MATCH_IPVS", Module("xt_ipvs")),
    ("IP_NF_TARGET_REDIRECT", Module("xt_REDIRECT")),
    ("IP_VS", Module("ip_vs")),
    ("VXLAN", Module("vxlan")),
    ("XFRM_USER", Module("xfrm_user")),
    ("IPVLAN", Module("ipvlan")),
    ("MACVLAN", Module("macvlan")),
    ("DUMMY", Module("dummy")),
];

/// Most bytes that are read of one of the kernel's files.
const LENGTH_MAX: u64 = 16 * 1024 * 1024;

/// The kernel's configuration and features, as its files show them.
#[derive(Debug, Default)]
struct Kernel {
    /// Maps an option, without `CONFIG_`, to `y` or `m`; `None` if there is no configuration.
    config: Option<HashMap<String, String>>,
    /// Names of the modules, as files or built in, with `_` for `-`.
    modules: HashSet<String>,
    file_systems: HashSet<String>,
    groups: HashSet<String>,
    /// True if cgroup version 2 is in use, which has some controllers of version 1 without naming them.
    groups_2: bool,
}

pub(super) fn look() -> Vec<Finding> {
    Kernel::here().judge(&|path| Path::new(path).exists())
}

impl Kernel {
    fn here() -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let modules = Path::new("/lib/modules").join(release.as_ref());
        let config = [modules.join("config"), Path::new("/boot").join(format!("config-{release}"))];
        let groups_2 = read("/sys/fs/cgroup/cgroup.controllers");
        Self {
            config: config.iter().find_map(read).map(|text| options(&text)),
            modules: ["modules.dep", "modules.builtin"]
                .iter()
                .filter_map(|name| read(modules.join(name)))
                .flat_map(|text| module_names(&text))
                .collect(),
            file_systems: last_words(&read("/proc/filesystems").unwrap_or_default()),
            groups: groups(
                &read("/proc/cgroups").unwrap_or_default(),
                groups_2.as_deref().unwrap_or_default(),
            ),
            groups_2: groups_2.is_some(),
        }
    }

    fn judge(&self, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
        let lacks = |asked: &[(&'static str, Sign)]| -> Vec<&'static str> {
            asked
                .iter()
                .filter(|(option, sign)| !self.has(option, *sign, exists))
                .map(|(option, _)| *option)
                .collect()
        };
        let (needed, optional) = (lacks(&NEEDED), lacks(&OPTIONAL));
        let finding = |name: &str, state, missing: &[&str], all: usize| {
            let seen = match missing {
                [] => format!("all {all} options"),
                missing => format!("without {}", missing.join(", ")),
            };
            Finding::new(Part::Docker, name, if missing.is_empty() { FindingState::Ok } else { state }, seen)
        };
        vec![
            finding("kernel, needed", FindingState::Missing, &needed, NEEDED.len()),
            finding("kernel, optional", FindingState::Wanted, &optional, OPTIONAL.len()),
        ]
    }

    fn has(&self, option: &str, sign: Sign, exists: &dyn Fn(&str) -> bool) -> bool {
        let by_module = |name: &str| self.modules.contains(name);
        match (self.config.as_ref().map(|config| config.get(option).map(String::as_str)), sign) {
            (Some(Some("y")), _) => true,
            // The option is configured as a module, so the module must exist.
            (Some(Some(_)), Module(name)) => by_module(name),
            (Some(Some(_)), FileSystem(name)) => self.file_systems.contains(name) || by_module(name),
            (Some(Some(_)), _) => true,
            // Later kernels have the same option under another name, so the module decides.
            (Some(None) | None, Module(name)) => by_module(name),
            (Some(None), _) => false,
            (None, FileSystem(name)) => self.file_systems.contains(name) || by_module(name),
            (None, Group(name)) => {
                let of_2 = ["cpuacct", "devices", "freezer"].contains(&name) && self.groups_2;
                self.groups.contains(name) || of_2
            }
            (None, File(path)) => exists(path),
            (None, Sign::None) => true,
        }
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(LENGTH_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Parses the options that a configuration sets.
fn options(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("CONFIG_")?.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Parses the names of modules from a list of their files.
fn module_names(text: &str) -> HashSet<String> {
    let files = text.lines().map(|line| line.split(':').next().unwrap_or_default());
    let name =
        |file: &str| file.rsplit('/').next()?.split_once(".ko").map(|(name, _)| name.replace('-', "_"));
    files.filter_map(name).collect()
}

fn last_words(text: &str) -> HashSet<String> {
    text.lines().filter_map(|line| line.split_ascii_whitespace().last()).map(str::to_owned).collect()
}

/// Returns the controllers of both versions. Version 2 has `io` instead of `blkio`.
fn groups(version_1: &str, version_2: &str) -> HashSet<String> {
    let on = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        matches!(words[..], [name, _, _, "1"] if !name.starts_with('#')).then(|| words[0].to_owned())
    };
    let second = version_2.split_ascii_whitespace().map(|name| if name == "io" { "blkio" } else { name });
    version_1.lines().filter_map(on).chain(second.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kernel: &Kernel) -> Vec<String> {
        let findings = kernel.judge(&|path| path != "/proc/keys");
        findings
            .iter()
            .map(|finding| format!("{:?} {}: {}", finding.state, finding.name, finding.seen))
            .collect()
    }

    fn all_modules() -> HashSet<String> {
        let names = NEEDED.iter().chain(&OPTIONAL).filter_map(|(_, sign)| match sign {
            Module(name) => Some(format!("kernel/net/{}.ko.xz: kernel/x.ko.xz", name.replace('_', "-"))),
            _ => None,
        });
        module_names(&names.collect::<Vec<_>>().join("\n"))
    }

    fn kernel() -> Kernel {
        let table =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t0\t1\t1\nmemory\t0\t1\t0\n";
        Kernel {
            config: None,
            modules: all_modules(),
            file_systems: last_words("nodev\tmqueue\nnodev\toverlay\n\text4\n"),
            groups: groups(table, "memory io pids hugetlb perf_event"),
            groups_2: true,
        }
    }

    #[test]
    fn a_kernel_without_a_configuration_is_known_by_what_it_has() {
        assert_eq!(
            told(&kernel()),
            ["Missing kernel, needed: without KEYS", "Ok kernel, optional: all 17 options"]
        );
        let mut poor = kernel();
        poor.modules.remove("veth");
        poor.modules.remove("vxlan");
        poor.groups.remove("memory");
        assert_eq!(
            told(&poor),
            ["Missing kernel, needed: without MEMCG, KEYS, VETH", "Wanted kernel, optional: without VXLAN"]
        );
    }

    #[test]
    fn a_configuration_is_believed_as_far_as_its_modules_are_there() {
        let set = NEEDED.iter().chain(&OPTIONAL).map(|(option, sign)| match sign {
            Module(_) | FileSystem(_) => format!("CONFIG_{option}=m\n"),
            _ => format!("CONFIG_{option}=y\n"),
        });
        let mut kernel = Kernel { config: Some(options(&set.collect::<String>())), ..kernel() };
        assert_eq!(told(&kernel)[0], "Ok kernel, needed: all 24 options");
        kernel.modules.remove("bridge");
        assert_eq!(told(&kernel)[0], "Missing kernel, needed: without BRIDGE");
        let config = kernel.config.as_mut().expect("there");
        config.insert("BRIDGE".to_owned(), "y".to_owned());
        config.remove("POSIX_MQUEUE");
        config.remove("NETFILTER_XT_MARK");
        assert_eq!(
            told(&kernel)[0],
            "Missing kernel, needed: without POSIX_MQUEUE",
            "the mark's module is there"
        );
    }
}
