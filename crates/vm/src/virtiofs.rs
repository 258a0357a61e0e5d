//! Shares folders and files of the host with a machine of the `qemu` driver, with one virtiofs server for each.
//!
//! A server sees only its own files and what it exports: the launcher gives it a root, and binds the host's path to a fixed path
//! there. The bind is read-only if the mount is, so that no guest and no server can change that. The server then makes the
//! fixed path its root and drops the capabilities that it needed for this. It serves one connection and exits with it, i.e.
//! with its VMM.
//!
//! Root of a guest makes no devices, no setuid or setgid files and no file capabilities in a folder of the host, because a
//! user of the host could use them there. The launcher forbids the first three; the servers store no extended attributes
//! unless they are told to.

use std::fs;
use std::path::{Path, PathBuf};

use dayfly_guest::protocol;

use crate::launch::{self, EVERYTHING, EXPORT, Export, LIBRARY_LIST};
use crate::machine::StartError;
use crate::mount::Mount;

/// Paths of the servers: the one in C of QEMU 7.2 and earlier (Debian 12), and its successor in Rust.
const SERVERS: [(&str, Dialect); 3] = [
    ("/usr/libexec/virtiofsd", Dialect::Rust),
    ("/usr/lib/virtiofsd", Dialect::Rust),
    ("/usr/lib/qemu/virtiofsd", Dialect::C),
];
/// Most mounts of one machine, because its `microvm` machine has no room for more beside its other devices.
pub(crate) const SHARES_MAX: usize = 16;
/// Most files that a server may have open.
pub(crate) const FILES_MAX: u32 = 65_536;
/// The capabilities that a server would keep by default, and does not get from the launcher.
const DROPPED: &str = "-mknod:-setfcap:-fsetid";

/// Files from which servers read how many files a process may have open, even if they are told, and which capabilities the
/// kernel has.
const KERNEL: [&str; 3] = ["/proc/sys/fs/file-max", "/proc/sys/fs/nr_open", "/proc/sys/kernel/cap_last_cap"];

/// The option syntax of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    C,
    Rust,
}

/// A folder or file of the host that a machine sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// The folder or file that is served.
    pub(crate) export: Export,
    /// Path at which the machine sees it.
    guest: PathBuf,
}

/// The shares of a machine, and the program that serves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) server: PathBuf,
    dialect: Dialect,
    pub(crate) list: Vec<Share>,
}

impl Shares {
    /// Checks that these mounts are possible; returns none if there are no mounts. Creates nothing.
    pub(crate) fn check(mounts: &[Mount]) -> Result<Option<Self>, StartError> {
        let Some(first) = mounts.first() else { return Ok(None) };
        let refused = |mount: &Mount, reason: String| StartError::Mount {
            host: mount.host.clone(),
            guest: mount.guest.clone(),
            reason,
        };
        if mounts.len() > SHARES_MAX {
            return Err(refused(&mounts[SHARES_MAX], format!("a machine has {SHARES_MAX} mounts at most")));
        }
        let list = mounts
            .iter()
            .map(|mount| share(mount).map_err(|reason| refused(mount, reason)))
            .collect::<Result<_, _>>()?;
        if !rustix::process::geteuid().is_root() {
            let reason =
                "the qemu driver needs root for mounts: a server keeps the owners of files".to_owned();
            return Err(refused(first, reason));
        }
        let server = SERVERS.iter().find(|(path, _)| Path::new(path).is_file());
        let &(server, dialect) = server.ok_or_else(|| {
            let looked = SERVERS.map(|(path, _)| path).join(", ");
            let mend = "apt-get install virtiofsd (Debian 12: qemu-system-common)";
            refused(first, format!("none of {looked} is there; install it: {mend}"))
        })?;
        Ok(Some(Self { server: server.into(), dialect, list }))
    }

