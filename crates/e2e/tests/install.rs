//! Tests of `make install`.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dayfly_e2e::prepared;

/// Runs `make` with these variables, on the programs that the other tests use.
fn make(target: &str, variables: &[(&str, &Path)]) -> Output {
    let mut command = Command::new("make");
    command.args(["--silent", "--no-print-directory", target]);
    command.args(variables.iter().map(|(name, value)| format!("{name}={}", value.display())));
    // These variables are set if make runs the tests.
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        command.env_remove(variable);
    }
    let programs = prepared("DAYFLY_BINARY");
    command.env("PROGRAMS", programs.parent().expect("a folder"));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).output().expect("make")
}

fn assert_good(output: &Output) {
    assert!(output.status.success(), "{output:#?}");
}

/// Returns the files below a folder, from it.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(found.insert(path.strip_prefix(folder).expect("below").to_owned())),
            }
        }
    }
    found
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn make_install_puts_programs_unit_completions_and_pages_below_its_prefix_and_make_uninstall_removes_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let variables = [("PREFIX", Path::new("/opt/dayfly")), ("DESTDIR", folder.path())];
    assert_good(&make("install", &variables));
    let prefix = folder.path().join("opt/dayfly");
    for program in ["dayfly", "dayfly-guest"] {
        let metadata = prefix.join("bin").join(program).metadata().expect("a program");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o755, "{program}");
    }
    let unit = read(prefix.join("lib/systemd/system/dayfly.service"));
    assert!(
        unit.contains("ExecStart=/opt/dayfly/bin/dayfly orchestrator") && !unit.contains("/usr/bin"),
        "{unit}"
    );
    let script = read(prefix.join("share/bash-completion/completions/dayfly"));
    assert!(script.contains("/opt/dayfly/bin/dayfly"), "{script}");
    let pages = files(&prefix.join("share/man/man1"));
    assert!(pages.contains(Path::new("dayfly-lab-fault-add.1")), "{pages:?}");
    assert_good(&make("install", &variables));
    assert_good(&make("uninstall", &variables));
    assert_eq!(files(folder.path()), BTreeSet::new());
}

#[test]
fn a_prefix_that_a_unit_cannot_name_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for prefix in ["opt", "/opt/day fly", "/opt/day|fly"] {
        let refused = make("install", &[("PREFIX", Path::new(prefix)), ("DESTDIR", folder.path())]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("an absolute path of letters"),
            "{prefix}: {said}"
        );
        assert_eq!(files(folder.path()), BTreeSet::new());
    }
}
