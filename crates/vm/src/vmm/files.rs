//! The files that a VMM is started with.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
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

    /// Adds the image's root file system. The descriptor holds a lock that keeps the image from being removed, and the VMM
    /// inherits it.
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

    /// Returns a new descriptor of the file with this role.
    pub(crate) fn get(&self, role: DescriptorRole) -> io::Result<OwnedFd> {
        match self.0.iter().find(|(found, _)| *found == role) {
            Some((_, file)) => file.try_clone(),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no file for {role:?}"))),
        }
    }
}
