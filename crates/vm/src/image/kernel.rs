//! Kernels for images that bring none: a distribution's package, unpacked.
//!
//! ```text
//!   <state>/kernels/<id>/
//!     kernel, initramfs             as in an image
//!     modules/lib/modules/<release> all modules, with their dependencies: they go into the image's root file system
//!     manifest.json
//! ```

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::build::{KEYRING, host_apt_options};
use super::command::{Step, mortal};
use super::error::failed;
use super::progress::Waiter;
use super::sources::{self, HostSystem, host_system};
use super::store::{INITRAMFS, KERNEL, LOG, MANIFEST};
use super::{BuildSettings, ImageError, Progress, modules};
use crate::digest::{digest_of, id_of};
use crate::oci::tar::{Kind, Reader, TarError};
use crate::stage::{Claim, Stage, make_folder};

/// Grows when a change here would make something else of the same package.
const VERSION: &str = "1";
/// Debian's kernel for virtual machines: no drivers for other hardware.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Folder of the modules in the bundle.
const MODULES: &str = "modules";
/// Where the package is fetched from.
const SOURCES: &str = "sources.list";
/// Where `depmod` may be; not in the search path of every user.
const DEPMOD: [&str; 2] = ["/usr/sbin/depmod", "/sbin/depmod"];

/// A kernel that can boot any image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelBundle {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is.
    pub manifest: KernelManifest,
}

/// What a kernel bundle says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelManifest {
    /// Its id.
    pub id: String,
    /// Debian's name of the release that its package is of.
    pub suite: String,
    /// Release of the kernel, e.g. `6.1.0-56-cloud-amd64`.
    pub kernel: String,
}

impl KernelBundle {
    pub(super) fn kernel(&self) -> PathBuf {
        self.folder.join(KERNEL)
    }

    pub(super) fn initramfs(&self) -> PathBuf {
        self.folder.join(INITRAMFS)
    }

    /// The folder of its modules, named by its release.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join(MODULES).join("lib/modules").join(&self.manifest.kernel)
    }
}

/// The kernel for images that have none: from the state folder, or made (half a minute, and a download of 40 MB).
///
/// # Errors
/// See [`ImageError`].
pub fn kernel(
    settings: &BuildSettings,
    progress: &mut dyn FnMut(Progress),
) -> Result<KernelBundle, ImageError> {
    let host = host_system();
    let suite = suite(settings, &host);
    let id = id_of_suite(&suite);
    let store = settings.state.join("kernels");
    if let Some(bundle) = open(&store.join(&id))? {
        return Ok(bundle);
    }
    let mut waiter = Waiter { what: "the kernel", cancel: &settings.cancel, progress };
    let claim = Claim::wait(&store, &id, &mut waiter)?;
    if let Some(bundle) = open(&store.join(&id))? {
        return Ok(bundle);
    }
    let stage = claim.stage()?;
    make(settings, &host, suite, &id, &stage, progress)?;
    stage.finish()?;
    open(&store.join(&id))?
        .ok_or_else(|| ImageError::Unusable { what: "the kernel was removed at once".to_owned() })
}

/// The id of the bundle that [`kernel`] would return.
pub(super) fn id(settings: &BuildSettings) -> String {
    id_of_suite(&suite(settings, &host_system()))
}

fn suite(settings: &BuildSettings, host: &HostSystem) -> String {
    settings.suite.clone().unwrap_or_else(|| sources::default_suite(host))
}

fn id_of_suite(suite: &str) -> String {
    id_of(&digest_of(&[VERSION, PACKAGE, suite]))
}

fn open(folder: &Path) -> Result<Option<KernelBundle>, ImageError> {
    let path = folder.join(MANIFEST);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(failed("read", &path))?;
    let manifest = serde_json::from_slice(&text).map_err(|source| ImageError::Manifest { path, source })?;
    Ok(Some(KernelBundle { folder: folder.to_owned(), manifest }))
}

