//! What machines are made with: the host, their settings, and what runs their instructions.

use dayfly_vm::{Accel, AccelChoice, Driver, Launcher, Machine, QemuSettings, VmHost};

use std::net::{IpAddr, Ipv4Addr};

use super::image;
use crate::cli::{self, MachineArgs};
use crate::exit::{Failure, Result};
use crate::printer::Task;
use crate::settings::Places;

/// DNS server of machines where no other is asked for.
pub(crate) const DNS_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));

/// The host of machines. QEMU is looked for at once, so that its absence is told before anything is made.
pub(crate) fn host(places: &Places) -> Result<VmHost> {
    let host = unchecked_host(places);
    host.qemu().map_err(Failure::cannot)?;
    Ok(host)
}

/// The same, whether QEMU is there or not. This program is the launcher of its VMMs.
pub(crate) fn unchecked_host(places: &Places) -> VmHost {
    let launcher = Launcher { program: places.program.clone(), args: vec!["vmm-launch".to_owned()] };
    VmHost { qemu: places.qemu.clone(), ..VmHost::new(places.state.clone(), launcher) }
}

/// Settings of the machines; the built-in image is built where it is missing.
pub(crate) async fn settings(places: &Places, args: &MachineArgs, quiet: bool) -> Result<Machine> {
    let guest_binary = places.guest_binary()?;
    let image = match &args.image {
        Some(wanted) => image::find(places, wanted)?,
        None => image::ensure(places, quiet).await?,
    };
    Ok(Machine {
        cpus: args.cpus,
        memory_mib: args.memory,
        guest_binary,
        driver: Driver::Qemu(QemuSettings {
            disk_mib: args.disk * 1024,
            image,
            accel: match args.accel {
                cli::Accel::Auto => AccelChoice::Auto,
                cli::Accel::Kvm => AccelChoice::Kvm,
                cli::Accel::Tcg => AccelChoice::Tcg,
            },
        }),
    })
}

/// What machines run with, and why.
pub(crate) struct Proven {
    /// `kvm` or `tcg`.
    pub(crate) word: String,
    /// For people.
    pub(crate) explanation: String,
}

/// Finds out what machines run with: `auto` believes only a probe guest that really booted.
pub(crate) async fn prove(host: &VmHost, machine: &Machine, quiet: bool) -> Result<Proven> {
    let Driver::Qemu(qemu) = &machine.driver else {
        let word = machine.driver.kind().to_string();
        return Ok(Proven { explanation: format!("{word} runs them by itself"), word });
    };
    let (accel, why) = match qemu.accel {
        AccelChoice::Kvm => (Accel::Kvm, "as asked for".to_owned()),
        AccelChoice::Tcg => (Accel::Tcg, "as asked for".to_owned()),
        AccelChoice::Auto => {
            let task = Task::begin("looking whether KVM works", quiet);
            let answer =
                dayfly_vm::probe(host, &qemu.image, &machine.guest_binary).await.map_err(Failure::cannot)?;
            drop(task);
            (answer.accel, answer.seen)
        }
    };
    let name = match accel {
        Accel::Kvm => "KVM",
        Accel::Tcg => "software emulation",
    };
    Ok(Proven { word: accel.to_string(), explanation: format!("{name} ({why})") })
}
