//! Tests what each policy lets through, and the gate that holds its names.

use super::*;
use crate::machine::record::Found;
use crate::network::{Decision, Destination, NetworkUse, Reason, network_use};

#[test]
fn every_question_goes_through_the_gate_and_no_answer_leads_to_a_shut_address() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["10.53.0.53", "203.0.113.80"].map(|text| text.parse().unwrap()));
    let (folder, guest) = guest_with(&wish(&["192.168.7.8:443"], "10.53.0.53", None));
    for server in ["10.0.2.2", "10.53.0.53", "203.0.113.80", "192.0.2.99"] {
        let resolves = |name: &str| guest.resolves(name, server);
        assert_eq!(resolves("a-198-51-100-7.example").as_deref(), Some("198.51.100.7"), "{server}");
        assert_eq!(resolves("a-192-168-7-8.example").as_deref(), Some("192.168.7.8"), "the forge");
        for shut in ["10-1-2-3", "127-0-0-1", "169-254-169-254", "168-63-129-16", "203-0-113-1", "10-0-2-2"] {
            assert_eq!(resolves(&format!("a-{shut}.example")).as_deref(), Some("code 3"), "{shut}");
        }
        let by_stream = |name: &str| guest.resolves_by_stream(name, server);
        assert_eq!(by_stream("long-198-51-100-7.example").as_deref(), Some("198.51.100.7"), "{server}");
        assert_eq!(by_stream("long-10-1-2-3.example").as_deref(), Some("code 3"), "{server}");
    }
    record::remove(folder.path()).unwrap();
}

#[test]
fn a_machine_with_the_policy_none_reaches_and_resolves_its_forge_alone() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["10.53.0.53", "203.0.113.80", "192.168.7.8"].map(|text| text.parse().unwrap()));
    let network = Network {
        egress: Egress::Policy(NetworkPolicy::None),
        names: vec!["a-192-168-7-8.example".to_owned()],
        ..wish(&["192.168.7.8:80"], "10.53.0.53", None)
    };
    let (folder, guest) = guest_with(&network);
    assert_eq!(guest.resolves("a-192-168-7-8.example", "10.0.2.2").as_deref(), Some("192.168.7.8"));
    assert_eq!(guest.resolves("a-198-51-100-7.example", "10.0.2.2").as_deref(), Some("code 3"));
    assert_eq!(guest.reaches("192.168.7.8:80").as_deref(), Some("world"));
    assert_eq!(guest.reaches("203.0.113.80:80"), None);
    record::remove(folder.path()).unwrap();
}

#[test]
fn a_machine_with_a_list_reaches_listed_names_at_their_addresses_and_listed_networks() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    let all = ["10.53.0.53", "203.0.113.80", "203.0.113.81", "192.0.2.80", "10.1.2.3", "192.168.7.8"];
    make_world(&all.map(|text| text.parse().unwrap()));
    let list =
        ["*.list.example", "a-203-0-113-81.ssh:22", "10.1.0.0/16:80"].map(|text| text.parse().unwrap());
    let network = Network {
        egress: Egress::Policy(NetworkPolicy::Allow(list.to_vec())),
        ..wish(&["192.168.7.8:80"], "10.53.0.53", None)
    };
    let (folder, guest) = guest_with(&network);
    let world = Some("world".to_owned());
    let (name, at) = ("a-203-0-113-80.list.example", "203.0.113.80:443");
    assert_eq!(guest.says(at, &hellos::hello(name)), None, "no listed name has led there yet");
    assert_eq!(guest.resolves(name, "10.0.2.2").as_deref(), Some("203.0.113.80"));
    assert_eq!(guest.resolves("a-203-0-113-81.ssh", "10.0.2.2").as_deref(), Some("203.0.113.81"));
    assert_eq!(guest.resolves("a-192-0-2-80.evil", "10.0.2.2").as_deref(), Some("code 3"));
    assert_eq!(
        guest.resolves("a-10-1-2-4.list.example", "10.0.2.2").as_deref(),
        Some("10.1.2.4"),
        "a listed network"
    );
    assert_eq!(guest.says(at, &hellos::hello(name)), world);
    let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    assert_eq!(guest.says("203.0.113.80:80", &request(name)), world);
    assert_eq!(
        guest.says("203.0.113.81:22", b""),
        world,
        "a port that is listed needs no name in the first bytes"
    );
    assert_eq!(guest.says("10.1.2.3:80", b""), world, "a listed network");
    assert_eq!(guest.says("192.168.7.8:80", b""), world, "the forge");
    for (to, first) in [
        (at, hellos::hello("a-203-0-113-81.list.example")),
        (at, hellos::hello("www.evil")),
        (at, request(name)),
        ("203.0.113.80:80", request("www.evil")),
        ("203.0.113.80:80", hellos::hello(name)),
        ("203.0.113.80:22", Vec::new()),
        ("203.0.113.81:443", hellos::hello("a-203-0-113-81.ssh")),
        ("192.0.2.80:443", hellos::hello(name)),
        ("10.1.2.3:443", hellos::hello(name)),
        ("203.0.113.1:80", request(name)),
        ("10.0.2.2:54", hellos::hello(name)),
        ("10.0.2.2:80", request(name)),
    ] {
        assert_eq!(guest.says(to, &first), None, "{to} {}", String::from_utf8_lossy(&first));
    }
    record::remove(folder.path()).unwrap();
}

