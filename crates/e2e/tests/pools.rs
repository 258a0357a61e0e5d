//! Tests of pools from a configuration file, fed by the lab (a scale set, lists of jobs, a webhook): the real `dayfly`, its
//! sources of demand, and its runners.

#[path = "pools/inside.rs"]
mod inside;
#[path = "pools/kept.rs"]
mod kept;
#[path = "pools/secrets.rs"]
mod secrets;
#[path = "pools/steer.rs"]
mod steer;
#[path = "pools/take_over.rs"]
mod take_over;
#[path = "pools/traces.rs"]
mod traces;
#[path = "pools/waiting.rs"]
mod waiting;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Running, image};
use rustix::process::Signal;
use tempfile::TempDir;

/// Longest time that a pool may take to scale down on a loaded host.
const PATIENCE: Duration = Duration::from_secs(120);

/// A configuration file for a lab, and the file of the lab's token.
struct Config {
    folder: TempDir,
    path: PathBuf,
}

impl Config {
    fn new(lab: &LabProcess, pools: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Jobs of another user wait for files in it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let token = folder.path().join("token");
        fs::write(&token, &lab.token).expect("the token");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("its mode");
        let path = folder.path().join("dayfly.toml");
        let config = Self { folder, path };
        config.write(lab, pools);
        config
    }

    /// Replaces the file.
    fn write(&self, lab: &LabProcess, pools: &str) {
        let (url, token) = (&lab.url, self.folder.path().join("token"));
        let text = format!("[forges.lab]\nurl = {url:?}\ntoken_file = {token:?}\n{pools}");
        fs::write(&self.path, text).expect("the file");
    }

    /// Runs `dayfly reload` for the file, and returns its exit status and the answer of its orchestrator.
    fn reload(&self) -> (Option<i32>, serde_json::Value) {
        let ended = Dayfly::new(["reload", "--json", "--config", &self.path.display().to_string()]).run();
        let mut answers = ended.events().pop().expect("a line");
        (ended.status, answers[0].take())
    }

    fn orchestrator(&self) -> Running {
        self.command().start()
    }

    fn command(&self) -> Dayfly {
        Dayfly::new(["orchestrator", "--json", "--config", &self.path.display().to_string()])
    }
}

fn jobs(labels: &str, count: u32, script: &str) -> String {
    let numbers: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    format!(
        "on: push\njobs:\n  a:\n    runs-on: {labels}\n    strategy: {{ matrix: {{ n: [{}] }} }}\n    steps:\n      - run: {script}\n",
        numbers.join(", ")
    )
}

