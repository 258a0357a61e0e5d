//! From arguments and environment to places and settings, once; nothing below reads either.

use std::env;
use std::path::{Path, PathBuf};

use crate::cli::Common;
use crate::exit::{Failure, Result};

/// Name of the guest binary, beside the host's.
const GUEST_BINARY: &str = "dayfly-guest";

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Images, runs, instances.
    pub(crate) state: PathBuf,
    /// This program: it starts VMMs through itself.
    pub(crate) program: PathBuf,
    /// QEMU, where it is not to be looked for.
    pub(crate) qemu: Option<PathBuf>,
    /// Folders of the search path: where Go may be.
    pub(crate) search_path: Vec<PathBuf>,
    /// What podman, krunvm and buildah see of the environment.
    pub(crate) tool_env: Vec<(String, String)>,
    guest_binary: PathBuf,
}

impl Places {
    /// Resolves the places; nothing is made yet.
    pub(crate) fn resolve(common: &Common) -> Result<Self> {
        let program = env::current_exe().map_err(Failure::cannot)?;
        let state = match &common.state {
            Some(state) => std::path::absolute(state).map_err(Failure::usage)?,
            None => default_state(
                rustix::process::geteuid().is_root(),
                env::var_os("XDG_STATE_HOME"),
                env::var_os("HOME"),
            )
            .ok_or_else(|| Failure::usage("no HOME to keep the state under").hint("give --state DIR"))?,
        };
        let guest_binary = match &common.guest_binary {
            Some(file) => std::path::absolute(file).map_err(Failure::usage)?,
            None => program.parent().unwrap_or(Path::new("/")).join(GUEST_BINARY),
        };
        let qemu = common.qemu.clone();
        let search_path =
            env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        let tool_env = env::vars().filter(|(name, _)| dayfly_vm::is_for_tools(name)).collect();
        Ok(Self { state, program, qemu, search_path, tool_env, guest_binary })
    }

    /// The guest binary, which must be there.
    pub(crate) fn guest_binary(&self) -> Result<PathBuf> {
        if self.guest_binary.is_file() {
            return Ok(self.guest_binary.clone());
        }
        Err(Failure::cannot(format!("the guest binary {} is not there", self.guest_binary.display()))
            .hint("`make build` puts it beside dayfly; or give --guest-binary FILE"))
    }
}

fn default_state(
    root: bool,
    xdg: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from("/var/lib/dayfly"));
    }
    // The specification says that a relative path there is to be ignored.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join(".local/state"));
    Some(xdg.or(home)?.join("dayfly"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_keeps_state_for_the_host_and_a_user_under_home() {
        assert_eq!(default_state(true, None, None), Some("/var/lib/dayfly".into()));
        assert_eq!(
            default_state(false, None, Some("/home/u".into())),
            Some("/home/u/.local/state/dayfly".into())
        );
        assert_eq!(default_state(false, Some("/x".into()), Some("/home/u".into())), Some("/x/dayfly".into()));
        assert_eq!(
            default_state(false, Some("x".into()), Some("/home/u".into())),
            Some("/home/u/.local/state/dayfly".into())
        );
        assert_eq!(default_state(false, None, None), None);
    }
}
