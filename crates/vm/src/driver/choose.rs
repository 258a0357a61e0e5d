//! Chooses the driver of machines.

use dayfly_host::tool::Invocation;

use super::{DriverKind, krunvm, podman};
use crate::accel::AccelChoice;
use crate::machine::StartError;
use crate::vm_host::VmHost;
use crate::vmm::kvm;
use crate::vmm::probe::{self, KvmBoot, ProbeGuest, Trust};

/// The drivers that this host can use. An error is the reason why a driver cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableDrivers {
    /// QEMU with KVM, which has booted the probe guest.
    pub qemu_kvm: Result<(), String>,
    /// Any QEMU, for emulation.
    pub qemu: Result<(), String>,
    /// podman, its runtime `krun`, and KVM.
    pub podman_krun: Result<(), String>,
    /// krunvm, buildah and KVM.
    pub krunvm: Result<(), String>,
}

/// The driver and the accelerator of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChosenDriver {
    /// The driver.
    pub kind: DriverKind,
    /// The accelerator; only the driver `qemu` uses it.
    pub accel: AccelChoice,
}

/// Why no driver can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// The requested driver is for the lab only.
    #[error(
        "the driver `process` is for the lab only: jobs would run on this host itself, without isolation"
    )]
    ProcessNeedsLab,
    /// Only emulation is left, and it was not requested.
    #[error(
        "no machine can be made here for a forge that is not the lab.\n  qemu with KVM: {qemu_kvm}\n  podman-krun: {podman_krun}\n  \
         krunvm: {krunvm}\nEmulation works, but is no security boundary: a job may get out of it. `--accel tcg` takes it \
         nevertheless"
    )]
    EmulationNeedsLab {
        /// Why QEMU with KVM cannot be used.
        qemu_kvm: String,
        /// Why podman-krun cannot be used.
        podman_krun: String,
        /// Why krunvm cannot be used.
        krunvm: String,
    },
    /// No driver can be used.
    #[error(
        "no machine can be made here.\n  qemu: {qemu}\n  podman-krun: {podman_krun}\n  krunvm: {krunvm}\n`dayfly doctor` tells \
         what mends it"
    )]
    Nothing {
        /// Why QEMU cannot be used.
        qemu: String,
        /// Why podman-krun cannot be used.
        podman_krun: String,
        /// Why krunvm cannot be used.
        krunvm: String,
    },
}

/// Chooses a driver: the requested one, or else the first usable one of qemu with KVM, podman-krun and krunvm. Emulation is
/// chosen only for the lab, or if it was requested.
///
/// # Errors
/// See [`ChooseError`]. A requested krun driver is not looked up in `found`, because its start reports what is missing.
pub fn choose(
    wanted: Option<DriverKind>,
    accel: AccelChoice,
    is_lab: bool,
    found: &UsableDrivers,
) -> Result<ChosenDriver, ChooseError> {
    let chosen = |kind| Ok(ChosenDriver { kind, accel });
    let missing = |found: &Result<(), String>| found.clone().err().unwrap_or_else(|| "usable".to_owned());
    let qemu_kvm = found.qemu_kvm.is_ok() || accel == AccelChoice::Kvm;
    match wanted {
        Some(DriverKind::Process) if !is_lab => return Err(ChooseError::ProcessNeedsLab),
        Some(kind @ (DriverKind::Process | DriverKind::PodmanKrun | DriverKind::Krunvm)) => {
            return chosen(kind);
        }
        Some(DriverKind::Qemu) if accel != AccelChoice::Auto || qemu_kvm || is_lab => {
            return chosen(DriverKind::Qemu);
        }
        // An explicit accelerator implies qemu.
        None if accel != AccelChoice::Auto || qemu_kvm => return chosen(DriverKind::Qemu),
        None if found.podman_krun.is_ok() => return chosen(DriverKind::PodmanKrun),
        None if found.krunvm.is_ok() => return chosen(DriverKind::Krunvm),
        None if found.qemu.is_ok() && is_lab => return chosen(DriverKind::Qemu),
        None | Some(DriverKind::Qemu) => {}
    }
    let (podman_krun, krunvm) = (missing(&found.podman_krun), missing(&found.krunvm));
    Err(match &found.qemu {
        Ok(()) => ChooseError::EmulationNeedsLab { qemu_kvm: missing(&found.qemu_kvm), podman_krun, krunvm },
        Err(qemu) => ChooseError::Nothing { qemu: qemu.clone(), podman_krun, krunvm },
    })
}

