//! What the hostile program tries. It prints one line for each attack: whether the jail held, and the kernel's answer.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::TcpStream;
use std::os::fd::FromRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::ExitCode;

use libc::c_long;

/// The first word of a line about an attack that failed.
pub(crate) const HELD: &str = "held";
/// The first word of a line about an attack that was successful.
pub(crate) const GAINED: &str = "gained";
/// Exit status of a program that has tried everything.
pub(crate) const DONE: u8 = 7;
/// Name of a socket of the test's, which has no path.
pub(crate) const ABSTRACT: &[u8] = b"dayfly-hostile-test";
/// Numbers of the first descriptor that a VMM gets, and of the one after the last.
const DESCRIPTORS: std::ops::Range<i32> = 10..40;

/// What to attack. It reaches the hostile program as the name of its machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// A port of the host's loopback.
    pub(crate) port: u16,
    /// A process of the host.
    pub(crate) process: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    All,
    /// Only a system call of i386, which ends the program.
    OtherArchitecture,
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "x-{}-{}-{}", self.port, self.process, u8::from(self.kind == Kind::All))
    }
}

impl Target {
    fn parse(name: &str) -> Self {
        let words: Vec<&str> = name.rsplit('-').collect();
        let kind = if words[0] == "1" { Kind::All } else { Kind::OtherArchitecture };
        Self { port: words[2].parse().unwrap(), process: words[1].parse().unwrap(), kind }
    }
}

/// Attacks the target that a machine's name describes.
pub(crate) fn run(name: &str) -> ExitCode {
    let target = Target::parse(name);
    if target.kind == Kind::OtherArchitecture {
        call_i386();
        println!("{GAINED} i386: a call was answered");
        return DONE.into();
    }
    let process = c_long::from(target.process);
    read_files();
    write_files();
    open_anew();
    make_calls();
    open_sockets();
    reach(&target);
    touch_processes(process);
    raise_limits();
    count_capabilities();
    DONE.into()
}

fn told<T>(attack: impl fmt::Display, result: io::Result<T>) {
    match result {
        Ok(_) => println!("{GAINED} {attack}"),
        Err(error) => println!("{HELD} {attack}: {error}"),
    }
}

/// Nothing of the host has a path.
fn read_files() {
    for path in [
        "/etc/passwd",
        "/etc/shadow",
        "/etc/resolv.conf",
        "/root",
        "/home",
        "/var",
        "/run",
        "/sys",
        "/boot",
        "/usr/bin/sh",
        "/bin/sh",
        "/usr/bin/env",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/net/tun",
        "/dev/vda",
        "/dev/sda",
        "/dev/pts",
        "/dev/shm",
        "/proc/1",
        "/proc/sys",
        "/proc/kcore",
        "/proc/self/cwd/../etc/passwd",
        "/proc/self/root/etc/passwd",
        "/../etc/passwd",
    ] {
        told(format_args!("read {path}"), File::open(path));
    }
    // The names of the files that it has as descriptors.
    for number in DESCRIPTORS {
        if let Ok(path) = fs::read_link(format!("/proc/self/fd/{number}"))
            && path.is_absolute()
            && !path.ends_with("qboot.rom")
            && !path.to_string_lossy().contains("memfd:")
        {
            told(format_args!("open the file of {number} by its path"), File::open(path));
        }
    }
}

fn write_files() {
    for folder in ["/", "/dev", "/etc", "/usr", "/usr/lib", "/lib", "/proc/self"] {
        told(format_args!("create a file in {folder}"), File::create(format!("{folder}/hostile")));
    }
    for file in ["/proc/self/oom_score_adj", "/proc/self/coredump_filter", "/proc/self/uid_map"] {
        told(format_args!("write {file}"), fs::write(file, "0"));
    }
    told("write its program", OpenOptions::new().append(true).open("/proc/self/exe"));
}

/// The descriptors that are for reading stay so.
fn open_anew() {
    let mut tried = 0;
    for number in DESCRIPTORS {
        // SAFETY: the call takes numbers only.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
        let path = format!("/proc/self/fd/{number}");
        let is_file = fs::metadata(&path).is_ok_and(|found| found.file_type().is_file());
        if flags >= 0 && is_file && flags & libc::O_ACCMODE == libc::O_RDONLY {
            tried += 1;
            let opened = OpenOptions::new().read(true).write(true).open(&path);
            told(format_args!("open anew for writing: {number}"), opened);
        }
    }
    if tried < 3 {
        println!("{GAINED} nothing: only {tried} files are for reading");
    }
}

/// Expects this answer of the kernel to a call.
fn expect(attack: &str, call: c_long, args: [c_long; 4], expected: i32) {
    let [a, b, c, d] = args;
    // SAFETY: the arguments are numbers, or pointers that are null or lead to memory of the caller that lives as long.
    let result = unsafe { libc::syscall(call, a, b, c, d) };
    let error = io::Error::last_os_error();
    if call == libc::SYS_fork && result == 0 {
        // SAFETY: ends a child that should not exist.
        unsafe { libc::_exit(0) };
    }
    match result {
        -1 if error.raw_os_error() == Some(expected) => println!("{HELD} {attack}: {error}"),
        -1 => println!("{GAINED} {attack}: an answer of the kernel itself: {error}"),
        result => println!("{GAINED} {attack}: {result}"),
    }
}

