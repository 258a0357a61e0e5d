//! A process that publishes: runners come and go, jobs wait, machines fail, and the forge counts its calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use dayfly_fleet::cause::Cause;
use dayfly_fleet::fact::{Fact, FactRecord, MemoryOwner, Moment, OverHow, RunnerRef, SeenJob, StartKind};
use dayfly_fleet::orchestrator::{Budget, Wait};
use dayfly_fleet::scratch::ScratchSummary;
use dayfly_fleet::status::Status;
use dayfly_forge::{ApiBase, Forge, RunnerScope};
use dayfly_guest::runner_app::JobResult;
use dayfly_traces::TraceCounts;
use dayfly_web::{
    Access, ForgeAccount, ListenAddress, PoolEntry, Publisher, Site, WebServer, channel, router,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The token of the server.
pub(crate) const TOKEN: &str = "0123456789abcdef";
/// A job's name that tries to leave its label, and to change a terminal and the direction of a text.
pub(crate) const HOSTILE: &str = "a\"} 1\nfake{x=\"\\\u{1b}[2J\u{202e}<script>";

pub(crate) struct Process {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Process {
    /// Starts a process whose facts have been told once at least.
    pub(crate) async fn start() -> Self {
        let mut tasks = JoinSet::new();
        let forge = forge(&mut tasks).await;
        let scope = RunnerScope::Repository { owner: "acme".to_owned(), name: "app".to_owned() };
        forge.registration_token(&scope).await.unwrap();
        let pool = PoolEntry {
            name: "linux".to_owned(),
            scale_set: None,
            scope,
            min_idle: 1,
            max: 8,
            vcpus: 2,
            memory_mib: 1024,
        };
        let site = Site {
            pools: vec![pool],
            budget: Budget {
                machines: Some(8),
                vcpus: Some(16),
                memory_mib: Some(16384),
                scratch_mib: Some(100),
            },
            forges: vec![ForgeAccount {
                name: "main/acme".to_owned(),
                credential: forge.credential().clone(),
            }],
        };
        let (mut publisher, _, published) =
            channel(site, std::path::Path::new("/nonexistent"), Some(TraceCounts::default()));
        let any: ListenAddress = "127.0.0.1:0".parse().unwrap();
        let server = WebServer::bind(&any).unwrap();
        let Some(ListenAddress::Tcp(address)) = server.address() else { panic!("no port") };
        let access = Access::new(&any, Some(TOKEN.into())).unwrap();
        tasks.spawn(server.serve(router(published, access), std::future::pending()));
        let mut status = Status::begin();
        a_round(&mut publisher, &mut status, 0);
        tasks.spawn(async move {
            for round in 1.. {
                sleep(Duration::from_millis(200)).await;
                a_round(&mut publisher, &mut status, round);
            }
        });
        Self { address, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Returns a client of a forge that counts its calls as GitHub does.
async fn forge(tasks: &mut JoinSet<()>) -> Forge {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let answer = || async {
        let limits = [
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "4000"),
            ("x-ratelimit-used", "1000"),
            ("x-ratelimit-reset", "4102444800"),
            ("x-ratelimit-resource", "core"),
        ];
        let body = r#"{"token": "A", "expires_at": "2100-01-01T00:00:00Z"}"#;
        (StatusCode::CREATED, limits.map(|(name, value)| (name, value.to_owned())), body)
    };
    let app = Router::new().fallback(post(answer));
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    Forge::new(ApiBase::from_host_or_url(&base).unwrap(), "ghp_x").unwrap()
}

/// Tells the facts of a round: a runner with a job that ends, one whose job goes on, and one of each trouble.
fn a_round(publisher: &mut Publisher, status: &mut Status, round: u32) {
    let now_ms = Moment::now().ms();
    let job = |id: u64| {
        Box::new(SeenJob {
            id,
            name: Some(if round.is_multiple_of(2) { HOSTILE.to_owned() } else { "build".to_owned() }),
            repository: Some("acme/app".to_owned()),
            seen_ms: Some(now_ms - 3000),
            ..SeenJob::default()
        })
    };
    let mut tell = |runner: Option<&str>, ago_ms: u64, fact: Fact| {
        let runner = runner.map(|id| RunnerRef { id: id.parse().unwrap(), name: format!("p-{id}") });
        let loop_index = if runner.is_some() { 1 } else { 0 };
        let at = Moment::of_ms(now_ms - ago_ms);
        let record = FactRecord { at, pool: Some("linux".to_owned()), loop_index, runner, fact };
        publisher.take(&record);
        status.take(&record);
    };
    let (done, lost) = (format!("1-a{round:06}"), format!("1-b{round:06}"));
    for (ago_ms, fact) in [
        (
            2000,
            Fact::VmmStarted {
                pid: 4,
                from: [StartKind::Boot, StartKind::Fork][round as usize % 2],
                template: None,
            },
        ),
        (1900, Fact::AgentHello),
        (1800, Fact::RunnerUp),
        (1700, Fact::JobTaken { job: job(7) }),
        (1600, Fact::JobStarted { job: "build".to_owned() }),
        (100, Fact::JobFinished { result: JobResult::Succeeded }),
        (50, Fact::Over { how: OverHow::JobDone, why: None, kind: None }),
        (40, Fact::Ended),
    ] {
        tell(Some(&done), ago_ms, fact);
    }
    tell(Some(&lost), 30, Fact::Over { how: OverHow::NotUp, why: None, kind: Some(Cause::Image) });
    let scratch = Some(ScratchSummary { used_mib: 50, limit_mib: Some(100), is_whole: true });
    for fact in [
        Fact::JobsWaiting { count: 2 },
        Fact::PoolWaits { why: Some(Wait::Full { max: 8 }) },
        Fact::JobSeen { job: job(8) },
        Fact::ForgeLost { source: "poll".to_owned(), cause: Cause::Unreachable, message: "x".to_owned() },
        Fact::TemplateBuilt { template: "t".to_owned(), took_ms: 31_000, bytes: 1 },
        Fact::VmmOutOfMemory { whose: MemoryOwner::Machine, limit_mib: None },
        Fact::DiskFailed { reason: "x".to_owned() },
        Fact::ScratchInUse { scratch },
    ] {
        tell(None, 0, fact);
    }
    publisher.publish(&Arc::new(status.clone()));
}
