//! Limits the system calls of a gate to those that it needs: it waits, and speaks by the sockets of its machine's network.
//!
//! A call that is not listed answers as in a kernel that does not have it. So the gate opens no file, starts nothing, and
//! changes no limit, no namespace and no other process.

use libc::{c_long, sock_filter};

use super::bpf::{allow, begin, only, refuse, unless_call};

/// The calls that a gate may make with all arguments. The first are the most frequent ones.
const ALLOWED: [c_long; 45] = [
    // Waiting, and the messages of its sockets.
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_epoll_ctl,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_accept4,
    libc::SYS_read,
    libc::SYS_write,
    // Its ledger.
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_fcntl,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Time, randomness and its own thread.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// `FIONBIO` of asm-generic/ioctls.h, which makes a socket report instead of waiting.
const FIONBIO: u32 = 0x5421;
/// `SIOCGIFINDEX` of linux/sockios.h, which asks whether a link exists.
const SIOCGIFINDEX: u32 = 0x8933;

/// Returns the filter of a gate.
pub(super) fn filter() -> Vec<sock_filter> {
    let mut all = begin();
    for call in ALLOWED {
        all.extend([unless_call(call, 1), allow()]);
    }
    // A new one for each question. Its socket of netlink is opened before.
    only(&mut all, libc::SYS_socket, 0, &[libc::AF_INET.cast_unsigned()], libc::EAFNOSUPPORT);
    // The runtime wakes itself by a pair.
    only(&mut all, libc::SYS_socketpair, 0, &[libc::AF_UNIX.cast_unsigned()], libc::EAFNOSUPPORT);
    only(&mut all, libc::SYS_ioctl, 1, &[FIONBIO, SIOCGIFINDEX], libc::EPERM);
    all.push(refuse(libc::ENOSYS));
    all
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{TcpListener, UdpSocket};

    use rustix::net::{AddressFamily, SocketType, socket};

    use super::super::bpf::take_on;
    use super::*;

    /// Runs `work` in a thread with the filter, which no other thread gets.
    fn in_a_gate<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).expect("no new privileges");
            take_on(&filter()).expect("a filter");
            work()
        });
        thread.join().expect("the thread ended")
    }

    fn number<T>(result: Result<T, impl Into<io::Error>>) -> Option<i32> {
        result.err().and_then(|error| error.into().raw_os_error())
    }

    #[test]
    fn a_gate_speaks_by_its_sockets() {
        let (spoken, answer) = in_a_gate(|| {
            let (one, other) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
            let (one, other) = (one.expect("a socket"), other.expect("a socket"));
            one.set_nonblocking(true).expect("an ioctl");
            let spoken = other.send_to(b"x", one.local_addr().expect("an address")).expect("sent");
            (spoken, one.recv(&mut [0; 1]).expect("received"))
        });
        assert_eq!((spoken, answer), (1, 1));
    }

    #[test]
    fn a_gate_opens_no_file_starts_nothing_and_has_no_other_sockets() {
        let own = rustix::process::getpid();
        let refused = in_a_gate(move || {
            [
                number(std::fs::File::open("/dev/null")),
                number(std::fs::read_dir("/")),
                number(std::process::Command::new("/bin/true").status()),
                number(rustix::process::kill_process(own, rustix::process::Signal::CONT)),
                number(socket(AddressFamily::NETLINK, SocketType::RAW, None)),
                number(socket(AddressFamily::UNIX, SocketType::STREAM, None)),
                number(socket(AddressFamily::VSOCK, SocketType::STREAM, None)),
                number(socket(AddressFamily::INET6, SocketType::DGRAM, None)),
                number(TcpListener::bind("127.0.0.1:0")),
                number(rustix::io::ioctl_fionread(rustix::stdio::stdin())),
            ]
        });
        let [none, family] = [libc::ENOSYS, libc::EAFNOSUPPORT].map(Some);
        assert_eq!(
            refused,
            [none, none, none, none, family, family, family, family, none, Some(libc::EPERM)]
        );
    }
}
