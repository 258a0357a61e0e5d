//! Tests of an entrypoint on standby, which is started before there is a runner.

use crate::stage::{Entrypoint, ID, Stage, jit_config, runner_lines, wait_until};
use dayfly_guest::runner_app::Ending;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

/// The script of the app.
const APP: &str = "echo \"runner $(cat .runner)\"\ncat .credentials .credentials_rsaparams\necho\n\
    stat -c '%F %a' .runner\nls -A\necho \"job variable ${RUNNER_MINE:-none}\"\n\
    echo \"x ( http://h/o/r ): Finished Job 'j' with Status Succeeded\"\n";

/// The start of the waiting program's script. It reads its environment as the real program does, but only prints the text,
/// because a shell would have to parse it.
const WAITING: &str = "environment=$(cat \"$1\")\necho \"waited as $$\"\necho \"environment $environment\"\n";

fn stage() -> Stage {
    let stage = Stage::new(APP);
    stage.write_script("act-standby", &format!("{WAITING}{APP}"));
    stage
}

/// An entrypoint that stands by.
pub(crate) struct Standby {
    entrypoint: Entrypoint,
    stdin: ChildStdin,
    app: PathBuf,
}

impl Standby {
    fn start(stage: &Stage) -> Self {
        Self::with_app(stage, "app.sh", 20)
    }

    /// Starts an entrypoint with an app that has this many seconds until it must wait. The entrypoint's messages go to
    /// `standby.log`.
    pub(crate) fn with_app(stage: &Stage, app: &str, seconds: u16) -> Self {
        let app = stage.path(app);
        // The agent's arguments, without an id: there is no runner yet.
        let mut command = Command::new(env!("CARGO_BIN_EXE_dayfly-guest"));
        command.args(["entrypoint", "--standby", &seconds.to_string(), "-u", ""]).arg("--app").arg(&app);
        command.arg("--app-dir").arg(stage.path("app")).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(stage.path("standby.log")).expect("made"));
        let mut entrypoint = Entrypoint::start(&mut command);
        entrypoint.wait_for_line("standing by");
        let stdin = entrypoint.child.stdin.take().expect("piped");
        Self { entrypoint, stdin, app }
    }

    /// Sends the order, with the arguments and the environment of a start without standby.
    pub(crate) fn order(mut self, stage: &Stage, more: &[&str]) -> (String, Option<i32>) {
        let command = stage.command(&["--app", self.app.to_str().expect("text")], &[]);
        let args = command.get_args().skip(1).map(|arg| arg.to_str().expect("text"));
        let args: Vec<_> = args.chain(more.iter().copied()).collect();
        let env: Vec<_> =
            command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?))).collect();
        let order = serde_json::json!({ "args": args, "env": env });
        self.stdin.write_all(format!("{order}\n").as_bytes()).expect("ordered");
        self.entrypoint.end()
    }

    /// Ends the entrypoint without an order.
    pub(crate) fn end(self) -> (String, Option<i32>) {
        drop(self.stdin);
        self.entrypoint.end()
    }
}

/// Returns the lines of the runner app that are not specific to the waiting program.
fn steady(output: &str) -> Vec<&str> {
    let tells = |line: &&str| !line.starts_with("waited ") && !line.starts_with("environment ");
    runner_lines(output).into_iter().filter(tells).collect()
}

/// Returns the process id of the waiting app, a script at this path.
pub(crate) fn waiting_app(stage: &Stage, script: &str) -> u32 {
    let script = stage.path(script).to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_app = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|&byte| byte == 0).nth(1) == Some(script.as_bytes()))
    };
    pids.filter(is_app).min().expect("the app waits")
}