/// Waits until no runner is registered any more.
async fn scaled_down(lab: &LabProcess) {
    let began = Instant::now();
    while !lab.registrations().await.is_empty() {
        assert!(began.elapsed() < PATIENCE, "runners are left: {:?}", lab.registrations().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Returns the most runners that ran at the same time, by the facts of an orchestrator.
fn most_at_once(facts: &[serde_json::Value]) -> usize {
    let (mut alive, mut most) = (0_usize, 0);
    for fact in facts {
        match fact["event"].as_str() {
            Some("loop_started") => alive += 1,
            Some("loop_ended") => alive -= 1,
            _ => {}
        }
        most = most.max(alive);
    }
    most
}

#[tokio::test]
async fn a_scale_set_brings_a_pool_up_from_zero_and_back_to_zero() {
    let lab = LabProcess::start();
    let config = Config::new(
        &lab,
        "[pools.plain]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmax = 2\ndriver = 'process'\n\
         timeouts = { idle = '1s' }\n",
    );
    let mut orchestrator = config.orchestrator();
    let ready = orchestrator.wait_for_event("source_ready");
    assert_eq!((ready["pool"].as_str(), ready["source"].as_str()), (Some("plain"), Some("scale set")));
    assert_eq!(lab.registrations().await, Vec::<String>::new(), "no job, no runner");
    for labels in ["plain", "[self-hosted, PLAIN]"] {
        let run = lab.dispatch(&jobs(labels, 3, "echo done")).await;
        assert_eq!(lab.conclusion_of(run).await, "success", "{labels}");
    }
    scaled_down(&lab).await;
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    let facts = ended.events();
    let concluded: Vec<_> = facts.iter().filter(|fact| fact["event"] == "job_concluded").collect();
    assert_eq!(concluded.len(), 6, "the forge's word about each job: {concluded:?}");
    assert!(concluded.iter().all(|fact| fact["conclusion"] == "success" && fact["pool"] == "plain"));
    assert_eq!(most_at_once(&facts), 2);

    // The session was ended, so the next orchestrator does not wait for the forge to give it up.
    let mut next = config.orchestrator();
    let again = next.wait_for_event("source_ready");
    assert!(again["message"].as_str().is_some_and(|message| message.starts_with("found")), "{again}");
    let run = lab.dispatch(&jobs("plain", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    next.signal(Signal::TERM);
    let ended = next.wait();
    ended.assert_status(143).assert_nothing_left();
    assert!(ended.events_of("source_trouble").is_empty(), "{:?}", ended.events_of("source_trouble"));
    assert!(config.folder.path().exists());
    lab.stop();
}

#[tokio::test]
async fn two_pools_of_forked_machines_share_a_host_and_one_keeps_a_runner_ready() {
    let lab = LabProcess::start();
    let image = image();
    let config = Config::new(
        &lab,
        &format!(
            "[pools.ready]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmin_idle = 1\nmax = 2\n\
             accel = 'tcg'\nimage = '{image}'\nprefix = 'ready'\n\
             [pools.rare]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmax = 2\naccel = 'tcg'\n\
             image = '{image}'\nprefix = 'rare'\ntimeouts = {{ idle = '1s' }}\n\
             [host]\nmax_machines = 2\n"
        ),
    );
    let mut orchestrator = config.orchestrator();
    let waiting = orchestrator.wait_for_event("listening");
    assert_eq!(waiting["pool"], "ready", "it waits before there is a job");
    let run = lab.dispatch(&jobs("rare", 2, "docker version")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    let run = lab.dispatch(&jobs("ready", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    let facts = ended.events();
    assert_eq!(most_at_once(&facts), 2, "the host has room for two machines");
    let started = ended.events_of("vmm_started");
    assert!(started.iter().any(|fact| fact["from"] == "fork"), "{started:?}");
    assert!(started.iter().all(|fact| fact["name"].as_str().is_some_and(|name| {
        name.starts_with(&format!("{}-", fact["pool"].as_str().unwrap_or_default()))
    })));
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[tokio::test]
async fn the_lists_of_a_repositorys_jobs_bring_a_pool_up_and_it_takes_no_other_jobs() {
    let lab = LabProcess::start();
    let config = Config::new(
        &lab,
        "[pools.polled]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'poll'\nlabels = ['polled']\nmax = 2\n\
         driver = 'process'\ntimeouts = { idle = '1s' }\n",
    );
    let other = lab.dispatch(&jobs("[self-hosted, another]", 1, "echo done")).await;
    let run = lab.dispatch(&jobs("[self-hosted, Polled]", 2, "echo done")).await;
    let mut orchestrator = config.orchestrator();
    let ready = orchestrator.wait_for_event("source_ready");
    assert_eq!((ready["pool"].as_str(), ready["source"].as_str()), (Some("polled"), Some("poll")));
    assert_eq!(lab.conclusion_of(run).await, "success");
    scaled_down(&lab).await;
    lab.cancel(other).await;
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    assert_eq!(ended.events_of("loop_started").len(), 2, "one runner for each of its two jobs");
    lab.stop();
}

#[tokio::test]
async fn a_runner_of_a_static_pool_that_waits_too_long_makes_room_for_a_fresh_one() {
    let lab = LabProcess::start();
    let config = Config::new(
        &lab,
        "[pools.always]\nforge = 'lab'\nprincipal = 'o/r'\nlabels = ['always']\ndriver = 'process'\n\
         timeouts = { idle = '1m' }\n",
    );
    let mut orchestrator = config.orchestrator();
    orchestrator.wait_for_event("listening");
    let first = lab.registrations().await;
    let stopping = orchestrator.wait_for_event("stopping");
    assert_eq!(stopping["reason"].as_str(), Some("it has waited for a job for 60 s"));
    orchestrator.wait_for_event("listening");
    let second = lab.registrations().await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
    let run = lab.dispatch(&jobs("always", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    assert!(ended.events_of("loop_replaced").is_empty(), "it is no failure");
    assert!(ended.events_of("retrying").is_empty(), "it is no failure");
    lab.stop();
}

/// Returns the table of a pool of processes with a scale set of its own name.
fn plain_pool(name: &str, more: &str) -> String {
    format!(
        "[pools.{name}]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmax = 2\ndriver = 'process'\n\
         prefix = '{name}'\n{more}\n"
    )
}

/// Waits for an event of a pool.
fn wait_for_event_of(orchestrator: &mut Running, pool: &str, event: &str) -> serde_json::Value {
    let what = format!("{event} of {pool}");
    orchestrator.wait_for(&what, |value| value["event"] == event && value["pool"] == pool)
}

/// Returns the names of the registered runners whose names begin with this word.
async fn registered(lab: &LabProcess, prefix: &str) -> Vec<String> {
    lab.registrations().await.into_iter().filter(|name| name.starts_with(prefix)).collect()
}

#[tokio::test]
async fn a_job_gets_the_size_that_its_label_names_and_idle_runners_make_room_for_it() {
    let lab = LabProcess::start();
    let sized = |sizes: &str| plain_pool("sized", &format!("min_idle = 2\nsizes = [{sizes}]"));
    let config = Config::new(&lab, &sized("'dayfly-2cpu-1gb', 'dayfly-1cpu-1gb'"));
    let mut orchestrator = config.orchestrator();
    for _ in 0..2 {
        wait_for_event_of(&mut orchestrator, "sized", "listening");
    }
    // Both places are taken by idle runners of the pool's own size.
    for (labels, count) in [("dayfly-2cpu-1gb", 3), ("sized-dayfly-1cpu-1gb", 1), ("[self-hosted, sized]", 2)]
    {
        let run = lab.dispatch(&jobs(labels, count, "echo done")).await;
        assert_eq!(lab.conclusion_of(run).await, "success", "{labels}");
    }
    config.write(&lab, &sized("'dayfly-2cpu-1gb'"));
    let (status, reloaded) = config.reload();
    assert_eq!(status, Some(0), "{reloaded}");
    assert_eq!(reloaded["removed"], serde_json::json!(["sized (dayfly-1cpu-1gb)"]), "{reloaded}");
    assert_eq!(reloaded["unchanged"], serde_json::json!(["sized", "sized (dayfly-2cpu-1gb)"]), "{reloaded}");
    wait_for_event_of(&mut orchestrator, "sized (dayfly-1cpu-1gb)", "pool_drained");
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    let facts = ended.events();
    for (pool, jobs) in [("sized", 2), ("sized (dayfly-2cpu-1gb)", 3), ("sized (dayfly-1cpu-1gb)", 1)] {
        let of_pool = |fact: &&serde_json::Value| fact["event"] == "job_concluded" && fact["pool"] == pool;
        assert_eq!(facts.iter().filter(of_pool).count(), jobs, "{pool}");
    }
    assert_eq!(most_at_once(&facts), 2, "the maximum of all sizes together");
    lab.stop();
}

#[tokio::test]
async fn a_reload_adds_and_drains_pools_and_leaves_the_others_alone() {
    let lab = LabProcess::start();
    let stays = plain_pool("stays", "min_idle = 1");
    let goes = plain_pool("goes", "min_idle = 1");
    let config = Config::new(&lab, &format!("{stays}{goes}"));
    let mut orchestrator = config.orchestrator();
    for _ in 0..2 {
        orchestrator.wait_for_event("listening");
    }
    let idle = registered(&lab, "stays").await;
    assert_eq!(idle.len(), 1, "{idle:?}");
    let gate = config.folder.path().join("gate");
    let run = lab.dispatch(&jobs("goes", 1, &format!("until test -e {gate:?}; do sleep 0.1; done"))).await;
    wait_for_event_of(&mut orchestrator, "goes", "job_started");

    // A bad file, and one whose pool cannot be prepared, change nothing and say why.
    config.write(&lab, &format!("{stays}{}", plain_pool("comes", "memroy = '1GiB'")));
    let (status, refused) = config.reload();
    assert_eq!((status, refused["outcome"].as_str()), (Some(2), Some("refused")), "{refused}");
    let problem = refused["problems"][0]["text"].as_str().expect("a problem");
    assert!(problem.contains("pools.comes.memroy: unknown key"), "{problem}");
    config.write(&lab, &format!("{stays}{}", plain_pool("comes", "mounts = ['/nonexistent/folder:/x']")));
    let (status, refused) = config.reload();
    assert_eq!(status, Some(2), "{refused}");
    assert!(refused["why"].as_str().is_some_and(|why| why.contains("/nonexistent/folder")), "{refused}");

    config.write(&lab, &format!("{stays}{}", plain_pool("comes", "")));
    let (status, reloaded) = config.reload();
    assert_eq!((status, reloaded["outcome"].as_str()), (Some(0), Some("reloaded")), "{reloaded}");
    for (what, pool) in [("added", "comes"), ("removed", "goes"), ("unchanged", "stays")] {
        assert_eq!(reloaded[what], serde_json::json!([pool]), "{reloaded}");
    }
    let added = lab.dispatch(&jobs("comes", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(added).await, "success");
    assert_eq!(registered(&lab, "stays").await, idle, "its runner waits on");

    // The job of the pool that drains goes on, no other runner waits there, and the pool is gone after the job.
    fs::write(&gate, "").expect("the gate");
    assert_eq!(lab.conclusion_of(run).await, "success");
    wait_for_event_of(&mut orchestrator, "goes", "pool_drained");
    assert_eq!(registered(&lab, "goes").await, Vec::<String>::new());
    let run = lab.dispatch(&jobs("stays", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(run).await, "success");

    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    let troubles: Vec<_> = ended.events_of("source_trouble");
    assert!(troubles.is_empty(), "{troubles:?}");
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    let ended = Dayfly::new(["reload", "--config", &config.path.display().to_string()]).run();
    ended.assert_status(3);
    assert!(ended.stderr.contains("no orchestrator of this host runs from"), "{}", ended.stderr);
    lab.stop();
}

#[tokio::test]
async fn a_hang_up_replaces_a_pool_that_has_changed_beside_its_last_job() {
    let lab = LabProcess::start();
    let config = Config::new(&lab, &plain_pool("plain", "min_idle = 1"));
    let mut orchestrator = config.orchestrator();
    orchestrator.wait_for_event("listening");
    let gate = config.folder.path().join("gate");
    let run = lab.dispatch(&jobs("plain", 1, &format!("until test -e {gate:?}; do sleep 0.1; done"))).await;
    wait_for_event_of(&mut orchestrator, "plain", "job_started");

    // Numbers change in place: a second runner waits, and none ends.
    config.write(&lab, &plain_pool("plain", "min_idle = 1\nweight = 2"));
    orchestrator.signal(Signal::HUP);
    let reload = orchestrator.wait_for_event("reload");
    assert_eq!(reload["adjusted"], serde_json::json!(["plain"]), "{reload}");

    // Another label makes another pool of the same name, which has the same scale set.
    config.write(&lab, &plain_pool("plain", "min_idle = 1\nlabels = ['more']"));
    orchestrator.signal(Signal::HUP);
    let reload = orchestrator.wait_for_event("reload");
    assert_eq!(reload["replaced"], serde_json::json!(["plain"]), "{reload}");
    let is_new = |fact: &serde_json::Value| fact["loop"].as_u64().is_some_and(|index| index > 1000);
    orchestrator.wait_for("a runner of the new pool", |fact| fact["event"] == "listening" && is_new(fact));
    let next = lab.dispatch(&jobs("plain", 1, "echo done")).await;
    assert_eq!(lab.conclusion_of(next).await, "success", "while the old pool still has its job");
    fs::write(&gate, "").expect("the gate");
    assert_eq!(lab.conclusion_of(run).await, "success");
    wait_for_event_of(&mut orchestrator, "plain", "pool_drained");
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[tokio::test]
async fn each_source_brings_a_pool_of_forked_machines_up_from_zero_and_back_to_zero() {
    const SECRET: &str = "of-the-webhook";
    const SOURCES: [(&str, &str); 3] = [("hooked", "webhook"), ("polled", "poll"), ("scaled", "scale-set")];
    let lab = LabProcess::start();
    let image = image();
    let pool = |(name, source): (&str, &str)| {
        format!(
            "[pools.{name}]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = '{source}'\nlabels = ['{name}']\nmax = 2\n\
             accel = 'tcg'\nimage = '{image}'\nprefix = '{name}'\ntimeouts = {{ idle = '1s' }}\n"
        )
    };
    let pools: String = SOURCES.into_iter().map(pool).collect();
    let server =
        "[webhook]\nlisten = '127.0.0.1:0'\nsecret_env = 'WEBHOOK_SECRET'\n[host]\nmax_machines = 2\n";
    let config = Config::new(&lab, &(server.to_owned() + &pools));
    let mut orchestrator = config.command().env("WEBHOOK_SECRET", SECRET).start();
    let mut hook = None;
    for _ in SOURCES {
        let ready = orchestrator.wait_for_event("source_ready");
        let message = ready["message"].as_str().expect("a message").to_owned();
        hook = hook.or_else(|| (ready["source"] == "webhook").then_some(message));
    }
    let hook = hook.expect("a webhook");
    lab.make_hook(hook.split(' ').next_back().expect("the server's address"), SECRET).await;
    assert_eq!(lab.registrations().await, Vec::<String>::new(), "no job, no runner");
    let other = lab.dispatch(&jobs("[self-hosted, another]", 1, "echo done")).await;
    let mut runs = Vec::new();
    for (name, _) in SOURCES {
        runs.push(
            lab.dispatch(&jobs(&format!("[self-hosted, {}]", name.to_uppercase()), 2, "docker version"))
                .await,
        );
    }
    for run in runs {
        assert_eq!(lab.conclusion_of(run).await, "success", "{:?}", lab.logs_of(run).await);
    }
    scaled_down(&lab).await;
    lab.cancel(other).await;
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    for (name, source) in SOURCES {
        let facts = |event: &str| {
            let facts = ended.events_of(event).into_iter();
            facts.filter(|fact| fact["pool"] == name).collect::<Vec<_>>()
        };
        assert_eq!(facts("loop_started").len(), 2, "{source}: one runner for each of its two jobs");
        assert!(facts("vmm_started").iter().any(|fact| fact["from"] == "fork"), "{source}");
        // The lists of a repository's jobs have those that wait or run, and no ended ones.
        let concluded = facts("job_concluded");
        let told = if source == "poll" { 0 } else { 2 };
        assert_eq!(concluded.len(), told, "{source}: the forge's word about each job: {concluded:?}");
        assert!(concluded.iter().all(|fact| fact["conclusion"] == "success"), "{source}: {concluded:?}");
    }
    assert!(ended.events_of("source_trouble").is_empty(), "{:?}", ended.events_of("source_trouble"));
    assert!(!ended.stdout.contains(SECRET) && !ended.stderr.contains(SECRET));
    lab.stop();
}
