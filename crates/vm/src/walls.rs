//! The walls between a VMM and this host: which of them are up, and why others cannot be.
//!
//! [`crate::launch`] puts up all that this host allows. A pool can require some of them by name, and then does not start on a
//! host that lacks one.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Controller};
use crate::driver::DriverKind;
use crate::host::{Check, CheckState};
use crate::launch::{self, CallFilter, LaunchOrder, Launcher, NetworkPlace, Program, Task, User};
use crate::network::{self, NetworkPolicy};
use crate::vm_host::VmHost;
use crate::vmm;

/// A wall between a VMM and this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// A root folder with QEMU's own files alone, for reading.
    Files,
    /// Namespaces of mounts, of IPC, of the host's name and of control groups.
    Namespaces,
    /// A user id that no other process has.
    User,
    /// A namespace in which the VMM sees no other process.
    Processes,
    /// A network namespace in which no address of this host can be reached.
    Network,
    /// No capabilities, and no way to regain any.
    Capabilities,
    /// A filter that leaves the VMM the system calls that it needs.
    SystemCalls,
    /// Landlock, which limits files, and by its version sockets and signals.
    Landlock,
    /// A limit of memory.
    MemoryLimit,
    /// A limit of processes and threads.
    ProcessLimit,
    /// A limit of processor time.
    CpuLimit,
    /// A share of disk access.
    DiskLimit,
}

impl Wall {
    /// All walls.
    pub const ALL: [Self; 12] = [
        Self::Files,
        Self::Namespaces,
        Self::User,
        Self::Processes,
        Self::Network,
        Self::Capabilities,
        Self::SystemCalls,
        Self::Landlock,
        Self::MemoryLimit,
        Self::ProcessLimit,
        Self::CpuLimit,
        Self::DiskLimit,
    ];

    /// Returns its word in a configuration file and in facts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Namespaces => "namespaces",
            Self::User => "user",
            Self::Processes => "processes",
            Self::Network => "network",
            Self::Capabilities => "capabilities",
            Self::SystemCalls => "system-calls",
            Self::Landlock => "landlock",
            Self::MemoryLimit => "memory-limit",
            Self::ProcessLimit => "process-limit",
            Self::CpuLimit => "cpu-limit",
            Self::DiskLimit => "disk-limit",
        }
    }

    /// Returns what a VMM that a guest has taken over cannot do because of it.
    fn stops(self) -> &'static str {
        match self {
            Self::Files => "a VMM sees QEMU's files alone, and writes none",
            Self::Namespaces => "a VMM shares no memory, mounts and names with this host",
            Self::User => "a VMM has a user id of its own",
            Self::Processes => "a VMM sees no process of this host",
            Self::Network => "a VMM reaches no address of this host",
            Self::Capabilities => "a VMM has no capability and gets none",
            Self::SystemCalls => "a VMM makes the system calls that it needs",
            Self::Landlock => "a VMM cannot open its files anew for writing",
            Self::MemoryLimit => "a VMM takes no more memory than its size",
            Self::ProcessLimit => "a VMM starts no more threads than it needs",
            Self::CpuLimit => "a VMM takes no more processor time than its size",
            Self::DiskLimit => "VMMs share the disk's time",
        }
    }

    fn of_controller(controller: Controller) -> Self {
        match controller {
            Controller::Memory => Self::MemoryLimit,
            Controller::Pids => Self::ProcessLimit,
            Controller::Cpu => Self::CpuLimit,
            Controller::Io => Self::DiskLimit,
        }
    }

    /// Returns the walls that a control group is.
    fn of_group() -> [Self; 4] {
        Controller::ALL.map(Self::of_controller)
    }
}

/// Why a wall is not up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) wall: Wall,
    pub(crate) why: String,
    /// The command or the action that fixes it, if there is one.
    pub(crate) mend: Option<&'static str>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.wall.as_str(), self.why)
    }
}

/// The walls of a VMM, without those of its control group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Walls {
    /// Those that are up.
    pub up: Vec<Wall>,
    /// Those that are not, each with the reason.
    pub missing: Vec<String>,
}

/// Walls that a pool requires and this host cannot put up.
#[derive(Debug, thiserror::Error)]
#[error("this host cannot put up the walls that the pool requires: {0} (dayfly doctor --jail shows all)")]
pub struct WallsMissing(String);

/// The facts that decide which walls a VMM has.
#[derive(Debug, Clone, Copy)]
struct Ground {
    is_root: bool,
    /// Version of the kernel's Landlock; 0 if it has none.
    landlock: u32,
    /// True if the VMM has the network namespace of this host.
    shares_network: bool,
    /// True if QEMU is a script, or has no libraries that tell what it needs.
    is_script: bool,
}

