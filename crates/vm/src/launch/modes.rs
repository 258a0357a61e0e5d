//! Forbids a file server to make files that give their user the rights of another one.
//!
//! A mount that hides such rights in the server's namespace would not help, because the files stay on the host. The server's
//! own filter of system calls looks at no modes.

use super::bpf::{allow, begin, load_argument, refuse, unless_any, unless_call};

/// The bits of a mode that give a program the rights of its file's owner or group: setuid and setgid.
const RIGHTS: u32 = 0o6000;
/// Flags of `open` with which it reads a mode: `O_CREAT`, and the bit of `O_TMPFILE` that no other flag has.
const CREATING: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
/// The system calls that take a mode, with the index of this argument, from the kernel's table for x86-64.
const WITH_MODE: [(libc::c_long, u32); 7] = [
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (libc::SYS_fchmodat2, 2),
    (libc::SYS_creat, 1),
    (libc::SYS_mknod, 1),
    (libc::SYS_mknodat, 2),
];
/// The system calls that take a mode only if they create a file, with the indices of the flags and of the mode.
const WITH_FLAGS: [(libc::c_long, u32, u32); 2] = [(libc::SYS_open, 1, 2), (libc::SYS_openat, 2, 3)];

/// Returns a filter with which each system call that would set these bits fails with `EPERM`.
pub(super) fn filter() -> Vec<libc::sock_filter> {
    let mut all = begin();
    // Its mode is in memory, which no filter reads. Programs use `openat` if the kernel does not know it.
    all.extend([unless_call(libc::SYS_openat2, 1), refuse(libc::ENOSYS)]);
    for (call, mode) in WITH_MODE {
        all.extend([
            unless_call(call, 4),
            load_argument(mode),
            unless_any(RIGHTS, 1),
            refuse(libc::EPERM),
            allow(),
        ]);
    }
    for (call, flags, mode) in WITH_FLAGS {
        all.extend([
            unless_call(call, 6),
            load_argument(flags),
            unless_any(CREATING, 3),
            load_argument(mode),
            unless_any(RIGHTS, 1),
            refuse(libc::EPERM),
            allow(),
        ]);
    }
    all.push(allow());
    all
}

#[cfg(test)]
#[expect(unsafe_code, reason = "a child takes on the filter before it runs its program")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::super::bpf::take_on;
    use super::*;

    #[test]
    fn a_server_makes_files_and_folders_but_none_that_gives_rights() {
        let folder = tempfile::tempdir().expect("folder");
        let script = "umask 0; mkdir d; echo x >a && chmod 755 a && mkfifo f && cp a b || exit 9
            for mode in 4755 2755 6777; do chmod $mode a && exit 10; install -m $mode a c && exit 11; done
            python3 -c 'import os; os.open(\"g\", os.O_CREAT | os.O_RDWR, 0o4755)' && exit 12
            exit 0";
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder.path());
        // SAFETY: the closure makes system calls only, and allocates before any other thread could hold a lock: the child
        // of a fork that the test waits for.
        unsafe {
            command.pre_exec(|| {
                rustix::thread::set_no_new_privs(true)?;
                take_on(&filter())
            });
        }
        let output = command.output().expect("run");
        assert!(output.status.success(), "{output:?}");
        let mode = |name: &str| {
            let metadata = std::fs::metadata(folder.path().join(name));
            metadata.map(|metadata| metadata.permissions().mode() & 0o7777)
        };
        assert_eq!(mode("a").expect("made"), 0o755);
        assert_eq!(mode("b").expect("made") & RIGHTS, 0);
        assert!(mode("g").is_err(), "it was not made at all");
    }
}
