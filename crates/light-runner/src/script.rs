//! Runs the script of a step as a process of its own group, and stops it when it is ordered to.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Wait after SIGINT before SIGTERM, and after SIGTERM before SIGKILL, as in actions/runner.
const AFTER_INTERRUPT: Duration = Duration::from_millis(7500);
const AFTER_TERMINATE: Duration = Duration::from_millis(2500);
/// Longest wait for the end of the output when the script has exited; a process in the background may hold it open.
const DRAIN: Duration = Duration::from_secs(1);
/// Longest line, in bytes; longer ones are split.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// An order to the worker of a job. A later one in this list replaces an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// No order: the job goes on.
    GoOn,
    /// The forge has cancelled the job: `always()` and `cancelled()` steps still run.
    Cancel,
    /// The runner was told to stop: no further step runs, and the job fails.
    ShutDown,
    /// The job no longer belongs to this runner: no further step runs.
    Abandon,
}

/// A script that is ready to run.
#[derive(Debug)]
pub(crate) struct Script {
    /// The program and its arguments.
    pub(crate) line: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) folder: PathBuf,
    /// Longest time that it may take.
    pub(crate) limit: Duration,
}

/// How a script ended.
#[derive(Debug)]
pub(crate) enum ScriptEnd {
    /// By itself, with an exit status; 128 and the number of the signal if it was killed.
    Exited(i32),
    /// It took longer than its limit, and was stopped.
    TimedOut,
    /// It was stopped by an order.
    Stopped(Order),
    /// It could not be started.
    NotStarted(std::io::Error),
}

/// An event of a running script.
#[derive(Clone, Copy)]
enum Happened {
    Output(usize),
    Exited(i32),
    Ordered(Order),
    Deadline,
}

/// How far the stopping of a script is.
#[derive(Clone, Copy)]
enum Stage {
    Running,
    Interrupted,
    Terminated,
    Killed,
}

impl Script {
    /// Runs the script to its end. `take` gets each line of its output.
    pub(crate) async fn run(
        &self,
        orders: &mut watch::Receiver<Order>,
        seen: Order,
        mut take: impl FnMut(&str),
    ) -> ScriptEnd {
        let (mut child, mut output) = match self.start() {
            Ok(started) => started,
            Err(error) => return ScriptEnd::NotStarted(error),
        };
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let send = |signal| group.map(|group| kill_process_group(group, signal));
        let mut lines = Lines::default();
        let mut buffer = vec![0; 16 * 1024];
        let (mut stage, mut deadline, mut reason) = (Stage::Running, Instant::now() + self.limit, None);
        let (mut code, mut is_open) = (None, true);
        while is_open || code.is_none() {
            let happened = tokio::select! {
                read = output.read(&mut buffer), if is_open => Happened::Output(read.unwrap_or(0)),
                status = child.wait(), if code.is_none() => Happened::Exited(status.map_or(-1, exit_code)),
                order = next_order(orders, seen), if reason.is_none() && code.is_none() => Happened::Ordered(order),
                () = sleep_until(deadline) => Happened::Deadline,
            };
            match (happened, stage) {
                (Happened::Output(0), _) => is_open = false,
                (Happened::Output(length), _) => lines.add(&buffer[..length], &mut take),
                (Happened::Exited(status), _) => {
                    code = Some(status);
                    deadline = Instant::now() + DRAIN;
                }
                (Happened::Deadline, _) if code.is_some() => break,
                (Happened::Ordered(_) | Happened::Deadline, Stage::Running) => {
                    reason = Some(match happened {
                        Happened::Ordered(order) => ScriptEnd::Stopped(order),
                        _ => ScriptEnd::TimedOut,
                    });
                    send(Signal::INT);
                    (stage, deadline) = (Stage::Interrupted, Instant::now() + AFTER_INTERRUPT);
                }
                (_, Stage::Interrupted) => {
                    send(Signal::TERM);
                    (stage, deadline) = (Stage::Terminated, Instant::now() + AFTER_TERMINATE);
                }
                (_, Stage::Terminated | Stage::Killed) => {
                    send(Signal::KILL);
                    (stage, deadline) = (Stage::Killed, Instant::now() + DRAIN);
                }
            }
        }
        lines.end(&mut take);
        reason.unwrap_or(ScriptEnd::Exited(code.unwrap_or(-1)))
    }

