//! Errors of opening or serving a lab.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Errors of opening or serving a lab.
#[derive(Debug, Error)]
pub enum LabError {
    /// A file or folder of the lab's data cannot be used.
    #[error("the lab cannot use {}: check its owner, its mode and the free space", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another running lab uses the folder.
    #[error("the data folder {} is used by another lab: stop that one, or take another folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The address for runners is invalid.
    #[error("the runner URL \"{url}\" must be http://HOST[:PORT], without a path")]
    BadRunnerUrl {
        /// The given address.
        url: String,
    },
    /// An order for a fault cannot be carried out.
    #[error("the fault \"{spec}\" cannot be ordered: {why}")]
    Fault {
        /// The order.
        spec: String,
        /// The reason.
        why: String,
    },
    /// A thread cannot be started.
    #[error("the lab cannot start a thread")]
    Thread(#[source] io::Error),
    /// The listener's address cannot be read.
    #[error("the lab's listener has no address")]
    Listener(#[source] io::Error),
    /// The thread that owns the state has exited.
    #[error("the lab has stopped: see the log for a panic")]
    Stopped,
}
