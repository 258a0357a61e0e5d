//! Tests of the remarks on refused files, and property tests.

use proptest::prelude::*;

use super::super::token::TokenKind;
use super::parse;

/// Returns a workflow with these keys in its only job.
fn with_job(job: &str) -> String {
    format!("on: push\njobs:\n  build:\n    runs-on: linux\n{job}")
}

#[track_caller]
fn refusal(text: &str) -> String {
    match parse("ci.yml", text) {
        Ok(workflow) => panic!("accepted: {workflow:?}"),
        Err(diagnostics) => diagnostics.to_string(),
    }
}

const STEPS: &str = "    steps: [{run: echo}]\n";

#[test]
fn a_whole_workflow_is_read() {
    let text = include_str!("tests/whole.yml");
    let workflow = parse("ci.yml", text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(workflow.display_name(), "CI");
    assert_eq!(workflow.default_trigger().event, "workflow_dispatch");
    assert_eq!(workflow.default_trigger().inputs.len(), 3);
    assert_eq!(workflow.jobs.keys().collect::<Vec<_>>(), ["build", "test"]);
    assert_eq!(workflow.jobs["test"].needs, ["build"]);
    assert_eq!(workflow.jobs["build"].condition.expr.source(), "success() && (github.ref != 'refs/heads/x')");
    let step = &workflow.jobs["build"].steps[0];
    assert_eq!(step.condition.expr.source(), "success()");
    let TokenKind::Expression(run) = &step.run.kind else { panic!("{:?}", step.run) };
    assert_eq!(run.source(), "format('echo {0}\necho {{1}}\n', matrix.os)");
    let TokenKind::Expression(label) = &step.label.kind else { panic!("{:?}", step.label) };
    assert_eq!(label.source(), "format('Run echo {0}', matrix.os)");
    insta::assert_snapshot!(workflow.notices[0], @"ci.yml:1:1: accepted without effect: permissions (line 11), concurrency (line 12), jobs.build.environment (line 22); accepted for display only: name (line 1), run-name (line 2)");
    assert_eq!(workflow.notices.len(), 1);
}

#[test]
fn a_vector_that_is_probably_a_filter_is_noticed() {
    let strategy = "    strategy: {matrix: {os: [a, b], Include: [{os: a}], exclude: [{os: b}]}}\n";
    let workflow = parse("ci.yml", &with_job(&format!("{strategy}{STEPS}"))).unwrap();
    let notices: Vec<String> = workflow.notices.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(notices.join("\n"), @r#"ci.yml:5:37: jobs.build.strategy.matrix: "Include" is a vector of the matrix, because its filters are written in lower case; did you mean "include"?"#);
}

#[test]
fn the_label_of_a_step_is_its_first_line_without_secrets() {
    let label = |run: &str| {
        let workflow = parse("ci.yml", &with_job(&format!("    steps:\n      - run: {run}\n"))).unwrap();
        match &workflow.jobs["build"].steps[0].label.kind {
            TokenKind::String(text) => text.clone(),
            TokenKind::Expression(expr) => expr.source().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(label("|\n\n          make\n          make install"), "Run make");
    assert_eq!(label("echo ${{ github.ref }} {}"), "format('Run echo {0} {{}}', github.ref)");
    assert_eq!(label("login ${{ secrets.TOKEN }} --now"), "Run login");
    assert_eq!(label("|\n          echo ${{\n            github.ref }}"), "Run echo");
}

#[test]
fn unknown_keys_are_named_with_their_place_and_what_was_meant() {
    insta::assert_snapshot!(refusal(&with_job("    stepz: []\n    steps: [{run: x, shel: bash}]\n    need: a\n")), @r#"
    ci.yml:5:5: jobs.build: unknown key "stepz" (did you mean "steps"?)
    ci.yml:6:22: jobs.build.steps[0]: unknown key "shel" (did you mean "shell"?)
    ci.yml:7:5: jobs.build: unknown key "need" (did you mean "needs"?)
    "#);
    insta::assert_snapshot!(refusal("on: push\nJobs: {}\njobs: {}\n"), @r#"ci.yml:3:1: the key "jobs" appears twice in this mapping (first at 2:1)"#);
}

#[test]
fn what_is_not_carried_out_yet_is_refused_by_name() {
    insta::assert_snapshot!(refusal(&with_job("    container: debian\n    services: {db: {image: x}}\n    steps:\n      - uses: actions/checkout@v4\n        with: {a: b}\n      - run: x\n")), @r#"
    ci.yml:5:5: jobs.build: "container" is not yet supported
    ci.yml:6:5: jobs.build: "services" is not yet supported
    ci.yml:8:9: jobs.build.steps[0]: "uses" is not yet supported
    ci.yml:9:9: jobs.build.steps[0]: "with" is not yet supported
    "#);
    insta::assert_snapshot!(refusal(&with_job("    steps:\n      - {id: a, run: x, background: true}\n      - wait: a\n      - wait-all:\n      - cancel: a\n      - parallel: [{run: x}, {run: y}]\n")), @r#"
    ci.yml:6:25: jobs.build.steps[0]: "background" is not yet supported
    ci.yml:7:9: jobs.build.steps[1]: "wait" is not yet supported
    ci.yml:8:9: jobs.build.steps[2]: "wait-all" is not yet supported
    ci.yml:9:9: jobs.build.steps[3]: "cancel" is not yet supported
    ci.yml:10:9: jobs.build.steps[4]: "parallel" is not yet supported
    "#);
    insta::assert_snapshot!(refusal("on: push\njobs:\n  call:\n    uses: ./x.yml\n    secrets: inherit\n"), @r#"
    ci.yml:4:5: jobs.call: "uses" is not yet supported
    ci.yml:5:5: jobs.call: "secrets" is not yet supported
    "#);
}

#[test]
fn a_file_that_is_no_workflow_gets_one_sentence() {
    insta::assert_snapshot!(refusal(""), @r#"ci.yml: the file is empty; a workflow has the keys "on" and "jobs""#);
    insta::assert_snapshot!(refusal("just text"), @r#"ci.yml:1:1: this is not a workflow: it is the text "just text", not a mapping with the keys "on" and "jobs""#);
    insta::assert_snapshot!(refusal("services:\n  db: {image: x}\n"), @r#"ci.yml:1:1: this is not a workflow: it has neither the key "on" nor the key "jobs""#);
    insta::assert_snapshot!(refusal("on: push\n"), @r#"ci.yml:1:1: the key "jobs" is missing"#);
    insta::assert_snapshot!(refusal("on: push\njobs: {}\n"), @"ci.yml:2:7: jobs: a workflow needs at least one job");
    insta::assert_snapshot!(refusal("a: [1\nb: 2"), @"ci.yml:2:2: not valid YAML: illegal placement of ':' indicator");
    insta::assert_snapshot!(refusal("on: push\n---\non: push\n"), @"ci.yml:2:1: a second document begins here; a workflow file holds one");
    assert!(refusal(&"#".repeat(1024 * 1024 + 1)).contains("may have at most 1048576"));
}

#[test]
fn jobs_and_steps_must_be_complete() {
    insta::assert_snapshot!(refusal("on: push\njobs:\n  a: {}\n  b: {runs-on: x, steps: []}\n  c: {runs-on: [], steps: [{name: x}]}\n  1d: {}\n  e: text\n"), @r#"
    ci.yml:3:3: jobs.a: "runs-on" is missing
    ci.yml:3:3: jobs.a: "steps" is missing
    ci.yml:4:26: jobs.b.steps: a job needs at least one step
    ci.yml:5:16: jobs.c.runs-on: must name at least one label
    ci.yml:5:28: jobs.c.steps[0]: "run" is missing
    ci.yml:6:3: jobs: bad id "1d": an id begins with a letter or _, goes on with letters, digits, - and _, and has at most 100 characters
    ci.yml:7:6: jobs.e: must be a mapping, but is the text "text"
    "#);
    insta::assert_snapshot!(refusal(&with_job("    steps:\n      - {id: a, run: x}\n      - {id: A, run: x}\n      - {id: __b, run: x}\n      - {id: 'c d', run: x}\n      - run:\n      - 5\n")), @r#"
    ci.yml:8:14: jobs.build.steps[2].id: bad id "__b": ids that begin with __ are reserved
    ci.yml:9:14: jobs.build.steps[3].id: bad id "c d": an id begins with a letter or _, goes on with letters, digits, - and _, and has at most 100 characters
    ci.yml:10:12: jobs.build.steps[4].run: must not be empty
    ci.yml:11:9: jobs.build.steps[5]: must be a mapping, but is the number 5
    "#);
}

#[test]
fn an_id_is_given_once_whatever_its_case() {
    let text = with_job("    steps:\n      - {id: a, run: x}\n      - {id: A, run: x}\n");
    insta::assert_snapshot!(refusal(&text), @r#"ci.yml:7:9: jobs.build.steps[1].id: the id "A" is taken (by the step at 6:9)"#);
}

#[test]
fn needs_must_exist_and_form_no_circle() {
    let job =
        |id: &str, needs: &str| format!("  {id}: {{runs-on: x, needs: {needs}, steps: [{{run: x}}]}}\n");
    let text =
        ["on: push\njobs:\n", &job("a", "[c]"), &job("b", "a"), &job("c", "[b]"), &job("d", "[d, bb, zzz]")]
            .concat();
    insta::assert_snapshot!(refusal(&text), @r#"
    ci.yml:3:3: jobs.a.needs: the jobs need each other: a -> c -> b -> a
    ci.yml:6:27: jobs.d.needs: a job cannot need itself
    ci.yml:6:30: jobs.d.needs: there is no job "bb" (did you mean "b"?)
    ci.yml:6:34: jobs.d.needs: there is no job "zzz"
    "#);
    let text = ["on: push\njobs:\n", &job("a", "[c]"), &job("b", "a"), &job("c", "[B]")].concat();
    insta::assert_snapshot!(refusal(&text), @"ci.yml:3:3: jobs.a.needs: the jobs need each other: a -> c -> b -> a");
}

#[test]
fn expressions_are_checked_where_they_stand() {
    insta::assert_snapshot!(refusal(&with_job(
        "    if: secrets.X == 'a'\n    name: ${{ env.A }}\n    env: {A: '${{ steps.a }}', B: '${{ hashFiles(1) }}'}\n    timeout-minutes: ${{ runner.os }}\n    outputs: {o: '${{ nope.x }}'}\n    steps:\n      - if: secrets.X\n        run: echo ${{ github.ref ${{ foo.bar }}\n      - run: echo ${{ success() }} ${{ toJson(github }}\n        shell: ${{ matrix.shell }}\n"
    )), @r#"
    ci.yml:5:9: jobs.build.if: unknown or unavailable context "secrets" (available here: github, needs, vars, inputs), at position 1 of "secrets.X == 'a'"
    ci.yml:6:11: jobs.build.name: unknown or unavailable context "env" (available here: github, needs, strategy, matrix, vars, inputs), at position 1 of "env.A"
    ci.yml:7:14: jobs.build.env.A: unknown or unavailable context "steps" (available here: github, needs, strategy, matrix, vars, secrets, inputs), at position 1 of "steps.a"
    ci.yml:7:35: jobs.build.env.B: the function "hashFiles" cannot be used here, at position 1 of "hashFiles(1)"
    ci.yml:8:22: jobs.build.timeout-minutes: unknown or unavailable context "runner" (available here: github, needs, strategy, matrix, vars, inputs), at position 1 of "runner.os"
    ci.yml:9:18: jobs.build.outputs.o: unknown or unavailable context "nope" (available here: github, needs, strategy, matrix, job, runner, env, vars, secrets, steps, inputs), at position 1 of "nope.x"
    ci.yml:11:13: jobs.build.steps[0].if: unknown or unavailable context "secrets" (available here: github, needs, strategy, matrix, job, runner, env, vars, steps, inputs), at position 1 of "secrets.X"
    ci.yml:12:14: jobs.build.steps[0].run: unexpected symbol "$", at position 12 of "github.ref ${{ foo.bar"
    ci.yml:13:14: jobs.build.steps[1].run: unexpected end of expression, expected ), at position 13 of "toJson(github"
    ci.yml:14:16: jobs.build.steps[1].shell: expressions cannot be used here
    "#);
}

#[test]
fn values_must_be_of_their_type() {
    insta::assert_snapshot!(refusal(&with_job(
        "    timeout-minutes: soon\n    continue-on-error: 1\n    strategy: {fail-fast: maybe, max-parallel: 0, matrix: {os: linux}}\n    env: [A]\n    defaults: {run: {shell: zsh}}\n    steps:\n      - {run: [x], timeout-minutes: -1}\n      - {run: x, shell: 5, env: {A: [1]}, working-directory: ''}\n"
    )), @r#"
    ci.yml:5:22: jobs.build.timeout-minutes: must be a number above 0, but is the text "soon"
    ci.yml:6:24: jobs.build.continue-on-error: must be true or false, but is the number 1
    ci.yml:7:27: jobs.build.strategy.fail-fast: must be true or false, but is the text "maybe"
    ci.yml:7:48: jobs.build.strategy.max-parallel: must be a number above 0, but is the number 0
    ci.yml:7:59: jobs.build.strategy.matrix: the matrix vector "os" must be a list of values
    ci.yml:8:10: jobs.build.env: must be a mapping, but is a list
    ci.yml:9:29: jobs.build.defaults.run.shell: unknown shell "zsh": use one of bash, sh, pwsh, python, cmd, powershell or a command with {0} for the script
    ci.yml:11:15: jobs.build.steps[0].run: must be text, but is a list
    ci.yml:11:37: jobs.build.steps[0].timeout-minutes: must be a number above 0, but is the number -1
    ci.yml:12:25: jobs.build.steps[1].shell: must be the name of a shell, but is the number 5
    ci.yml:12:37: jobs.build.steps[1].env.A: must be text, but is a list
    ci.yml:12:62: jobs.build.steps[1].working-directory: must not be empty
    "#);
    insta::assert_snapshot!(refusal(&with_job("    strategy: {matrix: {a: []}}\n    steps: [{run: x}]\n")), @r#"ci.yml:5:24: jobs.build.strategy.matrix: the matrix vector "a" holds no values"#);
}

#[test]
fn triggers_and_inputs_are_checked() {
    insta::assert_snapshot!(refusal(&format!("on: [push, pull-request, 5]\njobs:\n  a:\n    runs-on: x\n{STEPS}")), @r#"
    ci.yml:1:12: on: unknown event "pull-request" (did you mean "pull_request"?)
    ci.yml:1:26: on: must be the name of an event, but is the number 5
    "#);
    insta::assert_snapshot!(refusal(&format!(
        "on:\n  push: {{branchs: [main]}}\n  workflow_dispatch:\n    inputs:\n      a: {{type: choice}}\n      b: {{type: bool}}\n      c: {{type: choice, options: [x], default: y}}\n      d: {{requird: true}}\n      e: {{required: 'yes'}}\njobs:\n  a:\n    runs-on: x\n{STEPS}"
    )), @r#"
    ci.yml:2:10: on.push: unknown key "branchs" (did you mean "branches"?)
    ci.yml:5:7: on.workflow_dispatch.inputs.a: an input of the type choice needs "options"
    ci.yml:6:17: on.workflow_dispatch.inputs.b: unknown input type "bool" (known: string, boolean, number, choice, environment)
    ci.yml:7:10: on.workflow_dispatch.inputs.c.default: is "y", but must be one of x
    ci.yml:8:11: on.workflow_dispatch.inputs.d: unknown key "requird" (did you mean "required"?)
    ci.yml:9:21: on.workflow_dispatch.inputs.e.required: must be true or false, but is the text "yes"
    "#);
}

#[test]
fn newer_keys_of_github_that_need_nothing_of_the_lab_are_accepted() {
    let text = format!(
        "description: Builds it\non:\n  schedule: [{{cron: '0 5 * * *', timezone: Europe/Berlin}}]\n  workflow_dispatch: {{inputs: {{a: {{type: choice, options: ['', x], default: ''}}}}}}\nconcurrency: {{group: a, queue: max}}\njobs:\n  a:\n    runs-on: x\n    environment: {{name: prod, deployment: false}}\n{STEPS}"
    );
    assert!(parse("ci.yml", &text).is_ok(), "{:?}", parse("ci.yml", &text));
    insta::assert_snapshot!(refusal(&format!("description: [a]\n{text}").replace("description: B", "name: B")), @"ci.yml:1:14: description: must be text, but is a list");
}

#[test]
fn a_workflow_has_at_most_25_inputs() {
    let text = |count: usize| {
        let inputs: String = (0..count).map(|number| format!("      i{number}:\n")).collect();
        format!("on:\n  workflow_dispatch:\n    inputs:\n{inputs}jobs:\n  a:\n    runs-on: x\n{STEPS}")
    };
    assert_eq!(parse("ci.yml", &text(25)).unwrap().triggers[0].inputs.len(), 25);
    insta::assert_snapshot!(refusal(&text(26)), @"ci.yml:4:7: on.workflow_dispatch.inputs: has 26 inputs; a workflow may have at most 25");
}

#[test]
fn aliases_work_and_are_bounded() {
    let text = "on: push\njobs:\n  a: &job\n    runs-on: x\n    steps: &steps [{run: echo}]\n  b: *job\n  c: {runs-on: y, steps: *steps}\n";
    let workflow = parse("ci.yml", text).unwrap();
    assert_eq!(workflow.jobs["b"].steps, workflow.jobs["c"].steps);

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
    }
    assert!(
        refusal(&bomb).contains("aliases repeat more than")
            || refusal(&bomb).contains("anchors hold more than")
    );
    let long = format!("on: &a {}\njobs: [{}]\n", "x".repeat(500_000), "*a, ".repeat(1000));
    assert!(refusal(&long).contains("aliases repeat more than"));
    assert!(refusal("on: &a [*a]\n").contains("inside the value that it repeats"));
    assert!(refusal("on: *nobody\n").contains("not valid YAML"));
    assert!(refusal(&format!("on: {}", "[".repeat(60))).contains("nested more than 50 deep"));
    // At this depth saphyr-parser refuses the text before the lab's own check.
    insta::assert_snapshot!(refusal(&format!("on: {}", "[".repeat(100_000))), @"ci.yml:1:260: not valid YAML: recursion limit exceeded");
}

#[test]
fn unquoted_values_follow_yamls_core_schema() {
    let text = format!(
        "on: push\nenv: {{a: yes, b: 1.10, c: 0x1F, d: ~, e: True, f: '1.10', g: 0o17, h: 1e3, i: !!str 5}}\njobs:\n  a:\n    runs-on: x\n{STEPS}"
    );
    let workflow = parse("ci.yml", &text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let Some(TokenKind::Mapping(entries)) = workflow.env.map(|env| env.kind) else { panic!("no env") };
    let texts: Vec<_> = entries
        .iter()
        .map(|(_, value)| match &value.kind {
            TokenKind::String(text) => text.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["yes", "1.1", "31", "", "true", "1.10", "15", "1000", "5"]);
}

/// Generates text that is close to a workflow.
fn workflow_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("on"),
        Just("jobs"),
        Just("push"),
        Just("a"),
        Just("runs-on"),
        Just("steps"),
        Just("run"),
        Just("if"),
        Just("needs"),
        Just("strategy"),
        Just("matrix"),
        Just("include"),
        Just("env"),
        Just("defaults"),
        Just("workflow_dispatch"),
        Just("inputs"),
        Just(": "),
        Just(":\n"),
        Just("\n"),
        Just("\n  "),
        Just("\n    "),
        Just("\n      - "),
        Just("- "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(", "),
        Just("&x "),
        Just("*x"),
        Just("${{ "),
        Just(" }}"),
        Just("github.ref"),
        Just("'"),
        Just("\""),
        Just("|\n"),
        Just("5"),
        Just("true"),
        Just("~"),
        Just("!!str "),
        Just("# "),
        Just("---\n"),
        Just("\t"),
        Just("é"),
        Just("<<: "),
    ];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![workflow_like(), any::<String>()]) {
        if let Err(diagnostics) = parse("ci.yml", &text) {
            prop_assert!(!diagnostics.remarks().is_empty());
        }
    }

    #[test]
    fn a_workflow_with_a_change_in_it_never_panics(at in any::<prop::sample::Index>(), cut in 0_usize..40, patch in workflow_like()) {
        let whole = include_str!("tests/whole.yml");
        let start = at.index(whole.len());
        let end = (start + cut).min(whole.len());
        let text = format!("{}{patch}{}", &whole[..start], &whole[end..]);
        let _ = parse("ci.yml", &text);
    }
}
