//! The lines about a job's machine in the log of the job.
//!
//! The official app's worker prints `.setup_info` of the app's folder, a JSON list of groups, in the step "Set up job"
//! (`JobExtension.InitializeJob` in the sources of 2.336.0; its ADR 0354). It reads the file when a job starts, so an app that
//! waited in a template shows that of its runner. github-act-runner 0.13.0 has nothing of the kind.

use super::app::{self, App, AppError, at};
use super::settings::Settings;
use crate::folder::Folder;
use dayfly_guest::runner_app::RunnerApp;
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// Name of the file.
const NAME: &str = ".setup_info";
/// Title of the group.
const GROUP: &str = "dayfly machine";
/// Largest size of an image's own file, bytes. That of a hosted image has some KiB.
const LENGTH_MAX: usize = 256 * 1024;

/// Writes the file, if the app is one that reads it, and the loop has told the origin of the machine.
pub(super) fn write(app: &App, settings: &Settings) -> Result<(), AppError> {
    let Some(origin) = settings.origin.as_ref().filter(|_| app.kind == Some(RunnerApp::ActionsRunner)) else {
        return Ok(());
    };
    let lines = origin.lines(settings.start.as_deref());
    let folder = &app.launch.folder;
    let text = with_group(&own_groups(folder)?, &lines.join("\n"));
    app::write_file(folder, NAME, text.as_bytes(), app.account.as_ref())
}

/// Returns the text of the image's own file; empty if it has none.
fn own_groups(folder: &Path) -> Result<String, AppError> {
    match Folder::open(folder).and_then(|folder| folder.read(NAME, LENGTH_MAX)) {
        Err(error) if error.is_absent() => Ok(String::new()),
        text => text.map_err(|error| at("cannot read", &folder.join(NAME))(io::Error::other(error))),
    }
}

/// Adds the group to those of the image. A text that is no list of groups is dropped, because the app could not read it either.
fn with_group(own: &str, detail: &str) -> String {
    let mut groups: Vec<Value> = serde_json::from_str(own).unwrap_or_default();
    groups.retain(|group| group["group"] != GROUP);
    groups.push(json!({ "group": GROUP, "detail": detail }));
    Value::Array(groups).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_the_image_stay_and_the_machines_is_there_once() {
        let groups = |own| serde_json::from_str::<Vec<Value>>(&with_group(own, "Host: a")).expect("a list");
        for own in ["", "no JSON", r#"{"group":"x"}"#, "[]"] {
            assert_eq!(groups(own), [json!({ "group": "dayfly machine", "detail": "Host: a" })], "{own}");
        }
        let own = r#"[{"group":"Runner Image","detail":"ubuntu"},{"group":"dayfly machine","detail":"old"}]"#;
        let groups = groups(own);
        let details: Vec<_> = groups.iter().map(|group| group["detail"].as_str().expect("text")).collect();
        assert_eq!(details, ["ubuntu", "Host: a"]);
    }
}
