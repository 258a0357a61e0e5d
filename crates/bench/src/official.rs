//! Measures jobs of the official runner app with and without standing by, in forks of one template: a stand-in that needs no
//! download, and the real app if its archive is given.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dayfly_e2e::Dayfly;
use dayfly_e2e::lab::LabProcess;
use dayfly_lab::LabEventKind;

use crate::Error;
use crate::figures::Figure;
use crate::images::{Scratch, run};
use crate::machines::{Stage, What};
use crate::measure::pss_mib;

/// Folder of the app, in which the entrypoint looks for it.
const PLACE: &str = "/opt/actions-runner";
/// A link to that folder. An app that is named by it is another one than the app that waits, so it is started.
const WITHOUT_STANDBY: &str = "/opt/without-standby";
/// Where the stand-in has github-act-runner. The entrypoint does not look there.
const ACT_RUNNER: &str = "/opt/stand-in/github-act-runner";
/// The entrypoint's message about an app that stood by.
const STOOD_BY: &str = "the app that waited goes on";
/// Number of idle forks whose memory is measured.
const IDLE_FORKS: usize = 4;

const WORKFLOW: &str =
    "on: push\njobs:\n  echo:\n    runs-on: [self-hosted, bench]\n    steps:\n      - run: echo begun\n";

/// A stand-in for the listener. Like .NET it compiles much code and fills some 60 MiB before it can work, half of it before
/// each of the two reads of `.runner`. Then github-act-runner takes its place, which serves the same files.
const LISTENER: &str = r#"#!/usr/bin/perl
use strict; use warnings; use MIME::Base64;
(my $root = $0) =~ s{/bin/[^/]+$}{};
chdir $root or die "$root: $!";
sub compile { my ($from, $to) = @_; eval "sub f$_ { my \$x = shift; return \$x * $_ + 1 } 1" or die for $from .. $to }
sub text { open my $file, '<', $_[0] or die "$_[0]: $!"; local $/; return scalar <$file> }
compile(1, 10_000);
text('.runner') if -e '.runner';
compile(10_001, 20_000);
if (my $config = delete $ENV{ACTIONS_RUNNER_INPUT_JITCONFIG}) {
    my $files = decode_base64($config);
    while ($files =~ /"(\.[a-z_]+)"\s*:\s*"([^"]*)"/g) {
        umask 077; open my $file, '>', $1 or die "$1: $!"; print $file decode_base64($2); close $file or die $!;
    }
}
text('.runner') or die "no settings";
exec '/opt/stand-in/github-act-runner', 'run' or die $!;
"#;

/// The worker of the stand-in, which is only warmed up: github-act-runner runs the job itself.
const WORKER: &str = "#!/bin/sh\nexit 1\n";

/// An app that is measured.
pub(crate) enum App {
    StandIn,
    /// The real app, in an archive of its project.
    Real(PathBuf),
}

/// Names of an app's figures.
struct Names {
    standing_by: &'static str,
    without: &'static str,
    memory: &'static str,
}

impl App {
    /// Returns the stand-in, and the real app if there is an archive.
    pub(crate) fn all(archive: Option<&Path>) -> Vec<Self> {
        [Self::StandIn].into_iter().chain(archive.map(|archive| Self::Real(archive.to_owned()))).collect()
    }

    fn names(&self) -> Names {
        match self {
            Self::StandIn => Names {
                standing_by: "stand-in of the official app: JIT config at hand -> acquired, standing by",
                without: "stand-in of the official app: the same, started in the fork",
                memory: "stand-in of the official app: memory (PSS) of an idle fork in which it stands by",
            },
            Self::Real(_) => Names {
                standing_by: "official app: JIT config at hand -> acquired, standing by",
                without: "official app: the same, started in the fork",
                memory: "official app: memory (PSS) of an idle fork in which it stands by",
            },
        }
    }

    /// Puts the app into the tree of an image that holds dayfly's own app.
    fn install(&self, tree: &Path) -> Result<(), Error> {
        let inside = |path: &str| tree.join(path.trim_start_matches('/'));
        let act_runner = inside(ACT_RUNNER);
        fs::create_dir_all(act_runner.parent().ok_or("no folder")?)?;
        fs::create_dir_all(inside(PLACE).join("bin"))?;
        fs::rename(inside("/opt/runner/github-act-runner"), act_runner)?;
        fs::remove_dir_all(inside("/opt/runner"))?;
        std::os::unix::fs::symlink(PLACE, inside(WITHOUT_STANDBY))?;
        match self {
            Self::StandIn => {
                for (name, script) in [("Runner.Listener", LISTENER), ("Runner.Worker", WORKER)] {
                    let path = inside(PLACE).join("bin").join(name);
                    fs::write(&path, script)?;
                    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
                }
                Ok(())
            }
            Self::Real(archive) => run(Command::new("tar")
                .args(["--no-same-owner", "-xzf"])
                .arg(archive)
                .arg("-C")
                .arg(inside(PLACE))),
        }
    }
}

