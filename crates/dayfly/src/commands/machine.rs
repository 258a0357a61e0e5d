//! Resolves how machines are created: the driver, its settings, and the accelerator.

use std::path::Path;

use dayfly_fleet::pool::{MachineSpec, PoolSpec};
use dayfly_image::Image;
use dayfly_vm::{
    Accel, AccelChoice, Driver, DriverKind, KrunSettings, Launcher, Machine, ProbeGuest, ProcessSettings,
    QemuSettings, TemplateSettings, Trust, UsableDrivers, VmHost, WarmUp, walls,
};

use super::image;
use crate::exit::{Failure, Result};
use crate::printer::{self, Task};
use crate::rules;
use crate::settings::Places;

/// The default image of the krun drivers, as in the shell version.
const KRUN_IMAGE: &str = "ghcr.io/efrecon/runner-krunvm-ubuntu:main";

/// Largest warm-up script, bytes.
const WARM_UP_MAX: u64 = 256 * 1024;

/// The chosen machine.
pub(crate) struct ChosenMachine {
    pub(crate) machine: Machine,
    /// The driver and the reason for it, for people.
    pub(crate) explanation: String,
}

/// Returns the host of machines, or an error if QEMU is missing, so that this is reported before anything is created.
pub(crate) fn host(places: &Places) -> Result<VmHost> {
    let host = unchecked_host(places);
    host.qemu().map_err(Failure::cannot)?;
    Ok(host)
}

/// The path of the program that a process runs. It leads there even if the program's file was replaced or removed, as an
/// upgrade of dayfly's package does.
const LAUNCHER: &str = "/proc/self/exe";

/// Returns the host of machines without a search for QEMU. This program is the launcher of its VMMs.
pub(crate) fn unchecked_host(places: &Places) -> VmHost {
    let launcher = Launcher { program: LAUNCHER.into(), args: vec!["vmm-launch".to_owned()] };
    let mut host = VmHost::new(places.state.clone(), launcher);
    if !places.search_path.is_empty() {
        host.tool_folders = places.search_path.clone();
    }
    host.qemu = places.qemu.clone();
    host.tool_env = places.tool_env.clone();
    host
}

/// Chooses the driver and the settings of a loop's machines.
///
/// # Errors
/// This host can run no machine, or none that isolates jobs of this forge well enough.
pub(crate) async fn choose(
    places: &Places,
    host: &VmHost,
    spec: &PoolSpec,
    is_lab: bool,
    quiet: bool,
) -> Result<ChosenMachine> {
    let wanted = &spec.machine;
    let found = find(places, host, wanted, quiet).await?;
    let chosen = dayfly_vm::choose(wanted.driver, wanted.accel, is_lab, &found).map_err(Failure::cannot)?;
    let network = Some((&spec.network, &host.launcher));
    walls::require(host.qemu().ok().as_deref(), chosen.kind, &wanted.require, network)
        .map_err(Failure::cannot)?;
    let machine = match chosen.kind {
        DriverKind::Qemu => {
            host.qemu().map_err(Failure::cannot)?;
            settings(places, wanted, &spec.user, quiet).await?
        }
        DriverKind::PodmanKrun => krun(places, wanted, Driver::PodmanKrun)?,
        DriverKind::Krunvm => krun(places, wanted, Driver::Krunvm)?,
        DriverKind::Process => {
            let app = image::host_runner_app(places, quiet).await?;
            let settings = ProcessSettings { app: app.program, in_use: Some(app.in_use) };
            of_size(places, wanted, Driver::Process(settings))?
        }
    };
    let explanation = match &machine.driver {
        Driver::Qemu(_) => format!("qemu, {}", prove(host, &machine, quiet).await?.explanation),
        Driver::PodmanKrun(krun) | Driver::Krunvm(krun) => format!("{} of {}", chosen.kind, krun.image),
        Driver::Process(_) => "processes of this host".to_owned(),
    };
    Ok(ChosenMachine { machine, explanation })
}

/// Finds out which drivers this host can use. Boots a probe guest if only that shows whether KVM works: QEMU may be chosen,
/// the user has not chosen the accelerator, and there are a QEMU and a KVM device.
async fn find(places: &Places, host: &VmHost, spec: &MachineSpec, quiet: bool) -> Result<UsableDrivers> {
    let probes = matches!(spec.driver, None | Some(DriverKind::Qemu))
        && spec.accel == AccelChoice::Auto
        && Path::new("/dev/kvm").exists()
        && host.qemu().is_ok();
    if !probes {
        return dayfly_vm::find(host, None).await.map_err(Failure::cannot);
    }
    let image = image::choose(places, spec.image.as_deref(), spec.fetch, quiet, &|_| Ok(())).await?.image;
    let guest_binary = places.guest_binary()?;
    let guest =
        ProbeGuest { image: &image, guest_binary: &guest_binary, cpu_model: spec.cpu_model.as_deref() };
    let _task = probe_task(host, AccelChoice::Kvm, guest, Trust::Remembered, quiet);
    dayfly_vm::find(host, Some(guest)).await.map_err(Failure::cannot)
}