const AS_ROOT: Option<&str> = Some("run dayfly as root (docs/service.md)");

impl Ground {
    fn gaps(self) -> Vec<Gap> {
        let Self { is_root, landlock, shares_network, is_script } = self;
        let gap =
            |applies: bool, wall, why: &str, mend| applies.then(|| Gap { wall, why: why.to_owned(), mend });
        [
            gap(
                is_script,
                Wall::Files,
                "QEMU is a script or a static program, so its root has all programs of this host",
                None,
            ),
            gap(!is_root, Wall::User, "dayfly is not root, so a VMM is the user who runs dayfly", AS_ROOT),
            gap(
                !is_root,
                Wall::Processes,
                "dayfly is not root, so only the filter of system calls protects other processes",
                AS_ROOT,
            ),
            gap(
                shares_network,
                Wall::Network,
                "a VMM has the network of this host, because dayfly is not root (dayfly doctor says why)",
                AS_ROOT,
            ),
            gap(
                is_script,
                Wall::SystemCalls,
                "QEMU is a script or a static program, which may start other programs",
                None,
            ),
            gap(
                landlock == 0,
                Wall::Landlock,
                "this kernel has no Landlock, or does not use it",
                Some("Linux 5.13 or newer, with landlock in lsm= of its command line"),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Walls {
    /// Returns the walls of the VMM that an order starts; none if it starts a server of files or a gate.
    pub(crate) fn of(order: &LaunchOrder) -> Option<Self> {
        let Task::Program(Program { calls: CallFilter::Vmm(calls), .. }) = &order.task else { return None };
        let ground = Ground {
            is_root: !matches!(order.user, User::Same),
            landlock: launch::landlock_version(),
            shares_network: order.network == NetworkPlace::Inherited,
            is_script: calls.programs,
        };
        Some(Self::between(&ground.gaps()))
    }

    fn between(gaps: &[Gap]) -> Self {
        let is_of_group = |wall: &Wall| Wall::of_group().contains(wall);
        let is_up = |wall: &Wall| gaps.iter().all(|gap| gap.wall != *wall);
        let up = Wall::ALL.into_iter().filter(|wall| is_up(wall) && !is_of_group(wall)).collect();
        let missing = gaps.iter().map(Gap::to_string).collect();
        Self { up, missing }
    }
}

/// Returns the walls that this host cannot put up for machines of the qemu driver.
fn gaps(qemu: Option<&Path>, is_apart: bool) -> Vec<Gap> {
    let ground = Ground {
        is_root: rustix::process::geteuid().is_root(),
        landlock: launch::landlock_version(),
        shares_network: !is_apart,
        is_script: qemu.is_some_and(vmm::is_script),
    };
    let mut all = ground.gaps();
    all.extend(cgroup::missing().into_iter().map(|(controller, why, mend)| Gap {
        wall: Wall::of_controller(controller),
        why,
        mend,
    }));
    all
}

/// Checks each wall of this host, for `dayfly doctor --jail`.
#[must_use]
pub fn checks(host: &VmHost) -> Vec<Check> {
    let is_apart = network::is_apart(&NetworkPolicy::default(), &host.launcher);
    let gaps = gaps(host.qemu().ok().as_deref(), is_apart);
    let is_root = rustix::process::geteuid().is_root();
    let mut checks = vec![crate::host::isolation()];
    checks.extend(Wall::ALL.iter().map(|wall| match gaps.iter().find(|gap| gap.wall == *wall) {
        None => Check::ok(wall.as_str(), wall.stops()),
        Some(gap) => Check {
            name: wall.as_str().into(),
            state: CheckState::Warn,
            seen: gap.why.clone(),
            mend: gap.mend.map(str::to_owned),
        },
    }));
    checks.extend([DriverKind::PodmanKrun, DriverKind::Krunvm].map(|kind| of_krun(kind, is_root)));
    checks
}

/// Says which of the walls the machines of a krun driver lack. It is a note, because no setting changes it.
fn of_krun(kind: DriverKind, is_root: bool) -> Check {
    let of_tool = match kind {
        DriverKind::Krunvm => "krunvm starts its VMM without any",
        _ => {
            "podman gives its VMM the namespaces, the capabilities and the filter of system calls of a container"
        }
    };
    let folder = match is_root {
        true => "4 MiB and 256 files",
        false => "the host's disk, because dayfly is not root",
    };
    Check {
        name: kind.as_str().into(),
        state: CheckState::Note,
        seen: format!(
            "dayfly puts up none of these walls: {of_tool}; a job writes the folder of its run, up to {folder}; \
             never chosen by itself where qemu with KVM works"
        ),
        mend: None,
    }
}

/// Refuses a host that cannot put up all walls that a pool requires, for a QEMU at this path, and for machines with a network
/// policy if that and the launcher of VMMs are known.
///
/// # Errors
/// A wall is missing, or the driver is not `qemu`, so that its machines have none of these walls.
pub fn require(
    qemu: Option<&Path>,
    driver: DriverKind,
    required: &[Wall],
    network: Option<(&NetworkPolicy, &Launcher)>,
) -> Result<(), WallsMissing> {
    let Some(first) = required.first() else { return Ok(()) };
    if driver != DriverKind::Qemu {
        return Err(WallsMissing(format!("{}: only the driver qemu has it, not {driver}", first.as_str())));
    }
    let is_apart = network.is_none_or(|(policy, launcher)| network::is_apart(policy, launcher));
    among(required, &gaps(qemu, is_apart))
}

fn among(required: &[Wall], gaps: &[Gap]) -> Result<(), WallsMissing> {
    let missing = gaps.iter().filter(|gap| required.contains(&gap.wall));
    let missing: Vec<String> = missing.map(Gap::to_string).collect();
    if missing.is_empty() { Ok(()) } else { Err(WallsMissing(missing.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEST: Ground = Ground { is_root: true, landlock: 7, shares_network: false, is_script: false };
    const USER: Ground = Ground { is_root: false, landlock: 0, shares_network: true, is_script: true };

    #[test]
    fn root_with_a_new_kernel_has_all_walls() {
        assert_eq!(BEST.gaps(), []);
        let walls = Walls::between(&BEST.gaps());
        assert_eq!((walls.up.len(), walls.missing.len()), (8, 0));
    }

    #[test]
    fn each_wall_that_is_missing_has_a_reason() {
        let Walls { up, missing } = Walls::between(&USER.gaps());
        assert_eq!(up, [Wall::Namespaces, Wall::Capabilities]);
        insta::assert_snapshot!(missing.join("\n"), @r"
        files: QEMU is a script or a static program, so its root has all programs of this host
        user: dayfly is not root, so a VMM is the user who runs dayfly
        processes: dayfly is not root, so only the filter of system calls protects other processes
        network: a VMM has the network of this host, because dayfly is not root (dayfly doctor says why)
        system-calls: QEMU is a script or a static program, which may start other programs
        landlock: this kernel has no Landlock, or does not use it
        ");
    }

    #[test]
    fn a_pool_is_refused_for_the_walls_that_it_requires_and_for_no_others() {
        let refused = |required: &[Wall]| among(required, &USER.gaps()).map_err(|error| error.to_string());
        assert_eq!(refused(&[]), Ok(()));
        assert_eq!(refused(&[Wall::Capabilities, Wall::MemoryLimit]), Ok(()));
        insta::assert_snapshot!(refused(&[Wall::Landlock, Wall::User, Wall::Namespaces]).expect_err("refused"), @"this host cannot put up the walls that the pool requires: user: dayfly is not root, so a VMM is the user who runs dayfly; landlock: this kernel has no Landlock, or does not use it (dayfly doctor --jail shows all)");
    }

    #[test]
    fn the_krun_drivers_are_said_to_have_none_of_the_walls() {
        let seen = [(DriverKind::PodmanKrun, true), (DriverKind::Krunvm, false)].map(|(kind, is_root)| {
            let Check { name, state, seen, .. } = of_krun(kind, is_root);
            format!("{name}: {state:?}: {seen}")
        });
        insta::assert_snapshot!(seen.join("\n"), @r"
        podman-krun: Note: dayfly puts up none of these walls: podman gives its VMM the namespaces, the capabilities and the filter of system calls of a container; a job writes the folder of its run, up to 4 MiB and 256 files; never chosen by itself where qemu with KVM works
        krunvm: Note: dayfly puts up none of these walls: krunvm starts its VMM without any; a job writes the folder of its run, up to the host's disk, because dayfly is not root; never chosen by itself where qemu with KVM works
        ");
    }

    #[test]
    fn a_wall_has_one_word_for_files_and_facts() {
        for wall in Wall::ALL {
            assert_eq!(serde_json::to_value(wall).expect("a word"), wall.as_str());
        }
    }
}
