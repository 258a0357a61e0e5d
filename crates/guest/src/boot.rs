//! Process 1 of the machine: boots the machine, then runs the agent.
//!
//! # Input from the host
//!
//! - The initramfs: the image's modules-only archive (`/lib/modules/<release>/...`, plain `.ko` files, and
//!   `/lib/modules/<release>/modules.order-for-boot`, which lists them in load order, one path per line, absolute or
//!   relative to that folder), and appended to it a second archive that holds this binary as `/init`. Nothing
//!   else is needed, in particular no `/dev/console` and no folders.
//! - Two virtio-blk disks in any order, found by their serials (`-device virtio-blk-device,serial=...`):
//!   `root`, a squashfs, and `scratch`, a formatted ext4 file system that may be empty.
//! - One virtio-serial port named `dayfly.agent`.
//! - At most one network card, which becomes `eth0` with QEMU's usual user-network addresses (10.0.2.15/24,
//!   gateway 10.0.2.2).
//! - Two optional words on the kernel's command line. `dayfly.probe` tests if an accelerator boots at all: the machine
//!   prints [`PROBE_LINE`] on the console, says hello on the port if there is one, and powers off without mounting a
//!   disk. `dayfly.docker=off` disables Docker. Everything else comes from the host through the agent, because a frozen
//!   machine must not contain it.
//!
//! # Steps
//!
//! 1. kernel file systems; 2. the modules of the initramfs; 3. `root` and `scratch`, their overlay, and
//!    `/var/lib/docker` directly on `scratch`, because Docker cannot stack an overlay on an overlay; 4. the overlay
//!    becomes `/`; 5. mounts and settings that programs expect of a Linux system; 6. network; 7. the agent, which runs
//!    until the machine is powered off.
//!
//! An error or a panic in any step is printed and powers the machine off. So the host sees a machine that has exited,
//! with the reason on its console, instead of a kernel that panics again and again.

mod devices;
mod disks;
mod modules;
mod mounts;
mod network;
mod options;
pub(crate) mod personal;
pub(crate) mod power;
mod root;
pub(crate) mod shares;
mod system;

pub(crate) use modules::load_for_docker;

use crate::{agent, console};
use options::Options;
use std::path::{Path, PathBuf};

/// Path of this binary after the initramfs has been removed.
pub(crate) const PROGRAM: &str = "/run/dayfly/guest";

/// The line that a machine started with `dayfly.probe` prints on its console before it powers off.
pub(crate) const PROBE_LINE: &str = "probe: user space runs";

/// Reasons why the boot can fail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "no disk with the serial `{serial}`; there are {found:?} (is virtio_blk among the modules, and the disk given?)"
    )]
    NoDisk { serial: &'static str, found: Vec<String> },
    #[error("network: {what}: {source}")]
    Network {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// Adds the step and the path to an error.
fn at<E: Into<std::io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> BootError {
    let path = path.to_owned();
    move |source| BootError::Io { what, path, source: source.into() }
}

/// Runs the machine; never returns.
pub(crate) fn run() -> ! {
    power_off_on_panic();
    let Err(error) = start();
    console::say(&format!("cannot start this machine: {error}"));
    power::off();
}

fn power_off_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        console::say(&format!("panic: {panic}"));
        power::off();
    }));
}

fn start() -> Result<std::convert::Infallible, BootError> {
    mounts::kernel_file_systems()?;
    let options = Options::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    modules::load_listed()?;
    if options.probe {
        console::say(PROBE_LINE);
        agent::greet_once();
        power::off();
    }
    root::assemble()?;
    root::switch()?;
    mounts::system_file_systems()?;
    mounts::share_all()?;
    devices::create();
    system::prepare();
    let personal = personal::Personal::prepare()?;
    let agent = agent::Agent::new(personal).map_err(at("cannot open", Path::new("/dev/urandom")))?;
    agent.reached(dayfly_guest::protocol::Milestone::Mounts);
    agent.open_port();
    agent.watch_memory();
    network::configure()?;
    agent.reached(dayfly_guest::protocol::Milestone::Network);
    if options.docker {
        agent.start_docker();
    }
    agent.reap()
}
