//! Prepares a machine for any runner before it is frozen.
//!
//! The prepared machine holds nothing that belongs to a runner or a user: no key, no token, no name. Processes that stand
//! still cost the forks of this machine nothing, but processes that run cost each fork.

use super::{Agent, docker, identity::Identities, standby::Standby};
use crate::console::PREFIX;
use crate::entrypoint::{folders, user::Account};
use crate::{lines, processes};
use dayfly_guest::protocol::{Prepare, Source};
use dayfly_guest::runner_app::{Launch, User};
use std::collections::VecDeque;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// Path of the warm-up's script while it runs.
const SCRIPT: &str = "/run/dayfly/warm-up";
/// Number of last lines that a failure quotes.
const TAIL_LINES: usize = 12;
/// Longest wait until the machine is quiet. If it does not become quiet, it is frozen anyway.
const QUIET_MAX: Duration = Duration::from_secs(20);
/// Length of a window in which the machine must be almost idle, and the number of such windows in a row.
const WINDOW: Duration = Duration::from_millis(200);
const WINDOWS: u32 = 4;
/// Most processor time that is used in an idle window, hundredths of a second.
const TICKS_MAX: u64 = 1;

/// Prepares the machine. The error says why it must not be frozen.
pub(super) fn run(agent: &Agent, identities: &Identities, prepare: &Prepare) -> Result<(), String> {
    identities.set_dns(prepare.dns).map_err(|error| format!("cannot write /etc/resolv.conf: {error}"))?;
    if let Some(script) = &prepare.warm_up {
        warm_up(agent, script, prepare).map_err(|why| format!("the warm-up {why}"))?;
    }
    // All modules are loaded again so that none is missing. A module that is loaded already costs nothing.
    crate::boot::load_for_docker();
    match Standby::start(agent, &prepare.user) {
        Ok((standby, said)) => {
            agent.set_standby(standby);
            said.lines().for_each(|line| agent.tell(line.strip_prefix(PREFIX).unwrap_or(line)));
        }
        // The entrypoint can be started in the ordinary way later.
        Err(error) => agent.tell(&format!("no entrypoint stands by: {error}")),
    }
    wait_until_quiet();
    docker::sleep(agent);
    // Otherwise every fork would write the data that is on its way to the disk.
    rustix::fs::sync();
    wait_until_quiet();
    agent.outbox.forget_lines();
    Ok(())
}

fn warm_up(agent: &Agent, script: &str, prepare: &Prepare) -> Result<(), String> {
    let account = Account::to_become(&prepare.user).map_err(|error| format!("cannot run: {error}"))?;
    let user = match &account {
        Some(account) => account.user.clone(),
        None => User { name: prepare.user.clone(), home: "/".into(), shell: "/bin/sh".into() },
    };
    write_script(script).map_err(|error| format!("cannot be written to {SCRIPT}: {error}"))?;
    let mut launch = Launch::command(Path::new(SCRIPT), &[], &user.home, &user);
    crate::image_env::apply(&mut launch);
    folders::settle(&mut launch, account.as_ref());
    let ended = run_to_end(agent, &launch, account, Duration::from_secs(prepare.warm_up_limit_s));
    let _ = std::fs::remove_file(SCRIPT);
    let (status, tail) = ended?;
    if status.success() {
        return Ok(());
    }
    Err(format!("ended with {status}; its last lines:\n{}", Vec::from(tail).join("\n")))
}

/// Writes the script. If it names no interpreter, `/bin/sh -e` runs it.
fn write_script(script: &str) -> io::Result<()> {
    let first = if script.starts_with("#!") { "" } else { "#!/bin/sh -e\n" };
    std::fs::write(SCRIPT, format!("{first}{script}"))?;
    std::fs::set_permissions(SCRIPT, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

type Ended = (ExitStatus, VecDeque<String>);

fn run_to_end(
    agent: &Agent,
    launch: &Launch,
    account: Option<Account>,
    limit: Duration,
) -> Result<Ended, String> {
    let failed = |error: io::Error| format!("cannot be started: {error}");
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut command = Command::new(&launch.program);
    command.env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(&launch.folder).process_group(0).stdin(Stdio::null());
    command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
    if let Some(account) = account {
        account.apply_to(&mut command);
    }
    let (pid, ended) = agent.children.spawn(command).map_err(failed)?;
    let relay = {
        let agent = agent.clone();
        std::thread::spawn(move || {
            let mut tail = VecDeque::with_capacity(TAIL_LINES);
            lines::for_each(reader, |line| {
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(line.to_owned());
                agent.line(Source::WarmUp, line);
            });
            tail
        })
    };
    match ended.recv_timeout(limit) {
        Ok(status) => {
            // A daemon that the script has started may hold its output open forever, so the last lines are awaited only
            // after a failure, because they say why.
            let tail = if status.success() { VecDeque::new() } else { last_lines(relay) };
            Ok((status, tail))
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            Err(format!("did not end within {} s", limit.as_secs()))
        }
    }
}

fn last_lines(relay: std::thread::JoinHandle<VecDeque<String>>) -> VecDeque<String> {
    let end = Instant::now();
    while !relay.is_finished() && end.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(5));
    }
    if relay.is_finished() { relay.join().unwrap_or_default() } else { VecDeque::new() }
}

fn wait_until_quiet() {
    let start = Instant::now();
    let mut quiet = 0;
    while quiet < WINDOWS && start.elapsed() < QUIET_MAX {
        let before = processes::busy_ticks();
        std::thread::sleep(WINDOW);
        let is_quiet = processes::busy_ticks().saturating_sub(before) <= TICKS_MAX;
        quiet = if is_quiet { quiet + 1 } else { 0 };
    }
}
