//! Tests of the official app on standby, with scripts in place of `bin/Runner.Listener` and `bin/Runner.Worker`.

use crate::stage::{Stage, jit_config, lines_of, runner_lines};
use crate::standby::{Standby, is_gone, kill, waiting_app};
use dayfly_guest::runner_app::Ending;
use std::path::Path;
use std::time::{Duration, Instant};

const LISTENER: &str = "install/bin/Runner.Listener";
const WORKER: &str = "install/bin/Runner.Worker";

/// The official listener's way to a job: it reads `.runner` for its name in requests if that exists, then takes a JIT
/// config, then reads `.runner` for its settings.
const APP: &str = r#"
test "$1" = configure && { echo '{"AgentName":"registered"}' >.runner; exit 0; }
echo "started as $$"
PAUSE
test -e .runner && echo "agent $(READ .runner)"
PAUSE
if [ -n "$ACTIONS_RUNNER_INPUT_JITCONFIG" ]; then
    for file in .runner .credentials .credentials_rsaparams; do
        printf %s "$ACTIONS_RUNNER_INPUT_JITCONFIG" | base64 -d | sed -n "s/.*\"$file\":\"\([^\"]*\)\".*/\1/p" |
            base64 -d >"$file"
        chmod 600 "$file"
    done
    unset ACTIONS_RUNNER_INPUT_JITCONFIG
    echo 'JIT config from the environment'
fi
settings=$(READ .runner)
echo '√ Connected to GitHub'
echo "settings $settings"
for file in .runner .credentials .credentials_rsaparams; do
    test -e $file && echo "$file $(stat -c '%F %a' $file) $(cat $file)"
done
echo '2026-01-02 03:05:00Z: Running job: build'
"$PWD/bin/Runner.Worker" spawnclient 3 4
echo '2026-01-02 03:06:00Z: Job build completed with result: Succeeded'
"#;

/// A worker that prints its environment like a step of a job.
const JOB: &str = "test $# = 0 && { echo warm >>warmed; exit 1; }\n\
    echo \"worker $*\"\nenv | grep -v '^_=' | sort | sed 's/^/step /'\n";

/// The settings of .NET, as the app's archive has them.
const CONFIG: &str = r#"{"runtimeOptions":{"configProperties":{"System.GC.Server":false}}}"#;

fn app(read: &str, pause: &str) -> String {
    APP.replace("READ", read).replace("PAUSE", pause)
}

/// Creates an installed app.
fn stage(listener: &str, worker: &str) -> Stage {
    let stage = Stage::new("");
    stage.write_env(&[("RUNNER_JITCONFIG", &jit_config()), ("RUNNER_MINE", "two words")]);
    install(&stage, listener, worker);
    stage
}

fn install(stage: &Stage, listener: &str, worker: &str) {
    stage.write_script(LISTENER, listener);
    stage.write_script(WORKER, worker);
    for program in [LISTENER, WORKER] {
        std::fs::write(stage.path(&format!("{program}.runtimeconfig.json")), CONFIG).unwrap();
    }
}

/// Returns the lines of the app that are the same with and without standby. Paths of the stage are cut out.
fn steady(stage: &Stage, output: &str) -> Vec<String> {
    let own = ["started as", "agent", "JIT config"];
    let lines = runner_lines(output).into_iter().filter(|line| own.iter().all(|own| !line.starts_with(own)));
    let folder = stage.path("");
    lines.map(|line| line.replace(folder.to_str().unwrap().trim_end_matches('/'), "")).collect()
}

