//! The guest kernel's command line.

use crate::accel::Accel;

/// Options of every guest: a serial console, no mitigations (because the VM is the boundary and one job owns all of it), an
/// exit of QEMU instead of a reboot after a panic, and neither pressure figures nor a watchdog for stuck processors, because
/// each costs work at every tick and nothing reads them.
const ALWAYS: &[&str] = &[
    "console=ttyS0",
    "quiet",
    "reboot=t",
    "panic=-1",
    "mitigations=off",
    "nokaslr",
    "audit=0",
    "random.trust_cpu=on",
    "net.ifnames=0",
    "psi=0",
    "nowatchdog",
];

/// Returns the command line. `guest` are the options for dayfly-guest (see its `boot.rs`).
///
/// Without KVM, a microvm has only the PIT to calibrate the time stamp counter with. The calibration fails if the vCPU's
/// thread loses its processor: 17 of 19 boots hung on a loaded host, and none if the frequency was given (QEMU 7.2,
/// Linux 6.1).
pub(super) fn command_line(accel: Accel, tsc_khz: u64, guest: Vec<String>) -> String {
    let mut words: Vec<String> = ALWAYS.iter().map(|&word| word.to_owned()).collect();
    if accel == Accel::Tcg {
        words.push(format!("tsc_early_khz={tsc_khz}"));
        words.push("tsc=reliable".to_owned());
        words.push("no_timer_check".to_owned());
    }
    words.extend(guest);
    words.join(" ")
}
