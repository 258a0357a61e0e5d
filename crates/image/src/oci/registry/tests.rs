//! Tests against a registry with scripted faults: a real server whose answers the tests define.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::super::media::Platform;
use super::super::{Digest, ImageName, RegistryName};
use super::pull::Pulled;
use super::*;
use dayfly_host::digest::hexadecimal;

/// A request: method, path with query, and headers by their lower-case names.
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

/// An answer. The connection ends after `cut` bytes of the body, whatever length was promised.
struct RegistryAnswer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> RegistryAnswer {
    RegistryAnswer { status, headers: Vec::new(), body: body.into(), cut: None }
}

impl RegistryAnswer {
    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

type Script = dyn FnMut(&Asked) -> Option<RegistryAnswer> + Send;

/// An image of one layer, and the answers of a registry that has it.
struct Stage {
    layer: Vec<u8>,
    documents: BTreeMap<String, Vec<u8>>,
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of_digits(&hexadecimal(&Sha256::digest(bytes)))
}

impl Stage {
    fn new() -> Self {
        let layer: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        let platform = Platform::of_host();
        let config = serde_json::json!({ "architecture": platform.architecture, "os": "linux",
            "rootfs": { "diff_ids": [digest(&layer)] } });
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({ "schemaVersion": 2,
            "config": { "digest": digest(&config), "size": config.len() },
            "layers": [{ "digest": digest(&layer), "size": layer.len() }] });
        let manifest = manifest.to_string().into_bytes();
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [
            { "digest": digest(b"other"), "size": 1, "platform": { "os": "linux", "architecture": "s390x" } },
            { "digest": digest(&manifest), "size": manifest.len(), "platform":
                { "os": "linux", "architecture": platform.architecture } } ] });
        let index = index.to_string().into_bytes();
        let mut documents = BTreeMap::new();
        documents.insert("/v2/team/app/manifests/v1".to_owned(), index.clone());
        for manifest in [index, manifest] {
            documents.insert(format!("/v2/team/app/manifests/{}", digest(&manifest)), manifest);
        }
        documents.insert(format!("/v2/team/app/blobs/{}", digest(&config)), config);
        Self { layer, documents }
    }

    fn blob(&self) -> String {
        format!("/v2/team/app/blobs/{}", digest(&self.layer))
    }

    /// Starts a registry that has the image. The script may replace answers. Each request is logged.
    fn serve(
        self,
        mut script: impl FnMut(&Asked) -> Option<RegistryAnswer> + Send + 'static,
    ) -> (RegistryName, Arc<Mutex<Vec<String>>>) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (blob, written) = (self.blob(), Arc::clone(&log));
        let script = move |asked: &Asked| {
            written.lock().expect("log").push(format!("{} {}", asked.method, asked.path));
            Some(script(asked).unwrap_or_else(|| match self.documents.get(&asked.path) {
                Some(document) => {
                    answer(200, document.clone()).with("Docker-Content-Digest", digest(document))
                }
                None if asked.path == blob => answer(200, self.layer.clone()),
                None => answer(404, "{}"),
            }))
        };
        (name(serve(Box::new(script))), log)
    }
}

fn name(port: u16) -> RegistryName {
    match format!("127.0.0.1:{port}/team/app:v1").parse() {
        Ok(ImageName::Registry(name)) => name,
        other => panic!("no registry name: {other:?}"),
    }
}

fn serve(script: Box<Script>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let script = Arc::new(Mutex::new(script));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = Arc::clone(&script);
            std::thread::spawn(move || answer_one(stream, &script));
        }
    });
    port
}

/// Answers one request per connection. A client that speaks TLS gets the answer of a server without TLS.
fn answer_one(mut stream: TcpStream, script: &Mutex<Box<Script>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    if reader.fill_buf().ok()?.first() == Some(&0x16) {
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").ok()?;
        let _ = reader.read(&mut [0; 4096]);
        return None;
    }
    let mut lines = reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let first = lines.next()?;
    let mut words = first.split(' ').map(str::to_owned);
    let headers = lines.filter_map(|line| {
        line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
    });
    let asked = Asked { method: words.next()?, path: words.next()?, headers: headers.collect() };
    let answer = (script.lock().expect("script"))(&asked)?;
    let mut text = format!(
        "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    answer.headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{text}\r\n").as_bytes()).ok()?;
    if asked.method != "HEAD" {
        stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())]).ok()?;
    }
    Some(())
}

