//! Forbids a file server to make files that give their user the rights of another one.
//!
//! A mount that hides such rights in the server's namespace would not help, because the files stay on the host. The server's
//! own filter of system calls looks at no modes.
#![expect(unsafe_code, reason = "a filter of system calls has no safe wrapper")]

use std::io;

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
/// Offset of the system call's number in `struct seccomp_data`.
const NUMBER: u32 = 0;

/// Makes each system call of this process, and of the program that replaces it, that would set these bits fail with `EPERM`.
/// A process without privileges must have given up new privileges before.
pub(super) fn forbid_setuid() -> io::Result<()> {
    let filter = filter();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program has the length that it says, and the kernel copies it.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn filter() -> Vec<libc::sock_filter> {
    let refuse = |error: i32| answer(libc::SECCOMP_RET_ERRNO | error.cast_unsigned());
    let mut all = vec![load(NUMBER)];
    // Its mode is in memory, which no filter reads. Programs use `openat` if the kernel does not know it.
    all.extend([unless_equal(libc::SYS_openat2, 1), refuse(libc::ENOSYS)]);
    for (call, mode) in WITH_MODE {
        all.extend([
            unless_equal(call, 4),
            load(argument(mode)),
            unless_any(RIGHTS, 1),
            refuse(libc::EPERM),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    for (call, flags, mode) in WITH_FLAGS {
        all.extend([
            unless_equal(call, 6),
            load(argument(flags)),
            unless_any(CREATING, 3),
            load(argument(mode)),
            unless_any(RIGHTS, 1),
            refuse(libc::EPERM),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    all.push(answer(libc::SECCOMP_RET_ALLOW));
    all
}

/// Returns the offset of the lower half of an argument in `struct seccomp_data`. Modes and flags have 32 bits.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

fn instruction(code: u32, jump_false: u8, value: u32) -> libc::sock_filter {
    // Codes are small numbers of linux/bpf_common.h.
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: jump_false, k: value }
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset)
}

/// Skips so many instructions unless the loaded value is this system call's number.
fn unless_equal(call: libc::c_long, skip: u8) -> libc::sock_filter {
    let number = u32::try_from(call).unwrap_or(u32::MAX);
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, number)
}

/// Skips so many instructions unless the loaded value has any of these bits.
fn unless_any(bits: u32, skip: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, skip, bits)
}

fn answer(value: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

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
                forbid_setuid()
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
