//! Decides how a machine's VMM is confined.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::spawn::Recipe;
use crate::accel::Accel;
use crate::launch::{
    CallFilter, LaunchError, LaunchOrder, NetworkPlace, OwnRoot, Program, Task, User, VmmCalls,
};
use crate::network::Connection;
use crate::vmm;

/// The part of an overlay that its tables may take beside the data: 8 bytes and 2 of counts for each 64 KiB, and some more.
const FILE_TABLES: u64 = 1024;
/// Bytes that a VMM may write into a file beside that: the state of its devices.
const FILE_REST: u64 = 64 << 20;

impl Recipe {
    /// Returns the order for a VMM that gets these descriptors.
    pub(super) fn order(&self, descriptors: &[OwnedFd]) -> Result<LaunchOrder, LaunchError> {
        Ok(LaunchOrder {
            user: user(self.accel),
            root: OwnRoot { files: self.command.files.clone(), devices: devices(self.accel), export: None },
            file_bytes_max: Some(file_bytes_max(descriptors, self.size.memory_mib)?),
            task: Task::Program(Program {
                path: self.command.program.clone(),
                args: self.command.args.clone(),
                env: self.command.env.clone(),
                descriptors: self.command.descriptors.iter().map(|&(number, _)| number).collect(),
                calls: CallFilter::Vmm(self.calls()),
                small_pages: self.command.small_pages,
            }),
            network: match *self.connection {
                // The descriptor of the network card works in any network namespace.
                Connection::Own(_) => NetworkPlace::Empty { listen: None },
                Connection::Open => NetworkPlace::Inherited,
                Connection::Shut => {
                    NetworkPlace::Empty { listen: self.forward.map(|forward| forward.guest_port) }
                }
            },
        })
    }

    fn calls(&self) -> VmmCalls {
        let network = match *self.connection {
            Connection::Own(_) => false,
            Connection::Open | Connection::Shut => true,
        };
        VmmCalls { network, programs: self.command.starts_programs }
    }
}

/// Returns the user that a VMM runs as. If this process is root, that is a user of the VMM's own, with the group of
/// `/dev/kvm` if KVM is used, because at most that group may open the device.
fn user(accel: Accel) -> User {
    if !rustix::process::geteuid().is_root() {
        return User::Same;
    }
    let group = match accel {
        Accel::Tcg => None,
        Accel::Kvm => vmm::kvm::group(),
    };
    User::Own { group }
}

/// How often a VMM that freezes its machine to disk writes a page at most: while the machine runs, and once it stands still.
const PAGE_WRITES: u64 = 2;

/// Returns the greatest length to which a VMM can write a file: that of its largest one, or of its memory in a file, and what the
/// tables of an overlay and the state of devices take. A VMM that a guest has taken over cannot fill the host's disk with more.
fn file_bytes_max(descriptors: &[OwnedFd], memory_mib: u32) -> Result<u64, LaunchError> {
    let mut largest = (u64::from(memory_mib) << 20) * PAGE_WRITES;
    for descriptor in descriptors {
        let found = rustix::fs::fstat(descriptor).map_err(|error| LaunchError::Speak(error.into()))?;
        largest = largest.max(found.st_size.try_into().unwrap_or_default());
    }
    Ok(largest + largest / FILE_TABLES + FILE_REST)
}

/// Returns the devices that a VMM uses by their paths.
fn devices(accel: Accel) -> Vec<PathBuf> {
    // QEMU seeds its own generator from the last one if the kernel has no other way.
    let all = ["/dev/null", "/dev/urandom"].into_iter();
    let kvm = (accel == Accel::Kvm).then_some(vmm::kvm::DEVICE);
    all.chain(kvm).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_vmm_writes_no_file_much_longer_than_its_largest_one() {
        let file = |mib: u64| {
            let file: File = tempfile::tempfile().expect("a file");
            file.set_len(mib << 20).expect("a length");
            OwnedFd::from(file)
        };
        let most = |files: &[OwnedFd], memory_mib| {
            file_bytes_max(files, memory_mib).map(|bytes| bytes >> 20).expect("lengths")
        };
        assert_eq!(most(&[file(1), file(4096), file(0)], 512), 4096 + 4 + 64);
        assert_eq!(most(&[file(1)], 2048), 4096 + 4 + 64);
    }
}
