//! What all machines of this host have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Spares, StartError};
use crate::accel::Accel;
use crate::launch::Launcher;
use crate::pace::Pace;
use crate::template::Templates;
use dayfly_host::tool::{self, Invocation};

/// Where QEMU may be, best first.
const QEMU_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/qemu/bin", "/usr/libexec"];
/// Where tools may be, best first.
const TOOL_FOLDERS: [&str; 5] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin"];
/// Its name.
const QEMU: &str = "qemu-system-x86_64";

/// A host of machines.
#[derive(Debug, Clone)]
pub struct VmHost {
    /// The state folder: images, disk templates, what was found out about this host.
    pub state: PathBuf,
    /// What becomes a VMM.
    pub launcher: Launcher,
    /// QEMU, where it is not in one of the usual folders.
    pub qemu: Option<PathBuf>,
    /// Where podman, krunvm and buildah may be, best first.
    pub tool_folders: Vec<PathBuf>,
    /// The whole environment of these tools: of this process's, what [`crate::is_for_tools`] lets through.
    pub tool_env: Vec<(String, String)>,
    /// How long machines may take.
    pub limits: Limits,
    /// The templates that this process has opened; all copies of this share them.
    pub templates: Templates,
    /// Its spare machines; all copies of this share them.
    pub spares: Spares,
    /// Where spare machines have their folders; none: there are none.
    pub spare_folder: Option<PathBuf>,
    pub(crate) pace: Pace,
    /// Held while a probe guest boots, so that each question is answered by one.
    pub(crate) probing: Arc<tokio::sync::Mutex<()>>,
}

/// How long machines may take on an ordinary host. A slower probe guest and a higher load stretch these limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the start of the VMM to the agent's hello, under emulation.
    pub hello_tcg: Duration,
    /// The same with KVM.
    pub hello_kvm: Duration,
    /// From the start of a krun machine until its entrypoint has taken its settings.
    pub hello_krun: Duration,
    /// From the start of a fork's VMM until it has its identity.
    pub fork: Duration,
    /// From the agent's hello in a machine that becomes a template until its Docker answers; and from there until it is ready,
    /// without its warm-up.
    pub template: Duration,
    /// How long a warm-up may take.
    pub warm_up: Duration,
    /// From the agent's hello until the entrypoint is started without Docker.
    pub docker: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Measured under emulation: 2.5 to 5 s, up to 15 s on a host with three times more to do than it has cores.
        Self {
            hello_tcg: Duration::from_secs(60),
            hello_kvm: Duration::from_secs(20),
            hello_krun: Duration::from_secs(60),
            // Measured: 0.05 s, and 2 s where twenty start at once on two cores.
            fork: Duration::from_secs(20),
            // Measured: 10 to 20 s, up to a minute on such a host.
            template: Duration::from_secs(180),
            warm_up: Duration::from_secs(1800),
            docker: Duration::from_secs(120),
        }
    }
}

impl Limits {
    /// The same for a host on which a machine's start takes `factor` times as long.
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
    /// A host with everything in its usual place, tools without an environment, and the default limits.
    pub fn new(state: PathBuf, launcher: Launcher) -> Self {
        let tool_folders = TOOL_FOLDERS.iter().map(PathBuf::from).collect();
        Self {
            state,
            launcher,
            qemu: None,
            tool_folders,
            tool_env: Vec::new(),
            limits: Limits::default(),
            templates: Templates::default(),
            spares: Spares::default(),
            spare_folder: None,
            pace: Pace::default(),
            probing: Arc::default(),
        }
    }

    /// A tool of this host.
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

    /// QEMU's path.
    ///
    /// # Errors
    /// It is not there.
    pub fn qemu(&self) -> Result<PathBuf, StartError> {
        let found = match &self.qemu {
            Some(path) => Some(path.clone()).filter(|path| path.is_file()),
            None => {
                QEMU_FOLDERS.iter().map(|folder| Path::new(folder).join(QEMU)).find(|path| path.is_file())
            }
        };
        found.ok_or_else(|| StartError::NoQemu {
            looked: match &self.qemu {
                Some(path) => path.display().to_string(),
                None => QEMU_FOLDERS.join(", "),
            },
        })
    }
}
