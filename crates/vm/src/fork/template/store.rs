//! The store of templates on the disk.

use std::fs::{self, File, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use super::key::{FORMAT, TemplateId};
use super::manifest::TemplateManifest;
use crate::vmm::memory;
use dayfly_host::clock::now_s;
use dayfly_host::file;
use dayfly_host::space;
use dayfly_host::stage::{self, StageError};

/// Folder of all templates, under the state folder.
pub const FOLDER: &str = "templates";

/// The manifest.
pub(super) const MANIFEST: &str = "manifest.json";
/// The guest's memory, sparse.
pub(super) const MEMORY: &str = "memory";
/// The state of the devices.
pub(super) const STATE: &str = "state";
/// The scratch disk, sparse.
pub(super) const DISK: &str = "disk.img";
/// The counts of uses.
const COUNTS: &str = "counts.json";
/// The output of the warm-up.
pub(super) const WARM_UP_LOG: &str = "warm-up.log";

/// Why templates could not be listed, found, opened or removed.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// No template has this id.
    #[error("there is no template {wanted:?} in {}; `dayfly template ls` lists them", store.display())]
    NotFound {
        /// The requested id.
        wanted: String,
        /// The folder that was searched.
        store: PathBuf,
    },
    /// More than one id starts with the requested one.
    #[error("{wanted:?} means more than one template: {}", ids.join(", "))]
    Ambiguous {
        /// The requested id.
        wanted: String,
        /// The ids that match.
        ids: Vec<String>,
    },
    /// A process uses the template.
    #[error("template {id} is in use; end what runs first (`dayfly ps`)")]
    InUse {
        /// The template's id.
        id: TemplateId,
    },
    /// A file differs from the manifest.
    #[error("template {id} is damaged: {what}; remove it (`dayfly template rm {id}`)")]
    NotWhole {
        /// The template's id.
        id: TemplateId,
        /// The difference.
        what: String,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl From<StageError> for TemplateError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Io { what, path, source } => Self::Io { what, path, source },
            StageError::Cancelled => {
                Self::Io { what: "wait for", path: PathBuf::new(), source: io::ErrorKind::Interrupted.into() }
            }
        }
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TemplateError {
    let path = path.to_owned();
    move |source| TemplateError::Io { what, path, source }
}

/// The counts of uses of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Forks that succeeded.
    pub forks: u64,
    /// Forks that failed. Their machines were booted instead.
    pub failures: u64,
    /// Time of the last use, seconds since 1970-01-01 UTC.
    pub used_s: i64,
}

/// A complete template on the disk.
#[derive(Debug, Clone)]
pub struct Template {
    folder: PathBuf,
    manifest: Arc<TemplateManifest>,
}

impl Template {
    /// Returns the manifest.
    pub fn manifest(&self) -> &TemplateManifest {
        &self.manifest
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the space that the template takes on the disk, bytes.
    pub fn bytes(&self) -> u64 {
        let size = |name| fs::metadata(self.folder.join(name)).map_or(0, |file| space::on_disk(&file));
        [MANIFEST, MEMORY, STATE, DISK, COUNTS, WARM_UP_LOG].into_iter().map(size).sum()
    }

    /// Returns the counts of uses. They are zero if they cannot be read.
    pub fn counts(&self) -> Counts {
        fs::read(self.folder.join(COUNTS))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Returns the time of the last use or of the build, whichever is later, seconds since 1970-01-01 UTC.
    fn needed_s(&self) -> i64 {
        self.counts().used_s.max(self.manifest.created_s)
    }
}

/// The store of templates in a state folder.
#[derive(Debug, Clone)]
pub struct TemplateStore {
    folder: PathBuf,
}

impl TemplateStore {
    /// Returns the store of a state folder, which need not exist.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join(FOLDER) }
    }

    /// Returns the folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns all templates, newest first. Skips templates that are damaged or have another format. They are unusable, and
    /// [`TemplateStore::collect`] removes them.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Template>, TemplateError> {
        let mut templates: Vec<_> = self.folders()?.iter().filter_map(|folder| load(folder)).collect();
        templates.sort_by_key(|template| {
            (std::cmp::Reverse(template.manifest.created_s), template.manifest.id.clone())
        });
        Ok(templates)
    }

