//! The flow from the page to the files, with a browser that the tests play.

use std::path::Path;

use clap::Parser as _;

use super::*;
use crate::cli::{AppCommand, Cli, Command};
use crate::test_forge::{TestForge, TestLab, exchange};

fn args(options: &str) -> AppCreateArgs {
    let words = ["dayfly", "app", "create"].into_iter().chain(options.split_whitespace());
    match Cli::try_parse_from(words).expect(options).command {
        Command::App(AppCommand::Create(args)) => *args,
        _ => panic!("another command"),
    }
}

fn plan(options: &str, folder: &Path) -> Plan {
    let key = folder.join("app.pem");
    Plan::read(&args(&format!("{options} --key-file {}", key.display())))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A page that waits for a browser.
struct Page {
    url: String,
    outcome: tokio::task::JoinHandle<Result<Stored>>,
}

impl Page {
    async fn open(plan: Plan, timeout: Duration) -> Self {
        let forge = forge_client(plan.base.clone(), Credential::token(""), None).expect("a client");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (callbacks, mut given) = mpsc::channel(1);
        let desk = Arc::new(desk(&plan, port, "n0", callbacks).expect("a desk"));
        let (end, ended) = oneshot::channel();
        tokio::spawn(server::serve(listener, server::router(desk.clone()), ended));
        let outcome = tokio::spawn(async move {
            let stored = wait_and_store(&plan, &forge, &desk, &mut given, timeout, "n0").await;
            let _ = end.send(());
            stored
        });
        Self { url: format!("http://127.0.0.1:{port}"), outcome }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        get(&self.url, path, "127.0.0.1").await
    }

    /// Returns the state that is in the form.
    async fn state(&self) -> String {
        let (_, form) = self.get("/").await;
        let after = form.split_once("/new?state=").expect("a state").1;
        after.split_once('"').expect("its end").0.to_owned()
    }
}

async fn get(url: &str, path: &str, host: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    exchange(url, &request).await
}

/// Answers one good code as a forge does.
async fn forge() -> TestForge {
    TestForge::start(|line| match line {
        "POST /api/v3/app-manifests/good-code/conversions" => (
            201,
            Vec::new(),
            json!({
                "id": 77, "slug": "dayfly-1", "client_id": "Iv23x", "html_url": "http://elsewhere.example/apps/x",
                "pem": "-----BEGIN RSA PRIVATE KEY-----\nABC\n-----END RSA PRIVATE KEY-----\n", "webhook_secret": "hush",
            }),
        ),
        _ => (404, Vec::new(), json!({"message": "Not <b>Found</b>"})),
    })
    .await
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_browser_that_confirms_leads_to_an_app_whose_key_is_stored() {
    let (forge, folder) = (forge().await, tempfile::tempdir().expect("folder"));
    let page = Page::open(plan(&format!("-g {}", forge.url), folder.path()), LONG).await;
    let (status, form) = page.get("/").await;
    assert_eq!(status, 200);
    let policy = format!(
        "content-security-policy: default-src 'none'; style-src 'nonce-n0'; form-action {} 'self'; frame-ancestors 'none'; base-uri 'none'\r\n",
        forge.url
    );
    assert!(form.contains(&policy) && form.contains("cache-control: no-store"), "{form}");
    let state = page.state().await;
    let (status, answer) = page.get(&format!("/callback?code=good-code&state={state}")).await;
    assert_eq!(status, 200);
    assert!(answer.contains(&format!("href=\"{}/apps/dayfly-1/installations/new\"", forge.url)), "{answer}");
    let stored = page.outcome.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((stored.app.id, stored.has_webhook_secret), (77, false));
    let key = std::fs::read_to_string(folder.path().join("app.pem")).expect("the key");
    assert_eq!(key, "-----BEGIN RSA PRIVATE KEY-----\nABC\n-----END RSA PRIVATE KEY-----\n");
    assert_eq!(forge.requests(), ["POST /api/v3/app-manifests/good-code/conversions"]);
}

#[tokio::test]
async fn the_form_of_the_page_creates_an_app_at_a_lab_whose_key_works() {
    let (lab, folder) = (TestLab::start().await, tempfile::tempdir().expect("folder"));
    let page = Page::open(plan(&format!("-g {} --organization acme", lab.url), folder.path()), LONG).await;
    let (_, form) = page.get("/").await;
    let between = |from: &str| {
        let text = form.split_once(from).expect(from).1.split_once('"').expect("its end").0;
        text.replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
    };
    let target = lab.send_form(&between("form action=\""), &between("name=\"manifest\" value=\"")).await;
    let path = target.strip_prefix(&page.url).expect("back to the page");
    assert_eq!(page.get(path).await.0, 200);
    let stored = page.outcome.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
    let scope = dayfly_forge::RunnerScope::parse("repo", "acme/app").expect("a scope");
    let key_file = folder.path().join("app.pem");
    let id = stored.app.id.to_string();
    let app = crate::commands::runner::credential::app_of(&id, None, &key_file, vec![scope.clone()]);
    let base = ApiBase::from_host_or_url(&lab.url).expect("an address");
    let forge = forge_client(base, Credential::app(app.expect("a good key")), None).expect("a client");
    forge.registration_token(&scope).await.expect("the permission to register runners");
}

#[tokio::test]
async fn the_secret_of_a_webhook_is_stored_only_if_there_is_a_webhook() {
    let (forge, folder) = (forge().await, tempfile::tempdir().expect("folder"));
    let options =
        format!("-g {} --demand webhook --webhook-url https://ci.example/hook --name hooked", forge.url);
    let page = Page::open(plan(&options, folder.path()), LONG).await;
    let state = page.state().await;
    assert_eq!(page.get(&format!("/callback?code=good-code&state={state}")).await.0, 200);
    page.outcome.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
    let secret = std::fs::read_to_string(folder.path().join("hooked.webhook-secret")).expect("the secret");
    assert_eq!(secret, "hush\n");
}

#[tokio::test]
async fn wrong_callbacks_are_refused_and_the_right_one_still_counts() {
    let (forge, folder) = (forge().await, tempfile::tempdir().expect("folder"));
    let page = Page::open(plan(&format!("-g {}", forge.url), folder.path()), LONG).await;
    assert_eq!(page.get("/callback?code=good-code&state=wrong").await.0, 400);
    assert_eq!(page.get("/callback").await.0, 400);
    assert_eq!(get(&page.url, "/", "evil.example").await.0, 421);
    assert_eq!(page.get("/favicon.ico").await.0, 404);
    assert!(forge.requests().is_empty());
    let state = page.state().await;
    assert_eq!(page.get(&format!("/callback?code=good-code&state={state}")).await.0, 200);
    page.outcome.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_code_that_the_forge_does_not_know_is_an_error_and_leaves_no_file() {
    let (forge, folder) = (forge().await, tempfile::tempdir().expect("folder"));
    let page = Page::open(plan(&format!("-g {}", forge.url), folder.path()), LONG).await;
    let state = page.state().await;
    let (status, answer) = page.get(&format!("/callback?code=bad-code&state={state}")).await;
    assert_eq!(status, 502);
    assert!(answer.contains("Not &lt;b&gt;Found&lt;/b&gt;"), "{answer}");
    let failure = page.outcome.await.expect("no panic").err().expect("refused");
    insta::assert_snapshot!(failure, @"the forge does not know the code that the browser brought, or it was used (Not <b>Found</b>)");
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
}

#[tokio::test]
async fn a_key_that_cannot_be_stored_is_told_with_the_page_that_makes_another() {
    let (forge, folder) = (forge().await, tempfile::tempdir().expect("folder"));
    let page = Page::open(plan(&format!("-g {}", forge.url), folder.path()), LONG).await;
    std::fs::write(folder.path().join("app.pem"), "mine").expect("written");
    let state = page.state().await;
    assert_eq!(page.get(&format!("/callback?code=good-code&state={state}")).await.0, 502);
    let failure = page.outcome.await.expect("no panic").err().expect("refused");
    assert!(failure.to_string().starts_with("the App 77 exists, but dayfly has no key of it: "), "{failure}");
    assert!(
        failure.what_to_do().is_some_and(|hint| hint.contains("/apps/dayfly-1")),
        "{:?}",
        failure.what_to_do()
    );
    assert_eq!(std::fs::read_to_string(folder.path().join("app.pem")).expect("there"), "mine");
}

#[tokio::test]
async fn a_browser_that_never_comes_back_ends_the_wait() {
    let folder = tempfile::tempdir().expect("folder");
    let page = Page::open(plan("-g http://127.0.0.1:1", folder.path()), Duration::from_millis(50)).await;
    let failure = page.outcome.await.expect("no panic").err().expect("too late");
    assert!(failure.to_string().contains("no browser has confirmed"), "{failure}");
}

#[test]
fn wrong_options_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("taken.pem"), "mine").expect("written");
    let taken = format!("--key-file {}/taken.pem", folder.path().display());
    for (options, why) in [
        ("--scope org", "--organization"),
        ("--demand webhook", "--webhook-url"),
        ("--webhook-url https://x", "--demand webhook"),
        ("--demand webhook --webhook-url ftp://x", "https://"),
        ("--timeout 2h", "an hour"),
        ("--name 12345678901234567890123456789012345", "34 characters"),
        ("-g ftp://x", "http"),
        (&taken, "exists already"),
    ] {
        let failure = Plan::read(&args(options)).err().expect(options);
        let text = format!("{failure} {}", failure.what_to_do().unwrap_or_default());
        assert!(failure.code() == 2 && text.contains(why), "{options}: {text}");
    }
}

#[test]
fn the_steps_without_a_page_have_a_link_and_the_lines_for_the_file() {
    let options = "--manual --name dayfly-1 --scope org --organization acme --demand scale-set,poll --key-file /k/app.pem";
    let plan = Plan::read(&args(options)).unwrap_or_else(|error| panic!("{error}"));
    let url = plan.manifest.prefilled_url(&plan.base).expect("a link");
    insta::assert_snapshot!(steps(&plan, &url));
}
