//! The files that a VMM is started with.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::StartError;
use super::initramfs::{self, InitramfsError};
use crate::driver::qemu::{Firmware, Role};
use crate::platform::Platform;
use dayfly_image::Image;

/// Open files, by their role for the VMM.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<(Role, OwnedFd)>);

impl Files {
    /// Opens the files that a machine boots from: kernel and initramfs.
    pub(crate) fn to_boot(image: &Image, guest_binary: &Path) -> Result<Self, StartError> {
        let (kernel, modules) = (image.kernel(), image.initramfs());
        let opened = File::open(&kernel).map_err(StartError::of_image(image, &kernel))?;
        let initramfs = initramfs::with_guest(&modules, guest_binary).map_err(|error| match error {
            InitramfsError::Guest(source) => {
                StartError::GuestBinary { path: guest_binary.to_owned(), source }
            }
            InitramfsError::Image(source) | InitramfsError::Memory(source) => {
                StartError::of_image(image, &modules)(source)
            }
        })?;
        Ok(Self::default().with(Role::Kernel, opened).with(Role::Initrd, initramfs))
    }

    /// Adds the firmware, unless QEMU uses its own.
    pub(crate) fn with_firmware(self, platform: &Platform) -> Result<Self, StartError> {
        let Firmware::Qboot(path) = &platform.firmware else { return Ok(self) };
        let io_error = |source| StartError::Io { what: "open the firmware", path: path.clone(), source };
        Ok(self.with(Role::Firmware, File::open(path).map_err(io_error)?))
    }

    /// Adds the image's root file system. The descriptor holds a lock that keeps the image from being removed, and the VMM
    /// inherits it.
    pub(crate) fn with_root(self, image: &Image) -> Result<Self, StartError> {
        let root = image.open_root().map_err(StartError::of_image(image, &image.root()))?;
        Ok(self.with(Role::RootDisk, root))
    }

    /// Adds a file.
    pub(crate) fn with(mut self, role: Role, file: impl Into<OwnedFd>) -> Self {
        self.0.push((role, file.into()));
        self
    }

    /// Adds all files of another set.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Returns a new descriptor of the file with this role.
    pub(crate) fn get(&self, role: Role) -> io::Result<OwnedFd> {
        match self.0.iter().find(|(found, _)| *found == role) {
            Some((_, file)) => file.try_clone(),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no file for {role:?}"))),
        }
    }
}