/// Asserts that the app does not stand by for this reason, that the host logs it once, and that the app runs as ever.
fn assert_started_as_ever(stage: &Stage, seconds: u16, why: &str) {
    let standby = Standby::with_app(stage, LISTENER, seconds);
    let told = stage.text("standby.log");
    assert!(told.lines().count() == 1 && told.contains(why), "{told}");
    assert!(!stage.path("install/.runner").exists() && !stage.path("install/.runner.next").exists());
    install(stage, &app("cat", ""), JOB);
    let (output, code) = standby.order(stage, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert!(output.contains("JIT config from the environment") && !output.contains(why), "{output}");
    assert_eq!(stage.text("standby.log"), told);
}

#[test]
fn the_waiting_listener_runs_the_job_that_it_would_run_without_standby() {
    let (without, with) = (stage(&app("cat", ""), JOB), stage(&app("cat", ""), JOB));
    let listener = without.path(LISTENER);
    let (expected, code) = without.start_with(&["--app", listener.to_str().unwrap()], &[]).end();
    assert_eq!(code, Some(Ending::JobDone.code()), "{expected}");

    let standby = Standby::with_app(&with, LISTENER, 20);
    assert_eq!(with.text("standby.log"), "");
    let waiting = waiting_app(&with, LISTENER);
    assert!(!with.path("install/.credentials").exists() && !with.note("tkn").exists());
    let (output, code) = standby.order(&with, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    let lines = runner_lines(&output);
    assert!(lines.contains(&format!("started as {waiting}").as_str()), "{output}");
    assert!(lines.contains(&"agent {}") && !output.contains("JIT config"), "{output}");
    assert!(lines.contains(&r#".runner regular file 600 {"AgentName":"n"}"#), "{output}");
    assert_eq!(steady(&with, &output), steady(&without, &expected), "{output}\n{expected}");
    assert!(output.contains("step RUNNER_MINE=two words"), "{output}");
    for name in [".runner", ".credentials", ".credentials_rsaparams"] {
        assert!(!with.path("install").join(name).exists(), "{name} outlives its runner");
    }
    assert!(with.note("tkn").exists());
}

#[test]
fn before_it_waits_the_worker_has_run_once_and_the_runtime_is_tuned() {
    let stage = stage(&app("cat", ""), JOB);
    let standby = Standby::with_app(&stage, LISTENER, 20);
    assert_eq!(stage.text("install/warmed"), "warm\n");
    for program in [LISTENER, WORKER] {
        let config = stage.text(&format!("{program}.runtimeconfig.json"));
        assert!(config.contains(r#""System.Runtime.TieredPGO": false"#), "{config}");
    }
    let (output, code) = standby.order(&stage, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert!(!output.contains("TieredPGO"), "a step's environment says nothing of it:\n{output}");
    assert_eq!(stage.text("install/warmed"), "warm\n");
}

#[test]
fn a_slow_listener_and_a_worker_that_hangs_stand_by_all_the_same() {
    let stage = stage(&app("cat", "sleep 0.7"), "test $# = 0 && sleep 60\necho \"worker $*\"\n");
    let begin = Instant::now();
    let standby = Standby::with_app(&stage, LISTENER, 9);
    assert!(begin.elapsed() < Duration::from_secs(9));
    assert_eq!(stage.text("standby.log"), "");
    let (output, code) = standby.order(&stage, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert!(output.contains("worker spawnclient 3 4") && !output.contains("JIT config"), "{output}");
}

#[test]
fn a_listener_that_reads_its_settings_once_is_started_as_ever() {
    let stage = stage("cat .runner\nexec sleep 60\n", JOB);
    assert_started_as_ever(&stage, 3, "was not seen to wait for its runner in time");
}

#[test]
fn a_listener_that_never_reads_its_settings_is_started_as_ever() {
    let stage = stage("exec sleep 60\n", JOB);
    assert_started_as_ever(&stage, 3, "was not seen to wait for its runner in time");
}

#[test]
fn a_listener_that_exits_is_started_as_ever() {
    for script in ["exit 1\n", "cat .runner\nexit 1\n"] {
        let stage = stage(script, JOB);
        assert_started_as_ever(&stage, 20, "ended before it waited for its runner");
    }
}

#[test]
fn a_listener_that_has_a_library_of_tls_in_memory_does_not_stand_by() {
    let stage = stage(&app("./libcrypto.so.3", ""), JOB);
    let cat = ["/bin/cat", "/usr/bin/cat"].into_iter().find(|cat| Path::new(cat).is_file()).unwrap();
    std::fs::copy(cat, stage.path("install/libcrypto.so.3")).unwrap();
    assert_started_as_ever(&stage, 20, "install/libcrypto.so.3 is in the memory of the app that waits");
}

#[test]
fn an_app_without_a_worker_does_not_stand_by() {
    let stage = stage(&app("cat", ""), JOB);
    std::fs::remove_file(stage.path(WORKER)).unwrap();
    assert_started_as_ever(&stage, 20, "install/bin/Runner.Worker: No such file");
}

#[test]
fn a_listener_that_waits_no_more_is_started_again() {
    let stage = stage(&app("cat", ""), JOB);
    let standby = Standby::with_app(&stage, LISTENER, 20);
    let listener = waiting_app(&stage, LISTENER);
    // Its `cat` still waits, so its group is killed.
    let group = rustix::process::Pid::from_raw(listener.cast_signed()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::STOP).unwrap();
    kill(listener);
    let (output, code) = standby.order(&stage, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert!(output.contains("not the one that waited"), "{output}");
    assert!(output.contains("JIT config from the environment"), "{output}");
    assert!(output.contains("step RUNNER_MINE=two words"), "{output}");
}

#[test]
fn with_a_token_the_waiting_listener_is_ended_and_the_app_registers_itself() {
    for ephemeral in ["1", "0"] {
        let stage = stage(&app("cat", ""), JOB);
        stage.write_env(&[
            ("RUNNER_TOKEN", "t"),
            ("RUNNER_PRINCIPAL", "o/r"),
            ("RUNNER_EPHEMERAL", ephemeral),
        ]);
        let standby = Standby::with_app(&stage, LISTENER, 20);
        let waiting = waiting_app(&stage, LISTENER);
        let (output, code) = standby.order(&stage, &[]);
        assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
        assert!(is_gone(waiting) && lines_of("configuration", &output).is_empty(), "{output}");
        assert!(runner_lines(&output).contains(&r#"settings {"AgentName":"registered"}"#), "{output}");
        assert!(stage.path(WORKER).symlink_metadata().unwrap().is_file());
        assert!(!stage.path("install/bin/Runner.Worker.app").exists());
    }
}

#[test]
fn an_app_that_is_configured_in_its_image_stays_as_it_is() {
    let stage = stage(&app("cat", ""), JOB);
    std::fs::write(stage.path("install/.runner"), "{}").unwrap();
    let standby = Standby::with_app(&stage, LISTENER, 20);
    assert!(stage.text("standby.log").contains("install/.runner is there already"));
    let (output, code) = standby.order(&stage, &[]);
    assert!(output.contains("this runner app is configured already"), "{output}");
    assert_eq!(code, Some(Ending::NotStarted.code()), "{output}");
    assert_eq!(stage.text("install/.runner"), "{}");
}

#[test]
fn without_an_order_the_app_is_left_as_it_was_installed() {
    let stage = stage(&app("cat", ""), JOB);
    let standby = Standby::with_app(&stage, LISTENER, 20);
    let waiting = waiting_app(&stage, LISTENER);
    let (output, code) = standby.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(is_gone(waiting));
    assert!(!stage.path("install/.runner").exists());
    assert!(stage.path(WORKER).symlink_metadata().unwrap().is_file());
    assert!(stage.path("install").is_dir());
}
