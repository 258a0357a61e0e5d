//! Resolves arguments and environment to places and settings, once. Other modules do not read the environment for them.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dayfly_image::oci::{Registries, RegistryAccess};

use crate::cli::Common;
use crate::exit::{Failure, Result};
use crate::proxy;

/// Name of the guest binary in the folder of this program.
const GUEST_BINARY: &str = "dayfly-guest";

/// The places of dayfly's files and programs on this host.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Folder of images, runs and instances.
    pub(crate) state: PathBuf,
    /// QEMU's program, if the user gave one.
    pub(crate) qemu: Option<PathBuf>,
    /// Folders of the search path, for Go, credential helpers and the tools of drivers.
    pub(crate) search_path: Vec<PathBuf>,
    /// The environment variables that podman, krunvm and buildah get.
    pub(crate) tool_env: Vec<(String, String)>,
    guest_binary: GuestBinary,
    /// File of mirrors, authorities and unencrypted registries, if there is one.
    registries: Option<PathBuf>,
}

/// The guest binary as it was at the start, so that an upgrade of dayfly's package changes nothing for a process that
/// runs: its machines would get an agent that speaks another version of the protocol.
#[derive(Debug, Clone)]
struct GuestBinary {
    /// The path that it was opened by.
    path: PathBuf,
    /// The open file; none if there was no file.
    file: Option<Arc<File>>,
}

impl GuestBinary {
    fn open(path: PathBuf) -> Self {
        let file = File::open(&path).ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file()));
        Self { path, file: file.map(Arc::new) }
    }

    /// Returns a path that leads this process, and a child until it is another program, to the file that was opened.
    fn pinned(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
    }
}

/// Returns the kind of this process's terminal, as programs need it to move the cursor.
pub(crate) fn terminal_kind() -> Option<String> {
    env::var("TERM").ok().filter(|kind| !kind.is_empty())
}

/// Returns false if the user wants no colours (`NO_COLOR`).
pub(crate) fn wants_colour() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Places {
    /// Resolves the places. Creates nothing.
    pub(crate) fn resolve(common: &Common) -> Result<Self> {
        let program = env::current_exe().map_err(Failure::cannot)?;
        let state = match &common.state {
            Some(state) => std::path::absolute(state).map_err(Failure::usage)?,
            None => default_state(
                rustix::process::geteuid().is_root(),
                env::var_os("XDG_STATE_HOME"),
                env::var_os("HOME"),
            )
            .ok_or_else(|| Failure::usage("no --state, and HOME is not set").hint("give --state DIR"))?,
        };
        let guest_binary = match &common.guest_binary {
            Some(file) => std::path::absolute(file).map_err(Failure::usage)?,
            None => program.parent().unwrap_or(Path::new("/")).join(GUEST_BINARY),
        };
        let qemu = common.qemu.clone();
        let search_path =
            env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        let tool_env =
            environment().into_iter().filter(|(name, _)| dayfly_host::tool::is_for_tools(name)).collect();
        let registries = common.registries.clone().or_else(default_registries);
        let guest_binary = GuestBinary::open(guest_binary);
        Ok(Self { state, qemu, search_path, tool_env, guest_binary, registries })
    }

    /// Returns places of a test, with this state folder and nothing else.
    #[cfg(test)]
    pub(crate) fn for_tests(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            qemu: None,
            search_path: Vec::new(),
            tool_env: Vec::new(),
            guest_binary: GuestBinary::open(PathBuf::new()),
            registries: None,
        }
    }

    /// Closes the folders of the state to other users; earlier versions created some of them open.
    ///
    /// # Errors
    /// The mode of a folder cannot be changed.
    pub(crate) fn close_to_others(&self) -> Result<()> {
        let names = [
            "images",
            "blobs",
            "kernels",
            "tools",
            "runner-apps",
            "templates",
            "instances",
            "logs",
            "history",
        ];
        let folders: Vec<PathBuf> = names.iter().map(|name| self.state.join(name)).collect();
        dayfly_host::stage::close_folders(folders.iter().map(PathBuf::as_path)).map_err(Failure::cannot)
    }

    /// Returns the access to registries: docker's and podman's credentials, and the proxy of the environment.
    ///
    /// # Errors
    /// The file of registries cannot be read or parsed.
    pub(crate) fn registry_access(&self) -> Result<RegistryAccess> {
        let registries =
            self.registries.as_deref().map(Registries::read).transpose().map_err(Failure::usage)?;
        Ok(RegistryAccess {
            credentials: credential_files(&|name| env::var_os(name)),
            helper_folders: self.search_path.clone(),
            helper_env: environment().into_iter().filter(|(name, _)| is_for_helpers(name)).collect(),
            registries: registries.unwrap_or_default(),
            proxy: proxy::variable("HTTPS_PROXY").map(|proxy| proxy::with_scheme(&proxy)),
            no_proxy: proxy::variable("NO_PROXY").unwrap_or_default(),
        })
    }

    /// Returns a path of the guest binary, which leads to the same file as long as this process lives.
    ///
    /// # Errors
    /// It did not exist when this process started.
    pub(crate) fn guest_binary(&self) -> Result<PathBuf> {
        self.guest_binary.pinned().ok_or_else(|| {
            Failure::cannot(format!("the guest binary {} is not there", self.guest_binary.path.display()))
                .hint("`make build` puts it beside dayfly; or give --guest-binary FILE")
        })
    }

    /// Returns the folder of the guest binary, whether the binary exists or not.
    pub(crate) fn guest_folder(&self) -> PathBuf {
        self.guest_binary.path.parent().unwrap_or(Path::new("/")).to_owned()
    }

    /// Returns the path that the guest binary was opened by.
    ///
    /// # Errors
    /// As for [`Places::guest_binary`].
    pub(crate) fn guest_binary_path(&self) -> Result<&Path> {
        self.guest_binary().map(|_| self.guest_binary.path.as_path())
    }
}

