//! `dayfly-guest check`: inspects a machine of an image, and reports what jobs, Docker and the runner app would miss.
//!
//! It decides nothing: each line of its output is a finding for the caller. It changes nothing but the folders that it creates
//! for the user of jobs, as the entrypoint does before each job.

mod app;
mod jobs;
mod kernel;

use crate::docker::{self, SOCKET};
use crate::entrypoint::user::Account;
use dayfly_guest::environment::ENGINE_PROGRAMS;
use dayfly_guest::finding::{Finding, FindingState, Part};
use dayfly_guest::runner_app::SEARCH_PATH;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time that a program may run that is only started to see if it works.
const TRY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the rest of its output after its exit.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);
/// Most bytes of its output that are read.
const OUTPUT_MAX: u64 = 16 * 1024;
/// Longest wait for Docker's answer.
const DOCKER_MAX: Duration = Duration::from_secs(20);

/// Runs the check. The first argument is the user that jobs run as.
pub(crate) fn run(args: &[String]) -> std::process::ExitCode {
    let user = args.first().map_or("runner", String::as_str);
    let account = Account::to_become(user);
    let mut findings = jobs::look(user, &account);
    let account = account.ok().flatten();
    findings.extend(look_at_docker(account.as_ref()));
    findings.extend(app::look(account.as_ref()));
    let mut output = std::io::stdout().lock();
    for finding in findings {
        // If the write fails, the caller is gone, and the error cannot be reported.
        let line = serde_json::to_string(&finding).unwrap_or_default();
        let _ = writeln!(output, "{line}");
    }
    std::process::ExitCode::SUCCESS
}

fn look_at_docker(account: Option<&Account>) -> Vec<Finding> {
    let finding = |name: &str, state, seen: String| Finding::new(Part::Docker, name, state, seen);
    let Some(daemon) = docker::daemon() else {
        let without = "not there: jobs with containers, services or docker fail".to_owned();
        return vec![finding("dockerd", FindingState::Wanted, without)];
    };
    let mut findings = vec![finding("dockerd", FindingState::Ok, daemon.to_owned())];
    findings.extend(look_at_programs(&docker::search_path(daemon)));
    findings.push(match docker::ping(Path::new(SOCKET), DOCKER_MAX) {
        Ok(()) => finding("answer", FindingState::Ok, format!("at {SOCKET}")),
        Err(error) => finding("answer", FindingState::Missing, format!("none at {SOCKET}: {error}")),
    });
    if let Some(account) = account {
        findings.push(if account.may_write(Path::new(SOCKET)) {
            finding("access", FindingState::Ok, format!("{} may use it", account.user.name))
        } else {
            let why = format!("{} is not in the group of {SOCKET}", account.user.name);
            finding("access", FindingState::Wanted, why)
        });
    }
    findings.push(match find("docker") {
        Some(client) => finding("docker", FindingState::Ok, client.display().to_string()),
        None => finding("docker", FindingState::Wanted, "no client: steps that call docker fail".to_owned()),
    });
    findings.extend(kernel::look());
    findings
}

/// Looks for the programs that the engine calls, in the folders in which the daemon looks for them.
fn look_at_programs(search_path: &str) -> Vec<Finding> {
    let look = |(name, program, without): (&str, &str, &str)| match find_in(search_path, program) {
        Some(path) => Finding::new(Part::Docker, name, FindingState::Ok, path.display().to_string()),
        None => Finding::new(Part::Docker, name, FindingState::Wanted, format!("not there: {without}")),
    };
    ENGINE_PROGRAMS.into_iter().map(look).collect()
}

/// Finds a program of the image.
fn find(name: &str) -> Option<PathBuf> {
    find_in(SEARCH_PATH, name)
}

fn find_in(search_path: &str, name: &str) -> Option<PathBuf> {
    search_path.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Runs a program as a user, and returns its first line of output. If the program fails, this line is the error.
fn try_program(command: &mut Command, account: Option<&Account>) -> Result<String, String> {
    let (mut reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let copy = writer.try_clone().map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(writer).stderr(copy);
    if let Some(account) = account {
        account.clone().apply_to(command);
    }
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    // From here on only the child holds the pipe's other end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = reader.by_ref().take(OUTPUT_MAX).read_to_end(&mut said);
        let _ = tell.send(String::from_utf8_lossy(&said).into_owned());
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() < TRY_MAX => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("does not end within {} s", TRY_MAX.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    // A process that the program has left running may hold the output open forever.
    let said = told.recv_timeout(LAST_LINES_MAX).unwrap_or_default();
    let first = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned();
    match status.success() {
        true => Ok(first),
        false if first.is_empty() => Err(status.to_string()),
        false => Err(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_that_the_engine_lacks_is_told_with_the_consequence() {
        let folder = tempfile::tempdir().expect("folder");
        for program in ["containerd", "containerd-shim-runc-v2", "modprobe"] {
            std::fs::write(folder.path().join(program), "").expect("written");
        }
        let path = format!("/nowhere:{}", folder.path().display());
        let findings = look_at_programs(&path);
        let missing: Vec<String> = findings
            .iter()
            .filter(|finding| finding.state == FindingState::Wanted)
            .map(|finding| format!("{}: {}", finding.name, finding.seen))
            .collect();
        assert_eq!(
            missing,
            ["iptables: not there: dockerd does not start", "runc: not there: no container starts"]
        );
    }
}
