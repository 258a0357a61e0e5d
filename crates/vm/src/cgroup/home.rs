//! Finds the places in which groups of machines are created, and prepares them.
//!
//! With version 2, a group that passes controllers on to groups below it may contain no process. So the process of
//! dayfly must not be in the group that holds those of its machines. In this order:
//!
//! 1. The unit puts the process into the group `dayfly` of the unit's own (`DelegateSubgroup=dayfly`): machines get
//!    groups beside it.
//! 2. Another own group, e.g. a scope: the process moves into a group `dayfly` below it. Not so for a service, because
//!    systemd could not start the next process into a group that has machines below it.
//! 3. Root: below `dayfly` at the top, as Docker does it if it has no systemd, unless this evaded a limit of the
//!    process.
//!
//! With version 1, groups are created below the group of the process in each hierarchy, so its own limits count for
//! machines too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use super::mounts::{Hierarchy, hierarchies};
use super::{Controller, Version};

/// Name of the group for the process of dayfly itself, and of the group of all machines at the top.
const DAYFLY: &str = "dayfly";
/// Weight of the process of dayfly beside its machines: that of ten virtual processors, because it serves all of them.
const OWN_WEIGHT: &str = "1000";

/// A folder in which groups of machines are created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) version: Version,
    pub(super) folder: PathBuf,
    pub(super) controllers: Vec<Controller>,
}

/// Why machines get no group in a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) mend: Option<&'static str>,
}

impl Refusal {
    /// Returns the refusal for a user without rights to the groups. It is the same for all hierarchies, so the
    /// reports have it once.
    fn of_user() -> Self {
        let why = "dayfly is not root, and has no control groups of its own".to_owned();
        Self { why, mend: Some(MEND_UNIT) }
    }
}

/// The places of groups, and the controllers that have none.
#[derive(Debug, Default)]
pub(super) struct Homes {
    pub(super) list: Vec<Home>,
    pub(super) missing: Vec<(Controller, Refusal)>,
}

const MEND_UNIT: &str =
    "start dayfly as root, or by a unit with Delegate=yes and DelegateSubgroup=dayfly (systemd 254 or newer)";

/// The place of groups in a hierarchy of version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seat {
    /// In this group, which also holds the group of this process.
    Beside(PathBuf),
    /// In the group of this process, which moves into one below it first.
    Within(PathBuf),
    /// In a group at the top of the hierarchy.
    Top(PathBuf),
}

impl Seat {
    /// Returns the group whose controllers can be passed on.
    fn source(&self) -> &Path {
        let (Self::Beside(folder) | Self::Within(folder) | Self::Top(folder)) = self;
        folder
    }

    fn folder(&self) -> PathBuf {
        match self {
            Self::Beside(folder) | Self::Within(folder) => folder.clone(),
            Self::Top(top) => top.join(DAYFLY),
        }
    }
}

/// The facts about the group of this process by which its seat is chosen.
#[derive(Debug, Clone, Copy)]
struct Standing<'a> {
    own: &'a Path,
    top: &'a Path,
    is_root: bool,
    /// True if the manager of the hierarchy has left the group of this process, or the group above it, to this process.
    owns: (bool, bool),
    /// True if processor time or memory of this process is limited by its group or one above it.
    is_limited: bool,
}

/// Chooses the place of groups in a hierarchy of version 2.
fn seat(standing: Standing<'_>) -> Result<Seat, Refusal> {
    let Standing { own, top, is_root, owns: (owns_group, owns_parent), is_limited } = standing;
    let is_service = own.extension().is_some_and(|kind| kind == "service");
    match own.parent() {
        Some(parent) if owns_parent && own != top && own.file_name().is_some_and(|name| name == DAYFLY) => {
            Ok(Seat::Beside(parent.to_owned()))
        }
        _ if owns_group && own != top && !is_service => Ok(Seat::Within(own.to_owned())),
        _ if !is_root && is_service && owns_group => Err(Refusal {
            why: "the unit of dayfly has no DelegateSubgroup=".to_owned(),
            mend: Some(MEND_UNIT),
        }),
        _ if !is_root => Err(Refusal::of_user()),
        _ if is_limited => Err(Refusal {
            why: format!("{} limits dayfly, and a group elsewhere would evade that", own.display()),
            mend: Some("DelegateSubgroup=dayfly in the unit of dayfly (systemd 254 or newer)"),
        }),
        _ => Ok(Seat::Top(top.to_owned())),
    }
}

/// The groups that can be prepared, as they are seen without a change.
#[derive(Debug, Default)]
pub(super) struct Survey {
    seat: Option<Seat>,
    pub(super) homes: Homes,
}

