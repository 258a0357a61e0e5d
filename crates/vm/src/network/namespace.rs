//! Creates a VM's network.
#![expect(
    unsafe_code,
    reason = "a thread that enters a namespace must keep nothing whose meaning depends on it"
)]

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rustix::thread::UnshareFlags;

use super::address::{GATEWAY, GATEWAY_MAC, GUEST_PREFIX, TRANSFER_PREFIX, Transfer};
use super::error::step;
use super::gate::{self, GatePlace, GateSettings, GateSockets, ledger};
use super::netlink::{Netlink, Route};
use super::policy::{Access, NetworkPolicy};
use super::ranges::{self, Prefix};
use super::record::NetworkRecord;
use super::rules::{self, HostMachine, LINK_PREFIX, NamespaceRules, Reachable, TAP, UPLINK};
use super::upkeep::{self, Upheld};
use super::{NetworkError, account, forwarding, lock, nft, tap};
use crate::launch::Launcher;
use crate::machine::record::ProcessId;

/// Longest name of a link, bytes.
const LINK_NAME_MAX: usize = 15;

/// The requested network of a machine.
#[derive(Debug, Clone)]
pub(super) struct NamespaceRequest {
    /// The folder that its record is written to.
    pub(super) run_dir: PathBuf,
    /// The program that becomes the gate.
    pub(super) launcher: Launcher,
    /// The policy of its pool.
    pub(super) policy: NetworkPolicy,
    /// The DNS server.
    pub(super) dns: Ipv4Addr,
    /// The names of its forge and of its proxies.
    pub(super) names: Vec<String>,
    /// The addresses of its forge and of its proxies, which it reaches even if they are private.
    pub(super) reachable: Vec<Reachable>,
    /// The port of the gateway that this process serves.
    pub(super) forward: Option<u16>,
}

/// A network that was created. Its namespace exists as long as any process has one of these descriptors, or a copy, open.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// The machine's network card.
    pub(crate) tap: OwnedFd,
    /// The listener on the forwarded port.
    pub(crate) listener: Option<TcpListener>,
    /// Keeps the host's rules for the machine, if it has some.
    pub(super) _upheld: Option<Upheld>,
}

/// Creates a network, in a thread that enters its namespace and exits there. Takes about 20 ms. After a failure,
/// [`super::remove`] removes the parts that were created.
pub(super) fn make(request: NamespaceRequest) -> Result<Attachment, NetworkError> {
    // A new thread starts in the namespace of the thread that creates it, i.e. in the host's.
    let made = std::thread::Builder::new()
        .name("network".to_owned())
        .spawn(move || enter_and_make(&request))
        .map_err(step("start a thread"))?
        .join()
        .unwrap_or_else(|_| Err(step("make all of it")(io::Error::other("its thread has panicked"))))?;
    upkeep::start().map_err(step("start a thread"))?;
    Ok(made)
}

fn enter_and_make(request: &NamespaceRequest) -> Result<Attachment, NetworkError> {
    nft::program()?;
    let host = Netlink::open().map_err(step("open a netlink socket"))?;
    let host_namespace =
        File::open("/proc/thread-self/ns/net").map_err(step("open this host's namespace"))?;
    let link = link_name();
    let own = host.own_addresses().map_err(step("list this host's addresses"))?;
    let shut = ranges::shut(&own);
    let machine = request.host_machine(link.clone());
    let mut record = NetworkRecord {
        machine: Some(machine.clone()),
        policy: request.policy.clone(),
        shut: shut.clone(),
        gate: None,
    };
    account::discard(&request.run_dir).map_err(step("discard an earlier account"))?;
    record.write(&request.run_dir).map_err(step("write the record"))?;
    let shared = lock::acquire()?;
    forwarding::enable()?;
    nft::run("this host", &rules::host(&[&machine]))?;
    enter_namespace()?;
    let inside = Netlink::open().map_err(step("open a netlink socket"))?;
    inside.add_veth(UPLINK, &link, host_namespace.as_fd()).map_err(step("make the link to this host"))?;
    // From here on the host's rules are not removed, because the link exists.
    drop(shared);
    let transfer = connect_host(&host, &link)?;
    let tap = tap::open(TAP).map_err(|source| NetworkError::NoTun { source })?;
    let namespace = File::open("/proc/thread-self/ns/net").map_err(step("hold the machine's namespace"))?;
    account::hold(&link, namespace.into());
    nft::run("the machine", &rules::namespace(&request.rules(&shut)))?;
    connect_card(&inside)?;
    connect_uplink(&inside, transfer)?;
    let listener = request.forward.map(listen_on_gateway).transpose()?;
    if request.policy.has_gate() {
        let sockets = GateSockets::open(request.policy.has_list()).map_err(step("listen for the gate"))?;
        let place = GatePlace::Machine;
        start_gate(request, GateParts { sockets, kept: None, shut, place }, &mut record)?;
    }
    Ok(Attachment { tap, listener, _upheld: Some(upkeep::uphold(&machine)) })
}

impl NamespaceRequest {
    /// Returns the machine's part of the host's rules. The DNS server is one of its exceptions: the gate asks it from the
    /// machine's namespace.
    fn host_machine(&self, link: String) -> HostMachine {
        let mut reachable = Reachable::dns(self.dns).to_vec();
        reachable.extend(self.reachable.iter().filter(|thing| !Reachable::dns(self.dns).contains(thing)));
        HostMachine { link, reachable, is_open: self.policy.is_open() }
    }

