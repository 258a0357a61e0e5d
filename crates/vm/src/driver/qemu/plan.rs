//! Turns a machine's needs into QEMU's command line. Pure; tests compare the result with snapshots.

use std::path::PathBuf;

use dayfly_guest::protocol;

use super::firmware::Firmware;
use super::kernel;
use crate::accel::Accel;
use crate::platform::Platform;
use crate::virtiofs;

/// The needs of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Needs<'a> {
    /// The program, its firmware, the accelerator and the processor model.
    pub(crate) platform: &'a Platform,
    /// Name of the machine, shown in the list of processes.
    pub(crate) name: &'a str,
    /// Frequency of the host's time stamp counter, kHz.
    pub(crate) tsc_khz: u64,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory, MiB.
    pub(crate) memory_mib: u32,
    /// How the machine starts.
    pub(crate) boot: Boot,
}

/// How a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// From its kernel, only to find out whether a guest reaches user space.
    Probe,
    /// From its kernel.
    Cold {
        /// The back end of its network card.
        card: Card,
        /// Number of the host's folders and files that are shared with it.
        shares: usize,
    },
    /// From its kernel, with memory that outlives it, because other machines are forked from it.
    Template {
        /// The back end of its network card.
        card: Card,
    },
    /// From a template's memory, devices and disk. Its devices must be those of [`Boot::Template`], in the same order.
    Fork {
        /// The back end of its network card.
        card: Card,
    },
}

impl Boot {
    fn is_from_kernel(self) -> bool {
        !matches!(self, Self::Fork { .. })
    }

    fn card(self) -> Option<Card> {
        match self {
            Self::Probe => None,
            Self::Cold { card, .. } | Self::Template { card } | Self::Fork { card } => Some(card),
        }
    }

    fn shares(self) -> usize {
        match self {
            Self::Cold { shares, .. } => shares,
            Self::Probe | Self::Template { .. } | Self::Fork { .. } => 0,
        }
    }
}

/// The back end of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Card {
    /// A tap device.
    Tap,
    /// QEMU's own network (slirp).
    User,
}

/// The role of a descriptor of the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The firmware, for reading.
    Firmware,
    /// The kernel, for reading.
    Kernel,
    /// The initramfs, for reading.
    Initrd,
    /// Squashfs of the image, for reading.
    RootDisk,
    /// Scratch disk, for reading and writing: raw, or, in a fork, an overlay.
    ScratchDisk,
    /// The base of a fork's overlay, for reading.
    BaseDisk,
    /// Memory of a template, or the memory that a fork copies its own from.
    Memory,
    /// State of the template's devices, which a fork reads.
    State,
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

/// A command line and the descriptors that it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments, without its name.
    pub(crate) args: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// True if the VMM must get its memory in small pages only.
    pub(crate) small_pages: bool,
    /// Descriptors that must be open, by number.
    pub(crate) descriptors: Vec<(i32, Role)>,
}

impl Invocation {
    /// Returns the number of the descriptor with this role, if there is one.
    pub(crate) fn number(&self, role: Role) -> Option<i32> {
        self.descriptors.iter().find(|(_, found)| *found == role).map(|(number, _)| *number)
    }
}

/// Number of the first descriptor.
const DESCRIPTOR_FIRST: i32 = 10;

