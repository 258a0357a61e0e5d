//! The host and the settings of machines.

use std::path::{Path, PathBuf};

use dayfly_image::Store;
use dayfly_vm::{
    AccelChoice, Driver, Entrypoint, Launcher, Machine, Network, NetworkPolicy, Preparing, QemuSettings,
    TemplateSettings, Vm, VmHost, VmSpec,
};
use tempfile::TempDir;

use super::Said;

/// The reason why there is no machine.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Name of the file with the account of a machine's network.
const ACCOUNT: &str = "network-use.json";

/// A folder for machines, their host, and their settings.
pub struct Stage {
    folder: TempDir,
    /// The host that the machines run on.
    pub host: VmHost,
    /// The settings of a machine.
    pub machine: Machine,
    /// The network of the machines.
    pub network: Network,
}

impl Stage {
    /// Creates a stage for machines that are forked from this image. `binary` is the program, beside the guest binary.
    ///
    /// # Errors
    /// Fails if there is no such image under `state`, or if a temporary folder cannot be created.
    pub fn new(state: &Path, binary: &Path, image: &str, template: TemplateSettings) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let launcher = Launcher { program: binary.to_owned(), args: vec!["vmm-launch".to_owned()] };
        let mut host = VmHost::new(state.to_owned(), launcher);
        host.spare_folder = Some(folder.path().join("spares"));
        let image = Store::new(state).find(image)?;
        let driver = Driver::Qemu(QemuSettings {
            disk_mib: 32 * 1024,
            image,
            source: None,
            accel: AccelChoice::Auto,
            cpu_model: None,
            template: Some(template),
        });
        let guest_binary = binary.with_file_name("dayfly-guest");
        let machine = Machine { cpus: cpus()?, memory_mib: 1024, boot_limit: None, guest_binary, driver };
        let network = Network::new(NetworkPolicy::default(), [192, 0, 2, 53].into());
        Ok(Self { folder, host, machine, network })
    }

    /// Returns the settings of a machine with other template settings. Without a template the machine is booted.
    pub fn machine_with(&self, template: Option<TemplateSettings>) -> Machine {
        let mut machine = self.machine.clone();
        if let Driver::Qemu(settings) = &mut machine.driver {
            settings.template = template;
        }
        machine
    }

    /// Builds or opens the template, and returns the events that were reported.
    pub async fn prepare(&self) -> Vec<Preparing> {
        let mut told = Vec::new();
        let mut tell = |what| told.push(what);
        let prepared = dayfly_vm::prepare(&self.host, &self.machine, &self.network, &[], &mut tell).await;
        prepared.expect("a usable image");
        told
    }

    /// Returns the folder that holds the folders of all its machines.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the folder of the files of the machine with this name.
    pub fn run_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name).join("vm")
    }

    /// Starts a machine with this entrypoint. The env file of its runner holds `planted-<name>` as a secret.
    ///
    /// # Errors
    /// Fails if the machine cannot be started.
    pub async fn start(&self, name: &str, machine: Machine, entrypoint: Entrypoint) -> Result<Vm, Error> {
        let environment = self.folder.path().join(name).join("environment");
        std::fs::create_dir_all(&environment)?;
        let settings = format!("RUNNER_ID=0-{name}\nRUNNER_NAME={name}\nRUNNER_SECRET=planted-{name}\n");
        let spec = VmSpec {
            name: name.to_owned(),
            runner_id: format!("0-{name}"),
            machine,
            network: self.network.clone(),
            environment,
            settings: settings.into(),
            entrypoint,
            mounts: Vec::new(),
            shell: false,
        };
        Ok(dayfly_vm::start(&self.host, spec, &self.run_dir(name)).await?)
    }

    /// Runs a script in a machine instead of a runner app, and returns what the machine printed. Asserts that only its logs
    /// and the account of its network are left, which stay with a run.
    pub async fn say(&self, name: &str, text: &str) -> Said {
        let mut said = Said::default();
        said.hear(self.start(name, self.machine.clone(), script(text)).await.expect("a machine")).await;
        let left: Vec<_> = std::fs::read_dir(self.run_dir(name)).expect("read").flatten().collect();
        let stays =
            |path: PathBuf| path.extension().is_some_and(|end| end == "log") || path.ends_with(ACCOUNT);
        assert!(left.iter().all(|left| stays(left.path())), "{left:?}");
        said
    }
}

/// Returns the number of virtual CPUs that `dayfly` itself would choose.
fn cpus() -> Result<u32, Error> {
    Ok(std::env::var("RUNNER_CPUS").map_or(Ok(2), |number| number.parse())?)
}

/// Returns an entrypoint that runs a script instead of a runner app.
pub fn script(script: &str) -> Entrypoint {
    let args = ["-u", "", "--", "/bin/bash", "-c", script];
    Entrypoint { program: None, args: args.map(str::to_owned).to_vec() }
}
