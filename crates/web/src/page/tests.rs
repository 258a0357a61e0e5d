use std::path::Path;
use std::time::{Duration, Instant};

use dayfly_fleet::RunnerId;
use dayfly_fleet::fact::{Fact, FactRecord, Moment, OverHow, RunnerRef, SeenJob, StartKind};
use dayfly_fleet::history::History;
use dayfly_fleet::run_log::RunLogs;
use dayfly_fleet::status::Status;
use dayfly_guest::protocol::Source;
use dayfly_guest::runner_app::JobResult;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::STREAMS_MAX;
use crate::publish::{Publisher, Site, channel};
use crate::{Access, ListenAddress, WebServer};

const HOSTILE: &str = "<script>alert(1)</script>\u{202e}\u{1b}[2J\r\n\"'&";
/// Longest time that a test waits for anything.
const SOON: Duration = Duration::from_secs(20);

/// A server of the page, with a state folder of its own.
struct Running {
    state: TempDir,
    address: std::net::SocketAddr,
    publisher: Publisher,
    status: Status,
    _tasks: JoinSet<()>,
}

impl Running {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(token: Option<&str>) -> Self {
        let state = tempfile::tempdir().expect("folder");
        let (publisher, _, published) = channel(Site::default(), state.path(), None);
        let any: ListenAddress = "127.0.0.1:0".parse().expect("an address");
        let server = WebServer::bind(&any).expect("bound");
        let Some(ListenAddress::Tcp(address)) = server.address() else { panic!("no port") };
        let router = crate::router(published, Access::new(&any, token.map(Into::into)).expect("local"));
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(router, std::future::pending()));
        Self { state, address, publisher, status: Status::begin(), _tasks: tasks }
    }

    /// Returns the answer, with its head.
    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")).await
    }

    /// Returns the answer to a request with this head, with its own head.
    async fn ask(&self, head: &str) -> String {
        let mut stream = self.send(head).await;
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
        answer
    }

    async fn open(&self, path: &str) -> TcpStream {
        self.open_with(path, "").await
    }

    /// Sends a request with these lines in its head, each with its end.
    async fn open_with(&self, path: &str, lines: &str) -> TcpStream {
        self.send(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{lines}\r\n")).await
    }

    async fn send(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream
    }

    fn tell(&mut self, runner: &str, fact: Fact) {
        let record = record(runner, Moment::now().ms(), fact);
        self.publisher.take(&record);
        self.status.take(&record);
        self.publisher.publish(&self.status);
    }
}

fn record(runner: &str, at_ms: u64, fact: Fact) -> FactRecord {
    let id: RunnerId = runner.parse().expect("an id");
    let runner = Some(RunnerRef { name: id.name("p"), id });
    FactRecord { at: Moment::of_ms(at_ms), pool: Some("linux".to_owned()), loop_index: 1, runner, fact }
}

/// Returns the facts of a run whose job ran for two minutes.
fn life(runner: &str, from_ms: u64, job: &str) -> Vec<FactRecord> {
    let name = || Some(job.to_owned());
    let seen =
        SeenJob { id: 6, name: name(), repository: name(), seen_ms: Some(from_ms), ..SeenJob::default() };
    [
        (100, Fact::Registered { registration: 7 }),
        (150, Fact::VmmStarted { pid: 4, from: StartKind::Fork, template: None }),
        (400, Fact::AgentHello),
        (500, Fact::RunnerUp),
        (800, Fact::JobTaken { job: Box::new(seen) }),
        (900, Fact::JobStarted { job: job.to_owned() }),
        (1000, Fact::Line { number: 1, source: Source::Entrypoint, text: format!("hello {HOSTILE}") }),
        (120_900, Fact::JobFinished { result: JobResult::Failed }),
        (121_000, Fact::VmGone { exit: "x".to_owned() }),
        (121_100, Fact::Over { how: OverHow::JobDone, why: None, kind: None }),
    ]
    .map(|(after_ms, fact)| record(runner, from_ms + after_ms, fact))
    .to_vec()
}

fn keep(state: &Path, runs: usize, job: &str) {
    let (history, now) = (History::of(state), Moment::now().ms());
    for at in 0..runs {
        let runner = format!("1-{at:07}");
        history.keep(&life(&runner, now - 200_000 - at as u64, job)).expect("kept");
    }
}

fn is_whole(answer: &str) -> bool {
    answer.ends_with("</html>") && answer.contains("content-security-policy: default-src 'none'")
}

