//! Sessions: programs that a person on the host starts beside the job.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dayfly_guest::protocol::session::{
    OutputStream, Piece, SessionEnd, SessionInput, SessionOutput, SessionProgram, TerminalSize, WINDOW,
};
use dayfly_vm::{Exit, Session, SessionError, Vm, VmEvent};

use crate::stage::*;
use crate::{kill, other_host, start};

/// Starts a machine whose app waits for a job.
async fn machine(stage: &Stage) -> Vm {
    let mut vm = start(stage).await;
    events_until(&mut vm, line("Listening")).await;
    vm
}

fn program(words: &[&str]) -> SessionProgram {
    SessionProgram {
        command: words.iter().map(|&word| word.to_owned()).collect(),
        ..SessionProgram::default()
    }
}

fn shell(script: &str) -> SessionProgram {
    program(&["sh", "-c", script])
}

async fn open(stage: &Stage, program: SessionProgram) -> Session {
    Session::open(&stage.path("run"), program).await.expect("it starts")
}

/// The output of a program, and its end.
#[derive(Debug, Default)]
struct Result {
    out: Vec<u8>,
    err: Vec<u8>,
    end: Option<SessionEnd>,
}

/// Takes everything that a program writes, until its end or until its output contains `text`.
async fn take_until(session: &mut Session, text: &str) -> Result {
    let mut result = Result::default();
    let take = async {
        loop {
            match session.next().await.expect("a message") {
                SessionOutput::Data { stream, piece: Piece(bytes) } => {
                    match stream {
                        OutputStream::Out => result.out.extend(bytes),
                        OutputStream::Err => result.err.extend(bytes),
                    }
                    session.send(&SessionInput::Taken).await.expect("sent");
                    if !text.is_empty() && String::from_utf8_lossy(&result.out).contains(text) {
                        return;
                    }
                }
                SessionOutput::Ended(end) => {
                    result.end = Some(end);
                    return;
                }
                SessionOutput::Opened | SessionOutput::Taken => {}
            }
        }
    };
    let taken = tokio::time::timeout(PATIENCE, take).await;
    assert!(taken.is_ok(), "no end: {result:?}");
    result
}

async fn take_all(session: &mut Session) -> Result {
    take_until(session, "").await
}

fn data(text: &str) -> SessionInput {
    SessionInput::Data(Piece(text.as_bytes().to_vec()))
}

fn is_end(event: &VmEvent) -> bool {
    matches!(event, VmEvent::SessionEnded { .. })
}

pub(crate) async fn a_program_that_a_person_starts_runs_beside_the_job_and_its_owner_is_told() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let mut vm = machine(&stage).await;
    let wanted = SessionProgram {
        folder: Some("/".to_owned()),
        env: vec![("WORD".to_owned(), "a b".to_owned())],
        ..shell("cat; pwd; echo \"$WORD\"; echo trouble >&2; test -t 0 || exit 7")
    };
    let mut session = open(&stage, wanted).await;
    session.send(&data("one\ntwo\n")).await.unwrap();
    session.send(&SessionInput::End).await.unwrap();
    let result = take_all(&mut session).await;
    assert_eq!(String::from_utf8_lossy(&result.out), "one\ntwo\n/\na b\n");
    assert_eq!(String::from_utf8_lossy(&result.err), "trouble\n");
    assert_eq!(result.end, Some(SessionEnd::Exited(7)));
    let told = events_until(&mut vm, is_end).await;
    let [.., opened, ended] = &told[..] else { panic!("{told:?}") };
    let VmEvent::SessionOpened { session: number, uid, command, has_terminal: false, .. } = opened else {
        panic!("{opened:?}")
    };
    assert_eq!(*uid, rustix::process::geteuid().as_raw());
    assert!(command.starts_with("sh -c cat; pwd"), "{command}");
    let how = "its program has exited with status 7".to_owned();
    assert_eq!(*ended, VmEvent::SessionEnded { session: *number, how });
    assert_eq!(vm.kill().await, Exit::Killed);
    vm.destroy().await.unwrap();
    assert_eq!(stage.left(), ["vmm.log"]);
}

