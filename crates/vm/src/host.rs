//! Checks of this host for `dayfly doctor`.

mod inotify;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::driver::{DriverKind, krunvm, podman};
use crate::machine::StartError;
use crate::virtiofs;
use crate::vm_host::VmHost;
use crate::vmm;
use crate::vmm::probe::AccelReport;
use dayfly_guest::os_release::OsRelease;
use dayfly_host::descriptors::machines_within;
use dayfly_host::tool::{self, Reach};
use dayfly_image::Go;

/// Returns this host's distribution, i.e. the `ID` in os-release; none if os-release has none.
#[must_use]
pub fn distribution() -> Option<String> {
    Some(OsRelease::of_this_system().id).filter(|id| !id.is_empty())
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Everything is as it should be.
    Ok,
    /// Something is missing that only a driver needs that the user has not chosen, or it cannot be found out here.
    Note,
    /// It works, but not as well as it could.
    Warn,
    /// Something required is missing.
    Missing,
}

/// One checked property, of this host or of a forge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the property.
    pub name: Cow<'static, str>,
    /// Result of the check.
    pub state: CheckState,
    /// Description of what the check found, for people.
    pub seen: String,
    /// The command, or the action, that fixes the problem, if there is one.
    pub mend: Option<String>,
}

impl Check {
    pub(crate) fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name: name.into(), state: CheckState::Ok, seen: seen.into(), mend: None }
    }

    fn note(name: &'static str, seen: impl Into<String>, mend: &str) -> Self {
        Self { name: name.into(), state: CheckState::Note, seen: seen.into(), mend: Some(mend.to_owned()) }
    }

    pub(crate) fn warn(name: &'static str, seen: impl Into<String>, mend: Option<&str>) -> Self {
        Self { name: name.into(), state: CheckState::Warn, seen: seen.into(), mend: mend.map(str::to_owned) }
    }

    pub(crate) fn missing(name: &'static str, seen: impl Into<String>, mend: &str) -> Self {
        Self { name: name.into(), state: CheckState::Missing, seen: seen.into(), mend: Some(mend.to_owned()) }
    }
}

/// Limits of disk space, MiB: below the first no image can be built, below the second the space is tight.
const SPACE_MIB: (u64, u64) = (3 * 1024, 10 * 1024);
/// Number of machines that a host should have descriptors for.
const MACHINES_WANTED: u64 = 100;
/// Limits of memory, MiB: enough for one machine, and for two of the usual size.
const MEMORY_MIB: (u64, u64) = (1024, 4096);