/// Calls with zeroes do no harm if they are made. The filter answers as a kernel that does not have them, while a kernel that
/// has them would refuse zeroes otherwise, or accept them.
fn make_calls() {
    for (name, call) in [
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("process_madvise", libc::SYS_process_madvise),
        ("pidfd_open", libc::SYS_pidfd_open),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("kcmp", libc::SYS_kcmp),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("move_mount", libc::SYS_move_mount),
        ("open_tree", libc::SYS_open_tree),
        ("fsopen", libc::SYS_fsopen),
        ("pivot_root", libc::SYS_pivot_root),
        ("chroot", libc::SYS_chroot),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_setup", libc::SYS_io_setup),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("inotify_init1", libc::SYS_inotify_init1),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("name_to_handle_at", libc::SYS_name_to_handle_at),
        ("finit_module", libc::SYS_finit_module),
        ("init_module", libc::SYS_init_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("syslog", libc::SYS_syslog),
        ("acct", libc::SYS_acct),
        ("quotactl", libc::SYS_quotactl),
        ("setuid", libc::SYS_setuid),
        ("setresuid", libc::SYS_setresuid),
        ("setgroups", libc::SYS_setgroups),
        ("capset", libc::SYS_capset),
        ("personality", libc::SYS_personality),
        ("sched_setaffinity", libc::SYS_sched_setaffinity),
        ("setpriority", libc::SYS_setpriority),
        ("mknod", libc::SYS_mknod),
        ("symlink", libc::SYS_symlink),
        ("unlink", libc::SYS_unlink),
        ("chmod", libc::SYS_chmod),
        ("shmget", libc::SYS_shmget),
        ("mq_open", libc::SYS_mq_open),
        ("modify_ldt", libc::SYS_modify_ldt),
        ("fork", libc::SYS_fork),
        ("clone3", libc::SYS_clone3),
        ("execveat", libc::SYS_execveat),
        ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset),
        ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
    ] {
        expect(name, call, [0; 4], libc::ENOSYS);
    }
    // A process of its own, and threads in a namespace of their own.
    expect("clone", libc::SYS_clone, [c_long::from(libc::SIGCHLD), 0, 0, 0], libc::EPERM);
    let apart = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    expect("clone with a user namespace", libc::SYS_clone, [apart, 0, 0, 0], libc::EPERM);
    told("start a program", std::process::Command::new("/bin/sh").status());
}

fn open_sockets() {
    for (name, family) in [
        ("netlink", libc::AF_NETLINK),
        ("packet", libc::AF_PACKET),
        ("vsock", libc::AF_VSOCK),
        ("cryptography", libc::AF_ALG),
        ("bluetooth", libc::AF_BLUETOOTH),
        ("XDP", libc::AF_XDP),
    ] {
        let args = [c_long::from(family), c_long::from(libc::SOCK_RAW), 0, 0];
        expect(&format!("a socket of {name}"), libc::SYS_socket, args, libc::EAFNOSUPPORT);
    }
    let raw = [libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP, 0].map(c_long::from);
    expect("a raw socket", libc::SYS_socket, raw, libc::EPERM);
}

fn reach(target: &Target) {
    told("connect to a port of the host", TcpStream::connect(("127.0.0.1", target.port)));
    let name = SocketAddr::from_abstract_name(ABSTRACT).unwrap();
    told("connect to a socket of the host that has no path", UnixStream::connect_addr(&name));
    told("connect to a socket of the host", UnixStream::connect("/run/dbus/system_bus_socket"));
}

fn touch_processes(process: c_long) {
    let nothing = [process, 0, 0, 0];
    expect("signal a process of the host", libc::SYS_kill, nothing, libc::EPERM);
    expect("signal a thread of the host", libc::SYS_tgkill, [process, process, 0, 0], libc::EPERM);
    expect("signal all processes", libc::SYS_kill, [-1, 0, 0, 0], libc::EPERM);
    expect("signal its group", libc::SYS_kill, [0; 4], libc::EPERM);
    expect("limits of a process of the host", libc::SYS_prlimit64, [process, 7, 0, 0], libc::EPERM);
}

fn raise_limits() {
    for (name, resource) in
        [("files", libc::RLIMIT_NOFILE), ("core", libc::RLIMIT_CORE), ("length", libc::RLIMIT_FSIZE)]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure lives as long as the calls.
        let result = unsafe {
            libc::getrlimit(resource, &raw mut limit);
            limit.rlim_max += 1;
            libc::setrlimit(resource, &raw const limit)
        };
        told(format_args!("raise the limit of {name}"), answer(result));
    }
    // SAFETY: no handler is set, the signal is ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let mut tried = false;
    for number in DESCRIPTORS {
        // SAFETY: the call takes numbers only.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
        if flags < 0 || flags & libc::O_ACCMODE != libc::O_RDWR {
            continue;
        }
        // SAFETY: the number is open, and the copy belongs to the file alone.
        let file = unsafe { File::from_raw_fd(libc::dup(number)) };
        if file.metadata().is_ok_and(|found| found.is_file()) {
            tried = true;
            told(format_args!("write far behind the end of {number}"), file.write_all_at(b"x", 1 << 40));
            told(format_args!("enlarge {number}"), file.set_len(1 << 40));
        }
    }
    if !tried {
        println!("{GAINED} nothing: no file is for writing");
    }
}

fn answer(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn count_capabilities() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for (name, expected) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        let word = if found == Some(expected) { HELD } else { GAINED };
        println!("{word} {name}: {found:?}");
    }
}

/// Asks for the process id by the way of 32-bit programs (`getpid` is 20 there).
fn call_i386() {
    // SAFETY: the call has no arguments and changes the first register only.
    unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => _) };
}
