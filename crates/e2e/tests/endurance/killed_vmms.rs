//! Tests that kill VMMs at random moments: the caller gets a machine that works, or a true report.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dayfly_e2e::machines::{Said, Stage};
use dayfly_e2e::{OwnState, kill};
use dayfly_vm::{Exit, StartedFrom, TemplateSettings};
use tokio::task::{AbortHandle, JoinSet};

use crate::dice::Dice;
use crate::footprint::{Footprint, children};
use crate::{PATIENCE, alone, stage};

/// One VMM in this many is killed.
const KILLED_OF: u32 = 4;
/// Latest moment at which a VMM is killed. By then a fork has done its work.
const LATEST: Duration = Duration::from_millis(1500);
/// Number of machines that run at the same time.
const AT_ONCE: usize = 4;

/// Kills some of this process's VMMs, but not the one of a template that is being built, whose end is reported elsewhere.
struct Killer {
    killed: Arc<Mutex<BTreeSet<u32>>>,
    task: AbortHandle,
}

impl Killer {
    fn start() -> Self {
        let killed = Arc::new(Mutex::new(BTreeSet::new()));
        let task = tokio::spawn(kill_some(Arc::clone(&killed))).abort_handle();
        Self { killed, task }
    }

    fn end(self) -> BTreeSet<u32> {
        self.task.abort();
        self.killed.lock().expect("no panic").clone()
    }
}

async fn kill_some(killed: Arc<Mutex<BTreeSet<u32>>>) {
    let mut dice = Dice::new();
    // When a VMM is seen for the first time, chance decides whether and when it is killed.
    let mut fates: HashMap<u32, Option<Instant>> = HashMap::new();
    loop {
        let vmms: Vec<u32> = children().into_iter().filter(is_machine).map(|(pid, _)| pid).collect();
        fates.retain(|pid, _| vmms.contains(pid));
        for pid in vmms {
            let fate = fates
                .entry(pid)
                .or_insert_with(|| dice.once_in(KILLED_OF).then(|| Instant::now() + dice.below(LATEST)));
            if fate.take_if(|at| *at <= Instant::now()).is_some() {
                killed.lock().expect("no panic").insert(pid);
                kill(pid);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_machine((pid, name): &(u32, String)) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A process has this name only once it is a VMM. A zombie still has the name, but no arguments.
    name.starts_with("qemu-system")
        && !arguments.is_empty()
        && !String::from_utf8_lossy(&arguments).contains("template-")
}

/// Asserts what the product promises, and nothing else.
fn assert_promise_kept(said: &Said, killed: &BTreeSet<u32>) {
    let was_killed = |pid: &u32| killed.contains(pid);
    let (last, before) = said.vmms.split_last().unwrap_or_else(|| panic!("nothing was started: {said:#?}"));
    assert!(before.iter().all(was_killed), "a start was given up although its VMM was not killed: {said:#?}");
    match said.values.get("works") {
        Some(works) => assert_eq!(works, "yes"),
        None => {
            assert_eq!(said.gone, Some(Exit::Signalled { signal: 9 }), "{said:#?}");
            assert!(was_killed(last), "the VMM exited without being killed: {said:#?}");
        }
    }
    match &said.from[..] {
        [StartedFrom::Fork(_) | StartedFrom::Spare(_)] => {
            assert_eq!(said.cold, Vec::<String>::new(), "{said:#?}");
        }
        [StartedFrom::Fork(_) | StartedFrom::Spare(_), StartedFrom::Boot] => {
            assert!(matches!(&said.cold[..], [why] if why.starts_with("a fork of template")), "{said:#?}");
        }
        // Two forks in a row were killed, so that their template was discarded.
        [StartedFrom::Boot] => {
            assert!(matches!(&said.cold[..], [why] if why.contains("is built again")), "{said:#?}");
        }
        other => panic!("{other:?}: {said:#?}"),
    }
}

/// Waits until machines are forked again, because the template may just be being rebuilt.
async fn assert_forks_work(stage: &Stage) {
    let works = async {
        for number in 0.. {
            let said = stage.say(&format!("after-{number}"), "echo works=yes").await;
            assert_eq!(said.value("works"), "yes");
            if let [StartedFrom::Fork(_)] = &said.from[..] {
                return;
            }
            assert!(said.cold[0].contains("is built again"), "{said:#?}");
        }
    };
    tokio::time::timeout(PATIENCE, works).await.expect("forks work again");
}

async fn vmms_are_killed_during(count: usize) {
    let _alone = alone().await;
    let state = OwnState::with_own_templates();
    let mut stage = stage(state.path(), TemplateSettings::default()).await;
    // A machine that boots starts Docker, which this test does not need.
    stage.host.limits.docker = Duration::from_secs(1);
    assert_forks_work(&stage).await;
    let before = Footprint::now();
    let spares = TemplateSettings { spares: 2, ..TemplateSettings::default() };
    stage.machine = stage.machine_with(Some(spares));
    let (stage, killer) = (Arc::new(stage), Killer::start());
    let (mut machines, mut all) = (JoinSet::new(), Vec::new());
    for number in 0..count {
        if machines.len() == AT_ONCE {
            all.extend(machines.join_next().await);
        }
        let stage = Arc::clone(&stage);
        machines.spawn(async move { stage.say(&format!("m-{number}"), "echo works=yes; sleep 0.5").await });
    }
    all.extend(machines.join_all().await.into_iter().map(Ok));
    let killed = killer.end();
    for said in all {
        assert_promise_kept(&said.expect("no panic"), &killed);
    }
    assert_forks_work(&stage).await;
    stage.host.spares.end().await;
    before.assert_back().await;
    assert_eq!(std::fs::read_dir(stage.folder().join("spares")).map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn ten_forks_whose_vmms_are_killed_at_random_work_or_tell_and_leave_nothing() {
    vmms_are_killed_during(10).await;
}

#[tokio::test]
#[ignore = "kept for make test-full"]
async fn two_hundred_forks_whose_vmms_are_killed_at_random_work_or_tell_and_leave_nothing() {
    vmms_are_killed_during(200).await;
}