/// The environment of the VMM.
const ENVIRONMENT: [(&str, &str); 2] = [
    // One heap for all threads, because a fork has few threads and each further heap would cost every fork pages of its own.
    ("MALLOC_ARENA_MAX", "1"),
    // The linker searches QEMU's symbols in 50 libraries, in their order. Most symbols are in these two, which are loaded in
    // any case. If they are first in the order, an exec takes a tenth less time.
    ("LD_PRELOAD", "libc.so.6 libglib-2.0.so.0"),
];

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

    /// Adds a socket that the VMM listens on, so that a later process can connect again.
    fn socket(&mut self, id: &str, role: Role) {
        let number = self.descriptor(role);
        self.option("-chardev", format!("socket,id={id},fd={number},server=on,wait=off"));
    }

    /// Adds a file by its descriptor, so that the VMM's user needs no access to any path.
    fn block(&mut self, node: &str, driver: &str, role: Role, options: &str) {
        let number = self.descriptor(role);
        // The numbers of sets and descriptors are independent; equal numbers are easier to read.
        self.option("-add-fd", format!("fd={number},set={number}"));
        let file = format!("file.driver=file,file.filename=/dev/fdset/{number},file.locking=off");
        self.option("-blockdev", format!("driver={driver},node-name={node},{file},{options}"));
    }

    /// Adds a disk that the guest finds by its serial.
    fn disk(&mut self, serial: &str) {
        self.option("-device", format!("virtio-blk-device,drive={serial},serial={serial}"));
    }

    fn disks(&mut self, boot: Boot) {
        self.block("root", "raw", Role::RootDisk, "read-only=on");
        self.disk("root");
        // The scratch disk does not outlive the machine, so its data need not reach the host's disk.
        let scratch = "cache.no-flush=on,discard=unmap";
        if let Boot::Fork { .. } = boot {
            self.block("base", "raw", Role::BaseDisk, "read-only=on");
            self.block("scratch", "qcow2", Role::ScratchDisk, &format!("backing=base,{scratch}"));
        } else {
            self.block("scratch", "raw", Role::ScratchDisk, scratch);
        }
        self.disk("scratch");
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

/// Returns the command line of a machine.
pub(crate) fn plan(needs: &Needs<'_>) -> Invocation {
    let mut builder = Builder::default();
    machine(&mut builder, needs);
    if needs.boot.is_from_kernel() {
        kernel_options(&mut builder, needs);
    }
    builder.socket("console", Role::ConsoleSocket);
    builder.option("-serial", "chardev:console");
    builder.socket("monitor", Role::MonitorSocket);
    builder.option("-mon", "chardev=monitor,mode=control");
    builder.option("-device", "virtio-serial-device");
    builder.socket("agent", Role::AgentSocket);
    builder.option("-device", format!("virtserialport,chardev=agent,name={}", protocol::PORT_NAME));
    if let Some(card) = needs.boot.card() {
        builder.disks(needs.boot);
        builder.card(card);
        (0..needs.boot.shares()).for_each(|number| builder.share(number));
        builder.option("-device", "virtio-net-device,netdev=net0,mac=52:54:00:12:34:56");
    }
    if let Boot::Fork { .. } = needs.boot {
        // Only a command of the monitor can name the state, and declare that the memory is present already.
        builder.descriptor(Role::State);
        builder.option("-incoming", "defer");
    }
    Invocation {
        program: needs.platform.qemu.clone(),
        args: builder.args,
        env: ENVIRONMENT.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        // In huge pages, the cache of translated code would be cleared and allocated by megabytes, of which an idle fork
        // uses little.
        small_pages: needs.platform.accel == Accel::Tcg && matches!(needs.boot, Boot::Fork { .. }),
        descriptors: builder.descriptors,
    }
}

fn machine(builder: &mut Builder, needs: &Needs<'_>) {
    builder.option("-name", format!("dayfly-{}", escape(needs.name)));
    let option_roms = match needs.platform.firmware {
        Firmware::Qboot(_) => {
            let number = builder.descriptor(Role::Firmware);
            builder.option("-bios", format!("/proc/self/fd/{number}"));
            "off"
        }
        Firmware::Default => "on",
    };
    let mut machine = format!(
        "microvm,acpi=on,rtc=on,pit=on,pic=on,x-option-roms={option_roms},isa-serial=on,usb=off,graphics=off"
    );
    if let Some(memory) = memory(builder, needs.boot) {
        builder.option("-object", format!("{memory},id=memory,size={}M", needs.memory_mib));
        machine.push_str(",memory-backend=memory");
    }
    builder.option("-machine", machine);
    builder.option(
        "-accel",
        match needs.platform.accel {
            Accel::Kvm => "kvm",
            // By default, the cache of translated code takes up to 1 GiB in each VMM.
            Accel::Tcg => "tcg,thread=multi,tb-size=256",
        },
    );
    builder.option("-cpu", needs.platform.cpu_model.clone());
    builder.option("-smp", needs.cpus.to_string());
    builder.option("-m", format!("{}M", needs.memory_mib));
    builder.option("-global", "virtio-mmio.force-legacy=false");
    for flag in ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"] {
        builder.flag(flag);
    }
    builder.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

/// Returns the back end of the machine's memory, if the memory is not the VMM's own.
fn memory(builder: &mut Builder, boot: Boot) -> Option<String> {
    let share = match boot {
        Boot::Probe | Boot::Cold { shares: 0, .. } => return None,
        // The virtiofs servers read and write it.
        Boot::Cold { .. } => return Some("memory-backend-memfd,share=on".to_owned()),
        Boot::Template { .. } => "on",
        // Each page is the template's until the fork writes to it.
        Boot::Fork { .. } => "off",
    };
    let number = builder.descriptor(Role::Memory);
    Some(format!("memory-backend-file,mem-path=/proc/self/fd/{number},share={share}"))
}

fn kernel_options(builder: &mut Builder, needs: &Needs<'_>) {
    let kernel = builder.descriptor(Role::Kernel);
    let initrd = builder.descriptor(Role::Initrd);
    builder.option("-kernel", format!("/proc/self/fd/{kernel}"));
    builder.option("-initrd", format!("/proc/self/fd/{initrd}"));
    let guest = (needs.boot == Boot::Probe).then(|| "dayfly.probe".to_owned()).into_iter().collect();
    builder.option("-append", kernel::command_line(needs.platform.accel, needs.tsc_khz, guest));
}

/// Escapes a name as a value in QEMU's options, which are separated by commas.
fn escape(name: &str) -> String {
    name.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the command line as a person would type it, one option per line.
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

    fn platform(accel: Accel) -> Platform {
        let firmware = Firmware::Qboot("/usr/share/qemu/qboot.rom".into());
        Platform::of("/usr/bin/qemu-system-x86_64".into(), firmware, accel, None)
    }

    fn needs(platform: &Platform, boot: Boot) -> Needs<'_> {
        Needs { platform, name: "r-0,x", tsc_khz: 2_100_000, cpus: 2, memory_mib: 2048, boot }
    }

    #[test]
    fn a_whole_machine_under_emulation() {
        insta::assert_snapshot!(shown(&needs(
            &platform(Accel::Tcg),
            Boot::Cold { card: Card::Tap, shares: 0 }
        )));
    }

    #[test]
    fn a_whole_machine_with_kvm() {
        insta::assert_snapshot!(shown(&needs(
            &platform(Accel::Kvm),
            Boot::Cold { card: Card::User, shares: 0 }
        )));
    }

    #[test]
    fn a_machine_with_mounts_shares_its_memory() {
        insta::assert_snapshot!(shown(&needs(
            &platform(Accel::Kvm),
            Boot::Cold { card: Card::Tap, shares: 2 }
        )));
    }

    #[test]
    fn a_template_has_memory_that_outlives_it() {
        insta::assert_snapshot!(shown(&needs(&platform(Accel::Tcg), Boot::Template { card: Card::Tap })));
    }

    #[test]
    fn a_fork_has_no_kernel_and_memory_and_disk_of_its_template() {
        insta::assert_snapshot!(shown(&needs(&platform(Accel::Tcg), Boot::Fork { card: Card::Tap })));
    }

    /// QEMU matches the device states of a snapshot by the order of the devices.
    #[test]
    fn template_and_fork_have_the_same_devices_in_the_same_order() {
        let devices = |boot| {
            let args = plan(&needs(&platform(Accel::Tcg), boot)).args;
            let pairs = args.windows(2).filter(|pair| pair[0] == "-device");
            pairs.map(|pair| pair[1].clone()).collect::<Vec<_>>()
        };
        let template = devices(Boot::Template { card: Card::User });
        assert!(template.len() > 4);
        assert_eq!(template, devices(Boot::Fork { card: Card::User }));
    }

    #[test]
    fn a_firmware_of_qemus_own_choice_gets_the_option_rom_that_finds_the_kernel() {
        let platform = Platform { firmware: Firmware::Default, ..platform(Accel::Tcg) };
        let args = plan(&needs(&platform, Boot::Probe)).args.join(" ");
        assert!(args.contains("x-option-roms=on") && !args.contains("-bios"), "{args}");
    }

    #[test]
    fn a_probe_guest_has_neither_disks_nor_network() {
        insta::assert_snapshot!(shown(&needs(&platform(Accel::Kvm), Boot::Probe)));
    }
}