#[tokio::test]
async fn every_page_is_whole_without_any_run_and_with_some_whose_names_are_hostile() {
    let mut running = Running::start();
    for runs in [0, 3] {
        keep(running.state.path(), runs, HOSTILE);
        for path in
            ["/", "/runs", "/history", "/history?days=90", "/images", "/runs?minutes=1&conclusion=failure"]
        {
            let answer = running.get(path).await;
            assert!(answer.starts_with("HTTP/1.0 200") && is_whole(&answer), "{path}: {answer}");
            assert!(!answer.contains("<script>alert") && !answer.contains('\u{202e}'), "{path}: {answer}");
            let body = answer.split("\r\n\r\n").nth(1).expect("a body");
            assert!(!body.contains(['\u{1b}', '\r']), "{path}");
        }
    }
    let list = running.get("/runs?conclusion=failure").await;
    assert_eq!(list.matches("href=\"/runs/1-").count(), 3, "{list}");
    assert!(list.contains("&lt;script&gt;alert(1)&lt;/script&gt;‹U+202E›␛[2J␍␊"), "{list}");
    running.tell("1-abcdefg", Fact::JobStarted { job: HOSTILE.to_owned() });
    let overview = running.get("/").await;
    assert!(overview.contains("&lt;script&gt;") && !overview.contains("<script>alert"), "{overview}");
}

#[tokio::test]
async fn a_run_has_a_timeline_and_a_log_with_a_search_from_its_log_or_from_the_history() {
    let running = Running::start();
    let now = Moment::now().ms();
    let mut logs = RunLogs::open(running.state.path()).expect("logs");
    for record in life("1-abcdefg", now, "build") {
        logs.take(&record).expect("written");
    }
    keep(running.state.path(), 1, "test");
    let logged = running.get("/runs/1-abcdefg").await;
    assert!(logged.contains("2 min 0 s") && logged.contains("hello &lt;script&gt;"), "{logged}");
    let found = running.get("/runs/1-abcdefg?q=HELLO%20%3C").await;
    assert!(found.contains("1 line contains"), "{found}");
    let none = running.get("/runs/1-abcdefg?q=%3Cscript%3Ex").await;
    assert!(none.contains("0 lines contain") && is_whole(&none), "{none}");
    let kept = running.get("/runs/1-0000000").await;
    assert!(kept.contains("machine starts") && kept.contains("job finished"), "{kept}");
}

#[tokio::test]
async fn a_run_that_goes_on_shows_its_steps_although_the_history_has_only_its_job() {
    let running = Running::start();
    let mut logs = RunLogs::open(running.state.path()).expect("logs");
    for record in life("1-abcdefg", Moment::now().ms() - 10_000, "build").iter().take(7) {
        logs.take(record).expect("written");
    }
    let page = running.get("/runs/1-abcdefg").await;
    assert!(page.contains("machine starts") && page.contains("data-live="), "{page}");
    let list = running.get("/runs").await;
    assert!(list.contains("href=\"/runs/1-abcdefg\"") && list.contains("data-word=\"running\""), "{list}");
    assert!(!list.contains("<time"), "it has no end yet: {list}");
    let history = running.get("/history").await;
    assert!(history.contains("0 runs have ended"), "{history}");
}

#[tokio::test]
async fn what_is_not_there_and_what_is_wrong_have_one_clear_message() {
    let running = Running::start();
    for (path, status, message) in [
        ("/runs/1-abcdefg", 404, "No run 1-abcdefg is known here."),
        ("/runs/..%2f..%2fetc%2fpasswd", 404, "is no id of a run."),
        ("/nothing", 404, "There is no such page."),
        ("/runs?conclusion=nice", 400, "is no conclusion"),
        ("/history?days=2", 400, "The days must be 1, 7, 30 or 90."),
    ] {
        let answer = running.get(path).await;
        assert!(answer.starts_with(&format!("HTTP/1.0 {status}")), "{path}: {answer}");
        assert!(answer.contains(message) && is_whole(&answer), "{path}: {answer}");
    }
}

/// The addresses of the server; the two last ones stay open.
const PATHS: [&str; 9] = [
    "/",
    "/runs",
    "/history",
    "/images",
    "/metrics",
    "/style.css",
    "/nothing",
    "/live",
    "/runs/1-abcdefg/live?from=0",
];

