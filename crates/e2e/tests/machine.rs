//! Tests what one real machine can reach, and what it can see of its host. Most run a script instead of the runner app.
//!
//! Everything happens in network namespaces that the test creates. The network of the host is not touched.
#![expect(unsafe_code, reason = "threads enter namespaces")]

#[path = "machine/reached.rs"]
mod reached;

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use dayfly_e2e::{image, prepared};
use dayfly_host::left_out::root_may;
use dayfly_image::Store;
use dayfly_vm::{
    AccelChoice, Driver, Egress, Entrypoint, Forward, Launcher, Machine, Network, NetworkPolicy,
    QemuSettings, VmEvent, VmHost, VmSpec,
};
use rustix::thread::UnshareFlags;

/// Longest time that a machine may take to start and exit on a loaded host.
const PATIENCE: Duration = Duration::from_secs(240);

/// The DNS server in the world beyond the host.
const DNS_SERVER: &str = "192.0.2.53";

/// A script that tries everything that root in the machine can do.
const LOOK_AROUND: &str = r#"#!/bin/bash
reach() { timeout 5 bash -c "cat </dev/tcp/$1/$2" 2>/dev/null || echo nothing; }
echo "dns $(cat /etc/resolv.conf)"
echo "internet $(reach 203.0.113.80 80)"
echo "private $(reach 192.168.7.7 80)"
echo "metadata $(reach 169.254.169.254 80)"
echo "allowed $(reach 192.168.7.8 80)"
echo "host $(reach 203.0.113.1 80)"
echo "forward $(reach 10.0.2.2 4321)"
echo "named $(reach world.example 80)"
echo "rebound $(reach rebound.example 80)"
echo "forge $(reach forge.example 80)"
echo "read $(cat '/mnt/in, here/note')"
mount -o remount,rw '/mnt/in, here'
touch '/mnt/in, here/new' 2>/dev/null && echo "written to what is read-only"
echo from the machine >/out/note && echo "wrote"
echo "file $(cat /etc/one.conf) of $(stat -c %s /etc/one.conf)"
"#;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip (of iproute2) runs");
    assert!(status.success(), "ip {arguments}");
}

fn enter_new_network() {
    // SAFETY: a network namespace concerns the calling thread alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
    ip("link set lo up");
}

fn serve(address: &str, word: &'static str) -> u16 {
    let listener = TcpListener::bind(address).expect("listen");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.write_all(word.as_bytes());
                // A socket that is closed with unread bytes resets its connection.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    port
}

/// Answers questions for the addresses of three names. The question ends with its name, its type and its class.
fn answer_names(server: &str) {
    let socket = UdpSocket::bind((server, 53)).expect("a socket");
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let label = &bytes[13..13 + usize::from(bytes[12])];
            let address = match label {
                b"world" => Ipv4Addr::new(203, 0, 113, 80),
                b"rebound" => Ipv4Addr::new(192, 168, 7, 7),
                b"forge" => Ipv4Addr::new(192, 168, 7, 8),
                _ => continue,
            };
            let end = 12 + label.len() + "..example.".len() + 4;
            let is_address = bytes[..length].get(end - 4..end) == Some(&[0, 1, 0, 1]);
            let counts = [0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0];
            let mut answer = [&bytes[..2], &counts[..], &bytes[12..end]].concat();
            if is_address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address.octets());
            }
            let _ = socket.send_to(&answer, from);
        }
    });
}

/// Creates a network namespace for everything beyond the host, behind a separate link.
fn make_world() {
    const ADDRESSES: [&str; 5] =
        ["203.0.113.80", "192.168.7.7", "192.168.7.8", "169.254.169.254", DNS_SERVER];
    let (here, place) = mpsc::channel();
    let (linked, link) = mpsc::channel();
    let (made, done) = mpsc::channel();
    std::thread::spawn(move || {
        enter_new_network();
        here.send(rustix::thread::gettid().as_raw_nonzero()).expect("a receiver");
        link.recv().expect("a link");
        ip("link set w0 up");
        ip("route add 203.0.113.1 dev w0");
        for address in ADDRESSES {
            ip(&format!("address add {address}/32 dev w0"));
        }
        serve("0.0.0.0:80", "world");
        answer_names(DNS_SERVER);
        made.send(()).expect("a receiver");
    });
    ip(&format!("link add up0 type veth peer name w0 netns {}", place.recv().expect("a namespace")));
    ip("address add 203.0.113.1/32 dev up0");
    ip("link set up0 up");
    ADDRESSES.iter().for_each(|address| ip(&format!("route add {address} dev up0")));
    linked.send(()).expect("a receiver");
    done.recv().expect("a world");
}

