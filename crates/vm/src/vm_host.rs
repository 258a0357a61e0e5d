//! The settings and the state that all machines of this host share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::accel::Accel;
use crate::cgroup::Cgroups;
use crate::fork::Spares;
use crate::fork::template::Templates;
use crate::launch::Launcher;
use crate::machine::{DISK_RESERVE_MIB, StartError};
use crate::pace::Pace;
use crate::vmm;
use dayfly_host::tool::{self, Invocation};

/// Folders that are searched for tools, in this order.
const TOOL_FOLDERS: [&str; 5] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin"];

/// Default of [`VmHost::limit_kept`], MiB.
pub const KEPT_MAX_MIB: u64 = 20 * 1024;

/// The host that machines run on.
#[derive(Debug, Clone)]
pub struct VmHost {
    /// The state folder: images, templates, and the results of probes of this host.
    pub state: PathBuf,
    /// The program that becomes a VMM.
    pub launcher: Launcher,
    /// Path of QEMU, if it is not in one of the usual folders.
    pub qemu: Option<PathBuf>,
    /// Folders that are searched for podman, krunvm and buildah, in this order.
    pub tool_folders: Vec<PathBuf>,
    /// The whole environment of these tools: the variables of this process that [`dayfly_host::tool::is_for_tools`] accepts.
    pub tool_env: Vec<(String, String)>,
    /// Time limits of machines.
    pub limits: Limits,
    /// The templates that this process has opened. All copies of this host share them.
    pub templates: Templates,
    /// The spare machines. All copies of this host share them.
    pub spares: Spares,
    /// The folder that contains the folders of spare machines. If it is `None`, no spares are created.
    pub spare_folder: Option<PathBuf>,
    /// Space that stays free on the disk of the machines' folders, MiB.
    disk_reserve_mib: Arc<AtomicU64>,
    /// Most space of the machines that are kept, MiB.
    kept_max_mib: Arc<AtomicU64>,
    pub(crate) pace: Pace,
    /// The control groups of machines.
    pub(crate) cgroups: Cgroups,
    /// Held while a probe guest boots, so that concurrent starts boot one probe guest and share its result.
    pub(crate) probing: Arc<tokio::sync::Mutex<()>>,
}

/// Time limits of machines on an ordinary host. The limits are stretched on a host where the probe guest booted more slowly,
/// and while the load is high.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the start of the VMM to the agent's hello, under emulation.
    pub hello_tcg: Duration,
    /// The same limit with KVM.
    pub hello_kvm: Duration,
    /// From the start of a krun machine until its entrypoint has removed its `.env` file.
    pub hello_krun: Duration,
    /// From the start of a fork's VMM until it has its identity.
    pub fork: Duration,
    /// From the agent's hello in a machine that becomes a template until its Docker answers. The same time again is the
    /// limit from there until the machine is ready, without its warm-up.
    pub template: Duration,
    /// How long a warm-up may take.
    pub warm_up: Duration,
    /// From the agent's hello until the entrypoint is started without Docker.
    pub docker: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Measured under emulation: 2.5 to 5 s, up to 15 s on a host whose load was three times its number of cores.
        Self {
            hello_tcg: Duration::from_secs(60),
            hello_kvm: Duration::from_secs(20),
            hello_krun: Duration::from_secs(60),
            // Measured: 0.05 s, and 2 s if twenty start at once on two cores.
            fork: Duration::from_secs(20),
            // Measured: 10 to 20 s, up to a minute on a host with that load.
            template: Duration::from_secs(180),
            warm_up: Duration::from_secs(1800),
            docker: Duration::from_secs(120),
        }
    }
}

impl Limits {
    /// Returns the limits for a host on which a machine's start takes `factor` times as long.
    pub(crate) fn stretched(&self, factor: f64) -> Self {
        let stretch = |limit: Duration| limit.mul_f64(factor);
        Self {
            hello_tcg: stretch(self.hello_tcg),
            hello_kvm: stretch(self.hello_kvm),
            hello_krun: stretch(self.hello_krun),
            fork: stretch(self.fork),
            template: stretch(self.template),
            warm_up: self.warm_up,
            docker: stretch(self.docker),
        }
    }

    pub(crate) fn hello(&self, accel: Accel) -> Duration {
        match accel {
            Accel::Kvm => self.hello_kvm,
            Accel::Tcg => self.hello_tcg,
        }
    }
}

impl VmHost {
    /// Returns a host with the usual folders, an empty environment for tools, and the default limits.
    pub fn new(state: PathBuf, launcher: Launcher) -> Self {
        let tool_folders = TOOL_FOLDERS.iter().map(PathBuf::from).collect();
        Self {
            cgroups: Cgroups::of(&state),
            state,
            launcher,
            qemu: None,
            tool_folders,
            tool_env: Vec::new(),
            limits: Limits::default(),
            templates: Templates::default(),
            spares: Spares::default(),
            spare_folder: None,
            disk_reserve_mib: Arc::new(AtomicU64::new(DISK_RESERVE_MIB)),
            kept_max_mib: Arc::new(AtomicU64::new(KEPT_MAX_MIB)),
            pace: Pace::default(),
            probing: Arc::default(),
        }
    }

    /// Sets the most machines that start at once; none: as many as there are processors. It counts for all copies of this
    /// host, and machines that are starting go on.
    pub fn limit_starts(&self, most: Option<usize>) {
        self.pace.limit_turns(most);
    }

    /// Sets how many times as large as this host's memory its machines may be together; none: three times. A new machine needs
    /// the same share of its size as available memory, except for the only machine of a host. It counts for all copies of
    /// this host.
    pub fn limit_memory(&self, overcommit: Option<u64>) {
        self.pace.limit_memory(overcommit);
    }

    /// Sets the space that stays free on the disk of the machines' folders, MiB; none: [`DISK_RESERVE_MIB`]. No machine is
    /// started if less is free. It counts for all copies of this host.
    pub fn reserve_disk(&self, reserve_mib: Option<u64>) {
        self.disk_reserve_mib.store(reserve_mib.unwrap_or(DISK_RESERVE_MIB), Ordering::Relaxed);
    }

    /// Sets the most space that the machines which are kept may take together, MiB; none: [`KEPT_MAX_MIB`]. It counts for all
    /// copies of this host.
    pub fn limit_kept(&self, max_mib: Option<u64>) {
        self.kept_max_mib.store(max_mib.unwrap_or(KEPT_MAX_MIB), Ordering::Relaxed);
    }

    /// Returns the most space that the machines which are kept may take together, MiB.
    pub fn kept_max_mib(&self) -> u64 {
        self.kept_max_mib.load(Ordering::Relaxed)
    }

    /// Returns the space that stays free on the disk of the machines' folders, MiB.
    pub fn disk_reserve_mib(&self) -> u64 {
        self.disk_reserve_mib.load(Ordering::Relaxed)
    }

    /// Finds a tool of this host.
    pub(crate) fn tool(&self, name: &'static str, mend: &'static str) -> Result<Invocation, StartError> {
        match tool::find(&self.tool_folders, name) {
            Some(program) => Ok(Invocation { program, args: Vec::new(), env: self.tool_env.clone() }),
            None => {
                let folders: Vec<_> =
                    self.tool_folders.iter().map(|path| path.display().to_string()).collect();
                Err(StartError::NoTool { tool: name, looked: folders.join(", "), mend })
            }
        }
    }

    /// Returns the path of QEMU.
    ///
    /// # Errors
    /// QEMU is not installed.
    pub fn qemu(&self) -> Result<PathBuf, StartError> {
        vmm::find_program(self.qemu.as_deref())
    }
}
