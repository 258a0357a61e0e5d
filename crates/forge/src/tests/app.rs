//! Tests of GitHub Apps against forges that issue tokens, or refuse to.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::rsa_key;
use super::scripted::{Reply, Request, ScriptedForge};
use crate::{ApiBase, AppKey, Credential, Forge, ForgeError, GithubApp, RunnerScope};

fn scope() -> RunnerScope {
    RunnerScope::Repository { owner: "o".into(), name: "r".into() }
}

fn app() -> GithubApp {
    GithubApp::new("12", AppKey::from_pem(rsa_key().pkcs1.clone().into()).unwrap(), vec![scope()]).unwrap()
}

fn client(forge: &ScriptedForge, app: GithubApp) -> Forge {
    Forge::new(ApiBase::from_host_or_url(&forge.url).unwrap(), app).unwrap()
}

fn issued(token: &str, life_s: i64) -> Reply {
    let ends = jiff::Timestamp::from_second(dayfly_host::clock::now_s() + life_s).unwrap();
    Reply::new(201, json!({"token": token, "expires_at": ends.to_string()}))
}

fn message(status: u16, text: &str) -> Reply {
    Reply::new(status, json!({"message": text}))
}

fn runners() -> Reply {
    Reply::new(200, json!({"total_count": 0, "runners": []}))
}

/// Returns the claims of the assertion in a request, which must be signed by the App's key.
fn claims(request: &Request) -> Value {
    serde_json::from_str(&rsa_key().verify(&request.bearer).expect("signed by the App")).unwrap()
}

