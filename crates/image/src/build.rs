//! Builds an image from Debian packages.
//!
//! ```text
//!   runner app ─┐
//!   packages ───┴─> mmdebstrap ──tar──> mksquashfs ──> root.squashfs
//!                      └─ copy-out ──> kernel, modules ──> initramfs
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::age::Age;
use super::apt;
use super::command::{Step, mortal};
use super::converter;
use super::debian;
use super::error::failed;
use super::generations::inputs_of;
use super::manifest::{FORMAT, FileDigest, Manifest};
use super::once::write_manifest;
use super::progress::Waiter;
use super::runner_app::{self, RunnerApp, runner_app};
use super::store::{INITRAMFS, KERNEL, LOG, ROOT};
use super::{Cancel, Image, ImageError, Progress, Store, modules, packages, recipe};
use crate::oci::layer::Attributes;
use dayfly_guest::os_release::OsRelease;
use dayfly_host::clock::now_s;
use dayfly_host::digest::{digest_of, digest_of_file, id_of};
use dayfly_host::stage::{Claim, Stage, make_folder};
use dayfly_host::tool::{self, Reach};

/// Free space that a build needs: room for the unpacked packages and for the image.
const FREE_MIB_MIN: u64 = 3 * 1024;
/// Memory of `mksquashfs`, beside its lists of files.
const SQUASH_MEMORY: &str = "256M";
/// Debian's keys, from debian-archive-keyring.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The package with which the user of jobs is created, whatever list is installed.
const USERS: &str = "passwd";
/// The program that gives a user other than root a range of user ids.
const NEWUIDMAP: &str = "/usr/bin/newuidmap";
/// Files of packages that no machine needs. Kernel hooks would build an initramfs that is never used.
const EXCLUDED: [&str; 4] =
    ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/etc/kernel/postinst.d/*"];

/// Settings of a build.
#[derive(Debug, Clone)]
pub struct BuildSettings {
    /// The state folder.
    pub state: PathBuf,
    /// Debian's name of the release. None means Debian 13.
    pub suite: Option<String>,
    /// A package list instead of the built-in one.
    pub packages: Option<PathBuf>,
    /// True if the languages of `images/debian/extra.txt` are installed too.
    pub extra: bool,
    /// Folders that may contain Go, best first: usually the search path.
    pub go_folders: Vec<PathBuf>,
    /// Age at which an image, a kernel or tools of this host are built anew in place of being returned. None: never.
    pub max_age: Option<Duration>,
    /// True if the build leaves the processors to other work, for [`crate::in_background`].
    pub gently: bool,
    /// Stops the build.
    pub cancel: Cancel,
}

impl BuildSettings {
    /// Returns true if something that was built at `created_s` is not to be used any more.
    pub(super) fn is_too_old(&self, created_s: i64) -> bool {
        self.max_age.is_some_and(|max_age| Age::at(now_s(), created_s).reaches(max_age))
    }
}

/// All inputs of an image.
struct Inputs {
    suite: String,
    packages: packages::Packages,
    runner_app: RunnerApp,
    /// Digest of all of them.
    recipe: String,
}

impl Inputs {
    fn gather(settings: &BuildSettings, progress: &mut dyn FnMut(Progress)) -> Result<Self, ImageError> {
        let mut list = match &settings.packages {
            Some(path) => fs::read_to_string(path).map_err(failed("read the package list", path))?,
            None => recipe::PACKAGES.to_owned(),
        };
        if settings.extra {
            list.push_str(recipe::EXTRA_PACKAGES);
        }
        let mut packages = packages::parse(&list)?;
        if !packages.needed.iter().any(|name| name == USERS) {
            packages.needed.push(USERS.to_owned());
        }
        let suite = debian::suite(settings);
        let runner_app = runner_app(settings, progress)?;
        let names = |names: &[String]| names.join(" ");
        // Only the names count, so that a comment in the list does not change the digest.
        let recipe = digest_of(&[
            recipe::BUILDER_VERSION,
            &suite,
            &names(&packages.needed),
            &names(&packages.wanted),
            recipe::ESSENTIAL,
            recipe::CUSTOMIZE,
            recipe::FINISH,
            &runner_app.manifest.sha256,
            recipe::STANDBY,
        ]);
        Ok(Self { suite, packages, runner_app, recipe })
    }
}

/// Returns the newest image of these settings from the store. Builds one if there is none, or if it is older than the settings
/// allow (takes one to four minutes and blocks). Other builds of the same image wait for this one. If the build stops early,
/// all of its files are removed.
///
/// # Errors
/// See [`ImageError`].
pub fn build(settings: &BuildSettings, progress: &mut dyn FnMut(Progress)) -> Result<Image, ImageError> {
    let host = OsRelease::of_this_system();
    let inputs = Inputs::gather(settings, progress)?;
    let store = Store::new(&settings.state);
    let newest = store.generations(&inputs.recipe).into_iter().next();
    if let Some(image) = newest.as_ref().filter(|image| !settings.is_too_old(image.manifest().created_s)) {
        return Ok(image.clone());
    }
    let generation = newest.map_or(0, |image| image.manifest().generation.saturating_add(1));
    let digest = inputs_of(&inputs.recipe, generation);
    let id = id_of(&digest);
    let what = format!("image {id}");
    let mut waiter = Waiter { what: &what, cancel: &settings.cancel, progress };
    let claim = Claim::wait(store.folder(), &id, &mut waiter)?;
    // Another process may have built it in the meantime.
    if let Some(image) = store.get_of(&digest)? {
        return Ok(image);
    }
    check_space(store.folder())?;
    let stage = claim.stage()?;
    let mut builder = Builder {
        settings,
        host: &host,
        inputs: &inputs,
        digest: &digest,
        generation,
        stage: &stage,
        progress,
    };
    builder.run().map_err(|error| explain(error, store.folder()))?;
    stage.finish()?;
    store.remove_outlived_or_warn(&inputs.recipe);
    store
        .get_of(&digest)?
        .ok_or_else(|| ImageError::Unusable { what: "another process removed it".to_owned() })
}

fn check_space(folder: &Path) -> Result<(), ImageError> {
    let free_mib = dayfly_host::space::free_mib(folder).map_err(failed("look at the space of", folder))?;
    if free_mib < FREE_MIB_MIN {
        return Err(no_space(folder, free_mib));
    }
    Ok(())
}

fn no_space(folder: &Path, free_mib: u64) -> ImageError {
    ImageError::NoSpace {
        what: "an image",
        path: folder.to_owned(),
        free_mib,
        needed_mib: Some(FREE_MIB_MIN),
    }
}

/// Turns an error into [`ImageError::NoSpace`] if the disk is full. Some programs report a full disk; others only fail.
fn explain(error: ImageError, folder: &Path) -> ImageError {
    if matches!(error, ImageError::Cancelled) {
        return error;
    }
    match dayfly_host::space::free_mib(folder) {
        Ok(free_mib) if error.is_of_full_disk() || free_mib < 16 => no_space(folder, free_mib),
        _ => error,
    }
}

struct Builder<'a> {
    settings: &'a BuildSettings,
    host: &'a OsRelease,
    inputs: &'a Inputs,
    /// Digest of the inputs and the generation.
    digest: &'a str,
    generation: u32,
    stage: &'a Stage,
    progress: &'a mut dyn FnMut(Progress),
}

impl Builder<'_> {
    fn run(&mut self) -> Result<(), ImageError> {
        debian::require_keyring()?;
        // Without root, mmdebstrap needs a range of user ids, which only newuidmap may assign.
        if !rustix::process::geteuid().is_root() && !Path::new(NEWUIDMAP).exists() {
            return Err(ImageError::NoProgram { program: "newuidmap", package: "uidmap" });
        }
        let work = self.path("work");
        make_folder(&work)?;
        self.install(&work)?;
        (self.progress)(Progress::Phase { name: "packing the kernel's modules" });
        let kernel = modules::write_initramfs(&work.join("modules"), &self.path(INITRAMFS))?;
        let vmlinuz = work.join("boot").join(format!("vmlinuz-{kernel}"));
        fs::rename(&vmlinuz, self.path(KERNEL)).map_err(failed("move", &vmlinuz))?;
        let packages = read_packages(&work.join("packages"))?;
        fs::remove_dir_all(&work).map_err(failed("remove", &work))?;
        self.describe(kernel, packages)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.stage.path().join(name)
    }

    /// Installs the packages and packs the result into a squashfs, without storing an archive in between.
    fn install(&mut self, work: &Path) -> Result<(), ImageError> {
        (self.progress)(Progress::Phase { name: "installing Debian packages" });
        let path = self.path(LOG);
        let mut log = File::create(&path).map_err(failed("make", &path))?;
        let sources = work.join("sources.list");
        fs::write(&sources, apt::for_suite(&self.inputs.suite, self.host))
            .map_err(failed("write", &sources))?;
        let root = self.path(ROOT);
        let (mksquashfs, squashfs) = converter::mksquashfs(
            &root,
            SQUASH_MEMORY,
            &Attributes { mode: 0o755, ..Attributes::default() },
        )?;
        let commands = vec![self.mmdebstrap(work, &sources), mksquashfs];
        let step = Step {
            program: "mmdebstrap or mksquashfs",
            package: "mmdebstrap squashfs-tools",
            phase: "installing Debian packages",
            cancel: &self.settings.cancel,
            log: &mut log,
            progress: self.progress,
        };
        step.run(commands)?;
        squashfs.take_back().map_err(failed("take back", &root))
    }

    fn mmdebstrap(&self, work: &Path, sources: &Path) -> Command {
        let Inputs { suite, packages, runner_app, .. } = self.inputs;
        // Without root, mmdebstrap creates namespaces of its own.
        let mut command = mortal("mmdebstrap", Reach::Network, rustix::process::geteuid().is_root());
        command.args(["--variant=apt", "--format=tar", "--verbose"]);
        command.arg(format!("--keyring={KEYRING}"));
        command.arg(format!("--include={}", packages.needed.join(",")));
        command.args(packages.wanted.iter().map(|name| format!("--include={}", packages::pattern(name))));
        command.args(EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}")));
        // Licences stay in the image.
        command.arg("--dpkgopt=path-include=/usr/share/doc/*/copyright");
        command.args(host_apt_options().iter().map(|option| format!("--aptopt={option}")));
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let hooks = [
            ("essential", recipe::ESSENTIAL.to_owned()),
            ("customize", recipe::CUSTOMIZE.to_owned()),
            (
                "customize",
                format!("upload {} /opt/runner/{}", quoted(&runner_app.program), runner_app::PROGRAM),
            ),
            (
                "customize",
                format!("upload {} /opt/runner/{}", quoted(&runner_app.standby), runner_app::STANDBY),
            ),
            ("customize", format!("copy-out /boot /usr/lib/modules {}", quoted(work))),
            ("customize", recipe::FINISH.to_owned()),
            ("customize", format!("copy-out /var/tmp/packages {}", quoted(work))),
            ("customize", "rm \"$1/var/tmp/packages\"".to_owned()),
        ];
        command.args(hooks.iter().map(|(stage, hook)| format!("--{stage}-hook={hook}")));
        command.arg(suite).arg("-").arg(sources);
        // The unpacked tree is in the stage, so that it is removed with the stage.
        command.env("TMPDIR", work).env("LC_ALL", "C.UTF-8").current_dir("/");
        command
    }

    fn describe(&mut self, kernel: String, packages: BTreeMap<String, String>) -> Result<(), ImageError> {
        (self.progress)(Progress::Phase { name: "taking digests" });
        let files = digests_of(self.stage.path())?;
        let manifest = Manifest {
            format: FORMAT,
            id: id_of(self.digest),
            inputs: self.digest.to_owned(),
            suite: self.inputs.suite.clone(),
            kernel,
            created_s: now_s(),
            runner_app: self.inputs.runner_app.manifest.clone(),
            files,
            packages,
            origin: None,
            recipe: self.inputs.recipe.clone(),
            generation: self.generation,
        };
        write_manifest(self.stage.path(), &manifest)
    }
}

