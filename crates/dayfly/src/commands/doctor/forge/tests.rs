//! Checks of forges that answer as the tests demand.

use std::path::PathBuf;

use dayfly_forge::{ApiBase, AppKey, AppManifest, Credential, GithubApp, ScopeKind};
use serde_json::json;

use super::*;
use crate::config::{self, Surroundings};
use crate::test_forge::{Answer, TestForge, TestLab};

fn owner(scope: &str, principal: &str) -> Owner {
    Owner {
        scope: RunnerScope::parse(scope, principal).expect("a scope"),
        groups: Vec::new(),
        scale_sets: Vec::new(),
        jobs: false,
    }
}

/// Checks a forge at `url`, and returns the report as a person reads it.
async fn report(url: &str, token: &str, owners: Vec<Owner>) -> String {
    let base = ApiBase::from_host_or_url(url).expect("an address");
    let forge = Forge::new(base, Credential::token(token)).map_err(Failure::cannot);
    let subject = Subject { prefix: String::new(), forge, owners };
    text(&examine(&subject, Duration::from_secs(20)).await, url)
}

fn text(checks: &[Check], url: &str) -> String {
    let lines: Vec<String> = checks.iter().map(|check| super::super::shown(check, 24)).collect();
    let plain = anstream::adapter::strip_str(&lines.join("\n")).to_string();
    plain.replace(url, "http://forge")
}

fn ok(body: serde_json::Value) -> Answer {
    (200, Vec::new(), body)
}

fn refusal(status: u16, message: &str) -> Answer {
    (status, Vec::new(), json!({"message": message}))
}

/// Answers as GitHub does to a token with these scopes that may do everything.
fn generous(scopes: &'static str) -> impl Fn(&str) -> Answer {
    move |line| match line.trim_start_matches("GET /api/v3") {
        "/" => (200, vec![("x-oauth-scopes", scopes.to_owned())], json!({})),
        "/rate_limit" => ok(json!({"resources": {
            "core": {"limit": 5000, "used": 13, "remaining": 4987, "reset": 4_000_000_000_u64},
            "actions_runner_registration": {"limit": 10000, "used": 0, "remaining": 10000, "reset": 4_000_000_000_u64},
            "search": {"limit": 30, "used": 30, "remaining": 0, "reset": 4_000_000_000_u64},
        }})),
        "/repos/acme/app" | "/orgs/acme" => ok(json!({"archived": false, "disabled": false})),
        "/repos/acme/app/actions/permissions" => ok(json!({"enabled": true, "allowed_actions": "all"})),
        "/repos/acme/app/actions/runners?per_page=1" | "/orgs/acme/actions/runners?per_page=1" => {
            ok(json!({"total_count": 0, "runners": []}))
        }
        "/repos/acme/app/actions/runs?per_page=1" => ok(json!({"total_count": 0, "workflow_runs": []})),
        "/orgs/acme/actions/runner-groups?per_page=100" => ok(
            json!({"total_count": 1, "runner_groups": [{"id": 1, "name": "Default"}, {"id": 3, "name": "Big"}]}),
        ),
        _ => refusal(404, "Not Found"),
    }
}

#[tokio::test]
async fn a_token_that_may_do_everything_is_told_so_and_nothing_is_created() {
    let forge = TestForge::start(generous("repo, admin:org")).await;
    let scale_sets = vec![("Default".to_owned(), "a".to_owned())];
    let app = Owner { scale_sets, jobs: true, ..owner("repo", "acme/app") };
    let org = Owner { groups: vec!["big".to_owned()], ..owner("org", "acme") };
    insta::assert_snapshot!(report(&forge.url, "ghp_x", vec![app, org]).await);
    let requests = forge.requests();
    assert!(requests.len() > 8 && requests.iter().all(|line| line.starts_with("GET ")), "{requests:?}");
}

#[tokio::test]
async fn the_permission_that_a_fine_grained_token_lacks_is_named_with_its_place() {
    let forge = TestForge::start(|line| match line {
        "GET /api/v3/repos/acme/app/actions/runners?per_page=1" => (
            403,
            vec![("x-accepted-github-permissions", "administration=read".to_owned())],
            json!({"message": "Resource not accessible by personal access token"}),
        ),
        "GET /api/v3/" => ok(json!({})),
        line if line.contains("/actions/permissions") => {
            refusal(403, "Resource not accessible by personal access token")
        }
        line => generous("")(line),
    })
    .await;
    let app = Owner { jobs: true, ..owner("repo", "acme/app") };
    let scale_sets = vec![("Default".to_owned(), "a".to_owned())];
    let org = Owner { scale_sets, ..owner("org", "acme") };
    insta::assert_snapshot!(
        report(&forge.url, "github_pat_x", vec![app, org, owner("repo", "acme/gone")]).await
    );
}

#[tokio::test]
async fn the_scope_that_a_classic_token_lacks_is_named() {
    let forge = TestForge::start(|line| match line {
        "GET /api/v3/repos/acme/app" => ok(json!({"archived": true})),
        line if line.contains("/actions/runners") => refusal(403, "Must have admin rights to Repository."),
        line => generous("public_repo, admin:org, workflow")(line),
    })
    .await;
    let owners = vec![owner("repo", "acme/app"), owner("org", "acme"), owner("ent", "big")];
    insta::assert_snapshot!(report(&forge.url, "ghp_x", owners).await);
}