impl Survey {
    /// Looks at the groups of this process.
    pub(super) fn of_this_process() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let found = hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let mut survey = Self::default();
        for hierarchy in &found {
            survey.add(hierarchy);
        }
        for controller in Controller::ALL {
            let is_of = |home: &Home| home.controllers.contains(&controller);
            let is_refused = survey.homes.missing.iter().any(|(missing, _)| *missing == controller);
            if !survey.homes.list.iter().any(is_of) && !is_refused {
                let why = "no hierarchy of this host has this controller".to_owned();
                let mend = found.is_empty().then_some("mount -t cgroup2 none /sys/fs/cgroup");
                survey.homes.missing.push((controller, Refusal { why, mend }));
            }
        }
        survey
    }

    fn add(&mut self, hierarchy: &Hierarchy) {
        let placed = match hierarchy.version {
            Version::V1 => Ok((hierarchy.own.clone(), hierarchy.controllers.clone(), None)),
            Version::V2 => seat(standing(hierarchy)).map(|seat| {
                let controllers = listed(&seat.source().join("cgroup.controllers"));
                (seat.folder(), controllers, Some(seat))
            }),
        };
        let refused = |why: Refusal, controllers: Vec<Controller>| {
            controllers.into_iter().map(move |controller| (controller, why.clone()))
        };
        let (folder, controllers, seat) = match placed {
            Ok(placed) => placed,
            Err(why) => {
                let controllers = listed(&hierarchy.own.join("cgroup.controllers"));
                return self.homes.missing.extend(refused(why, controllers));
            }
        };
        let source = seat.as_ref().map_or(folder.as_path(), Seat::source);
        if let Err(error) = rustix::fs::access(source, Access::WRITE_OK) {
            let why = format!("{} cannot be written: {error}", source.display());
            let refusal = match error {
                Errno::ACCESS => Refusal::of_user(),
                _ => Refusal { why, mend: None },
            };
            return self.homes.missing.extend(refused(refusal, controllers));
        }
        if !controllers.is_empty() {
            self.homes.list.push(Home { version: hierarchy.version, folder, controllers });
            self.seat = seat.or(self.seat.take());
        }
    }
}

impl Homes {
    /// Prepares the places of this process's machines.
    pub(super) fn prepare() -> Self {
        let Survey { seat, mut homes } = Survey::of_this_process();
        let Some(seat) = seat else { return homes };
        let Some(place) = homes.list.iter().position(|home| home.version == Version::V2) else {
            return homes;
        };
        let home = homes.list.remove(place);
        let (controllers, missing) = match prepare_seat(&seat) {
            Ok(()) => pass_on(&home),
            Err(error) => {
                let why = format!("{} cannot be prepared: {error}", home.folder.display());
                let refusal = Refusal { why, mend: None };
                (Vec::new(), home.controllers.iter().map(|&one| (one, refusal.clone())).collect())
            }
        };
        if let Seat::Beside(folder) | Seat::Within(folder) = &seat {
            // As good as it gets: without it, this process has the share of one virtual processor.
            let _ = fs::write(folder.join(DAYFLY).join("cpu.weight"), OWN_WEIGHT);
        }
        homes.missing.extend(missing);
        if !controllers.is_empty() {
            homes.list.push(Home { controllers, ..home });
        }
        homes
    }
}

/// Creates the group of a seat, and empties it of this process.
fn prepare_seat(seat: &Seat) -> io::Result<()> {
    match seat {
        Seat::Beside(_) => Ok(()),
        Seat::Within(own) => {
            let leaf = own.join(DAYFLY);
            make_folder(&leaf)?;
            fs::write(leaf.join("cgroup.procs"), "0")
        }
        Seat::Top(top) => {
            for controller in listed(&top.join("cgroup.controllers")) {
                // If a controller stays off, the group lacks it and says so.
                let _ = fs::write(top.join("cgroup.subtree_control"), enable(controller));
            }
            make_folder(&top.join(DAYFLY))
        }
    }
}

/// Passes the controllers of a group on to the groups below it. Returns those that are passed on, and those that are
/// not.
fn pass_on(home: &Home) -> (Vec<Controller>, Vec<(Controller, Refusal)>) {
    let (mut passed, mut missing) = (Vec::new(), Vec::new());
    let file = home.folder.join("cgroup.subtree_control");
    let (available, before) = (listed(&home.folder.join("cgroup.controllers")), listed(&file));
    for &controller in &home.controllers {
        let switched = match (before.contains(&controller), available.contains(&controller)) {
            (true, _) => Ok(()),
            (false, false) => Err(io::Error::other("the group above does not pass it on")),
            (false, true) => fs::write(&file, enable(controller)),
        };
        match switched {
            Ok(()) => passed.push(controller),
            Err(error) => {
                let why = format!("{} cannot pass it on: {error}", home.folder.display());
                missing.push((controller, Refusal { why, mend: None }));
            }
        }
    }
    (passed, missing)
}