    fn start(&self) -> std::io::Result<(Child, Receiver)> {
        if self.line.is_empty() {
            return Err(std::io::Error::other("the shell is empty"));
        }
        let (reader, writer) = std::io::pipe()?;
        // A runner that a shell started in the background ignores SIGINT, and so would its steps: a shell cannot trap a signal
        // that was ignored when it began.
        let mut command = Command::new("/usr/bin/env");
        command
            .arg("--default-signal=INT,QUIT")
            .args(&self.line)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stderr(writer.try_clone()?)
            .stdout(writer)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        // `command` still holds the writing end, and the output would never end.
        drop(command);
        Ok((child, Receiver::from_owned_fd(reader.into())?))
    }
}

/// Waits for an order other than `seen`.
async fn next_order(orders: &mut watch::Receiver<Order>, seen: Order) -> Order {
    let given = orders.wait_for(|order| *order != seen).await.map(|order| *order);
    match given {
        Ok(order) => order,
        // The listener is gone, and no order can come any more.
        Err(_) => std::future::pending().await,
    }
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Bytes that are not a whole line yet.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, bytes: &[u8], take: &mut impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.0.len() > LINE_BYTES_MAX {
                self.end(take);
            }
        }
    }

    fn end(&mut self, take: &mut impl FnMut(&str)) {
        let line = std::mem::take(&mut self.0);
        if !line.is_empty() {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            take(&String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, limit: Duration, order: Option<Order>) -> (ScriptEnd, Vec<String>, Duration) {
        let script = Script {
            line: vec!["/bin/sh".into(), "-ec".into(), script.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            folder: "/".into(),
            limit,
        };
        let (orderer, mut orders) = watch::channel(Order::GoOn);
        let (mut lines, began) = (Vec::new(), Instant::now());
        // The order is given once the script says that it is ready for it.
        let end = script.run(&mut orders, Order::GoOn, |line| match (line, order) {
            ("ready", Some(order)) => drop(orderer.send_replace(order)),
            _ => lines.push(line.to_owned()),
        });
        let end = end.await;
        (end, lines, began.elapsed())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn lines_and_the_exit_status_come_back() {
        let (end, lines, _) = run("echo out; echo err >&2; printf last; exit 3", LONG, None).await;
        assert!(matches!(end, ScriptEnd::Exited(3)), "{end:?}");
        assert_eq!(lines, ["out", "err", "last"]);
    }

    #[tokio::test]
    async fn a_process_in_the_background_does_not_hold_the_step() {
        let (end, lines, took) = run("sleep 20 & echo done", LONG, None).await;
        assert!(matches!(end, ScriptEnd::Exited(0)), "{end:?}");
        assert!(lines == ["done"] && took < Duration::from_secs(10), "{took:?}");
    }

    #[tokio::test]
    async fn an_order_interrupts_and_a_limit_stops() {
        let trap =
            "trap 'echo GOT-INT; exit 1' INT; echo ready; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done";
        let (end, lines, took) = run(trap, LONG, Some(Order::Cancel)).await;
        assert!(matches!(end, ScriptEnd::Stopped(Order::Cancel)), "{end:?}");
        assert!(lines == ["GOT-INT"] && took < Duration::from_secs(5), "{lines:?} {took:?}");
        let (end, ..) = run("sleep 60", Duration::from_millis(300), None).await;
        assert!(matches!(end, ScriptEnd::TimedOut), "{end:?}");
    }

    #[tokio::test]
    async fn a_script_that_ignores_signals_is_killed() {
        let (end, _, took) =
            run("trap '' INT TERM; echo ready; sleep 60 & wait", LONG, Some(Order::ShutDown)).await;
        assert!(matches!(end, ScriptEnd::Stopped(Order::ShutDown)), "{end:?}");
        assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&took), "{took:?}");
    }
}