/// Returns the mode of an image's file in its folder, which is closed to other users. VMMs run as users of their own and get
/// the files as descriptors; QEMU opens the descriptor of the kernel anew, so its file must be readable for them.
pub(super) fn mode_of(name: &str) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(if name == KERNEL { 0o644 } else { 0o600 })
}

/// Sets the modes of an image's files, and returns their lengths and digests.
pub(super) fn digests_of(folder: &Path) -> Result<BTreeMap<String, FileDigest>, ImageError> {
    let mut files = BTreeMap::new();
    for name in [ROOT, KERNEL, INITRAMFS] {
        let path = folder.join(name);
        fs::set_permissions(&path, mode_of(name)).map_err(failed("set the mode of", &path))?;
        let bytes = fs::metadata(&path).map_err(failed("read", &path))?.len();
        let sha256 = digest_of_file(&path).map_err(failed("read", &path))?;
        files.insert(name.to_owned(), FileDigest { bytes, sha256 });
    }
    Ok(files)
}

/// Returns the proxy and clock settings of the host's own apt, which its mirrors need.
pub(super) fn host_apt_options() -> Vec<String> {
    let Ok(output) = tool::command("apt-config", Reach::Network).arg("dump").output() else {
        return Vec::new();
    };
    parse_apt_options(&String::from_utf8_lossy(&output.stdout))
}

/// Returns the lines of `apt-config dump` that configure access to mirrors.
fn parse_apt_options(dump: &str) -> Vec<String> {
    let kept = [
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
    ];
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    dump.lines()
        .filter(|line| {
            let name = name(line);
            kept.iter().any(|kept| name == *kept || name.starts_with(&format!("{kept}::")))
        })
        .filter(|line| !line.ends_with("\"\";"))
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect()
}

fn read_packages(path: &Path) -> Result<BTreeMap<String, String>, ImageError> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_hosts_apt_only_what_reaches_mirrors_is_taken_over() {
        let dump = "APT::Architecture \"amd64\";\nAcquire::http::Proxy \"http://p:3142/\";\nAcquire::http::Proxy::local \"DIRECT\";\n\
                    Acquire::https::Proxy \"\";\nAcquire::Check-Valid-Until \"false\";\nAcquire::http::ProxyAutoDetect \"/x\";\n";
        assert_eq!(
            parse_apt_options(dump),
            [
                "Acquire::http::Proxy \"http://p:3142/\"",
                "Acquire::http::Proxy::local \"DIRECT\"",
                "Acquire::Check-Valid-Until \"false\""
            ]
        );
    }
}
