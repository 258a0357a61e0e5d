//! Freezes a machine to disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD};

use super::manifest::FORMAT;
use super::{BASE, DISK, FOLDER, KeptAbout, KeptMachine, KeptMaker, KeptManifest, MANIFEST, ROOT, STATE};
use crate::fork::parts::MachineParts;
use crate::fork::template::Opened;
use crate::machine::{Exit, KeptParts, KeptVmm, Vm, record};
use crate::vmm::{NetworkCard, Platform, memory};
use dayfly_host::clock::now_s;
use dayfly_host::digest::digest_of_program;
use dayfly_host::file;
use dayfly_host::space;
use dayfly_host::stage::{Claim, Stage, StageError};
use dayfly_image::Image;

/// Longest time for a machine without memory.
const LIMIT: Duration = Duration::from_secs(60);
/// Slowest disk that is waited for, MiB of memory in a second.
const SLOWEST_MIB_PER_S: u32 = 8;

/// Why a machine was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Machines of this kind cannot be frozen. It runs on.
    #[error("machines with mounts, without an agent, or taken over from an earlier process cannot be frozen")]
    Never,
    /// The disk has too little room. It runs on.
    #[error("{free_mib} MiB are free in {}, and {needed_mib} MiB must be", path.display())]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Free space, MiB.
        free_mib: u64,
        /// The space that its memory may take, and the reserve, MiB.
        needed_mib: u64,
    },
    /// Its files cannot be put together. It runs on.
    #[error("{0}")]
    Parts(String),
    /// The VMM has not written it. It has ended.
    #[error("{0}")]
    NotFrozen(Exit),
    /// A file cannot be written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The attempted operation.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The folder cannot be built.
    #[error(transparent)]
    Stage(#[from] StageError),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeepError {
    let path = path.to_owned();
    move |source| KeepError::Io { what, path, source }
}

/// A folder that waits for the machine's memory and disk. It is removed when it is dropped.
struct Prepared {
    // Dropped first, because the claim protects it.
    stage: Stage,
    claim: Claim,
    state: OwnedFd,
    vmm: KeptVmm,
}

/// Freezes a machine, and ends it. Its owner destroys what is left of it in any case. `reserve_mib` of the disk stay free.
///
/// # Errors
/// See [`KeepError`]. Nothing is kept then.
pub async fn keep(
    vm: &mut Vm,
    state: &Path,
    about: KeptAbout,
    reserve_mib: u64,
) -> Result<KeptMachine, KeepError> {
    let parts = vm.parts().ok_or(KeepError::Never)?;
    let (store, runner) = (state.join(FOLDER), about.runner.clone());
    let own = store.clone();
    let prepared = blocking(move || Prepared::make(&own, &runner, parts.as_ref(), reserve_mib)).await?;
    // In this order, because what is bound last is dropped first, and the claim protects the stage.
    let Prepared { claim, stage, state, vmm } = prepared;
    let limit = LIMIT + Duration::from_secs(u64::from(vmm.memory_mib / SLOWEST_MIB_PER_S));
    match vm.freeze(state, limit).await {
        Exit::Frozen => {}
        exit => return Err(KeepError::NotFrozen(exit)),
    }
    let disk = vm.run_dir().join(record::SCRATCH_DISK);
    blocking(move || {
        let folder = store.join(&about.runner);
        let to = stage.path().join(DISK);
        std::fs::rename(&disk, &to).map_err(failed("move the disk to", &to))?;
        write_manifest(stage.path(), KeptManifest { format: FORMAT, about, kept_s: now_s(), vmm })?;
        stage.finish()?;
        drop(claim);
        KeptMachine::open(&folder).ok_or_else(|| {
            let error = io::Error::from(io::ErrorKind::InvalidData);
            failed("read", &folder.join(MANIFEST))(error)
        })
    })
    .await
}

fn write_manifest(folder: &Path, manifest: KeptManifest) -> Result<(), KeepError> {
    let path = folder.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other);
    text.and_then(|text| file::create_private(&path, &text)).map_err(failed("write", &path))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeepError> + Send + 'static,
) -> Result<T, KeepError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KeepError::Stage(StageError::Cancelled)))
}

