//! The platform of QEMU's machines: the program, its firmware, the accelerator, the processor model, and how slow this host
//! is.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{self, QemuFiles};
use super::firmware::Firmware;
use super::threads::TcgThreads;
use crate::accel::Accel;
use crate::machine::StartError;
use crate::vm_host::Limits;
use crate::vmm::{DescriptorRole, VmmFiles};

/// Processor model of a machine with KVM: this host's own, without virtualisation, because a job that starts machines of
/// its own would widen the part of KVM that a guest reaches.
const HOST_MODEL: &str = "host,vmx=off,svm=off";
/// Processor model of a machine with KVM in which jobs may start machines of their own, if the user asks for it.
const WHOLE_HOST_MODEL: &str = "host";
/// Processor model of an emulated machine. It has no SMAP, because .NET loses its main thread at the first exception under
/// QEMU 7.2's emulation of it, and no AVX, because its emulation is so slow that a C library is faster without it. ARAT is
/// added, because a kernel that does not know that its timer continues in idle never stops ticking: 0.057 of a core for
/// each idle fork instead of 0.003.
pub(super) const EMULATED_MODEL: &str = "Nehalem-v1,+arat";
/// Largest factor by which a slow host may stretch limits.
const SLOWNESS_MAX: f64 = 20.0;
/// Largest factor by which the host's other work may stretch limits.
const LOAD_MAX: f64 = 4.0;

/// The resolved platform of machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Platform {
    /// Path of QEMU.
    pub(super) qemu: PathBuf,
    /// The files that it needs. They are not stored, because each upgrade of a library may change them.
    #[serde(skip)]
    pub(super) files: QemuFiles,
    pub(super) firmware: Firmware,
    /// Accelerator of the machines.
    pub(crate) accel: Accel,
    /// The processor model, in QEMU's syntax.
    pub(super) cpu_model: String,
    /// The threads of the virtual CPUs of an emulated machine.
    pub(super) tcg_threads: TcgThreads,
    /// The factor by which this host boots a guest more slowly than an ordinary host; at least 1.
    pub(super) slowness: f64,
}

impl Platform {
    /// Returns the platform of an ordinary host. [`guest_model`] explains `cpu_model`.
    pub(super) fn of(qemu: PathBuf, firmware: Firmware, accel: Accel, cpu_model: Option<&str>) -> Self {
        let tcg_threads = match accel {
            Accel::Kvm => TcgThreads::Multi,
            Accel::Tcg => TcgThreads::of(&qemu),
        };
        let cpu_model = guest_model(accel, cpu_model).to_owned();
        let files = files::of(&qemu);
        Self { qemu, files, firmware, accel, cpu_model, tcg_threads, slowness: 1.0 }
    }

    /// Returns this platform for a host on which a probe guest took `hello_ms` milliseconds until its hello.
    pub(super) fn on_host_of(self, hello_ms: Option<u64>) -> Self {
        let slowness = hello_ms.map_or(1.0, |hello_ms| slowness(self.accel, hello_ms));
        Self { slowness, ..self }
    }

    /// Returns this platform, which was stored, for the same VMM at this path, with the files that the VMM needs now.
    pub(crate) fn with_program(self, qemu: PathBuf) -> Self {
        let files = files::of(&qemu);
        Self { qemu, files, ..self }
    }

    /// Returns the VMM's program.
    pub(crate) fn program(&self) -> &Path {
        &self.qemu
    }

    /// Returns the file of the VMM's firmware, if it is known.
    pub(crate) fn firmware_file(&self) -> Option<PathBuf> {
        self.firmware.file(&self.qemu)
    }

    /// Adds the firmware to a VMM's files, unless QEMU uses its own.
    pub(crate) fn with_firmware(&self, files: VmmFiles) -> Result<VmmFiles, StartError> {
        let Firmware::Qboot(path) = &self.firmware else { return Ok(files) };
        let io_error = |source| StartError::Io { what: "open the firmware", path: path.clone(), source };
        Ok(files.with(DescriptorRole::Firmware, File::open(path).map_err(io_error)?))
    }

