//! Decides which `RUNNER_` variables may leave the host, and reach jobs.
//!
//! All settings of the user may, even unknown ones: jobs see them in their environment. The host's own settings may not,
//! and neither may long-lived secrets, which are recognised by their names or their values.

/// Settings of the host. They have no meaning in a machine, or do not concern it.
const OF_HOST: [&str; 30] = [
    "ALLOW",
    "ALLOW_FORKS",
    "ALLOW_PUBLIC",
    "APP_ID",
    "APP_INSTALLATION",
    "APP_KEY_FILE",
    "CA_FILE",
    "COLD",
    "CPUS",
    "CPU_MODEL",
    "DIR",
    "DNS",
    "ENTRYPOINT",
    "ENVIRONMENT",
    "IMAGE",
    "IMAGE_TOOLS",
    "LOG",
    "MAX_AGE",
    "MEMORY",
    "MOUNT",
    "NETWORK",
    "PAT",
    "PREFIX",
    "PULL",
    "REPEAT",
    "RUNTIME",
    "SHOW_HOST",
    "SPARE",
    "TERMINATE",
    "WARMUP",
];

/// Settings that the loop itself writes for each runner, and never takes from its own environment: secrets, which end with the
/// runner, certificate authorities, hooks, and the origin of the machine.
const OF_RUNNER: [&str; 6] = ["CA", "HOOKS", "JITCONFIG", "ORIGIN", "SECRET", "TOKEN"];

/// Words, also in the plural, that mark a variable as a long-lived secret if its name contains them.
const SECRET_WORDS: [&str; 6] = ["CREDENTIAL", "KEY", "PASSWD", "PASSWORD", "PAT", "PRIVATE"];

/// Prefixes of tokens: GitHub's kinds
/// (<https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/>), and the
/// lab's own.
const TOKEN_PREFIXES: [&str; 7] = ["ghp_", "github_pat_", "gho_", "ghu_", "ghs_", "ghr_", "lab_"];

/// Returns true if a variable of the host may go into a `.env` file, and from there into the environment of jobs.
///
/// Only names `RUNNER_[A-Z0-9_]+` may. The host's settings may not, and secrets may not: variables whose name says so
/// (`PAT`, `KEY`, `PASSWORD` and the like as a word of it), or whose value looks like one (a token of GitHub or the lab, a
/// PEM block). The loop's secret, the registration token and the JIT config may not either, because the loop itself writes
/// them and jobs must not see them.
///
/// ```
/// use dayfly_guest::variables::is_for_guest;
/// assert!(is_for_guest("RUNNER_LABELS", "fast,big"));
/// assert!(is_for_guest("RUNNER_PATH_TO_CACHE", "/cache"));
/// assert!(!is_for_guest("RUNNER_DEPLOY_KEY", "x") && !is_for_guest("RUNNER_NOTE", "ghp_XXXX"));
/// ```
#[must_use]
pub fn is_for_guest(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix("RUNNER_") else { return false };
    let good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !rest.is_empty()
        && rest.bytes().all(good)
        && !OF_HOST.contains(&rest)
        && !OF_RUNNER.contains(&rest)
        && !rest.split('_').any(is_secret_word)
        && !looks_secret(value)
}

fn is_secret_word(word: &str) -> bool {
    SECRET_WORDS.contains(&word) || word.strip_suffix('S').is_some_and(|one| SECRET_WORDS.contains(&one))
}

/// Returns true if the value contains a token at the start of a word, or a PEM block.
#[must_use]
pub fn looks_secret(value: &str) -> bool {
    let is_word_start = |at: usize| !value[..at].ends_with(|before: char| before.is_ascii_alphanumeric());
    value.contains("-----BEGIN ")
        || TOKEN_PREFIXES.iter().any(|prefix| value.match_indices(prefix).any(|(at, _)| is_word_start(at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_names_of_runner_settings_pass(name in ".{0,12}|RUNNER_.{0,6}|[A-Z_]{0,12}", value in ".{0,12}") {
            if is_for_guest(&name, &value) {
                let rest = name.strip_prefix("RUNNER_").expect("the prefix");
                prop_assert!(!rest.is_empty());
                prop_assert!(rest.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | '_')));
            }
        }

        #[test]
        fn a_secret_word_anywhere_in_a_name_keeps_it_here(
            before in "([A-Z0-9]{1,5}_){0,2}",
            word in "PAT|KEYS?|PASSWORD|PRIVATE|CREDENTIALS?",
            after in "(_[A-Z0-9]{1,5}){0,2}",
        ) {
            let name = format!("RUNNER_{}{}{}", before, word, after);
            prop_assert!(!is_for_guest(&name, "1"), "{}", name);
        }

        #[test]
        fn a_token_anywhere_in_a_value_keeps_it_here(
            before in "(.{0,10}[ :@=,])?",
            prefix in "ghp_|github_pat_|gho_|ghu_|ghs_|ghr_|lab_|-----BEGIN ",
            after in ".{0,20}",
        ) {
            let value = format!("{}{}{}", before, prefix, after);
            prop_assert!(!is_for_guest("RUNNER_X", &value));
        }

        #[test]
        fn plain_settings_pass(name in "[A-FX-Z]{1,8}[0-9]", value in "[A-Za-z0-9 ,.:/-]{0,20}") {
            let name = format!("RUNNER_{}", name);
            prop_assert!(is_for_guest(&name, &value), "{}={}", name, value);
        }
    }

    #[test]
    fn what_is_the_hosts_own_stays_there() {
        for name in OF_HOST.iter().chain(&OF_RUNNER) {
            assert!(!is_for_guest(&format!("RUNNER_{name}"), "1"), "{name}");
        }
    }

    #[test]
    fn words_that_only_hold_such_letters_are_no_secrets() {
        for name in ["RUNNER_PATH", "RUNNER_MONKEY", "RUNNER_TOKENFILE", "RUNNER_LOGDIR", "RUNNER_DOCKER"] {
            assert!(is_for_guest(name, "collab_room"), "{name}");
        }
    }
}
