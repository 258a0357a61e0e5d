//! Tests the krun drivers with stand-ins for podman, krunvm and buildah, which record their arguments: which calls are made
//! in which order, and what happens if a tool fails or hangs.
#![expect(clippy::unwrap_used, reason = "tests")]

mod stage;

use std::fs;
use std::time::{Duration, Instant};

use dayfly_host::tool::ToolError;
use dayfly_vm::{Driver, Exit, KrunSettings, StartError, Vm, VmEvent, destroy_leftover};
use stage::*;

/// The first lines of each stand-in, which record its arguments and the names of its environment variables.
const NOTE: &str = r#"dir=${0%/*}; echo "${0##*/} $*" >>$dir/calls; env | cut -d= -f1 | sort | tr '\n' ' ' >$dir/env-${0##*/}
"#;

/// Writes a podman whose container removes its settings and then runs `start`.
fn podman(stage: &Stage, start: &str) {
    let env = stage.note("env").display().to_string();
    let text = format!(
        r#"{NOTE}
case "$*" in
*" create "*) [ -e $dir/create-fails ] && {{ echo "Error: no such image" >&2; exit 125; }}; : >$dir/there ;;
start*) rm -f {env}; {start} ;;
ps*) [ -e $dir/there ] && echo c0ffee; exit 0 ;;
rm*) [ -e $dir/rm-fails ] && {{ echo "Error: busy" >&2; exit 2; }}; rm -f $dir/there ;;
kill*) [ -e $dir/kill-hangs ] && sleep 300; exit 0 ;;
pull*|image*) [ -e $dir/pull-hangs ] && sleep 300; [ -e $dir/image ] || {{ echo "Error: unauthorized" >&2; exit 125; }} ;;
esac
"#
    );
    script(&stage.path("tools/podman"), &text);
}

/// Writes a krunvm and a buildah; a machine of this krunvm is a name in a file.
fn krunvm(stage: &Stage, start: &str) {
    let env = stage.note("env").display().to_string();
    let text = format!(
        r#"{NOTE}
case "$1" in
create) echo "$4" >>$dir/machines ;;
start) rm -f {env}; {start} ;;
list) cat $dir/machines 2>/dev/null || echo "No microVMs found" ;;
delete) grep -vx "$2" $dir/machines >$dir/new; mv $dir/new $dir/machines ;;
esac
"#
    );
    script(&stage.path("tools/krunvm"), &text);
    // If the user is not root, each call goes through `buildah unshare`.
    script(
        &stage.path("tools/buildah"),
        &format!("{NOTE}[ \"$1\" = unshare ] || exit 0; shift; exec \"$@\"\n"),
    );
}

fn podman_krun() -> Driver {
    Driver::PodmanKrun(KrunSettings { image: "example/image:1".to_owned() })
}

fn krun() -> Driver {
    Driver::Krunvm(KrunSettings { image: "example/image:1".to_owned() })
}

async fn start(stage: &Stage, driver: Driver) -> Result<Vm, StartError> {
    let mut host = stage.host();
    host.tool_env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    dayfly_vm::start(&host, stage.spec(driver), &stage.path("run")).await
}

/// Returns the first words of each call so far, without buildah's calls.
fn calls(stage: &Stage, words: usize) -> Vec<String> {
    let calls = fs::read_to_string(stage.path("tools/calls")).unwrap();
    let calls = calls.lines().filter(|call| !call.starts_with("buildah"));
    calls.map(|call| call.split(' ').take(words).collect::<Vec<_>>().join(" ")).collect()
}

fn has_code(events: &[VmEvent], wanted: i32) -> bool {
    events
        .iter()
        .any(|event| matches!(event, VmEvent::EntrypointExited { code: Some(code), .. } if *code == wanted))
}

#[tokio::test]
async fn a_container_is_created_started_and_removed_by_its_label() {
    let stage = Stage::new("0-abc", "");
    podman(&stage, "echo hello; exit 7");
    let mut vm = start(&stage, podman_krun()).await.unwrap();
    let (events, exit) = events_to_end(&mut vm).await;
    assert!(events.contains(&VmEvent::Hello) && has_code(&events, 7), "{events:?}");
    assert!(events.iter().any(|event| line("hello")(event)), "{events:?}");
    assert_eq!(exit, Exit::PoweredOff);
    vm.destroy().await.unwrap();
    let expected = ["podman --runtime krun create", "podman start --attach --sig-proxy=false"];
    assert_eq!(calls(&stage, 4)[..2], expected);
    let removal = ["podman ps --all --no-trunc", "podman rm --force --ignore"];
    assert_eq!(calls(&stage, 4)[2..4], removal);
    let env = fs::read_to_string(stage.path("tools/env-podman")).unwrap();
    assert!(!env.contains("CARGO") && !env.contains("HOME"), "tools see what they were given alone: {env}");
    assert_eq!(stage.left(), ["console.log", "vmm.log"]);
}

#[tokio::test]
async fn a_create_that_fails_is_quoted_and_leaves_nothing() {
    let stage = Stage::new("0-abc", "");
    podman(&stage, "exit 0");
    fs::write(stage.path("tools/create-fails"), "").unwrap();
    let error = start(&stage, podman_krun()).await.expect_err("fails").to_string();
    assert!(
        error.contains("podman --runtime krun create") && error.ends_with("Error: no such image"),
        "{error}"
    );
    assert_eq!(stage.left(), [""; 0]);
    assert!(stage.note("env").exists(), "it is for another try");
}

