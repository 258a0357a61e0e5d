//! The messages between the host process and the launcher: one JSON object per datagram, with descriptors attached.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::calls::VmmCalls;
use super::root::OwnRoot;
use crate::network::{GateSettings, GatedNetwork};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest datagram, bytes: far more than any VMM's command line, and less than a socket's buffer.
const DATAGRAM_MAX: usize = 64 * 1024;
/// Most descriptors that are attached to a datagram.
pub(crate) const DESCRIPTORS_MAX: usize = 32;

/// The task of a launcher, and the walls around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaunchOrder {
    /// The user that the launcher becomes.
    pub(crate) user: User,
    /// The network namespace of the task.
    pub(crate) network: NetworkPlace,
    /// The root folder of the task.
    pub(crate) root: OwnRoot,
    /// The greatest length to which it can write a file, bytes; none for a server of files.
    pub(crate) file_bytes_max: Option<u64>,
    /// The task.
    pub(crate) task: Task,
}

/// The task of a launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Become a program.
    Program(Program),
    /// Serve as the gate of a machine's network, with the sockets that are sent with the order.
    Gate(GateSettings),
    /// Make a network for a machine in namespaces of its own, hand its descriptors back, and exit.
    Network(GatedNetwork),
}

/// A program that a launcher becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Its absolute path.
    pub(crate) path: PathBuf,
    /// Its arguments, without its name.
    pub(crate) args: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// The numbers for the descriptors that are sent with the order, in the same sequence.
    pub(crate) descriptors: Vec<i32>,
    /// The system calls that it may make.
    pub(crate) calls: CallFilter,
    /// True if it must get its memory in small pages only.
    pub(crate) small_pages: bool,
}

/// The system calls that a program may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallFilter {
    /// Those that a VMM needs.
    Vmm(VmmCalls),
    /// All but those with which a server of files would give rights away. It limits itself to the calls that it needs.
    Server,
}

impl LaunchOrder {
    /// Returns true if the launcher hands descriptors back before it goes on.
    pub(super) fn hands_back(&self) -> bool {
        matches!(self.task, Task::Network(_))
            || matches!(self.network, NetworkPlace::Empty { listen: Some(_) })
    }
}

/// The network namespace of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NetworkPlace {
    /// A new namespace that has only a loopback.
    Empty {
        /// A port of that loopback to listen on.
        listen: Option<u16>,
    },
    /// The namespace of the thread that starts the launcher: for a VMM this host's, and for a gate its machine's, or without
    /// root this host's.
    Inherited,
}

/// The user that a launcher becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum User {
    /// The user that starts it, who is not root. The other namespaces then need a user namespace.
    Same,
    /// Root, for a server of files, because files have many owners. It keeps the capabilities that it needs for files and
    /// until it has entered its sandbox. It makes no device, and no file that gives the rights of another user.
    Root,
    /// A separate user, whose id is derived from the process id. Only root can switch to it.
    Own {
        /// The group of `/dev/kvm`, if the program needs it instead of a separate group.
        group: Option<u32>,
    },
}

/// The launcher's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum LaunchReply {
    /// The descriptors that the order asks for are attached to this message.
    Handed,
    /// The launcher could not begin its task.
    Failed {
        /// The step that failed.
        step: String,
        /// Why the step failed.
        cause: String,
        /// The kernel's number of the cause, if it is the kernel's.
        errno: Option<i32>,
    },
}

/// Sends a message and descriptors.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > DATAGRAM_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the order is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message and descriptors; `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; DATAGRAM_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut"));
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, descriptors)))
}