/// Starts a forge that issues `t1`, `t2`, ... for an hour each, and answers other requests by `answer`.
async fn issuing(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> ScriptedForge {
    let issued_so_far = AtomicUsize::new(0);
    ScriptedForge::start(move |request| match request.line.as_str() {
        "GET /api/v3/repos/o/r/installation" => Reply::new(200, json!({"id": 5})),
        "POST /api/v3/app/installations/5/access_tokens" => {
            let n = issued_so_far.fetch_add(1, Ordering::Relaxed) + 1;
            issued(&format!("t{n}"), 3600).after(Duration::from_millis(50))
        }
        _ => answer(request),
    })
    .await
}

#[tokio::test]
async fn an_app_finds_its_installation_and_calls_with_a_token_of_least_permissions() {
    let server = issuing(|_| runners()).await;
    let before = dayfly_host::clock::now_s();
    client(&server, app()).list_runners(&scope()).await.unwrap();

    assert_eq!(server.requests("r/installation").len(), 1);
    let asked = &server.requests("access_tokens")[0];
    assert_eq!(asked.body, json!({"permissions": {"administration": "write"}, "repositories": ["r"]}));
    let claims = claims(asked);
    assert_eq!(claims["iss"], "12");
    let (issued, ends) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    assert!((before - 61..=dayfly_host::clock::now_s() - 60).contains(&issued), "{issued}");
    assert_eq!(ends - issued, 600);
    assert_eq!(server.requests("actions/runners")[0].bearer, "t1");
}

#[tokio::test]
async fn many_callers_cause_one_request_for_a_token() {
    let server = issuing(|_| runners()).await;
    let forge = client(&server, app().installation(5));
    let scope = scope();
    let calls = (0..40).map(|_| {
        let (forge, scope) = (forge.clone(), scope.clone());
        tokio::spawn(async move { forge.list_runners(&scope).await.unwrap() })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(server.requests("access_tokens").len(), 1);
    assert_eq!(server.requests("installation").len(), 1, "a known id is not looked up");
    assert_eq!(server.requests("actions/runners").len(), 40);
}

#[tokio::test]
async fn many_callers_share_one_failure_too() {
    let server = ScriptedForge::start(|_| {
        message(401, "A JSON web token could not be decoded").after(Duration::from_millis(50))
    })
    .await;
    let forge = client(&server, app().installation(5));
    let calls = (0..40).map(|_| {
        let forge = forge.clone();
        tokio::spawn(async move { forge.list_runners(&scope()).await.unwrap_err() })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(matches!(call.await.unwrap(), ForgeError::App { .. }));
    }
    forge.list_runners(&scope()).await.unwrap_err();
    assert_eq!(server.requests("").len(), 1, "and it counts for a minute");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_by_the_forges_clock() {
    // The forge's clock is an hour ahead, so the token that ends in 4 s by it seems to last for an hour and more.
    let ahead_s = 3600;
    let count = AtomicUsize::new(0);
    let server = ScriptedForge::start(move |request| match request.line.contains("access_tokens") {
        true => {
            let n = count.fetch_add(1, Ordering::Relaxed) + 1;
            issued(&format!("t{n}"), ahead_s + 4).dated(ahead_s)
        }
        false => runners().dated(ahead_s),
    })
    .await;
    let forge = client(&server, app().installation(5));
    forge.list_runners(&scope()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2200)).await;
    forge.list_runners(&scope()).await.unwrap();
    let bearers: Vec<String> = server.requests("actions/runners").into_iter().map(|r| r.bearer).collect();
    assert_eq!(bearers, ["t1", "t2"]);
}

#[tokio::test]
async fn a_token_that_is_still_valid_is_used_while_it_cannot_be_renewed() {
    let count = AtomicUsize::new(0);
    let server = ScriptedForge::start(move |request| match request.line.contains("access_tokens") {
        true if count.fetch_add(1, Ordering::Relaxed) == 0 => issued("t1", 12).dated(0),
        true => message(403, "This installation has been suspended"),
        false => runners(),
    })
    .await;
    let forge = client(&server, app().installation(5));
    forge.list_runners(&scope()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(6_200)).await;
    for _ in 0..3 {
        forge.list_runners(&scope()).await.unwrap();
    }
    assert_eq!(server.requests("access_tokens").len(), 2, "the failure counts for a minute");
}

#[tokio::test]
async fn the_forges_clock_counts_if_this_hosts_clock_is_wrong() {
    let server = ScriptedForge::start(|request| match request.line.contains("access_tokens") {
        false => runners().dated(-7200),
        true => {
            let forge_s = dayfly_host::clock::now_s() - 7200;
            match claims(request)["exp"].as_i64().unwrap() > forge_s + 600 {
                true => message(401, "'Expiration time' claim ('exp') is too far in the future").dated(-7200),
                false => issued("t1", 3600 - 7200).dated(-7200),
            }
        }
    })
    .await;
    client(&server, app().installation(5)).list_runners(&scope()).await.unwrap();
    assert_eq!(server.requests("access_tokens").len(), 2);
}

#[tokio::test]
async fn a_new_token_that_the_forge_refuses_is_not_replaced() {
    let server = ScriptedForge::start(|request| match request.line.contains("access_tokens") {
        true => issued("young", 3600),
        false => message(401, "Bad credentials"),
    })
    .await;
    let error = client(&server, app().installation(5)).list_runners(&scope()).await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot list the runners of o/r: the forge does not accept its own token of the GitHub App 12 (Bad credentials); check that the App is still installed, and that the installation is not suspended");
    assert_eq!(server.requests("access_tokens").len(), 1, "another one would be refused too");
    assert_eq!(server.requests("actions/runners").len(), 1);
}

#[tokio::test]
async fn an_admin_reads_what_is_wrong_with_an_app() {
    let refusal = async |app: GithubApp, status: u16, text: &'static str, ahead_s: i64| {
        let server = ScriptedForge::start(move |_| message(status, text).dated(ahead_s)).await;
        client(&server, app).registration_token(&scope()).await.unwrap_err().to_string()
    };
    let known = || app().installation(5);
    insta::assert_snapshot!(refusal(known(), 401, "A JSON web token could not be decoded", 0).await, @"cannot make a registration token for o/r: the forge does not accept the private key of the GitHub App 12 (A JSON web token could not be decoded); check that the id and the key belong to the same App, and that the key was not deleted on the App's settings page");
    let late =
        "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued";
    let clock = refusal(known(), 401, late, -5000).await;
    // The difference grows by the time that the answer takes.
    assert!(
        clock.contains("does not accept the time of this host for the GitHub App 12 ('Issued at' claim"),
        "{clock}"
    );
    assert!(
        clock.contains("; this host's clock is 50")
            && clock.ends_with(" s ahead of the forge's; synchronise it (NTP)"),
        "{clock}"
    );
    insta::assert_snapshot!(refusal(app(), 404, "Not Found", 0).await, @r#"cannot make a registration token for o/r: the GitHub App 12 is not installed for o/r (Not Found); install it with "Install App" on its settings page, and select the repository if the installation is for selected repositories"#);
    insta::assert_snapshot!(refusal(known(), 404, "Not Found", 0).await, @"cannot make a registration token for o/r: the GitHub App 12 has no installation 5 (Not Found); the number at the end of the installation's address is its id, and without an id dayfly finds the installation by the owner of the runners");
    insta::assert_snapshot!(refusal(known(), 403, "This installation has been suspended", 0).await, @r#"cannot make a registration token for o/r: the installation 5 of the GitHub App 12 is suspended (This installation has been suspended); its owner ends that with "Unsuspend" on the installation's settings page"#);
    let not_granted = "The permissions requested are not granted to this installation.";
    insta::assert_snapshot!(refusal(known(), 422, not_granted, 0).await, @r#"cannot make a registration token for o/r: the installation 5 of the GitHub App 12 does not grant what dayfly needs (The permissions requested are not granted to this installation.): "Administration" (repository permission, read and write) to manage runners of a repository; give the App the permission on its settings page and have the owner accept it on the installation's page, or add the repository to the installation"#);
    insta::assert_snapshot!(refusal(known().reading_jobs(), 422, not_granted, 0).await, @r#"cannot make a registration token for o/r: the installation 5 of the GitHub App 12 does not grant what dayfly needs (The permissions requested are not granted to this installation.): "Administration" (repository permission, read and write) to manage runners of a repository, "Actions" (repository permission, read) to find waiting jobs; give the App the permission on its settings page and have the owner accept it on the installation's page, or add the repository to the installation"#);
}

#[tokio::test]
async fn a_permission_that_the_owner_has_not_accepted_is_named_for_each_use() {
    let server = issuing(|_| message(403, "Resource not accessible by integration")).await;
    let forge = client(&server, app());
    insta::assert_snapshot!(forge.registration_token(&scope()).await.unwrap_err(), @r#"cannot make a registration token for o/r: the token may not do that (Resource not accessible by integration); it needs the classic scope "repo", or the repository permission "Administration" (write) of a fine-grained token or a GitHub App; the owner of an installation must accept a permission that its App was given later"#);
    insta::assert_snapshot!(forge.delete_runner(&scope(), 7).await.unwrap_err(), @r#"cannot delete the runner 7 at o/r: the token may not do that (Resource not accessible by integration); it needs the classic scope "repo", or the repository permission "Administration" (write) of a fine-grained token or a GitHub App; the owner of an installation must accept a permission that its App was given later"#);
    insta::assert_snapshot!(forge.jobs("o", "r", 7).await.unwrap_err(), @r#"cannot list the jobs of the run 7 of o/r: the token may not do that (Resource not accessible by integration); it needs the classic scope "repo" if the repository is private, or the repository permission "Actions" (read) of a fine-grained token or a GitHub App; the owner of an installation must accept a permission that its App was given later"#);
}

#[tokio::test]
async fn a_forge_that_does_not_answer_is_a_temporary_error() {
    let forge = Forge::new(ApiBase::from_host_or_url("http://127.0.0.1:1").unwrap(), app()).unwrap();
    let error = forge.list_runners(&scope()).await.unwrap_err();
    assert!(matches!(&error, ForgeError::App { .. }) && error.is_temporary(), "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:1 does not answer"), "{error}");
}

#[tokio::test]
async fn clients_with_clones_of_a_credential_share_its_token() {
    let server = issuing(|_| runners()).await;
    let credential = Credential::app(app());
    for _ in 0..3 {
        let base = ApiBase::from_host_or_url(&server.url).unwrap();
        Forge::new(base, credential.clone()).unwrap().list_runners(&scope()).await.unwrap();
    }
    assert_eq!(server.requests("access_tokens").len(), 1);
}

#[tokio::test]
async fn an_app_that_was_installed_again_is_found_again() {
    let id = std::sync::Arc::new(AtomicI64::new(5));
    let now = id.clone();
    let server = ScriptedForge::start(move |request| {
        let current = now.load(Ordering::Relaxed);
        match request.line.as_str() {
            "GET /api/v3/repos/o/r/installation" => Reply::new(200, json!({"id": current})),
            line if line.contains(&format!("/{current}/access_tokens")) => issued("t", 2).dated(0),
            line if line.contains("access_tokens") => message(404, "Not Found"),
            _ => runners(),
        }
    })
    .await;
    let forge = client(&server, app());
    forge.list_runners(&scope()).await.unwrap();
    id.store(6, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    forge.list_runners(&scope()).await.unwrap();
    assert_eq!(server.requests("installations/6/access_tokens").len(), 1);
}