#[tokio::test]
async fn the_permission_that_an_app_lacks_is_named_and_the_rest_is_still_checked() {
    let lab = TestLab::start().await;
    let manifest = AppManifest {
        name: "dayfly".to_owned(),
        organization: None,
        uses: vec![ForgeUse::Runners(ScopeKind::Repository)],
        webhook: None,
    };
    let base = ApiBase::from_host_or_url(&lab.url).expect("an address");
    let anonymous = Forge::new(base.clone(), "").expect("a client");
    let created = anonymous.convert_manifest(&lab.code(&manifest).await).await.expect("an App");
    let report = async |reads_jobs: bool| {
        let key = AppKey::from_pem(created.pem.clone()).expect("a key");
        let scope = RunnerScope::parse("repo", "acme/app").expect("a scope");
        let app = GithubApp::new(&created.id.to_string(), key, vec![scope]).expect("an App");
        let app = if reads_jobs { app.reading_jobs() } else { app };
        let forge = Forge::new(base.clone(), Credential::app(app)).map_err(Failure::cannot);
        let owners = vec![Owner { jobs: reads_jobs, ..owner("repo", "acme/app") }];
        let subject = Subject { prefix: String::new(), forge, owners };
        let report = text(&examine(&subject, Duration::from_secs(20)).await, &lab.url);
        report.replace(&format!(" {} ", created.id), " ID ").replace(&format!("/{}", created.id), "/ID")
    };
    insta::assert_snapshot!(report(false).await);
    insta::assert_snapshot!(report(true).await);
}

#[tokio::test]
async fn a_forge_that_does_not_answer_or_refuses_the_token_ends_the_checks() {
    insta::assert_snapshot!(report("http://127.0.0.1:1", "ghp_x", vec![owner("repo", "acme/app")]).await);
    let forge = TestForge::start(|_| refusal(401, "Bad credentials")).await;
    insta::assert_snapshot!(report(&forge.url, "ghp_x", vec![owner("repo", "acme/app")]).await);
}

#[tokio::test]
async fn used_up_calls_and_unknown_groups_are_told() {
    let forge = TestForge::start(|line| match line {
        "GET /api/v3/rate_limit" => ok(json!({"resources": {
            "core": {"limit": 5000, "used": 4990, "remaining": 10, "reset": dayfly_host::clock::now_s() + 1790},
        }})),
        line => generous("admin:org")(line),
    })
    .await;
    let org = Owner { groups: vec!["Huge".to_owned()], ..owner("org", "acme") };
    insta::assert_snapshot!(report(&forge.url, "ghp_x", vec![org]).await);
}

#[test]
fn a_clock_that_differs_is_a_warning_and_one_that_runner_apps_refuse_is_an_error() {
    let clocks = [None, Some(0), Some(-20), Some(31), Some(-300), Some(301), Some(-90_000)];
    let lines = clocks.map(|ahead_s| {
        let Verdict { state, seen, .. } = clock(ahead_s);
        format!("{state:?}: {seen}")
    });
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_is_slow_does_not_hold_up_the_report() {
    let forge = TestForge::start(|line| {
        if line.ends_with("/rate_limit") {
            std::thread::sleep(Duration::from_secs(5));
        }
        generous("repo")(line)
    })
    .await;
    let base = ApiBase::from_host_or_url(&forge.url).expect("an address");
    let client = Forge::new(base, Credential::token("ghp_x")).map_err(Failure::cannot);
    let subject =
        Subject { prefix: "main: ".to_owned(), forge: client, owners: vec![owner("repo", "acme/app")] };
    let checks = examine(&subject, Duration::from_secs(3)).await;
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_ref()).collect();
    assert_eq!(names, ["main: forge", "main: clock", "main: credential", "main: time"]);
    assert_eq!(checks[3].state, CheckState::Missing);
}

#[test]
fn the_pools_of_a_file_are_checked_by_forge_and_owner() {
    let folder = tempfile::tempdir().expect("folder");
    let text = format!(
        r#"
        [forges.main]
        token_file = "{0}/no-token"
        [forges.lab]
        url = "http://127.0.0.1:1"
        token_file = "{0}/no-token"
        [pools.a]
        forge = "main"
        principal = "acme/app"
        demand = ["scale-set", "poll"]
        [pools.b]
        forge = "main"
        scope = "org"
        principal = "ACME"
        group = "Big"
        [pools.c]
        forge = "main"
        principal = "acme/app"
        [pools.d]
        forge = "lab"
        principal = "acme/app"
        "#,
        folder.path().display()
    );
    let around = Surroundings { is_this_host: false, size: None, guest_folder: PathBuf::from("/") };
    let config = config::parse("dayfly.toml", text.as_bytes(), &around).config.expect("good");
    let subjects = subject::of_config(&config);
    let prefixes: Vec<&str> = subjects.iter().map(|subject| subject.prefix.as_str()).collect();
    assert_eq!(prefixes, ["main: ", "lab: "]);
    let scale_sets = vec![("Default".to_owned(), "a".to_owned())];
    let app = Owner { scale_sets, jobs: true, ..owner("repo", "acme/app") };
    let org = Owner { groups: vec!["Big".to_owned()], ..owner("org", "ACME") };
    assert_eq!(subjects[0].owners, [app, org]);
    assert!(subjects[0].forge.as_ref().expect_err("no token").to_string().contains("no-token"));
}
