//! Tests of the warm-up, which runs in a template before it is frozen, and of the content of the template.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use dayfly_e2e::{OwnState, prepared};
use dayfly_vm::{Preparing, StartedFrom, TemplateSettings, WarmUp};
use memchr::memmem;
use rustix::fs::SeekFrom;

use crate::stage;

/// Returns true if a file holds these bytes. Skips the holes of a sparse file, because they hold nothing.
fn holds(path: &Path, wanted: &[u8]) -> bool {
    let file = std::fs::File::open(path).expect("open");
    let (mut at, mut kept, mut buffer) = (0, Vec::new(), vec![0; 1 << 20]);
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).expect("an end");
        kept.clear();
        at = start;
        while at < end {
            let count = file.read_at(&mut buffer, at).expect("read");
            kept.extend_from_slice(&buffer[..count]);
            if memmem::find(&kept, wanted).is_some() {
                return true;
            }
            kept.drain(..kept.len().saturating_sub(wanted.len() - 1));
            at += count as u64;
        }
    }
    false
}

const WARM_UP: &str = "echo the warm-up speaks\nid -un >warm\ndocker info >/dev/null 2>&1 && echo docker >>warm\n\
    env | grep -c planted >>warm || true\necho kept-in-memory-and-on-disk >/dev/shm/warm\n";

#[tokio::test]
async fn a_warm_up_is_in_every_fork_and_no_secret_of_the_host_is_in_the_template() {
    let state = OwnState::without_templates();
    let warm_up = WarmUp { path: "warm.sh".into(), script: WARM_UP.to_owned() };
    let mut stage =
        stage(state.path(), TemplateSettings { warm_up: Some(warm_up), ..TemplateSettings::default() });
    stage.host.tool_env = vec![("TOKEN".to_owned(), "planted-in-the-hosts-environment".to_owned())];
    let told = stage.prepare().await;
    assert!(told.contains(&Preparing::Line("the warm-up speaks".to_owned())), "{told:?}");
    let Some(Preparing::Built { template, .. }) = told.last() else { panic!("{told:?}") };
    let script = "echo warm=$(cat /home/runner/warm); echo memory=$(cat /dev/shm/warm)";
    for name in ["one", "two"] {
        let said = stage.say(name, script).await;
        assert_eq!(said.from, [StartedFrom::Fork(template.clone())]);
        assert_eq!(said.value("warm"), "runner docker 0");
        assert_eq!(said.value("memory"), "kept-in-memory-and-on-disk");
    }
    let folder = state.path().join("templates").join(template);
    let log = std::fs::read_to_string(folder.join("warm-up.log")).expect("its log");
    assert_eq!(log, "the warm-up speaks\n");
    let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let mut secrets = vec!["planted-in-the-hosts-environment", "planted-one", "planted-two"];
    secrets.extend(Some(machine_id.trim()).filter(|id| !id.is_empty()));
    let memory = folder.join("memory");
    assert!(holds(&memory, b"kept-in-memory-and-on-disk"), "the search finds what is in the template");
    for name in ["memory", "state", "disk.img", "manifest.json"] {
        for secret in &secrets {
            assert!(!holds(&folder.join(name), secret.as_bytes()), "{secret} is in {name}");
        }
    }
}

#[tokio::test]
async fn a_warm_up_that_fails_is_told_and_machines_do_without() {
    let warm_up = WarmUp { path: "bad.sh".into(), script: "echo no such luck\nexit 7\n".to_owned() };
    let stage = stage(
        &prepared("DAYFLY_STATE"),
        TemplateSettings { warm_up: Some(warm_up), ..TemplateSettings::default() },
    );
    let told = stage.prepare().await;
    let reason = told.iter().find_map(|what| match what {
        Preparing::Failed { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    let reason = reason.unwrap_or_else(|| panic!("{told:?}"));
    assert!(reason.contains("exit status: 7") && reason.contains("no such luck"), "{reason}");
    let said = stage.say("anyway", "echo works=yes").await;
    assert!(matches!(&said.from[..], [StartedFrom::Fork(_)]), "{said:?}");
    assert_eq!(said.value("works"), "yes");
}