#[tokio::test]
async fn no_address_answers_a_page_elsewhere_whose_name_leads_to_this_host() {
    let running = Running::start();
    for path in PATHS {
        for host in ["Host: evil.example:9441\r\n", "Host: localhost.evil.example\r\n", ""] {
            let answer = running.ask(&format!("GET {path} HTTP/1.0\r\n{host}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.0 421"), "{path} {host}: {answer}");
        }
    }
}

#[tokio::test]
async fn no_address_takes_a_request_that_could_change_something() {
    let running = Running::start();
    for path in PATHS {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let head = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
            let answer = running.ask(&head).await;
            assert!(answer.starts_with("HTTP/1.0 405"), "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn no_address_answers_without_the_token_of_the_server() {
    const TOKEN: &str = "0123456789abcdef";
    let running = Running::start_with(Some(TOKEN));
    for path in PATHS {
        for line in ["", "Authorization: Bearer 0123456789abcdeF\r\n", "Cookie: token=0123456789abcdef\r\n"] {
            let answer = running.ask(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{line}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.0 401"), "{path} {line}: {answer}");
            assert!(answer.contains("www-authenticate: Basic") && !answer.contains(TOKEN), "{answer}");
        }
    }
    let line = format!("Authorization: Bearer {TOKEN}\r\n");
    read_until(&mut running.open_with("/live", &line).await, "No runner is here.").await;
}

#[tokio::test]
async fn pages_above_the_limit_are_not_kept_up_to_date_until_another_is_closed() {
    let running = Running::start();
    let mut pages = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut page = running.open("/live").await;
        read_until(&mut page, "data: ").await;
        pages.push(page);
    }
    for path in ["/live", "/runs/1-abcdefg/live?from=0"] {
        let refused = running.get(path).await;
        assert!(refused.starts_with("HTTP/1.0 503"), "{path}: {refused}");
        assert!(refused.contains("Too many pages are open.") && is_whole(&refused), "{path}: {refused}");
    }
    assert!(running.get("/").await.starts_with("HTTP/1.0 200"), "other requests are answered");
    drop(pages.pop());
    let one_more = async {
        loop {
            let mut page = running.open("/live").await;
            let mut head = [0; 12];
            page.read_exact(&mut head).await.expect("a head");
            if head == *b"HTTP/1.0 200" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, one_more).await.expect("a place for one more");
}

/// Reads until the text contains a part.
async fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let (mut text, mut bytes) = (String::new(), [0; 65536]);
    let reading = async {
        while !text.contains(part) {
            let count = stream.read(&mut bytes).await.expect("read");
            assert!(count > 0, "closed before {part}: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    timeout(SOON, reading).await.expect("in time");
    text
}

#[tokio::test]
async fn a_fact_reaches_every_open_page_soon_and_pages_that_do_not_read_hold_none_up() {
    let mut running = Running::start();
    let mut deaf = Vec::new();
    for _ in 0..50 {
        deaf.push(running.open("/live").await);
    }
    let mut page = running.open("/live").await;
    read_until(&mut page, "No runner is here.").await;
    let began = Instant::now();
    running.tell("1-abcdefg", Fact::JobStarted { job: "build".to_owned() });
    read_until(&mut page, "1-abcdefg").await;
    // 200 ms are the aim; a busy machine may take longer.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_log_that_grows_is_sent_line_by_line_and_no_line_twice_to_a_browser_that_comes_again() {
    let running = Running::start();
    let mut logs = RunLogs::open(running.state.path()).expect("logs");
    let mut write = |fact| logs.take(&record("1-abcdefg", 7, fact)).expect("written");
    let line = |text: &str| Fact::Line { number: 1, source: Source::Entrypoint, text: text.to_owned() };
    write(line("first"));
    let mut page = running.open("/runs/1-abcdefg/live?from=0").await;
    let first = read_until(&mut page, "first").await;
    write(line("second"));
    assert!(!read_until(&mut page, "second").await.contains("first"));
    let id = first.split("id: ").nth(1).and_then(|rest| rest.lines().next()).expect("an id of the event");
    let again = format!("Last-Event-ID: {id}\r\n");
    let mut again = running.open_with("/runs/1-abcdefg/live?from=0", &again).await;
    assert!(!read_until(&mut again, "second").await.contains("first"));
    write(Fact::Ended);
    let rest = read_until(&mut page, "ended").await;
    assert!(rest.contains("event: over") || read_until(&mut page, "over").await.contains("over"), "{rest}");
    let mut end = String::new();
    timeout(SOON, page.read_to_string(&mut end)).await.expect("closed").expect("text");
}
