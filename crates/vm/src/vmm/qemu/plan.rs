//! Turns a machine's needs into QEMU's command line. Pure; tests compare the result with snapshots.

use dayfly_guest::protocol;

use super::firmware::Firmware;
use super::kernel;
use crate::accel::Accel;
use crate::virtiofs;
use crate::vmm::{Boot, DescriptorRole, NetworkCard, VmmCommand, VmmNeeds};

/// Prefix of a machine's name in the list of processes.
pub(super) const NAME_PREFIX: &str = "dayfly-";
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

/// Options that keep the guest's memory to its VMM. Pages that the kernel merges with those of other guests (KSM) tell each
/// guest by the time of a write what the others hold, and a core dump of the VMM would hold the guest's secrets.
const MEMORY_IS_PRIVATE: &str = "mem-merge=off,dump-guest-core=off";

#[derive(Default)]
struct Builder {
    args: Vec<String>,
    descriptors: Vec<(i32, DescriptorRole)>,
}

impl Builder {
    fn flag(&mut self, flag: &str) {
        self.args.push(flag.to_owned());
    }

    fn option(&mut self, option: &str, value: impl Into<String>) {
        self.args.push(option.to_owned());
        self.args.push(value.into());
    }

    fn descriptor(&mut self, role: DescriptorRole) -> i32 {
        let number = self.descriptors.last().map_or(DESCRIPTOR_FIRST, |(last, _)| last + 1);
        self.descriptors.push((number, role));
        number
    }

    /// Adds a socket that the VMM listens on, so that a later process can connect again.
    fn socket(&mut self, id: &str, role: DescriptorRole) {
        let number = self.descriptor(role);
        self.option("-chardev", format!("socket,id={id},fd={number},server=on,wait=off"));
    }

    /// Adds a file by its descriptor, so that the VMM's user needs no access to any path.
    fn block(&mut self, node: &str, driver: &str, role: DescriptorRole, options: &str) {
        let number = self.descriptor(role);
        // The numbers of sets and descriptors are independent; equal numbers are easier to read.
        self.option("-add-fd", format!("fd={number},set={number}"));
        let file = format!("file.driver=file,file.filename=/dev/fdset/{number},file.locking=off");
        self.option("-blockdev", format!("driver={driver},node-name={node},{file},{options}"));
    }

    /// Adds a disk that the guest finds by its serial.
    ///
    /// If this host's disk is full, the guest gets an I/O error. By default QEMU pauses the machine, which keeps the space
    /// that the other machines need.
    fn disk(&mut self, serial: &str) {
        let device = format!("virtio-blk-device,drive={serial},serial={serial},werror=report");
        self.option("-device", device);
    }

    fn disks(&mut self, boot: Boot) {
        self.block("root", "raw", DescriptorRole::RootDisk, "read-only=on");
        self.disk("root");
        // The scratch disk does not outlive the machine, so its data need not reach the host's disk.
        let scratch = "cache.no-flush=on,discard=unmap";
        match boot {
            Boot::Fork { .. } => {
                self.block("base", "raw", DescriptorRole::BaseDisk, "read-only=on");
                self.overlay("base", scratch);
            }
            Boot::Thaw { is_fork: true, .. } => {
                self.block("base", "raw", DescriptorRole::BaseDisk, "read-only=on");
                self.block("kept", "qcow2", DescriptorRole::KeptDisk, "backing=base,read-only=on");
                self.overlay("kept", scratch);
            }
            Boot::Thaw { is_fork: false, .. } => {
                self.block("kept", "raw", DescriptorRole::KeptDisk, "read-only=on");
                self.overlay("kept", scratch);
            }
            Boot::Probe | Boot::Cold { .. } | Boot::Template { .. } => {
                self.block("scratch", "raw", DescriptorRole::ScratchDisk, scratch);
            }
        }
        self.disk("scratch");
    }

    /// Adds a scratch disk that takes what is written, over another one.
    fn overlay(&mut self, base: &str, options: &str) {
        self.block("scratch", "qcow2", DescriptorRole::ScratchDisk, &format!("backing={base},{options}"));
    }