/// Returns the environment of this process, as far as it is text.
pub(crate) fn environment() -> Vec<(String, String)> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Returns true if a credential helper may see a variable. Helpers of clouds need many variables, but none of dayfly's own,
/// because the token is among these.
fn is_for_helpers(name: &str) -> bool {
    !["RUNNER_", "ORCHESTRATOR_", "DAYFLY_"].iter().any(|start| name.starts_with(start))
}

/// Returns the user's file of registries, else the administrator's; none if neither exists.
fn default_registries() -> Option<PathBuf> {
    let folders = user_configuration().into_iter().chain(["/etc/dayfly".into()]);
    folders.map(|folder| folder.join("registries.json")).find(|path| path.is_file())
}

/// Returns the folder of the user's own configuration; none if it is not known.
pub(crate) fn user_configuration() -> Option<PathBuf> {
    let own = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = own.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    folder.map(|folder| folder.join("dayfly"))
}

/// Returns the files in which podman and docker store credentials, in podman's order (containers-auth.json(5)).
fn credential_files(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = folder("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = folder("HOME");
    let config = folder("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = folder("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let files = [
        folder("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
        // Root often has no XDG_RUNTIME_DIR.
        Some(PathBuf::from("/run/containers/0/auth.json")).filter(|_| rustix::process::geteuid().is_root()),
        config.map(|folder| folder.join("containers/auth.json")),
        docker.map(|folder| folder.join("config.json")),
    ];
    files.into_iter().flatten().collect()
}

/// Returns the state folder of a command without `--state`; none if it is not known.
pub(crate) fn usual_state() -> Option<PathBuf> {
    let named = env::var_os("DAYFLY_STATE").filter(|state| !state.is_empty());
    named.map(PathBuf::from).or_else(|| {
        let root = rustix::process::geteuid().is_root();
        default_state(root, env::var_os("XDG_STATE_HOME"), env::var_os("HOME"))
    })
}

fn default_state(
    root: bool,
    xdg: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from("/var/lib/dayfly"));
    }
    // The XDG specification requires that a relative path is ignored.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join(".local/state"));
    Some(xdg.or(home)?.join("dayfly"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_binary_that_is_replaced_or_removed_stays_the_one_of_the_start() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(GUEST_BINARY);
        std::fs::copy("/bin/true", &path).expect("a program");
        let guest = GuestBinary::open(path.clone());
        let pinned = guest.pinned().expect("there");
        let upgraded = folder.path().join("new");
        std::fs::copy("/bin/false", &upgraded).expect("another program");
        std::fs::rename(upgraded, &path).expect("replaced");
        let runs = || std::process::Command::new(&pinned).status().expect("run").success();
        assert!(runs());
        std::fs::remove_file(path).expect("removed");
        assert!(runs());
        assert!(GuestBinary::open(folder.path().to_owned()).pinned().is_none(), "a folder");
    }

    #[test]
    fn credentials_are_looked_for_where_their_owners_keep_them() {
        let of = |known: &[(&str, &str)]| -> Vec<String> {
            let variable = |name: &str| known.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
            let files = credential_files(&variable).into_iter().map(|path| path.display().to_string());
            files.filter(|path| !path.starts_with("/run/containers/0/")).collect()
        };
        assert_eq!(of(&[("REGISTRY_AUTH_FILE", "/a.json"), ("HOME", "/h")]), ["/a.json"]);
        assert_eq!(of(&[("HOME", "/h")]), ["/h/.config/containers/auth.json", "/h/.docker/config.json"]);
        assert_eq!(
            of(&[
                ("HOME", "/h"),
                ("XDG_RUNTIME_DIR", "/r"),
                ("DOCKER_CONFIG", "/d"),
                ("XDG_CONFIG_HOME", "/c")
            ]),
            ["/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json"]
        );
    }

    #[test]
    fn credential_helpers_see_no_variable_of_dayflys_own() {
        assert!(["AWS_PROFILE", "HOME", "GNUPGHOME"].into_iter().all(is_for_helpers));
        assert!(!["RUNNER_PAT", "ORCHESTRATOR_RUNNERS", "DAYFLY_STATE"].into_iter().any(is_for_helpers));
    }

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
