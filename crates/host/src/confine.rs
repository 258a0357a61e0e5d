//! Confines converters: programs that work on the bytes of strangers (`mksquashfs`, `xz`, `zstd`, `depmod`, `patchelf`) and
//! need nothing but these.
//!
//! | as root | as another user |
//! | --- | --- |
//! | a user and a group of its own, which nothing on the host belongs to | the same user |
//! | no capability, and no way to one (`no_new_privs`, empty bounding set) | the same |
//! | network and IPC namespaces of its own, without a link | the same if the host allows user namespaces |
//! | limits of memory, file length, processor time and descriptors | the same |
//! | killed if dayfly dies | the same |
//!
//! A converter reads its input from a pipe. It reaches the state folder, which is closed to its user, only by what it is lent:
//! [`Lent`] makes a file or folder the converter's own while it runs, and names it `/proc/self/fd/N`.
#![expect(unsafe_code, reason = "steps between fork and exec")]

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use crate::tool::{self, Reach};

/// Base of user ids: a converter's user id is the sum of this number and its process id, so that no two living processes
/// share an id. The range (2^22 ids, the largest process id) follows that of the VMMs, from `0x70000000` on.
const USER_BASE: u32 = 0x7080_0000;

/// The bounds of a converter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most memory that it may map, bytes. Threads reserve far more than they use.
    pub memory: u64,
    /// Longest file that it may write, bytes. Pipes do not count.
    pub file: u64,
    /// Longest processor time of all its threads, in whole seconds.
    pub processor: Duration,
    /// Most descriptors that it may have open.
    pub descriptors: u64,
    /// As root, most threads of all its processes. With one, it cannot leave a process behind.
    pub threads: u64,
}

/// A file or folder of this process that a converter uses by its descriptor.
#[derive(Debug, Clone)]
pub struct Lent {
    file: Arc<File>,
    /// True if it becomes the converter's own.
    is_own: bool,
}

impl Lent {
    /// Creates a file, or opens it if it exists, for a converter to write. It belongs to the converter until
    /// [`Self::take_back`].
    ///
    /// # Errors
    /// The file cannot be opened, or is a link.
    pub fn file(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(Self { file: Arc::new(options.custom_flags(no_follow()).open(path)?), is_own: true })
    }

    /// Opens a folder for a converter to write into. It belongs to the converter, which may leave anything in it, until
    /// [`Self::take_back`].
    ///
    /// # Errors
    /// The folder cannot be opened, or is a link.
    pub fn folder(path: &Path) -> io::Result<Self> {
        Ok(Self { is_own: true, ..Self::folder_to_read(path)? })
    }

    /// Opens a folder for a converter to read. It stays this process's own, so the converter sees of it what every user of
    /// the host would see if the folders above were open.
    ///
    /// # Errors
    /// The folder cannot be opened, or is a link.
    pub fn folder_to_read(path: &Path) -> io::Result<Self> {
        let flags = no_follow() | OFlags::DIRECTORY.bits().cast_signed();
        Ok(Self {
            file: Arc::new(OpenOptions::new().read(true).custom_flags(flags).open(path)?),
            is_own: false,
        })
    }

    /// Returns the path at which the converter finds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Makes it this process's own again, after the converter has exited.
    ///
    /// # Errors
    /// The owner cannot be changed.
    pub fn take_back(&self) -> io::Result<()> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Ok(rustix::fs::fchown(&self.file, Some(uid), Some(gid))?)
    }
}

fn no_follow() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

/// Takes back a folder that a converter has written into, with all that is in it.
///
/// # Errors
/// There is something other than folders and files with one name each. Such a thing (a link, most of all) would lead a
/// reader of the folder to the files of others.
pub fn take_back_tree(folder: &Path) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = std::fs::symlink_metadata(&path)?;
        let is_own = metadata.is_dir() || (metadata.is_file() && metadata.nlink() == 1);
        if !is_own {
            return Err(io::Error::other(format!(
                "{} is neither a folder nor a file of its own",
                path.display()
            )));
        }
        if metadata.uid() != uid.as_raw() {
            std::os::unix::fs::lchown(&path, Some(uid.as_raw()), Some(gid.as_raw()))?;
        }
        if metadata.is_dir() {
            take_back_tree(&path)?;
        }
    }
    Ok(())
}

/// Returns the command of a converter within these bounds, with a clean environment and an ended standard input. It reaches
/// what it is `lent`.
pub fn converter(program: impl AsRef<OsStr>, bounds: Bounds, lent: &[&Lent]) -> Command {
    let mut command = tool::command(program, Reach::Host);
    confine(&mut command, bounds, lent);
    command
}

