//! Starts the agent as a process of this host, for the driver without a VM, and connects to it.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dayfly_host::socket::SocketFolder;
use dayfly_host::tool::Invocation;
use rustix::process::Signal;

use super::record::{self, MachineRecord};
use super::source::{StartSource, Started};
use super::spawn::{Outputs, Vmm};
use super::{StartError, StartedFrom};
use crate::console::BoundedFile;
use crate::driver::process::{Folders, agent_args};
use crate::launch::LaunchError;
use crate::pace::Turn;
use crate::process::Process;

/// Everything that the agent is started from.
#[derive(Debug)]
pub(crate) struct TreeRecipe {
    pub(crate) name: String,
    pub(crate) guest_binary: PathBuf,
    pub(crate) run_dir: PathBuf,
}

impl StartSource for TreeRecipe {
    async fn spawn(
        &mut self,
        _turn: Option<Turn>,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<Started, StartError> {
        let vmm = self.spawn_keeper(outputs, detached).await?;
        Ok(Started { vmm, from: StartedFrom::Boot, turn: None, cold: None })
    }
}

impl TreeRecipe {
    /// Starts the agent's keeper, writes its record, and connects to it. The keeper starts the agent only after that.
    async fn spawn_keeper(&self, outputs: &Outputs, detached: &Arc<AtomicBool>) -> Result<Vmm, LaunchError> {
        let folders = self.make_folders().map_err(LaunchError::Record)?;
        let sockets = SocketFolder::open(&self.run_dir).map_err(LaunchError::Record)?;
        let listener = sockets.listen(record::AGENT_SOCKET).map_err(LaunchError::Record)?;
        let (output, printer) = io::pipe().map_err(LaunchError::Speak)?;
        let keeper =
            Invocation { program: self.guest_binary.clone(), args: agent_args(&folders), env: Vec::new() };
        let mut command = keeper.command();
        // Its path may be that of an open file, which tells people nothing.
        command.arg0("dayfly-guest");
        command.stdin(Stdio::from(listener)).stdout(printer.try_clone().map_err(LaunchError::Speak)?);
        let child = command
            .stderr(printer)
            .spawn()
            .map_err(|source| LaunchError::Spawn { program: self.guest_binary.clone(), source })?;
        let process = Process::new(child).map_err(LaunchError::Speak)?.killed_by(Signal::TERM);
        let pid = process.id();
        let keeper = UnreachedKeeper(Some(process));
        // If this process dies or fails before it has connected, the keeper exits by itself.
        let agent = sockets.connect(record::AGENT_SOCKET);
        let record = MachineRecord::of_keeper(pid, &self.name).and_then(|record| record.write(&self.run_dir));
        record.map_err(LaunchError::Record)?;
        let agent = agent.await.map_err(LaunchError::Speak)?;
        let mut vmm = Vmm::new(keeper.claim(), agent, detached);
        let pipe =
            tokio::net::unix::pipe::Receiver::from_owned_fd(output.into()).map_err(LaunchError::Speak)?;
        let log = BoundedFile::append(&self.run_dir.join(record::VMM_LOG)).ok();
        vmm.drains.spawn(outputs.vmm.clone().drain(pipe, log));
        Ok(vmm)
    }

    /// Creates new, empty folders.
    fn make_folders(&self) -> io::Result<Folders> {
        let guest = self.run_dir.join(record::GUEST_FOLDER);
        record::remove_folder(&guest)?;
        let folders = Folders::below(&guest);
        for folder in [&folders.environment, &folders.work, &folders.log] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Ok(folders)
    }
}

/// A keeper that is killed on drop unless it is claimed, because no handle owns it before its agent is reached.
struct UnreachedKeeper(Option<Process>);

impl UnreachedKeeper {
    fn claim(mut self) -> Process {
        self.0.take().expect("claimed once: this consumes it")
    }
}

impl Drop for UnreachedKeeper {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            process.kill();
            process.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn a_keeper_whose_agent_is_not_reached_is_killed() {
        let sleeper = || {
            let child = Command::new("sleep").arg("60").spawn().expect("spawn");
            Process::new(child).expect("process").killed_by(Signal::TERM)
        };
        let process = sleeper();
        let stat = format!("/proc/{}/stat", process.id());
        drop(UnreachedKeeper(Some(process)));
        assert!(std::fs::read_to_string(stat).is_err(), "the process is gone, and reaped");
        let mut claimed = UnreachedKeeper(Some(sleeper())).claim();
        assert!(!claimed.has_ended());
        claimed.kill();
        claimed.reap();
    }
}
