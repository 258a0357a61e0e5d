use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dayfly_fleet::status::{PoolState, Status};
use dayfly_fleet::why::{Process, explain_pool};
use tokio::sync::mpsc;

use super::*;
use crate::config::{self, Surroundings};

/// Two pools that wait for their forge, of which one has a folder of this host.
struct Stage {
    waiting: WaitingPools,
    clients: Clients,
    facts: mpsc::Receiver<dayfly_fleet::fact::FactRecord>,
    status: Status,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("cache")).expect("the folder of the mount");
        let config = config(folder.path());
        let mut clients = Clients::new(&config, None).expect("clients");
        let (sink, facts) = dayfly_fleet::stream::channel();
        let unreachable = || ForgeError::BadAddress { text: "f".to_owned(), why: "x".to_owned() };
        let pools = config.pools.into_iter().map(|pool| {
            let request = file::request(&pool, &mut clients).expect("a request");
            (PoolText::read(pool), request, unreachable())
        });
        let waiting = WaitingPools::after_the_start(pools.collect(), &sink);
        Self { waiting, clients, facts, status: Status::default(), folder }
    }

    /// Takes all pools out, as those whose forges have answered, and lets them wait again.
    async fn wait_again(&mut self) {
        let pools = std::mem::take(&mut self.waiting.pools).into_iter().map(|(pool, _)| pool).collect();
        self.waiting.wait_again(pools, &mut self.clients).await;
    }

    /// Returns the state of each pool that the published status has, and the reasons of the pool `b`.
    fn shown(&mut self) -> (Vec<(String, PoolState)>, String) {
        while let Ok(fact) = self.facts.try_recv() {
            self.status.take(&fact);
        }
        let pools = self.status.pools.values();
        let states = pools.map(|pool| (pool.name.clone().unwrap_or_default(), pool.state)).collect();
        let process = Process { status: self.status.clone(), ..Process::default() };
        let now_ms = self.status.pools.values().map(|pool| pool.since_ms + 60_000).max().unwrap_or_default();
        let reasons = explain_pool(&process, Some("b"), now_ms).into_iter();
        let lines = reasons.map(|reason| format!("{}: {} -> {:?}", reason.reason, reason.text, reason.todo));
        let text = lines.collect::<Vec<_>>().join("\n");
        (states, text.replace(&self.folder.path().display().to_string(), "DIR"))
    }
}

fn config(folder: &Path) -> config::Config {
    let token = folder.join("token");
    std::fs::write(&token, "x").expect("written");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let cache = folder.join("cache");
    let text = format!(
        "[forges.main]\nurl = 'http://127.0.0.1:1'\ntoken_file = {token:?}\n\
         [pools.a]\nforge = 'main'\nprincipal = 'o/a'\n\
         [pools.b]\nforge = 'main'\nprincipal = 'o/b'\nmounts = ['{}:/cache']\n",
        cache.display()
    );
    let around = Surroundings { is_this_host: false, size: None, guest_folder: "/".into() };
    config::parse("dayfly.toml", text.as_bytes(), &around).config.expect("good")
}

#[tokio::test]
async fn a_pool_that_cannot_wait_again_is_given_up_with_a_reason_and_the_others_wait_on() {
    let mut stage = Stage::new();
    std::fs::remove_dir(stage.folder.path().join("cache")).expect("removed");
    stage.wait_again().await;
    let (states, reasons) = stage.shown();
    assert_eq!(states, [("b".to_owned(), PoolState::GivenUp)]);
    insta::assert_snapshot!(reasons);
    let names = |texts: Vec<&PoolText>| texts.iter().map(|text| text.config.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(stage.waiting.texts().collect()), ["a"]);
    assert_eq!(names(stage.waiting.given_up_texts().collect()), ["b"]);
}

#[tokio::test]
async fn a_pool_that_was_given_up_has_no_row_after_a_reload() {
    let mut stage = Stage::new();
    std::fs::remove_dir(stage.folder.path().join("cache")).expect("removed");
    stage.wait_again().await;
    assert_eq!(stage.shown().0.len(), 1);
    // A reload starts it as a new pool, because it does not wait.
    stage.waiting.retain(|text| text.config.name == "a").await;
    assert_eq!((stage.shown().0, stage.waiting.given_up_texts().count()), (Vec::new(), 0));
}

#[tokio::test]
async fn a_pool_that_can_wait_again_is_not_given_up() {
    let mut stage = Stage::new();
    stage.wait_again().await;
    assert_eq!((stage.waiting.texts().count(), stage.waiting.given_up_texts().count()), (2, 0));
}