    fn share(&mut self, number: usize) {
        let (tag, descriptor) = (virtiofs::tag(number), self.descriptor(DescriptorRole::Share(number)));
        self.option("-chardev", format!("socket,id={tag},fd={descriptor}"));
        self.option("-device", format!("vhost-user-fs-device,chardev={tag},tag={tag}"));
    }

    fn card(&mut self, card: NetworkCard) {
        match card {
            NetworkCard::Tap => {
                let number = self.descriptor(DescriptorRole::Tap);
                self.option("-netdev", format!("tap,id=net0,fd={number},vhost=off"));
            }
            NetworkCard::User => self.option("-netdev", "user,id=net0,ipv6=off"),
        }
    }
}

/// Returns the command line of a machine.
pub(crate) fn plan(needs: &VmmNeeds<'_>) -> VmmCommand {
    let mut builder = Builder::default();
    machine(&mut builder, needs);
    if needs.boot.is_from_kernel() {
        kernel_options(&mut builder, needs);
    }
    builder.socket("console", DescriptorRole::ConsoleSocket);
    builder.option("-serial", "chardev:console");
    builder.socket("monitor", DescriptorRole::MonitorSocket);
    builder.option("-mon", "chardev=monitor,mode=control");
    builder.option("-device", "virtio-serial-device");
    builder.socket("agent", DescriptorRole::AgentSocket);
    builder.option("-device", format!("virtserialport,chardev=agent,name={}", protocol::PORT_NAME));
    if let Some(card) = needs.boot.card() {
        builder.disks(needs.boot);
        builder.card(card);
        (0..needs.boot.shares()).for_each(|number| builder.share(number));
        builder.option("-device", "virtio-net-device,netdev=net0,mac=52:54:00:12:34:56");
    }
    if !needs.boot.is_from_kernel() {
        // Only a command of the monitor can name the state, and declare that the memory is present already.
        builder.descriptor(DescriptorRole::State);
        builder.option("-incoming", "defer");
    }
    VmmCommand {
        program: needs.platform.qemu.clone(),
        args: builder.args,
        files: needs.platform.files.paths.clone(),
        starts_programs: needs.platform.files.is_script,
        env: ENVIRONMENT.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        // In huge pages, the cache of translated code would be cleared and allocated by megabytes, of which an idle fork
        // uses little.
        small_pages: needs.platform.accel == Accel::Tcg && matches!(needs.boot, Boot::Fork { .. }),
        descriptors: builder.descriptors,
    }
}

