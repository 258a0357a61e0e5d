//! Looks for the traces on this host, without touching them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::instance;
use dayfly_fleet::recovery::Clearer;
use dayfly_fleet::remains::{self, Remains};
use dayfly_fleet::status::Status;
use dayfly_host::space::SpaceMeter;
use dayfly_vm::kept;

use super::trace::{FileKind, Trace};
use crate::commands::{ps, reload};
use crate::exit::{Failure, Result};

/// Entries of a state folder.
const STATE: [&str; 15] = [
    "images",
    "podman-images",
    "blobs",
    "kernels",
    "tools",
    "runner-apps",
    "templates",
    "checks",
    "instances",
    kept::FOLDER,
    "logs",
    "history",
    "soak",
    "probes.json",
    "krunvm.lock",
];
/// Beginning of the names of the folders of probe guests, which a process that was killed may have left.
const PROBES: &str = "probe-";
/// Files of the installation, from its prefix. `scripts/install` puts them there, and a test compares the two.
const INSTALLED: [&str; 8] = [
    "lib/systemd/system/dayfly.service",
    "lib/sysusers.d/dayfly.conf",
    "share/bash-completion/completions/dayfly",
    "share/zsh/site-functions/_dayfly",
    "share/fish/vendor_completions.d/dayfly.fish",
    "share/doc/dayfly",
    "bin/dayfly-guest",
    "bin/dayfly",
];
/// Folder of the man pages, from the prefix.
const MAN_PAGES: &str = "share/man/man1";
/// Name of the package, the user and the group.
const NAME: &str = "dayfly";
/// Most files whose space is measured, and the longest time for that.
const MEASURED: (usize, Duration) = (200_000, Duration::from_secs(5));

/// The places on this host, so that a test can have its own.
#[derive(Debug)]
pub(super) struct Host {
    /// The root folder.
    pub(super) root: PathBuf,
    /// The state folder.
    pub(super) state: PathBuf,
    /// This program.
    pub(super) program: PathBuf,
    /// True for root, whose traces are those of the whole system.
    pub(super) is_root: bool,
    /// Folder of the user's own configuration.
    pub(super) user_configuration: Option<PathBuf>,
}

impl Host {
    /// Returns the files and folders of state, configuration and installation, and the user.
    pub(super) fn files(&self) -> Vec<Trace> {
        let mut meter = SpaceMeter::new(MEASURED.0, MEASURED.1);
        let mut found: Vec<(FileKind, PathBuf)> = Vec::new();
        for path in entries(&self.state) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_known = STATE.contains(&&*name) || name.starts_with(PROBES);
            found.push((if is_known { FileKind::State } else { FileKind::Foreign }, path));
        }
        found.extend(self.user_configuration.clone().map(|folder| (FileKind::Configuration, folder)));
        if self.is_root {
            found.extend(self.of_the_system());
        }
        let package = self.package();
        if package.is_none() {
            found.extend(self.installed().into_iter().map(|path| (FileKind::Program, path)));
        }
        let exists = |(_, path): &(FileKind, PathBuf)| path.symlink_metadata().is_ok();
        let files = found.into_iter().filter(exists).map(|(what, path)| {
            let bytes = meter.allocated(&path);
            Trace::File { path, what, bytes }
        });
        let mut traces: Vec<Trace> = files.collect();
        if package.is_none() && self.is_root && self.has_user() {
            traces.push(Trace::User { name: NAME.to_owned() });
        }
        traces.extend(package);
        traces
    }

    /// Returns the files of an administrator: the configuration, and changes of the unit.
    fn of_the_system(&self) -> Vec<(FileKind, PathBuf)> {
        let units = self.root.join("etc/systemd/system");
        let wants =
            entries(&units).into_iter().filter(|path| path.extension().is_some_and(|end| end == "wants"));
        let links = wants.map(|folder| folder.join("dayfly.service"));
        let own = ["dayfly.service", "dayfly.service.d"].map(|name| units.join(name));
        let units = links.chain(own).map(|path| (FileKind::Unit, path));
        std::iter::once((FileKind::Configuration, self.root.join("etc/dayfly"))).chain(units).collect()
    }

    fn package(&self) -> Option<Trace> {
        let list = self.root.join("var/lib/dpkg/info/dayfly.list");
        list.exists()
            .then(|| Trace::Package { name: NAME.to_owned(), command: "apt-get purge dayfly".to_owned() })
    }

    fn has_user(&self) -> bool {
        let users = fs::read_to_string(self.root.join("etc/passwd")).unwrap_or_default();
        users.lines().any(|line| line.strip_prefix(NAME).is_some_and(|rest| rest.starts_with(':')))
    }

    /// Returns the files of `make install`. A program that was only built is not installed.
    fn installed(&self) -> Vec<PathBuf> {
        let Some(prefix) =
            self.program.parent().filter(|folder| folder.ends_with("bin")).and_then(Path::parent)
        else {
            return Vec::new();
        };
        let is_page = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == "dayfly.1" || name.starts_with("dayfly-")
        };
        let pages = entries(&prefix.join(MAN_PAGES)).into_iter().filter(is_page);
        pages.chain(INSTALLED.iter().map(|name| prefix.join(name))).collect()
    }
}

