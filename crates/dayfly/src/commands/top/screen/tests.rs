//! Tests on a terminal of their own: a pseudo terminal, on which this test program runs once more.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use super::*;
use crate::printer;
use crate::settings::Places;

/// Tells the program on the terminal what to do: a state folder to show, or to panic.
const PART: &str = "DAYFLY_TEST_SCREEN";
const PANIC: &str = "panic";
/// Longest time until the program has done something.
const LIMIT: Duration = Duration::from_secs(60);
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
/// A word of the first picture. Blanks are not sent, so there are no longer texts to look for.
const WORD: &str = "orchestrator";

/// The program that the other tests run on a terminal of their own. By itself it does nothing.
#[tokio::test]
async fn the_program_on_the_terminal() {
    let Ok(part) = std::env::var(PART) else { return };
    if part == PANIC {
        let mut screen = Screen::enter().expect("a screen");
        screen.draw(|frame| frame.render_widget("before the bug", frame.area())).expect("drawn");
        panic!("this is the bug");
    }
    let ended = crate::commands::top::run(&Places::for_tests(Path::new(&part))).await;
    printer::line(format_args!("ended: {ended:?}"));
}

/// The program on its terminal.
struct Played {
    child: Child,
    terminal: File,
    before: Termios,
    pieces: mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Played {
    fn start(part: &str) -> Self {
        let main =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&main).and_then(|()| unlockpt(&main)).expect("unlocked");
        tcsetwinsize(&main, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let name = ptsname(&main, Vec::new()).expect("a name").into_string().expect("text");
        let other = File::options().read(true).write(true).open(name).expect("its other end");
        let before = tcgetattr(&other).expect("its modes");
        let stdio = || Stdio::from(other.try_clone().expect("a descriptor"));
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "commands::top::screen::tests::the_program_on_the_terminal", "--nocapture"])
            .env(PART, part)
            .env("TERM", "xterm")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .expect("started");
        let terminal = File::from(main);
        let mut reader = terminal.try_clone().expect("a descriptor");
        let (sender, pieces) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, terminal, before, pieces, shown: String::new() }
    }

    /// Waits until the terminal has been sent a text.
    fn until(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let piece =
                self.pieces.recv_timeout(left).unwrap_or_else(|_| panic!("{text:?} not in {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.terminal).expect("its modes")
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("sent");
    }

    /// Waits for the end, and checks that the terminal is as it was.
    fn ends_with(mut self, text: &str) {
        self.until(text);
        self.child.wait().expect("ended");
        let (_, after) = self.shown.split_once(ENTER).expect("a screen");
        let (_, after) = after.split_once(LEAVE).expect("it was left");
        assert!(after.contains(text), "{text:?} is on the screen that was left: {:?}", self.shown);
        assert!(after.contains("\u{1b}[?25h"), "the cursor is shown again: {after:?}");
        let (before, after) = (&self.before, self.modes());
        assert_eq!((before.local_modes, before.input_modes), (after.local_modes, after.input_modes));
        assert_eq!((before.output_modes, before.control_modes), (after.output_modes, after.control_modes));
    }
}

/// Starts the program for a host without processes, and waits for its first picture.
fn shown() -> (tempfile::TempDir, Played) {
    let state = tempfile::tempdir().expect("a folder");
    let mut played = Played::start(state.path().to_str().expect("text"));
    played.until(WORD);
    assert!(!played.modes().local_modes.contains(LocalModes::ICANON), "keys come at once");
    (state, played)
}

#[test]
fn the_terminal_is_as_it_was_after_a_key_that_quits() {
    for key in ["q", "\u{3}"] {
        let (_state, mut played) = shown();
        played.terminal.write_all(key.as_bytes()).expect("typed");
        played.ends_with("ended: Ok(Success)");
    }
}

#[test]
fn the_terminal_is_as_it_was_after_sigterm_and_sighup() {
    for (signal, name) in [(Signal::TERM, "Terminate"), (Signal::HUP, "HangUp")] {
        let (_state, played) = shown();
        played.send(signal);
        played.ends_with(&format!("ended: Ok(StoppedBy({name}))"));
    }
}

#[test]
fn the_terminal_is_as_it_was_after_a_panic_whose_message_can_be_read() {
    let played = Played::start(PANIC);
    played.ends_with("this is the bug");
}

#[test]
fn a_pipe_and_a_dumb_terminal_are_refused_with_the_reason() {
    let shown = [(false, Some("xterm")), (true, Some("dumb")), (true, None), (true, Some("xterm"))]
        .map(|(is_terminal, kind)| unfit(is_terminal, kind).unwrap_or_default());
    insta::assert_snapshot!(shown.join("\n"));
}
