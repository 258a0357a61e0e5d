//! Checks an image: boots it once, and reports from the inside what jobs, Docker and the runner app would miss.
//!
//! ```text
//!   <state>/checks/.build/<image>/     the machine and its environment directory, during the check
//!   <state>/images/<image>/check.json  the result of the last check
//! ```

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dayfly_guest::environment::GUEST;
use dayfly_guest::finding::{COMMAND, FINDINGS_MAX, Finding, FindingState, Part};
use dayfly_guest::protocol::Milestone;
use serde::{Deserialize, Serialize};

use crate::machine::{Exit, MachineFolder, MachineMaker, StartError, Vm, VmEvent};
use crate::spec::{Driver, Egress, Entrypoint, Machine, Network, QemuSettings, VmSpec};
use crate::start::start;
use crate::vm_host::VmHost;
use dayfly_host::clock::now_s;
use dayfly_host::digest::digest_of_program;
use dayfly_host::file;
use dayfly_host::stage::{self, Stage, StageError};
use dayfly_image::{Image, ImageError};

/// Name of the file with the result of the last check, in the image's folder.
const RESULT: &str = "check.json";
/// Longest result that is read, bytes.
const RESULT_LENGTH_MAX: u64 = 1024 * 1024;
/// Longest time of a whole check, from the start of the machine. Hello, Docker and the single tests have separate limits.
const LIMIT: Duration = Duration::from_secs(900);
/// Longest time that the machine may take to power off.
const GRACE: Duration = Duration::from_secs(5);
/// Id of the runner that the machine is started for.
const RUNNER: &str = "0-check";
/// Longest text of a guest that is stored, characters.
const TEXT_MAX: usize = 300;

/// The result of an image's check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Id of the image.
    pub image: String,
    /// Digest of the guest binary that ran the check, because another binary may find something else.
    pub guest: String,
    /// Time of the check, seconds since 1970-01-01 UTC.
    pub checked_s: i64,
    /// From the start of the VMM until the agent said hello, milliseconds.
    pub hello_ms: Option<u64>,
    /// From the start of the VMM until Docker answered, milliseconds.
    pub docker_ms: Option<u64>,
    /// Why the check did not finish; none if it did.
    pub failure: Option<String>,
    /// The findings of the check.
    pub findings: Vec<Finding>,
    /// True if an overloaded host cannot be the cause. The image is then refused even if the check was not requested.
    #[serde(default = "yes")]
    pub is_certain: bool,
}

fn yes() -> bool {
    true
}

impl Report {
    /// Returns why no job could run in a machine of the image; none if a job could.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let missing = self.findings.iter().filter(|finding| finding.state == FindingState::Missing);
        let missing: Vec<String> =
            missing.map(|finding| format!("{}: {}", finding.name, finding.seen)).collect();
        match (&self.failure, missing.is_empty()) {
            (Some(failure), _) => Some(failure.clone()),
            (None, false) => Some(missing.join("; ")),
            (None, true) => None,
        }
    }
}

/// Why an image could not be checked. This says nothing about the image.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The machine's driver is not qemu, the only driver whose images can be checked.
    #[error("only images of the qemu driver can be checked")]
    Driver,
    /// The machine could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A file operation failed, or the machine of another check could not be removed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation that failed.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl From<StageError> for CheckError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Cancelled => Self::Io {
                what: "go on with",
                path: PathBuf::new(),
                source: io::ErrorKind::Interrupted.into(),
            },
            StageError::Io { what, path, source } => Self::Io { what, path, source },
        }
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckError {
    let path = path.to_owned();
    move |source| CheckError::Io { what, path, source }
}

/// Boots the image of a machine, and checks it as a job of `user` would find it. The result is stored beside the image;
/// everything else is removed, also if the future is dropped. [`sweep_checks`] and the next check remove what a killed
/// process has left.
///
/// # Errors
/// The image could not be checked.
pub async fn check(host: &VmHost, machine: &Machine, user: &str) -> Result<Report, CheckError> {
    let (image, mut report) = look(host, machine, user).await?;
    // The caller requested the check and sees its result.
    report.is_certain = true;
    keep(image, &report)?;
    Ok(report)
}

/// Checks an image without a request, because no template could be built from it. Only a certain result counts against the
/// image.
///
/// # Errors
/// [`ImageError::Broken`] if the image is unusable.
pub(crate) async fn check_unasked(host: &VmHost, machine: &Machine, user: &str) -> Result<(), ImageError> {
    let Driver::Qemu(QemuSettings { image, .. }) = &machine.driver else { return Ok(()) };
    if last_check(image).is_none_or(|report| !is_of_guest(&report, &machine.guest_binary)) {
        match look(host, machine, user).await {
            Ok((image, report)) => {
                if let Err(error) = keep(image, &report) {
                    tracing::warn!("{error}");
                }
            }
            Err(error) => tracing::warn!("the image {} could not be checked: {error}", image.id()),
        }
    }
    refuse_broken(image, &machine.guest_binary)
}

