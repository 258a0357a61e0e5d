//! A shell on the console, for a person who wants to look inside a machine that was kept.

use super::Agent;
use dayfly_guest::runner_app::SEARCH_PATH;
use std::fs::{File, OpenOptions};
use std::io;
use std::process::Command;
use std::time::Duration;

const CONSOLE: &str = "/dev/ttyS0";

/// Between a shell that has ended and the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs one shell after another.
pub(super) fn run(agent: &Agent) {
    loop {
        let ended = console().and_then(|console| {
            // `setsid` makes the console the shell's own terminal, so that Ctrl-C reaches what runs in it.
            let mut command = Command::new("/usr/bin/setsid");
            command.args(["--ctty", "/bin/bash", "--login"]).env_clear().envs([
                ("HOME", "/root"),
                ("TERM", "linux"),
                ("PATH", SEARCH_PATH),
            ]);
            command
                .current_dir("/root")
                .stdin(console.try_clone()?)
                .stdout(console.try_clone()?)
                .stderr(console);
            agent.children.spawn(command)
        });
        match ended {
            Ok((_, ended)) => {
                // Whatever its status is: the next one follows.
                let _ = ended.recv();
            }
            Err(error) => return agent.fault(format!("cannot offer a shell on {CONSOLE}: {error}")),
        }
        std::thread::sleep(PAUSE);
    }
}

fn console() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONSOLE)
}