/// Returns the destinations of an account, a line for each.
fn lines(used: &NetworkUse) -> Vec<String> {
    let line = |row: &Destination| {
        let to = row.address.zip(row.port).map_or_else(String::new, |(to, port)| format!(" {to}:{port}"));
        format!("{} {}{to}", row.decision.as_str(), row.names.join(","))
    };
    used.destinations.iter().map(line).collect()
}

#[test]
fn an_audited_machine_reaches_what_an_open_one_does_and_its_account_tells_what_would_be_denied() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    let all = ["10.53.0.53", "203.0.113.80", "203.0.113.81", "203.0.113.82", "10.1.2.3", "192.168.7.8"];
    make_world(&all.map(|text| text.parse().unwrap()));
    serve(TcpListener::bind("0.0.0.0:80").unwrap(), "host.");
    let list = ["*.list.example", "203.0.113.82:*"].map(|text| text.parse().unwrap());
    let network = Network {
        egress: Egress::Policy(NetworkPolicy::Audit(list.to_vec())),
        ..wish(&["192.168.7.8:80"], "10.53.0.53", None)
    };
    let (folder, guest) = guest_with(&network);
    let world = Some("world".to_owned());
    let (listed, other) = ("a-203-0-113-80.list.example", "a-203-0-113-81.other.example");
    let request = format!("GET / HTTP/1.1\r\nHost: {other}\r\n\r\n");
    assert_eq!(guest.resolves(listed, "10.0.2.2").as_deref(), Some("203.0.113.80"));
    assert_eq!(guest.resolves(other, "10.0.2.2").as_deref(), Some("203.0.113.81"));
    let private = "a-10-1-2-3.list.example";
    assert_eq!(guest.resolves(private, "192.0.2.99").as_deref(), Some("10.1.2.3"), "by the gate");
    assert_eq!(guest.says("203.0.113.80:443", &hellos::hello(listed)), world);
    assert_eq!(guest.says("203.0.113.80:443", &hellos::hello("front.example")), world);
    assert_eq!(guest.says("203.0.113.81:80", request.as_bytes()), world);
    assert_eq!(guest.says("203.0.113.81:22", b""), world);
    assert_eq!(guest.says("203.0.113.82:22", b""), world, "a listed network");
    assert_eq!(guest.says("192.168.7.8:80", b""), world, "the forge");
    assert_eq!(guest.says("10.1.2.3:80", b""), world, "a private address");
    assert_eq!(guest.says("203.0.113.1:80", b"").as_deref(), Some("host."));
    for to in ["203.0.113.80:9999", "203.0.113.82:9999", "10.1.2.3:9999"] {
        guest.sends(to, 1);
    }
    std::thread::sleep(Duration::from_millis(300));
    let used = network_use(folder.path()).expect("an account");
    let lines = lines(&used);
    for line in [
        format!("allowed {listed} 203.0.113.80:443"),
        "audited front.example 203.0.113.80:443".to_owned(),
        format!("audited {other} 203.0.113.81:80"),
        format!("audited {other} 203.0.113.81:22"),
        format!("audited {other}"),
        format!("audited {listed} 203.0.113.80:9999"),
        "allowed  203.0.113.82:22".to_owned(),
        "allowed  203.0.113.82:9999".to_owned(),
        "allowed  192.168.7.8:80".to_owned(),
        format!("audited {private}"),
        format!("audited {private} 10.1.2.3:80"),
        format!("audited {private} 10.1.2.3:9999"),
        "audited  203.0.113.1:80".to_owned(),
    ] {
        assert!(lines.contains(&line), "{line}: {lines:#?}");
    }
    for row in used.destinations.iter().filter(|row| row.decision == Decision::Audited) {
        let is_shut = row.names == [private] || row.address == Some([203, 0, 113, 1].into());
        assert_eq!(row.reason == Some(Reason::Shut), is_shut, "{row:?}");
    }
    let http =
        used.destinations.iter().find(|row| row.names == [other] && row.port == Some(80)).expect("a row");
    assert_eq!((http.times, http.sent, http.received), (1, request.len() as u64, 5));
    assert_eq!((used.policy.as_str(), used.gate_killed, used.left_out), ("audit", false, 0));
    record::remove(folder.path()).unwrap();
    assert_eq!(network_use(folder.path()), Some(used), "the account outlives the network");
}