fn confine(command: &mut Command, bounds: Bounds, lent: &[&Lent]) {
    let lent: Vec<Lent> = lent.iter().copied().cloned().collect();
    command.current_dir("/").stdin(Stdio::null());
    // SAFETY: the closure runs in the child of a fork, which has one thread. It makes system calls only, by rustix, and
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || enter(bounds, &lent)) };
}

/// Runs the steps, in an order in which each still has the privileges that it needs.
fn enter(bounds: Bounds, lent: &[Lent]) -> io::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    set_limits(bounds, is_root)?;
    leave_network(is_root)?;
    let own = USER_BASE + rustix::process::getpid().as_raw_nonzero().get().cast_unsigned();
    let (uid, gid) = (Uid::from_raw(own), Gid::from_raw(own));
    close_at_exec()?;
    for thing in lent {
        if thing.is_own && is_root {
            rustix::fs::fchown(&thing.file, Some(uid), Some(gid))?;
        }
        rustix::io::fcntl_setfd(&thing.file, FdFlags::empty())?;
    }
    drop_bounding_set()?;
    rustix::thread::clear_ambient_capability_set()?;
    if is_root {
        // This process has one thread, so thread and process are the same.
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    // The last step, because a change of the user resets it.
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

fn set_limits(bounds: Bounds, is_root: bool) -> io::Result<()> {
    let limit = |resource, value: u64| {
        // Only root may raise a limit.
        let value = rustix::process::getrlimit(resource).maximum.map_or(value, |most| most.min(value));
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    limit(Resource::Core, 0)?;
    // The limit counts all processes of a user, and another user has others than the converter.
    if is_root {
        limit(Resource::Nproc, bounds.threads)?;
    }
    limit(Resource::As, bounds.memory)?;
    limit(Resource::Fsize, bounds.file)?;
    limit(Resource::Cpu, bounds.processor.as_secs())?;
    Ok(limit(Resource::Nofile, bounds.descriptors)?)
}

/// Enters a network namespace without any link that is up, and an IPC namespace. A user other than root needs a user namespace
/// for that. If the host forbids it, the converter has the network of the user, as all other programs of the user have.
fn leave_network(is_root: bool) -> io::Result<()> {
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    if is_root {
        // SAFETY: this process has one thread, and holds no descriptor whose meaning depends on a namespace.
        return Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?);
    }
    // SAFETY: as above.
    match unsafe { rustix::thread::unshare_unsafe(flags | UnshareFlags::NEWUSER) } {
        Err(Errno::PERM | Errno::NOSPC | Errno::INVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Keeps all descriptors that this process has inherited, even by mistake, from the converter.
fn close_at_exec() -> io::Result<()> {
    // SAFETY: the call changes flags only.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..63 {
        let capability = CapabilitySet::from_bits_retain(1 << capability);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // This kernel knows no more of them; or the user has no right to drop any, and none to give up.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::left_out::root_may;

    const BOUNDS: Bounds = Bounds {
        memory: 1 << 30,
        file: 1 << 20,
        processor: Duration::from_secs(77),
        descriptors: 33,
        threads: 8,
    };

    /// A folder that every user may enter, with a program `mksquashfs` that runs this script.
    fn stand_in(script: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let program = folder.path().join("mksquashfs");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        for path in [folder.path(), &program] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        }
        folder
    }

    /// Runs the stand-in, found by its name on the search path, and returns its output.
    fn run(folder: &Path, lent: &[&Lent], arguments: &[PathBuf]) -> std::process::Output {
        let mut command = converter("mksquashfs", BOUNDS, lent);
        command.env("PATH", format!("{}:/usr/bin:/bin", folder.display())).args(arguments);
        command.output().expect("it runs")
    }

    /// Returns the words after each first word of a line.
    fn fields(text: &str) -> BTreeMap<&str, Vec<&str>> {
        let words = |line| str::split_whitespace(line).collect::<Vec<_>>();
        text.lines()
            .map(words)
            .filter(|words| !words.is_empty())
            .map(|words| (words[0], words[1..].to_vec()))
            .collect()
    }

    #[test]
    fn a_converter_has_a_user_of_its_own_no_capability_no_network_and_limits() {
        let folder = stand_in(
            "cat /proc/self/status; echo Network: $(readlink /proc/self/ns/net); cat /proc/self/limits; pwd",
        );
        let output = run(folder.path(), &[], &[]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let seen = fields(&text);
        if rustix::process::geteuid().is_root() {
            let uid = seen["Uid:"][0].parse::<u32>().expect("a number");
            assert!((USER_BASE..USER_BASE + (1 << 22)).contains(&uid), "{uid}");
            assert_eq!((&seen["Uid:"], &seen["Groups:"]), (&seen["Gid:"], &vec![]));
            assert!(seen["Uid:"].iter().all(|id| *id == seen["Uid:"][0]), "{:?}", seen["Uid:"]);
            assert_eq!(seen["CapBnd:"], ["0000000000000000"]);
        }
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(seen[set], ["0000000000000000"], "{set}");
        }
        assert_eq!(seen["NoNewPrivs:"], ["1"]);
        let ours = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        assert_ne!(Path::new(seen["Network:"][0]), ours, "it is in the host's network");
        let limit = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).expect(name);
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        for (name, expected) in [
            ("Max address space", "1073741824"),
            ("Max file size", "1048576"),
            ("Max cpu time", "77"),
            ("Max open files", "33"),
            ("Max core file size", "0"),
        ] {
            assert_eq!(limit(name), [expected, expected], "{name}");
        }
        assert_eq!(text.lines().last(), Some("/"));
    }

    #[test]
    fn a_converter_writes_what_it_is_lent_in_a_closed_folder_and_nothing_else() {
        let closed = tempfile::tempdir().expect("folder");
        let (lent, other) = (closed.path().join("lent"), closed.path().join("other"));
        std::fs::write(&other, "secret").expect("written");
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).expect("mode");
        let folder =
            stand_in("echo result >\"$1\" || exit 1; cat \"$2\" && exit 2; echo x >\"$2\" && exit 3; exit 0");
        let file = Lent::file(&lent).expect("opened");
        let output = run(folder.path(), &[&file], &[file.path(), other.clone()]);
        file.take_back().expect("taken back");
        if rustix::process::geteuid().is_root() {
            assert!(output.status.success(), "{output:?}");
            assert_eq!(std::fs::read_to_string(&other).expect("read"), "secret");
        }
        assert_eq!(std::fs::read_to_string(&lent).expect("read"), "result\n");
        assert_eq!(std::fs::metadata(&lent).expect("there").uid(), rustix::process::geteuid().as_raw());
    }

    #[test]
    fn a_converter_is_ended_at_its_longest_file() {
        let folder = stand_in("exec head -c 2000000 /dev/zero >\"$1\"");
        let place = tempfile::tempdir().expect("folder");
        let file = Lent::file(&place.path().join("long")).expect("opened");
        let output = run(folder.path(), &[&file], &[file.path()]);
        assert!(!output.status.success(), "{output:?}");
        assert_eq!(std::fs::metadata(place.path().join("long")).expect("there").len(), BOUNDS.file);
    }

    #[test]
    fn a_converter_with_one_thread_leaves_no_process_behind() {
        if !root_may("give a converter a user of its own, whose processes alone count") {
            return;
        }
        let folder = stand_in("(exec sleep 300) & exit 0");
        let mut command = converter("mksquashfs", Bounds { threads: 1, ..BOUNDS }, &[]);
        let output = command.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display())).output();
        let complaint = String::from_utf8(output.expect("it runs").stderr).expect("text");
        assert!(complaint.contains("fork"), "{complaint}");
    }

    #[test]
    fn a_folder_is_taken_back_unless_it_leads_elsewhere() {
        let folder = stand_in("cd \"$1\" && mkdir made && echo x >made/file && $2");
        for (more, is_fine) in [
            ("true", true),
            ("ln -s /etc/passwd made/link", false),
            ("ln made/file other", false),
            ("mkfifo f", false),
        ] {
            let place = tempfile::tempdir().expect("folder");
            let lent = Lent::folder(place.path()).expect("opened");
            let output = run(folder.path(), &[&lent], &[lent.path(), more.into()]);
            assert!(output.status.success(), "{output:?}");
            lent.take_back().expect("taken back");
            let taken = take_back_tree(place.path());
            assert_eq!(taken.is_ok(), is_fine, "{more}: {taken:?}");
            if is_fine {
                let owner = std::fs::metadata(place.path().join("made/file")).expect("made").uid();
                assert_eq!(owner, rustix::process::geteuid().as_raw());
            }
        }
    }

    #[test]
    fn a_converter_dies_with_the_thread_that_waits_for_it() {
        let folder = stand_in("exec sleep 300");
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let starter = std::thread::spawn(move || {
            let mut command = converter("mksquashfs", BOUNDS, &[]);
            command.env("PATH", path).spawn().expect("it runs")
        });
        let mut child = starter.join().expect("started");
        let end = std::time::Instant::now() + Duration::from_secs(10);
        let status = loop {
            match child.try_wait().expect("a child") {
                Some(status) => break status,
                None if std::time::Instant::now() > end => {
                    child.kill().expect("killed");
                    panic!("it goes on without its parent");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
}
