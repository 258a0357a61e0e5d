//! The command line of a VMM, as a value.

use std::path::PathBuf;

/// The role of a descriptor of the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DescriptorRole {
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
    /// The disk of a machine that was kept, for reading: raw, or an overlay.
    KeptDisk,
    /// Memory of a template, or the memory that a fork copies its own from.
    Memory,
    /// State of the template's devices, which a fork reads; in a machine that was kept, also its memory.
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
pub(crate) struct VmmCommand {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments, without its name.
    pub(crate) args: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// The files and folders that the program needs, besides its descriptors.
    pub(crate) files: Vec<PathBuf>,
    /// True if the program is a script, which may start any other program.
    pub(crate) starts_programs: bool,
    /// True if the VMM must get its memory in small pages only.
    pub(crate) small_pages: bool,
    /// Descriptors that must be open, by number.
    pub(crate) descriptors: Vec<(i32, DescriptorRole)>,
}

impl VmmCommand {
    /// Returns the number of the descriptor with this role, if there is one.
    pub(crate) fn number(&self, role: DescriptorRole) -> Option<i32> {
        self.descriptors.iter().find(|(_, found)| *found == role).map(|(number, _)| *number)
    }
}