    fn folders(&self) -> Result<Vec<PathBuf>, TemplateError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("read", &self.folder))?,
        };
        let is_template = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
        Ok(entries.flatten().filter(is_template).map(|entry| entry.path()).collect())
    }

    /// Returns the template whose id is, or starts with, `wanted`.
    ///
    /// # Errors
    /// No template matches, or more than one does.
    pub fn find(&self, wanted: &str) -> Result<Template, TemplateError> {
        let fits = |template: &Template| template.manifest.id.as_str().starts_with(wanted);
        let mut fitting: Vec<_> =
            self.list()?.into_iter().filter(|template| !wanted.is_empty() && fits(template)).collect();
        match (fitting.pop(), fitting.is_empty()) {
            (Some(template), true) => Ok(template),
            (Some(template), false) => {
                fitting.push(template);
                let ids = fitting.iter().map(|template| template.manifest.id.to_string()).collect();
                Err(TemplateError::Ambiguous { wanted: wanted.to_owned(), ids })
            }
            (None, _) => {
                Err(TemplateError::NotFound { wanted: wanted.to_owned(), store: self.folder.clone() })
            }
        }
    }

    /// Returns the template with exactly this id, if it exists. Another template with the same first digits is none.
    pub(super) fn get(&self, id: &TemplateId) -> Option<Template> {
        load(&self.folder.join(id.as_str())).filter(|template| template.manifest.id == *id)
    }

    /// Copies the counts of the template with this id, if it exists, into the folder that will replace it.
    pub(super) fn carry_counts(&self, id: &TemplateId, to: &Path) -> Result<(), TemplateError> {
        let from = self.folder.join(id.as_str()).join(COUNTS);
        match fs::copy(&from, to.join(COUNTS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("copy", &from)(error)),
            _ => Ok(()),
        }
    }

    /// Removes a template that no process uses.
    ///
    /// # Errors
    /// A process uses the template, or a file cannot be removed.
    pub fn remove(&self, template: &Template) -> Result<(), TemplateError> {
        let id = &template.manifest.id;
        let _lock = match lock(&template.folder, false) {
            Ok(lock) => Some(lock),
            Err(TryLockError::WouldBlock) => return Err(TemplateError::InUse { id: id.clone() }),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(TryLockError::Error(error)) => return Err(failed("lock", &template.folder)(error)),
        };
        self.remove_folder(&template.folder, id.as_str())
    }

    /// Renames the folder away as a whole, then removes it. If this is interrupted, the next build removes the rest.
    fn remove_folder(&self, folder: &Path, name: &str) -> Result<(), TemplateError> {
        let aside = stage::folder_of(&self.folder).join(format!("removed-{name}"));
        stage::remove_tree(&aside)?;
        stage::make_folder(&stage::folder_of(&self.folder))?;
        match fs::rename(folder, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(failed("remove", folder))?,
        }
        Ok(stage::remove_tree(&aside)?)
    }

    /// Removes templates that are unusable or were not needed for `age`, then those that were needed longest ago, until all
    /// together take at most `bytes`. Templates in use stay. Returns the ids of the usable templates that were removed.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn collect(&self, age: Duration, bytes: u64) -> Result<Vec<TemplateId>, TemplateError> {
        for folder in self.folders()? {
            if load(&folder).is_none()
                && let Some(name) = folder.file_name()
            {
                tracing::warn!(
                    "{} cannot be read, or is of another version; it is removed",
                    folder.display()
                );
                self.remove_folder(&folder, &name.to_string_lossy())?;
            }
        }
        let all = self.list()?.into_iter().map(|template| {
            let (needed_s, bytes) = (template.needed_s(), template.bytes());
            (template, Need { needed_s, bytes })
        });
        let (templates, needs): (Vec<_>, Vec<_>) = all.unzip();
        let mut gone = Vec::new();
        for index in too_much(&needs, now_s(), age, bytes) {
            match self.remove(&templates[index]) {
                Ok(()) => gone.push(templates[index].manifest.id.clone()),
                Err(TemplateError::InUse { .. }) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(gone)
    }
}

/// The properties that decide which templates are removed.
#[derive(Debug, Clone, Copy)]
struct Need {
    needed_s: i64,
    bytes: u64,
}

