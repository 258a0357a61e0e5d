//! The order in which the kernel kills processes if the machine runs out of memory: the job's before the programs that run it,
//! so that a job that uses up its memory loses its own process and nothing else. The agent is process 1, which the kernel
//! never kills. Scores: proc(5), `oom_score_adj`.

use std::fs;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::console;

/// Score of the entrypoint.
const ENTRYPOINT: i32 = -900;
/// Score of the Docker daemon, as its own unit file has it. It gives its containers a score of their own.
const DOCKER: i32 = -500;
const OWN_SCORE: &str = "/proc/self/oom_score_adj";

/// Protects the entrypoint of a machine. With the driver `process` the memory is the host's, and so is the decision.
pub(crate) fn protect_entrypoint(pid: Pid) {
    if std::process::id() == 1 {
        set(&format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), ENTRYPOINT);
    }
}

/// Protects this process, which becomes the Docker daemon.
pub(crate) fn protect_docker() {
    set(OWN_SCORE, DOCKER);
}

/// Writes a score, which later children inherit. A failure is only logged, because it matters only to a machine without memory.
fn set(path: &str, score: i32) {
    if let Err(error) = fs::write(path, score.to_string()) {
        console::say(&format!("cannot write {score} to {path}: {error}"));
    }
}

/// Takes the protection that this process has inherited away from it. Makes only system calls, because it runs between fork
/// and exec. A failure leaves the process as it was.
pub(crate) fn give_up_protection() {
    let Ok(file) = rustix::fs::open(OWN_SCORE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else { return };
    let mut score = [0_u8; 1];
    if matches!(rustix::io::pread(&file, &mut score, 0), Ok(1)) && score == *b"-" {
        let _ = rustix::io::pwrite(&file, b"0", 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    /// Returns the score of a child after `before` has run in it.
    #[expect(unsafe_code, reason = "the function under test runs between fork and exec")]
    fn score_of_child(before: fn()) -> String {
        let mut command = Command::new("cat");
        command.arg(OWN_SCORE);
        // SAFETY: the function makes only system calls.
        unsafe {
            command.pre_exec(move || {
                before();
                Ok(())
            });
        }
        String::from_utf8(command.output().expect("cat").stdout).expect("text").trim().to_owned()
    }

    #[test]
    fn a_child_keeps_its_score_unless_it_is_protected() {
        let own = fs::read_to_string(OWN_SCORE).expect("a score").trim().to_owned();
        let expected = if own.starts_with('-') { "0" } else { &own };
        assert_eq!(score_of_child(give_up_protection), expected);
        // Only root may protect a process.
        if rustix::process::geteuid().is_root() {
            let protected = || {
                let file = rustix::fs::open(OWN_SCORE, OFlags::WRONLY, Mode::empty());
                let _ = file.map(|file| rustix::io::write(&file, b"-500"));
                give_up_protection();
            };
            assert_eq!(score_of_child(protected), "0");
        }
    }
}
