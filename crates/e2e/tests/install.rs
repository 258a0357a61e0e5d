//! Tests of `make install`, and of `dayfly uninstall`, which must know the same files. `scripts/test-deb` tests the Debian package.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, OwnState, prepared};
use rustix::process::Signal;
use serde_json::Value;

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

/// Returns the traces that a dry run lists.
fn traces(program: &Path, state: &Path) -> Vec<Value> {
    let mut command = Command::new(program);
    command.args(["uninstall", "--dry-run", "--json", "--state"]).arg(state);
    let output = command.env("NO_COLOR", "1").output().expect("dayfly");
    assert_good(&output);
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_dry_run_of_dayfly_uninstall_lists_each_file_that_make_install_has_written() {
    let (prefix, state) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    assert_good(&make("install", &[("PREFIX", prefix.path())]));
    std::fs::create_dir(state.path().join("images")).expect("created");
    let traces = traces(&prefix.path().join("bin/dayfly"), state.path());
    let paths = traces.iter().filter_map(|trace| Some(PathBuf::from(trace["path"].as_str()?)));
    let paths: Vec<_> = paths.collect();
    assert!(paths.contains(&state.path().join("images")), "{paths:?}");
    for file in files(prefix.path()) {
        let file = prefix.path().join(file);
        assert!(paths.iter().any(|path| file.starts_with(path)), "{} is not in {paths:#?}", file.display());
    }
}

#[tokio::test]
async fn a_dry_run_lists_what_a_dead_process_has_left_and_a_process_that_lives_is_in_the_way() {
    let (lab, state) = (LabProcess::start(), OwnState::without_images());
    let installation = tempfile::tempdir().expect("a temporary folder");
    let own = std::env::current_exe().expect("this program");
    let light_runner = own.ancestors().nth(2).expect("target/<profile>").join("light-runner");
    dayfly_light_runner::install(&light_runner, installation.path()).expect("laid out");
    let runner = || {
        let runner = lab.runner_command(["-R", "process", "-r", "1"]);
        runner.env("RUNNER_INSTALL", installation.path()).env("DAYFLY_STATE", state.path())
    };
    let mut killed = runner().start();
    let name = killed.wait_for_event("listening")["name"].as_str().expect("a name").to_owned();
    let uninstall = |option| {
        let arguments = ["uninstall", option, "--json", "-g", &lab.url, "-p", &lab.principal];
        Dayfly::new(arguments).env("RUNNER_PAT", &lab.token).env("DAYFLY_STATE", state.path()).run()
    };
    let refused = uninstall("--force");
    assert_eq!(refused.status, Some(3), "{refused:#?}");
    assert!(refused.stderr.contains("lives\nhint: end it first"), "{refused:#?}");
    killed.signal(Signal::KILL);
    killed.wait();

    let listed = uninstall("--dry-run");
    listed.assert_status(0);
    let of =
        |kind: &str| listed.events().into_iter().filter(|trace| trace["kind"] == kind).collect::<Vec<_>>();
    let registration = of("registration").pop().expect("a registration");
    assert_eq!(
        (registration["name"].as_str(), &registration["is_removed"]),
        (Some(name.as_str()), &true.into())
    );
    assert!(of("left").iter().any(|left| left["machine_lives"] == true), "{listed:#?}");
    assert_eq!(lab.registrations().await, [name], "a dry run touches nothing");

    // The next start takes the runner over, and ends it in order.
    let mut next = runner().start();
    next.wait_for_event("vm_taken_over");
    next.signal(Signal::TERM);
    next.wait().assert_nothing_left();
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}