#[test]
fn the_account_of_a_guarded_machine_has_names_and_bytes_and_tells_that_its_gate_was_killed() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["10.53.0.53", "203.0.113.80"].map(|text| text.parse().unwrap()));
    let (folder, guest) = guest_with(&wish(&[], "10.53.0.53", None));
    let name = "a-203-0-113-80.example";
    assert_eq!(guest.resolves(name, "10.0.2.2").as_deref(), Some("203.0.113.80"));
    assert_eq!(guest.reaches("203.0.113.80:80").as_deref(), Some("world"));
    assert_eq!(guest.reaches("10.1.2.3:80"), None);
    // The gate writes its ledger after a moment.
    std::thread::sleep(Duration::from_secs(1));
    let Found::Record(record) = record::NetworkRecord::read(folder.path()).unwrap() else { panic!() };
    let gate = record.gate.as_ref().and_then(|gate| gate.open().unwrap()).expect("a gate");
    rustix::process::pidfd_send_signal(&gate, rustix::process::Signal::KILL).unwrap();
    let mut exited = [rustix::event::PollFd::new(&gate, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut exited, None).unwrap();
    let used = network_use(folder.path()).expect("an account");
    let lines = lines(&used);
    assert!(lines.contains(&format!("allowed {name} 203.0.113.80:80")), "{lines:#?}");
    assert!(lines.contains(&"denied  10.1.2.3:80".to_owned()), "{lines:#?}");
    let row =
        used.destinations.iter().find(|row| row.port == Some(80) && row.reason.is_none()).expect("a row");
    assert!(row.sent > 0 && row.received > 5, "{row:?}");
    assert!(used.gate_killed);
    record::remove(folder.path()).unwrap();
}

#[test]
fn an_open_machine_reaches_private_addresses_and_its_host_also_after_a_flush() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["10.53.0.53", "192.168.7.7"].map(|text| text.parse().unwrap()));
    serve(TcpListener::bind("0.0.0.0:80").unwrap(), "host.");
    let open = Network { egress: Egress::Policy(NetworkPolicy::Open), ..wish(&[], "10.53.0.53", None) };
    let folder = tempfile::tempdir().unwrap();
    let Connection::Own(made) = connect(&open, folder.path()).unwrap() else { panic!() };
    let guest = Guest::new(made.tap.try_clone().unwrap());
    assert_eq!(guest.reaches("192.168.7.7:80").as_deref(), Some("world"));
    assert_eq!(guest.reaches("203.0.113.1:80").as_deref(), Some("host."));
    assert_eq!(
        guest.resolves("a-10-1-2-3.example", "10.53.0.53").as_deref(),
        Some("10.1.2.3"),
        "without a gate"
    );
    crate::network::nft::run("a test", "flush ruleset\n").unwrap();
    assert!(crate::network::upkeep::restore().unwrap());
    assert_eq!(guest.reaches("203.0.113.1:80").as_deref(), Some("host."));
    record::remove(folder.path()).unwrap();
}