pub(crate) async fn a_program_with_a_terminal_has_its_size_and_learns_of_a_new_one() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let vm = machine(&stage).await;
    let script = "trap 'stty size; exit 0' WINCH; stty size; test -t 0 && test -t 2 && tty; : </dev/tty && \
                  echo controls; echo \"$TERM\"; while :; do sleep 0.02; done";
    let wanted = SessionProgram {
        terminal: Some(TerminalSize { rows: 30, columns: 100 }),
        env: vec![("TERM".to_owned(), "vt220".to_owned())],
        ..shell(script)
    };
    let mut session = open(&stage, wanted).await;
    let first = String::from_utf8(take_until(&mut session, "vt220").await.out).unwrap();
    let lines: Vec<&str> = first.split("\r\n").collect();
    assert!(
        matches!(lines[..], ["30 100", tty, "controls", "vt220", ..] if tty.starts_with("/dev/pts/")),
        "{first:?}"
    );
    session.send(&SessionInput::Resize(TerminalSize { rows: 5, columns: 60 })).await.unwrap();
    let rest = take_all(&mut session).await;
    assert!(String::from_utf8_lossy(&rest.out).contains("5 60\r\n"), "{rest:?}");
    assert_eq!(rest.end, Some(SessionEnd::Exited(0)));
    // Ctrl-C reaches the program in the foreground, and Ctrl-D ends what a shell reads.
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    let mut session = open(&stage, SessionProgram { terminal, ..program(&["sh", "-i"]) }).await;
    session.send(&data("sleep 615 || echo inter''rupted $?\n")).await.unwrap();
    until("it sleeps", || processes_with("sleep 615").len() == 1).await;
    session.send(&data("\u{3}")).await.unwrap();
    until("it sleeps no more", || processes_with("sleep 615").is_empty()).await;
    session.send(&data("echo still $((40 + 2)); exit 3\n")).await.unwrap();
    let result = take_all(&mut session).await;
    assert!(String::from_utf8_lossy(&result.out).contains("still 42\r\n"), "{result:?}");
    assert_eq!(result.end, Some(SessionEnd::Exited(3)));
    vm.destroy().await.unwrap();
}

pub(crate) async fn input_and_output_of_any_length_pass_unchanged() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let vm = machine(&stage).await;
    let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut session = open(&stage, program(&["cat"])).await;
    let (mut pieces, mut room, mut has_ended) = (bytes.chunks(4000), WINDOW, false);
    let mut out = Vec::new();
    let pass = async {
        loop {
            while room > 0 && !has_ended {
                match pieces.next() {
                    Some(piece) => {
                        session.send(&SessionInput::Data(Piece(piece.to_vec()))).await.unwrap();
                        room -= 1;
                    }
                    None => {
                        session.send(&SessionInput::End).await.unwrap();
                        has_ended = true;
                    }
                }
            }
            match session.next().await.unwrap() {
                SessionOutput::Taken => room += 1,
                SessionOutput::Data { piece: Piece(bytes), .. } => {
                    out.extend(bytes);
                    session.send(&SessionInput::Taken).await.unwrap();
                }
                SessionOutput::Ended(end) => return end,
                SessionOutput::Opened => {}
            }
        }
    };
    let end = tokio::time::timeout(PATIENCE, pass).await.expect("it ends");
    assert_eq!(end, SessionEnd::Exited(0));
    assert!(out == bytes, "{} of {} bytes came back", out.len(), bytes.len());
    vm.destroy().await.unwrap();
}

pub(crate) async fn a_program_that_floods_its_session_waits_and_the_machine_goes_on() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let mut vm = machine(&stage).await;
    let mut session = open(&stage, program(&["yes", "a line of a flood"])).await;
    let mut count = 0;
    // Nothing is acknowledged.
    while tokio::time::timeout(Duration::from_millis(500), session.next()).await.is_ok() {
        count += 1;
    }
    assert_eq!(count, WINDOW, "no more than a window comes");
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    events_until(&mut vm, line("[runner@runner-0-abc] stopped")).await;
    session.send(&SessionInput::HangUp).await.unwrap();
    until("it is gone", || processes_with("a line of a flood").is_empty()).await;
    vm.destroy().await.unwrap();
}

