//! Limits the system calls of a VMM to those that it needs.
//!
//! QEMU's own filter (`-sandbox`) forbids what its authors know to be dangerous, and begins only after QEMU has read its
//! options. This one begins before QEMU does, and forbids all that is not listed here, above all: other sockets than those
//! of its network, namespaces, other processes (as an ordinary user, all programs of the user have the same id), `io_uring`,
//! `userfaultfd`, `bpf`, `perf_event_open`, keys, and mounts.
//!
//! A call that is not listed answers as in a kernel that does not have it. So a newer QEMU or library takes another call.

use libc::{c_long, sock_filter};
use serde::{Deserialize, Serialize};

use super::bpf::{allow, begin, load_argument, only, refuse, unless_any, unless_call};

/// The system calls that a VMM may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmmCalls {
    /// True if the VMM is the network of its machine, so it opens sockets of IPv4 and IPv6.
    pub(crate) network: bool,
    /// True if the program is a script that may start other programs. QEMU itself starts none.
    pub(crate) programs: bool,
}

/// The calls that a VMM may make with all arguments. The first are the most frequent ones, because a kernel before 5.11
/// compares each call with the list.
const ALLOWED: [c_long; 126] = [
    // The work of a running machine. Which calls of `ioctl` are possible depends on the descriptors, and no terminal is
    // among them.
    libc::SYS_ioctl,
    libc::SYS_futex,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_yield,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_fallocate,
    libc::SYS_lseek,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_memfd_create,
    libc::SYS_membarrier,
    // Threads, time and signals.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_arch_prctl,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_getrandom,
    // Its own descriptors and the files of its root, which is read-only.
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_stat,
    libc::SYS_fstat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_umask,
    libc::SYS_ftruncate,
    libc::SYS_fadvise64,
    libc::SYS_copy_file_range,
    libc::SYS_sync_file_range,
    // Sockets, which are those that it was given, or those of its network.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_listen,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
];
/// Calls that tell a process about itself, and the one with which the launcher becomes the VMM. QEMU's filter forbids that
/// one later; until then, the VMM finds no other program in its root.
const OF_ITSELF: [c_long; 17] = [
    libc::SYS_execve,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getpgrp,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_capget,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_wait4,
];
/// The calls of a network that the VMM itself is.
const OF_NETWORK: [c_long; 2] = [libc::SYS_connect, libc::SYS_bind];
/// The calls of a script that starts programs.
const OF_PROGRAMS: [c_long; 6] =
    [libc::SYS_fork, libc::SYS_vfork, libc::SYS_kill, libc::SYS_tgkill, libc::SYS_waitid, libc::SYS_setpgid];
/// The flags of `clone` that create a namespace (linux/sched.h).
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

impl VmmCalls {
    /// Returns the filter for the process with this id in its own namespace.
    pub(super) fn filter(self, own: u32) -> Vec<sock_filter> {
        let mut all = begin();
        let mut calls = [&ALLOWED[..], &OF_ITSELF].concat();
        if self.network {
            calls.extend(OF_NETWORK);
        }
        if self.programs {
            calls.extend(OF_PROGRAMS);
        }
        for call in calls {
            all.extend([unless_call(call, 1), allow()]);
        }
        self.new_tasks(&mut all);
        self.new_sockets(&mut all);
        if !self.programs {
            // Its threads signal each other with `tgkill`. Both take the process first.
            for call in [libc::SYS_kill, libc::SYS_tgkill] {
                only(&mut all, call, 0, &[own], libc::EPERM);
            }
        }
        // Limits of its own, and no other process's.
        only(&mut all, libc::SYS_prlimit64, 0, &[0, own], libc::EPERM);
        all.push(refuse(libc::ENOSYS));
        all
    }

    /// Allows threads, and processes if the program starts some. The flags of `clone3` are in memory, which no filter reads;
    /// libraries use `clone` if the kernel does not know it.
    fn new_tasks(self, all: &mut Vec<sock_filter>) {
        all.extend([unless_call(libc::SYS_clone, 6), load_argument(0), unless_any(NAMESPACES, 1)]);
        all.push(refuse(libc::EPERM));
        let needed = if self.programs { u32::MAX } else { libc::CLONE_THREAD.cast_unsigned() };
        all.extend([unless_any(needed, 1), allow(), refuse(libc::EPERM)]);
    }

    /// Allows sockets between processes, and if it is the network of its machine those of IPv4 and IPv6. Others reach the
    /// kernel's netlink, its cryptography, or the host by vsock, which knows no namespaces.
    fn new_sockets(self, all: &mut Vec<sock_filter>) {
        let local = libc::AF_UNIX.cast_unsigned();
        let internet = [libc::AF_INET, libc::AF_INET6].map(i32::cast_unsigned);
        let mut families = vec![local];
        if self.network {
            families.extend(internet);
        }
        only(all, libc::SYS_socket, 0, &families, libc::EAFNOSUPPORT);
        only(all, libc::SYS_socketpair, 0, &[local], libc::EAFNOSUPPORT);
    }
}
