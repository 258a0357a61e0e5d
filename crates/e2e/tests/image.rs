//! Tests of `dayfly image` and `dayfly doctor`, with the image that `make test` has built.

use std::path::Path;
use std::time::{Duration, Instant};

use dayfly_e2e::{Dayfly, prepared};
use rustix::process::Signal;

/// Returns all files and folders below a folder, at any depth.
fn everything_below(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        found.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(everything_below(&entry.path()));
        }
    }
    found
}

#[test]
fn the_same_inputs_leave_nothing_to_do() {
    let began = Instant::now();
    let ended = Dayfly::new(["image", "build", "--json"]).run();
    ended.assert_status(0);
    assert!(began.elapsed() < Duration::from_secs(30), "nothing was built anew");
    let listed = Dayfly::new(["image", "ls", "--json"]).run();
    let images: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).expect("a list");
    let built = &ended.events()[0];
    assert!(images.iter().any(|image| image["id"] == built["id"]), "{images:?}");
}

#[test]
fn an_interrupted_build_leaves_nothing_half_made() {
    let state = tempfile::tempdir().expect("a folder");
    let apps = state.path().join("runner-apps");
    std::os::unix::fs::symlink(prepared("DAYFLY_STATE").join("runner-apps"), &apps).expect("a link");
    let running = Dayfly::new(["image", "build"]).env("DAYFLY_STATE", state.path()).start();
    // Long enough that packages are being installed, far too short for a complete build.
    let began = Instant::now();
    let stage = state.path().join("images/.build");
    while !everything_below(&stage).iter().any(|path| path.ends_with("/build.log")) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the build has not begun: {:?}",
            everything_below(state.path())
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(3));
    running.signal(Signal::INT);
    let ended = running.wait();
    ended.assert_status(130);
    assert!(ended.temporary.is_empty(), "{:?}", ended.temporary);
    let mut left = everything_below(&state.path().join("images"));
    left.retain(|path| !path.ends_with(".build") && !path.ends_with(".lock"));
    assert_eq!(left, Vec::<String>::new());
    let text = state.path().display().to_string();
    assert_eq!(dayfly_e2e::processes_naming(&text), Vec::<u32>::new(), "a builder is left");
    let listed = Dayfly::new(["image", "ls", "--json"]).env("DAYFLY_STATE", state.path()).run();
    assert_eq!(listed.stdout.trim(), "[]");
}

#[test]
fn doctor_tells_each_check_and_what_mends_it() {
    let ended = Dayfly::new(["doctor", "--json"]).run();
    ended.assert_status(0);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&ended.stdout).expect("a list");
    for name in ["qemu", "mmdebstrap", "go", "guest binary"] {
        let check = checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("no {name}: {checks:?}"));
        assert_eq!(check["state"], "ok", "{check}");
    }
    let broken = Dayfly::new(["doctor", "--json"]).env("DAYFLY_QEMU", "/nowhere/qemu").run();
    broken.assert_status(3);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&broken.stdout).expect("a list");
    let qemu = checks.iter().find(|check| check["name"] == "qemu").expect("a check");
    assert_eq!(
        (qemu["state"].as_str(), qemu["mend"].as_str()),
        (Some("missing"), Some("apt-get install qemu-system-x86"))
    );
}
