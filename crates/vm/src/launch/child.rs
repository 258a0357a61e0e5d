//! The launcher's side: becomes a VMM, a server of files or a gate, step by step.
#![expect(unsafe_code, reason = "descriptors by number, and one ioctl without a safe wrapper")]

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use rustix::io::{Errno, FdFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::bpf;
use super::gate_calls;
use super::landlock;
use super::modes;
use super::order::{self, CallFilter, LaunchOrder, LaunchReply, NetworkPlace, Program, Task, User};
use super::root::OwnRoot;
use crate::network::{Gate, GateSettings, GatedNetwork};

/// Base of user ids: a VMM's user id is the sum of this number and its process id. No two living processes share an id.
/// Neither Debian (up to 65533, and subordinate ids from 100000) nor systemd (up to 1879048191, `0x6FFFFFFF`, for
/// containers) assigns ids of this range (2^22 ids from 1879048192 on).
const USER_BASE: u32 = 0x7000_0000;
/// Most descriptors that a VMM may have open: its own, and one for each connection of its network.
const DESCRIPTORS_OPEN_MAX: u64 = 4096;
/// Most threads of a VMM: one for each virtual CPU, and up to 64 that wait for disks.
const THREADS_MAX: u64 = 1024;
/// Most descriptors that a server of files may have open: its own, and one for each file that the guest knows.
const SERVER_DESCRIPTORS_OPEN_MAX: u64 = crate::virtiofs::FILES_MAX as u64;
/// The capabilities of a server of files, by their numbers in linux/capability.h: those that let it act for every owner of a
/// file, and those for entering a sandbox, which it drops afterwards. It has neither `CAP_MKNOD` nor `CAP_SETFCAP`, and
/// without `CAP_FSETID` the kernel takes the rights that a file gives away when the file is written.
const SERVER_CAPABILITIES: [(&str, u32); 7] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_SYS_ADMIN", 21),
];
/// The name of the host in the program's view.
const HOST_NAME: &[u8] = b"dayfly";
/// The kernel's preference for killing this process if memory runs out: before each process of the host.
const OOM_SCORE: &str = "1000";
/// Received descriptors are moved to this number and above, until each gets its final number.
const DESCRIPTORS_ASIDE: RawFd = 200;

/// Returns true if this id can be that of a VMM's own user.
pub(crate) fn is_user_of_vmm(id: u32) -> bool {
    // The largest process id on 64-bit machines is 2^22 (`PID_MAX_LIMIT`).
    (USER_BASE..=USER_BASE + (1 << 22)).contains(&id)
}

/// A step that failed.
#[derive(Debug)]
struct Failure {
    step: &'static str,
    cause: io::Error,
}

/// What is left to do for a launcher that executes no program.
#[derive(Debug)]
enum Done {
    /// It serves as a gate.
    Gate(Box<Gate>),
    /// It has handed its work back, and exits.
    Handed,
}

