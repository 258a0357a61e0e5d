//! Checks of QEMU and of the accelerators for `dayfly doctor`.

use super::probe::AccelReport;
use super::program;
use super::threads::TcgThreads;
use crate::accel::Accel;
use crate::host::Check;
use crate::machine::StartError;
use crate::vm_host::VmHost;
use crate::vmm::kvm;
use dayfly_host::tool::{self, Reach};

/// Checks QEMU and the accelerators. `probed` is the result of a probe guest, if one was booted.
pub(crate) fn checks(host: &VmHost, probed: Option<&Result<AccelReport, StartError>>) -> Vec<Check> {
    let mut checks = installed(host);
    let threads = host.qemu().map_or(TcgThreads::Multi, |path| TcgThreads::of(&path));
    checks.extend(accelerator(probed, threads));
    checks
}

fn installed(host: &VmHost) -> Vec<Check> {
    let path = match host.qemu() {
        Ok(path) => path,
        Err(error) => return vec![Check::missing("qemu", error.to_string(), program::MEND)],
    };
    let Some(version) = program::version(&path) else {
        return vec![Check::missing("qemu", format!("{} does not run", path.display()), program::MEND)];
    };
    let machines = tool::command(&path, Reach::Host).args(["-machine", "help"]).output();
    let microvm = machines.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).lines().any(|line| line.starts_with("microvm "))
    });
    let machine = if microvm {
        Check::ok("microvm machine", "QEMU has it")
    } else {
        Check::missing("microvm machine", "this QEMU was built without it", program::MEND)
    };
    vec![Check::ok("qemu", format!("{version} ({})", path.display())), machine]
}

/// Reports whether the probe guest booted with KVM and, if it did not, whether it booted under emulation.
fn accelerator(probed: Option<&Result<AccelReport, StartError>>, threads: TcgThreads) -> Vec<Check> {
    const EMULATED: &str = "machines are emulated: slow, and no security boundary";
    let kvm = |seen: &str| {
        let mend = kvm::usable().err().map(|unusable| unusable.mend());
        Check::warn("kvm", format!("{seen}; {EMULATED}"), mend)
    };
    match probed {
        Some(Ok(AccelReport { accel: Accel::Kvm, seen, .. })) => vec![Check::ok("kvm", seen)],
        Some(Ok(AccelReport { accel: Accel::Tcg, seen, boots: true, .. })) => {
            let emulation = match threads {
                TcgThreads::Multi => "a probe guest booted",
                TcgThreads::Single => {
                    "a probe guest booted; QEMU before 8.1 runs the virtual CPUs of a machine in turn, because its threads \
                     are not sound"
                }
            };
            vec![kvm(seen), Check::ok("emulation", emulation)]
        }
        Some(Ok(AccelReport { accel: Accel::Tcg, seen, boots: false, .. })) => vec![
            kvm("not known"),
            Check::warn("emulation", format!("{seen}; the image or the guest binary is to blame"), None),
        ],
        Some(Err(StartError::NoGuestBoots { reason, kvm: why })) => vec![
            kvm(why.as_deref().unwrap_or("not tried")),
            Check::missing(
                "emulation",
                reason,
                "apt-get install --reinstall qemu-system-x86 qemu-system-data seabios",
            ),
        ],
        // Another check reports what is missing.
        Some(Err(_)) | None => vec![match kvm::usable() {
            Ok(()) => {
                Check::warn("kvm", "/dev/kvm opens; whether a guest boots shows with the first machine", None)
            }
            Err(unusable) => kvm(&unusable.to_string()),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_probe_guest_showed_is_told_for_each_accelerator_that_was_tried() {
        let shown = |probed: Result<AccelReport, StartError>| {
            let checks = accelerator(Some(&probed), TcgThreads::Multi).into_iter();
            checks.map(|check| format!("{} {:?}", check.name, check.state)).collect::<Vec<_>>()
        };
        let answer = |accel| Ok(AccelReport { accel, seen: "x".to_owned(), boots: true, warning: None });
        assert_eq!(shown(answer(Accel::Kvm)), ["kvm Ok"]);
        assert_eq!(shown(answer(Accel::Tcg)), ["kvm Warn", "emulation Ok"]);
        let none = StartError::NoGuestBoots { reason: "r".to_owned(), kvm: None };
        assert_eq!(shown(Err(none)), ["kvm Warn", "emulation Missing"]);
    }
}
