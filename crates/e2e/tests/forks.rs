//! Machines that are forked from a template: what each of them has for itself, what it is when something goes wrong, and
//! what is in the template.
#![expect(unsafe_code, reason = "a thread enters a network namespace")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dayfly_e2e::machines::{Stage, script};
use dayfly_e2e::{OwnState, prepared};
use dayfly_vm::{Preparing, StartedFrom, TemplateSettings, Vm, VmEvent, WarmUp};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::UnshareFlags;

/// How long a machine may take to come up and end on a loaded host.
const PATIENCE: Duration = Duration::from_secs(240);

/// What must be another one in each machine, and what may be.
const WHO_AM_I: &str = r#"
say() { echo "$1=$2"; }
say urandom "$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ')"
say uuid "$(uuidgen)"
say openssl "$(openssl rand -hex 16)"
say machine-id "$(cat /etc/machine-id)"
say hostname "$(hostname)/$(cat /etc/hostname)"
say hosts "$(grep -c "$(hostname)" /etc/hosts)"
say boot-id "$(cat /proc/sys/kernel/random/boot_id)"
ssh-keygen -q -t ed25519 -N '' -f /tmp/host-key
say ssh-key "$(ssh-keygen -lf /tmp/host-key | cut -d' ' -f2)"
say resolver "$(cat /etc/resolv.conf)"
say environment "$(env | grep -c planted)"
say docker "$(docker info --format '{{.ServerVersion}}' 2>&1)"
say clock "$(date +%s%N)"
"#;

/// As root, machines have networks of their own: all of it happens in a namespace that the test makes.
fn stage(state: &Path, template: TemplateSettings) -> Stage {
    if rustix::process::geteuid().is_root() {
        // SAFETY: a network namespace concerns the calling thread alone.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip (of iproute2)");
        assert!(up.success());
    }
    Stage::new(state, &prepared("DAYFLY_BINARY"), template).expect("a stage")
}

/// Starts a machine that runs a script in place of a runner app.
async fn start(stage: &Stage, name: &str, text: &str) -> Vm {
    stage.start(name, stage.machine.clone(), script(text)).await.expect("a machine")
}

/// What a machine tells that runs this script; nothing of it is left.
async fn say(stage: &Stage, name: &str, text: &str) -> Said {
    let mut said = Said::default();
    said.hear(start(stage, name, text).await).await;
    let left: Vec<_> = std::fs::read_dir(stage.run_dir(name)).expect("read").flatten().collect();
    assert!(left.iter().all(|left| left.path().extension().is_some_and(|end| end == "log")), "{left:?}");
    said
}

/// What a machine told.
#[derive(Debug, Default)]
struct Said {
    from: Vec<StartedFrom>,
    cold: Vec<String>,
    values: BTreeMap<String, String>,
    all: Vec<String>,
    /// The host's clock when the machine told its own, nanoseconds.
    clock: u128,
}

impl Said {
    async fn hear(&mut self, mut vm: Vm) {
        let listen = async {
            while let Some(event) = vm.next_event().await {
                match event {
                    VmEvent::VmmStarted { from, .. } => self.from.push(from),
                    VmEvent::Cold { reason } => self.cold.push(reason),
                    VmEvent::Line { text, .. } => self.take(&text),
                    VmEvent::Fault { message } => self.all.push(message),
                    VmEvent::EntrypointExited { .. } | VmEvent::Gone { .. } => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, listen).await.expect("the machine ends");
        vm.kill().await;
        vm.destroy().await.expect("all is removed");
    }

    fn take(&mut self, text: &str) {
        let line = text.split_once("] ").map_or(text, |(_, line)| line);
        if let Some((name, value)) = line.split_once('=') {
            if name == "clock" {
                self.clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
            }
            self.values.insert(name.to_owned(), value.to_owned());
        }
        self.all.push(text.to_owned());
    }

    fn value(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("no {name} in\n{}", self.all.join("\n")))
    }
}

/// Each is somebody, and no two are the same.
fn assert_personal(machines: &[(&str, Said)]) {
    for name in ["urandom", "uuid", "openssl", "machine-id", "hostname", "boot-id", "ssh-key"] {
        let mut values: Vec<_> = machines.iter().map(|(_, said)| said.value(name)).collect();
        assert!(values.iter().all(|value| value.len() >= 3), "{name}: {values:?}");
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), machines.len(), "{name} is the same twice: {values:?}");
    }
    for (name, said) in machines {
        assert_eq!(said.value("hostname"), format!("{name}/{name}"));
        assert_eq!((said.value("hosts"), said.value("environment")), ("1", "0"));
        assert_eq!(said.value("resolver"), "nameserver 192.0.2.53");
        assert!(said.value("docker").starts_with(|first: char| first.is_ascii_digit()), "{said:?}");
        let clock: u128 = said.value("clock").parse().expect("nanoseconds");
        assert!(clock.abs_diff(said.clock) < 2_000_000_000, "{clock} and {}", said.clock);
    }
}

#[tokio::test]
async fn forks_of_one_template_have_nothing_personal_in_common() {
    let stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default());
    let told = stage.prepare().await;
    assert!(
        told.iter().all(|what| !matches!(what, Preparing::Failed { .. } | Preparing::Cold { .. })),
        "{told:?}"
    );
    let mut machines = Vec::new();
    for name in ["one", "two"] {
        let said = say(&stage, name, WHO_AM_I).await;
        assert!(matches!(&said.from[..], [StartedFrom::Fork(_)]), "{said:?}");
        machines.push((name, said));
    }
    assert_personal(&machines);
}

