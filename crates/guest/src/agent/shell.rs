//! Offers a shell on the console, for a person who inspects a machine.

use super::Agent;
use dayfly_guest::runner_app::SEARCH_PATH;
use std::fs::{File, OpenOptions};
use std::io;
use std::process::Command;
use std::time::Duration;

const CONSOLE: &str = "/dev/ttyS0";

/// Pause between a shell that has exited and the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs one shell after another. Returns only if a shell cannot be started.
pub(super) fn run(agent: &Agent) {
    loop {
        let ended = console().and_then(|console| {
            // `setsid` makes the console the shell's own terminal, so that Ctrl-C reaches the programs in it.
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
                // The next shell follows whatever the status is.
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