async fn pull(access: &RegistryAccess, name: &RegistryName, blobs: &Path) -> Result<Pulled, RegistryError> {
    look(access, name).await?.pull(blobs, &Platform::of_host(), &|| false, &mut |_| {}).await
}

async fn pulled(name: &RegistryName) -> Result<Vec<u8>, RegistryError> {
    let folder = tempfile::tempdir().expect("a folder");
    let pulled = pull(&RegistryAccess::default(), name, folder.path()).await;
    let left = std::fs::read_dir(folder.path().join(".build")).map_or(0, |entries| entries.count());
    assert_eq!(left, 0, "nothing half made is left");
    pulled.map(|pulled| std::fs::read(&pulled.layers[0].path).expect("a blob"))
}

#[tokio::test]
async fn the_platform_is_taken_out_of_an_index_and_each_blob_comes_once() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().expect("a folder"));
    let blob = stage.blob();
    let (name, log) = stage.serve(|_| None);
    let access = RegistryAccess::default();
    let (one, other) = tokio::join!(pull(&access, &name, folder.path()), pull(&access, &name, folder.path()));
    assert_eq!(one.expect("pulled"), other.expect("pulled"));
    let asked = log.lock().expect("log").clone();
    assert_eq!(asked.iter().filter(|asked| asked.ends_with(&blob)).count(), 1, "{asked:?}");
    assert!(asked.contains(&"HEAD /v2/team/app/manifests/v1".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn a_layer_that_is_cut_goes_on_where_it_ended() {
    let stage = Stage::new();
    let (layer, blob, mut ranges) = (stage.layer.clone(), stage.blob(), Vec::new());
    let whole = layer.clone();
    let (name, _) = stage.serve(move |asked| {
        if asked.path != blob {
            return None;
        }
        ranges.push(asked.headers.get("range").cloned());
        let mut cut = match ranges.len() {
            1 => answer(200, layer.clone()),
            2 => {
                assert_eq!(ranges[1].as_deref(), Some("bytes=100000-"));
                answer(206, &layer[100_000..])
            }
            // Like a server that ignores ranges.
            _ => return None,
        };
        cut.cut = Some(100_000);
        Some(cut)
    });
    assert!(pulled(&name).await.expect("pulled") == whole);
}

#[tokio::test]
async fn a_layer_goes_on_where_a_process_that_ended_has_come_to() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().expect("a folder"));
    let (layer, blob) = (stage.layer.clone(), stage.blob());
    let of_layer = folder.path().join(blob.rsplit(':').next().expect("digits"));
    let (name, log) = stage.serve(move |asked| {
        let range = asked.headers.get("range")?;
        assert_eq!((range.as_str(), asked.path.ends_with(&blob)), ("bytes=100000-", true));
        Some(answer(206, &layer[100_000..]))
    });
    for part in [&stage_layer(&name).await[..100_000], &[7; 100_000], &[7; 400_000]] {
        let _ = std::fs::remove_dir_all(&of_layer);
        std::fs::create_dir(&of_layer).expect("a folder");
        std::fs::write(of_layer.join("blob.part"), part).expect("a part");
        log.lock().expect("log").clear();
        let pulled = pull(&RegistryAccess::default(), &name, folder.path()).await.expect("pulled");
        assert!(std::fs::read(&pulled.layers[0].path).expect("a blob") == stage_layer(&name).await);
        assert!(!of_layer.join("blob.part").exists());
    }
}

/// Returns the layer as a pull into an empty folder gets it.
async fn stage_layer(name: &RegistryName) -> Vec<u8> {
    pulled(name).await.expect("pulled")
}