async fn look<'a>(
    host: &VmHost,
    machine: &'a Machine,
    user: &str,
) -> Result<(&'a Image, Report), CheckError> {
    let Driver::Qemu(settings) = &machine.driver else { return Err(CheckError::Driver) };
    let image = &settings.image;
    let guest = digest_of_program(&machine.guest_binary).map_err(io_error("read", &machine.guest_binary))?;
    // Only one check of an image runs at a time.
    let claim = MachineMaker::claim(&folder(&host.state), image.id(), || {}).await?;
    let stage = claim.stage()?;
    let mut booted = machine.clone();
    if let Driver::Qemu(settings) = &mut booted.driver {
        settings.template = None;
    }
    let checked_s = now_s();
    let mut run = CheckRun::new();
    let failure = run.at_image(host, booted, user, &stage).await?;
    let is_certain = run.is_certain();
    let CheckRun { hello_ms, docker_ms, findings, .. } = run;
    let image_id = image.id().to_owned();
    let report =
        Report { image: image_id, guest, checked_s, hello_ms, docker_ms, failure, findings, is_certain };
    Ok((image, report))
}

/// Returns the result of an image's last check, if there was one.
pub fn last_check(image: &Image) -> Option<Report> {
    let path = image.folder().join(RESULT);
    if fs::metadata(&path).ok()?.len() > RESULT_LENGTH_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Refuses an image that the last check by this guest binary has found unusable.
///
/// # Errors
/// [`ImageError::Broken`].
pub fn refuse_broken(image: &Image, guest_binary: &Path) -> Result<(), ImageError> {
    let counts = |report: &Report| report.is_certain && is_of_guest(report, guest_binary);
    match last_check(image).filter(counts).and_then(|report| report.why_not()) {
        Some(why) => {
            Err(ImageError::Broken { id: image.id().get(..12).unwrap_or(image.id()).to_owned(), why })
        }
        None => Ok(()),
    }
}

fn is_of_guest(report: &Report, guest_binary: &Path) -> bool {
    digest_of_program(guest_binary).is_ok_and(|guest| guest == report.guest)
}

/// Stops and removes what killed checks have left.
///
/// # Errors
/// A file cannot be read or removed, or a machine cannot be stopped.
pub async fn sweep_checks(state: &Path) -> Result<(), CheckError> {
    Ok(MachineMaker::sweep(&folder(state)).await?)
}

fn folder(state: &Path) -> PathBuf {
    state.join("checks")
}

fn keep(image: &Image, report: &Report) -> Result<(), CheckError> {
    let path = image.folder().join(RESULT);
    let text = serde_json::to_vec_pretty(report).map_err(|error| io_error("write", &path)(error.into()))?;
    file::replace(&path, &text).map_err(io_error("write", &path))
}

/// The observations of a machine.
struct CheckRun {
    began: Instant,
    hello_ms: Option<u64>,
    docker_ms: Option<u64>,
    findings: Vec<Finding>,
    /// Why the machine's agent could not start Docker. The check inside the machine does not know it.
    docker_failure: Option<String>,
    /// True if the guest stopped by itself before its agent said hello.
    ended_itself: bool,
}

impl CheckRun {
    fn new() -> Self {
        let (hello_ms, docker_ms, docker_failure, findings) = (None, None, None, Vec::new());
        Self { began: Instant::now(), hello_ms, docker_ms, findings, docker_failure, ended_itself: false }
    }

    /// Returns true if a slow machine cannot be the cause. Files exist however slow the machine is, but a daemon that does
    /// not answer may only be late.
    fn is_certain(&self) -> bool {
        let lacks =
            |finding: &Finding| finding.state == FindingState::Missing && finding.part != Part::Docker;
        self.ended_itself || self.findings.iter().any(lacks)
    }

    /// Runs the check. Returns why it did not finish, if it did not.
    async fn at_image(
        &mut self,
        host: &VmHost,
        machine: Machine,
        user: &str,
        stage: &Stage,
    ) -> Result<Option<String>, CheckError> {
        let environment = stage.path().join("environment");
        stage::make_folder(&environment)?;
        let secret = uuid::Uuid::new_v4();
        let settings = format!("RUNNER_ID={RUNNER}\nRUNNER_NAME=check\nRUNNER_SECRET={secret}\n");
        let args = ["-u", "", "--", GUEST, COMMAND, user].map(str::to_owned).to_vec();
        let spec = VmSpec {
            name: "check".to_owned(),
            runner_id: RUNNER.to_owned(),
            machine,
            // The check needs no network.
            network: Network {
                egress: Egress::Shut,
                dns: Ipv4Addr::LOCALHOST.into(),
                forward: None,
                allow: Vec::new(),
                names: Vec::new(),
            },
            environment,
            settings: settings.into(),
            entrypoint: Entrypoint { program: None, args },
            mounts: Vec::new(),
            shell: false,
        };
        self.began = Instant::now();
        let run_dir = stage.path().join(MachineMaker::FOLDER);
        // Dropped after the machine, however this function ends.
        let _folder = MachineFolder::make(run_dir.clone()).map_err(io_error("make the folder", &run_dir))?;
        let mut vm = start(host, spec, &run_dir).await?;
        let heard = tokio::time::timeout(LIMIT, self.hear(&mut vm)).await;
        let failure = heard.unwrap_or_else(|_| Some(format!("it took more than {} s", LIMIT.as_secs())));
        if let Some(reason) = self.docker_failure.take() {
            self.add(Finding::new(Part::Docker, "engine", FindingState::Missing, reason));
        }
        vm.stop(GRACE).await;
        vm.destroy().await.map_err(|error| io_error("remove", &run_dir)(io::Error::other(error)))?;
        Ok(failure)
    }

    async fn hear(&mut self, vm: &mut Vm) -> Option<String> {
        while let Some(event) = vm.next_event().await {
            match event {
                VmEvent::Hello => self.hello_ms = Some(self.ms()),
                VmEvent::Milestone { milestone: Milestone::DockerReady, .. } => {
                    self.docker_ms = Some(self.ms());
                }
                VmEvent::DockerFailed { reason } => self.docker_failure = Some(reason),
                VmEvent::Line { text, .. } => self.take(&text),
                VmEvent::EntrypointExited { code: Some(0), .. } if !self.findings.is_empty() => return None,
                VmEvent::EntrypointExited { code, signal } => {
                    let how = format!("status {code:?}, signal {signal:?}");
                    return Some(format!("the check ended too early ({how})\n{}", vm.console_tail()));
                }
                VmEvent::Gone { exit, console_tail } => {
                    self.ended_itself = self.hello_ms.is_none()
                        && matches!(exit, Exit::PoweredOff | Exit::Reset | Exit::Panicked { .. });
                    return Some(format!("its machine does not come up: {exit}\n{console_tail}"));
                }
                _ => {}
            }
        }
        Some("its machine is gone".to_owned())
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Stores the finding that a line contains, if any.
    fn take(&mut self, text: &str) {
        if let Some(finding) = Finding::in_line(text) {
            self.add(finding);
        }
    }

    /// Stores a finding. Number and length are limited, because an image can print anything.
    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            let (name, seen) = (plain(&finding.name), plain(&finding.seen));
            self.findings.push(Finding { name, seen, ..finding });
        }
    }
}

