//! Starts the program of a session, with a terminal or with pipes.
#![expect(unsafe_code, reason = "session, terminal and signals must be set between fork and exec")]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;

use dayfly_guest::protocol::session::{OutputStream, SessionProgram, TerminalSize};
use dayfly_guest::runner_app::{Launch, User};
use rustix::fs::{Gid, Mode};
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::agent::children::Children;
use crate::entrypoint::signals;
use crate::entrypoint::user::{self, Account, UserError};
use crate::image_env;

/// The variable that names the kind of a terminal. Without one, programs must not move a cursor.
const TERM: &str = "TERM";
/// Name of the user if none is named.
const ROOT: &str = "root";

/// A program that runs.
pub(super) struct Running {
    /// Its process, which leads a session and a process group of its own.
    pub(super) leader: Pid,
    /// Its exit status.
    pub(super) ended: Receiver<ExitStatus>,
    /// Its standard input.
    pub(super) input: File,
    /// Its output.
    pub(super) outputs: Vec<(OutputStream, File)>,
    /// Its terminal, if it has one.
    pub(super) terminal: Option<OwnedFd>,
}

/// Starts a program. The error is a text for people.
pub(super) fn start(program: &SessionProgram, children: &Children) -> Result<Running, String> {
    program.check()?;
    let (user, account) = user_of(program.user.as_deref())?;
    let (mut command, shown) = command(program, &user)?;
    let ends = match program.terminal {
        Some(size) => with_terminal(&mut command, size, account.as_ref()),
        None => with_pipes(&mut command),
    };
    let ends = ends.map_err(|error| format!("cannot make the session's ends: {error}"))?;
    if let Some(account) = account {
        account.apply_to(&mut command);
    }
    // The command holds the program's ends, and goes with this call.
    let started = children.spawn(command);
    let (leader, ended) = started.map_err(|error| format!("cannot start {shown}: {error}"))?;
    let Ends { input, outputs, terminal } = ends;
    Ok(Running { leader, ended, input, outputs, terminal })
}

/// Returns the user of a session, and the account that its program has to become, if it is not the agent's own.
fn user_of(name: Option<&str>) -> Result<(User, Option<Account>), String> {
    let unknown = |error: UserError| match error {
        UserError::Unknown(name) => format!("there is no user {name} in the machine's /etc/passwd"),
        error => error.to_string(),
    };
    let wanted = name.unwrap_or(ROOT);
    match Account::to_become(wanted).map_err(unknown)? {
        Some(account) => Ok((account.user.clone(), Some(account))),
        None => {
            let own = user::own().map_err(unknown)?;
            match name {
                Some(name) if name != own.name => {
                    Err(format!("the agent is not root, so its sessions belong to {} alone", own.name))
                }
                _ => Ok((own, None)),
            }
        }
    }
}

/// Returns the command of a session with the environment that a job's programs have, and its program for messages.
fn command(program: &SessionProgram, user: &User) -> Result<(Command, String), String> {
    let home = if user.home.is_dir() { user.home.clone() } else { PathBuf::from("/") };
    let folder = program.folder.as_ref().map_or(home, PathBuf::from);
    if !folder.is_dir() {
        return Err(format!("there is no folder {} in the machine", folder.display()));
    }
    let (path, args, arg0) = match program.command.split_first() {
        Some((path, args)) => (PathBuf::from(path), args.to_vec(), None),
        // A shell is a login shell if its name begins with a hyphen.
        None => {
            let name = user.shell.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (user.shell.clone(), Vec::new(), Some(format!("-{name}")))
        }
    };
    let mut launch = Launch::command(&path, &args, &folder, user);
    image_env::apply(&mut launch);
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().envs(launch.env).current_dir(&launch.folder);
    if program.terminal.is_some() {
        command.env(TERM, "xterm");
    }
    command.envs(program.env.iter().map(|(name, value)| (name, value)));
    if let Some(arg0) = arg0 {
        command.arg0(arg0);
    }
    Ok((command, shown(&path)))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The agent's ends of a program's input and output.
struct Ends {
    input: File,
    outputs: Vec<(OutputStream, File)>,
    terminal: Option<OwnedFd>,
}

/// Gives the command pipes, in a session without a terminal.
fn with_pipes(command: &mut Command) -> io::Result<Ends> {
    let (stdin, input) = io::pipe()?;
    let (output, stdout) = io::pipe()?;
    let (errors, stderr) = io::pipe()?;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    // SAFETY: only system calls run between fork and exec.
    unsafe {
        command.pre_exec(|| {
            signals::heed_all();
            Ok(rustix::process::setsid().map(drop)?)
        });
    }
    let file = |pipe: OwnedFd| File::from(pipe);
    let outputs = vec![(OutputStream::Out, file(output.into())), (OutputStream::Err, file(errors.into()))];
    Ok(Ends { input: file(input.into()), outputs, terminal: None })
}

/// Gives the command a new terminal of this size, which belongs to the account.
fn with_terminal(command: &mut Command, size: TerminalSize, account: Option<&Account>) -> io::Result<Ends> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    resize(&ours, size)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    if let Some(Account { uid, .. }) = account {
        // Programs such as `su` open the terminal by its name.
        rustix::fs::fchown(&theirs, Some(*uid), None::<Gid>)?;
        rustix::fs::fchmod(&theirs, Mode::from_raw_mode(0o620))?;
    }
    command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(Stdio::from(theirs));
    // SAFETY: only system calls run between fork and exec.
    unsafe {
        command.pre_exec(|| {
            signals::heed_all();
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        });
    }
    let output = File::from(ours.try_clone()?);
    let input = File::from(ours.try_clone()?);
    Ok(Ends { input, outputs: vec![(OutputStream::Out, output)], terminal: Some(ours) })
}

/// Sets the size of a terminal. The kernel tells the programs in it.
pub(super) fn resize(terminal: &OwnedFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn a_program_does_not_ignore_the_signals_that_its_starter_ignores() {
        // SAFETY: this sets no handler.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        for is_with_terminal in [false, true] {
            let mut command = Command::new("sh");
            command.args(["-c", "kill -USR2 $$"]);
            let _ends = if is_with_terminal {
                with_terminal(&mut command, TerminalSize { rows: 5, columns: 60 }, None).expect("a terminal")
            } else {
                with_pipes(&mut command).expect("pipes")
            };
            let status = command.status().expect("it starts");
            assert_eq!(status.signal(), Some(libc::SIGUSR2), "with a terminal: {is_with_terminal}");
        }
    }
}
