//! Fetches Debian packages and reads their files. Nothing in the packages is executed.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use super::apt;
use super::build::{KEYRING, host_apt_options};
use super::command::{Step, mortal};
use super::error::failed;
use super::store::LOG;
use super::{BuildSettings, ImageError, Progress};
use crate::oci::tar::{Header, Reader, TarError};
use dayfly_guest::os_release::OsRelease;
use dayfly_host::stage::make_folder;
use dayfly_host::tool::Reach;

/// An archive of packages that is being read.
pub(super) type Archive = Reader<BufReader<File>>;

/// A request for packages.
pub(super) struct Fetch<'a> {
    pub(super) settings: &'a BuildSettings,
    pub(super) suite: &'a str,
    /// Names, or patterns of apt.
    pub(super) packages: &'a [String],
    pub(super) phase: &'static str,
    /// Folder for the archive, the log and temporary files.
    pub(super) folder: &'a Path,
}

/// Returns the suite of the packages that imported images are given.
pub(super) fn suite(settings: &BuildSettings) -> String {
    settings.suite.clone().unwrap_or_else(|| apt::DEFAULT_SUITE.to_owned())
}

/// Checks that Debian's keyring is installed, because its packages are only trusted with its keys.
pub(super) fn require_keyring() -> Result<(), ImageError> {
    match Path::new(KEYRING).exists() {
        true => Ok(()),
        false => {
            Err(ImageError::NoProgram { program: "Debian's keyring", package: "debian-archive-keyring" })
        }
    }
}

impl Fetch<'_> {
    /// Creates an archive of all files of the packages and of their dependencies, and returns its path.
    pub(super) fn run(&self, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, ImageError> {
        require_keyring()?;
        progress(Progress::Phase { name: self.phase });
        let path = self.folder.join(LOG);
        let mut log = File::create(&path).map_err(failed("make", &path))?;
        let sources = self.folder.join("sources.list");
        let lines = apt::for_suite(self.suite, &OsRelease::of_this_system());
        fs::write(&sources, lines).map_err(failed("write", &sources))?;
        let archive = self.folder.join("packages.tar");
        let mut command = mortal("mmdebstrap", Reach::Network, rustix::process::geteuid().is_root());
        command.args(["--variant=extract", "--format=tar"]).arg(format!("--keyring={KEYRING}"));
        command.args(self.packages.iter().map(|package| format!("--include={package}")));
        command.args(host_apt_options().iter().map(|option| format!("--aptopt={option}")));
        command.arg(self.suite).arg(&archive).arg(&sources);
        command.env("TMPDIR", self.folder).env("LC_ALL", "C.UTF-8").current_dir("/");
        let step = Step {
            program: "mmdebstrap",
            package: "mmdebstrap",
            phase: self.phase,
            cancel: &self.settings.cancel,
            log: &mut log,
            progress,
        };
        step.run(vec![command])?;
        fs::remove_file(&sources).map_err(failed("remove", &sources))?;
        Ok(archive)
    }
}

/// Calls `take` for each entry with its path, relative to the root. Skips entries whose path has empty parts, `.` or `..`.
pub(super) fn for_each(
    archive: &Path,
    take: &mut dyn FnMut(&str, &Header, &mut Archive) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let file = File::open(archive).map_err(failed("open", archive))?;
    let of_archive = |error: TarError| failed("read", archive)(io::Error::other(error));
    let mut reader = Reader::new(BufReader::with_capacity(256 * 1024, file));
    while let Some(header) = reader.next().map_err(of_archive)? {
        let path = String::from_utf8_lossy(&header.path).into_owned();
        let path = path.trim_start_matches("./");
        if !path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            take(path, &header, &mut reader)?;
        }
    }
    Ok(())
}

/// Removes a leading `usr/` from a path, because releases differ in whether packages have their files in `/bin`, `/sbin` and
/// `/lib` or below `/usr`.
pub(super) fn merged(path: &str) -> &str {
    path.strip_prefix("usr/").unwrap_or(path)
}

/// Writes the current entry's content to a file.
pub(super) fn write(reader: &mut Archive, to: &Path) -> Result<(), ImageError> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    let mut file = File::create(to).map_err(failed("make", to))?;
    io::copy(reader, &mut file).map_err(failed("write", to))?;
    Ok(())
}
