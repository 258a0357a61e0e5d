//! Loads kernel modules without `modprobe`, because under emulation each process costs more than the load itself.

use super::{BootError, at};
use crate::console;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The modules that Docker, its bridge networks and `iptables` (nft and legacy) use. A module that the kernel has built
/// in, or does not have, is skipped.
const FOR_DOCKER: &[&str] = &[
    "bridge",
    "br_netfilter",
    "veth",
    "nf_tables",
    "nft_compat",
    "nft_counter",
    "nft_chain_nat",
    "nft_masq",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_nat",
    "xt_addrtype",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_nat",
    "xt_tcpudp",
    "xt_mark",
    "xt_comment",
    "xfrm_user",
];

/// Flag from `linux/module.h`: the kernel unpacks the file itself.
const MODULE_INIT_COMPRESSED_FILE: i32 = 4;

fn folder() -> PathBuf {
    let release = rustix::system::uname();
    Path::new("/lib/modules").join(release.release().to_string_lossy().as_ref())
}

/// Loads the modules that the initramfs lists, in the order of the list. A module that does not load is only logged: if it
/// is needed, a later step fails with its own error, and a driver for a missing processor (`crc32c_intel`) is not needed.
pub(super) fn load_listed() -> Result<(), BootError> {
    let folder = folder();
    let list = folder.join("modules.order-for-boot");
    let text = std::fs::read_to_string(&list).map_err(at("cannot read", &list))?;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let path = listed_path(&folder, line);
        if let Err(error) = load(&path) {
            console::say(&format!("cannot load {}: {error}", path.display()));
        }
    }
    Ok(())
}

/// Returns the path that a line names: an absolute one, one that starts with `lib/modules/...`, or one relative to the
/// kernel's own folder.
fn listed_path(folder: &Path, line: &str) -> PathBuf {
    if line.starts_with("lib/") { Path::new("/").join(line) } else { folder.join(line) }
}

/// Loads the modules that Docker uses.
pub(crate) fn load_for_docker() {
    load_with_needs(FOR_DOCKER);
}

/// Loads these modules and their dependencies from the root file system. A module that does not load is only logged,
/// because the kernel loads many itself, through `modprobe`, when they are first used.
pub(super) fn load_with_needs(names: &[&str]) {
    let folder = folder();
    let list = match std::fs::read_to_string(folder.join("modules.dep")) {
        Ok(list) => list,
        Err(error) => return console::say(&format!("no list of modules in {}: {error}", folder.display())),
    };
    let dependencies = Dependencies::parse(&list);
    for file in dependencies.in_load_order(names) {
        let path = folder.join(file);
        if let Err(error) = load(&path) {
            console::say(&format!("cannot load {}: {error}", path.display()));
        }
    }
}

/// Loads one module. A module that is loaded already is no error.
fn load(path: &Path) -> Result<(), Errno> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let packed = path.extension().is_some_and(|extension| extension != "ko");
    let flags = if packed { MODULE_INIT_COMPRESSED_FILE } else { 0 };
    match rustix::system::finit_module(fd, c"", flags) {
        // No such device: the module is fine, but its device does not exist.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The content of `modules.dep`: lines of `file: files that must be loaded before it`.
struct Dependencies<'a> {
    /// Maps a module's name to its file and the files that it needs.
    modules: HashMap<String, (&'a str, Vec<&'a str>)>,
}

impl<'a> Dependencies<'a> {
    fn parse(text: &'a str) -> Self {
        let modules = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (module_name(file), (file, needs.split_ascii_whitespace().collect())))
            .collect();
        Self { modules }
    }

    /// Returns the files of these modules and of all their dependencies, each once, dependencies first.
    fn in_load_order(&self, names: &[&str]) -> Vec<&'a str> {
        let (mut order, mut seen) = (Vec::new(), HashSet::new());
        for name in names {
            if let Some((file, _)) = self.modules.get(&module_name(name)) {
                self.add(file, &mut order, &mut seen);
            }
        }
        order
    }

    fn add(&self, file: &'a str, order: &mut Vec<&'a str>, seen: &mut HashSet<&'a str>) {
        // The file is marked as seen before its dependencies are followed, so that even a cyclic list comes to an end.
        if seen.insert(file) {
            let needs =
                self.modules.get(&module_name(file)).map(|(_, needs)| needs.as_slice()).unwrap_or_default();
            for need in needs {
                self.add(need, order, seen);
            }
            order.push(file);
        }
    }
}

/// Returns the name of a file's module: `br_netfilter` for `kernel/net/bridge/br-netfilter.ko.xz`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/net/802/stp.ko: kernel/net/llc/llc.ko
kernel/net/llc/llc.ko:
kernel/net/bridge/br-netfilter.ko.xz: kernel/net/bridge/bridge.ko kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
";

    #[test]
    fn needed_modules_come_first_and_each_comes_once() {
        let dependencies = Dependencies::parse(DEP);
        assert_eq!(
            dependencies.in_load_order(&["br_netfilter", "bridge", "no_such_module"]),
            [
                "kernel/net/llc/llc.ko",
                "kernel/net/802/stp.ko",
                "kernel/net/bridge/bridge.ko",
                "kernel/net/bridge/br-netfilter.ko.xz"
            ]
        );
    }

    #[test]
    fn a_circle_in_the_list_ends() {
        assert_eq!(Dependencies::parse(DEP).in_load_order(&["a"]), ["kernel/b.ko", "kernel/a.ko"]);
    }

    #[test]
    fn a_list_may_name_files_in_any_of_three_ways() {
        let folder = Path::new("/lib/modules/6.1");
        for line in ["kernel/x.ko", "lib/modules/6.1/kernel/x.ko", "/lib/modules/6.1/kernel/x.ko"] {
            assert_eq!(listed_path(folder, line), Path::new("/lib/modules/6.1/kernel/x.ko"));
        }
    }
}
