//! The standby entrypoint, which is started before its runner is known.

use super::Agent;
use crate::entrypoint::standby::{OPTION, Order, READY};
use dayfly_guest::protocol::Start;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::process::ExitStatus;
use std::sync::mpsc::Receiver;

/// Longest time in seconds that the runner app may take until it waits. The official app takes some ten seconds under
/// emulation.
const APP_MAX_S: &str = "90";

/// Longest time without output until the standby entrypoint is ready. It starts the runner app meanwhile.
const READY_MAX: Timespec = Timespec { tv_sec: 110, tv_nsec: 0 };

/// A standby entrypoint that waits for its order.
#[derive(Debug)]
pub(super) struct Standby {
    order: PipeWriter,
    output: PipeReader,
    ended: Receiver<ExitStatus>,
}

impl Standby {
    /// Starts the entrypoint, and waits until it is ready for its order. Also returns its output until then: the reason why
    /// no runner app waits, or nothing.
    pub(super) fn start(agent: &Agent, user: &str) -> io::Result<(Self, String)> {
        let (stdin, order) = io::pipe()?;
        let (output, writer) = io::pipe()?;
        let mut command = agent.own_command();
        command.args(["entrypoint", OPTION, APP_MAX_S, "-u", user]).env_clear().current_dir("/");
        command.stdin(stdin).stdout(writer.try_clone()?).stderr(writer);
        let (pid, ended) = agent.children.spawn(command)?;
        crate::memory::protect_entrypoint(pid);
        let mut standby = Self { order, output, ended };
        let said = standby.wait_until_ready()?;
        Ok((standby, said))
    }

    fn wait_until_ready(&mut self) -> io::Result<String> {
        let mut said = Vec::new();
        while !said.ends_with(format!("{READY}\n").as_bytes()) {
            // The output before that is short.
            if said.len() > crate::lines::LINE_MAX {
                return Err(io::Error::other("it prints something else"));
            }
            if poll(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(&READY_MAX))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut byte = [0];
            self.output.read_exact(&mut byte)?;
            said.extend(byte);
        }
        said.truncate(said.len() - READY.len() - 1);
        Ok(String::from_utf8_lossy(&said).trim_end().to_owned())
    }

    /// Sends the order, and returns the entrypoint's output and the channel of its exit status. Fails if the entrypoint
    /// has exited.
    pub(super) fn begin(mut self, start: &Start) -> io::Result<(PipeReader, Receiver<ExitStatus>)> {
        let order = Order { args: start.args.clone(), env: start.env.clone() };
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.order.write_all(&line)?;
        Ok((self.output, self.ended))
    }
}