/// Kills a process, and waits until it is dead. An app that is not quite dead would still take its runner, and its exit
/// would be the runner's.
pub(crate) fn kill(app: u32) {
    let pid = rustix::process::Pid::from_raw(app.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    let stat = || std::fs::read_to_string(format!("/proc/{app}/stat")).unwrap_or_default();
    wait_until("the app is dead", || stat().rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z")));
}

pub(crate) fn is_gone(app: u32) -> bool {
    !Path::new(&format!("/proc/{app}")).exists()
}

#[test]
fn the_waiting_app_goes_on_with_the_files_and_the_environment_of_its_runner() {
    let variables = [("RUNNER_JITCONFIG", jit_config()), ("RUNNER_MINE", "two words".to_owned())];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (without, with) = (stage(), stage());
    [&without, &with].iter().for_each(|stage| stage.write_env(&variables));
    let (without, code) = without.start().end();
    assert_eq!(code, Some(Ending::JobDone.code()), "{without}");

    let standby = Standby::start(&with);
    let app = waiting_app(&with, "act-standby");
    assert!(!with.note("tkn").exists(), "nobody is told of a runner that there is not yet");
    let (output, code) = standby.order(&with, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    let told = runner_lines(&output);
    assert!(told.contains(&format!("waited as {app}").as_str()), "it is the same process:\n{output}");
    let environment = told.iter().find_map(|line| line.strip_prefix("environment ")).expect("told");
    let environment: serde_json::Value = serde_json::from_str(environment).expect("JSON");
    assert_eq!(environment["RUNNER_MINE"], "two words");
    assert_eq!(environment["LEAK"], serde_json::Value::Null);
    assert!(environment["HOME"].is_string() && environment["RUNNER_SECRET"].is_null(), "{environment}");
    // The script does not apply the environment that it reads, unlike the real program.
    let same = |line: &&&str| !line.starts_with("job variable");
    assert!(
        steady(&output).iter().filter(same).eq(steady(&without).iter().filter(same)),
        "{output}\n{without}"
    );
    assert!(with.note("tkn").exists());
    assert!(!with.path("app/.credentials_rsaparams").exists(), "the key outlives its runner");
}

#[test]
fn an_app_without_one_that_waits_is_started_as_ever() {
    let stage = Stage::new(APP);
    let standby = Standby::start(&stage);
    let (output, code) = standby.order(&stage, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert_eq!(steady(&output)[0], r#"runner {"AgentName":"n"}"#);
}

#[test]
fn an_app_that_cannot_wait_leaves_nothing_and_is_started_as_ever() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = stage();
    let unusable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(stage.path("act-standby"), unusable).expect("changed");
    let standby = Standby::start(&stage);
    assert!(!stage.path("app").exists(), "the folder of the app that did not start");
    let (output, code) = standby.order(&stage, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert_eq!(steady(&output)[0], r#"runner {"AgentName":"n"}"#);
}

#[test]
fn one_that_waits_no_more_is_replaced_by_the_app() {
    let stage = stage();
    let standby = Standby::start(&stage);
    let app = waiting_app(&stage, "act-standby");
    kill(app);
    let (output, code) = standby.order(&stage, &[]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert!(!output.contains("waited as") && output.contains("not the one that waited"), "{output}");
    assert_eq!(steady(&output)[0], r#"runner {"AgentName":"n"}"#);
}

#[test]
fn a_command_takes_the_place_of_the_waiting_app() {
    let stage = stage();
    let standby = Standby::start(&stage);
    let app = waiting_app(&stage, "act-standby");
    let (output, code) = standby.order(&stage, &["--", "/bin/echo", "instead"]);
    assert_eq!(code, Some(Ending::JobDone.code()), "{output}");
    assert_eq!(runner_lines(&output), ["instead"]);
    assert!(is_gone(app), "the waiting one is gone");
}

#[test]
fn without_an_order_it_ends_with_all_that_it_has_started() {
    let stage = stage();
    let standby = Standby::start(&stage);
    let app = waiting_app(&stage, "act-standby");
    let (output, code) = standby.end();
    assert_eq!(code, Some(0), "{output}");
    assert!(!output.contains(ID), "{output}");
    wait_until("the app is gone", || is_gone(app));
    assert!(!stage.path("app").exists());
}
