//! Finds the installed runner app.

use dayfly_guest::runner_app::Version;
use std::path::{Path, PathBuf};

/// Folders in which images have the runner app: dayfly's own folder, and the usual ones of the official app (the last is
/// that of GitHub's own image, `ghcr.io/actions/actions-runner`).
const PLACES: [&str; 3] = ["/opt/runner", "/opt/actions-runner", "/home/runner"];

/// Programs that the search accepts, by their path in a folder.
const PROGRAMS: [&str; 2] = ["bin/Runner.Listener", "github-act-runner"];

/// Largest number of entries of a folder that are read.
const ENTRIES_MAX: usize = 10_000;

#[derive(Debug, thiserror::Error)]
#[error("no runner app in {}: neither {} nor one of them in a folder runner-<version>; see RUNNER_INSTALL", places.join(", "), PROGRAMS.join(" nor "))]
pub(crate) struct NotInstalled {
    places: Vec<String>,
}

/// Returns the app of the first place that has one. In each place, the newest `runner-<version>` folder comes first, and
/// the place itself last.
pub(crate) fn find(install: Option<&Path>) -> Result<PathBuf, NotInstalled> {
    let places = install.map_or_else(|| PLACES.map(PathBuf::from).to_vec(), |place| vec![place.to_owned()]);
    let found = places.iter().find_map(|place| {
        newest_first(place).into_iter().chain([place.clone()]).find_map(|folder| program_in(&folder))
    });
    found.ok_or_else(|| NotInstalled {
        places: places.iter().map(|place| place.display().to_string()).collect(),
    })
}

fn program_in(folder: &Path) -> Option<PathBuf> {
    PROGRAMS.into_iter().map(|program| folder.join(program)).find(|program| program.is_file())
}

/// Returns the folders `runner-<version>`, the newest first. Folders without a valid version in the name are skipped.
fn newest_first(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().take(ENTRIES_MAX).flatten();
    let mut versions: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((Version::parse(name.strip_prefix("runner-")?)?, entry.path()))
        })
        .collect();
    versions.sort_by(|a, b| b.0.cmp(&a.0));
    versions.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        folder
    }

    #[test]
    fn the_newest_version_is_taken_and_not_the_last_in_the_alphabet() {
        let folder = install(&[
            "runner-2.9.0/bin/Runner.Listener",
            "runner-2.10.0/bin/Runner.Listener",
            "runner-2.10.1-beta/github-act-runner",
            "runner-2.10.1/README",
            "runner-old/bin/Runner.Listener",
            "github-act-runner",
        ]);
        let found = |remove: &str| {
            if !remove.is_empty() {
                std::fs::remove_dir_all(folder.path().join(remove)).expect("there");
            }
            let found = find(Some(folder.path())).expect("installed");
            found.strip_prefix(folder.path()).expect("in it").display().to_string()
        };
        assert_eq!(found(""), "runner-2.10.1-beta/github-act-runner");
        assert_eq!(found("runner-2.10.1-beta"), "runner-2.10.0/bin/Runner.Listener");
        assert_eq!(found("runner-2.10.0"), "runner-2.9.0/bin/Runner.Listener");
        assert_eq!(found("runner-2.9.0"), "github-act-runner");
    }

    #[test]
    fn a_place_without_an_app_is_named() {
        let error = find(Some(Path::new("/nowhere"))).expect_err("nothing there").to_string();
        assert!(error.starts_with("no runner app in /nowhere: neither bin/Runner.Listener nor "), "{error}");
    }
}
