//! What QEMU's machines run on here: the program, its firmware, the accelerator, the processor model, and how slow this host is.

use std::path::PathBuf;

use crate::accel::Accel;
use crate::driver::qemu::Firmware;
use crate::machine::Limits;

/// Processor of a machine with KVM: this host's own, without its virtualisation. A job that starts machines of its own would
/// widen what of KVM a guest reaches.
const HOST_MODEL: &str = "host,vmx=off,svm=off";
/// Processor of an emulated machine. QEMU 7.2 emulates SMAP so that .NET loses its main thread at the first exception, and AVX
/// so slowly that a C library which uses it is slower than one that does not; this model has neither. It is given ARAT, because a
/// kernel that does not know that its timer goes on in idle ticks for ever: 0.057 of a core for each idle fork instead of 0.003.
pub(crate) const EMULATED_MODEL: &str = "Nehalem-v1,+arat";
/// How many times longer than on an ordinary host limits may get.
const SLOWNESS_MAX: f64 = 20.0;
/// The same for what the host's other work adds.
const LOAD_MAX: f64 = 4.0;

/// The resolved platform of machines.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Platform {
    /// QEMU.
    pub(crate) qemu: PathBuf,
    pub(crate) firmware: Firmware,
    /// Accelerator of the machines.
    pub(crate) accel: Accel,
    /// In QEMU's words.
    pub(crate) cpu_model: String,
    /// How many times slower than an ordinary host this one boots a guest; 1 at least.
    pub(crate) slowness: f64,
}

impl Platform {
    /// A platform on an ordinary host. `cpu_model` is that of emulated machines; none: [`EMULATED_MODEL`].
    pub(crate) fn of(qemu: PathBuf, firmware: Firmware, accel: Accel, cpu_model: Option<&str>) -> Self {
        let cpu_model = match accel {
            Accel::Kvm => HOST_MODEL,
            Accel::Tcg => cpu_model.unwrap_or(EMULATED_MODEL),
        };
        Self { qemu, firmware, accel, cpu_model: cpu_model.to_owned(), slowness: 1.0 }
    }

    /// The same on a host where a probe guest took `hello_ms` milliseconds to its hello.
    pub(crate) fn on_host_of(self, hello_ms: Option<u64>) -> Self {
        let slowness = hello_ms.map_or(1.0, |hello_ms| slowness(self.accel, hello_ms));
        Self { slowness, ..self }
    }

    /// The limits that hold on this host, as busy as it is now.
    pub(crate) fn limits(&self, limits: &Limits) -> Limits {
        limits.stretched(self.slowness * load_factor())
    }
}

/// How many times slower a host is than those that the limits were made for, by the time that a probe guest took.
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

/// How many times longer work takes because others want the processors too.
pub(crate) fn load_factor() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    load_factor_of(load, processors)
}

fn load_factor_of(load: f64, processors: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
    let processors = processors as f64;
    // The limits leave room for a host with as much to do as it has processors.
    (load / processors).clamp(1.0, LOAD_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
