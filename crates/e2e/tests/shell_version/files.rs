//! Tests of the handshake's files, each with the right secret and with a wrong one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dayfly_e2e::Running;
use rustix::process::Signal;

use super::stage::{HELLO, REPOSITORY, Stage, folders, listening, until};

/// A loop whose environment directory and secret the test knows.
struct Known {
    stage: Stage,
    folder: tempfile::TempDir,
    secret: String,
    runner: Running,
    /// Id of its current runner.
    id: String,
}

impl Known {
    fn start(more: &[&str]) -> Self {
        let stage = Stage::new();
        let folder = tempfile::tempdir().expect("a folder");
        let secret = format!("a secret for {}", folder.path().display());
        let words = ["runner", "--json", "-p", REPOSITORY, "-S", &secret, "-L", "here"];
        let dayfly = stage
            .with_token(words.into_iter().chain(more.iter().copied()))
            .env("RUNNER_ENVIRONMENT", folder.path());
        let runner = dayfly.start();
        let mut known = Self { stage, folder, secret, runner, id: String::new() };
        known.next();
        // Every user of this host can read arguments. Only those of the test's own command may hold the secret.
        assert_eq!(dayfly_e2e::processes_naming(&known.secret), [known.runner.pid()]);
        assert_eq!(dayfly_e2e::processes_naming(&known.stage.lab.token), Vec::<u32>::new());
        known
    }

    /// Waits until the next runner listens for jobs.
    fn next(&mut self) {
        self.id = self.runner.wait_for_event("listening")["runner"].as_str().expect("an id").to_owned();
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{suffix}", self.id))
    }

    /// Creates a file in the directory by a rename, as every writer of the handshake does. No reader sees a part of it.
    fn put(&self, suffix: &str, content: &str) {
        let new = self.folder.path().join(".new");
        std::fs::write(&new, content).expect("a file");
        std::fs::rename(new, self.path(suffix)).expect("its name");
    }

    async fn end(self) {
        self.runner.signal(Signal::TERM);
        let ended = self.runner.wait();
        ended.assert_status(143);
        let exited = ended.events_of("entrypoint_exited").pop().expect("the entrypoint ended by itself");
        assert_eq!(exited["code"], 5, "by .trm, regardless of the other files");
        self.stage.assert_nothing_left(&ended).await;
        assert_eq!(folders(self.folder.path()), Vec::<PathBuf>::new(), "files of the handshake are left");
        self.stage.lab.stop();
    }
}

#[tokio::test]
async fn the_env_file_is_gone_and_the_note_of_a_runner_stays_for_who_waits_for_it() {
    for mode in ["jit", "token"] {
        let known = Known::start(&["--registration", mode]);
        assert!(!known.path("env").exists());
        let tkn = known.path("tkn");
        let metadata = std::fs::metadata(&tkn).expect("the note");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&tkn).expect("the note");
        assert_eq!(text.trim(), format!("GH-runner-{}", known.id), "{mode}: no secret");
        // An orchestrator removes the file when it has seen it. The loop has seen the file too, and still stops its runner by
        // `.trm`.
        std::fs::remove_file(&tkn).expect("removed");
        known.end().await;
    }
}

#[tokio::test]
async fn a_runner_ends_by_a_trm_with_the_secret_and_by_no_other() {
    let mut known = Known::start(&[]);
    known.put("trm", "wrong");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(known.stage.lab.registrations().await.len(), 1, "a wrong secret is ignored");
    known.put("trm", &known.secret);
    let exited = known.runner.wait_for_event("entrypoint_exited");
    assert_eq!(exited["code"], 5, "by .trm");
    let first = known.id.clone();
    known.next();
    assert_ne!(known.id, first, "the loop goes on");
    known.end().await;
}

#[tokio::test]
async fn a_loop_ends_by_a_brk_with_the_secret_and_by_no_other() {
    let mut known = Known::start(&[]);
    let here = HELLO.replace("self-hosted", "here");
    known.put("brk", "wrong");
    known.stage.job(&here).await;
    let warning = known.runner.wait_for_event("warning");
    assert!(warning["message"].as_str().is_some_and(|text| text.contains(".brk is ignored")), "{warning}");
    known.next();
    // A link to a file with the right secret is ignored.
    let secret = known.stage.state.path().join("secret");
    std::fs::write(&secret, &known.secret).expect("a file");
    std::os::unix::fs::symlink(&secret, known.path("brk")).expect("a link");
    known.stage.job(&here).await;
    known.next();
    known.put("brk", &known.secret);
    known.stage.job(&here).await;
    let ended = known.runner.wait();
    ended.assert_status(0);
    known.stage.assert_nothing_left(&ended).await;
    assert_eq!(folders(known.folder.path()), Vec::<PathBuf>::new());
    known.stage.lab.stop();
}

#[tokio::test]
async fn the_orchestrators_directory_is_the_users_or_its_own_and_notes_are_taken_from_it() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().expect("a folder");
    let common = folder.path().join("common");
    let words = ["orchestrator", "--json", "-n", "2", "-p", "mine", "--", "-p", REPOSITORY];
    let mut orchestrator = stage.with_token(words).env("ORCHESTRATOR_ENVIRONMENT", &common).start();
    listening(&mut orchestrator);
    listening(&mut orchestrator);
    let names: Vec<_> = folders(&common).iter().map(|path| name(path)).collect();
    assert_eq!(names, ["mine-001", "mine-002"]);
    for folder in folders(&common) {
        assert_eq!(std::fs::metadata(&folder).expect("there").permissions().mode() & 0o777, 0o700);
        until("the note is removed", || folders(&folder).is_empty()).await;
    }
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143);
    assert_eq!(
        folders(&common),
        Vec::<PathBuf>::new(),
        "the loops' files are removed, and the user's directory stays"
    );
    assert!(common.is_dir());
    stage.assert_nothing_left(&ended).await;
    stage.lab.stop();
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}