/// Checks this host. `go_folders` are the folders that may contain Go, best first; `probed` is the result of a probe guest,
/// if there was an image to boot it from; `driver` is the driver that the user has chosen. Takes less than a second and
/// changes nothing.
pub fn facts(
    host: &VmHost,
    go_folders: &[PathBuf],
    probed: Option<&Result<AccelReport, StartError>>,
    driver: Option<DriverKind>,
) -> Vec<Check> {
    let mut checks = vec![system()];
    checks.extend(vmm::checks(host, probed));
    checks.push(program("mmdebstrap", &["/usr/bin/mmdebstrap"], "mmdebstrap"));
    checks.push(program("mksquashfs", &["/usr/bin/mksquashfs", "/usr/sbin/mksquashfs"], "squashfs-tools"));
    checks.push(patchelf());
    checks.push(program("mke2fs", &["/usr/sbin/mke2fs", "/sbin/mke2fs"], "e2fsprogs"));
    checks.push(program("zstd", &["/usr/bin/zstd"], "zstd"));
    checks.push(program("xz", &["/usr/bin/xz"], "xz-utils"));
    checks.push(program("setpriv", &["/usr/bin/setpriv"], "util-linux"));
    if !rustix::process::geteuid().is_root() {
        checks.push(program("newuidmap", &["/usr/bin/newuidmap"], "uidmap"));
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    checks.push(program("Debian's keyring", &[keyring], "debian-archive-keyring"));
    checks.push(match Go::find(go_folders) {
        Ok(go) => Check::ok("go", format!("{} ({})", go.version, go.program.display())),
        Err(error) => Check::missing("go", error.to_string(), "make setup"),
    });
    checks.extend(krun_tools(host, driver));
    checks.push(mounts());
    checks.push(space(&host.state));
    checks.push(memory());
    checks.push(descriptors());
    checks.push(inotify::check());
    checks.push(isolation());
    checks.extend(crate::network::checks(&host.launcher));
    checks.push(crate::cgroup::check());
    checks
}

/// Checks for patchelf. It is optional, because only some images from elsewhere need it.
fn patchelf() -> Check {
    let path = Path::new("/usr/bin/patchelf");
    if path.is_file() {
        return Check::ok("patchelf", path.display().to_string());
    }
    let seen = "not installed: images from elsewhere that lack Docker, git or sudo cannot be given them";
    Check::warn("patchelf", seen, Some("apt-get install patchelf"))
}

fn system() -> Check {
    let system = OsRelease::of_this_system();
    let kernel = rustix::system::uname();
    let seen = format!(
        "{}, Linux {} on {}",
        if system.pretty.is_empty() { "an unknown distribution" } else { &system.pretty },
        kernel.release().to_string_lossy(),
        kernel.machine().to_string_lossy()
    );
    if matches!(system.id.as_str(), "debian" | "ubuntu") {
        Check::ok("system", seen)
    } else {
        Check::warn("system", format!("{seen}; images are built on Debian and Ubuntu"), None)
    }
}

fn program(name: &'static str, paths: &[&str], package: &str) -> Check {
    match paths.iter().find(|path| Path::new(path).exists()) {
        Some(path) => Check::ok(name, *path),
        None => Check::missing(
            name,
            format!("none of {} is there", paths.join(", ")),
            &format!("apt-get install {package}"),
        ),
    }
}

/// Checks the tools of the krun drivers.
fn krun_tools(host: &VmHost, chosen: Option<DriverKind>) -> Vec<Check> {
    [
        ("podman", podman::MEND, DriverKind::PodmanKrun),
        ("krun", podman::RUNTIME_MEND, DriverKind::PodmanKrun),
        ("krunvm", krunvm::MEND, DriverKind::Krunvm),
        ("buildah", krunvm::BUILDAH_MEND, DriverKind::Krunvm),
    ]
    .into_iter()
    .map(|(name, mend, driver)| match version_of(host, name, mend) {
        Ok(version) => Check::ok(name, version),
        Err(problem) => krun_tool_problem(name, &problem, mend, driver, chosen),
    })
    .collect()
}

/// Judges a problem with a tool that only `driver` needs: a warning if the user has chosen that driver, else a note.
fn krun_tool_problem(
    name: &'static str,
    problem: &str,
    mend: &str,
    driver: DriverKind,
    chosen: Option<DriverKind>,
) -> Check {
    if chosen == Some(driver) {
        Check::warn(name, format!("{problem}; the driver {driver} cannot be used"), Some(mend))
    } else {
        Check::note(name, format!("{problem}; only needed for --driver {driver}"), mend)
    }
}

/// Returns the version and the path of a tool, or the problem with it.
fn version_of(host: &VmHost, name: &'static str, mend: &'static str) -> Result<String, String> {
    let tool = host.tool(name, mend).map_err(|_| "not installed".to_owned())?;
    let output = tool.with(["--version"]).command().output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match text.lines().next() {
        Some(version) => Ok(format!("{version} ({})", tool.program.display())),
        None => Err(format!("{} does not run", tool.program.display())),
    }
}

fn space(state: &Path) -> Check {
    let there = state.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match dayfly_host::space::free_mib(there) {
        Ok(free) => amount("disk space", free, SPACE_MIB, &format!("free under {}", there.display())),
        Err(error) => Check::warn("disk space", format!("{}: {error}", there.display()), None),
    }
}

fn memory() -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default();
    amount("memory", available / 1024, MEMORY_MIB, "available")
}

/// Checks the hard limit of open files, up to which a process raises its own.
fn descriptors() -> Check {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    descriptors_within(hard.unwrap_or(u64::MAX))
}

fn descriptors_within(hard: u64) -> Check {
    const NAME: &str = "open files";
    let machines = machines_within(hard);
    if machines >= MACHINES_WANTED {
        return Check::ok(NAME, format!("{hard} at most"));
    }
    let mend = "raise the hard limit: LimitNOFILE= of the service, or nofile in /etc/security/limits.conf";
    let seen = format!("{hard} at most, enough for {machines} machines of one process");
    Check::warn(NAME, seen, Some(mend))
}

