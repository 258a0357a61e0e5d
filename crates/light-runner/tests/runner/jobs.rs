//! Jobs that end by themselves.

use dayfly_light_runner::Exit;

use crate::stage::{Runner, Stage, one_job};

const TWO: &str = r##"
on: workflow_dispatch
env: { LEVEL: workflow }
jobs:
  greet:
    runs-on: x
    env: { WHO: "${{ github.repository }}" }
    outputs:
      word: ${{ steps.speak.outputs.word }}
    steps:
      - name: speak
        id: speak
        env: { MINE: "${{ env.WHO }}!" }
        run: |
          echo "hello $MINE $LEVEL $INHERITED"
          echo "word=dayfly" >>"$GITHUB_OUTPUT"
          echo "LATER=kept" >>"$GITHUB_ENV"
          echo "$RUNNER_TEMP" >>"$GITHUB_PATH"
          printf '#!/bin/sh\necho from a tool\n' >"$RUNNER_TEMP/tool"; chmod +x "$RUNNER_TEMP/tool"
          echo "# Summary" >>"$GITHUB_STEP_SUMMARY"
      - run: echo "later $LATER in $(basename "$PWD")"; tool
      - if: ${{ steps.speak.outputs.word != 'dayfly' }}
        run: echo never
  answer:
    needs: greet
    runs-on: x
    steps:
      - run: echo "heard ${{ needs.greet.outputs.word }}"
"##;

#[tokio::test]
async fn two_jobs_run_one_after_the_other_and_pass_an_output_on() {
    let mut stage = Stage::set().await;
    let run = stage.start(TWO).await;
    let (first, second) = (stage.runner("one").await, stage.runner("two").await);
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "success", "{outcome:?}");
    for line in ["hello o/r! workflow yes", "later kept in r", "from a tool", "heard dayfly"] {
        assert!(outcome.has_line(line), "{line}: {:?}", outcome.lines());
    }
    let steps = outcome.steps("greet");
    assert_eq!((steps[0], steps[1]), (("Set up job", "success"), ("speak", "success")));
    assert_eq!((steps[3].1, steps[4]), ("skipped", ("Complete job", "success")));
    let log = stage.log(&outcome, "greet").await;
    assert!(log.contains("Z hello o/r! workflow yes\n") && !log.contains("never\n"), "{log}");
    for runner in [first, second] {
        let (exit, lines) = runner.exit().await;
        assert_eq!(exit, Exit::Success);
        assert!(
            lines.contains("√ Connected to GitHub") && lines.contains("Z: Listening for Jobs"),
            "{lines}"
        );
        assert!(lines.contains(" completed with result: Succeeded"), "{lines}");
    }
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_step_that_fails_fails_its_job_and_is_annotated() {
    let mut stage = Stage::set().await;
    let steps = r#"
      - run: |
          echo "::warning file=a.c,line=3,col=2,title=T::careful"
          echo "::notice::only in the log"
      - run: exit 42
        continue-on-error: true
      - run: exit 43
      - run: echo never
      - if: failure()
        run: echo cleaning up
      - if: always()
        run: echo junk >>"$GITHUB_OUTPUT"
"#;
    let run = stage.start(&one_job(steps)).await;
    let runner = stage.runner("one").await;
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "failure", "{outcome:?}");
    assert_eq!(
        outcome.annotations(),
        [
            ("warning", "careful", Some(2)),
            ("failure", "Process completed with exit code 42.", Some(3)),
            ("failure", "Process completed with exit code 43.", Some(4)),
            ("failure", "Unable to process file command 'output' successfully.", Some(7)),
            ("failure", "Invalid format 'junk'", Some(7)),
        ]
    );
    let conclusions: Vec<&str> = outcome.steps("a").iter().map(|step| step.1).collect();
    assert_eq!(
        conclusions,
        ["success", "success", "success", "failure", "skipped", "success", "failure", "success"]
    );
    assert!(outcome.has_line("##[error]Process completed with exit code 43."), "{:?}", outcome.lines());
    assert!(runner.exit().await.1.contains("Job a completed with result: Failed"));
}