/// Returns the gate in the record of a run folder.
fn gate_of(run_dir: &std::path::Path) -> crate::machine::record::ProcessId {
    let crate::machine::record::Found::Record(record) = record::NetworkRecord::read(run_dir).unwrap() else {
        panic!("no record")
    };
    record.gate.expect("a gate")
}

/// Returns true if a process exits within ten seconds.
fn exits(process: &OwnedFd) -> bool {
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut wait = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut wait, Some(&limit)).unwrap() == 1
}

#[test]
fn a_gate_outlives_what_has_started_it_and_goes_with_the_machine() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["10.53.0.53".parse().unwrap()]);
    let network = wish(&[], "10.53.0.53", None);
    let folder = tempfile::tempdir().unwrap();
    let Connection::Own(made) = connect(&network, folder.path()).unwrap() else { panic!() };
    let card = made.tap.try_clone().unwrap();
    // Everything but the card, which the VMM holds.
    drop(made);
    let guest = Guest::new(card);
    assert_eq!(guest.resolves("a-198-51-100-7.example", "10.0.2.2").as_deref(), Some("198.51.100.7"));
    let gate = gate_of(folder.path()).open().unwrap().expect("it lives");
    record::remove(folder.path()).unwrap();
    assert!(exits(&gate), "although the card is open");

    let Connection::Own(made) = connect(&network, folder.path()).unwrap() else { panic!() };
    let gate = gate_of(folder.path());
    let process = gate.open().unwrap().expect("it lives");
    drop(made);
    assert!(exits(&process), "although nothing has killed it");
    record::remove(folder.path()).unwrap();
    assert!(!gate.is_zombie().unwrap(), "it was a child of this process");
}

#[test]
fn a_gate_has_the_walls_of_a_vmm() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["10.53.0.53".parse().unwrap()]);
    // A descriptor that was left open by mistake.
    let stray = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
    let (folder, guest) = guest_with(&wish(&[], "10.53.0.53", None));
    drop(stray);
    const NONE: &str = "0000000000000000";
    let text = std::fs::read_to_string(folder.path().join("network.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", record["gate"]["pid"]));
    // It answers, so its preparation is over.
    assert_eq!(guest.resolves("a-198-51-100-7.example", "10.0.2.2").as_deref(), Some("198.51.100.7"));
    // Here the gate is one of two threads of the launcher, and only that one is behind the walls.
    let status_of = |task: &std::path::Path| std::fs::read_to_string(task.join("status")).unwrap();
    let mut tasks = std::fs::read_dir(process.join("task")).unwrap().flatten().map(|task| task.path());
    let task = tasks.find(|task| status_of(task).starts_with("Name:\tdayfly-gate")).expect("the gate");
    let status = status_of(&task);
    let of_status =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((of_status("CapEff:"), of_status("CapBnd:")), (NONE.to_owned(), NONE.to_owned()));
    assert_eq!((of_status("NoNewPrivs:"), of_status("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    let uid = of_status("Uid:").split_whitespace().next().unwrap().parse().unwrap();
    assert!(crate::launch::is_user_of_vmm(uid), "{uid}");
    assert_eq!(
        of_status("NSpid:").split_whitespace().count(),
        2,
        "its processes are not this host's: {status}"
    );
    let names = |path: std::path::PathBuf| -> Vec<_> {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(task.join("root")), ["proc"]);
    assert_eq!(names(task.join("root/proc")), ["self"]);
    for number in names(process.join("fd")) {
        // One may be closed meanwhile.
        let target = std::fs::read_link(process.join("fd").join(&number)).unwrap_or_default();
        assert_ne!(target, std::path::Path::new("/etc/passwd"), "{number:?}");
    }
    record::remove(folder.path()).unwrap();
}
