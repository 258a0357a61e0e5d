//! The host's network, and everything beyond it, in namespaces of the test's own:
//!
//! ```text
//!   tested process, an ordinary user ─ "host" ─ up0 ══ w0 ─ world: many addresses, servers
//! ```
//!
//! The program that makes them is root, or root in a user namespace of its own, and starts the tested one without these rights.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::thread::UnshareFlags;

use crate::names;

/// First argument of this program if it is the world.
pub(crate) const WORLD: &str = "become-the-world";
/// First argument of this program if it tests as an ordinary user.
pub(crate) const AS_USER: &str = "as-an-ordinary-user";
/// The same in the user namespace of another ordinary user, where that one is root.
pub(crate) const AS_NESTED_USER: &str = "as-an-ordinary-user-in-a-namespace";
/// The id of an ordinary user.
const ORDINARY: u32 = 65534;
/// The addresses of the world.
const ADDRESSES: [&str; 9] = [
    "203.0.113.80",
    "203.0.113.81",
    "10.53.0.53",
    "10.1.2.3",
    "192.168.7.7",
    "192.168.7.8",
    "169.254.169.254",
    "168.63.129.16",
    "100.64.1.1",
];
/// The host's address, on a network with broadcasts.
const HOST: &str = "203.0.113.1";
/// The DNS server.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 53);

pub(crate) fn run(program: &str, args: &str) {
    let status = Command::new(program).args(args.split_whitespace()).status().unwrap();
    assert!(status.success(), "{program} {args}");
}

/// Serves a word to everyone who connects.
pub(crate) fn serve(listener: TcpListener, word: &'static str) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.write_all(word.as_bytes());
                // It ends with its client, so that many are open at once.
                let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
}

/// Enters namespaces in a process with one thread. Without root, this user becomes root in a user namespace.
pub(crate) fn enter(flags: UnshareFlags, as_id: u32) {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // SAFETY: this process has one thread, and holds no descriptor whose meaning depends on a namespace.
    unsafe { rustix::thread::unshare_unsafe(flags) }.unwrap();
    if flags.contains(UnshareFlags::NEWUSER) {
        std::fs::write("/proc/self/setgroups", "deny").unwrap();
        std::fs::write("/proc/self/uid_map", format!("{as_id} {uid} 1")).unwrap();
        std::fs::write("/proc/self/gid_map", format!("{as_id} {gid} 1")).unwrap();
    }
}

/// Becomes the world: waits for its link, then serves until its standard input ends.
pub(crate) fn become_world() {
    enter(UnshareFlags::NEWNET, 0);
    println!("entered");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    run("ip", "link set lo up");
    run("ip", "link set w0 up");
    for address in ADDRESSES {
        run("ip", &format!("address add {address}/32 dev w0"));
    }
    run("ip", &format!("route add {HOST}/32 dev w0"));
    for port in [22, 80, 443] {
        serve(TcpListener::bind(("0.0.0.0", port)).unwrap(), "world");
    }
    names::serve(DNS);
    println!("serves");
    let _ = std::io::stdin().read(&mut [0; 1]);
}

/// The world's process, which ends with this value.
struct World(Child);

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a host's network with a world around it in new namespaces.
fn make() -> World {
    let is_root = rustix::process::geteuid().is_root();
    let user = if is_root { UnshareFlags::empty() } else { UnshareFlags::NEWUSER };
    enter(user | UnshareFlags::NEWNET | UnshareFlags::NEWNS, 0);
    run("mount", "--make-rprivate /");
    let mut command = Command::new("/proc/self/exe");
    let mut world = World(command.arg(WORLD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(world.0.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "entered");
    run("ip", "link set lo up");
    run("ip", &format!("link add up0 type veth peer name w0 netns {}", world.0.id()));
    run("ip", &format!("address add {HOST}/24 brd + dev up0"));
    run("ip", "link set up0 up");
    world.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "serves");
    for address in ADDRESSES.iter().filter(|address| !address.starts_with("203.0.113.")) {
        run("ip", &format!("route add {address}/32 dev up0"));
    }
    // The tested process serves at ports of the host.
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").unwrap();
    world
}

/// Puts another file in the place of the kernel's tap devices: one that every user may open, as on ordinary hosts, or one that is none.
fn replace_tun(is_device: bool) -> Option<tempfile::TempDir> {
    if !is_device {
        run("mount", "--bind /dev/null /dev/net/tun");
        return None;
    }
    if !rustix::process::geteuid().is_root() || is_open_to_all() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    // The folder may be on a file system without devices.
    run("mount", &format!("-t tmpfs -o mode=755 tmpfs {}", folder.path().display()));
    let device = folder.path().join("tun");
    run("mknod", &format!("-m 666 {} c 10 200", device.display()));
    run("mount", &format!("--bind {} /dev/net/tun", device.display()));
    Some(folder)
}

fn is_open_to_all() -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata("/dev/net/tun").is_ok_and(|device| device.permissions().mode() & 0o666 == 0o666)
}

/// Runs the tests with these arguments as an ordinary user in a world. `has_tun` is false if it can make no tap device.
pub(crate) fn run_as_user(args: &[String], has_tun: bool) -> ExitStatus {
    let is_root = rustix::process::geteuid().is_root();
    let _world = make();
    let _device = replace_tun(has_tun);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new("/proc/self/exe");
    if is_root {
        command.arg(AS_USER).uid(ORDINARY).gid(ORDINARY);
    } else {
        command.arg(AS_NESTED_USER);
    }
    let mut tested =
        command.args(args).stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).spawn().unwrap();
    drop(command);
    // Gives the host further addresses, for which the tested process has no right.
    let mut answers = ours.try_clone().unwrap();
    for line in BufReader::new(ours).lines().map_while(Result::ok) {
        run("ip", &line);
        answers.write_all(b"done\n").unwrap();
    }
    tested.wait().unwrap()
}

/// Enters the user namespace in which root of the outer one is an ordinary user.
pub(crate) fn become_ordinary() {
    enter(UnshareFlags::NEWUSER, ORDINARY);
}

/// Has the outer process change the host's network.
pub(crate) fn change_host(args: &str) {
    // SAFETY: descriptor 0 is the connection to the outer process as long as this process lives.
    let outer = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
    let mut outer = UnixStream::from(outer.try_clone_to_owned().unwrap());
    outer.write_all(format!("{args}\n").as_bytes()).unwrap();
    let mut answer = [0; 5];
    outer.read_exact(&mut answer).unwrap();
}

/// Connects, sends these bytes, and returns the word of the server, or "nothing".
pub(crate) fn say(to: &str, first: &[u8]) -> String {
    let patience = Duration::from_millis(1500);
    let said = || {
        let mut stream = TcpStream::connect_timeout(&to.parse().ok()?, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        stream.write_all(first).ok()?;
        let mut word = [0; 5];
        stream.read_exact(&mut word).ok()?;
        Some(String::from_utf8_lossy(&word).into_owned())
    };
    said().unwrap_or_else(|| "nothing".to_owned())
}
