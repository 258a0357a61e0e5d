//! The user that the runner app runs as, read from `/etc/passwd` and `/etc/group`.
#![expect(unsafe_code, reason = "user and groups must change between fork and exec")]

use dayfly_guest::runner_app::User;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Limit of open files for a job's programs, as on hosted machines. Some programs iterate over all possible descriptors.
const OPEN_FILES: u64 = 65_536;

/// A user to become, with everything that a login sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: User,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups, including the primary one.
    pub(crate) groups: Vec<Gid>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error(
        "there is no user {0} in /etc/passwd: name another one (-u, RUNNER_USER), or -u '' for the current one"
    )]
    Unknown(String),
    #[error(
        "the current user, {0}, is not in /etc/passwd, so it has no home: give the app's folder with --app-dir"
    )]
    Homeless(u32),
    #[error("cannot read {path}: {source}")]
    Io {
        path: &'static str,
        #[source]
        source: std::io::Error,
    },
}

fn read(path: &'static str) -> Result<String, UserError> {
    std::fs::read_to_string(path).map_err(|source| UserError::Io { path, source })
}

/// Returns the current user.
pub(crate) fn own() -> Result<User, UserError> {
    let uid = rustix::process::getuid().as_raw();
    let passwd = read("/etc/passwd")?;
    let entry = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    let user = entry.and_then(|entry| match entry.split(':').collect::<Vec<_>>()[..] {
        [name, _, _, _, _, home, shell] => {
            Some(User { name: name.to_owned(), home: home.into(), shell: shell.into() })
        }
        _ => None,
    });
    user.ok_or(UserError::Homeless(uid))
}

impl Account {
    /// Returns the user to become. `None` if this process is not root: only root can change the user, so everything stays
    /// with the current user.
    pub(crate) fn to_become(name: &str) -> Result<Option<Self>, UserError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let account = Self::parse(name, &read("/etc/passwd")?, &read("/etc/group")?);
        account.map(Some).ok_or_else(|| UserError::Unknown(name.to_owned()))
    }

    /// Makes a command run as this user, with the limits of a login.
    pub(crate) fn apply_to(self, command: &mut Command) {
        // SAFETY: only system calls run between fork and exec, on memory that was allocated before the fork.
        unsafe { command.pre_exec(move || self.become_it()) };
    }

    /// Returns true if this user can write to a file, or create files in a folder. Mode bits and read-only file systems
    /// count, on the whole path; access control lists do not.
    pub(crate) fn may_write(&self, path: &Path) -> bool {
        let Ok(path) = std::fs::canonicalize(path) else { return false };
        // Fails even for root if the file system is read-only.
        if rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_err() {
            return false;
        }
        // A folder also needs the right to enter it.
        let wanted = if path.is_dir() { 0o3 } else { 0o2 };
        self.has_rights(&path, wanted) && path.ancestors().skip(1).all(|folder| self.has_rights(folder, 0o1))
    }

    /// Returns true if the mode bits give this user the `wanted` ones of read (4), write (2) and execute (1).
    fn has_rights(&self, path: &Path, wanted: u32) -> bool {
        let Ok(metadata) = std::fs::metadata(path) else { return false };
        let bits = if metadata.uid() == self.uid.as_raw() {
            metadata.mode() >> 6
        } else if self.groups.iter().any(|group| group.as_raw() == metadata.gid()) {
            metadata.mode() >> 3
        } else {
            metadata.mode()
        };
        self.uid.is_root() || bits & wanted == wanted
    }

    fn become_it(&self) -> io::Result<()> {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let maximum = limit.maximum;
        let current = Some(maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
        rustix::thread::set_thread_groups(&self.groups)?;
        rustix::thread::set_thread_gid(self.gid)?;
        rustix::thread::set_thread_uid(self.uid)?;
        Ok(())
    }

    fn parse(name: &str, passwd: &str, group: &str) -> Option<Self> {
        let entry = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let [_, _, uid, gid, _, home, shell] = entry.split(':').collect::<Vec<_>>()[..] else { return None };
        let (uid, gid) = (Uid::from_raw(uid.parse().ok()?), Gid::from_raw(gid.parse().ok()?));
        let mut groups = vec![gid];
        for line in group.lines() {
            let [_, _, id, members] = line.split(':').collect::<Vec<_>>()[..] else { continue };
            if let Ok(id) = id.parse()
                && members.split(',').any(|member| member == name)
                && !groups.contains(&Gid::from_raw(id))
            {
                groups.push(Gid::from_raw(id));
            }
        }
        let user = User { name: name.to_owned(), home: home.into(), shell: shell.into() };
        Some(Self { user, uid, gid, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_all_groups_that_name_it() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nrunner:x:1001:1001:,,,:/home/runner:/bin/bash\n";
        let group = "root:x:0:\ndocker:x:105:runner\nsudo:x:27:prunner,runner2\nrunner:x:1001:runner\nbad\n";
        let account = Account::parse("runner", passwd, group).expect("there");
        assert_eq!(account.groups, [Gid::from_raw(1001), Gid::from_raw(105)]);
        assert_eq!((account.uid, account.gid), (Uid::from_raw(1001), Gid::from_raw(1001)));
        assert_eq!(account.user.home, std::path::Path::new("/home/runner"));
        assert_eq!(Account::parse("run", passwd, group), None);
    }
}
