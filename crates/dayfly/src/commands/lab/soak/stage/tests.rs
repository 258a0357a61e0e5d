use clap::Parser as _;

use super::super::story::{BEGIN, END};
use super::*;
use crate::cli::{Cli, Command, LabCommand};

fn args(words: &str) -> LabSoakArgs {
    let words = ["dayfly", "lab", "soak"].into_iter().chain(words.split_whitespace());
    match Cli::try_parse_from(words).expect("options").command {
        Command::Lab(LabCommand::Soak(args)) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_pools_of_processes_have_the_app_and_the_ledger_in_their_settings() {
    let folder = Folder { path: "/s".into(), has_disk: false, _lock: None };
    let args = args("--driver process --runner-app /opt/app --parallel 3");
    insta::assert_snapshot!(config(&folder, "http://127.0.0.1:1", &args));
}

#[test]
fn the_pools_of_machines_are_good() {
    let folder = Folder { path: "/s".into(), has_disk: false, _lock: None };
    let text = config(&folder, "http://127.0.0.1:1", &args("--image debian:13 --memory 2048 --accel tcg"));
    let around = crate::config::Surroundings { is_this_host: false, size: None, guest_folder: "/".into() };
    let reading = crate::config::parse("dayfly.toml", text.as_bytes(), &around);
    assert_eq!(reading.errors(), 0, "{text}");
    assert!(text.contains("image = \"debian:13\"") && !text.contains(LEDGER), "{text}");
}

#[test]
fn the_workflow_of_a_lane_is_one_that_the_lab_takes() {
    let text = workflow(Lane::ScaleSet);
    assert!(text.contains("runs-on: [soak-set]\n"), "{text}");
    for part in [
        format!("echo \"{BEGIN}$NUMBER\""),
        format!("echo \"{END}$NUMBER\""),
        format!("\"${LEDGER}/$NUMBER\""),
    ] {
        assert!(text.contains(&part), "{part} is missing: {text}");
    }
    assert!(dayfly_lab::workflow::parse("soak.yml", &text).is_ok());
}

#[test]
fn files_that_may_stay_are_none_that_are_left() {
    let temporary = tempfile::tempdir().expect("folder");
    let folder = Folder { path: temporary.path().to_owned(), has_disk: false, _lock: None };
    for kept in ["state/logs/a", "state/history", "state/images", "state/instances", "tmp", "lab/x", "ledger"]
    {
        fs::create_dir_all(folder.path().join(kept)).expect("created");
    }
    assert_eq!(folder.files_left(), Vec::<PathBuf>::new());
    for left in ["state/instances/abc/runs", "state/other", "tmp/x"] {
        fs::create_dir_all(folder.path().join(left)).expect("created");
    }
    let mut left = folder.files_left();
    left.sort();
    let expected = ["state/instances/abc", "state/other", "tmp/x"].map(|name| folder.path().join(name));
    assert_eq!(left, expected);
}
