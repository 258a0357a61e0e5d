//! Queries QEMU for the features of an emulated processor model.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// First major version of QEMU that was seen to emulate SMAP correctly (10.0.2); 7.2 was seen to emulate it incorrectly.
const SMAP_IS_SOUND_FROM: u64 = 10;

/// Returns the known drawback of an emulated model for the programs of jobs, in words for people; none if none is known.
///
/// # Errors
/// QEMU cannot be started, or does not read its commands.
pub(super) fn consequence(qemu: &Path, model: &str) -> io::Result<Option<String>> {
    let answers = ask(qemu, model)?;
    let major = answers.iter().find_map(|answer| answer.pointer("/QMP/version/qemu/major")?.as_u64());
    let smap = answers.iter().find_map(|answer| answer.pointer("/return/model/props/smap")?.as_bool());
    let is_lost = smap == Some(true) && major.is_some_and(|major| major < SMAP_IS_SOUND_FROM);
    Ok(is_lost.then(|| {
        format!(
            "the processor model {model} has SMAP, which this QEMU emulates so that programs of .NET (actions/runner too) \
             stand still at their first exception; {model},-smap has not"
        )
    }))
}

/// Starts a QEMU without a machine, queries the model, and makes QEMU quit. Returns all of QEMU's answers.
fn ask(qemu: &Path, model: &str) -> io::Result<Vec<Value>> {
    let arguments = json!({ "type": "full", "model": parse(model) });
    let commands = [
        json!({ "execute": "qmp_capabilities" }),
        json!({ "execute": "query-cpu-model-expansion", "arguments": arguments }),
        json!({ "execute": "quit" }),
    ];
    let mut child = Command::new(qemu)
        .args(["-machine", "none", "-accel", "tcg", "-display", "none", "-nodefaults", "-qmp", "stdio"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        for command in commands {
            writeln!(stdin, "{command}")?;
        }
    }
    // QEMU exits after its answer, or at the end of its input.
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Converts a model from the syntax of the command line (`max,-smap,avx=off`) to that of the monitor.
fn parse(model: &str) -> Value {
    let mut parts = model.split(',');
    let name = parts.next().unwrap_or_default();
    let props = parts.map(|part| match (part.split_once('='), part.strip_prefix('-')) {
        (Some((key, value)), _) => (key.to_owned(), Value::from(value == "on")),
        (None, Some(key)) => (key.to_owned(), Value::from(false)),
        (None, None) => (part.trim_start_matches('+').to_owned(), Value::from(true)),
    });
    json!({ "name": name, "props": props.collect::<serde_json::Map<_, _>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_the_command_line_is_one_of_the_monitor() {
        assert_eq!(parse("Nehalem-v1"), json!({ "name": "Nehalem-v1", "props": {} }));
        let expected =
            json!({ "name": "max", "props": { "smap": false, "avx": true, "pku": false, "x": true } });
        assert_eq!(parse("max,-smap,+avx,pku=off,x=on"), expected);
    }

    /// Queries the host's QEMU, of whatever version.
    #[test]
    fn a_model_without_smap_loses_nothing_and_one_that_is_not_there_is_not_judged() {
        let qemu = Path::new("/usr/bin/qemu-system-x86_64");
        for model in [super::super::platform::EMULATED_MODEL, "max,-smap", "no-such-model"] {
            assert_eq!(consequence(qemu, model).expect("it answers"), None, "{model}");
        }
        if let Some(lost) = consequence(qemu, "max").expect("it answers") {
            assert!(lost.contains("max,-smap has not"), "{lost}");
        }
    }
}
