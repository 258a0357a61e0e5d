//! From a machine's needs to a command line. Pure; compared with snapshots.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use dayfly_guest::protocol;

use super::kernel;
use crate::accel::Accel;
use crate::virtiofs;

/// What a machine needs.
#[derive(Debug, Clone)]
pub(crate) struct Needs<'a> {
    /// The program.
    pub(crate) qemu: &'a Path,
    /// Name of the machine, shown in the list of processes.
    pub(crate) name: &'a str,
    /// What runs its instructions.
    pub(crate) accel: Accel,
    /// Frequency of the host's time stamp counter, kHz.
    pub(crate) tsc_khz: u64,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory, MiB.
    pub(crate) memory_mib: u32,
    /// How it starts.
    pub(crate) boot: Boot,
    /// Offer a root shell on its console.
    pub(crate) shell: bool,
}

/// How a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// With its disks and network.
    Whole(Whole),
    /// Only to see whether a guest gets as far as user space.
    Probe,
}

/// What only a whole machine has, beside its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole {
    /// What its network card is connected to.
    pub(crate) card: Card,
    /// Its DNS server.
    pub(crate) dns: IpAddr,
    /// How much of the host is served to it.
    pub(crate) shares: usize,
}

/// What a network card is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Card {
    /// A tap device.
    Tap,
    /// QEMU's own network (slirp).
    User,
}

/// What a descriptor of the VMM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The kernel, for reading.
    Kernel,
    /// The initramfs, for reading.
    Initrd,
    /// Squashfs of the image, for reading.
    RootDisk,
    /// Scratch disk, for reading and writing.
    ScratchDisk,
    /// Tap device of the network card.
    Tap,
    /// Connection to the server of the share of this number.
    Share(usize),
    /// Listening socket of the agent's port.
    AgentSocket,
    /// Listening socket of the monitor.
    MonitorSocket,
    /// Listening socket of the serial console.
    ConsoleSocket,
}

/// A command line, and the descriptors that it speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments, without its name.
    pub(crate) args: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Descriptors that must be open, by number.
    pub(crate) descriptors: Vec<(i32, Role)>,
}

/// Number of the first descriptor.
const DESCRIPTOR_FIRST: i32 = 10;

#[derive(Default)]
struct Builder {
    args: Vec<String>,
    descriptors: Vec<(i32, Role)>,
}

impl Builder {
    fn flag(&mut self, flag: &str) {
        self.args.push(flag.to_owned());
    }

    fn option(&mut self, option: &str, value: impl Into<String>) {
        self.args.push(option.to_owned());
        self.args.push(value.into());
    }

    fn descriptor(&mut self, role: Role) -> i32 {
        let number = self.descriptors.last().map_or(DESCRIPTOR_FIRST, |(last, _)| last + 1);
        self.descriptors.push((number, role));
        number
    }

    /// A socket that the VMM listens on, so that whoever comes later can connect again.
    fn socket(&mut self, id: &str, role: Role) {
        let number = self.descriptor(role);
        self.option("-chardev", format!("socket,id={id},fd={number},server=on,wait=off"));
    }

    /// A disk by its descriptor: the VMM's user needs no access to any path.
    fn disk(&mut self, serial: &str, role: Role, options: &str) {
        let number = self.descriptor(role);
        // Numbers of sets and of descriptors have nothing to do with each other; equal ones are easier to read.
        self.option("-add-fd", format!("fd={number},set={number}"));
        let file = format!("file.driver=file,file.filename=/dev/fdset/{number},file.locking=off");
        self.option("-blockdev", format!("driver=raw,node-name={serial},{file},{options}"));
        self.option("-device", format!("virtio-blk-device,drive={serial},serial={serial}"));
    }

    fn share(&mut self, number: usize) {
        let (tag, descriptor) = (virtiofs::tag(number), self.descriptor(Role::Share(number)));
        self.option("-chardev", format!("socket,id={tag},fd={descriptor}"));
        self.option("-device", format!("vhost-user-fs-device,chardev={tag},tag={tag}"));
    }

    fn card(&mut self, card: Card) {
        match card {
            Card::Tap => {
                let number = self.descriptor(Role::Tap);
                self.option("-netdev", format!("tap,id=net0,fd={number},vhost=off"));
            }
            Card::User => self.option("-netdev", "user,id=net0,ipv6=off"),
        }
    }
}

