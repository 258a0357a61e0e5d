//! The guest kernel's command line.

use crate::accel::Accel;

/// Options of every guest: a serial console, no mitigations (the VM is the boundary, and one job owns it whole), an end
/// instead of a reboot after a panic, and none of the kernel's accounts that nobody reads: pressure, and processors that
/// are stuck, each of which has work of its own at every tick.
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

/// The words of the command line; `guest` are those for dayfly-guest (see its `boot.rs`).
///
/// Without KVM, a microvm has only the PIT to calibrate the time stamp counter with, which a vCPU thread that loses its
/// processor misses: 17 of 19 boots hung on a loaded host, and none with the frequency given (QEMU 7.2, Linux 6.1).
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
