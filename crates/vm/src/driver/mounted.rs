//! The common part of podman-krun and krunvm: the needs of a machine with a shared environment directory.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use dayfly_guest::environment::{self, Suffix, file_name};

use crate::mount::Mount;
use dayfly_host::tool::Invocation;

/// Path in the machine of the folder with its own copy of the guest binary.
pub(crate) const GUEST_DIR: &str = "/_dayfly";
/// Name of the guest binary in [`GUEST_DIR`].
pub(crate) const GUEST_NAME: &str = "dayfly-guest";

/// The needs of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Needs<'a> {
    /// Name of the machine in the tool.
    pub(crate) name: &'a str,
    /// Host name of the machine.
    pub(crate) hostname: &'a str,
    /// Id of the runner in the machine.
    pub(crate) runner_id: &'a str,
    /// The run folder, by which the machine's leftovers are found.
    pub(crate) run_dir: &'a Path,
    /// The machine's image, as the tool names it.
    pub(crate) image: &'a str,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory, MiB.
    pub(crate) memory_mib: u32,
    /// DNS server.
    pub(crate) dns: IpAddr,
    /// True if the machine must reach a port of the host's loopback.
    pub(crate) reaches_host: bool,
    /// The loop's environment directory on the host.
    pub(crate) environment: &'a Path,
    /// The folder on the host that holds only the guest binary.
    pub(crate) guest_dir: &'a Path,
    /// Further folders of the host.
    pub(crate) mounts: &'a [Mount],
    /// The program that is started instead of that guest binary.
    pub(crate) program: Option<&'a Path>,
    /// Arguments after those that name the runner.
    pub(crate) args: &'a [String],
}

impl Needs<'_> {
    /// Returns the path of the machine's command.
    pub(crate) fn program(&self) -> PathBuf {
        self.program.map_or_else(|| Path::new(GUEST_DIR).join(GUEST_NAME), Path::to_owned)
    }

    /// Returns the command's arguments. They name files of the environment directory, which hold the secrets.
    pub(crate) fn command_args(&self) -> Vec<String> {
        let file = |suffix| format!("{}/{}", environment::DIRECTORY, file_name(self.runner_id, suffix));
        let (env, tkn) = (file(Suffix::Env), file(Suffix::Tkn));
        let args = ["entrypoint", "-i", self.runner_id, "-E", &env, "-k", &tkn].map(str::to_owned);
        args.into_iter().chain(self.args.iter().cloned()).collect()
    }
}

/// The command lines of one machine's life. The record of [`crate::machine`] describes how to find and remove the machine,
/// and is valid after a crash too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Creates the machine without starting it.
    pub(crate) create: Invocation,
    /// Starts the machine and runs as long as the machine. Its output is the machine's, its exit status the entrypoint's.
    pub(crate) start: Invocation,
    /// Tells the entrypoint to stop; none if only a signal to the machine's process can do so.
    pub(crate) stop: Option<Invocation>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn images_find_the_guest_binary_where_it_is_mounted() {
        assert_eq!(format!("{GUEST_DIR}/{GUEST_NAME}"), environment::GUEST);
    }

    /// Returns a command line as a person would type it, one option per line.
    pub(crate) fn shown(invocation: &Invocation) -> String {
        let mut text = invocation.program.display().to_string();
        for arg in &invocation.args {
            text.push_str(if arg.starts_with("--") { "\n  " } else { " " });
            text.push_str(arg);
        }
        text
    }

    pub(crate) fn needs(mounts: &[Mount]) -> Needs<'_> {
        Needs {
            name: "GH-runner-2-k3V9x0q",
            hostname: "GH-runner-2-k3V9x0q",
            runner_id: "2-k3V9x0q",
            run_dir: Path::new("/state/instances/x/runs/2-k3V9x0q"),
            image: "ghcr.io/a/b:main",
            cpus: 2,
            memory_mib: 1024,
            dns: [1, 1, 1, 1].into(),
            reaches_host: false,
            environment: Path::new("/state/instances/x/environment/GH-runner-002"),
            guest_dir: Path::new("/state/instances/x/runs/2-k3V9x0q/guest"),
            mounts,
            program: None,
            args: &[],
        }
    }
}