/// An image with an official app, in a state folder of its own.
struct OfficialImage {
    scratch: Scratch,
    id: String,
}

impl OfficialImage {
    fn make(app: &App, stage: &Stage, state: &Path, binary: &Path) -> Result<Self, Error> {
        let scratch = Scratch::new(state, binary)?;
        let tree = scratch.path("official");
        run(Command::new("unsquashfs")
            .args(["-quiet", "-no-progress", "-dest"])
            .arg(&tree)
            .arg(stage.root()?))?;
        app.install(&tree)?;
        let layer = scratch.pack(&tree)?;
        // The built-in image has no ICU, which .NET needs unless a setting turns that off.
        let archive = scratch.archive("official", &[layer], &["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1"])?;
        let name = format!("oci-archive:{}", archive.display());
        let pulled = Dayfly::new(["image", "pull", "--json", "--image-tools", "none", &name]);
        let pulled = pulled.env("DAYFLY_STATE", scratch.path("state")).run();
        let id =
            pulled.assert_status(0).events().iter().find_map(|event| Some(event["id"].as_str()?.to_owned()));
        Ok(Self { id: id.ok_or("the pulled image has no id")?, scratch })
    }

    fn state(&self) -> PathBuf {
        self.scratch.path("state")
    }
}

/// Measures jobs, in turns with and without standing by, and the memory of idle forks.
pub(crate) async fn measure(
    app: &App,
    stage: &Stage,
    state: &Path,
    binary: &Path,
    samples: u32,
) -> Result<Vec<Figure>, Error> {
    let image = OfficialImage::make(app, stage, state, binary)?;
    let lab = LabProcess::start();
    let (mut standing_by, mut without) = (Vec::new(), Vec::new());
    // The first job's times are dropped, because the template was just built.
    job(&lab, &image, true).await?;
    for _ in 0..samples {
        standing_by.push(job(&lab, &image, true).await?);
        without.push(job(&lab, &image, false).await?);
    }
    lab.stop();
    let memory = idle_memory(&image, binary).await?;
    let names = app.names();
    Ok(vec![
        Figure::of(names.standing_by, "s", "-", standing_by),
        Figure::of(names.without, "s", "-", without),
        Figure::of(names.memory, "MiB", "-", memory),
    ])
}

/// Runs one job in a fresh fork, and returns the seconds from its registration until the job was acquired.
async fn job(lab: &LabProcess, image: &OfficialImage, stand_by: bool) -> Result<f64, Error> {
    let run = lab.dispatch(WORKFLOW).await;
    let arguments = ["runner", "--json", "-v", "-r", "1", "-L", "bench", "-i", &image.id];
    let mut runner = Dayfly::new(arguments.into_iter().chain(["-g", &lab.url, "-p", &lab.principal]))
        .env("RUNNER_PAT", &lab.token)
        .env("DAYFLY_STATE", image.state());
    if !stand_by {
        runner = runner.env("RUNNER_INSTALL", WITHOUT_STANDBY);
    }
    let mut runner = runner.start();
    let registered = runner.wait_for_event("registered")["at_ms"].as_i64().ok_or("no time")?;
    let mut events = lab.events_of(run).await;
    let acquired = loop {
        let event = events.next().await;
        match event.kind {
            LabEventKind::JobAcquired { .. } => break event.at_ms,
            LabEventKind::RunCompleted { .. } => return Err("a run without a runner".into()),
            _ => {}
        }
    };
    let conclusion = lab.conclusion_of(run).await;
    let ended = runner.wait();
    if conclusion != "success" || ended.stdout.contains(STOOD_BY) != stand_by {
        return Err(format!(
            "standing by: {stand_by}, but the job ended with {conclusion}: {}",
            ended.stdout
        )
        .into());
    }
    Ok((acquired - registered) as f64 / 1000.0)
}

/// Returns the memory of some idle forks, in MiB.
async fn idle_memory(image: &OfficialImage, binary: &Path) -> Result<Vec<f64>, Error> {
    let stage = Stage::new(&image.state(), binary, &image.id)?;
    stage.prepare().await?;
    let mut machines = Vec::new();
    for number in 0..IDLE_FORKS {
        let name = format!("official{number}");
        machines.push(stage.start(&name, stage.machine(Some(0)), What::Answer).await?);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let memory = machines.iter().map(|(_, times)| pss_mib(times.pid)).collect();
    for (mut vm, _) in machines {
        vm.kill().await;
        vm.destroy().await?;
    }
    memory
}