impl Prepared {
    fn make(store: &Path, runner: &str, parts: &dyn KeptParts, reserve_mib: u64) -> Result<Self, KeepError> {
        let claim = Claim::wait(store, runner, &mut KeptMaker)?;
        let stage = claim.stage()?;
        let vmm = parts.put_into(stage.path()).map_err(KeepError::Parts)?;
        let free_mib = space::free_mib(store).map_err(failed("look at the space of", store))?;
        let needed_mib = u64::from(vmm.memory_mib) + reserve_mib;
        if free_mib < needed_mib {
            return Err(KeepError::NoSpace { path: store.to_owned(), free_mib, needed_mib });
        }
        let path = stage.path().join(STATE);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let state = file.map_err(failed("make", &path))?.into();
        Ok(Self { stage, claim, state, vmm })
    }
}

/// The parts of a machine that outlive it if it is kept.
#[derive(Debug)]
pub(crate) struct KeptSource {
    platform: Platform,
    cpus: u32,
    memory_mib: u32,
    disk_mib: u64,
    image: Image,
    card: NetworkCard,
}

impl KeptSource {
    pub(in crate::fork) fn of(parts: &MachineParts) -> Self {
        Self {
            platform: parts.platform.clone(),
            cpus: parts.cpus,
            memory_mib: parts.memory_mib,
            disk_mib: parts.disk_mib,
            image: parts.image.clone(),
            card: parts.card(),
        }
    }

    /// Puts the files that the machine reads into a folder, and describes its VMM.
    pub(crate) fn put_into(&self, folder: &Path, template: Option<&Opened>) -> Result<KeptVmm, String> {
        let put = |file: io::Result<OwnedFd>, name: &str| {
            let to = folder.join(name);
            let put = file.and_then(|file| name_anew(&file, &to));
            put.map_err(|error| format!("cannot make {}: {error}", to.display()))
        };
        put(self.image.open_root().map(OwnedFd::from), ROOT)?;
        if let Some(template) = template {
            put(template.disk(), BASE)?;
        }
        let program = self.platform.program();
        let digest = digest_of_program(program);
        Ok(KeptVmm {
            platform: self.platform.clone(),
            program: digest.map_err(|error| format!("cannot read {}: {error}", program.display()))?,
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
            card: self.card,
            is_fork: template.is_some(),
        })
    }
}

/// Gives an open file a further name. If it has none any more, or if the name is on another file system, it is copied.
fn name_anew(file: &OwnedFd, to: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    if rustix::fs::linkat(CWD, open.as_str(), CWD, to, AtFlags::SYMLINK_FOLLOW).is_ok() {
        return Ok(());
    }
    let copy = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    memory::copy(&File::open(open)?, &copy)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_that_has_lost_its_name_is_copied_and_any_other_one_takes_no_space() {
        let folder = tempfile::tempdir().expect("a folder");
        let (name, first, second) =
            (folder.path().join("disk"), folder.path().join("first"), folder.path().join("second"));
        std::fs::write(&name, vec![7; 100_000]).expect("written");
        let file = OwnedFd::from(File::open(&name).expect("open"));
        name_anew(&file, &first).expect("linked");
        let ino = |path: &Path| std::fs::metadata(path).expect("there").ino();
        assert_eq!(ino(&first), ino(&name));
        std::fs::remove_file(&name).expect("removed");
        std::fs::remove_file(&first).expect("removed");
        name_anew(&file, &second).expect("copied");
        assert_eq!(std::fs::read(&second).expect("read"), vec![7; 100_000]);
    }

    #[test]
    fn a_machine_that_is_not_whole_leaves_nothing() {
        #[derive(Debug)]
        struct NoParts;
        impl KeptParts for NoParts {
            fn put_into(&self, _folder: &Path) -> Result<KeptVmm, String> {
                Err("no image".to_owned())
            }
        }
        let store = tempfile::tempdir().expect("a folder");
        let made = Prepared::make(store.path(), "1-aaaaaaa", &NoParts, 0);
        assert!(matches!(made, Err(KeepError::Parts(why)) if why == "no image"));
        let left = std::fs::read_dir(store.path().join(".build")).expect("read").count();
        assert_eq!(left, 0);
        assert!(super::super::KeptMachine::open(&store.path().join("1-aaaaaaa")).is_none());
    }
}