#[tokio::test]
async fn masks_of_secrets_and_of_commands_hide_texts_everywhere() {
    let mut stage = Stage::set().await;
    stage.forge.put_secret("o", "r", "KEY", "hunter2").await.unwrap();
    let steps = r#"
      - name: tell
        run: |
          echo "::add-mask::swordfish"
          echo "a sword""fish and ${{ secrets.KEY }}"
          echo "::error::no sword""fish here"
"#;
    let run = stage.start(&one_job(steps)).await;
    let runner = stage.runner("one").await;
    let outcome = stage.end_of(run).await;
    assert!(outcome.has_line("a *** and ***"), "{:?}", outcome.lines());
    assert_eq!(outcome.annotations()[0].1, "no *** here");
    // The lab masks the secret itself, but only the runner knows the mask.
    let log = stage.log(&outcome, "a").await;
    assert!(!log.contains("hunter2") && log.contains("no *** here"), "{log}");
    assert_eq!(runner.exit().await.0, Exit::Success);
}

#[tokio::test]
async fn three_thousand_lines_come_once_and_in_order() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: for i in $(seq 1 3000); do echo \"line $i\"; done\n")).await;
    let _runner = stage.runner("one").await;
    let outcome = stage.end_of(run).await;
    let lines: Vec<&str> = outcome.lines().into_iter().filter(|line| line.starts_with("line ")).collect();
    let expected: Vec<String> = (1..=3000).map(|number| format!("line {number}")).collect();
    assert_eq!(lines, expected);
    assert!(stage.log(&outcome, "a").await.contains("Z line 3000\n"));
}

#[tokio::test]
async fn a_log_of_many_pieces_arrives_whole() {
    let mut stage = Stage::set().await;
    let line = "x".repeat(1000);
    let script = format!("      - run: yes {line} | head -n 5000; echo the end\n");
    let run = stage.start(&one_job(&script)).await;
    let _runner = stage.runner("one").await;
    let outcome = stage.end_of(run).await;
    assert_eq!(outcome.conclusion, "success");
    let log = stage.log(&outcome, "a").await;
    assert_eq!(log.lines().filter(|text| text.ends_with(&line) && !text.contains("yes")).count(), 5000);
    assert!(outcome.has_line("the end"));
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_stopped() {
    let mut stage = Stage::set().await;
    // The lab rounds up to whole minutes, so the step gives itself a limit by an expression.
    let steps =
        "      - name: nap\n        run: sleep 60\n        timeout-minutes: ${{ fromJSON('0.01') }}\n";
    let run = stage.start(&one_job(steps)).await;
    let _runner = stage.runner("one").await;
    let outcome = stage.end_of(run).await;
    assert_eq!((outcome.conclusion.as_str(), outcome.steps("a")[1]), ("failure", ("nap", "failure")));
    assert_eq!(outcome.annotations()[0].1, "The action 'nap' has timed out after 0.01 minutes.");
}

/// At GitHub the poll that is open when the job ends gets no message. When the lab answered it with an error, the app
/// reported successful jobs as cancelled.
#[tokio::test]
async fn the_poll_that_is_open_when_the_job_ends_does_not_cancel_it() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: echo short\n")).await;
    for number in 0..5 {
        let runner = stage.runner(&format!("runner-{number}")).await;
        let run = if number == 0 { run } else { stage.start(&one_job("      - run: echo short\n")).await };
        assert_eq!(stage.end_of(run).await.conclusion, "success");
        let (exit, lines) = runner.exit().await;
        assert!(lines.contains("Job a completed with result: Succeeded"), "{lines}");
        assert!(!lines.contains("no longer exists") && exit == Exit::Success, "{lines}");
    }
}

#[tokio::test]
async fn a_slow_runner_runs_its_job_as_well() {
    let mut stage = Stage::set().await;
    let run = stage.start(&one_job("      - run: echo slow\n")).await;
    let slowness = std::time::Duration::from_millis(100);
    let settings = dayfly_light_runner::Settings { slowness, ..stage.settings() };
    let began = std::time::Instant::now();
    let runner = Runner::start(stage.config("slow").await, settings);
    assert_eq!(stage.end_of(run).await.conclusion, "success");
    assert!(began.elapsed() > 5 * slowness, "{:?}", began.elapsed());
    assert_eq!(runner.exit().await.0, Exit::Success);
}