fn enable(controller: Controller) -> String {
    format!("+{}", controller.name(Version::V2))
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Returns the controllers that a file of version 2 lists.
fn listed(file: &Path) -> Vec<Controller> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let names: Vec<&str> = text.split_ascii_whitespace().collect();
    Controller::ALL.into_iter().filter(|controller| names.contains(&controller.name(Version::V2))).collect()
}

fn standing(hierarchy: &Hierarchy) -> Standing<'_> {
    let Hierarchy { own, top, .. } = hierarchy;
    let parent_is_owned = own.parent().is_some_and(|parent| parent.starts_with(top) && is_owned(parent));
    let mut above = own.ancestors().take_while(|group| *group != top);
    Standing {
        own,
        top,
        is_root: rustix::process::geteuid().is_root(),
        owns: (is_owned(own), parent_is_owned),
        is_limited: above.any(is_limited),
    }
}

/// Returns true if the manager of the hierarchy has left a group to this process: systemd gives the group of a user's
/// unit to that user, and marks each such group.
fn is_owned(group: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let me = rustix::process::geteuid();
    if !me.is_root() {
        return fs::metadata(group).is_ok_and(|metadata| metadata.uid() == me.as_raw());
    }
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(group, *name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
    })
}

/// Returns true if a group of version 2 limits memory or processor time.
fn is_limited(group: &Path) -> bool {
    ["memory.max", "cpu.max"].iter().any(|file| {
        let value = fs::read_to_string(group.join(file)).unwrap_or_default();
        value.split_ascii_whitespace().next().is_some_and(|value| value != "max")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "/sys/fs/cgroup";

    fn chosen(own: &str, is_root: bool, owns: (bool, bool), is_limited: bool) -> Result<Seat, String> {
        let own = Path::new(TOP).join(own);
        let standing = Standing { own: &own, top: Path::new(TOP), is_root, owns, is_limited };
        seat(standing).map_err(|refusal| refusal.why)
    }

    #[test]
    fn a_unit_with_a_group_for_dayfly_itself_gets_the_machines_beside_it() {
        let unit = "system.slice/dayfly.service";
        let beside = Ok(Seat::Beside(Path::new(TOP).join(unit)));
        for is_root in [true, false] {
            assert_eq!(chosen(&format!("{unit}/dayfly"), is_root, (false, true), true), beside);
        }
    }

    #[test]
    fn a_scope_of_its_own_is_divided_and_a_service_is_not() {
        let scope = "user.slice/run-1.scope";
        let within = Ok(Seat::Within(Path::new(TOP).join(scope)));
        assert_eq!(chosen(scope, false, (true, true), false), within);
        let service = "user.slice/dayfly.service";
        let refusal = chosen(service, false, (true, true), false).expect_err("no next start could enter it");
        assert!(refusal.contains("DelegateSubgroup"), "{refusal}");
    }

    #[test]
    fn root_without_groups_of_its_own_uses_the_top_unless_it_is_limited() {
        let top = Ok(Seat::Top(TOP.into()));
        for own in ["user.slice/session-3.scope", "system.slice/dayfly.service", ""] {
            assert_eq!(chosen(own, true, (false, false), false), top, "{own}");
            assert!(chosen(own, true, (false, false), true).is_err(), "{own}");
        }
        let refusal = chosen("user.slice/session-3.scope", false, (false, false), false);
        assert!(refusal.expect_err("refused").contains("not root"));
    }

    /// A folder with files in place of a group, in which the kernel would create them.
    fn group(path: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(path).expect("a folder");
        for (name, content) in files {
            fs::write(path.join(name), content).expect("a file");
        }
    }

    #[test]
    fn a_controller_that_the_group_above_does_not_pass_on_is_missing_with_the_reason() {
        let folder = tempfile::tempdir().expect("folder");
        group(
            folder.path(),
            &[("cgroup.controllers", "cpuset cpu memory pids\n"), ("cgroup.subtree_control", "memory\n")],
        );
        let controllers = Controller::ALL.to_vec();
        let home = Home { version: Version::V2, folder: folder.path().to_owned(), controllers };
        let (passed, missing) = pass_on(&home);
        assert_eq!(passed, [Controller::Memory, Controller::Pids, Controller::Cpu]);
        let [(Controller::Io, refusal)] = &missing[..] else { panic!("{missing:?}") };
        assert!(refusal.why.contains("the group above does not pass it on"), "{}", refusal.why);
    }

    #[test]
    fn a_group_is_limited_by_memory_or_processor_time() {
        let folder = tempfile::tempdir().expect("folder");
        for (memory, cpu, expected) in [
            ("max\n", "max 100000\n", false),
            ("1073741824\n", "max 100000\n", true),
            ("max\n", "200000 100000\n", true),
        ] {
            group(folder.path(), &[("memory.max", memory), ("cpu.max", cpu)]);
            assert_eq!(is_limited(folder.path()), expected, "{memory}{cpu}");
        }
        assert!(!is_limited(&folder.path().join("none")), "the topmost group has no such files");
    }
}
