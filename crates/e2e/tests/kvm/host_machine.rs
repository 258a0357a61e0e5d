//! Starts the machine that is a host with KVM, and runs tests in it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dayfly_e2e::machines::{Stage, enter_network_namespace, script};
use dayfly_e2e::{image, prepared};
use tokio::sync::Mutex;

use dayfly_vm::{AccelChoice, Driver, Forward, TemplateSettings, Vm, VmEvent};

/// Memory of the host machine in MiB, for a template's file, its sealed copy, the page cache, and a few guests.
const MEMORY_MIB: u32 = 8 * 1024;
/// Longest time that the tests in the host machine may print nothing.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Longest time without a heartbeat, which the host machine prints every 15 s. Without one, its kernel hangs.
const HEARTBEAT_MAX: Duration = Duration::from_secs(180);
/// The heartbeat.
const HEARTBEAT: &str = "host machine: alive";
/// Number of host machines that are started if their kernels hang. The emulation is to blame for that, not the product.
const STARTS_MAX: u32 = 2;
/// Port from which the host machine fetches its payload.
const PAYLOAD_PORT: u16 = 4321;
/// The script that runs in the host machine.
const INSIDE: &str = include_str!("inside.sh");

/// A host with KVM.
pub(crate) struct HostMachine;

impl HostMachine {
    /// Starts a host machine and runs tests in it. Each of `tests` is a test program and a part of the names of its tests.
    pub(crate) async fn run(tests: &[&str]) {
        if let Ok(why) = std::env::var("DAYFLY_TEST_KVM_LEFT_OUT") {
            // scripts/test prints the reason too.
            return tell(&format!("left out: {why}"));
        }
        // Host machines run one after another, because each takes a processor and eight gigabytes.
        static ALONE: Mutex<()> = Mutex::const_new(());
        let _alone = ALONE.lock().await;
        let stage = stage();
        let text = format!("IMAGE={}\nset -- {}\n{INSIDE}", image(), tests.join(" "));
        for start in 1..=STARTS_MAX {
            let vm = stage.start(&format!("kvm-host-{start}"), stage.machine.clone(), script(&text)).await;
            let heard = hear(vm.expect("a machine")).await;
            if heard.has_hung && start < STARTS_MAX {
                tell("the kernel of the host machine hangs; another one is started");
                continue;
            }
            let has_passed = heard.lines.iter().any(|line| line.ends_with("verdict=passed"));
            return assert!(has_passed, "{}", heard.lines.join("\n"));
        }
    }
}

fn stage() -> Stage {
    enter_network_namespace();
    let text = |variable| prepared(variable).display().to_string();
    let (state, binary) = (prepared("DAYFLY_STATE"), prepared("DAYFLY_BINARY"));
    let template = TemplateSettings::default();
    let mut stage = Stage::new(&state, &binary, &text("DAYFLY_TEST_KVM_IMAGE"), template).expect("a stage");
    stage.host.qemu = Some(prepared("DAYFLY_TEST_KVM_QEMU"));
    stage.machine.cpus = 1;
    stage.machine.memory_mib = MEMORY_MIB;
    if let Driver::Qemu(settings) = &mut stage.machine.driver {
        settings.accel = AccelChoice::Tcg;
        // `max` has SVM with nested paging.
        settings.cpu_model = Some("max".to_owned());
        settings.template = None;
    }
    stage.network.forward = Some(Forward { guest_port: PAYLOAD_PORT, to: serve_payload() });
    stage
}

fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "kvm-host: {line}");
}

/// The output of a host machine.
struct Heard {
    lines: Vec<String>,
    /// True if its kernel stopped working.
    has_hung: bool,
}

/// Collects all output of the host machine but its heartbeats, and prints it as it arrives.
async fn hear(mut vm: Vm) -> Heard {
    let (began, mut said) = (Instant::now(), Vec::new());
    let (mut last_line, mut has_hung) = (began, false);
    let mut hear = |text: String| {
        let line = format!("{:7.1}  {text}", began.elapsed().as_secs_f32());
        tell(&line);
        said.push(line);
    };
    loop {
        if last_line.elapsed() > SILENCE_MAX {
            hear(format!("its tests have printed nothing for {SILENCE_MAX:?}"));
            break;
        }
        match tokio::time::timeout(HEARTBEAT_MAX, vm.next_event()).await {
            Ok(Some(VmEvent::Line { text, .. })) if text.ends_with(HEARTBEAT) => {}
            Ok(Some(VmEvent::Line { text, .. })) => {
                last_line = Instant::now();
                hear(text);
            }
            Ok(Some(VmEvent::DockerFailed { reason: message } | VmEvent::Fault { message })) => hear(message),
            Ok(Some(VmEvent::EntrypointExited { .. })) => break,
            Ok(Some(VmEvent::Gone { exit, console_tail })) => {
                hear(format!("{exit}\n{console_tail}"));
                break;
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => {
                has_hung = true;
                hear(format!("no heartbeat for {HEARTBEAT_MAX:?}; its console:\n{}", vm.console_tail()));
                break;
            }
        }
    }
    vm.kill().await;
    vm.destroy().await.expect("all is removed");
    Heard { lines: said, has_hung }
}

/// Serves one archive of everything that the host machine needs from this host: programs, tests, the image of its guests.
fn serve_payload() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let status = archive().stdout(Stdio::from(std::os::fd::OwnedFd::from(stream))).status();
            assert!(status.is_ok_and(|status| status.success()), "the payload is sent");
        }
    });
    address
}

fn archive() -> Command {
    let (binary, state) = (prepared("DAYFLY_BINARY"), prepared("DAYFLY_STATE"));
    let image = Path::new("images").join(image());
    let app = prepared("DAYFLY_TEST_RUNNER_APP");
    let mut command = Command::new("tar");
    // Moves test programs into `tests/`, without the hash in their names.
    command.args(["-c", "--transform", r"s,^\([a-z_]*\)-[0-9a-f]\{16\}$,tests/\1,"]);
    command.arg("-C").arg(binary.parent().expect("a folder")).args(["dayfly", "dayfly-guest"]);
    command.arg("-C").arg(app.parent().expect("a folder")).arg(app.file_name().expect("a name"));
    command.arg("-C").arg(state).arg(image);
    command.arg("-C").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).arg("demo");
    let tests = std::env::var("DAYFLY_TEST_KVM_PROGRAMS").expect("scripts/kvm-host names them");
    for test in tests.split_ascii_whitespace().map(PathBuf::from) {
        command.arg("-C").arg(test.parent().expect("a folder")).arg(test.file_name().expect("a name"));
    }
    command
}