fn machine(builder: &mut Builder, needs: &VmmNeeds<'_>) {
    builder.option("-name", format!("{NAME_PREFIX}{}", escape(needs.name)));
    let option_roms = match needs.platform.firmware {
        Firmware::Qboot(_) => {
            let number = builder.descriptor(DescriptorRole::Firmware);
            builder.option("-bios", format!("/proc/self/fd/{number}"));
            "off"
        }
        Firmware::Default => "on",
    };
    let mut machine = format!(
        "microvm,acpi=on,rtc=on,pit=on,pic=on,x-option-roms={option_roms},isa-serial=on,usb=off,graphics=off,\
         {MEMORY_IS_PRIVATE}"
    );
    if let Some(memory) = memory(builder, needs.boot) {
        // QEMU finds the memory of a snapshot by this id.
        builder.option("-object", format!("{memory},id=memory,size={}M", needs.memory_mib));
        machine.push_str(",memory-backend=memory");
    }
    builder.option("-machine", machine);
    builder.option(
        "-accel",
        match needs.platform.accel {
            Accel::Kvm => "kvm".to_owned(),
            // By default, the cache of translated code takes up to 1 GiB in each VMM.
            Accel::Tcg => format!("tcg,thread={},tb-size=256", needs.platform.tcg_threads.as_str()),
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
        Boot::Probe | Boot::Cold { shares: 0, .. } | Boot::Thaw { is_fork: false, .. } => return None,
        // The state has its content.
        Boot::Thaw { is_fork: true, .. } => return Some("memory-backend-ram".to_owned()),
        // The virtiofs servers read and write it.
        Boot::Cold { .. } => return Some("memory-backend-memfd,share=on".to_owned()),
        Boot::Template { .. } => "on",
        // Each page is the template's until the fork writes to it.
        Boot::Fork { .. } => "off",
    };
    let number = builder.descriptor(DescriptorRole::Memory);
    Some(format!("memory-backend-file,mem-path=/proc/self/fd/{number},share={share}"))
}

fn kernel_options(builder: &mut Builder, needs: &VmmNeeds<'_>) {
    let kernel = builder.descriptor(DescriptorRole::Kernel);
    let initrd = builder.descriptor(DescriptorRole::Initrd);
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
    use super::super::Platform;
    use super::super::threads::TcgThreads;
    use super::*;

    /// Returns the command line as a person would type it, one option per line.
    fn shown(needs: &VmmNeeds<'_>) -> String {
        let command = plan(needs);
        let mut text = command.program.display().to_string();
        for arg in &command.args {
            text.push_str(if arg.starts_with('-') { "\n  " } else { " " });
            text.push_str(arg);
        }
        for (number, role) in command.descriptors {
            text.push_str(&format!("\n  {number}: {role:?}"));
        }
        text
    }

    fn platform(accel: Accel) -> Platform {
        let firmware = Firmware::Qboot("/usr/share/qemu/qboot.rom".into());
        let platform = Platform::of("/usr/bin/qemu-system-x86_64".into(), firmware, accel, None);
        // The command line must not depend on the host's QEMU.
        Platform { tcg_threads: TcgThreads::Multi, ..platform }
    }

    fn needs(platform: &Platform, boot: Boot) -> VmmNeeds<'_> {
        VmmNeeds { platform, name: "r-0,x", tsc_khz: 2_100_000, cpus: 2, memory_mib: 2048, boot }
    }

    #[test]
    fn a_whole_machine_under_emulation() {
        insta::assert_snapshot!(shown(&needs(
            &platform(Accel::Tcg),
            Boot::Cold { card: NetworkCard::Tap, shares: 0 }
        )));
    }

    #[test]
    fn a_whole_machine_with_kvm() {
        insta::assert_snapshot!(shown(&needs(
            &platform(Accel::Kvm),
            Boot::Cold { card: NetworkCard::User, shares: 0 }
        )));
    }

    #[test]
    fn a_machine_with_mounts_shares_its_memory() {
        insta::assert_snapshot!(shown(&needs(
            &platform(Accel::Kvm),
            Boot::Cold { card: NetworkCard::Tap, shares: 2 }
        )));
    }

    #[test]
    fn a_template_has_memory_that_outlives_it() {
        insta::assert_snapshot!(shown(&needs(
            &platform(Accel::Tcg),
            Boot::Template { card: NetworkCard::Tap }
        )));
    }

    #[test]
    fn a_fork_has_no_kernel_and_memory_and_disk_of_its_template() {
        insta::assert_snapshot!(shown(&needs(&platform(Accel::Tcg), Boot::Fork { card: NetworkCard::Tap })));
    }

    #[test]
    fn a_machine_that_was_kept_writes_over_the_disk_that_it_had() {
        let of = |is_fork| Boot::Thaw { card: NetworkCard::Tap, is_fork };
        insta::assert_snapshot!(
            [true, false].map(|is_fork| shown(&needs(&platform(Accel::Tcg), of(is_fork)))).join("\n\n")
        );
    }

    /// QEMU matches the device states of a snapshot by the order of the devices.
    #[test]
    fn template_and_fork_have_the_same_devices_in_the_same_order() {
        let devices = |boot| {
            let args = plan(&needs(&platform(Accel::Tcg), boot)).args;
            let pairs = args.windows(2).filter(|pair| pair[0] == "-device");
            pairs.map(|pair| pair[1].clone()).collect::<Vec<_>>()
        };
        let template = devices(Boot::Template { card: NetworkCard::User });
        assert!(template.len() > 4);
        assert_eq!(template, devices(Boot::Fork { card: NetworkCard::User }));
        for is_fork in [true, false] {
            assert_eq!(template, devices(Boot::Thaw { card: NetworkCard::User, is_fork }));
        }
    }

    #[test]
    fn a_qemu_whose_threads_are_not_sound_emulates_all_cpus_in_one() {
        let platform = Platform { tcg_threads: TcgThreads::Single, ..platform(Accel::Tcg) };
        let args = plan(&needs(&platform, Boot::Probe)).args.join(" ");
        assert!(args.contains("-accel tcg,thread=single,"), "{args}");
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
