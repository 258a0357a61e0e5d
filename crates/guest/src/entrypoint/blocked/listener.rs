//! The official app: its own `bin/Runner.Listener run` waits, because its `.runner` is a FIFO.
//!
//! The listener reads `.runner` twice: first for the name that it gives itself in requests (only if the file exists), then
//! for its settings (`HostContext` and `ConfigurationStore` in the sources of 2.336.0). The first read gets `{}`. The
//! second read waits, with the runtime, the command line and the services up, and before the forge or any library of TLS
//! has been touched. OpenSSL keeps a random number generator in each process, so a listener that has such a library in
//! memory must not be forked. .NET's own random identifiers come from the kernel.

use super::{Standby, StandbyError, fifo};
use crate::entrypoint::app::{self, AppError, at};
use crate::entrypoint::user::Account;
use crate::entrypoint::worker::Worker;
use crate::entrypoint::{process, tuning};
use crate::processes;
use dayfly_guest::runner_app::{JitConfig, Launch, RunnerFile};
use rustix::process::Pid;
use std::fs::File;
use std::io::PipeReader;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;

/// Name that the second FIFO has until it takes the place of the first.
const NEXT: &str = ".runner.next";

/// The settings that the listener's first read gets.
const NOTHING: &[u8] = b"{}";

/// Parts of the names of libraries whose state must not be forked.
const TLS: [&str; 3] = ["libssl", "libcrypto", "System.Security.Cryptography.Native.OpenSsl"];

#[derive(Default)]
pub(super) struct ListenerStandby {
    account: Option<Account>,
    /// The path of the FIFO, once it was made.
    runner: Option<PathBuf>,
    /// The other end of the FIFO, while the listener waits.
    pipe: Option<File>,
    worker: Option<Worker>,
}

impl Standby for ListenerStandby {
    fn start(
        &mut self,
        launch: &Launch,
        account: Option<&Account>,
        end: Instant,
    ) -> Result<(Child, PipeReader), StandbyError> {
        let runner = launch.folder.join(RunnerFile::Runner.name());
        if runner.symlink_metadata().is_ok() {
            return Err(StandbyError::Occupied(runner));
        }
        self.account = account.cloned();
        app::give(&launch.folder, account)?;
        for problem in tuning::tune(launch) {
            crate::console::say(&problem);
        }
        let worker = self.worker.insert(Worker::wrap(launch)?);
        worker.warm_up(launch, account, end);
        fifo::make(&runner, account)?;
        self.runner = Some(runner.clone());
        let (child, output) = process::spawn(launch, account)?;
        let waiting = wait(&runner, launch, Pid::from_child(&child), account, end);
        let (child, pipe) = process::keep_if(child, waiting)?;
        self.pipe = Some(pipe);
        Ok((child, output))
    }

    fn hand_over(&mut self, launch: &Launch, jit_config: &JitConfig) -> Result<(), StandbyError> {
        let (Some(worker), Some(pipe)) = (&self.worker, self.pipe.take()) else {
            return Err(StandbyError::Gone);
        };
        worker.set_environment(&launch.env, self.account.as_ref())?;
        let file = RunnerFile::Runner;
        Ok(fifo::write(pipe, jit_config.file(file))
            .map_err(at("cannot tell the app that waits at", &launch.folder.join(file.name())))?)
    }

    fn clean_up(&mut self) {
        if let Some(runner) = self.runner.take() {
            let _ = std::fs::remove_file(runner.with_file_name(NEXT));
            if runner.symlink_metadata().is_ok_and(|runner| runner.file_type().is_fifo()) {
                let _ = std::fs::remove_file(runner);
            }
        }
        if let Some(worker) = self.worker.take() {
            worker.unwrap();
        }
    }
}

/// Answers the listener's first read, waits for the second, and returns the end at which that waits.
fn wait(
    runner: &Path,
    launch: &Launch,
    listener: Pid,
    account: Option<&Account>,
    end: Instant,
) -> Result<File, StandbyError> {
    let first = fifo::wait_for_reader(runner, &launch.program, listener, end)?;
    // A FIFO of its own, so that the second read cannot be mistaken for the first.
    let next = runner.with_file_name(NEXT);
    fifo::make(&next, account)?;
    std::fs::rename(&next, runner).map_err(at("cannot replace", runner))?;
    fifo::write(first, NOTHING).map_err(at("cannot write to", runner))?;
    let second = fifo::wait_for_reader(runner, &launch.program, listener, end)?;
    match tls_library(listener)? {
        None => Ok(second),
        Some(library) => Err(StandbyError::Tls(library)),
    }
}

/// Returns a library of TLS that a process or one of its descendants has in memory.
fn tls_library(process: Pid) -> Result<Option<PathBuf>, AppError> {
    for pid in processes::with_descendants(process) {
        let maps = format!("/proc/{}/maps", pid.as_raw_nonzero());
        let maps = match std::fs::read_to_string(&maps) {
            // A descendant may have exited meanwhile.
            Err(error) if pid != process && error.kind() == std::io::ErrorKind::NotFound => continue,
            maps_read => maps_read.map_err(at("cannot read", Path::new(&maps)))?,
        };
        if let Some(library) = tls_library_in(&maps) {
            return Ok(Some(library.into()));
        }
    }
    Ok(None)
}

/// Returns the first library of TLS in a process's `maps`: `address rights offset device inode path`.
fn tls_library_in(maps: &str) -> Option<&str> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    paths.into_iter().find(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        TLS.iter().any(|library| name.contains(library))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_tls_is_known_by_its_file_name() {
        let line = |path: &str| {
            format!(
                "7f0-7f1 r-xp 00000000 08:01 17    /usr/bin/x\n7f1-7f2 r--p 00001000 08:01 42     {path}\n"
            )
        };
        let of = |path: &str| tls_library_in(&line(path)).map(str::to_owned);
        for library in [
            "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            "/lib64/libcrypto.so.3.0.7 (deleted)",
            "/opt/a b/bin/libSystem.Security.Cryptography.Native.OpenSsl.so",
        ] {
            assert_eq!(of(library).as_deref(), Some(library));
        }
        for other in ["/opt/libssl/bin/libcoreclr.so", "[heap]", "", "/usr/lib/libc.so.6"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
