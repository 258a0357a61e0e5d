//! The real runner app in token mode, started by the real entrypoint as a plain process of this host.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dayfly_e2e::prepared;
use dayfly_lab::workflow::Conclusion;
use secrecy::ExposeSecret as _;

use super::stage::Stage;

const ID: &str = "1-k3V9x0q";
const SECRET: &str = "s3cret";
const PATIENCE: Duration = Duration::from_secs(60);

const JOB: &str = r#"
on: workflow_dispatch
jobs:
  speak:
    runs-on: [self-hosted, big]
    steps:
      - run: echo "mine is $RUNNER_MINE"
"#;

/// An entrypoint and its folders.
struct Entrypoint {
    child: Child,
    home: PathBuf,
}

impl Entrypoint {
    /// Writes an env file with a fresh registration token, and starts the entrypoint.
    async fn start(stage: &Stage, name: &str, more: &str) -> Self {
        let home = stage.home(name);
        std::fs::create_dir(home.join("environment")).unwrap();
        let token = stage.forge.registration_token(&stage.scope).await.unwrap().token;
        let token = token.expose_secret();
        let env = format!(
            "RUNNER_ID={ID}\nRUNNER_NAME={name}\nRUNNER_SECRET={SECRET}\nRUNNER_TOKEN={token}\nRUNNER_GITHUB={}\n\
             RUNNER_PRINCIPAL=o/r\nRUNNER_LABELS=self-hosted,Linux,X64,big\nRUNNER_MINE=here\n{more}",
            stage.url
        );
        std::fs::write(home.join("environment").join(format!("{ID}.env")), env).unwrap();
        let out = std::fs::File::create(home.join("out.txt")).unwrap();
        let child = Command::new(prepared("DAYFLY_BINARY").with_file_name("dayfly-guest"))
            .args(["entrypoint", "-i", ID, "-u", "", "-v", "--app"])
            .arg(prepared("DAYFLY_TEST_RUNNER_APP"))
            .arg("--environment")
            .arg(home.join("environment"))
            .arg("--app-dir")
            .arg(home.join("app"))
            .env_clear()
            .env("RUNNER_DOCKER", "0")
            .env("RUNNER_LOGDIR", home.join("logs"))
            .env("RUNNER_WORKDIR", home.join("work"))
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .unwrap();
        Self { child, home }
    }

    async fn ended(&mut self) -> Option<i32> {
        let since = std::time::Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the entrypoint does not exit: {}", self.said());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.join("out.txt")).unwrap()
    }

    fn note(&self, suffix: &str) -> PathBuf {
        self.home.join("environment").join(format!("{ID}.{suffix}"))
    }
}

impl Drop for Entrypoint {
    fn drop(&mut self) {
        // At the second signal, the entrypoint kills what it has started. One that has already exited is no error.
        for _ in 0..2 {
            if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed())
                && matches!(self.child.try_wait(), Ok(None))
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entrypoint_registers_the_real_app_with_a_token_and_its_job_runs() {
    let stage = Stage::set().await;
    let mut entrypoint = Entrypoint::start(&stage, "by-token", "").await;
    let run = stage.start(JOB).await;
    let outcome = stage.watch(run).await;
    assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome} {}", entrypoint.said());
    assert!(outcome.has_line("speak", "mine is here"), "{outcome}");
    assert_eq!(entrypoint.ended().await, Some(0), "{}", entrypoint.said());
    let note = std::fs::read_to_string(entrypoint.note("tkn")).unwrap();
    assert_eq!(note, "by-token", "it holds no secret");
    assert!(!entrypoint.home.join("app/settings.json").exists(), "the runner's key is left");
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_for_many_jobs_runs_them_in_one_place_until_the_loop_stops_it() {
    let stage = Stage::set().await;
    let mut entrypoint = Entrypoint::start(&stage, "for-ever", "RUNNER_EPHEMERAL=0\n").await;
    for _ in 0..2 {
        let run = stage.start(JOB).await;
        let outcome = stage.watch(run).await;
        assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome} {}", entrypoint.said());
    }
    std::fs::write(entrypoint.note("trm"), SECRET).unwrap();
    assert_eq!(entrypoint.ended().await, Some(5), "{}", entrypoint.said());
    // The entrypoint has not removed the registration, because that is the task of the loop.
    assert_eq!(stage.forge.list_runners(&stage.scope).await.unwrap().len(), 1);
}