/// Returns an env file with which an entrypoint starts a program. No forge knows its credentials.
fn settings() -> String {
    use base64::Engine as _;
    let file = |value: &str| base64::engine::general_purpose::STANDARD.encode(value);
    let config = serde_json::json!({
        ".runner": file(r#"{"AgentName":"m"}"#),
        ".credentials": file("{}"),
        ".credentials_rsaparams": file("{}"),
    });
    format!(
        "RUNNER_ID=0-look\nRUNNER_NAME=m\nRUNNER_SECRET=s\nRUNNER_JITCONFIG={}\n",
        file(&config.to_string())
    )
}

fn spec(folder: &Path, forge: u16) -> VmSpec {
    let binary = prepared("DAYFLY_BINARY");
    let store = Store::new(&prepared("DAYFLY_STATE"));
    let image = store.find(&image()).expect("an image");
    let mount = |host: &str, guest: &str| {
        format!("{}:{guest}", folder.join(host).display()).parse().expect("a mount")
    };
    let args = ["-u", "", "--app", "/local/look-around", "--app-dir", "/root/app"];
    VmSpec {
        name: "look".to_owned(),
        runner_id: "0-look".to_owned(),
        machine: Machine {
            cpus: 2,
            memory_mib: 1024,
            boot_limit: None,
            guest_binary: binary.with_file_name("dayfly-guest"),
            driver: Driver::Qemu(QemuSettings {
                disk_mib: 4096,
                image,
                source: None,
                accel: AccelChoice::Auto,
                cpu_model: None,
                template: None,
            }),
        },
        network: Network {
            forward: Some(Forward { guest_port: 4321, to: ([127, 0, 0, 1], forge).into() }),
            allow: vec![([192, 168, 7, 8], 80).into()],
            names: vec!["forge.example".to_owned()],
            ..Network::new(NetworkPolicy::default(), DNS_SERVER.parse().expect("an address"))
        },
        environment: folder.join("run/environment"),
        settings: settings().into(),
        entrypoint: Entrypoint { program: None, args: args.map(str::to_owned).to_vec() },
        mounts: vec![
            mount("programs", "/local:ro"),
            mount("in", "/mnt/in, here:ro"),
            mount("out, put", "/out"),
            mount("one file", "/etc/one.conf:ro"),
        ],
        shell: false,
    }
}

fn prepare(folder: &Path) {
    for made in ["run/environment", "programs", "in", "out, put"] {
        std::fs::create_dir_all(folder.join(made)).expect("a folder");
    }
    let program = folder.join("programs/look-around");
    std::fs::write(&program, LOOK_AROUND).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    std::fs::write(folder.join("in/note"), "what the host wrote").expect("a note");
    std::fs::write(folder.join("one file"), "1234").expect("a file");
}

/// Returns the names in a folder that a process sees, sorted.
fn names_for(pid: u32, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/root/{folder}")).expect("a folder of its own root");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

/// Checks that a VMM sees its own files and nothing else of this host.
fn sees_its_own_files_only(pid: u32) {
    for name in names_for(pid, "") {
        assert!(
            ["dev", "etc", "lib", "lib64", "proc", "usr"].contains(&name.as_str()),
            "the VMM sees /{name}"
        );
    }
    let devices = names_for(pid, "dev");
    assert!(devices.iter().all(|name| ["kvm", "null", "urandom"].contains(&name.as_str())), "{devices:?}");
    assert_eq!(names_for(pid, "proc"), ["self"]);
    assert_eq!(names_for(pid, "etc"), ["ld.so.cache"]);
    assert_eq!(names_for(pid, "usr/bin"), ["qemu-system-x86_64"]);
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts");
    for mount in mounts.lines() {
        let words: Vec<&str> = mount.split(' ').collect();
        // A process may change some of the kernel's entries about itself.
        let is_own = words[4].starts_with("/dev/") || words[4] == "/proc/self";
        assert!(is_own || words[5].starts_with("ro,"), "it can write to {mount}");
    }
}

/// Starts the machine, and returns what the program in it printed and the end of its console.
async fn look_around(folder: &Path, spec: VmSpec) -> Vec<String> {
    let launcher = Launcher { program: prepared("DAYFLY_BINARY"), args: vec!["vmm-launch".to_owned()] };
    let mut host = VmHost::new(prepared("DAYFLY_STATE"), launcher);
    // This test does not need Docker, which starts slowly on a loaded host.
    host.limits.docker = Duration::from_secs(5);
    let run_dir = folder.join("run");
    let mut vm = dayfly_vm::start(&host, spec, &run_dir).await.expect("a machine");
    let (mut said, mut vmm) = (Vec::new(), None);
    let watch = async {
        while let Some(event) = vm.next_event().await {
            match event {
                VmEvent::VmmStarted { pid, .. } => vmm = Some(pid),
                VmEvent::Hello => sees_its_own_files_only(vmm.expect("it was started")),
                VmEvent::Line { text, .. } => said.push(text),
                VmEvent::DockerFailed { reason: message } | VmEvent::Fault { message } => said.push(message),
                VmEvent::EntrypointExited { .. } | VmEvent::Gone { .. } => return,
                _ => {}
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, watch).await.is_ok();
    vm.kill().await;
    let console = vm.console_tail();
    vm.destroy().await.expect("all is removed");
    said.push(console);
    assert!(in_time, "its program has not ended:\n{}", said.join("\n"));
    said
}

fn assert_said(said: &[String], expected: &[&str]) {
    for line in expected {
        assert!(said.iter().any(|said| said.ends_with(line)), "no \"{line}\" in\n{}", said.join("\n"));
    }
}

/// Enters a network with a world around a host, which serves a forge and something else. Returns the forge's port.
fn enter_a_world() -> u16 {
    enter_new_network();
    make_world();
    let forge = serve("127.0.0.1:0", "forge");
    serve("203.0.113.1:80", "host");
    forge
}

#[tokio::test]
async fn a_machine_reaches_and_sees_what_it_may_and_nothing_else() {
    if !root_may("give a machine a network with rules on this host") {
        return;
    }
    let forge = enter_a_world();
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let said = look_around(folder.path(), spec(folder.path(), forge)).await;

    let expected = [
        "dns nameserver 10.0.2.2",
        "internet world",
        "private nothing",
        "metadata nothing",
        "allowed world",
        "host nothing",
        "forward forge",
        "named world",
        "rebound nothing",
        "forge world",
        "read what the host wrote",
        "wrote",
        "file 1234 of 4",
    ];
    assert_said(&said, &expected);
    assert!(!said.iter().any(|line| line.contains("read-only")), "{}", said.join("\n"));
    assert_eq!(std::fs::read_dir(folder.path().join("in")).expect("read").count(), 1);
    let written = std::fs::read_to_string(folder.path().join("out, put/note")).expect("written");
    assert_eq!(written, "from the machine\n");
    let links = std::fs::read_to_string("/proc/thread-self/net/dev").expect("links");
    assert!(!links.contains("dayfly"), "{links}");
    let mut left: Vec<_> = std::fs::read_dir(folder.path().join("run"))
        .expect("read")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    left.sort();
    assert_eq!(left, ["console.log", "environment", "network-use.json", "vmm.log"]);
}

#[tokio::test]
async fn a_machine_with_the_policy_none_reaches_its_forge_alone_and_an_open_one_its_host_too() {
    if !root_may("give a machine a network with rules on this host") {
        return;
    }
    let forge = enter_a_world();
    let none = [
        "dns nameserver 10.0.2.2",
        "internet nothing",
        "private nothing",
        "metadata nothing",
        "host nothing",
        "named nothing",
        "rebound nothing",
    ];
    let open = [
        "dns nameserver 192.0.2.53",
        "internet world",
        "private world",
        "metadata world",
        "host host",
        "named world",
        "rebound world",
    ];
    for (policy, expected) in [(NetworkPolicy::None, none), (NetworkPolicy::Open, open)] {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        let mut spec = spec(folder.path(), forge);
        spec.network.egress = Egress::Policy(policy);
        let said = look_around(folder.path(), spec).await;
        assert_said(&said, &expected);
        assert_said(&said, &["allowed world", "forward forge", "forge world"]);
    }
}