#[tokio::test]
async fn a_spare_that_stood_still_becomes_somebody_and_another_one_is_made() {
    let stage =
        stage(&prepared("DAYFLY_STATE"), TemplateSettings { spares: 1, ..TemplateSettings::default() });
    stage.prepare().await;
    let first = say(&stage, "first", WHO_AM_I).await;
    let spare_ready = async {
        while stage.host.spares.ready() < 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, spare_ready).await.expect("a spare");
    // Long enough that a clock which stood still would show it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let second = say(&stage, "second", WHO_AM_I).await;
    assert!(matches!(&second.from[..], [StartedFrom::Spare(_)]), "{second:?}");
    assert_personal(&[("first", first), ("second", second)]);
    stage.host.spares.end().await;
    let left = std::fs::read_dir(stage.folder().join("spares")).expect("read").count();
    assert_eq!(left, 0, "spares are gone");
}

#[tokio::test]
async fn a_fork_whose_vmm_dies_before_it_answers_is_booted_instead() {
    let mut stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default());
    // Nothing here needs Docker, which a machine that boots starts.
    stage.host.limits.docker = Duration::from_secs(1);
    stage.prepare().await;
    let mut vm = start(&stage, "unlucky", "echo works=yes").await;
    let Some(VmEvent::VmmStarted { pid, from: StartedFrom::Fork(_) }) = vm.next_event().await else {
        panic!("no fork")
    };
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, Signal::KILL).expect("killed");
    let mut said = Said::default();
    said.hear(vm).await;
    assert_eq!(said.from, [StartedFrom::Boot]);
    assert!(said.cold[0].contains("a fork of template"), "{said:?}");
    assert_eq!(said.value("works"), "yes");
}

/// Whether a file holds these bytes.
fn holds(path: &Path, wanted: &[u8]) -> bool {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path).expect("open");
    let (mut buffer, mut kept) = (vec![0; 1 << 20], Vec::new());
    loop {
        let count = file.read(&mut buffer).expect("read");
        if count == 0 {
            return false;
        }
        // Zeroes hold nothing, and sparse files are mostly zeroes.
        if kept.is_empty() && buffer[..count].iter().all(|&byte| byte == 0) {
            continue;
        }
        kept.extend_from_slice(&buffer[..count]);
        if kept.windows(wanted.len()).any(|window| window == wanted) {
            return true;
        }
        kept.drain(..kept.len().saturating_sub(wanted.len() - 1));
    }
}

const WARM_UP: &str = "echo the warm-up speaks\nid -un >warm\ndocker info >/dev/null 2>&1 && echo docker >>warm\n\
    env | grep -c planted >>warm || true\necho kept-in-memory-and-on-disk >/dev/shm/warm\n";

#[tokio::test]
async fn a_warm_up_is_in_every_fork_and_no_secret_of_the_host_is_in_the_template() {
    let state = OwnState::without_templates();
    let warm_up = WarmUp { path: "warm.sh".into(), script: WARM_UP.to_owned() };
    let mut stage =
        stage(state.path(), TemplateSettings { warm_up: Some(warm_up), ..TemplateSettings::default() });
    stage.host.tool_env = vec![("TOKEN".to_owned(), "planted-in-the-hosts-environment".to_owned())];
    let told = stage.prepare().await;
    assert!(told.contains(&Preparing::Line("the warm-up speaks".to_owned())), "{told:?}");
    let Some(Preparing::Built { template, .. }) = told.last() else { panic!("{told:?}") };
    let script = "echo warm=$(cat /home/runner/warm); echo memory=$(cat /dev/shm/warm)";
    for name in ["one", "two"] {
        let said = say(&stage, name, script).await;
        assert_eq!(said.from, [StartedFrom::Fork(template.clone())]);
        assert_eq!(said.value("warm"), "runner docker 0");
        assert_eq!(said.value("memory"), "kept-in-memory-and-on-disk");
    }
    let folder = state.path().join("templates").join(template);
    let log = std::fs::read_to_string(folder.join("warm-up.log")).expect("its log");
    assert_eq!(log, "the warm-up speaks\n");
    let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let mut secrets = vec!["planted-in-the-hosts-environment", "planted-one", "planted-two"];
    secrets.extend(Some(machine_id.trim()).filter(|id| !id.is_empty()));
    let memory = folder.join("memory");
    assert!(holds(&memory, b"kept-in-memory-and-on-disk"), "what is in the template is found");
    for name in ["memory", "state", "disk.img", "manifest.json"] {
        for secret in &secrets {
            assert!(!holds(&folder.join(name), secret.as_bytes()), "{secret} is in {name}");
        }
    }
}

#[tokio::test]
async fn a_warm_up_that_fails_is_told_and_machines_do_without() {
    let warm_up = WarmUp { path: "bad.sh".into(), script: "echo no such luck\nexit 7\n".to_owned() };
    let stage = stage(
        &prepared("DAYFLY_STATE"),
        TemplateSettings { warm_up: Some(warm_up), ..TemplateSettings::default() },
    );
    let told = stage.prepare().await;
    let reason = told.iter().find_map(|what| match what {
        Preparing::Failed { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    let reason = reason.unwrap_or_else(|| panic!("{told:?}"));
    assert!(reason.contains("exit status: 7") && reason.contains("no such luck"), "{reason}");
    let said = say(&stage, "anyway", "echo works=yes").await;
    assert!(matches!(&said.from[..], [StartedFrom::Fork(_)]), "{said:?}");
    assert_eq!(said.value("works"), "yes");
}