    /// Returns the limits that apply on this host at its current load.
    pub(crate) fn limits(&self, limits: &Limits) -> Limits {
        limits.stretched(self.slowness * load_factor())
    }
}

/// Returns the processor model of a machine, for the one that the user has chosen. A machine with KVM has this host's
/// processor whatever the choice, and has its virtualisation too if the choice is [`WHOLE_HOST_MODEL`], which is no model
/// of an emulated machine.
pub(super) fn guest_model(accel: Accel, chosen: Option<&str>) -> &str {
    let chosen_emulated = chosen.filter(|model| *model != WHOLE_HOST_MODEL);
    match accel {
        Accel::Kvm if chosen == Some(WHOLE_HOST_MODEL) => WHOLE_HOST_MODEL,
        Accel::Kvm => HOST_MODEL,
        Accel::Tcg => chosen_emulated.unwrap_or(EMULATED_MODEL),
    }
}

/// Returns the factor by which a host is slower than those that the limits were chosen for, from the time of a probe guest.
fn slowness(accel: Accel, hello_ms: u64) -> f64 {
    // Measured: emulation 2.5 s on a quiet host; KVM below 0.5 s on real processors.
    let ordinary_ms = match accel {
        Accel::Kvm => 1000.0,
        Accel::Tcg => 4000.0,
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a probe")]
    let hello_ms = hello_ms as f64;
    (hello_ms / ordinary_ms).clamp(1.0, SLOWNESS_MAX)
}

/// Returns the factor by which work takes longer because other programs need the processors too.
pub(super) fn load_factor() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    load_factor_of(load, processors)
}

fn load_factor_of(load: f64, processors: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
    let processors = processors as f64;
    // The limits already allow for a load that equals the number of processors.
    (load / processors).clamp(1.0, LOAD_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_job_gets_virtualisation_of_its_own_only_if_the_user_asks_for_it() {
        for (accel, chosen, expected) in [
            (Accel::Kvm, None, "host,vmx=off,svm=off"),
            (Accel::Kvm, Some("max,-smap"), "host,vmx=off,svm=off"),
            (Accel::Kvm, Some("host"), "host"),
            (Accel::Tcg, None, EMULATED_MODEL),
            (Accel::Tcg, Some("host"), EMULATED_MODEL),
            (Accel::Tcg, Some("max,-smap"), "max,-smap"),
        ] {
            assert_eq!(guest_model(accel, chosen), expected, "{accel:?} {chosen:?}");
        }
    }

    #[test]
    fn a_stored_platform_has_the_files_of_its_vmm_once_they_are_looked_for_again() {
        let program = std::env::current_exe().expect("this program");
        let platform = Platform::of(program.clone(), Firmware::Default, Accel::Kvm, None);
        assert!(!platform.files.paths.is_empty());
        let text = serde_json::to_string(&platform).expect("stored");
        let stored: Platform = serde_json::from_str(&text).expect("read");
        assert_eq!(stored.files, QemuFiles::default());
        assert_eq!(stored.with_program(program), platform);
    }

    #[test]
    fn limits_grow_with_what_a_probe_guest_took_and_with_the_hosts_other_work() {
        assert!((slowness(Accel::Kvm, 300) - 1.0).abs() < 1e-9, "an ordinary host");
        assert!((slowness(Accel::Kvm, 5_000) - 5.0).abs() < 1e-9, "a nested one");
        assert!((slowness(Accel::Tcg, 5_000) - 1.25).abs() < 1e-9);
        assert!((slowness(Accel::Kvm, 500_000) - SLOWNESS_MAX).abs() < 1e-9);
        assert!((load_factor_of(0.3, 2) - 1.0).abs() < 1e-9);
        assert!((load_factor_of(5.0, 2) - 2.5).abs() < 1e-9);
        assert!((load_factor_of(90.0, 2) - LOAD_MAX).abs() < 1e-9);
        let limits = Limits::default();
        let nested = limits.stretched(5.0);
        assert_eq!(nested.hello_kvm, Duration::from_secs(100));
        assert_eq!(nested.docker, limits.docker * 5);
        assert_eq!(nested.warm_up, limits.warm_up, "the user's own script has the user's own limit");
    }
}
