//! Traces of real jobs, as a collector gets them.

use dayfly_e2e::lab::LabProcess;
use dayfly_traces::test_collector::{Answer, TestCollector, attribute};
use rustix::process::Signal;

use crate::{Config, PATIENCE, jobs, plain_pool, scaled_down};

fn traced(collector: &str) -> String {
    plain_pool("traced", "") + &format!("\n[traces]\nendpoint = {collector:?}\n")
}

#[tokio::test]
async fn each_job_is_one_trace_whose_parts_follow_one_another() {
    let (lab, collector) = (LabProcess::start(), TestCollector::start([]).expect("a collector"));
    let config = Config::new(&lab, &traced(&collector.url));
    let orchestrator = config.orchestrator();
    for (script, conclusion) in [("echo done", "success"), ("exit 3", "failure")] {
        let run = lab.dispatch(&jobs("traced", 1, script)).await;
        assert_eq!(lab.conclusion_of(run).await, conclusion);
    }
    scaled_down(&lab).await;
    let traces = collector.wait_for_traces(2, PATIENCE).expect("two traces");
    for (trace, result) in traces.iter().zip(["success", "failure"]) {
        let root = &trace[0];
        let of = |key: &str| attribute(root, key).unwrap_or_default();
        assert_eq!(of("cicd.pipeline.task.run.result"), result, "{root:?}");
        assert_eq!(
            (of("dayfly.pool"), of("vcs.owner.name"), of("vcs.repository.name")),
            ("traced".into(), "o".into(), "r".into())
        );
        assert!(
            of("cicd.pipeline.task.name").starts_with('a') && !of("cicd.pipeline.task.run.id").is_empty(),
            "{root:?}"
        );
        let part = |name: &str| {
            trace.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {trace:?}"))
        };
        let parts = ["registration", "machine is made", "machine starts", "job", "machine ends", "clean-up"]
            .map(part);
        for two in parts.windows(2) {
            assert!(two[0].end_time_unix_nano <= two[1].start_time_unix_nano, "{two:?}");
        }
        let (first, last) = (part("job waits").start_time_unix_nano, part("clean-up").end_time_unix_nano);
        assert_eq!(
            (root.start_time_unix_nano, root.end_time_unix_nano),
            (first, last),
            "from queued to gone"
        );
        assert!(trace.iter().all(|span| span.trace_id == root.trace_id));
    }
    orchestrator.signal(Signal::TERM);
    orchestrator.wait().assert_status(143);
}

#[tokio::test]
async fn a_collector_that_is_dead_or_does_not_answer_changes_nothing_for_jobs() {
    let silent = TestCollector::start([Answer::Silence; 99]).expect("a collector");
    // Nothing listens at this port, which is for TCPMUX.
    for collector in ["http://127.0.0.1:1", &silent.url] {
        let lab = LabProcess::start();
        let config = Config::new(&lab, &traced(collector));
        let orchestrator = config.orchestrator();
        let run = lab.dispatch(&jobs("traced", 3, "echo done")).await;
        assert_eq!(lab.conclusion_of(run).await, "success", "{collector}");
        scaled_down(&lab).await;
        let began = std::time::Instant::now();
        orchestrator.signal(Signal::TERM);
        orchestrator.wait().assert_status(143);
        assert!(began.elapsed().as_secs() < 20, "its end waited for {collector}: {:?}", began.elapsed());
    }
}
