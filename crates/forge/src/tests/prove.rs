//! Tests with servers that claim to be a lab on this host: an honest one, and liars. The lab itself is tested in its own
//! crate.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::server::Server;
use crate::proof::{Nonce, mac, new_token};
use crate::{ApiBase, Forge, ProvenLab};

async fn ask(url: &str) -> Option<ProvenLab> {
    Forge::new(ApiBase::from_host_or_url(url).unwrap(), "the-token").unwrap().prove_lab().await.unwrap()
}

/// The folder of a lab without a server, with its lock held or free.
struct Folder {
    folder: TempDir,
    token: String,
    _lock: std::fs::File,
}

impl Folder {
    fn new(running: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = new_token();
        private(&folder.path().join("token"), &token);
        private(&folder.path().join("lock"), "");
        let lock = std::fs::File::open(folder.path().join("lock")).unwrap();
        if running {
            lock.try_lock().unwrap();
        }
        Self { folder, token, _lock: lock }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// Starts a server that names `file` and computes its MAC with `token` for the end at `address`, or for its own address
/// if `address` is `None`.
async fn claimant(file: String, token: String, address: Option<SocketAddr>) -> Server {
    let own = std::sync::Arc::new(std::sync::OnceLock::new());
    let at = own.clone();
    let server = Server::plain(move |head| {
        let nonce = Nonce::parse(&head.split_once("nonce=").unwrap().1[..64]).unwrap();
        let local = address.unwrap_or_else(|| *at.get().unwrap());
        let mac = mac(&token, &nonce, local, "http://10.0.2.2:1");
        let answer =
            json!({"lab": "dayfly", "token_file": file, "runner_url": "http://10.0.2.2:1", "mac": mac});
        (200, answer.to_string())
    })
    .await;
    own.set(server.address).unwrap();
    server
}

#[tokio::test]
async fn an_honest_claimant_is_believed_without_getting_the_token() {
    let folder = Folder::new(true);
    let honest = claimant(folder.path("token"), folder.token.clone(), None).await;
    assert!(ask(&honest.url()).await.is_some(), "the liars below differ from this one in one thing each");
    let heads = honest.heads();
    assert!(!heads[0].to_ascii_lowercase().contains("authorization"), "{heads:?}");
    assert!(!heads[0].contains("the-token"));
}

#[tokio::test]
async fn who_cannot_read_the_file_it_names_is_not_believed() {
    let folder = Folder::new(true);
    let liar = claimant(folder.path("token"), new_token(), None).await;
    assert!(ask(&liar.url()).await.is_none());
}

#[tokio::test]
async fn who_has_the_real_lab_answer_for_it_is_not_believed() {
    let folder = Folder::new(true);
    let elsewhere = "127.0.0.1:9".parse().unwrap();
    let relay = claimant(folder.path("token"), folder.token.clone(), Some(elsewhere)).await;
    assert!(ask(&relay.url()).await.is_none());

    let honest = claimant(folder.path("token"), folder.token.clone(), None).await;
    let url = honest.url();
    let pointer = Server::plain(move |head| {
        let path = head.split(' ').nth(1).unwrap();
        (307, format!("{url}{path}"))
    })
    .await;
    assert!(ask(&pointer.url()).await.is_none());
    assert_eq!(honest.heads().len(), 0, "a redirect to another host is not followed");
}

#[tokio::test]
async fn files_that_a_lab_would_not_have_prove_nothing() {
    let open = Folder::new(true);
    std::fs::set_permissions(open.path("token"), Permissions::from_mode(0o644)).unwrap();
    let linked = Folder::new(true);
    std::fs::rename(linked.path("token"), linked.path("real")).unwrap();
    std::os::unix::fs::symlink(linked.path("real"), linked.path("token")).unwrap();
    let piped = Folder::new(true);
    std::fs::remove_file(piped.path("token")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        piped.path("token"),
        fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let other = Folder::new(true);
    std::fs::rename(other.path("token"), other.path("another-name")).unwrap();
    let wordy = Folder { token: "no token of a lab".into(), ..Folder::new(true) };
    private(Path::new(&wordy.path("token")), &wordy.token);
    let stopped = Folder::new(false);
    let cases = [
        (open.path("token"), &open),
        (linked.path("token"), &linked),
        (piped.path("token"), &piped),
        (other.path("another-name"), &other),
        (other.path("token"), &other),
        (wordy.path("token"), &wordy),
        (stopped.path("token"), &stopped),
        ("token".to_owned(), &stopped),
        ("/etc/shadow".to_owned(), &stopped),
    ];
    for (file, folder) in cases {
        let liar = claimant(file.clone(), folder.token.clone(), None).await;
        assert!(ask(&liar.url()).await.is_none(), "{file}");
    }
}

#[tokio::test]
async fn other_forges_and_endless_answers_are_no_lab() {
    let forge = Server::plain(|_| (404, r#"{"message":"Not Found"}"#.to_owned())).await;
    assert!(ask(&forge.url()).await.is_none());
    let page = Server::plain(|_| (200, "<html>".to_owned())).await;
    assert!(ask(&page.url()).await.is_none());
    let huge = Server::plain(|_| (200, format!("{{\"lab\":\"{}\"}}", "x".repeat(100_000)))).await;
    assert!(ask(&huge.url()).await.is_none());
    let nobody = Forge::new(ApiBase::from_host_or_url("http://127.0.0.1:1").unwrap(), "x").unwrap();
    assert!(nobody.prove_lab().await.unwrap_err().is_temporary());
}
