//! The check for inotify, with which dayfly, its agents of the driver `process` and their entrypoints watch folders.

use std::fs;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::Check;

const NAME: &str = "inotify";

/// What this user may have of inotify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Another instance and another watch.
    Free,
    /// No other instance.
    NoInstance,
    /// No other watch.
    NoWatch,
    /// It cannot be found out.
    Unknown(Errno),
}

/// Checks that this user may have another inotify instance and another watch, by taking them for a moment.
pub(super) fn check() -> Check {
    let limit = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    };
    judge(room(), limit("max_user_instances"), limit("max_user_watches"))
}

fn room() -> Room {
    let instance = match inotify::init(CreateFlags::CLOEXEC) {
        Ok(instance) => instance,
        Err(Errno::MFILE) => return Room::NoInstance,
        Err(error) => return Room::Unknown(error),
    };
    match inotify::add_watch(&instance, "/", WatchFlags::DELETE_SELF) {
        Ok(_) => Room::Free,
        Err(Errno::NOSPC) => Room::NoWatch,
        Err(error) => Room::Unknown(error),
    }
}

/// Judges what this user may have. The limits are those of one user.
fn judge(room: Room, instances: u64, watches: u64) -> Check {
    let used_up = |all: u64, what: &str, key: &str| {
        let seen = format!(
            "this user has used up its {all} {what}: folders are looked at again and again, so changes are noticed up to a \
             second later"
        );
        let more = (all * 2).max(1024);
        let mend = format!("sysctl -w fs.inotify.{key}={more}; a file in /etc/sysctl.d keeps it");
        Check::warn(NAME, seen, Some(&mend))
    };
    match room {
        Room::Free => {
            Check::ok(NAME, format!("{instances} instances and {watches} watches for each user at most"))
        }
        Room::NoInstance => used_up(instances, "instances", "max_user_instances"),
        Room::NoWatch => used_up(watches, "watches", "max_user_watches"),
        Room::Unknown(error) => Check::warn(NAME, format!("it cannot be tried: {error}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_or_watches_that_are_used_up_are_named_with_their_setting() {
        let all = [Room::Free, Room::NoInstance, Room::NoWatch, Room::Unknown(Errno::PERM)];
        let shown = all.map(|room| {
            let Check { state, seen, mend, .. } = judge(room, 128, 65536);
            format!("{state:?}: {seen}{}", mend.map(|mend| format!(" -> {mend}")).unwrap_or_default())
        });
        insta::assert_snapshot!(shown.join("\n"));
    }

    /// A user namespace has limits of its own, so that this takes nothing from the other programs of this user.
    #[test]
    #[expect(clippy::print_stdout, reason = "the child tells what it has found")]
    fn a_user_without_another_instance_or_watch_is_found_out_by_trying() {
        const CASE: &str = "DAYFLY_TEST_INOTIFY";
        const TEST: &str =
            "host::inotify::tests::a_user_without_another_instance_or_watch_is_found_out_by_trying";
        if std::env::var_os(CASE).is_some() {
            return println!("ROOM {:?}", room());
        }
        let script = r#"echo 0 > /proc/sys/user/"$1" && shift && exec "$@""#;
        for (limit, found) in [("max_inotify_instances", "NoInstance"), ("max_inotify_watches", "NoWatch")] {
            let child = std::process::Command::new("unshare")
                .args(["--user", "--map-root-user", "sh", "-c", script, "sh", limit])
                .arg(std::env::current_exe().expect("this program"))
                .args(["--exact", TEST, "--nocapture"])
                .env(CASE, "1")
                .output()
                .expect("unshare");
            let text = String::from_utf8_lossy(&child.stdout);
            assert!(
                text.contains(&format!("ROOM {found}")),
                "{text}{}",
                String::from_utf8_lossy(&child.stderr)
            );
        }
    }
}
