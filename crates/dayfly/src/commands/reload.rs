//! `dayfly reload`: tells the orchestrators of this host to read their files again, and shows what has changed.

use std::fmt;
use std::path::{Path, PathBuf};

use dayfly_fleet::instance::{self, InstanceInfo};
use dayfly_fleet::status::Status;
use serde::Serialize;

use crate::cli::ReloadArgs;
use crate::control::{self, Answer, FileProblem, PoolChanges, Request};
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;

/// The answer of an orchestrator without a file, in words.
const NO_FILE: &str =
    "it was started without a file, so there is nothing to read again; its options count until it ends";

/// The answer of one orchestrator.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) instance: String,
    pid: Option<u32>,
    #[serde(flatten)]
    pub(super) answer: Answer,
}

pub(crate) async fn run(places: &Places, args: &ReloadArgs) -> Result<Outcome> {
    let config = absolute(args.config.as_deref())?;
    let mut rows = Vec::new();
    let request = Request::Reload { config: config.clone() };
    for one in orchestrators(places)? {
        rows.extend(ask(&one, &request).await);
    }
    if args.json {
        printer::json(&rows);
    } else {
        rows.iter().for_each(show);
    }
    conclude(&rows, config.as_deref())
}

/// Returns the path of a configuration file as an orchestrator knows it.
pub(super) fn absolute(config: Option<&Path>) -> Result<Option<PathBuf>> {
    config.map(std::path::absolute).transpose().map_err(Failure::usage)
}

/// Returns the orchestrators of this host.
pub(super) fn orchestrators(places: &Places) -> Result<Vec<InstanceInfo>> {
    let instances = instance::all(&places.state).map_err(Failure::cannot)?;
    // The lock says that the process lives, and only an orchestrator has the socket.
    Ok(instances.into_iter().filter(|one| one.alive && control::is_there(&one.folder)).collect())
}

/// Returns the error of a command for orchestrators if none is meant, for this reason.
pub(super) fn no_orchestrator(why: String) -> Failure {
    Failure::cannot(why).hint("dayfly ps lists the loops that run here; --state names their state folder")
}

/// Returns the text that no orchestrator runs from a file.
pub(super) fn none_runs_from(config: &Path) -> String {
    format!("no orchestrator of this host runs from {}", config.display())
}

/// Returns the name of an instance.
pub(super) fn name_of(one: &InstanceInfo) -> String {
    one.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Sends a request to an orchestrator, and returns its answer; none if it runs from another file.
pub(super) async fn ask(one: &InstanceInfo, request: &Request) -> Option<Row> {
    let answer = match control::ask(&one.folder, request).await {
        Ok(Answer::OtherFile { .. }) => return None,
        Ok(answer) => answer,
        Err(error) => Answer::Failed { why: format!("no answer on its control socket: {error}") },
    };
    let pid = Status::read(&one.folder).ok().flatten().map(|status| status.pid);
    Some(Row { instance: name_of(one), pid, answer })
}

fn show(row: &Row) {
    match &row.answer {
        Answer::Reloaded { file, pools, problems } => {
            problems.iter().for_each(show_problem);
            printer::line(format_args!("{}: {}: {pools}", row.instance, file.display()));
        }
        Answer::Refused { file, why, hint, problems } => {
            problems.iter().for_each(show_problem);
            let file = file.as_deref().unwrap_or(Path::new("the file")).display();
            let text = format!("{}: {file} is refused, and nothing has changed: {why}", row.instance);
            printer::error(text, hint.as_deref());
        }
        Answer::NoFile => printer::note(format_args!("{}: {NO_FILE}", row.instance)),
        Answer::Failed { why } => printer::error(format_args!("{}: {why}", row.instance), None),
        Answer::OtherFile { .. } | Answer::Steered { .. } => {}
    }
}

fn show_problem(problem: &FileProblem) {
    if problem.is_error {
        printer::error(&problem.text, problem.hint.as_deref());
    } else {
        printer::warning(&problem.text);
        problem.hint.iter().for_each(printer::hint);
    }
}

/// Returns the end of the command: a refused file is wrong usage, and without any orchestrator nothing could be done.
fn conclude(rows: &[Row], config: Option<&Path>) -> Result<Outcome> {
    let is = |test: fn(&Answer) -> bool| rows.iter().any(|row| test(&row.answer));
    if rows.iter().all(|row| row.answer == Answer::NoFile) {
        let from_none = || "no orchestrator of this host runs from a file".to_owned();
        return Err(no_orchestrator(config.map_or_else(from_none, none_runs_from)));
    }
    if is(|answer| matches!(answer, Answer::Refused { .. })) {
        return Err(Failure::usage("a file was refused; its pools run on as before"));
    }
    if is(|answer| matches!(answer, Answer::Failed { .. })) {
        return Err(Failure::cannot("an orchestrator did not reload its file"));
    }
    Ok(Outcome::Success)
}

impl fmt::Display for PoolChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("added", &self.added),
            ("replaced", &self.replaced),
            ("adjusted", &self.adjusted),
            ("removed", &self.removed),
            ("unchanged", &self.unchanged),
            ("still paused", &self.still_paused),
            ("still drained", &self.still_drained),
            ("waiting for their forge", &self.still_waiting),
        ];
        let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
        let text: Vec<String> = parts.map(|(word, names)| format!("{word} {}", names.join(", "))).collect();
        f.write_str(&text.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(answer: Answer) -> Row {
        Row { instance: "a".to_owned(), pid: Some(1), answer }
    }

    #[test]
    fn the_status_says_whether_a_file_was_refused_or_no_orchestrator_runs() {
        let pools = PoolChanges {
            added: vec!["a".into(), "b".into()],
            removed: vec!["c".into()],
            ..Default::default()
        };
        assert_eq!(pools.to_string(), "added a, b; removed c");
        let good = || row(Answer::Reloaded { file: "/x".into(), pools: pools.clone(), problems: Vec::new() });
        let why = || "no".to_owned();
        let refused =
            || row(Answer::Refused { file: Some("/x".into()), why: why(), hint: None, problems: Vec::new() });
        let failed = || row(Answer::Failed { why: why() });
        assert_eq!(conclude(&[good()], None).expect("good"), Outcome::Success);
        assert_eq!(conclude(&[good(), refused(), failed()], None).expect_err("refused").code(), 2);
        assert_eq!(conclude(&[good(), failed()], None).expect_err("failed").code(), 3);
        let without_file = || row(Answer::NoFile);
        assert_eq!(conclude(&[good(), without_file()], None).expect("good"), Outcome::Success);
        let only = conclude(&[without_file()], None).expect_err("nothing to read");
        assert_eq!(
            (only.code(), only.to_string().as_str()),
            (3, "no orchestrator of this host runs from a file")
        );
        let none = conclude(&[], Some(Path::new("/y"))).expect_err("none");
        assert_eq!(
            (none.code(), none.to_string().as_str()),
            (3, "no orchestrator of this host runs from /y")
        );
        let json = serde_json::to_value(good()).expect("json");
        assert_eq!((&json["outcome"], &json["added"][1]), (&"reloaded".into(), &"b".into()));
    }
}
