//! temp
use super::key::TemplateId;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
pub(crate) const MEMORY: &str = "memory";
pub(crate) const STATE: &str = "state";
pub(crate) const DISK: &str = "disk.img";
#[derive(Debug)]
pub(crate) struct Opened {
    id: TemplateId,
    folder: PathBuf,
    memory: OwnedFd,
    state: Vec<u8>,
    disk: File,
}
impl Opened {
    pub(crate) fn open(id: &TemplateId, folder: &Path) -> io::Result<Self> {
        Ok(Self {
            id: id.clone(),
            folder: folder.to_owned(),
            memory: super::memory::open(&folder.join(MEMORY))?,
            state: std::fs::read(folder.join(STATE))?,
            disk: File::open(folder.join(DISK))?,
        })
    }
    pub(crate) fn id(&self) -> &TemplateId {
        &self.id
    }
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
    pub(crate) fn memory(&self) -> io::Result<OwnedFd> {
        self.memory.try_clone()
    }
    pub(crate) fn disk(&self) -> io::Result<OwnedFd> {
        Ok(self.disk.try_clone()?.into())
    }
    pub(crate) fn state(&self) -> io::Result<File> {
        let fd = rustix::fs::memfd_create("dayfly-state", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = File::from(fd);
        file.write_all(&self.state)?;
        file.seek(io::SeekFrom::Start(0))?;
        Ok(file)
    }
    pub(crate) fn count_failure(&self) {}
}
