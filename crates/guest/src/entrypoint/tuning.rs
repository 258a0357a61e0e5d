//! Settings of .NET for the official app.
//!
//! They are in the app's own `runtimeconfig.json` files rather than in its environment, because the steps of a job inherit
//! the environment. They are set here rather than when an image is built, because an imported image was built elsewhere.
//! In a machine the files are in the overlay of one runner. An app that has updated itself has new files, which stay as
//! they are.

use crate::folder::{Folder, FolderError};
use dayfly_guest::runner_app::{DOTNET_PROGRAMS, Launch, TIERED_PGO_VARIABLES, without_tiered_pgo};

/// Largest size of a `runtimeconfig.json` in bytes. They have one or two KiB.
const LENGTH_MAX: usize = 64 * 1024;

/// Turns profile-guided optimization off, unless the environment or a file says otherwise. Returns the problems; they
/// change nothing for the app.
pub(super) fn tune(launch: &Launch) -> Vec<String> {
    if TIERED_PGO_VARIABLES.iter().any(|variable| launch.value(variable).is_some()) {
        return Vec::new();
    }
    let problems = DOTNET_PROGRAMS.into_iter().filter_map(|program| tune_one(launch, program).err());
    problems.map(|error| format!("the app's settings of .NET stay as they are: {error}")).collect()
}

fn tune_one(launch: &Launch, program: &str) -> Result<(), FolderError> {
    let bin = Folder::open(&launch.folder.join("bin"))?;
    let name = format!("{program}.runtimeconfig.json");
    let config = match bin.read(&name, LENGTH_MAX) {
        Err(error) if error.is_absent() => return Ok(()),
        config => config?,
    };
    without_tiered_pgo(&config).map_or(Ok(()), |tuned| bin.replace(&name, &tuned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayfly_guest::runner_app::User;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    const CONFIG: &str = r#"{"runtimeOptions":{"configProperties":{}}}"#;

    /// Returns an installed app and its launch.
    fn install(config: &str) -> (tempfile::TempDir, Launch) {
        let folder = tempfile::tempdir().expect("a folder");
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).expect("a folder");
        for program in DOTNET_PROGRAMS {
            let file = bin.join(format!("{program}.runtimeconfig.json"));
            std::fs::write(&file, config).expect("a file");
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).expect("changed");
        }
        let user = User { name: "u".into(), home: "/".into(), shell: "/bin/sh".into() };
        let launch = Launch::run(&bin.join("Runner.Listener"), folder.path(), &user);
        (folder, launch)
    }

    fn config_of(folder: &Path, program: &str) -> (String, u32) {
        let file = folder.join(format!("bin/{program}.runtimeconfig.json"));
        let mode = std::fs::metadata(&file).expect("there").permissions().mode() & 0o777;
        (std::fs::read_to_string(file).expect("there"), mode)
    }

    #[test]
    fn both_programs_are_tuned_once_and_their_files_stay_readable() {
        let (folder, launch) = install(CONFIG);
        assert_eq!(tune(&launch), Vec::<String>::new());
        let tuned = DOTNET_PROGRAMS.map(|program| config_of(folder.path(), program));
        assert!(tuned.iter().all(|(text, mode)| text.contains("TieredPGO\": false") && *mode == 0o644));
        assert_eq!(tune(&launch), Vec::<String>::new());
        assert_eq!(DOTNET_PROGRAMS.map(|program| config_of(folder.path(), program)), tuned);
        assert_eq!(std::fs::read_dir(folder.path().join("bin")).expect("there").count(), 2);
    }

    #[test]
    fn a_variable_of_the_image_leaves_the_files_alone() {
        let (folder, mut launch) = install(CONFIG);
        launch.set("DOTNET_TieredPGO", "1");
        assert_eq!(tune(&launch), Vec::<String>::new());
        assert_eq!(config_of(folder.path(), "Runner.Worker").0, CONFIG);
    }

    #[test]
    fn a_link_and_unknown_content_stay_and_only_the_link_is_told() {
        let (folder, launch) = install("not JSON");
        let file = folder.path().join("bin/Runner.Worker.runtimeconfig.json");
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&file, &elsewhere).expect("moved");
        std::os::unix::fs::symlink(&elsewhere, &file).expect("a link");
        let problems = tune(&launch);
        assert!(problems.len() == 1 && problems[0].contains("Runner.Worker.runtimeconfig"), "{problems:?}");
        assert_eq!(std::fs::read_to_string(&elsewhere).expect("there"), "not JSON");
        assert_eq!(config_of(folder.path(), "Runner.Listener").0, "not JSON");
    }
}
