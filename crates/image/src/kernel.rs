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
use super::once::{Once, read_manifest, write_manifest};
use super::store::{INITRAMFS, KERNEL};
use super::{BuildSettings, ImageError, Progress, modules};
use crate::oci::tar::Kind;
use dayfly_host::digest::{digest_of, id_of};
use dayfly_host::stage::Stage;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelBundle {
    /// Its folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: KernelManifest,
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
}

impl KernelBundle {
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

/// Returns the kernel for images that have none, from the state folder. Builds it if needed (takes half a minute and
/// downloads 40 MB).
///
/// # Errors
/// See [`ImageError`].
pub fn kernel(
    settings: &BuildSettings,
    progress: &mut dyn FnMut(Progress),
) -> Result<KernelBundle, ImageError> {
    let suite = debian::suite(settings);
    let id = id_of_suite(&suite);
    let once = Once { settings, store: "kernels", id: &id, what: "the kernel" };
    once.get(progress, open, |stage, progress| make(settings, suite, &id, stage, progress))
}

/// Returns the id of the bundle that [`kernel`] would return.
pub(super) fn id(settings: &BuildSettings) -> String {
    id_of_suite(&debian::suite(settings))
}

fn id_of_suite(suite: &str) -> String {
    id_of(&digest_of(&[VERSION, PACKAGE, suite]))
}

fn open(folder: &Path) -> Result<Option<KernelBundle>, ImageError> {
    let manifest = read_manifest(folder)?;
    Ok(manifest.map(|manifest| KernelBundle { folder: folder.to_owned(), manifest }))
}

fn make(
    settings: &BuildSettings,
    suite: String,
    id: &str,
    stage: &Stage,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    let depmod = depmod().ok_or(ImageError::NoProgram { program: "depmod", package: "kmod" })?;
    let fetch = Fetch {
        settings,
        suite: &suite,
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
    write_manifest(stage.path(), &KernelManifest { id: id.to_owned(), suite, kernel })
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