/// Judges an amount by two limits: below the first it is too little, below the second it is tight.
fn amount(name: &'static str, mib: u64, (least, plenty): (u64, u64), what: &str) -> Check {
    let seen = format!("{mib} MiB {what}");
    if mib < least {
        Check::missing(name, format!("{seen}; {least} MiB are needed at least"), "make room")
    } else if mib < plenty {
        Check::warn(name, format!("{seen}; more than {plenty} MiB are better"), None)
    } else {
        Check::ok(name, seen)
    }
}

/// The command that lets ordinary users make user namespaces: Debian's switch, and Ubuntu's.
pub(crate) const ALLOW_NAMESPACES: &str =
    "sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0";

/// Checks how VMMs are isolated from this host and from each other.
pub(crate) fn isolation() -> Check {
    const NAME: &str = "isolation";
    if rustix::process::geteuid().is_root() {
        return Check::ok(NAME, "root: each VMM runs as a user of its own in a network namespace of its own");
    }
    // Tried in a separate process, because it changes the process that calls it.
    let tried = tool::command("unshare", Reach::Host).args(["--user", "--net", "true"]).output();
    if tried.is_ok_and(|output| output.status.success()) {
        Check::ok(NAME, "not root: VMMs run as this user, in user namespaces of their own")
    } else {
        let seen = "not root, and user namespaces are not allowed: no VMM can be started";
        Check::missing(NAME, seen, ALLOW_NAMESPACES)
    }
}

fn mounts() -> Check {
    const NAME: &str = "mounts";
    if !rustix::process::geteuid().is_root() {
        return Check::warn(NAME, "not root: machines of the qemu driver see nothing of this host", None);
    }
    match virtiofs::server() {
        Some(server) => Check::ok(NAME, server.display().to_string()),
        None => {
            let seen = "no virtiofsd: machines of the qemu driver see nothing of this host";
            Check::warn(NAME, seen, Some("apt-get install virtiofsd (Debian 12: qemu-system-common)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Launcher;

    #[test]
    fn a_host_without_qemu_is_told_what_to_install() {
        let launcher = Launcher { program: "/x".into(), args: Vec::new() };
        let mut host = VmHost::new("/nonexistent/state".into(), launcher);
        host.qemu = Some("/nonexistent/qemu".into());
        let checks = facts(&host, &[], None, None);
        let qemu = checks.iter().find(|check| check.name == "qemu").expect("checked");
        assert_eq!(qemu.state, CheckState::Missing);
        assert_eq!(qemu.mend.as_deref(), Some("apt-get install qemu-system-x86"));
        assert!(qemu.seen.contains("/nonexistent/qemu"), "{}", qemu.seen);
        assert!(checks.iter().any(|check| check.name == "disk space"));
    }

    #[test]
    fn a_missing_tool_is_a_warning_only_for_the_driver_that_was_chosen() {
        use DriverKind::{Krunvm, PodmanKrun, Qemu};
        let check = |chosen| krun_tool_problem("podman", "not installed", "install it", PodmanKrun, chosen);
        for chosen in [None, Some(Qemu), Some(Krunvm)] {
            let check = check(chosen);
            assert_eq!(check.state, CheckState::Note, "{chosen:?}");
            assert_eq!(check.seen, "not installed; only needed for --driver podman-krun");
        }
        let check = check(Some(PodmanKrun));
        assert_eq!(check.state, CheckState::Warn);
        assert_eq!(check.seen, "not installed; the driver podman-krun cannot be used");
        assert_eq!(check.mend.as_deref(), Some("install it"));
    }

    #[test]
    fn a_hard_limit_of_open_files_that_is_too_low_for_many_machines_is_a_warning() {
        let check = descriptors_within(1024);
        assert_eq!(check.state, CheckState::Warn);
        assert_eq!(check.seen, "1024 at most, enough for 48 machines of one process");
        assert_eq!(descriptors_within(524_288).state, CheckState::Ok);
    }

    #[test]
    fn amounts_are_judged_by_two_limits() {
        let state = |mib| amount("memory", mib, (10, 20), "there").state;
        assert_eq!(
            [state(9), state(10), state(19), state(20)],
            [CheckState::Missing, CheckState::Warn, CheckState::Warn, CheckState::Ok]
        );
    }
}
