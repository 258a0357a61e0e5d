//! Tests that kill builders of templates at random moments: an incomplete template is never used, and the next build removes
//! what is left.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dayfly_e2e::machines::enter_network_namespace;
use dayfly_e2e::{Dayfly, OwnState, processes_holding};
use dayfly_vm::{StartedFrom, TemplateSettings};
use serde_json::Value;

use crate::dice::Dice;
use crate::footprint::assert_no_network_of_a_machine;
use crate::{alone, stage, until};

/// Assumed duration of a build before one was measured.
const FIRST: Duration = Duration::from_secs(15);

fn build(state: &OwnState) -> Dayfly {
    // `--again` replaces an existing template.
    Dayfly::new(["template", "build", "--again", "--json"]).env("DAYFLY_STATE", state.path())
}

/// Returns the existing templates, and asserts that each of them is complete.
fn whole_templates(state: &OwnState) -> Vec<Value> {
    let ended = Dayfly::new(["template", "ls", "--json"]).env("DAYFLY_STATE", state.path()).run();
    let all: Value = serde_json::from_str(&ended.assert_status(0).stdout).expect("JSON");
    let all = all.as_array().expect("a list").clone();
    for template in &all {
        let folder = Path::new(template["folder"].as_str().expect("its folder"));
        let length = |name| std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
        let mebibytes = |name: &str| template[name].as_u64().expect("a number") << 20;
        assert_eq!(length("memory"), mebibytes("memory_mib"), "{template}");
        assert_eq!(length("disk.img"), mebibytes("disk_mib"), "{template}");
        assert!(length("state") > 0, "{template}");
    }
    all
}

async fn builders_are_killed(times: u32) {
    let _alone = alone().await;
    enter_network_namespace();
    let (state, mut dice) = (OwnState::without_templates(), Dice::new());
    let mut takes = FIRST;
    for number in 0..times {
        // The first half of the builders finds no template; the second half replaces one.
        if number == times / 2 {
            let began = Instant::now();
            build(&state).run().assert_status(0);
            takes = began.elapsed();
        }
        let killed = build(&state).start();
        tokio::time::sleep(dice.below(takes)).await;
        // A builder that was faster than before has already exited.
        killed.kill_if_alive();
        killed.wait();
        whole_templates(&state);
    }
    build(&state).run().assert_status(0);
    assert_eq!(whole_templates(&state).len(), 1);
    let left = std::fs::read_dir(state.path().join("templates/.build")).expect("read").flatten();
    assert_eq!(left.map(|entry| entry.path()).collect::<Vec<_>>(), Vec::<PathBuf>::new());
    until("no process has a file of the state open", || processes_holding(state.path()).is_empty()).await;
    assert_no_network_of_a_machine();
    let stage = stage(state.path(), TemplateSettings::default()).await;
    let said = stage.say("fork", "echo works=yes").await;
    assert_eq!(said.value("works"), "yes");
    assert!(matches!(said.from[..], [StartedFrom::Fork(_)]), "{said:?}");
}

#[tokio::test]
async fn the_next_build_clears_up_after_two_that_were_killed_at_random() {
    builders_are_killed(2).await;
}

#[tokio::test]
#[ignore = "kept for make test-full"]
async fn the_next_build_clears_up_after_thirty_that_were_killed_at_random() {
    builders_are_killed(30).await;
}
