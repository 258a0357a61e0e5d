//! The files that a VMM is started with.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use super::DescriptorRole;
use super::initramfs::{self, InitramfsError};
use crate::machine::StartError;
use dayfly_image::Image;

/// Open files, by their role for the VMM.
#[derive(Debug, Default)]
pub(crate) struct VmmFiles(Vec<(DescriptorRole, OwnedFd)>);

impl VmmFiles {
    /// Opens the files that a machine boots from: kernel and initramfs.
    pub(crate) fn to_boot(image: &Image, guest_binary: &Path) -> Result<Self, StartError> {
        let (kernel, modules) = (image.kernel(), image.initramfs());
        let opened = File::open(&kernel).map_err(StartError::of_image(image, &kernel))?;
        let initramfs = initramfs::with_guest(&modules, guest_binary).map_err(|error| match error {
            InitramfsError::Guest(source) => StartError::of_guest_binary(guest_binary, source),
            InitramfsError::Image(source) | InitramfsError::Memory(source) => {
                StartError::of_image(image, &modules)(source)
            }
        })?;
        Ok(Self::default().with(DescriptorRole::Kernel, opened).with(DescriptorRole::Initrd, initramfs))
    }

    /// Adds the image's root file system, with a lock that keeps the image from being removed. The VMM gets a lock of its own,
    /// which protects the image if the VMM outlives this process.
    pub(crate) fn with_root(self, image: &Image) -> Result<Self, StartError> {
        let root = image.open_root().map_err(StartError::of_image(image, &image.root()))?;
        Ok(self.with(DescriptorRole::RootDisk, root))
    }

    /// Adds a file.
    pub(crate) fn with(mut self, role: DescriptorRole, file: impl Into<OwnedFd>) -> Self {
        self.0.push((role, file.into()));
        self
    }

    /// Adds all files of another set.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Returns a new descriptor of the file with this role, for the VMM.
    pub(crate) fn get(&self, role: DescriptorRole) -> io::Result<OwnedFd> {
        match self.find(role) {
            Some(file) if role == DescriptorRole::RootDisk => lock_anew(file),
            Some(file) => file.try_clone(),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no file for {role:?}"))),
        }
    }

    /// Returns the lock of the image, if the machine has one. This process holds it as long as the machine runs.
    pub(crate) fn image_lock(&self) -> io::Result<Option<OwnedFd>> {
        self.find(DescriptorRole::RootDisk).map(OwnedFd::try_clone).transpose()
    }

    fn find(&self, role: DescriptorRole) -> Option<&OwnedFd> {
        self.0.iter().find(|(found, _)| *found == role).map(|(_, file)| file)
    }
}

/// Opens a locked file anew, with a shared lock of its own. A lock belongs to an open file: a VMM that a guest has taken over
/// could give up the lock of a copied descriptor for all others.
fn lock_anew(file: &OwnedFd) -> io::Result<OwnedFd> {
    let anew = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    anew.try_lock_shared().map_err(io::Error::from)?;
    Ok(anew.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};

    #[test]
    fn a_vmm_that_gives_up_its_lock_leaves_the_image_in_use() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let remover = File::open(path.path()).expect("opened");
        let can_remove = || {
            let locked = flock(&remover, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked {
                flock(&remover, FlockOperation::Unlock).expect("unlocked");
            }
            locked
        };
        let root = File::open(path.path()).expect("opened");
        root.try_lock_shared().expect("locked");
        let files = VmmFiles::default().with(DescriptorRole::RootDisk, root);
        let [first, second] = [(); 2].map(|()| files.get(DescriptorRole::RootDisk).expect("for a VMM"));
        flock(&first, FlockOperation::Unlock).expect("given up");
        let held = files.image_lock().expect("a lock");
        drop((files, second));
        assert!(!can_remove(), "this process holds the image");
        drop(held);
        assert!(can_remove(), "the VMM gave its lock up");
        flock(&first, FlockOperation::LockShared).expect("locked");
        assert!(!can_remove(), "a VMM that outlives this process holds the image");
    }
}
