//! Changes to a job message that only github-act-runner needs.
//!
//! github-act-runner 0.13.0 gives each step its own terminal (its `--terminal`, on by default). As observed with it, a step
//! that reads its standard input waits forever, and so do a pager and a program that asks for a password; processes that a
//! step leaves running in the background are hung up when the terminal closes. On GitHub, a step has no terminal, its
//! standard input is at its end, and background processes live until the job is over. (With `--terminal=false` it is worse:
//! a step lasts as long as any process holds its output open, even past its timeout.) Neither can be configured from outside,
//! so the shell's command line takes care of both.

use dayfly_guest::environment::{GUEST, STEP};
use serde_json::{Value as Json, json};

/// Changes the steps' shells so that github-act-runner treats their terminal, input and background processes as GitHub
/// does. The official runner must not get these changes because it splits command lines by other rules. The server's part of
/// the `job` context is removed, because github-act-runner 0.13.0 would have it in place of its own, without `job.status`.
pub fn adapt_to_github_act_runner(message: &mut Json) {
    if let Some(contexts) = message.get_mut("contextData").and_then(Json::as_object_mut) {
        contexts.remove("job");
    }
    for step in message.get_mut("steps").and_then(Json::as_array_mut).into_iter().flatten() {
        if let Some(inputs) = step["inputs"]["map"].as_array_mut() {
            adapt_shell(inputs);
        }
    }
}

fn adapt_shell(inputs: &mut Vec<Json>) {
    match inputs.iter_mut().find(|input| input["key"] == "shell") {
        None => inputs.push(json!({ "key": "shell", "value": wrapped("bash -e {0}") })),
        Some(shell) => {
            let Some(command) = shell["value"].as_str().and_then(command) else { return };
            shell["value"] = Json::from(wrapped(command));
        }
    }
}

/// Returns the command line that GitHub runs for a shell on Linux (documentation, "Workflow syntax",
/// `jobs.<job_id>.steps[*].shell`); a custom one is a command line itself. Returns `None` for PowerShell and `cmd`, whose
/// scripts github-act-runner completes only if it knows the shell by its name.
fn command(shell: &str) -> Option<&str> {
    match shell {
        "bash" => Some("bash --noprofile --norc -e -o pipefail {0}"),
        "sh" => Some("sh -e {0}"),
        // Debian has Python only as `python3`.
        "python" => Some("sh -c 'exec \"$(command -v python || command -v python3)\" \"$0\"' {0}"),
        custom => custom.contains("{0}").then_some(custom),
    }
}

/// Returns the command line that runs a step's command line, `command`, as GitHub does. The runner app splits it by the rules
/// of a POSIX shell and replaces `{0}` with the script's path, so that the words of `command` stay what they were.
///
/// A machine has dayfly's own program for this. Elsewhere the step keeps its terminal as output, but not as its controlling
/// terminal, and programs are told to use no pager. The runner app kills only the first process of a step that times out, so
/// the command gets a death signal. It stops reading the terminal as soon as a step fails, so a failure is reported late.
fn wrapped(command: &str) -> String {
    format!(
        "sh -c 'g={GUEST}; if test -x $g; then exec $g {STEP} \"$@\"; fi; trap \"\" HUP; export PAGER=cat GIT_PAGER=cat; \
         setsid -w setpriv --pdeathsig KILL \"$@\" </dev/null; code=$?; test $code = 0 || sleep 0.3; exit $code' {STEP} {command}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(inputs: Json) -> Json {
        let mut message = json!({ "steps": [{ "inputs": { "type": 2, "map": inputs } }] });
        adapt_to_github_act_runner(&mut message);
        message["steps"][0]["inputs"]["map"].take()
    }

    /// Splits a command line as the runner app does, and returns the words behind those of the wrapper.
    fn wrapped_words(line: &str) -> Vec<String> {
        let words = format!("for word in {line}; do printf \"%s\\n\" \"$word\"; done");
        let output = std::process::Command::new("sh").args(["-c", &words]).output().expect("sh");
        let text = String::from_utf8(output.stdout).expect("text");
        let words: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(words[..2], ["sh", "-c"], "{line}");
        assert!(
            words[2].starts_with("g=/_dayfly/dayfly-guest; if test -x $g; then exec $g step \"$@\"; fi; ")
        );
        assert_eq!(words[3], "step");
        words[4..].to_vec()
    }

    #[test]
    fn shells_run_without_a_terminal_with_their_words_as_they_were() {
        let script = json!({ "key": "script", "value": "x" });
        let all = adapted(json!([script]));
        assert_eq!(all[0], script);
        assert_eq!(wrapped_words(all[1]["value"].as_str().expect("a shell")), ["bash", "-e", "{0}"]);
        for (shell, command) in [
            ("bash", vec!["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "{0}"]),
            ("sh", vec!["sh", "-e", "{0}"]),
            ("perl {0}", vec!["perl", "{0}"]),
            (
                "bash -c 'echo \"it is\"; exec bash \"$0\"' {0} \"a b\" c\\ d",
                vec!["bash", "-c", "echo \"it is\"; exec bash \"$0\"", "{0}", "a b", "c d"],
            ),
        ] {
            let adapted = adapted(json!([{ "key": "shell", "value": shell }]));
            assert_eq!(wrapped_words(adapted[0]["value"].as_str().expect("a shell")), command, "{shell}");
        }
    }

    #[test]
    fn a_shell_on_a_host_without_dayflys_program_ends_its_step_with_its_status() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("script");
        let run = |shell: &str, text: &str| {
            std::fs::write(&script, text).expect("written");
            let line =
                wrapped(command(shell).expect("a shell")).replace("{0}", &script.display().to_string());
            // The path of the machines' program must not exist here.
            let line = line.replace(GUEST, "/nowhere/dayfly-guest");
            let output = std::process::Command::new("sh").args(["-c", &line]).output().expect("sh");
            (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
        };
        assert_eq!(run("bash", "cat; echo $PAGER; false; echo not"), ("cat\n".to_owned(), Some(1)));
        assert_eq!(
            run("python", "import sys; print(sys.stdin.read() + 'x'); sys.exit(3)"),
            ("x\n".to_owned(), Some(3))
        );
        assert_eq!(run("perl -w {0}", "print scalar(<STDIN>) // 'ended'"), ("ended".to_owned(), Some(0)));
    }

    #[test]
    fn the_job_context_is_the_runners_own() {
        let mut message = json!({ "contextData": { "job": { "t": 2, "d": [] }, "vars": null } });
        adapt_to_github_act_runner(&mut message);
        assert_eq!(message, json!({ "contextData": { "vars": null } }));
    }

    #[test]
    fn shells_that_the_app_must_know_and_expressions_stay_as_they_are() {
        for value in [json!("pwsh"), json!("cmd"), json!({ "type": 3, "expr": "matrix.shell" })] {
            let inputs = json!([{ "key": "shell", "value": value }]);
            assert_eq!(adapted(inputs.clone()), inputs);
        }
    }

    #[test]
    fn a_message_without_steps_is_left_alone() {
        let mut message = Json::Null;
        adapt_to_github_act_runner(&mut message);
        assert_eq!(message, Json::Null);
    }
}
