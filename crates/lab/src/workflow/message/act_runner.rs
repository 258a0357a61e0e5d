//! Changes to a job message that only github-act-runner needs.
//!
//! github-act-runner 0.13.0 gives each step its own terminal (its `--terminal`, on by default). As observed with it, a step
//! that reads its standard input waits forever, and processes that a step leaves running in the background are hung up
//! when the terminal closes. On GitHub, standard input is at its end, and background processes live until the job is over.
//! (Without the terminal it is worse: a step lasts as long as any process holds its output open, even past its timeout.)
//! Neither can be configured from outside, so the shell's command line takes care of both.

use dayfly_guest::environment::{GUEST, MORTAL};
use serde_json::{Value as Json, json};

/// Changes the steps' shells so that github-act-runner treats their input and their background processes as GitHub
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
        None => inputs.push(json!({ "key": "shell", "value": wrapped("bash -e") })),
        Some(shell) => {
            let Some(command) = shell["value"].as_str().and_then(command) else { return };
            shell["value"] = Json::from(wrapped(command));
        }
    }
}

/// Returns the command that GitHub runs for a shell's name on Linux (documentation, "Workflow syntax",
/// `jobs.<job_id>.steps[*].shell`). Returns `None` for custom command lines and for expressions.
fn command(shell: &str) -> Option<&'static str> {
    match shell {
        "bash" => Some("bash --noprofile --norc -e -o pipefail"),
        "sh" => Some("sh -e"),
        // Debian has Python only as `python3`.
        "python" => Some("\"$(command -v python || command -v python3)\""),
        _ => None,
    }
}

/// Returns the command line that runs a step's script with `command`. The runner app splits it by the rules of a POSIX shell
/// and replaces `{0}` with the script's path.
///
/// The command line sleeps after a failure because the runner app stops reading the terminal as soon as a step fails, and
/// would lose the last lines, which say why it failed. The script gets a death signal because the runner app kills only the
/// first process of a step that times out. In a machine dayfly's own program sets this signal, because images without
/// util-linux have another `setpriv` or none.
fn wrapped(command: &str) -> String {
    format!(
        "sh -c 'trap \"\" HUP; m={GUEST}; if test -x $m; then m=\"$m {MORTAL} --parent $$\"; else m=\"setpriv --pdeathsig KILL\"; fi; \
         $m {command} \"$0\" </dev/null; code=$?; test $code = 0 || sleep 0.3; exit $code' {{0}}"
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

    #[test]
    fn known_shells_get_an_ended_input_and_outlive_their_terminal() {
        let script = json!({ "key": "script", "value": "x" });
        let wrapped = |command: &str| {
            format!(
                "sh -c 'trap \"\" HUP; m=/_dayfly/dayfly-guest; if test -x $m; then m=\"$m mortal --parent $$\"; else m=\"setpriv --pdeathsig KILL\"; fi; \
                 $m {command} \"$0\" </dev/null; code=$?; test $code = 0 || sleep 0.3; exit $code' {{0}}"
            )
        };
        let unnamed = json!({ "key": "shell", "value": wrapped("bash -e") });
        assert_eq!(adapted(json!([script])), json!([script, unnamed]));
        for (shell, command) in [("bash", "bash --noprofile --norc -e -o pipefail"), ("sh", "sh -e")] {
            let expected = json!([{ "key": "shell", "value": wrapped(command) }]);
            assert_eq!(adapted(json!([{ "key": "shell", "value": shell }])), expected);
        }
    }

    #[test]
    fn the_job_context_is_the_runners_own() {
        let mut message = json!({ "contextData": { "job": { "t": 2, "d": [] }, "vars": null } });
        adapt_to_github_act_runner(&mut message);
        assert_eq!(message, json!({ "contextData": { "vars": null } }));
    }

    #[test]
    fn other_shells_and_expressions_stay_as_they_are() {
        for value in [json!("perl {0}"), json!({ "type": 3, "expr": "matrix.shell" })] {
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
