//! Tests of `dayfly-guest step` as a process with a terminal, as a runner app starts it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GUEST: &str = env!("CARGO_BIN_EXE_dayfly-guest");

/// Returns a command with a terminal of its own, that of util-linux' `script`, and arguments in place of `$@`.
fn at_a_terminal(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("script");
    let quoted: String = args.iter().map(|arg| format!("'{}' ", arg.replace('\'', "'\\''"))).collect();
    command.args(["-q", "-e", "-c", &format!("{script} {quoted}"), "/dev/null"]);
    command.stdin(Stdio::null());
    command
}

/// Runs a script as a step at a terminal, and returns its output and its exit status.
fn run(script: &str) -> (String, Option<i32>) {
    let output = at_a_terminal(GUEST, &["step", "sh", "-c", script]).output().unwrap();
    (String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n"), output.status.code())
}

fn wait_until(what: &str, is_done: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_step_has_no_terminal_and_an_ended_input() {
    let questions = "for fd in 0 1 2; do test -t $fd && echo terminal $fd; done
        (exec 3</dev/tty) 2>/dev/null && echo controlling terminal
        cat; read line || echo ended; echo error >&2";
    assert_eq!(run(questions), ("ended\nerror\n".to_owned(), Some(0)));
    // The same questions find the terminal without the program.
    let output = at_a_terminal("sh", &["-c", "test -t 1 && (exec 3</dev/tty) && echo terminal"]).output();
    assert_eq!(output.unwrap().stdout, b"terminal\r\n");
}

#[test]
fn programs_that_wait_for_a_key_or_a_password_end() {
    let folder = tempfile::tempdir().unwrap();
    let git = format!("cd {} && git init -q . && ", folder.path().display());
    let commits =
        "for i in $(seq 60); do git -c user.name=a -c user.email=a@b commit -q --allow-empty -m c$i; done";
    let (text, code) =
        run(&format!("{git}{commits}; git log --oneline | wc -l; git log --oneline; echo over"));
    assert!(text.starts_with("60\n") && text.ends_with("over\n") && code == Some(0), "{text}");
    assert_eq!(text.lines().count(), 62, "{text}");
    let (text, code) = run("read -r answer </dev/tty; echo no answer");
    assert!(text.ends_with("no answer\n") && code == Some(0), "{text}");
}

#[test]
fn the_exit_status_is_the_programs_and_no_line_is_lost() {
    assert_eq!(run("echo why; exit 7"), ("why\n".to_owned(), Some(7)));
    assert_eq!(run("kill -9 $$").1, Some(137));
    let (text, code) = run("i=0; while test $i -lt 20000; do i=$((i + 1)); echo line $i; done; exit 1");
    assert_eq!((text.lines().count(), text.lines().last(), code), (20000, Some("line 20000"), Some(1)));
    let missing = at_a_terminal(GUEST, &["step", "/nowhere/program"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stdout).contains("cannot start /nowhere/program"));
}

#[test]
fn a_step_that_fails_waits_for_a_slow_reader() {
    let mut step = Command::new(GUEST);
    step.args([
        "step",
        "sh",
        "-c",
        "yes some forty bytes in each line of all of them | head -c 40000; exit 3",
    ]);
    let mut step = step.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = step.stdout.take().unwrap();
    // Forty pieces in two seconds. All of them fit into the pipe at once.
    let mut piece = [0; 1000];
    for number in 0..40 {
        output.read_exact(&mut piece).unwrap();
        assert!(step.try_wait().unwrap().is_none(), "it has ended before piece {number} was read");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(step.wait().unwrap().code(), Some(3));
}

#[test]
fn a_process_that_a_step_leaves_goes_on_writing_and_does_not_hold_the_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let began = Instant::now();
    let script = format!(
        "(i=0; while test $i -lt 4000; do i=$((i + 1)); echo a line of some forty characters, number $i; \
         test -e {stop} && sleep 0.01; done; echo >{done}; sleep 30) & echo $! >{pid}; echo started",
        stop = path("stop").display(),
        done = path("done").display(),
        pid = path("pid").display(),
    );
    std::fs::write(path("stop"), "").unwrap();
    let (text, code) = run(&script);
    assert!(text.contains("started\n") && code == Some(0), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20), "the step waited for it");
    // It fills the pipe more than once: without a reader it would be killed, and with one that stopped it would hang.
    std::fs::remove_file(path("stop")).unwrap();
    wait_until("it writes its last line", || path("done").exists());
    let pid = std::fs::read_to_string(path("pid")).unwrap();
    assert!(is_alive(pid.trim()));
    Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
}

#[test]
fn a_flood_of_a_process_that_is_left_does_not_hold_the_step() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let began = Instant::now();
    let (text, code) = run(&format!("(exec yes) & echo $! >{}; echo started; exit 3", pid.display()));
    assert!(text.contains("started\n") && code == Some(3));
    assert!(began.elapsed() < Duration::from_secs(20), "the step reads its output without end");
    let pid = std::fs::read_to_string(pid).unwrap();
    Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
    wait_until("the flood has ended", || !is_alive(pid.trim()));
}

/// Starts a step that prints the process id of its program, and returns this.
fn started(folder: &Path) -> (Child, String) {
    let mut step = Command::new(GUEST);
    step.args(["step", "sh", "-c", "echo $$; exec sleep 60"]).current_dir(folder);
    let mut step = step.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(step.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (step, line.trim().to_owned())
}

#[test]
fn a_step_that_is_killed_takes_its_program_along() {
    let folder = tempfile::tempdir().unwrap();
    let (mut step, pid) = started(folder.path());
    assert!(is_alive(&pid));
    step.kill().unwrap();
    step.wait().unwrap();
    wait_until("the program is gone", || !is_alive(&pid));
}

#[test]
fn a_terminal_that_is_gone_ends_the_step() {
    // `script` is killed, and with it the terminal that it holds.
    let mut terminal = at_a_terminal(GUEST, &["step", "sh", "-c", "echo $$; exec sleep 60"]);
    let mut terminal = terminal.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(terminal.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let pid = line.trim().to_owned();
    assert!(is_alive(&pid));
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    output.read_to_end(&mut Vec::new()).unwrap();
    wait_until("the program is gone", || !is_alive(&pid));
}