/// Returns the indices of the templates to remove.
fn too_much(needs: &[Need], now_s: i64, age: Duration, bytes: u64) -> Vec<usize> {
    let oldest = now_s.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|&index| needs[index].needed_s);
    let mut total: u64 = needs.iter().map(|need| need.bytes).sum();
    order.retain(|&index| {
        let goes = needs[index].needed_s < oldest || total > bytes;
        total -= if goes { needs[index].bytes } else { 0 };
        goes
    });
    order
}

/// Loads the manifest of a template. Returns `None` if the manifest cannot be read or has another format.
fn load(folder: &Path) -> Option<Template> {
    let manifest: TemplateManifest = serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()?;
    (manifest.format == FORMAT).then(|| Template { folder: folder.to_owned(), manifest: Arc::new(manifest) })
}

/// Opens and locks the manifest of a template: shared to use the template, exclusively to remove it.
fn lock(folder: &Path, shared: bool) -> Result<File, TryLockError> {
    let path = folder.join(MANIFEST);
    let file = File::open(&path).map_err(TryLockError::Error)?;
    if shared {
        file.try_lock_shared()?
    } else {
        file.try_lock()?
    }
    // If the template was removed before the lock was taken, the path is gone or leads to another file.
    let is_same = fs::metadata(&path).is_ok_and(|now| {
        file.metadata().is_ok_and(|then| (now.dev(), now.ino()) == (then.dev(), then.ino()))
    });
    if is_same { Ok(file) } else { Err(TryLockError::Error(io::ErrorKind::NotFound.into())) }
}

/// A template that this process has opened to fork it. It is not removed from the store while this exists. If it was
/// replaced, it can still be forked.
#[derive(Debug)]
pub(crate) struct Opened {
    template: Template,
    _lock: File,
    memory: OwnedFd,
    state: Vec<u8>,
    disk: File,
}

impl Opened {
    /// Opens a template. This takes half a second, because it reads the memory.
    pub(super) fn open(template: &Template) -> Result<Self, TemplateError> {
        let Template { folder, manifest } = template;
        let lock = lock(folder, true).map_err(|error| failed("lock", folder)(error.into()))?;
        let path = |name| folder.join(name);
        let disk = File::open(path(DISK)).map_err(failed("open", &path(DISK)))?;
        let state = fs::read(path(STATE)).map_err(failed("read", &path(STATE)))?;
        let memory = memory::open_sealed(&path(MEMORY)).map_err(failed("read", &path(MEMORY)))?;
        let length =
            |file: &dyn Fn() -> io::Result<u64>, name| file().map_err(failed("look at", &path(name)));
        for (name, is, should) in [
            (DISK, length(&|| Ok(disk.metadata()?.len()), DISK)?, manifest.disk_mib << 20),
            (STATE, state.len() as u64, manifest.state_bytes),
            (MEMORY, length(&|| memory_length(&memory), MEMORY)?, u64::from(manifest.memory_mib) << 20),
        ] {
            if is != should {
                let what = format!("{name} has {is} bytes, and should have {should}");
                return Err(TemplateError::NotWhole { id: manifest.id.clone(), what });
            }
        }
        Ok(Self { template: template.clone(), _lock: lock, memory, state, disk })
    }

    pub(crate) fn id(&self) -> &TemplateId {
        &self.template.manifest.id
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.template.folder
    }

    /// Returns the id of the image that the template was booted from.
    pub(super) fn image(&self) -> &str {
        &self.template.manifest.image
    }

    /// Returns the space that the template takes on the disk, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.template.bytes()
    }

    /// Returns true if the template on the disk is still the one that was opened.
    pub(super) fn is_current(&self) -> bool {
        load(&self.template.folder).is_some_and(|now| now.manifest == self.template.manifest)
    }

    /// Returns a descriptor of the sealed memory.
    pub(crate) fn memory(&self) -> io::Result<OwnedFd> {
        self.memory.try_clone()
    }

    /// Opens the scratch disk for reading, each time anew, because a VMM could change the flags of an open file that the
    /// VMMs of other forks share.
    pub(crate) fn disk(&self) -> io::Result<OwnedFd> {
        Ok(File::open(format!("/proc/self/fd/{}", self.disk.as_raw_fd()))?.into())
    }

    /// Returns a new file with the state of the devices, positioned at its start.
    pub(crate) fn state(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(rustix::fs::memfd_create("dayfly-state", MemfdFlags::CLOEXEC)?);
        file.write_all(&self.state)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Counts a use. If this fails, the failure is only logged.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        if let Err(error) = self.try_count(change) {
            tracing::debug!("a use of template {} is not counted: {error}", self.id());
        }
    }

    fn try_count(&self, change: impl FnOnce(&mut Counts)) -> io::Result<()> {
        let path = self.folder().join(COUNTS);
        let mut options = File::options();
        let lock = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(self.folder().join("counts.lock"))?;
        lock.lock()?;
        let mut counts = self.template.counts();
        change(&mut counts);
        counts.used_s = now_s();
        file::replace(&path, &serde_json::to_vec(&counts)?)
    }
}

