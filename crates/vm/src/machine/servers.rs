//! The processes that serve files to a machine. They exit with its VMM.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use dayfly_host::socket::SocketFolder;

use super::record::MachineRecord;
use super::spawn::{Outputs, Recipe, Unclaimed};
use crate::cgroup::Group;
use crate::launch::{
    self, CallFilter, LaunchError, LaunchOrder, Launched, NetworkPlace, OwnRoot, Program, Task, User,
};
use crate::process::Process;
use crate::virtiofs::{self, Share, Shares};

/// Number of the descriptor that is a server's listening socket.
const LISTENER: i32 = 10;
/// The device of a server.
const NULL: &str = "/dev/null";

/// The servers of one VMM. Dropping this kills them.
#[derive(Debug, Default)]
pub(crate) struct Servers(Vec<Process>);

impl Servers {
    /// Kills the servers, because their VMM is gone.
    pub(super) fn end(&mut self) {
        for mut server in self.0.drain(..) {
            server.kill();
            server.reap();
        }
    }

    /// Releases the servers of a VMM that outlives this process. They exit with their VMM.
    pub(super) fn release(&mut self) {
        self.0.clear();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Recipe {
    /// Starts a server for each share. The returned descriptors are the VMM's ends of the connections to the servers.
    pub(super) async fn serve_shares(
        self: &Arc<Self>,
        group: &Arc<Group>,
        folder: &SocketFolder,
        outputs: &Outputs,
    ) -> Result<(Servers, Vec<OwnedFd>), LaunchError> {
        let (mut servers, mut connections) = (Servers::default(), Vec::new());
        let count = self.shares.as_ref().map_or(0, |shares| shares.list.len());
        for number in 0..count {
            // Connected before the server starts, so that the server finds the connection closed and exits if this process
            // dies meanwhile.
            let (listener, connection) =
                folder.listen_and_connect(&virtiofs::tag(number)).map_err(LaunchError::Record)?;
            let (recipe, group) = (Arc::clone(self), Arc::clone(group));
            let serve = move || recipe.serve(&group, number, listener).map(Unclaimed::new);
            let launched = tokio::task::spawn_blocking(serve)
                .await
                .map_err(|error| LaunchError::Speak(io::Error::other(error)))??
                .claim();
            servers.0.push(Process::new(launched.child).map_err(LaunchError::Speak)?);
            let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(launched.output);
            tokio::spawn(outputs.vmm.clone().drain(pipe.map_err(LaunchError::Speak)?, None));
            connections.push(connection);
        }
        Ok((servers, connections))
    }

    fn serve(&self, group: &Group, number: usize, listener: OwnedFd) -> Result<Launched, LaunchError> {
        let missing = || LaunchError::Speak(io::ErrorKind::NotFound.into());
        let shares: &Shares = self.shares.as_ref().ok_or_else(missing)?;
        let Share { export, .. } = shares.list.get(number).ok_or_else(missing)?;
        let order = LaunchOrder {
            user: User::Root,
            network: NetworkPlace::Empty { listen: None },
            root: OwnRoot { files: shares.files(), devices: vec![NULL.into()], export: Some(export.clone()) },
            file_bytes_max: None,
            task: Task::Program(Program {
                path: shares.server.clone(),
                args: shares.args(LISTENER),
                env: Vec::new(),
                descriptors: vec![LISTENER],
                calls: CallFilter::Server,
                small_pages: false,
            }),
        };
        launch::launch(&self.launcher, &order, &[listener], |pid| {
            MachineRecord::of_process(pid, &self.name)?.write_server(&self.run_dir, number)?;
            group.enter(pid)
        })
    }
}