    fn rules<'a>(&'a self, shut: &'a [Prefix]) -> NamespaceRules<'a> {
        NamespaceRules {
            policy: &self.policy,
            reachable: &self.reachable,
            dns: self.dns,
            forward: self.forward,
            shut,
        }
    }
}

/// What a gate needs beside the request.
pub(super) struct GateParts {
    /// Its sockets, which were opened before, because it may not listen on ports below 1024.
    pub(super) sockets: GateSockets,
    /// A socket that it keeps for a later process.
    pub(super) kept: Option<OwnedFd>,
    /// The ranges that are shut.
    pub(super) shut: Vec<Prefix>,
    /// The namespace that it connects from, which is the calling thread's.
    pub(super) place: GatePlace,
}

/// Starts the gate.
pub(super) fn start_gate(
    request: &NamespaceRequest,
    parts: GateParts,
    record: &mut NetworkRecord,
) -> Result<(), NetworkError> {
    let GateParts { sockets, kept, shut, place } = parts;
    let ledger = ledger_file(&request.run_dir).map_err(step("create the gate's ledger"))?.into();
    let exceptions = request.reachable.iter().map(|thing| SocketAddrV4::new(thing.address(), thing.port()));
    let settings = GateSettings {
        access: Access {
            policy: request.policy.clone(),
            names: request.names.clone(),
            exceptions: exceptions.collect(),
            shut,
        },
        dns: request.dns,
        place,
    };
    gate::start(&request.launcher, settings, ledger, sockets, kept, |pid| {
        record.gate = Some(ProcessId::of(pid, false)?);
        record.rewrite(&request.run_dir)
    })
    .map_err(NetworkError::Gate)
}

fn ledger_file(run_dir: &Path) -> io::Result<File> {
    let path = run_dir.join(ledger::FILE_NAME);
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn enter_namespace() -> Result<(), NetworkError> {
    // SAFETY: descriptors and memory stay shared; a network namespace concerns this thread alone, which exits after this
    // work.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(step("make a network namespace"))?;
    turn_ipv6_off()?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(step("turn forwarding on"))
}

/// Turns IPv6 off in the calling thread's namespace.
pub(super) fn turn_ipv6_off() -> Result<(), NetworkError> {
    for kind in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{kind}/disable_ipv6");
        write_where_there(Path::new(&path), "1").map_err(step("turn IPv6 off"))?;
    }
    Ok(())
}

/// Brings the host's end up and claims a transfer network for it. The route is the claim: the kernel refuses a second route
/// to the same network, whichever process adds it, and removes the route with the link.
fn connect_host(host: &Netlink, link: &str) -> Result<Transfer, NetworkError> {
    let index = host.index(link).map_err(step("find the link to this host"))?;
    host.bring_up(index).map_err(step("bring the link to this host up"))?;
    for transfer in Transfer::all_from(rand::rng().random()) {
        match host.add_route(Route::Network(transfer.network(), TRANSFER_PREFIX, index)) {
            Ok(()) => {
                host.add_address(index, transfer.host(), 32).map_err(step("give this host an address"))?;
                return Ok(transfer);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(step("add a route to the machine")(error)),
        }
    }
    Err(NetworkError::Full)
}

/// Gives the card of a machine the address of the gateway, and brings it up, and the loopback.
pub(super) fn connect_card(inside: &Netlink) -> Result<(), NetworkError> {
    let index = |name| inside.index(name).map_err(step("find a link of the namespace"));
    inside.bring_up(index("lo")?).map_err(step("bring the loopback up"))?;
    let card = index(TAP)?;
    inside.set_mac(card, GATEWAY_MAC).map_err(step("name the card"))?;
    inside.add_address(card, GATEWAY, GUEST_PREFIX).map_err(step("give the card an address"))?;
    inside.bring_up(card).map_err(step("bring the card up"))
}

/// Listens on the gateway's address in the calling thread's namespace.
pub(super) fn listen_on_gateway(port: u16) -> Result<TcpListener, NetworkError> {
    TcpListener::bind(SocketAddr::from((GATEWAY, port))).map_err(step("listen on the forwarded port"))
}

fn connect_uplink(inside: &Netlink, transfer: Transfer) -> Result<(), NetworkError> {
    let uplink = inside.index(UPLINK).map_err(step("find a link of the namespace"))?;
    inside
        .add_address(uplink, transfer.namespace(), TRANSFER_PREFIX)
        .map_err(step("give the namespace an address"))?;
    inside.bring_up(uplink).map_err(step("bring the namespace's link up"))?;
    inside.add_route(Route::Default(transfer.host())).map_err(step("add a route to the internet"))
}

/// Returns a random name, so that it differs from that of an old link, which the kernel may still be removing.
fn link_name() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = rand::rng();
    let suffix = (LINK_PREFIX.len()..LINK_NAME_MAX).map(|_| char::from(ALPHABET[random.random_range(0..32)]));
    LINK_PREFIX.chars().chain(suffix).collect()
}

fn write_where_there(path: &Path, value: &str) -> io::Result<()> {
    match fs::write(path, value) {
        // The kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
