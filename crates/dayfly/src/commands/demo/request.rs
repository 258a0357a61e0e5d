//! Reads the demo's request, and checks it before anything is created.

use std::path::Path;

use dayfly_lab::workflow::{self, Workflow};
use indexmap::IndexMap;

use crate::cli::DemoArgs;
use crate::exit::{Failure, Result};

/// Largest workflow file, bytes: the lab's own bound.
const WORKFLOW_BYTES_MAX: u64 = 1024 * 1024;

/// A workflow and its inputs, variables and secrets.
#[derive(Debug)]
pub(super) struct Request {
    /// Name of the file without its folder; it becomes `.github/workflows/<name>` at the lab.
    pub(super) file: String,
    /// The file's text.
    pub(super) text: String,
    /// The parsed text.
    pub(super) workflow: Workflow,
    /// Inputs of the run.
    pub(super) inputs: IndexMap<String, String>,
    /// Variables of the repository.
    pub(super) vars: IndexMap<String, String>,
    /// Secrets of the repository.
    pub(super) secrets: IndexMap<String, String>,
}

impl Request {
    /// Reads the file and the secrets' values. Refuses everything that the lab would refuse.
    pub(super) fn read(args: &DemoArgs) -> Result<Self> {
        let text = read_text(&args.workflow)?;
        let shown = args.workflow.display().to_string();
        let workflow = workflow::parse(&shown, &text).map_err(Failure::usage)?;
        let inputs: IndexMap<String, String> = args.inputs.iter().cloned().collect();
        workflow
            .default_trigger()
            .resolve_inputs(&inputs)
            .map_err(|error| Failure::usage(error).hint("inputs are given by --input KEY=VALUE"))?;
        let secrets =
            args.secrets.iter().map(|name| Ok((name.clone(), secret(name)?))).collect::<Result<_>>()?;
        let file = file_name(&args.workflow);
        Ok(Self { file, text, workflow, inputs, vars: args.vars.iter().cloned().collect(), secrets })
    }
}

fn read_text(path: &Path) -> Result<String> {
    let cannot = |error: std::io::Error| {
        Failure::usage(format!("cannot read the workflow {}: {error}", path.display()))
    };
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!("{} is a folder, not a workflow file", path.display())));
    }
    // A pipe could block the reader for ever, and a device has no end.
    if !metadata.is_file() {
        return Err(Failure::usage(format!(
            "{} is no regular file; write the workflow to one",
            path.display()
        )));
    }
    if metadata.len() > WORKFLOW_BYTES_MAX {
        return Err(Failure::usage(format!("{} is larger than 1 MiB", path.display())));
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{} is not UTF-8 text", path.display())))
}

/// Returns a file name that the lab accepts: it requires `.yml` or `.yaml`, and allows only letters, digits, `-` and `_`.
fn file_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let stem: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' })
        .take(60)
        .collect();
    format!("{}.yml", if stem.is_empty() { "workflow" } else { &stem })
}

fn secret(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| {
        Failure::usage(format!("--secret {name}: the environment variable {name} is not set, or not UTF-8"))
            .hint(format!("set it for this command: {name}=... dayfly demo ..."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_refused_instead_of_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let pipe = folder.path().join("ci.yml");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        for odd in [pipe.as_path(), Path::new("/dev/zero")] {
            let refusal = read_text(odd).expect_err("refused").to_string();
            assert!(refusal.contains("no regular file"), "{refusal}");
        }
    }

    #[test]
    fn odd_file_names_become_ones_that_the_lab_takes() {
        assert_eq!(file_name(Path::new("/x/ci.yaml")), "ci.yml");
        assert_eq!(file_name(Path::new("my file.yml")), "my-file.yml");
        assert_eq!(file_name(Path::new("/")), "workflow.yml");
    }
}