pub(crate) async fn a_program_ends_with_its_signal_and_one_that_cannot_start_has_a_reason() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let mut vm = machine(&stage).await;
    let mut session = open(&stage, shell("kill -9 $$")).await;
    assert_eq!(take_all(&mut session).await.end, Some(SessionEnd::Killed(9)));
    let refused = async |program| match Session::open(&stage.path("run"), program).await {
        Err(SessionError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let absent = refused(program(&["/nonexistent/program"])).await;
    assert!(absent.starts_with("cannot start /nonexistent/program: No such file"), "{absent}");
    let folder =
        refused(SessionProgram { folder: Some("/nonexistent".to_owned()), ..program(&["ls"]) }).await;
    assert_eq!(folder, "there is no folder /nonexistent in the machine");
    let user = refused(SessionProgram { user: Some("no-such-user".to_owned()), ..program(&["ls"]) }).await;
    assert!(user.contains("no-such-user") || user.contains("belong to"), "{user}");
    let long = "x".repeat(70_000);
    assert!(refused(program(&[&long])).await.contains("65536 are the most"));
    let told = events_until(&mut vm, |event| {
        matches!(event, VmEvent::SessionEnded { how, .. } if how.contains("no-such-user") || how.contains("belong to"))
    })
    .await;
    assert!(
        told.iter()
            .any(|event| matches!(event, VmEvent::SessionEnded { how, .. } if how.contains("signal 9")))
    );
    vm.destroy().await.unwrap();
}

pub(crate) async fn a_program_whose_person_is_gone_is_hung_up_and_killed() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let mut vm = machine(&stage).await;
    for (script, mark) in [
        ("echo ready; sleep 611", "sleep 611"),
        // It ignores the first signal, and writes to a pipe that no host reads.
        ("trap '' HUP; echo ready; while :; do echo stubborn-612; sleep 0.01; done", "stubborn-612"),
    ] {
        let mut session = open(&stage, shell(script)).await;
        take_until(&mut session, "ready").await;
        until("it runs", || !processes_with(mark).is_empty()).await;
        drop(session);
        let told = events_until(&mut vm, is_end).await;
        assert!(
            matches!(told.last(), Some(VmEvent::SessionEnded { how, .. }) if how.contains("hung up")),
            "{told:?}"
        );
        until("it is gone", || processes_with(mark).is_empty()).await;
    }
    vm.destroy().await.unwrap();
}

pub(crate) async fn what_a_program_leaves_behind_does_not_hold_its_session_up() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let vm = machine(&stage).await;
    let begin = Instant::now();
    let mut session = open(&stage, shell("(sleep 613; : mark-613) & echo done")).await;
    let result = take_all(&mut session).await;
    assert_eq!((&result.out[..], result.end), (&b"done\n"[..], Some(SessionEnd::Exited(0))));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(!processes_with("sleep 613").is_empty(), "it goes on");
    vm.destroy().await.unwrap();
    assert_eq!(processes_with("sleep 613"), [""; 0]);
}

pub(crate) async fn a_machine_has_eight_sessions_and_only_its_owner_gets_in() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let vm = machine(&stage).await;
    let socket = stage.path("run/session.sock");
    let mode = std::fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(open(&stage, program(&["cat"])).await);
    }
    let refused = Session::open(&stage.path("run"), program(&["cat"])).await;
    assert!(matches!(refused, Err(SessionError::Refused(why)) if why.contains("8 sessions")));
    let mut last = sessions.pop().expect("one");
    last.send(&SessionInput::End).await.unwrap();
    assert_eq!(take_all(&mut last).await.end, Some(SessionEnd::Exited(0)));
    sessions.push(open(&stage, program(&["cat"])).await);
    vm.destroy().await.unwrap();
    for mut session in sessions {
        let ended = tokio::time::timeout(PATIENCE, async { while session.next().await.is_ok() {} }).await;
        assert!(ended.is_ok(), "the machine is gone, and its sessions with it");
    }
    let nobody = Session::open(&stage.path("run"), program(&["cat"])).await;
    assert!(matches!(nobody, Err(SessionError::NoDoor(_))), "{nobody:?}");
}

pub(crate) async fn the_next_owner_of_a_machine_takes_new_sessions_and_ends_the_old_ones() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let root = stage.path("");
    let first = other_host(&stage, "host");
    let in_machine = async |script: &str| {
        let (run_dir, begin) = (root.join("run"), Instant::now());
        loop {
            match Session::open(&run_dir, shell(script)).await {
                Ok(session) => return session,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut old = in_machine("sleep 614").await;
    kill(first).await;
    assert!(old.next().await.is_err(), "its connection ends with the host");
    assert!(!processes_with("sleep 614").is_empty(), "the machine has not noticed yet");
    let second = other_host(&stage, "heir");
    let mut new = in_machine("echo again").await;
    assert_eq!(take_all(&mut new).await.out, b"again\n");
    until("the old program is gone", || processes_with("sleep 614").is_empty()).await;
    kill(second).await;
    dayfly_vm::destroy_leftover(Path::new(&root.join("run"))).await.unwrap();
}