fn memory_length(memory: &OwnedFd) -> io::Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(memory)?.st_size).unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::accel::Accel;
    use std::io::Read as _;

    fn id(text: &str) -> TemplateId {
        serde_json::from_value(text.into()).expect("id")
    }

    pub(crate) fn manifest(name: &str, created_s: i64) -> TemplateManifest {
        TemplateManifest {
            format: FORMAT,
            id: id(name),
            image: "f00d".to_owned(),
            accel: Accel::Tcg,
            cpus: 2,
            memory_mib: 1,
            disk_mib: 1,
            warm_up: None,
            created_s,
            took_ms: 12_000,
            state_bytes: 5,
        }
    }

    /// Creates a template as a build leaves it.
    pub(crate) fn put(store: &TemplateStore, manifest: &TemplateManifest) -> Template {
        let folder = store.folder().join(manifest.id.as_str());
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join(STATE), "state").expect("write");
        for (name, mib) in [(MEMORY, u64::from(manifest.memory_mib)), (DISK, manifest.disk_mib)] {
            File::create(folder.join(name)).expect("file").set_len(mib << 20).expect("length");
        }
        fs::write(folder.join(MANIFEST), serde_json::to_vec(manifest).expect("JSON")).expect("write");
        store.get(&manifest.id).expect("there")
    }

    #[test]
    fn forks_share_the_disk_of_a_template_but_not_the_flags_of_the_open_file() {
        let state = tempfile::tempdir().expect("folder");
        let opened =
            Opened::open(&put(&TemplateStore::new(state.path()), &manifest("aa11", 1))).expect("opened");
        let [ours, others] = [opened.disk().expect("a disk"), opened.disk().expect("a disk")];
        rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::APPEND).expect("set");
        assert!(!rustix::fs::fcntl_getfl(&others).expect("get").contains(rustix::fs::OFlags::APPEND));
        let inode = |disk: OwnedFd| rustix::fs::fstat(disk).expect("stat").st_ino;
        assert_eq!(inode(ours), inode(others));
    }

    #[test]
    fn a_template_of_other_parts_with_the_same_first_digits_is_not_used() {
        let folder = tempfile::tempdir().expect("folder");
        let store = TemplateStore::new(folder.path());
        let (pinned, other) = (format!("{}b", "a".repeat(63)), format!("{}c", "a".repeat(63)));
        put(&store, &manifest(&pinned, 1));
        assert!(store.get(&id(&pinned)).is_some() && store.get(&id(&other)).is_none());
        assert_eq!(id(&pinned).as_str(), id(&other).as_str(), "they have one folder");
    }

    #[test]
    fn templates_are_listed_and_found_and_what_is_none_is_passed_over() {
        let state = tempfile::tempdir().expect("folder");
        let store = TemplateStore::new(state.path());
        assert!(store.list().expect("list").is_empty());
        put(&store, &manifest("aa11", 1));
        put(&store, &manifest("ab22", 2));
        let other = put(&store, &manifest("ac33", 3));
        let text = serde_json::to_vec(&TemplateManifest { format: FORMAT + 1, ..manifest("ac33", 3) });
        fs::write(other.folder().join(MANIFEST), text.expect("JSON")).expect("write");
        fs::create_dir_all(store.folder().join(".build/ad44")).expect("stage");
        fs::create_dir_all(store.folder().join("half")).expect("folder");
        let ids: Vec<_> =
            store.list().expect("list").iter().map(|found| found.manifest.id.to_string()).collect();
        assert_eq!(ids, ["ab22", "aa11"]);
        assert_eq!(store.find("aa").expect("found").manifest.id, id("aa11"));
        assert!(matches!(store.find("a"), Err(TemplateError::Ambiguous { ids, .. }) if ids.len() == 2));
        assert!(matches!(store.find(""), Err(TemplateError::NotFound { .. })));
        assert!(matches!(store.find("ac33"), Err(TemplateError::NotFound { .. })));
    }

    #[test]
    fn a_template_in_use_is_not_removed_and_can_be_forked_when_it_was_replaced() {
        let state = tempfile::tempdir().expect("folder");
        let store = TemplateStore::new(state.path());
        let template = put(&store, &manifest("aa11", 1));
        let opened = Opened::open(&template).expect("open");
        assert!(matches!(store.remove(&template), Err(TemplateError::InUse { .. })));
        assert!(opened.is_current());
        fs::remove_dir_all(template.folder()).expect("remove");
        put(&store, &manifest("aa11", 2));
        assert!(!opened.is_current());
        for _ in 0..2 {
            let mut state = String::new();
            File::from(opened.state().expect("state")).read_to_string(&mut state).expect("read");
            assert_eq!(state, "state");
        }
        drop(opened);
        store.remove(&store.find("aa11").expect("found")).expect("remove");
        assert!(!template.folder().exists());
        store.remove(&template).expect("gone already is no error");
    }

    #[test]
    fn a_file_that_was_cut_is_named() {
        let state = tempfile::tempdir().expect("folder");
        let store = TemplateStore::new(state.path());
        for name in [MEMORY, STATE, DISK] {
            let template = put(&store, &manifest("aa11", 1));
            File::options()
                .write(true)
                .open(template.folder().join(name))
                .expect("open")
                .set_len(4)
                .expect("cut");
            let error = Opened::open(&template).expect_err("cut").to_string();
            assert!(error.contains(&format!("{name} has 4 bytes")), "{error}");
        }
    }

    #[test]
    fn uses_are_counted_by_all_who_use_it() {
        let state = tempfile::tempdir().expect("folder");
        let store = TemplateStore::new(state.path());
        let template = put(&store, &manifest("aa11", 1));
        let opened = Opened::open(&template).expect("open");
        let another = Opened::open(&template).expect("open");
        std::thread::scope(|scope| {
            for opened in [&opened, &another] {
                scope.spawn(move || (0..50).for_each(|_| opened.count(|counts| counts.forks += 1)));
            }
        });
        opened.count(|counts| counts.failures += 1);
        let Counts { forks, failures, used_s } = template.counts();
        assert_eq!((forks, failures), (100, 1));
        assert!(used_s > 1_700_000_000);
    }

    #[test]
    fn what_takes_a_templates_place_goes_on_counting() {
        let state = tempfile::tempdir().expect("folder");
        let store = TemplateStore::new(state.path());
        let template = put(&store, &manifest("aa11", 1));
        let stage = tempfile::tempdir().expect("folder");
        store.carry_counts(&id("aa11"), stage.path()).expect("no counts yet are no error");
        Opened::open(&template).expect("open").count(|counts| counts.failures += 2);
        store.carry_counts(&id("aa11"), stage.path()).expect("carry");
        let carried: Counts =
            serde_json::from_slice(&fs::read(stage.path().join(COUNTS)).expect("read")).expect("JSON");
        assert_eq!(carried.failures, 2);
    }

    #[test]
    fn old_ones_go_first_and_then_those_that_were_needed_longest_ago() {
        let need = |needed_s, bytes| Need { needed_s, bytes };
        let needs = [need(100, 10), need(50, 10), need(900, 10), need(800, 10)];
        let chosen = |age, bytes| too_much(&needs, 1000, Duration::from_secs(age), bytes);
        assert_eq!(chosen(10_000, 1000), [] as [usize; 0]);
        assert_eq!(chosen(920, 1000), [1]);
        assert_eq!(chosen(920, 20), [1, 0]);
        assert_eq!(chosen(10_000, 0), [1, 0, 3, 2]);
    }

    #[test]
    fn collecting_leaves_what_is_in_use_and_takes_what_is_of_no_use() {
        let state = tempfile::tempdir().expect("folder");
        let store = TemplateStore::new(state.path());
        let used = put(&store, &manifest("aa11", 1));
        put(&store, &manifest("bb22", 2));
        fs::create_dir_all(store.folder().join("half")).expect("folder");
        let _opened = Opened::open(&used).expect("open");
        assert_eq!(store.collect(Duration::from_secs(3600), u64::MAX).expect("collect"), [id("bb22")]);
        assert!(used.folder().exists() && !store.folder().join("half").exists());
    }
}
