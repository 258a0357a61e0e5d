use std::sync::Arc;

use jiff::Timestamp;

use super::super::run::{Run, RunRequest, tests::github};
use super::*;
use crate::expression::Value;
use crate::workflow::parse;

fn service() -> Service {
    Service {
        server_url: "http://lab:8080".to_owned(),
        run_service_url: "http://lab:8080/run/".to_owned(),
        results_url: "http://lab:8080/results/".to_owned(),
        feed_stream_url: "ws://lab:8080/feed".to_owned(),
        job_token: "header.payload.signature".into(),
        github_token: "token-of-the-job".into(),
        plan_id: "00000000-0000-4000-8000-000000000001".to_owned(),
        timeline_id: "00000000-0000-4000-8000-000000000002".to_owned(),
        job_id: "00000000-0000-4000-8000-000000000003".to_owned(),
        request_id: 9,
        locked_until: Timestamp::UNIX_EPOCH,
        step_ids: (4..8).map(|n| format!("00000000-0000-4000-8000-{n:012}")).collect(),
        secrets: IndexMap::from([("TOKEN".to_owned(), "s3cret+value".into())]),
        billing_owner_id: String::new(),
    }
}

fn run(text: &str) -> Run {
    let workflow = parse("ci.yml", text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let inputs = Value::from_json(&json!({ "count": 3, "flag": true }));
    let vars = IndexMap::from([("TOP".to_owned(), "top".to_owned())]);
    Run::start(Arc::new(workflow), RunRequest { github: github(), inputs, vars }, Timestamp::UNIX_EPOCH).0
}

fn message(text: &str) -> Json {
    let run = run(text);
    job_message(run.workflow(), &run, JobIndex(0), &service())
}

#[test]
fn debugging_output_shows_no_secret() {
    let text = format!("{:?}", service());
    for secret in ["header.payload", "token-of-the-job", "s3cret"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.contains("TOKEN"), "names are no secrets: {text}");
}

#[test]
fn a_whole_job_becomes_this_message() {
    let message = message(include_str!("../parse/tests/whole.yml"));
    insta::assert_json_snapshot!(message);
}

#[test]
fn the_github_context_leads_to_where_the_runner_reached_the_server() {
    let run = run("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: x\n");
    let service = Service { server_url: "http://10.9.8.7:1".to_owned(), ..service() };
    let message = job_message(run.workflow(), &run, JobIndex(0), &service);
    let github = message["contextData"]["github"]["d"].as_array().unwrap();
    let value = |key: &str| github.iter().find(|entry| entry["k"] == key).unwrap()["v"].clone();
    assert_eq!(value("server_url"), "http://10.9.8.7:1");
    assert_eq!(value("api_url"), "http://10.9.8.7:1/api/v3");
}

#[test]
fn defaults_are_written_into_steps_and_the_nearest_wins() {
    let message = message(
        "on: push\ndefaults: {run: {shell: sh, working-directory: top}}\njobs:\n  a:\n    runs-on: x\n    defaults: {run: {working-directory: job}}\n    steps:\n      - run: x\n      - {run: x, shell: bash, working-directory: own}\n",
    );
    let inputs = |step: usize| message["steps"][step]["inputs"]["map"].as_array().unwrap()[1..].to_vec();
    assert_eq!(
        inputs(0),
        [json!({"key": "shell", "value": "sh"}), json!({"key": "workingDirectory", "value": "job"})]
    );
    assert_eq!(
        inputs(1),
        [json!({"key": "shell", "value": "bash"}), json!({"key": "workingDirectory", "value": "own"})]
    );
    assert_eq!(message["defaults"].as_array().unwrap().len(), 2);
}

#[test]
fn a_shell_is_text_if_its_contexts_are_known_before_the_job_runs() {
    let shell = |default: &str| {
        let text = format!(
            "on: push\nenv: {{SH: sh}}\njobs:\n  a:\n    runs-on: x\n    strategy: {{matrix: {{shell: [bash]}}}}\n    defaults: {{run: {{shell: \"{default}\"}}}}\n    steps:\n      - run: x\n"
        );
        message(&text)["steps"][0]["inputs"]["map"][1]["value"].clone()
    };
    assert_eq!(shell("${{ matrix.shell }}"), "bash");
    assert_eq!(shell("${{ matrix.shell }} -x {0}"), "bash -x {0}");
    assert_eq!(shell("${{ inputs.flag && vars.TOP }}"), "top");
    assert_eq!(shell("${{ env.SH }}")["expr"], "env.SH");
}

#[test]
fn a_template_is_never_null_and_text_stays_text() {
    let message = message(
        "on: push\nenv: {A: , B: 1.50, C: true}\njobs:\n  a: {runs-on: x, steps: [{run: x, timeout-minutes: 0.2}]}\n",
    );
    assert_eq!(
        message["environmentVariables"][0]["map"],
        json!([{"key": "A", "value": ""}, {"key": "B", "value": "1.5"}, {"key": "C", "value": "true"}])
    );
    assert_eq!(message["steps"][0]["timeoutInMinutes"], json!(1));
}

#[test]
fn steps_without_an_id_are_named_apart() {
    let message =
        message("on: push\njobs:\n  a: {runs-on: x, steps: [{run: x}, {run: y, id: z}, {run: w}]}\n");
    let names: Vec<_> = message["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["contextName"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["__run", "z", "__run_2"]);
}

#[test]
fn a_job_that_the_run_never_had_has_no_message() {
    let run = run("on: push\njobs:\n  a: {runs-on: x, steps: [{run: x}]}\n");
    assert_eq!(job_message(run.workflow(), &run, JobIndex(9), &service()), Json::Null);
}