#[tokio::test]
async fn a_machine_that_never_takes_its_settings_has_failed_and_no_entrypoint_has_ended() {
    let stage = Stage::new("0-abc", "");
    podman(&stage, "exit 126");
    let text = fs::read_to_string(stage.path("tools/podman")).unwrap().replace("rm -f /", ": /");
    script(&stage.path("tools/podman"), &text);
    let mut vm = start(&stage, podman_krun()).await.unwrap();
    let (events, exit) = events_to_end(&mut vm).await;
    assert_eq!(exit, Exit::Failed { code: 126 });
    assert!(!events.contains(&VmEvent::Hello) && !has_code(&events, 126), "{events:?}");
}

#[tokio::test]
async fn a_stop_that_hangs_is_followed_by_a_kill_after_its_grace() {
    let stage = Stage::new("0-abc", "");
    podman(&stage, "echo up; exec sleep 300");
    fs::write(stage.path("tools/kill-hangs"), "").unwrap();
    let mut vm = start(&stage, podman_krun()).await.unwrap();
    events_until(&mut vm, line("up")).await;
    let begin = Instant::now();
    assert_eq!(vm.stop(Duration::from_millis(300)).await, Exit::Killed);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(!stage.path("tools/there").exists(), "the container is removed");
    assert!(calls(&stage, 4).contains(&"podman kill --signal TERM".to_owned()));
    vm.destroy().await.unwrap();
}

#[tokio::test]
async fn a_container_that_cannot_be_removed_stays_in_the_record() {
    let stage = Stage::new("0-abc", "");
    podman(&stage, "exit 0");
    fs::write(stage.path("tools/rm-fails"), "").unwrap();
    let mut vm = start(&stage, podman_krun()).await.unwrap();
    let (events, _) = events_to_end(&mut vm).await;
    let fault =
        |event: &VmEvent| matches!(event, VmEvent::Fault { message } if message.ends_with("Error: busy"));
    assert!(events.iter().any(fault), "{events:?}");
    assert!(vm.destroy().await.is_err());
    assert!(stage.path("run/vmm.json").exists() && stage.path("tools/there").exists());
    fs::remove_file(stage.path("tools/rm-fails")).unwrap();
    destroy_leftover(&stage.path("run")).await.unwrap();
    assert!(!stage.path("run/vmm.json").exists() && !stage.path("tools/there").exists());
}

#[tokio::test]
async fn a_pull_that_fails_or_hangs_is_told_unless_the_image_is_there() {
    let stage = Stage::new("0-abc", "");
    podman(&stage, "exit 0");
    let mut host = stage.host();
    host.tool_env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let machine = stage.spec(podman_krun()).machine;
    let limit = Duration::from_secs(20);
    let error = dayfly_vm::pull(&host, &machine, limit, &mut |_| {}).await.expect_err("fails").to_string();
    assert!(error.ends_with("Error: unauthorized"), "{error}");
    fs::write(stage.path("tools/image"), "").unwrap();
    dayfly_vm::pull(&host, &machine, limit, &mut |_| {}).await.unwrap();
    let text = fs::read_to_string(stage.path("tools/podman"))
        .unwrap()
        .replace("pull*|image*)", "image*) exit 1 ;;\npull*)");
    script(&stage.path("tools/podman"), &text);
    fs::write(stage.path("tools/pull-hangs"), "").unwrap();
    let error = dayfly_vm::pull(&host, &machine, Duration::from_millis(200), &mut |_| {}).await;
    assert!(matches!(error, Err(StartError::Tool(ToolError::TooLong { .. }))), "{error:?}");
}

#[tokio::test]
async fn a_machine_of_krunvm_lives_and_is_deleted_and_another_one_of_its_name_is_left_alone() {
    let stage = Stage::new("0-abc", "");
    krunvm(&stage, "echo hello; exit 3");
    let mut vm = start(&stage, krun()).await.unwrap();
    let (events, exit) = events_to_end(&mut vm).await;
    assert!(events.contains(&VmEvent::Hello) && has_code(&events, 3), "{events:?}");
    assert_eq!(exit, Exit::PoweredOff);
    vm.destroy().await.unwrap();
    let names: Vec<String> = calls(&stage, 2);
    assert_eq!(names[..5], ["krunvm list", "krunvm create", "krunvm start", "krunvm list", "krunvm delete"]);
    assert_eq!(fs::read_to_string(stage.path("tools/machines")).unwrap(), "");

    fs::write(stage.path("tools/machines"), "GH-runner-0-abc\n").unwrap();
    let error = start(&stage, krun()).await.expect_err("taken").to_string();
    assert_eq!(error, "there is a machine named GH-runner-0-abc already; remove it with krunvm");
    assert_eq!(fs::read_to_string(stage.path("tools/machines")).unwrap(), "GH-runner-0-abc\n");
}

#[tokio::test]
async fn a_vmm_of_krunvm_whose_starter_is_gone_is_found_by_its_mark() {
    let stage = Stage::new("0-abc", "");
    krunvm(&stage, "echo up; exec sleep 301");
    let mut vm = start(&stage, krun()).await.unwrap();
    events_until(&mut vm, line("up")).await;
    vm.detach();
    assert_eq!(fs::read_to_string(stage.path("tools/machines")).unwrap(), "GH-runner-0-abc\n");
    until("the VMM runs", || processes_with("sleep 301").len() == 1).await;
    destroy_leftover(&stage.path("run")).await.unwrap();
    assert_eq!(fs::read_to_string(stage.path("tools/machines")).unwrap(), "");
    assert_eq!(processes_with("sleep 301"), [""; 0]);
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_named_with_what_brings_it() {
    let stage = Stage::new("0-abc", "");
    let error = start(&stage, podman_krun()).await.expect_err("none").to_string();
    assert!(error.starts_with("no podman found") && error.ends_with("apt-get install podman"), "{error}");
    assert!(matches!(start(&stage, krun()).await, Err(StartError::NoTool { tool: "krunvm", .. })));
}