fn make(
    settings: &BuildSettings,
    host: &HostSystem,
    suite: String,
    id: &str,
    stage: &Stage,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    if !Path::new(KEYRING).exists() {
        return Err(ImageError::NoProgram { program: "Debian's keyring", package: "debian-archive-keyring" });
    }
    let depmod = DEPMOD.iter().map(Path::new).find(|program| program.is_file());
    let depmod = depmod.ok_or(ImageError::NoProgram { program: "depmod", package: "kmod" })?;
    let archive = stage.path().join("packages.tar");
    fetch(settings, host, &suite, &archive, stage, progress)?;
    progress(Progress::Phase { name: "packing the kernel's modules" });
    let base = stage.path().join(MODULES);
    unpack(&archive, &stage.path().join(KERNEL), &base)?;
    for passing in [&archive, &stage.path().join(SOURCES)] {
        fs::remove_file(passing).map_err(failed("remove", passing))?;
    }
    let folder = base.join("lib/modules");
    let kernel = modules::release_in(&folder, "modules.builtin")?;
    let depended = std::process::Command::new(depmod).arg("-b").arg(&base).arg(&kernel).output();
    let output = depended.map_err(failed("run", depmod))?;
    if !output.status.success() {
        let tail = String::from_utf8_lossy(&output.stderr).into_owned();
        let (phase, status) = ("packing the kernel's modules", output.status.to_string());
        return Err(ImageError::Failed { program: "depmod", phase, status, tail });
    }
    modules::write_initramfs(&folder, &stage.path().join(INITRAMFS))?;
    for name in [KERNEL, INITRAMFS] {
        let path = stage.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
            .map_err(failed("open to readers", &path))?;
    }
    let path = stage.path().join(MANIFEST);
    let manifest = KernelManifest { id: id.to_owned(), suite, kernel };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed("write", &path)(error.into()))?;
    fs::write(&path, text).map_err(failed("write", &path))
}

/// The package and what it needs, unpacked only: nothing of it runs.
fn fetch(
    settings: &BuildSettings,
    host: &HostSystem,
    suite: &str,
    archive: &Path,
    stage: &Stage,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    const PHASE: &str = "fetching the kernel's package";
    progress(Progress::Phase { name: PHASE });
    let path = stage.path().join(LOG);
    let mut log = File::create(&path).map_err(failed("make", &path))?;
    let sources = stage.path().join(SOURCES);
    fs::write(&sources, sources::for_suite(suite, host)).map_err(failed("write", &sources))?;
    let mut command = mortal("mmdebstrap", rustix::process::geteuid().is_root());
    command.args(["--variant=extract", "--format=tar"]);
    command.arg(format!("--keyring={KEYRING}")).arg(format!("--include={PACKAGE}"));
    command.args(host_apt_options().iter().map(|option| format!("--aptopt={option}")));
    command.arg(suite).arg(archive).arg(&sources);
    command.env("TMPDIR", stage.path()).env("LC_ALL", "C.UTF-8").current_dir("/");
    let step = Step {
        program: "mmdebstrap",
        package: "mmdebstrap",
        phase: PHASE,
        cancel: &settings.cancel,
        log: &mut log,
        progress,
    };
    step.run(vec![command])
}

/// Takes the kernel and its modules out of the packages.
fn unpack(archive: &Path, kernel: &Path, base: &Path) -> Result<(), ImageError> {
    let file = File::open(archive).map_err(failed("open", archive))?;
    let of_archive = |error: TarError| failed("read", archive)(io::Error::other(error));
    let mut reader = Reader::new(BufReader::with_capacity(256 * 1024, file));
    while let Some(header) = reader.next().map_err(of_archive)? {
        let path = String::from_utf8_lossy(&header.path).into_owned();
        let path = path.trim_start_matches("./");
        let is_clean = !path.split('/').any(|part| matches!(part, "" | "." | ".."));
        if header.kind != Kind::File || !is_clean {
            continue;
        }
        let module = path.strip_prefix("usr/").unwrap_or(path);
        let to = if path.starts_with("boot/vmlinuz-") {
            kernel.to_owned()
        } else if module.starts_with("lib/modules/") {
            base.join(module)
        } else {
            continue;
        };
        if let Some(folder) = to.parent() {
            make_folder(folder)?;
        }
        let mut file = File::create(&to).map_err(failed("make", &to))?;
        io::copy(&mut reader, &mut file).map_err(failed("write", &to))?;
    }
    if kernel.is_file() {
        return Ok(());
    }
    Err(ImageError::Unusable { what: format!("the package {PACKAGE} has no kernel in it") })
}
