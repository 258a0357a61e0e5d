//! Starts the agent as a process of this host, for the driver without a VM, and connects to it.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
use crate::socket::SocketFolder;
use dayfly_host::tool::Invocation;

/// Everything that the agent is started from.
#[derive(Debug)]
pub(crate) struct TreeRecipe {
    pub(crate) name: String,
    pub(crate) guest_binary: PathBuf,
    pub(crate) run_dir: PathBuf,
}

impl StartSource for TreeRecipe {
    async fn turn(&self) -> Result<Option<Turn>, StartError> {
        Ok(None)
    }

    async fn spawn(
        &mut self,
        _turn: Option<Turn>,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<Started, StartError> {
        let vmm = self.spawn_keeper(outputs, detached).await?;
        Ok(Started { vmm, from: StartedFrom::Boot, turn: None, cold: None })
    }

    fn succeeded(&self) {}

    fn fork_failed(&mut self, _reason: &str) {}
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
        command.stdin(Stdio::from(listener)).stdout(printer.try_clone().map_err(LaunchError::Speak)?);
        let child = command
            .stderr(printer)
            .spawn()
            .map_err(|source| LaunchError::Spawn { program: self.guest_binary.clone(), source })?;
        let process = Process::new(child).map_err(LaunchError::Speak)?.killed_by(Signal::TERM);
        let pid = process.id();
        // If this process dies or fails before it has connected, the keeper exits by itself.
        let agent = sockets.connect(record::AGENT_SOCKET);
        let record = MachineRecord::of_keeper(pid, &self.name).and_then(|record| record.write(&self.run_dir));
        let agent = match record {
            Ok(()) => agent.await,
            Err(error) => {
                process.kill();
                return Err(LaunchError::Record(error));
            }
        };
        let mut vmm = Vmm::new(process, agent.map_err(LaunchError::Speak)?, detached);
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