/// Finds out which drivers this host can use. Without a probe guest, the stored result of an earlier probe decides about
/// KVM. A probe takes seconds, once.
///
/// # Errors
/// The image or the guest binary cannot be read.
pub async fn find(host: &VmHost, guest: Option<ProbeGuest<'_>>) -> Result<UsableDrivers, StartError> {
    let kvm = kvm::usable().map_err(|unusable| unusable.to_string());
    let qemu = host.qemu().map(drop).map_err(|error| error.to_string());
    let qemu_kvm = match (&qemu, &kvm, guest) {
        (Err(missing), ..) | (_, Err(missing), _) => Err(missing.clone()),
        (Ok(()), Ok(()), Some(guest)) => match probe::kvm(host, guest, Trust::Remembered).await? {
            KvmBoot::Boots(_) => Ok(()),
            KvmBoot::Fails { reason } => Err(reason),
        },
        (Ok(()), Ok(()), None) => probe::remembered_kvm(host).unwrap_or_else(|| {
            Err("whether a guest boots with KVM is not known before there is an image".to_owned())
        }),
    };
    Ok(UsableDrivers {
        qemu_kvm,
        qemu,
        podman_krun: krun(podman::podman(host), &kvm, podman::probe(host)).await,
        krunvm: krun(krunvm::krunvm(host), &kvm, krunvm::probe(host)).await,
    })
}

/// Finds out whether a krun driver can be used. Its tool is not run if its machines could not start anyway: podman leaves folders
/// among the temporary files of a user who has no session.
async fn krun(
    tool: Result<Invocation, StartError>,
    kvm: &Result<(), String>,
    probe: impl Future<Output = Result<String, StartError>>,
) -> Result<(), String> {
    tool.map_err(|error| error.to_string())?;
    kvm.clone()?;
    probe.await.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &str) -> UsableDrivers {
        let has = |name: &str| {
            if names.split(' ').any(|word| word == name) { Ok(()) } else { Err(format!("no {name}")) }
        };
        UsableDrivers {
            qemu_kvm: has("kvm"),
            qemu: has("qemu"),
            podman_krun: has("podman"),
            krunvm: has("krunvm"),
        }
    }

    fn kind(wanted: Option<DriverKind>, accel: AccelChoice, is_lab: bool, names: &str) -> String {
        match choose(wanted, accel, is_lab, &found(names)) {
            Ok(chosen) => chosen.kind.to_string(),
            Err(error) => format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn the_strongest_that_works_is_taken_and_emulation_for_the_lab_alone() {
        let auto = |is_lab, names: &str| kind(None, AccelChoice::Auto, is_lab, names);
        for (is_lab, names, expected) in [
            (false, "qemu kvm podman krunvm", "qemu"),
            (false, "qemu podman krunvm", "podman-krun"),
            (true, "qemu podman krunvm", "podman-krun"),
            (false, "qemu krunvm", "krunvm"),
            (true, "qemu", "qemu"),
            (false, "qemu", "EmulationNeedsLab"),
            (true, "", "Nothing"),
            (false, "", "Nothing"),
        ] {
            assert_eq!(auto(is_lab, names), expected, "{is_lab} {names}");
        }
    }

    #[test]
    fn what_was_asked_for_is_taken_except_where_it_would_hold_nobody_in() {
        use AccelChoice::{Auto, Kvm, Tcg};
        for (wanted, accel, is_lab, expected) in [
            (Some(DriverKind::Krunvm), Auto, false, "krunvm"),
            (Some(DriverKind::Process), Auto, true, "process"),
            (Some(DriverKind::Process), Auto, false, "ProcessNeedsLab"),
            (Some(DriverKind::Qemu), Auto, false, "EmulationNeedsLab"),
            (Some(DriverKind::Qemu), Auto, true, "qemu"),
            (Some(DriverKind::Qemu), Tcg, false, "qemu"),
            (None, Tcg, false, "qemu"),
            (None, Kvm, false, "qemu"),
        ] {
            assert_eq!(kind(wanted, accel, is_lab, "qemu podman"), expected, "{wanted:?} {accel:?} {is_lab}");
        }
    }

    #[test]
    fn the_errors_say_what_is_missing_of_each() {
        let message = |is_lab, names| {
            choose(None, AccelChoice::Auto, is_lab, &found(names)).expect_err("none").to_string()
        };
        insta::assert_snapshot!(message(false, "qemu"), @"
        no machine can be made here for a forge that is not the lab.
          qemu with KVM: no kvm
          podman-krun: no podman
          krunvm: no krunvm
        Emulation works, but is no security boundary: a job may get out of it. `--accel tcg` takes it nevertheless
        ");
        insta::assert_snapshot!(message(true, ""), @"
        no machine can be made here.
          qemu: no qemu
          podman-krun: no podman
          krunvm: no krunvm
        `dayfly doctor` tells what mends it
        ");
    }
}
