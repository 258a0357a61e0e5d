//! Runs one step: its script with its environment, its workflow commands, and the files that it leaves.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dayfly_lab::expression::{Object, Value};
use dayfly_lab::workflow::Conclusion;

use crate::client::Upload;
use crate::command::{Command, pairs};
use crate::message::{evaluate, mapping};
use crate::script::{Order, Script, ScriptEnd};
use crate::worker::Worker;

/// The files in which a step leaves commands: the variable and the file's name.
const FILES: [(&str, &str); 5] = [
    ("GITHUB_OUTPUT", "output"),
    ("GITHUB_ENV", "env"),
    ("GITHUB_PATH", "path"),
    ("GITHUB_STATE", "state"),
    ("GITHUB_STEP_SUMMARY", "summary"),
];
/// Members of the `github` context that are no variables.
const NO_VARIABLES: [&str; 2] = ["token", "event"];
/// Longest time of a step without a limit of its own. The forge ends the job before.
const LIMIT: Duration = Duration::from_secs(6 * 3600);

impl Worker<'_> {
    /// Runs a step of the message, and returns its outcome.
    pub(crate) async fn run_step(&mut self, place: usize) -> Conclusion {
        let number = place + 1;
        let reference = &self.message.steps[place].reference;
        if reference.kind != "script" {
            let name = if reference.name.is_empty() { &reference.kind } else { &reference.name };
            let message = format!("light-runner runs no actions, only scripts (`run:`): uses: {name}");
            self.explain(number, &message);
            return Conclusion::Failure;
        }
        let script = match self.prepare(place) {
            Ok(script) => script,
            Err(reason) => {
                self.explain(number, &reason);
                return Conclusion::Failure;
            }
        };
        let end = self.run_script(number, &script).await;
        let outcome = self.judge(number, end, script.limit);
        self.take_files(place, outcome).await
    }

    async fn run_script(&mut self, number: usize, script: &Script) -> ScriptEnd {
        // Both are borrowed while the script runs, and the log as well.
        let mut orders = self.orders.clone();
        let seen = self.order;
        script.run(&mut orders, seen, |line| self.take_line(number, line)).await
    }

    /// Resolves all that the script of a step needs, and writes the step's heading into the log.
    fn prepare(&mut self, place: usize) -> Result<Script, String> {
        let step = &self.message.steps[place];
        let mut env = self.env.clone();
        let own = mapping(&step.environment, &self.scope(None)).map_err(|error| format!("env: {error}"))?;
        env.extend(own.into_iter().map(|(name, value)| (name, value.to_text())));
        let scope = self.scope(Some(&env));
        let inputs = mapping(&step.inputs, &scope).map_err(|error| error.to_string())?;
        let input = |wanted: &str| {
            let found = inputs.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.to_text()).unwrap_or_default()
        };
        let minutes =
            evaluate(&step.timeout_in_minutes, &scope).map_err(|error| error.to_string())?.to_number();
        let limit =
            if minutes > 0.0 { LIMIT.min(Duration::from_secs_f64((minutes * 60.0).min(1e6))) } else { LIMIT };
        let (text, folder) = (input("script"), self.folders.workspace.join(input("workingDirectory")));
        let variables = self.variables(&env);
        let shell = self.shell(&input("shell"), &variables);
        let file = self.write_files(&shell, &text).map_err(|error| format!("the step's files: {error}"))?;
        self.heading(&text, &shell, &env);
        let line = shell.split_ascii_whitespace().map(|word| word.replace("{0}", &file)).collect();
        Ok(Script { line, env: variables, folder, limit })
    }

    fn write_files(&self, shell: &str, text: &str) -> std::io::Result<String> {
        for (_, name) in FILES {
            self.folders.write(name, "")?;
        }
        let extension = if shell.contains("python") { "py" } else { "sh" };
        Ok(self.folders.write(&format!("script.{extension}"), text)?.display().to_string())
    }

    /// Writes the lines that actions/runner 2.336.0 writes before a script's own (recorded).
    fn heading(&mut self, text: &str, shell: &str, env: &BTreeMap<String, String>) {
        self.log.line(&format!("##[group]Run {}", text.trim_start().lines().next().unwrap_or_default()));
        text.lines().for_each(|line| self.log.line(&format!("\u{1b}[36;1m{line}\u{1b}[0m")));
        self.log.line(&format!("shell: {shell}"));
        if !env.is_empty() {
            self.log.line("env:");
            env.iter().for_each(|(name, value)| self.log.line(&format!("  {name}: {value}")));
        }
        self.log.line("##[endgroup]");
    }

    /// Returns the environment of a script: this runner's own, the job's and the step's, and what every job gets.
    fn variables(&self, env: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> = self.around.settings.env.iter().cloned().collect();
        all.extend(env.clone());
        if let Value::Object(github) = self.github() {
            let plain =
                github.iter().filter(|(name, value)| value.is_primitive() && !NO_VARIABLES.contains(name));
            all.extend(
                plain.map(|(name, value)| (format!("GITHUB_{}", name.to_uppercase()), value.to_text())),
            );
        }
        all.extend(
            self.runner().into_iter().map(|(name, value)| (format!("RUNNER_{}", name.to_uppercase()), value)),
        );
        let file = |(variable, name): (&str, &str)| {
            (variable.to_owned(), self.folders.temp.join(name).display().to_string())
        };
        all.extend(FILES.map(file));
        all.extend(
            [("CI", "true"), ("GITHUB_ACTIONS", "true")].map(|(name, value)| (name.into(), value.into())),
        );
        if !self.paths.is_empty() {
            let rest = all.get("PATH").cloned().unwrap_or_default();
            all.insert("PATH".to_owned(), format!("{}:{rest}", self.paths.join(":")));
        }
        all.into_iter().collect()
    }

    /// Takes a line of a script's output: a workflow command or text.
    fn take_line(&mut self, number: usize, line: &str) {
        let Some(command) = Command::parse(line) else { return self.log.line(line) };
        match command.name.as_str() {
            "error" | "warning" | "notice" => {
                self.log.line(&format!("##[{}]{}", command.name, command.text));
                let level = if command.name == "error" { "failure" } else { "warning" };
                // actions/runner 2.336.0 sends no annotations for notices (recorded).
                if command.name != "notice" {
                    let message = self.log.masked(&command.text);
                    let at = self.log.step_lines();
                    self.steps[number].annotate_by(&command, level, &message, at);
                }
            }
            "group" => self.log.line(&format!("##[group]{}", command.text)),
            "endgroup" => self.log.line("##[endgroup]"),
            "add-mask" => {
                self.log.mask(command.text);
                self.log.line("::add-mask::***");
            }
            "debug" => {}
            _ => self.log.line(line),
        }
    }

    /// Decides the outcome of a script, and writes why it is no success.
    fn judge(&mut self, number: usize, end: ScriptEnd, limit: Duration) -> Conclusion {
        match end {
            ScriptEnd::Exited(0) => return Conclusion::Success,
            ScriptEnd::Exited(code) => {
                self.explain(number, &format!("Process completed with exit code {code}."))
            }
            ScriptEnd::NotStarted(error) => {
                self.explain(number, &format!("The shell cannot be started: {error}"))
            }
            ScriptEnd::TimedOut => {
                let (name, minutes) = (self.steps[number].name.clone(), limit.as_secs_f64() / 60.0);
                self.explain(number, &format!("The action '{name}' has timed out after {minutes} minutes."));
            }
            ScriptEnd::Stopped(order) => {
                self.order = order;
                if order == Order::ShutDown {
                    self.log.line(
                        "##[error]The runner has received a shutdown signal. This can happen when the runner service is \
                         stopped, or a manually started runner is canceled.",
                    );
                }
                self.explain(number, "The operation was canceled.");
                return Conclusion::Cancelled;
            }
        }
        Conclusion::Failure
    }

    /// Takes over the commands that the step left in files. A file that cannot be read fails the step.
    async fn take_files(&mut self, place: usize, outcome: Conclusion) -> Conclusion {
        let (number, mut outcome) = (place + 1, outcome);
        for (_, name) in FILES {
            let read = self.folders.read(name).map_err(|error| error.to_string());
            if let Err(error) = read.and_then(|text| self.take_file(place, name, &text)) {
                self.explain(number, &format!("Unable to process file command '{name}' successfully."));
                self.explain(number, &error);
                outcome = Conclusion::Failure;
            }
        }
        let summary = self.folders.read("summary").unwrap_or_default();
        if !summary.is_empty() {
            let (id, summary) = (self.steps[number].id.clone(), self.log.masked(&summary));
            let upload = Upload::StepSummary(&id);
            self.send(|calls| calls.upload(upload, &summary), "the upload of a summary").await;
        }
        outcome
    }

    fn take_file(&mut self, place: usize, name: &str, text: &str) -> Result<(), String> {
        match name {
            "output" => {
                let pairs = pairs(text).map_err(|error| error.to_string())?;
                let outputs: Object = pairs.into_iter().collect();
                let entry = [("outputs".to_owned(), Value::Object(outputs))].into_iter().collect();
                self.results.insert(self.message.steps[place].context_name.clone(), Value::Object(entry));
            }
            "env" => self.env.extend(pairs(text).map_err(|error| error.to_string())?),
            "path" => {
                let added = text.lines().filter(|line| !line.is_empty()).rev().map(str::to_owned);
                self.paths.splice(0..0, added);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the command line that GitHub runs for a shell's name on Linux (documentation, "Workflow syntax",
/// `jobs.<job_id>.steps[*].shell`). Without a name it is bash, or sh if `path` has no bash.
pub(crate) fn shell(named: &str, path: &str) -> String {
    match named {
        "" if path.split(':').any(|folder| Path::new(folder).join("bash").is_file()) => {
            "bash -e {0}".to_owned()
        }
        "" => "sh -e {0}".to_owned(),
        "bash" => "bash --noprofile --norc -e -o pipefail {0}".to_owned(),
        "sh" => "sh -e {0}".to_owned(),
        "python" => "python3 {0}".to_owned(),
        custom => custom.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::shell;

    #[test]
    fn shells_have_the_command_lines_of_github() {
        assert_eq!(shell("", "/nowhere"), "sh -e {0}");
        assert_eq!(shell("bash", ""), "bash --noprofile --norc -e -o pipefail {0}");
        assert_eq!(shell("perl {0}", ""), "perl {0}");
    }
}