#[tokio::test]
async fn a_bearer_token_is_asked_for_this_repository_only() {
    let mut port_of_tokens = None;
    let (name, log) = Stage::new().serve(move |asked| {
        let port = port_of_tokens.get_or_insert_with(|| {
            serve(Box::new(|asked| {
                assert_eq!(asked.path, "/token?scope=repository%3Ateam%2Fapp%3Apull&service=here");
                Some(answer(200, r#"{"token":"t0ken"}"#))
            }))
        });
        let realm = format!(
            "Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"here\",scope=\"repository:*:*\""
        );
        let is_known = asked.headers.get("authorization").is_some_and(|sent| sent == "Bearer t0ken");
        (!is_known).then(|| answer(401, "{}").with("WWW-Authenticate", realm))
    });
    pulled(&name).await.expect("pulled");
    let asked = log.lock().expect("log").len();
    assert_eq!(asked, 6, "only the first request was sent twice");
}

/// Returns access with a password for a registry, and the folder of its file.
fn access_with_password(registry: &str) -> (RegistryAccess, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.json");
    // user:secret
    let auths = serde_json::json!({ "auths": { registry: { "auth": "dXNlcjpzZWNyZXQ=" } } });
    std::fs::write(&file, auths.to_string()).expect("written");
    (RegistryAccess { credentials: vec![file], ..RegistryAccess::default() }, folder)
}

#[tokio::test]
async fn the_password_of_a_registry_is_not_sent_to_a_host_that_it_redirects_to() {
    for kind in ["manifests", "blobs"] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |seen: &Mutex<Vec<_>>, asked: &Asked| {
            seen.lock()
                .expect("seen")
                .push((asked.path.clone(), asked.headers.contains_key("authorization")));
        };
        let by_tokens = Arc::clone(&seen);
        let tokens = serve(Box::new(move |asked| {
            note(&by_tokens, asked);
            Some(answer(200, r#"{"token":"t0ken"}"#))
        }));
        let by_other = Arc::clone(&seen);
        let other = serve(Box::new(move |asked| {
            note(&by_other, asked);
            let realm = format!("Bearer realm=\"http://127.0.0.1:{tokens}/token\"");
            Some(answer(401, "{}").with("WWW-Authenticate", realm))
        }));
        let (name, _) = Stage::new().serve(move |asked| {
            let to = format!("http://127.0.0.1:{other}/elsewhere");
            asked.path.contains(kind).then(|| answer(307, "").with("Location", to))
        });
        let (access, _file) = access_with_password(name.registry());
        let folder = tempfile::tempdir().expect("a folder");
        let error = pull(&access, &name, folder.path()).await.expect_err("refused").to_string();
        assert!(
            error.contains(&format!("a redirect to http://127.0.0.1:{other}, which requires")),
            "{error}"
        );
        let seen = seen.lock().expect("seen").clone();
        assert_eq!(seen, [("/elsewhere".to_owned(), false)], "{kind}: the redirect is followed, and no more");
    }
}

#[tokio::test]
async fn a_registry_gets_its_password_at_its_own_address() {
    let (name, log) = Stage::new().serve(|asked| {
        let is_known =
            asked.headers.get("authorization").is_some_and(|sent| sent == "Basic dXNlcjpzZWNyZXQ=");
        (!is_known).then(|| answer(401, "{}").with("WWW-Authenticate", "Basic realm=\"x\""))
    });
    let (access, _file) = access_with_password(name.registry());
    let folder = tempfile::tempdir().expect("a folder");
    pull(&access, &name, folder.path()).await.expect("pulled");
    assert_eq!(log.lock().expect("log").len(), 6, "only the first request was sent twice");
}

#[tokio::test]
async fn a_token_is_asked_for_if_a_password_is_offered_too() {
    for in_one_header in [true, false] {
        let mut port_of_tokens = None;
        let (name, _) = Stage::new().serve(move |asked| {
            let port = port_of_tokens
                .get_or_insert_with(|| serve(Box::new(|_| Some(answer(200, r#"{"access_token":"t0ken"}"#)))));
            let (basic, token) =
                ("Basic realm=\"x\"", format!("Bearer realm=\"http://127.0.0.1:{port}/token\""));
            let is_known = asked.headers.get("authorization").is_some_and(|sent| sent == "Bearer t0ken");
            let refused = answer(401, "{}");
            (!is_known).then(|| match in_one_header {
                true => refused.with("WWW-Authenticate", format!("{basic}, {token}")),
                false => refused.with("WWW-Authenticate", basic).with("WWW-Authenticate", token),
            })
        });
        pulled(&name).await.expect("pulled");
    }
}

#[tokio::test]
async fn a_registry_that_refuses_head_is_asked_by_get() {
    for status in [403, 405, 501] {
        let (name, log) =
            Stage::new().serve(move |asked| (asked.method == "HEAD").then(|| answer(status, "")));
        pulled(&name).await.expect("pulled");
        let heads = log.lock().expect("log").iter().filter(|asked| asked.starts_with("HEAD")).count();
        assert_eq!(heads, 1, "{status}");
    }
    let (name, log) = Stage::new().serve(|_| Some(answer(403, "")));
    assert!(matches!(pulled(&name).await, Err(RegistryError::Denied { .. })));
    assert_eq!(log.lock().expect("log").len(), 2, "HEAD and GET");
}

#[tokio::test]
async fn what_a_registry_sends_is_believed_by_its_digest_only() {
    let stage = Stage::new();
    let (blob, mut layer) = (stage.blob(), stage.layer.clone());
    layer[7] ^= 1;
    let (name, _) = stage.serve(move |asked| (asked.path == blob).then(|| answer(200, layer.clone())));
    let error = pulled(&name).await.expect_err("a lie").to_string();
    assert!(error.contains("sent an unexpected answer: the content for the digest sha256:"), "{error}");
    let stage = Stage::new();
    let (blob, layer) = (stage.blob(), [stage.layer.as_slice(), b"more"].concat());
    let (name, _) = stage.serve(move |asked| (asked.path == blob).then(|| answer(200, layer.clone())));
    let error = pulled(&name).await.expect_err("a lie").to_string();
    assert!(error.ends_with("a layer that is longer than its 300000 bytes"), "{error}");
}

#[tokio::test]
async fn manifests_and_configurations_are_believed_by_their_digests_only() {
    let paths: Vec<String> =
        Stage::new().documents.into_keys().filter(|path| path.contains("sha256:")).collect();
    assert_eq!(paths.len(), 3, "index, manifest and configuration");
    for path in paths {
        let wanted = path.rsplit_once('/').expect("a digest").1.to_owned();
        let (name, _) = Stage::new().serve(move |asked| (asked.path == path).then(|| answer(200, "{}")));
        let error = pulled(&name).await.expect_err("a lie").to_string();
        assert!(
            error.contains(&format!("the content for the digest {wanted} has the digest sha256:")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_layer_that_ends_too_early_each_time_is_given_up() {
    let stage = Stage::new();
    let (blob, layer) = (stage.blob(), stage.layer.clone());
    let (name, log) = stage.serve(move |asked| {
        let cut = RegistryAnswer { cut: Some(0), ..answer(200, layer.clone()) };
        (asked.path == blob).then_some(cut)
    });
    let error = pulled(&name).await.expect_err("never whole");
    assert!(error.is_of_registry(), "{error}");
    assert!(log.lock().expect("log").len() < 20, "not for ever");
}

#[tokio::test]
async fn an_image_for_other_platforms_only_is_refused_and_they_are_named() {
    let platform = serde_json::json!({ "os": "linux", "architecture": "s390x" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "digest": digest(b"other"), "size": 1, "platform": platform } ] });
    let index = index.to_string().into_bytes();
    let (name, _) = Stage::new().serve(move |asked| {
        let sent = answer(200, index.clone()).with("Docker-Content-Digest", digest(&index));
        asked.path.contains("/manifests/").then_some(sent)
    });
    let error = pulled(&name).await.expect_err("none for this host").to_string();
    assert!(error.ends_with("only linux/s390x"), "{error}");
}

#[tokio::test]
async fn a_busy_registry_is_waited_for_but_not_for_ever() {
    let mut first = true;
    let (name, _) = Stage::new()
        .serve(move |_| std::mem::take(&mut first).then(|| answer(429, "").with("Retry-After", 1)));
    pulled(&name).await.expect("pulled");
    let (name, _) = Stage::new().serve(|_| Some(answer(429, "").with("Retry-After", 100_000)));
    let error = pulled(&name).await.expect_err("too busy");
    assert!(error.is_of_registry(), "{error}");
    assert!(error.to_string().contains("asks to come back later"), "{error}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_passed_over_where_it_fails() {
    let (good, log) = Stage::new().serve(|_| None);
    let (bad, _) = Stage::new().serve(|_| Some(answer(500, "broken")));
    let text = serde_json::json!({ "nowhere.invalid": { "mirrors": [bad.registry(), good.registry()] } });
    let registries = serde_json::from_value(text).expect("registries");
    let access = RegistryAccess { registries, ..RegistryAccess::default() };
    let folder = tempfile::tempdir().expect("a folder");
    let name = RegistryName::at("nowhere.invalid", &good);
    pull(&access, &name, folder.path()).await.expect("pulled");
    assert!(!log.lock().expect("log").is_empty());
}

#[tokio::test]
async fn tags_that_are_there_are_told() {
    let (name, _) = Stage::new().serve(|asked| match asked.path.as_str() {
        "/v2/team/app/tags/list" => Some(answer(200, r#"{"tags":["v2","latest"]}"#)),
        path if path.ends_with("/v1") => Some(answer(404, "{}")),
        _ => None,
    });
    let error = pulled(&name).await.expect_err("no such tag").to_string();
    assert_eq!(error, format!("{name} is not there; there is v2, latest"));
}