/// The command line of a machine.
pub(crate) fn plan(needs: &Needs<'_>) -> Invocation {
    let mut builder = Builder::default();
    machine(&mut builder, needs);
    kernel_options(&mut builder, needs);
    builder.socket("console", Role::ConsoleSocket);
    builder.option("-serial", "chardev:console");
    builder.socket("monitor", Role::MonitorSocket);
    builder.option("-mon", "chardev=monitor,mode=control");
    builder.option("-device", "virtio-rng-device");
    builder.option("-device", "virtio-serial-device");
    builder.socket("agent", Role::AgentSocket);
    builder.option("-device", format!("virtserialport,chardev=agent,name={}", protocol::PORT_NAME));
    if let Boot::Whole(whole) = needs.boot {
        builder.disk("root", Role::RootDisk, "read-only=on");
        // Nothing on it outlives the machine, so nothing has to reach the host's disk.
        builder.disk("scratch", Role::ScratchDisk, "cache.no-flush=on,discard=unmap");
        builder.card(whole.card);
        (0..whole.shares).for_each(|number| builder.share(number));
        builder.option("-device", "virtio-net-device,netdev=net0,mac=52:54:00:12:34:56");
    }
    Invocation {
        program: needs.qemu.to_owned(),
        args: builder.args,
        env: Vec::new(),
        descriptors: builder.descriptors,
    }
}

fn machine(builder: &mut Builder, needs: &Needs<'_>) {
    builder.option("-name", format!("dayfly-{}", escape(needs.name)));
    let mut machine =
        "microvm,acpi=on,rtc=on,pit=on,pic=on,x-option-roms=off,isa-serial=on,usb=off,graphics=off"
            .to_owned();
    if matches!(needs.boot, Boot::Whole(Whole { shares: 1.., .. })) {
        // Servers of files read and write the machine's memory.
        let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", needs.memory_mib);
        builder.option("-object", memory);
        machine.push_str(",memory-backend=memory");
    }
    builder.option("-machine", machine);
    match needs.accel {
        Accel::Kvm => {
            builder.option("-accel", "kvm");
            builder.option("-cpu", "host");
        }
        Accel::Tcg => {
            // The cache of translated code would take up to 1 GiB in each VMM.
            builder.option("-accel", "tcg,thread=multi,tb-size=64");
            builder.option("-cpu", "max");
        }
    }
    builder.option("-smp", needs.cpus.to_string());
    builder.option("-m", format!("{}M", needs.memory_mib));
    builder.option("-global", "virtio-mmio.force-legacy=false");
    for flag in ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"] {
        builder.flag(flag);
    }
    builder.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

fn kernel_options(builder: &mut Builder, needs: &Needs<'_>) {
    let kernel = builder.descriptor(Role::Kernel);
    let initrd = builder.descriptor(Role::Initrd);
    builder.option("-kernel", format!("/proc/self/fd/{kernel}"));
    builder.option("-initrd", format!("/proc/self/fd/{initrd}"));
    let guest = match needs.boot {
        Boot::Probe => vec!["dayfly.probe".to_owned()],
        Boot::Whole(whole) => {
            let shell = needs.shell.then(|| "dayfly.shell".to_owned());
            std::iter::once(format!("dayfly.dns={}", whole.dns)).chain(shell).collect()
        }
    };
    builder.option("-append", kernel::command_line(needs.accel, needs.tsc_khz, guest));
}

/// A name as a value among QEMU's options, where a comma separates.
fn escape(name: &str) -> String {
    name.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command line as a person would type it, one option a line.
    fn shown(needs: &Needs<'_>) -> String {
        let invocation = plan(needs);
        let mut text = invocation.program.display().to_string();
        for arg in &invocation.args {
            text.push_str(if arg.starts_with('-') { "\n  " } else { " " });
            text.push_str(arg);
        }
        for (number, role) in invocation.descriptors {
            text.push_str(&format!("\n  {number}: {role:?}"));
        }
        text
    }

    fn needs(accel: Accel, boot: Boot) -> Needs<'static> {
        let qemu = Path::new("/usr/bin/qemu-system-x86_64");
        Needs {
            qemu,
            name: "r-0,x",
            accel,
            tsc_khz: 2_100_000,
            cpus: 2,
            memory_mib: 2048,
            boot,
            shell: false,
        }
    }

    fn whole(card: Card) -> Boot {
        Boot::Whole(Whole { card, dns: [1, 1, 1, 1].into(), shares: 0 })
    }

    #[test]
    fn a_whole_machine_under_emulation() {
        insta::assert_snapshot!(shown(&needs(Accel::Tcg, whole(Card::Tap))));
    }

    #[test]
    fn a_whole_machine_with_kvm() {
        insta::assert_snapshot!(shown(&needs(Accel::Kvm, whole(Card::User))));
    }

    #[test]
    fn a_machine_with_mounts_shares_its_memory() {
        let whole = Whole { card: Card::Tap, dns: [1, 1, 1, 1].into(), shares: 2 };
        insta::assert_snapshot!(shown(&needs(Accel::Kvm, Boot::Whole(whole))));
    }

    #[test]
    fn a_probe_guest_has_neither_disks_nor_network() {
        insta::assert_snapshot!(shown(&needs(Accel::Kvm, Boot::Probe)));
    }
}
