//! GitHub Apps at the lab, as dayfly's own client creates and uses them.

use dayfly_forge::{
    ApiBase, AppKey, AppManifest, Forge, ForgeError, ForgeUse, GithubApp, NewApp, RunnerScope, ScopeKind,
};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::bench::{Bench, http};

fn manifest(uses: &[ForgeUse]) -> AppManifest {
    AppManifest { name: "dayfly-test".to_owned(), organization: None, uses: uses.to_vec(), webhook: None }
}

const RUNNERS: ForgeUse = ForgeUse::Runners(ScopeKind::Repository);

/// Sends the form of a manifest as a browser does. Returns the status and the address that the answer leads to.
async fn send_form(bench: &Bench, manifest: &AppManifest, redirect_url: &str, token: &str) -> (u16, String) {
    let base = ApiBase::from_host_or_url(&bench.url).unwrap();
    let body = reqwest::Url::parse_with_params(
        "http://x/",
        [("manifest", manifest.to_json(redirect_url).to_string())],
    )
    .unwrap();
    let answer = http()
        .post(manifest.form_url(&base, "the state").unwrap())
        .basic_auth("me", Some(token))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.query().unwrap().to_owned())
        .send()
        .await
        .unwrap();
    let target = answer.headers().get("location").map(|url| url.to_str().unwrap().to_owned());
    (answer.status().as_u16(), target.unwrap_or_default())
}

async fn create(bench: &Bench, uses: &[ForgeUse]) -> NewApp {
    let token = bench.lab.token().expose_secret().to_owned();
    let (status, target) = send_form(bench, &manifest(uses), "http://127.0.0.1:1/callback", &token).await;
    assert_eq!(status, 302);
    let target = reqwest::Url::parse(&target).unwrap();
    let query: Vec<(String, String)> = target.query_pairs().into_owned().collect();
    assert_eq!((query[1].0.as_str(), query[1].1.as_str()), ("state", "the state"));
    let app = bench.forge.convert_manifest(&query[0].1).await.unwrap();
    let again = bench.forge.convert_manifest(&query[0].1).await.unwrap_err();
    assert!(matches!(again, ForgeError::NotFound { .. }), "a code serves once: {again}");
    app
}

fn client(bench: &Bench, app: &NewApp, id: &str, scope: RunnerScope) -> Forge {
    let key = AppKey::from_pem(app.pem.clone()).unwrap();
    let base = ApiBase::from_host_or_url(&bench.url).unwrap();
    Forge::new(base, GithubApp::new(id, key, vec![scope]).unwrap()).unwrap()
}

#[tokio::test]
async fn an_app_of_a_manifest_manages_runners_also_after_a_restart() {
    let bench = Bench::new().await;
    let app = create(&bench, &[RUNNERS]).await;
    let bench = bench.killed_and_opened().await;
    let forge = client(&bench, &app, &app.id.to_string(), Bench::scope());
    assert_eq!(forge.app_name().await.unwrap().as_deref(), Some("dayfly-test"));
    let installation = forge.installation(&Bench::scope()).await.unwrap().unwrap();
    assert_eq!(installation.permissions.get("administration").map(String::as_str), Some("write"));
    forge.registration_token(&Bench::scope()).await.unwrap();
    assert!(forge.list_runners(&Bench::scope()).await.unwrap().is_empty());
    let by_client_id = client(&bench, &app, &app.client_id.clone().unwrap(), Bench::scope());
    by_client_id.place(&Bench::scope()).await.unwrap();

    let other = RunnerScope::Repository { owner: "o".into(), name: "other".into() };
    let refused = forge.registration_token(&other).await.unwrap_err();
    assert!(matches!(refused, ForgeError::NotFound { .. }), "the token is for one repository: {refused}");
    let refused = forge.put_workflow("o", "r", "a.yml", "on: push").await.unwrap_err();
    assert!(matches!(refused, ForgeError::Forbidden { .. }), "{refused}");
}

#[tokio::test]
async fn a_permission_that_was_not_granted_and_a_key_of_another_app_are_refused() {
    let bench = Bench::new().await;
    let app = create(&bench, &[RUNNERS]).await;
    let organization = client(&bench, &app, &app.id.to_string(), RunnerScope::Organization("o".into()));
    let refused = organization.list_runners(&RunnerScope::Organization("o".into())).await.unwrap_err();
    assert!(refused.to_string().contains("does not grant what dayfly needs"), "{refused}");
    let other = create(&bench, &[RUNNERS]).await;
    let mixed = client(&bench, &app, &other.id.to_string(), Bench::scope());
    let refused = mixed.app_name().await.unwrap_err();
    assert!(refused.to_string().contains("does not accept the private key"), "{refused}");
}

#[tokio::test]
async fn a_caller_without_the_token_creates_no_app_and_no_code_leaves_this_host() {
    let bench = Bench::new().await;
    let home = "http://127.0.0.1:1/callback";
    assert_eq!(send_form(&bench, &manifest(&[RUNNERS]), home, "wrong").await.0, 401);
    let token = bench.lab.token().expose_secret().to_owned();
    let (status, target) = send_form(&bench, &manifest(&[RUNNERS]), "http://evil.example/", &token).await;
    assert_eq!((status, target.as_str()), (422, ""));
    let jwt = "eyJhbGciOiJub25lIn0.eyJpc3MiOiIxIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    let client = Forge::new(ApiBase::from_host_or_url(&bench.url).unwrap(), jwt).unwrap();
    assert!(matches!(client.check().await.unwrap_err(), ForgeError::Unauthorized { .. }));
    let (status, _) = bench.call(Method::POST, "/api/v3/app-manifests/x/conversions", Some(json!({}))).await;
    assert_eq!(status, 404);
}
