//! Runs workflows with the lab and a real runner app as a plain process, without any VM.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "lab_runner/entrypoint.rs"]
mod entrypoint;
#[path = "lab_runner/registration.rs"]
mod registration;
#[path = "lab_runner/stage.rs"]
mod stage;

use dayfly_lab::LabEventKind;
use dayfly_lab::workflow::Conclusion;
use stage::{Outcome, Stage};

const HELLO: &str = r#"
name: hello
on: workflow_dispatch
jobs:
  greet:
    runs-on: ubuntu-latest
    outputs:
      word: ${{ steps.speak.outputs.word }}
    steps:
      - name: speak
        id: speak
        run: |
          echo "hello from $(uname -s)"
          echo "word=dayfly" >> "$GITHUB_OUTPUT"
      - run: echo "a second step"
  answer:
    needs: greet
    runs-on: [self-hosted, linux]
    steps:
      - run: echo "heard ${{ needs.greet.outputs.word }}"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_run_one_after_the_other_and_pass_an_output_on() {
    let stage = Stage::set().await;
    let outcome = stage.run(HELLO).await;
    assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome}");
    assert_eq!(outcome.job("greet"), Some(Conclusion::Success));
    assert!(outcome.has_line("greet", "hello from Linux"), "{outcome}");
    assert!(outcome.has_line("answer", "heard dayfly"), "{outcome}");
    let order = |job: &str, text: &str| outcome.place_of_line(job, text).unwrap();
    assert!(order("greet", "a second step") < order("answer", "heard dayfly"));
    assert_eq!(outcome.step("greet", "speak"), Some("success".to_owned()), "{outcome}");

    // The log over REST consists of the lines of the live feed, each once and in the same order.
    let rest: Vec<String> = stage.log(&outcome, "greet").await;
    assert_eq!(rest, outcome.lines("greet"), "{outcome}");
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_fails_its_job_and_shows_its_exit_code() {
    let stage = Stage::set().await;
    let outcome = stage
        .run(
            r#"
on: push
jobs:
  break:
    runs-on: x
    steps:
      - run: |
          echo "about to fail"
          exit 42
      - run: echo "never said"
      - if: failure()
        run: echo "cleaning up"
  after:
    needs: break
    runs-on: x
    steps:
      - run: echo "never run"
"#,
        )
        .await;
    assert_eq!(outcome.conclusion, Conclusion::Failure, "{outcome}");
    assert_eq!(outcome.job("break"), Some(Conclusion::Failure));
    assert!(
        outcome
            .events
            .iter()
            .any(|event| matches!(&event.kind, LabEventKind::JobSkipped { name, .. } if name == "after"))
    );
    assert!(outcome.lines("break").iter().any(|line| line.contains("42")), "{outcome}");
    assert!(outcome.has_line("break", "cleaning up"), "{outcome}");
    assert!(!outcome.has_line("break", "never said"), "{outcome}");
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matrix_runs_each_of_its_combinations_and_needs_wait_for_all() {
    let stage = Stage::set().await;
    let outcome = stage
        .run(
            r#"
on: workflow_dispatch
jobs:
  square:
    strategy:
      matrix:
        n: [1, 2]
        include:
          - n: 3
            extra: yes-please
    runs-on: "runner-${{ matrix.n }}"
    steps:
      - run: echo "square $(( ${{ matrix.n }} * ${{ matrix.n }} )) ${{ matrix.extra }}"
  sum:
    needs: square
    runs-on: x
    steps:
      - run: echo "result ${{ needs.square.result }}"
"#,
        )
        .await;
    assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome}");
    for (name, line) in [
        ("square (1)", "square 1"),
        ("square (2)", "square 4"),
        ("square (3, yes-please)", "square 9 yes-please"),
    ] {
        assert!(outcome.lines(name).iter().any(|it| it.trim_end() == line), "{name}: {outcome}");
    }
    assert!(outcome.has_line("sum", "result success"), "{outcome}");
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_stops_its_busy_runner() {
    let stage = Stage::set().await;
    // `exec`, because github-act-runner 0.13.0 stops only the shell and then waits for whatever has its output open.
    let run = stage
        .start(
            r#"
on: workflow_dispatch
jobs:
  wait:
    runs-on: x
    steps:
      - run: |
          echo started
          exec sleep 300
"#,
        )
        .await;
    let started = std::time::Instant::now();
    let outcome = stage
        .follow(run, |event, forge| {
            let begun = matches!(&event.kind, LabEventKind::LogLine { line, .. } if line == "started");
            begun.then(|| {
                let forge = forge.clone();
                async move { assert!(forge.cancel_run("o", "r", run).await.unwrap()) }
            })
        })
        .await;
    assert_eq!(outcome.conclusion, Conclusion::Cancelled, "{outcome}");
    assert_eq!(outcome.job("wait"), Some(Conclusion::Cancelled), "{outcome}");
    assert!(started.elapsed().as_secs() < 120, "{outcome}");
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_added_masks_do_not_show() {
    let stage = Stage::set().await;
    stage.forge.put_secret("o", "r", "DEPLOY_KEY", "hunter2-and-more").await.unwrap();
    stage.forge.put_variable("o", "r", "GREETING", "salut").await.unwrap();
    let outcome = stage
        .run(
            r#"
on: workflow_dispatch
jobs:
  speak:
    runs-on: x
    env:
      KEY: ${{ secrets.DEPLOY_KEY }}
    steps:
      - run: |
          echo "key is $KEY, length ${#KEY}, ${{ vars.GREETING }}"
          echo "::add-mask::made-up-secret"
      - run: echo "now made-up-secret is hidden"
"#,
        )
        .await;
    assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome}");
    assert!(outcome.has_line("speak", "key is ***, length 16, salut"), "{outcome}");
    assert!(outcome.has_line("speak", "now *** is hidden"), "{outcome}");
    for line in outcome.lines("speak").into_iter().chain(stage.log(&outcome, "speak").await) {
        assert!(!line.contains("hunter2"), "{line}");
    }
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_runner_carry_environment_path_and_outputs_between_steps() {
    let stage = Stage::set().await;
    let outcome: Outcome = stage
        .run(
            r#"
on: workflow_dispatch
env:
  LEVEL: workflow
jobs:
  carry:
    runs-on: x
    env:
      LEVEL: job
    defaults:
      run:
        shell: bash
    steps:
      - id: one
        run: |
          echo "COLOUR=blue" >> "$GITHUB_ENV"
          mkdir -p "$PWD/tools"
          printf '#!/bin/sh\necho tool ran\n' > tools/mytool
          chmod +x tools/mytool
          echo "$PWD/tools" >> "$GITHUB_PATH"
          echo "shape=round" >> "$GITHUB_OUTPUT"
      - run: |
          echo "colour $COLOUR, shape ${{ steps.one.outputs.shape }}, level $LEVEL"
          mytool
      - env:
          LEVEL: step
        run: echo "level $LEVEL"
      - id: soft
        continue-on-error: true
        run: exit 3
      - run: echo "soft ${{ steps.soft.outcome }} ${{ steps.soft.conclusion }}"
"#,
        )
        .await;
    assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome}");
    for line in ["colour blue, shape round, level job", "tool ran", "level step", "soft failure success"] {
        assert!(outcome.has_line("carry", line), "{line}: {outcome}");
    }
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_several_pieces_comes_whole_and_in_order() {
    let stage = Stage::set().await;
    let outcome = stage
        .run(
            r#"
on: workflow_dispatch
jobs:
  long:
    runs-on: x
    steps:
      - run: for n in $(seq 1 60000); do echo "line $n of many, with some text to make it longer than it would be"; done
      - run: echo "after it"
"#,
        )
        .await;
    assert_eq!(outcome.conclusion, Conclusion::Success);
    let lines = outcome.lines("long");
    let numbers: Vec<usize> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("line ")?.split_once(" of many")?.0.parse().ok())
        .collect();
    assert_eq!(numbers.len(), 60_000);
    assert!(numbers.is_sorted(), "the lines arrive in order");
    assert_eq!(stage.log(&outcome, "long").await, lines);
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_runner_ends_when_its_registration_is_deleted() {
    let stage = Stage::set().await;
    let seconds = stage.delete_idle_runner_and_wait_for_its_end().await;
    assert!(seconds < 60, "it took {seconds} s");
    stage.nothing_is_left().await;
}
