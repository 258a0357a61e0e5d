//! Finds the hierarchies of control groups, and the group of this process in each. Pure.

use std::path::{Path, PathBuf};

use super::{Controller, Version};

/// A hierarchy of control groups that is mounted on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// The controllers of a hierarchy of version 1. Each group of version 2 says itself which it has.
    pub(super) controllers: Vec<Controller>,
    /// The folder of the topmost group that can be seen.
    pub(super) top: PathBuf,
    /// The folder of the group of this process.
    pub(super) own: PathBuf,
}

/// Returns the hierarchies with controllers for machines, from the content of `/proc/self/mountinfo` and
/// `/proc/self/cgroup`. If one is mounted several times, its first mount counts.
pub(super) fn hierarchies(mountinfo: &str, own_groups: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in mountinfo.lines().filter_map(|line| hierarchy_of(line, own_groups)) {
        let is_known = found
            .iter()
            .any(|other| other.version == hierarchy.version && other.controllers == hierarchy.controllers);
        if !is_known {
            found.push(hierarchy);
        }
    }
    found
}

/// Returns the hierarchy of a mount; none if the mount is no hierarchy with controllers for machines, or shows
/// another part of it than that of this process.
fn hierarchy_of(line: &str, own_groups: &str) -> Option<Hierarchy> {
    let (place, kind) = line.split_once(" - ")?;
    let (root, top) = {
        let mut fields = place.split(' ').skip(3);
        (fields.next()?, PathBuf::from(fields.next()?))
    };
    let mut kind = kind.split(' ');
    let (version, options) = match (kind.next()?, kind.nth(1)?) {
        ("cgroup2", options) => (Version::V2, options),
        ("cgroup", options) => (Version::V1, options),
        _ => return None,
    };
    let named = |controller: &Controller| options.split(',').any(|one| one == controller.name(version));
    let controllers: Vec<Controller> = match version {
        Version::V1 => Controller::ALL.into_iter().filter(named).collect(),
        Version::V2 => Vec::new(),
    };
    let name = match (version, controllers.first()) {
        (Version::V2, _) => "",
        (Version::V1, Some(controller)) => controller.name(version),
        (Version::V1, None) => return None,
    };
    let own = own_groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        names.split(',').any(|one| one == name).then_some(path)
    })?;
    // A group outside of what this mount shows, e.g. of a container, begins with `/..`.
    let below = Path::new(own).strip_prefix(root).ok().filter(|path| !path.starts_with(".."))?;
    let own = if below.as_os_str().is_empty() { top.clone() } else { top.join(below) };
    Some(Hierarchy { version, controllers, top, own })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mountinfo: &str, own_groups: &str) -> Vec<(Version, Vec<Controller>, String)> {
        let own = |hierarchy: Hierarchy| {
            (hierarchy.version, hierarchy.controllers, hierarchy.own.display().to_string())
        };
        hierarchies(mountinfo, own_groups).into_iter().map(own).collect()
    }

    #[test]
    fn a_host_with_version_2_has_one_hierarchy() {
        let mountinfo = "21 1 0:20 / /proc rw shared:5 - proc proc rw\n\
                         26 23 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "0::/system.slice/dayfly.service/dayfly\n";
        assert_eq!(
            seen(mountinfo, own),
            [(Version::V2, vec![], "/sys/fs/cgroup/system.slice/dayfly.service/dayfly".to_owned())]
        );
    }

    #[test]
    fn a_host_with_both_versions_has_a_hierarchy_for_each_controller_of_version_1() {
        let mountinfo = "32 31 0:29 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                         34 31 0:31 / /c/cpuset rw - cgroup cgroup rw,cpuset\n\
                         35 31 0:32 / /c/memory rw - cgroup cgroup rw,memory\n\
                         36 31 0:32 / /again rw - cgroup cgroup rw,memory\n\
                         40 31 0:37 / /c/systemd rw - cgroup cgroup rw,name=systemd\n\
                         41 31 0:38 / /c/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n3:cpuset:/\n2:cpu,cpuacct:/\n1:name=systemd:/u\n0::/\n";
        use Controller::{Cpu, Memory};
        assert_eq!(
            seen(mountinfo, own),
            [
                (Version::V1, vec![Cpu], "/c/cpu,cpuacct".to_owned()),
                (Version::V1, vec![Memory], "/c/memory/a/b".to_owned()),
                (Version::V2, vec![], "/c/unified".to_owned()),
            ]
        );
    }

    #[test]
    fn a_container_sees_its_own_part_of_a_hierarchy_and_no_group_outside_of_it() {
        let mountinfo = "35 31 0:32 /docker/1f /c/memory ro - cgroup cgroup rw,memory\n";
        let own = |path: &str| format!("4:memory:{path}\n");
        let memory = |path: &str| vec![(Version::V1, vec![Controller::Memory], path.to_owned())];
        assert_eq!(seen(mountinfo, &own("/docker/1f")), memory("/c/memory"));
        assert_eq!(seen(mountinfo, &own("/docker/1f/x")), memory("/c/memory/x"));
        assert_eq!(seen(mountinfo, &own("/docker/other")), []);
        let namespaced = mountinfo.replace("/docker/1f", "/");
        assert_eq!(seen(&namespaced, &own("/../other")), []);
        assert_eq!(seen("", ""), []);
    }
}