fn plain(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(failure: Option<&str>, states: &[FindingState]) -> Report {
        let finding = |state: &FindingState| Finding::new(Part::Jobs, "sh", *state, "not there");
        Report {
            image: "aa11".to_owned(),
            guest: "0".to_owned(),
            checked_s: 7,
            hello_ms: Some(1),
            docker_ms: None,
            failure: failure.map(str::to_owned),
            findings: states.iter().map(finding).collect(),
            is_certain: true,
        }
    }

    #[test]
    fn an_image_is_refused_for_what_no_job_can_do_without() {
        assert_eq!(report(None, &[FindingState::Ok, FindingState::Wanted]).why_not(), None);
        let missing = report(None, &[FindingState::Ok, FindingState::Missing]).why_not();
        assert_eq!(missing.as_deref(), Some("sh: not there"));
        assert_eq!(report(Some("it panics"), &[]).why_not().as_deref(), Some("it panics"));
    }

    #[test]
    fn only_what_a_slow_host_cannot_be_blamed_for_is_certain() {
        let with = |part, state, ended_itself| {
            let findings = vec![Finding::new(part, "x", state, "y")];
            CheckRun { findings, ended_itself, ..CheckRun::new() }.is_certain()
        };
        assert!(with(Part::Jobs, FindingState::Missing, false) && with(Part::Docker, FindingState::Ok, true));
        assert!(
            !with(Part::Docker, FindingState::Missing, false)
                && !with(Part::Jobs, FindingState::Wanted, false)
        );
    }

    #[test]
    fn what_a_guest_says_is_bounded_and_without_control_characters() {
        let mut run = CheckRun::new();
        let long = "x".repeat(1000);
        for _ in 0..FINDINGS_MAX + 5 {
            run.take(&format!(r#"] {{"part":"jobs","name":"a\u001b[2Jb","state":"ok","seen":"{long}"}}"#));
            run.take("anything else");
        }
        assert_eq!(run.findings.len(), FINDINGS_MAX);
        assert_eq!((run.findings[0].name.as_str(), run.findings[0].seen.len()), ("a?[2Jb", TEXT_MAX));
    }
}