/// Returns the entries of a folder in order; none if it cannot be read.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> = found.collect();
    found.sort();
    found
}

/// Returns the processes that live, the machines that are thawed, and what dead processes have left.
///
/// # Errors
/// The folder of an instance cannot be read.
pub(super) fn processes(state: &Path, clearers: &[Clearer]) -> Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for seen in instance::all(state).map_err(Failure::cannot)? {
        if seen.alive {
            let pid = Status::read(&seen.folder).ok().flatten().map(|status| status.pid);
            traces.push(Trace::Process { instance: reload::name_of(&seen), pid });
        } else {
            traces.extend(left(&remains::of(&seen).map_err(Failure::cannot)?, clearers));
        }
    }
    let machines = kept::list(state).map_err(Failure::cannot)?;
    let thawed = machines.iter().filter(|machine| machine.is_in_use());
    traces.extend(thawed.map(|machine| Trace::Thawed { runner: machine.manifest().about.runner.clone() }));
    Ok(traces)
}

fn left(remains: &Remains, clearers: &[Clearer]) -> Vec<Trace> {
    let instance = ps::name_of(remains);
    let mut traces = vec![Trace::Left { instance: instance.clone(), runner: None, machine_lives: false }];
    for run in &remains.runs {
        traces.push(Trace::Left {
            instance: instance.clone(),
            runner: Some(run.runner.clone()),
            machine_lives: run.machine_lives,
        });
        let Some(name) = run.name.clone().filter(|_| run.is_registered) else { continue };
        let fits = |clearer: &Clearer| {
            run.forge.as_deref() == Some(clearer.forge.base().url().as_str())
                && run.scope == Some(clearer.scope.to_string())
        };
        traces.push(Trace::Registration {
            name,
            scope: run.scope.clone(),
            forge: run.forge.clone(),
            has_credential: clearers.iter().any(fits),
        });
    }
    traces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a host with these files, each empty.
    fn host(folder: &Path, files: &[&str]) -> Host {
        for file in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, "").expect("written");
        }
        Host {
            root: folder.to_owned(),
            state: folder.join("var/lib/dayfly"),
            program: folder.join("usr/local/bin/dayfly"),
            is_root: true,
            user_configuration: None,
        }
    }

    /// Returns the traces with their kinds, and paths from the root.
    fn shown(host: &Host) -> String {
        let root = format!("{}/", host.root.display());
        let line = |trace: &Trace| match trace {
            Trace::File { path, what, .. } => format!("{what:?} {}", path.display()).replace(&root, ""),
            other => other.words(),
        };
        host.files().iter().map(line).collect::<Vec<_>>().join("\n")
    }

    const FILES: [&str; 9] = [
        "var/lib/dayfly/images/x/manifest.json",
        "var/lib/dayfly/notes.txt",
        "etc/dayfly/dayfly.toml",
        "etc/systemd/system/multi-user.target.wants/dayfly.service",
        "etc/systemd/system/dayfly.service.d/override.conf",
        "usr/local/bin/dayfly",
        "usr/local/lib/systemd/system/dayfly.service",
        "usr/local/share/man/man1/dayfly-runner.1",
        "usr/local/share/man/man1/dayflower.1",
    ];

    #[test]
    fn state_configuration_units_and_the_files_of_make_install_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = host(folder.path(), &FILES);
        fs::write(folder.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\ndayfly:x:999:999::/:/bin/sh\n")
            .expect("w");
        insta::assert_snapshot!(shown(&host), @r"
        State var/lib/dayfly/images
        Foreign var/lib/dayfly/notes.txt
        Configuration etc/dayfly
        Unit etc/systemd/system/multi-user.target.wants/dayfly.service
        Unit etc/systemd/system/dayfly.service.d
        Program usr/local/share/man/man1/dayfly-runner.1
        Program usr/local/lib/systemd/system/dayfly.service
        Program usr/local/bin/dayfly
        user and group dayfly
        ");
    }

    #[test]
    fn the_files_of_a_package_are_the_packages_business() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = host(folder.path(), &["var/lib/dpkg/info/dayfly.list", "usr/local/bin/dayfly"]);
        assert_eq!(shown(&host), "package dayfly");
    }

    #[test]
    fn a_user_has_an_own_configuration_and_a_program_that_was_only_built_is_not_installed() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = host(folder.path(), &["etc/dayfly/dayfly.toml", "home/.config/dayfly/registries.json"]);
        let host = Host {
            program: folder.path().join("target/release/dayfly"),
            is_root: false,
            user_configuration: Some(folder.path().join("home/.config/dayfly")),
            ..host
        };
        assert_eq!(shown(&host), "Configuration home/.config/dayfly");
    }
}
