//! A machine whose QEMU is a stand-in.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "each test uses what it needs"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use dayfly_image::Store;
use dayfly_vm::{
    AccelChoice, Driver, Egress, Entrypoint, Exit, Launcher, Machine, Network, NetworkPolicy, QemuSettings,
    StartError, Vm, VmEvent, VmHost, VmSpec,
};

/// The folders of one machine, with a stand-in for QEMU.
pub(crate) struct Setting {
    pub(crate) folder: tempfile::TempDir,
}

impl Setting {
    /// Creates a setting with a script in QEMU's place.
    pub(crate) fn new(script: &str) -> Self {
        let setting = Self::empty();
        // It has no version, as a program that is no QEMU.
        let script = script.replacen("#!/bin/sh\n", "#!/bin/sh\n[ \"$1\" != --version ] || exit 0\n", 1);
        fs::write(setting.vmm(), script).unwrap();
        fs::set_permissions(setting.vmm(), fs::Permissions::from_mode(0o755)).unwrap();
        setting
    }

    /// Creates a state folder with files that look like an image.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        // Another user must be able to read the stand-in, as it can read a real QEMU.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let image = path.join("state/images/f00d");
        fs::create_dir_all(&image).unwrap();
        for name in ["root.squashfs", "kernel", "initramfs"] {
            fs::write(image.join(name), name).unwrap();
        }
        let manifest = r#"{"format":1,"id":"f00d","inputs":"","suite":"x","kernel":"x","created_s":0,
            "runner_app":{"name":"","version":"","sha256":"","toolchain":""},"files":{},"packages":{}}"#;
        fs::write(image.join("manifest.json"), manifest).unwrap();
        let mut guest = b"\x7fELF\x02\x01".to_vec();
        guest.resize(64, 0);
        guest[18] = 62;
        fs::write(path.join("guest"), guest).unwrap();
        fs::create_dir_all(path.join("run/environment")).unwrap();
        // A firmware of its own, so that the descriptors do not depend on the QEMU of this host.
        for folder in ["bin", "share/qemu"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        fs::write(path.join("share/qemu/qboot.rom"), "qboot").unwrap();
        Self { folder }
    }

    pub(crate) fn vmm(&self) -> PathBuf {
        self.folder.path().join("bin/vmm")
    }

    /// Returns the id of the machine's process as the run folder's record has it, if the process lives.
    pub(crate) fn recorded_vmm(&self) -> Option<u64> {
        let record = fs::read(self.run_dir().join("vmm.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(record["name"], "m");
        record["pid"].as_u64().filter(|&pid| lives(pid))
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub(crate) fn host(&self) -> VmHost {
        let launcher = Launcher { program: "/proc/self/exe".into(), args: vec!["vmm-launch".to_owned()] };
        let mut host = VmHost::new(self.folder.path().join("state"), launcher);
        host.qemu = Some(self.vmm());
        host
    }

    pub(crate) fn spec(&self) -> VmSpec {
        VmSpec {
            name: "m".to_owned(),
            runner_id: "0-abc".to_owned(),
            machine: Machine {
                cpus: 1,
                memory_mib: 256,
                boot_limit: None,
                guest_binary: self.folder.path().join("guest"),
                driver: Driver::Qemu(QemuSettings {
                    disk_mib: 256,
                    image: Store::new(&self.folder.path().join("state")).find("f00d").unwrap(),
                    source: None,
                    accel: AccelChoice::Tcg,
                    cpu_model: None,
                    template: None,
                }),
            },
            network: Network {
                egress: Egress::Shut,
                ..Network::new(NetworkPolicy::default(), [1, 1, 1, 1].into())
            },
            environment: self.run_dir().join("environment"),
            settings: "RUNNER_ID=0-abc\n".into(),
            entrypoint: Entrypoint::default(),
            mounts: Vec::new(),
            shell: false,
        }
    }

    pub(crate) async fn start(&self, host: &VmHost, spec: VmSpec) -> Result<Vm, StartError> {
        dayfly_vm::start(host, spec, &self.run_dir()).await
    }

    pub(crate) fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.run_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Receives all events, and returns how the machine exited and the end of its output.
pub(crate) async fn gone(vm: &mut Vm) -> (Exit, String) {
    let mut last = None;
    while let Some(event) = vm.next_event().await {
        last = Some(event);
    }
    match last {
        Some(VmEvent::Gone { exit, console_tail }) => (exit, console_tail),
        other => panic!("the last event is {other:?}"),
    }
}

/// Returns true if a process exists and is not a zombie.
pub(crate) fn lives(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