/// Shows that a probe guest boots, unless the probe's result is remembered.
pub(super) fn probe_task(
    host: &VmHost,
    accel: AccelChoice,
    guest: ProbeGuest<'_>,
    trust: Trust,
    quiet: bool,
) -> Option<Task> {
    (!dayfly_vm::is_probed(host, accel, guest, trust)).then(|| Task::begin("booting a probe guest", quiet))
}

/// Resolves the settings of QEMU's machines. Builds the built-in image if it is used and missing.
pub(crate) async fn settings(
    places: &Places,
    spec: &MachineSpec,
    user: &str,
    quiet: bool,
) -> Result<Machine> {
    rules::qemu_memory(spec.memory_mib).map_err(Failure::usage)?;
    let guest_binary = places.guest_binary()?;
    let accept = |image: &Image| dayfly_vm::check::refuse_broken(image, &guest_binary);
    let image::ChosenImage { image, source } =
        image::choose(places, spec.image.as_deref(), spec.fetch, quiet, &accept).await?;
    accept(&image).map_err(Failure::cannot)?;
    let template = template(spec, user)?;
    let (disk_mib, accel) = (spec.disk_gib * 1024, spec.accel);
    let cpu_model = spec.cpu_model.clone();
    let driver = Driver::Qemu(QemuSettings { disk_mib, image, source, accel, cpu_model, template });
    of_size(places, spec, driver)
}

/// Resolves how machines are forked. Returns none if they are booted instead.
fn template(spec: &MachineSpec, user: &str) -> Result<Option<TemplateSettings>> {
    if spec.cold {
        return Ok(None);
    }
    let warm_up = spec.warm_up.as_deref().map(warm_up).transpose()?;
    Ok(Some(TemplateSettings { user: user.to_owned(), warm_up, spares: spec.spares as usize }))
}

fn warm_up(path: &Path) -> Result<WarmUp> {
    let refused = |why: String| Failure::usage(format!("the warm-up {}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?;
    if !length.is_file() || length.len() > WARM_UP_MAX {
        return Err(refused(format!("it is no file of at most {} KiB", WARM_UP_MAX / 1024)));
    }
    let script = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    Ok(WarmUp { path: path.to_owned(), script })
}

fn krun(places: &Places, spec: &MachineSpec, driver: fn(KrunSettings) -> Driver) -> Result<Machine> {
    let image = spec.image.clone().unwrap_or_else(|| KRUN_IMAGE.to_owned());
    of_size(places, spec, driver(KrunSettings { image }))
}

fn of_size(places: &Places, spec: &MachineSpec, driver: Driver) -> Result<Machine> {
    Ok(Machine {
        cpus: spec.cpus,
        memory_mib: spec.memory_mib,
        boot_limit: spec.boot_limit,
        guest_binary: places.guest_binary()?,
        driver,
    })
}

/// The accelerator of machines, and the reason for it.
pub(crate) struct AccelInUse {
    /// `kvm` or `tcg` for QEMU, else the name of the driver.
    pub(crate) word: String,
    /// Text for people.
    pub(crate) explanation: String,
}

/// Boots a probe guest to find out which accelerator QEMU's machines use.
///
/// # Errors
/// No guest boots, or none boots with the requested accelerator.
pub(crate) async fn prove(host: &VmHost, machine: &Machine, quiet: bool) -> Result<AccelInUse> {
    let Driver::Qemu(qemu) = &machine.driver else {
        let word = machine.driver.kind().to_string();
        return Ok(AccelInUse { explanation: format!("{word} runs them by itself"), word });
    };
    let guest = ProbeGuest {
        image: &qemu.image,
        guest_binary: &machine.guest_binary,
        cpu_model: qemu.cpu_model.as_deref(),
    };
    let task = probe_task(host, qemu.accel, guest, Trust::Remembered, quiet);
    let answer =
        dayfly_vm::probe(host, qemu.accel, guest, Trust::Remembered).await.map_err(Failure::cannot)?;
    drop(task);
    if let Some(warning) = answer.warning {
        printer::warning(warning);
    }
    let name = match answer.accel {
        Accel::Kvm => "KVM",
        Accel::Tcg => "software emulation",
    };
    let why = match qemu.accel {
        AccelChoice::Auto => answer.seen,
        AccelChoice::Kvm | AccelChoice::Tcg => "as asked for".to_owned(),
    };
    Ok(AccelInUse { word: answer.accel.to_string(), explanation: format!("{name} ({why})") })
}