    /// Returns the arguments of a server that listens on this descriptor.
    pub(crate) fn args(&self, descriptor: i32) -> Vec<String> {
        let words = match self.dialect {
            Dialect::C => {
                format!(
                    "--fd={descriptor} -f -o source={EXPORT},sandbox=namespace,log_level=err,modcaps={DROPPED} --rlimit-nofile={FILES_MAX}"
                )
            }
            Dialect::Rust => format!(
                "--fd={descriptor} --shared-dir={EXPORT} --sandbox=namespace --log-level=error --modcaps={DROPPED} --rlimit-nofile={FILES_MAX}"
            ),
        };
        words.split(' ').map(str::to_owned).collect()
    }

    /// Returns the files that a server needs, as absolute paths.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut all = vec![self.server.clone(), LIBRARY_LIST.into()];
        all.extend(KERNEL.map(PathBuf::from));
        match launch::libraries(&self.server) {
            Some(libraries) => all.extend(libraries),
            None => all.extend(EVERYTHING.map(PathBuf::from)),
        }
        all.retain(|path| path.exists());
        all
    }

    /// Returns the shares as they are sent to the machine's agent.
    pub(crate) fn told(&self) -> Vec<protocol::Share> {
        let told = |(number, share): (usize, &Share)| protocol::Share {
            tag: tag(number),
            path: share.guest.to_string_lossy().into_owned(),
            file: share.export.file.then(|| Export::FILE.to_owned()),
            read_only: share.export.read_only,
        };
        self.list.iter().enumerate().map(told).collect()
    }
}

/// Returns the path of an installed server.
pub(crate) fn server() -> Option<&'static Path> {
    SERVERS.iter().map(|(path, _)| Path::new(path)).find(|path| path.is_file())
}

/// Returns the tag by which a machine knows its share of this number.
pub(crate) fn tag(number: usize) -> String {
    format!("share{number}")
}

fn share(mount: &Mount) -> Result<Share, String> {
    let found = fs::metadata(&mount.host).map_err(|error| error.to_string())?;
    if !found.is_dir() && !found.is_file() {
        return Err("it is neither a folder nor a file".to_owned());
    }
    let export =
        Export { source: mount.host.clone(), file: found.is_file(), read_only: mount.is_read_only() };
    Ok(Share { export, guest: mount.guest.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(mounts: &[&str]) -> String {
        let mounts: Vec<Mount> = mounts.iter().map(|text| text.parse().expect("a mount")).collect();
        Shares::check(&mounts).expect_err("refused").to_string()
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_by_name() {
        assert_eq!(Shares::check(&[]).expect("none"), None);
        insta::assert_snapshot!(refused(&["/nonexistent/x:/y"]), @"cannot mount /nonexistent/x at /y: No such file or directory (os error 2)");
        insta::assert_snapshot!(refused(&["/dev/null:/y"]), @"cannot mount /dev/null at /y: it is neither a folder nor a file");
        insta::assert_snapshot!(refused(&["/:/y"; SHARES_MAX + 1]), @"cannot mount / at /y: a machine has 16 mounts at most");
    }

    #[test]
    fn both_servers_are_told_the_same_in_their_own_words() {
        let export = |file| Export { source: "/a b,c".into(), file, read_only: true };
        let list = [false, true].map(|file| Share { export: export(file), guest: "/in the guest".into() });
        let shares = |dialect| Shares { server: "/x".into(), dialect, list: list.to_vec() };
        insta::assert_snapshot!(shares(Dialect::C).args(10).join(" "), @"--fd=10 -f -o source=/run/export,sandbox=namespace,log_level=err,modcaps=-mknod:-setfcap:-fsetid --rlimit-nofile=65536");
        insta::assert_snapshot!(shares(Dialect::Rust).args(10).join(" "), @"--fd=10 --shared-dir=/run/export --sandbox=namespace --log-level=error --modcaps=-mknod:-setfcap:-fsetid --rlimit-nofile=65536");
        let told = serde_json::to_string(&shares(Dialect::C).told()).expect("text");
        insta::assert_snapshot!(told, @r#"[{"tag":"share0","path":"/in the guest","read_only":true},{"tag":"share1","path":"/in the guest","file":"file","read_only":true}]"#);
    }
}