/// The user that this process becomes.
#[derive(Debug, Clone, Copy)]
struct Identity {
    user: User,
    /// The id of a user of its own.
    own: u32,
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failure {
    move |cause| Failure { step, cause: cause.into() }
}

/// Carries out the order on descriptor `fd`. The internal command `vmm-launch` calls it before any thread is started. It
/// returns only after a failure, after it has made a network, or at the end of a gate. If it has received an order, it reports the failure through the
/// descriptor.
pub fn main(fd: i32) -> ExitCode {
    // SAFETY: the descriptor was handed to this process for this purpose alone, and stays open until the program takes
    // its place.
    let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
    // Descriptor 0 is replaced by the program's stdin, after which no failure could be reported through it.
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(inherited, DESCRIPTORS_ASIDE) else {
        return ExitCode::FAILURE;
    };
    let (order, descriptors) = match order::receive::<LaunchOrder>(&socket) {
        Ok(Some(received)) => received,
        // The host process exited before it sent an order, so nothing was started.
        Ok(None) | Err(_) => return ExitCode::FAILURE,
    };
    let Failure { step, cause } = match launch(&socket, order, descriptors) {
        Ok(Done::Gate(gate)) => return serve(*gate, socket),
        Ok(Done::Handed) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    let (step, errno) = (step.to_owned(), cause.raw_os_error());
    let answer = LaunchReply::Failed { step, cause: cause.to_string(), errno };
    let _ = order::send(&socket, &answer, &[]);
    ExitCode::FAILURE
}

/// Serves as a machine's gate. Closes the connection to the host process first, which shows it that the start has succeeded.
fn serve(gate: Gate, socket: OwnedFd) -> ExitCode {
    drop(socket);
    match gate.serve() {
        Ok(()) => ExitCode::SUCCESS,
        // No log is left to write to: the host process may have exited long ago.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs the steps, in an order in which each still has the privileges that it needs:
///
/// 1. A session and namespaces come first, because what follows belongs to them: the port is one of the new network, and the
///    mounts must not be the host's. A user namespace gives an ordinary user the rights to all of it.
/// 2. Limits are set while `/proc` is the host's, and before the change of the user, because they count for the new user too.
/// 3. The root takes the host's files out of reach. It needs the right to mount.
/// 4. Descriptors get their numbers when nothing else is opened any more.
/// 5. The user changes, which needs capabilities, and then capabilities go for good.
/// 6. Landlock and the filter of calls need `no_new_privs` from a program without capabilities. Landlock looks at the files of the
///    new root and at the descriptors. The filter is last, because all steps before it make calls that the program must not make.
///
/// The maker of a network takes the first two steps alone. It reads nothing but its order, and exits at once.
///
/// Returns only if this process executes no other program.
fn launch(socket: &OwnedFd, order: LaunchOrder, descriptors: Vec<OwnedFd>) -> Result<Done, Failure> {
    let own = USER_BASE + host_id().map_err(failed("read its process id"))?;
    rustix::process::setsid().map_err(failed("make a session"))?;
    enter_namespaces(order.user, order.network)?;
    if let NetworkPlace::Empty { listen } = order.network {
        raise_loopback().map_err(failed("bring up the loopback of the network namespace"))?;
        if let Some(port) = listen {
            hand_listener_back(socket, port)?;
        }
    }
    set_limits(&order)?;
    let LaunchOrder { user, root, task, .. } = order;
    let identity = Identity { user, own };
    match task {
        Task::Program(program) => match become_program(program, &root, identity, descriptors)? {},
        Task::Gate(settings) => {
            let gate = become_gate(settings, socket, &root, identity, descriptors)?;
            Ok(Done::Gate(Box::new(gate)))
        }
        Task::Network(network) => make_network(&network, socket),
    }
}

/// Runs the steps from the root on for a program, which takes the place of this process.
fn become_program(
    program: Program,
    root: &OwnRoot,
    identity: Identity,
    descriptors: Vec<OwnedFd>,
) -> Result<Infallible, Failure> {
    if program.small_pages {
        forbid_huge_pages().map_err(failed("forbid huge pages"))?;
    }
    root.enter().map_err(failed("enter a root of its own"))?;
    close_at_exec().map_err(failed("mark inherited descriptors close-on-exec"))?;
    place_descriptors(&program.descriptors, descriptors).map_err(failed("place the descriptors"))?;
    give_up_privileges(identity)?;
    // A server of files makes its export the root, and no program that Landlock limits may do so.
    if let CallFilter::Vmm(calls) = program.calls {
        landlock::restrict(&root.devices, &program.descriptors, calls.network)
            .map_err(failed("limit itself by Landlock"))?;
    }
    filter_calls(program.calls).map_err(failed("filter its system calls"))?;
    let cause = Command::new(&program.path)
        .args(&program.args)
        .env_clear()
        .envs(program.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .exec();
    Err(Failure { step: "start the VMM", cause })
}

/// Runs the same steps for a gate. It opens all that its filter forbids before that.
fn become_gate(
    settings: GateSettings,
    socket: &OwnedFd,
    root: &OwnRoot,
    identity: Identity,
    sockets: Vec<OwnedFd>,
) -> Result<Gate, Failure> {
    std::fs::File::open("/dev/null")
        .and_then(|null| Ok(rustix::stdio::dup2_stdin(null)?))
        .map_err(failed("release its standard input"))?;
    let kept = sockets.iter().chain([socket]).map(|kept| kept.as_raw_fd()).collect();
    close_all_but(kept).map_err(failed("close inherited descriptors"))?;
    root.enter().map_err(failed("enter a root of its own"))?;
    let gate = Gate::new(settings, sockets).map_err(failed("watch the machine's card"))?;
    give_up_privileges(identity)?;
    landlock::restrict(&root.devices, &[], true).map_err(failed("limit itself by Landlock"))?;
    bpf::take_on(&gate_calls::filter()).map_err(failed("filter its system calls"))?;
    Ok(gate)
}

/// Makes a network in the namespace that this process has entered, and hands its descriptors back.
fn make_network(network: &GatedNetwork, socket: &OwnedFd) -> Result<Done, Failure> {
    lend_capability(CapabilitySet::NET_ADMIN).map_err(failed("lend a capability to nft"))?;
    let made = network.make().map_err(|error| {
        let (step, cause) = error.into_step();
        Failure { step, cause }
    })?;
    let made: Vec<_> = made.iter().map(|descriptor| descriptor.as_fd()).collect();
    order::send(socket, &LaunchReply::Handed, &made).map_err(failed("hand the network back"))?;
    Ok(Done::Handed)
}

/// Lets the programs that this process starts keep a capability. Its user is not root in its user namespace either, so that
/// they would lose all of them.
fn lend_capability(capability: CapabilitySet) -> io::Result<()> {
    let sets = rustix::thread::capabilities(None)?;
    let inheritable = sets.inheritable | capability;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable, ..sets })?;
    Ok(rustix::thread::configure_capability_in_ambient_set(capability, true)?)
}

fn hand_listener_back(socket: &OwnedFd, port: u16) -> Result<(), Failure> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed("listen in the network namespace"))?;
    order::send(socket, &LaunchReply::Handed, &[listener.as_fd()]).map_err(failed("hand the listener back"))
}

/// Enters namespaces in which the program shares no memory with the host, and sees neither its name nor its control groups.
/// Also enters a network namespace in which nothing can be reached, unless the program needs the host's network.
fn enter_namespaces(user: User, network: NetworkPlace) -> Result<(), Failure> {
    let mut flags = UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    if matches!(network, NetworkPlace::Empty { .. }) {
        flags |= UnshareFlags::NEWNET;
    }
    if matches!(user, User::Same) {
        // Without a user namespace, only root may create the others.
        flags |= UnshareFlags::NEWUSER;
    }
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    // SAFETY: this process has one thread, and holds no descriptor whose meaning depends on a namespace.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(failed("enter namespaces of its own"))?;
    if matches!(user, User::Same) {
        keep_identity(uid.as_raw(), gid.as_raw()).map_err(failed("keep its user in a user namespace"))?;
    }
    rustix::system::sethostname(HOST_NAME).map_err(failed("hide the host's name"))
}

/// Maps this user and group, and no others, into the user namespace that was just entered. A process whose user is not mapped
/// creates no file, and its own root needs some.
fn keep_identity(uid: u32, gid: u32) -> io::Result<()> {
    // Without this, only root may map a group (user_namespaces(7)).
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all zeroes is a valid `ifreq`: it is made of numbers and bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` with a terminated name and flags, which this is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_limits(order: &LaunchOrder) -> Result<(), Failure> {
    let user = order.user;
    // A machine can be started again, unlike the host's services.
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE)
        .map_err(failed("offer itself to the kernel if memory runs out"))?;
    let limit = |resource, value| {
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    // A core dump would hold the guest's memory, secrets included.
    limit(Resource::Core, 0).map_err(failed("forbid core dumps"))?;
    if let Some(bytes) = order.file_bytes_max {
        limit(Resource::Fsize, bytes).map_err(failed("limit the length of files"))?;
    }
    if matches!(user, User::Own { .. }) {
        // The limit counts all processes and threads of a user, so it fits only a user that nothing else has.
        limit(Resource::Nproc, THREADS_MAX).map_err(failed("limit threads"))?;
    }
    let most = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // Root can raise the limit in most systems, which the server would do by itself with one more capability.
    if matches!(user, User::Root) && limit(Resource::Nofile, SERVER_DESCRIPTORS_OPEN_MAX).is_ok() {
        return Ok(());
    }
    limit(Resource::Nofile, DESCRIPTORS_OPEN_MAX.min(most)).map_err(failed("limit descriptors"))
}

/// Forbids huge pages for this process and the program that replaces it.
fn forbid_huge_pages() -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps all descriptors that this process has inherited, even by mistake, from the program. The program gets only those
/// that are placed after this.
fn close_at_exec() -> io::Result<()> {
    // SAFETY: the call changes flags only, and those of descriptors that nothing here passes on.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes all descriptors that this process has inherited, even by mistake, but these and the standard ones. A gate executes
/// no program, so no flag would close them.
fn close_all_but(kept: Vec<RawFd>) -> io::Result<()> {
    for (first, last) in gaps(kept) {
        // SAFETY: this process owns no other descriptors than those that it keeps.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Returns the first and the last number of each range between these descriptors, without the standard ones.
fn gaps(mut kept: Vec<RawFd>) -> Vec<(u32, u32)> {
    kept.sort_unstable();
    let mut first = 3;
    let mut all = Vec::new();
    for number in kept.into_iter().map(i32::cast_unsigned).filter(|&number| number > 2) {
        if number > first {
            all.push((first, number - 1));
        }
        first = number + 1;
    }
    all.push((first, u32::MAX));
    all
}

/// Gives each descriptor its number, and passes it to the program.
fn place_descriptors(numbers: &[i32], descriptors: Vec<OwnedFd>) -> io::Result<()> {
    if numbers.len() != descriptors.len()
        || numbers.iter().any(|number| !(3..DESCRIPTORS_ASIDE).contains(number))
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "numbers and descriptors do not fit"));
    }
    // Move all of them aside first, so that none occupies another's number.
    let mut aside = Vec::new();
    for descriptor in descriptors {
        aside.push(rustix::io::fcntl_dupfd_cloexec(&descriptor, DESCRIPTORS_ASIDE)?);
    }
    for (&number, descriptor) in numbers.iter().zip(&aside) {
        // SAFETY: nothing in this program owns these numbers now, because the originals are closed and all else is aside.
        unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
        // SAFETY: as above; the number is open, or the next line reports that it is not.
        let placed = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(placed, FdFlags::empty())?;
    }
    Ok(())
}

/// Returns this process's id in the host's namespace, of which `/proc` is; in its own it is 1.
fn host_id() -> io::Result<u32> {
    let own = std::fs::read_link("/proc/self")?;
    own.to_string_lossy().parse().map_err(io::Error::other)
}

/// Drops privileges in such a way that the program cannot regain them.
fn give_up_privileges(Identity { user, own }: Identity) -> Result<(), Failure> {
    let kept = if matches!(user, User::Root) { &SERVER_CAPABILITIES[..] } else { &[] };
    drop_bounding_set(kept)?;
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set().map_err(failed("drop ambient capabilities"))?;
    if matches!(user, User::Root) {
        // As root, the program gets the capabilities of the bounding set, and no others.
        return rustix::thread::set_no_new_privs(true).map_err(failed("forbid new privileges"));
    }
    if let User::Own { group } = user {
        let uid = rustix::process::Uid::from_raw(own);
        let gid = rustix::process::Gid::from_raw(group.unwrap_or(own));
        // SAFETY (here and below): this process has one thread, so thread and process are the same.
        rustix::thread::set_thread_groups(&[]).map_err(failed("drop supplementary groups"))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("change the group"))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("change the user"))?;
    }
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
    .map_err(failed("drop capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("forbid new privileges"))
}

fn filter_calls(calls: CallFilter) -> io::Result<()> {
    bpf::take_on(&match calls {
        CallFilter::Vmm(calls) => calls.filter(std::process::id()),
        CallFilter::Server => modes::filter(),
    })
}

/// Drops all capabilities but these from the bounding set.
fn drop_bounding_set(kept: &[(&str, u32)]) -> Result<(), Failure> {
    for capability in (0..63).filter(|number| kept.iter().all(|(_, kept)| kept != number)) {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            1 << capability,
        )) {
            Ok(()) => {}
            // This kernel does not know this number, so all capabilities that it knows are dropped.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(failed("drop the bounding set")(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_descriptors_but_the_kept_and_the_standard_ones_are_closed() {
        assert_eq!(gaps(vec![]), [(3, u32::MAX)]);
        assert_eq!(gaps(vec![0, 3]), [(4, u32::MAX)]);
        assert_eq!(gaps(vec![200, 5, 4]), [(3, 3), (6, 199), (201, u32::MAX)]);
    }
}
