//! Provides kernels for images that have none, unpacked from a package of Debian.
//!
//! ```text
//!   <state>/kernels/<id>/
//!     kernel, initramfs             as in an image
//!     modules/lib/modules/<release> all modules and their dependency lists, for the image's root file system
//!     manifest.json
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::build::mode_of;
use super::converter;
use super::debian::{self, Fetch};
use super::error::failed;
use super::in_use::InUse;
use super::once::{Once, read_manifest, write_manifest};
use super::series::{self, Generation, Series};
use super::store::{INITRAMFS, KERNEL};
use super::{BuildSettings, ImageError, Progress, modules};
use crate::oci::tar::Kind;
use dayfly_host::clock::now_s;
use dayfly_host::stage::Stage;

/// Name of the folder of kernels in the state folder.
pub(super) const KERNELS: &str = "kernels";
/// Version of this builder. It is raised if a change here gives another bundle for the same package.
const VERSION: &str = "2";
/// Debian's kernel for virtual machines, which has no drivers for other hardware.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Folder of the modules in the bundle.
const MODULES: &str = "modules";
/// Name of the kernel's configuration in the folder of its modules.
pub(super) const CONFIG: &str = "config";
/// Paths at which `depmod` may be. Not every user has them in the search path.
const DEPMOD: [&str; 2] = ["/usr/sbin/depmod", "/sbin/depmod"];

/// A kernel that can boot any image.
#[derive(Debug, Clone)]
pub struct KernelBundle {
    /// Its folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: KernelManifest,
    in_use: InUse,
}

/// The manifest of a kernel bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelManifest {
    /// Its id.
    pub id: String,
    /// Debian's name of the release that the package comes from.
    pub suite: String,
    /// Release of the kernel, e.g. `6.1.0-56-cloud-amd64`.
    pub kernel: String,
    /// Number of bundles that were built before this one and became too old.
    #[serde(default)]
    pub generation: u32,
    /// Time of the build, seconds since 1970-01-01 UTC.
    #[serde(default)]
    pub created_s: i64,
}

impl KernelBundle {
    /// Returns the lock that keeps it.
    pub(super) fn in_use(&self) -> InUse {
        self.in_use.clone()
    }

    pub(super) fn kernel(&self) -> PathBuf {
        self.folder.join(KERNEL)
    }

    pub(super) fn initramfs(&self) -> PathBuf {
        self.folder.join(INITRAMFS)
    }

    /// Returns the folder of its modules, which is named after its release.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join(MODULES).join("lib/modules").join(&self.manifest.kernel)
    }
}

/// Returns the newest kernel for images that have none, from the state folder. Builds one if there is none, or if it is older
/// than the settings allow (takes half a minute and downloads 40 MB).
///
/// # Errors
/// See [`ImageError`].
pub fn kernel(
    settings: &BuildSettings,
    progress: &mut dyn FnMut(Progress),
) -> Result<KernelBundle, ImageError> {
    let series = series_of(settings);
    let once = Once { settings, store: KERNELS, what: "the kernel" };
    once.newest(&series, progress, open, |stage, generation, progress| {
        let kernel = make(settings, stage, progress)?;
        let (id, suite) = (series.id(generation), debian::suite(settings));
        let manifest = KernelManifest { id, suite, kernel, generation, created_s: now_s() };
        write_manifest(stage.path(), &manifest)
    })
}

/// Returns the id of the first of the bundles that [`kernel`] returns.
pub(super) fn id(settings: &BuildSettings) -> String {
    series_of(settings).id(0)
}

/// Returns the bundle that [`kernel`] would return whatever its age; none if there is none.
pub(super) fn newest(settings: &BuildSettings) -> Result<Option<Generation>, ImageError> {
    series_of(settings).newest()
}

fn series_of(settings: &BuildSettings) -> Series {
    Series::new(&settings.state, KERNELS, &[VERSION, PACKAGE, &debian::suite(settings)])
}

fn open(folder: &Path) -> Result<Option<KernelBundle>, ImageError> {
    let Some(in_use) = InUse::of(folder)? else { return Ok(None) };
    let Some(mut manifest) = read_manifest::<KernelManifest>(folder)? else { return Ok(None) };
    manifest.created_s = series::created_s(folder, manifest.created_s);
    Ok(Some(KernelBundle { folder: folder.to_owned(), manifest, in_use }))
}

/// Fills the bundle's folder, and returns the release of the kernel.
fn make(
    settings: &BuildSettings,
    stage: &Stage,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, ImageError> {
    let depmod = depmod().ok_or(ImageError::NoProgram { program: "depmod", package: "kmod" })?;
    let fetch = Fetch {
        settings,
        suite: &debian::suite(settings),
        packages: &[PACKAGE.to_owned()],
        phase: "fetching the kernel's package",
        folder: stage.path(),
    };
    let archive = fetch.run(progress)?;
    progress(Progress::Phase { name: "packing the kernel's modules" });
    let base = stage.path().join(MODULES);
    unpack(&archive, &stage.path().join(KERNEL), &base)?;
    fs::remove_file(&archive).map_err(failed("remove", &archive))?;
    let folder = base.join("lib/modules");
    let kernel = modules::release_in(&folder, "modules.builtin")?;
    let output = converter::depmod(depmod, &base, &kernel)?;
    if !output.status.success() {
        let tail = String::from_utf8_lossy(&output.stderr).into_owned();
        let (phase, status) = ("packing the kernel's modules", output.status.to_string());
        return Err(ImageError::Failed { program: "depmod", phase, status, tail });
    }
    modules::write_initramfs(&folder, &stage.path().join(INITRAMFS))?;
    for name in [KERNEL, INITRAMFS] {
        let path = stage.path().join(name);
        fs::set_permissions(&path, mode_of(name)).map_err(failed("set the mode of", &path))?;
    }
    Ok(kernel)
}

/// Returns the path of `depmod`, if this host has it.
pub(super) fn depmod() -> Option<&'static Path> {
    DEPMOD.iter().map(Path::new).find(|program| program.is_file())
}

/// Extracts the kernel, its modules and its configuration from the packages. The configuration is stored beside the modules,
/// where kubeadm looks for it.
fn unpack(archive: &Path, kernel: &Path, base: &Path) -> Result<(), ImageError> {
    debian::for_each(archive, &mut |path, header, reader| {
        let module = debian::merged(path);
        let to = if path.starts_with("boot/vmlinuz-") {
            kernel.to_owned()
        } else if let Some(release) = path.strip_prefix("boot/config-") {
            base.join("lib/modules").join(release).join(CONFIG)
        } else if module.starts_with("lib/modules/") {
            base.join(module)
        } else {
            return Ok(());
        };
        if header.kind == Kind::File { debian::write(reader, &to) } else { Ok(()) }
    })?;
    if kernel.is_file() {
        return Ok(());
    }
    Err(ImageError::Unusable { what: format!("the package {PACKAGE} has no kernel in it") })
}
