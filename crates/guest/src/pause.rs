//! `dayfly-guest pause` and `dayfly-guest resume`: a step that holds its job, and with it the machine, for a person.
//!
//! ```text
//!   step of a job     pause    makes a file, says how to get in, and waits until the file or the time is gone
//!   person's shell    resume   removes the file
//! ```
//!
//! The file is all that the two share, so that any program can end a pause. A pause lets no person in: the way in is
//! `dayfly shell`, which the owner of the host has with or without it.

use crate::console;
use crate::entrypoint::user;
use crate::options::Takes::{Nothing, Value};
use crate::options::{Grammar, Options, Switch, Words, option};
use dayfly_guest::environment::{GUEST, is_runner_id};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The first arguments that pause and resume.
pub(crate) const PAUSE: &str = "pause";
pub(crate) const RESUME: &str = "resume";

/// Time of a pause that names none.
const FOR_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Longest time of a pause: that of a job at GitHub that sets no limit of its own.
const FOR_MAX: Duration = Duration::from_secs(6 * 3600);
/// Interval at which the file is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Interval of the lines that repeat how to get in. A log that is opened late may show the last lines only.
const REMIND: Duration = Duration::from_secs(60);
/// Folder of the files. All users of a machine have it.
const FOLDER: &str = "/tmp";
/// Begins the name of each file; the runner's id and the process follow.
const PREFIX: &str = "dayfly-pause-";
/// Most entries of the folder that are looked at.
const ENTRIES_MAX: usize = 10_000;

static SWITCHES: [Switch; 2] = [
    option('f', "for", Value("TIME"), "", "longest time, such as 90s, 30m or 2h; 6h at most [15m]"),
    option('h', "help", Nothing, "", "this text"),
];

static GRAMMAR: Grammar = Grammar { program: "pause", switches: &SWITCHES, words: Words::AtMost(0) };

/// Holds the job that has this step. Returns success, whatever ends the pause.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let options = match Options::parse(&GRAMMAR, args) {
        Ok(options) => options,
        Err(error) => return refuse(&error.to_string()),
    };
    if options.get("help").is_some() {
        console::print(&help());
        return ExitCode::SUCCESS;
    }
    let limit = match options.get("for").map_or(Ok(FOR_DEFAULT), parse_time) {
        Ok(limit) => limit,
        Err(why) => return refuse(&why),
    };
    let runner = runner();
    let file = Path::new(FOLDER).join(file_name(&runner, std::process::id()));
    let pause = Pause { runner, user: user::own().ok().map(|user| user.name), file, limit };
    match pause.hold(LOOK) {
        Ok(end) => {
            console::print(&format!("dayfly: {end}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            console::say(&format!("no pause: cannot make {}: {error}", pause.file.display()));
            ExitCode::FAILURE
        }
    }
}

/// Ends the pauses of this machine.
pub(crate) fn resume(args: &[String]) -> ExitCode {
    if !args.is_empty() {
        return refuse("resume takes no arguments");
    }
    let id = std::env::var("RUNNER_ID").ok().filter(|id| is_runner_id(id));
    let paused = match find(Path::new(FOLDER), id.as_deref()) {
        Ok(paused) => paused,
        Err(error) => {
            console::say(&format!("cannot look for paused jobs in {FOLDER}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if paused.is_empty() {
        console::say("no job of this machine is paused");
        return ExitCode::FAILURE;
    }
    let mut code = ExitCode::SUCCESS;
    for file in paused {
        match std::fs::remove_file(&file) {
            Ok(()) => console::print(&format!("resumed: {} is removed\n", file.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let whose = "the user that has paused and root may remove it";
                console::say(&format!("cannot remove {} ({whose}): {error}", file.display()));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// A pause of one step.
struct Pause {
    /// Id of the runner, or the name of its machine.
    runner: String,
    /// The user that the step runs as; none if it has no entry in `/etc/passwd`.
    user: Option<String>,
    file: PathBuf,
    limit: Duration,
}

/// The reason why a pause is over.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Resumed,
    Over(Duration),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Resumed => f.write_str("the job goes on, because it was resumed"),
            Self::Over(limit) => write!(f, "the job goes on, because its pause of {} is over", span(*limit)),
        }
    }
}

impl Pause {
    /// Waits for the end, and removes the file.
    fn hold(&self, look: Duration) -> io::Result<End> {
        // A new file, so that no link that another program has made is followed.
        File::options().write(true).create_new(true).mode(0o644).open(&self.file)?;
        let program = if Path::new(GUEST).exists() { GUEST } else { "dayfly-guest" };
        console::print(&self.announcement(program));
        let (began, mut reminded) = (Instant::now(), Instant::now());
        let end = loop {
            let left = self.limit.saturating_sub(began.elapsed());
            if self.file.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                break End::Resumed;
            }
            if left.is_zero() {
                break End::Over(self.limit);
            }
            if reminded.elapsed() >= REMIND {
                reminded = Instant::now();
                console::print(&format!("dayfly: paused, {} left: {}\n", span(left), self.way_in()));
            }
            std::thread::sleep(look.min(left));
        };
        // It is gone already if that has ended the pause.
        let _ = std::fs::remove_file(&self.file);
        Ok(end)
    }

    /// Returns the command of a person at the host.
    fn way_in(&self) -> String {
        match self.user.as_deref() {
            None | Some("root") => format!("dayfly shell {}", self.runner),
            Some(user) => format!("dayfly shell {} --user {user}", self.runner),
        }
    }

    fn announcement(&self, program: &str) -> String {
        format!(
            "dayfly: this job is paused for {} at most, and its machine stays up\n\
             dayfly: to get in, at the host of this runner:  {}\n\
             dayfly: to go on, in that shell:  {program} {RESUME}  (or rm {})\n",
            span(self.limit),
            self.way_in(),
            self.file.display()
        )
    }
}

/// Returns the id of this machine's runner; the name of the machine, if the step was not told the id.
fn runner() -> String {
    let of_machine = || {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if is_runner_id(&name) { name } else { "runner".to_owned() }
    };
    std::env::var("RUNNER_ID").ok().filter(|id| is_runner_id(id)).unwrap_or_else(of_machine)
}

fn file_name(runner: &str, process: u32) -> String {
    format!("{PREFIX}{runner}-{process}")
}

/// Returns the files of pauses in a folder, of one runner if its id is known. In a shell it is not known, but a machine has one
/// runner.
fn find(folder: &Path, id: Option<&str>) -> io::Result<Vec<PathBuf>> {
    let prefix = id.map_or_else(|| PREFIX.to_owned(), |id| format!("{PREFIX}{id}-"));
    let mut paused = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(ENTRIES_MAX) {
        let entry = entry?;
        let is_meant = entry.file_name().to_string_lossy().starts_with(&prefix);
        if is_meant && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            paused.push(entry.path());
        }
    }
    paused.sort();
    Ok(paused)
}

/// Parses a time with its unit.
fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("--for {text:?}: not a time from 1s to 6h, such as 90s, 30m or 2h");
    let at = text.len() - text.chars().next_back().map_or(0, char::len_utf8);
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| digits).and_then(|number| number.checked_mul(factor));
    let time = seconds.map(Duration::from_secs).filter(|time| !time.is_zero() && *time <= FOR_MAX);
    time.ok_or_else(wrong)
}

/// Returns a time for people, rounded up to minutes if it is longer than one.
fn span(time: Duration) -> String {
    let minutes = time.as_secs().div_ceil(60);
    match (minutes / 60, minutes % 60) {
        _ if time < Duration::from_secs(60) => format!("{} s", time.as_secs()),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

fn help() -> String {
    let text = crate::options::help(&SWITCHES, |_| String::new());
    format!(
        "usage: dayfly-guest pause [--for TIME] | resume\n\
         Holds a job, and with it the machine, until `dayfly-guest resume` or the end of the time.\n\n{text}"
    )
}

fn refuse(why: &str) -> ExitCode {
    console::say(why);
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(folder: &Path, limit: Duration) -> Pause {
        let file = folder.join(file_name("2-k3V9x0q", 812));
        Pause { runner: "2-k3V9x0q".to_owned(), user: Some("runner".to_owned()), file, limit }
    }

    #[test]
    fn a_paused_job_says_how_to_get_in_and_how_to_go_on() {
        let mut pause = pause(Path::new(FOLDER), FOR_DEFAULT);
        insta::assert_snapshot!(pause.announcement(GUEST), @r"
        dayfly: this job is paused for 15 min at most, and its machine stays up
        dayfly: to get in, at the host of this runner:  dayfly shell 2-k3V9x0q --user runner
        dayfly: to go on, in that shell:  /_dayfly/dayfly-guest resume  (or rm /tmp/dayfly-pause-2-k3V9x0q-812)
        ");
        pause.user = None;
        assert_eq!(pause.way_in(), "dayfly shell 2-k3V9x0q");
    }

    #[test]
    fn a_pause_ends_by_itself_or_without_its_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let short = pause(folder.path(), Duration::from_millis(50));
        assert_eq!(short.hold(Duration::from_millis(5)).expect("held"), End::Over(short.limit));
        let long = pause(folder.path(), Duration::from_secs(60));
        std::thread::scope(|scope| {
            let held = scope.spawn(|| long.hold(Duration::from_millis(5)));
            while std::fs::remove_file(&long.file).is_err() {
                assert!(!held.is_finished(), "it does not wait");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(held.join().expect("no panic").expect("held"), End::Resumed);
        });
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let pause = pause(folder.path(), Duration::from_millis(50));
        std::os::unix::fs::symlink("/nowhere/file", &pause.file).expect("a link");
        let error = pause.hold(Duration::from_millis(5)).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn the_pauses_of_a_runner_are_found_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["dayfly-pause-2-a-1", "dayfly-pause-2-a-20", "dayfly-pause-2-ab-3", "dayfly-other"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        std::fs::create_dir(folder.path().join("dayfly-pause-2-a-folder")).expect("a folder");
        let found = |id| -> Vec<String> {
            let all = find(folder.path(), id).expect("readable");
            all.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
        };
        assert_eq!(found(Some("2-a")), ["dayfly-pause-2-a-1", "dayfly-pause-2-a-20"]);
        assert_eq!(found(None).len(), 3);
    }

    #[test]
    fn a_time_has_a_unit_and_a_limit() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs());
        assert_eq!((seconds("90s"), seconds("30m"), seconds("6h")), (Ok(90), Ok(1800), Ok(21_600)));
        for wrong in ["", "s", "15", "0s", "361m", "-1m", "+5m", "1.5h", "1d", "99999999999999999999h", "1é"]
        {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
        insta::assert_snapshot!(parse_time("7h").expect_err("too long"), @r#"--for "7h": not a time from 1s to 6h, such as 90s, 30m or 2h"#);
    }

    #[test]
    fn a_time_is_shown_in_minutes() {
        let shown = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(
            [5, 60, 61, 3600, 5400, 21_600].map(shown),
            ["5 s", "1 min", "2 min", "1 h", "1 h 30 min", "6 h"]
        );
    }
}
