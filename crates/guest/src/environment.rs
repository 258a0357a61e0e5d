//! The environment directory: the folder through which a loop on the host and the entrypoint in the machine
//! speak (`/_environment` in the machine). Only four files of a runner mean anything; see [`Suffix`].

/// Where the machine sees its environment directory.
pub const DIRECTORY: &str = "/_environment";

/// Where a machine, whatever its driver, finds this program: images have links to it. The krun drivers mount the folder,
/// in other machines it is a link to what the host gave.
pub const GUEST: &str = "/_dayfly/dayfly-guest";

/// First argument of [`GUEST`] by which it becomes a program that is killed when whoever started it ends.
pub const MORTAL: &str = "mortal";

/// Where an image has what it says of its programs' environment (`ENV`), in the form of [`crate::envfile`]: written into it
/// by the host that converts it.
pub const IMAGE_ENV: &str = "/etc/dayfly/image.env";

/// Where an image from elsewhere has the tools that it lacked (Docker's engine, git, ...): put into it by the host.
pub const TOOLS: &str = "/opt/dayfly";

/// Where a Docker daemon may be: as Docker packages it, as Debian does, and among the host's tools.
pub const DAEMONS: [&str; 3] = ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/opt/dayfly/bin/dockerd"];

/// Where distributions keep whom they trust.
pub const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Most bytes of a `.tkn`, `.brk` or `.trm` file that are read.
pub const NOTE_LENGTH_MAX: usize = 4096;

/// What a file in the environment directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suffix {
    /// `.env`, written by the loop: settings and secret for the entrypoint, which removes it at once.
    Env,
    /// `.tkn`, written by the entrypoint: the runner has its registration and is about to start. Holds the registration
    /// token where it registered itself by one, else its name.
    Tkn,
    /// `.brk`, written by the entrypoint on a termination signal: holds the secret, and the loop ends.
    Brk,
    /// `.trm`, written by the loop: holds the secret, and the entrypoint stops the runner app.
    Trm,
}

impl Suffix {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Env, Self::Tkn, Self::Brk, Self::Trm];

    /// With its dot.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Env => ".env",
            Self::Tkn => ".tkn",
            Self::Brk => ".brk",
            Self::Trm => ".trm",
        }
    }
}

/// Name of a file in the environment directory.
///
/// ```
/// use dayfly_guest::environment::{Suffix, file_name};
/// assert_eq!(file_name("2-k3V9x0q", Suffix::Tkn), "2-k3V9x0q.tkn");
/// ```
#[must_use]
pub fn file_name(runner_id: &str, suffix: Suffix) -> String {
    format!("{runner_id}{}", suffix.as_str())
}

/// The runner id and the meaning of a file name; `None` for every other name, above all for one that could
/// leave the folder.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(&str, Suffix)> {
    Suffix::ALL.into_iter().find_map(|suffix| {
        let runner_id = name.strip_suffix(suffix.as_str())?;
        is_runner_id(runner_id).then_some((runner_id, suffix))
    })
}

/// Whether a text can be a runner's id: 1 to 64 letters, digits, `-` and `_`, starting with a letter or digit.
#[must_use]
pub fn is_runner_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a note (`.trm`, `.brk`) holds the loop's secret. The time does not tell where the two differ; line
/// ends after the note do not count; an empty secret never matches.
#[must_use]
pub fn is_secret(note: &str, secret: &str) -> bool {
    let note = note.trim_end_matches(['\n', '\r']);
    let difference = note.bytes().zip(secret.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    !secret.is_empty() & (note.len() == secret.len()) & (std::hint::black_box(difference) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_four_names_of_a_runner_are_known() {
        assert_eq!(parse_file_name("2-k3V9x0q.env"), Some(("2-k3V9x0q", Suffix::Env)));
        assert_eq!(parse_file_name("2-k3V9x0q.trm"), Some(("2-k3V9x0q", Suffix::Trm)));
        for bad in
            ["", ".env", "a.txt", "a/b.env", "../x.env", "a b.env", "a.env.", "a\0.env", "-a.env", "a..env"]
        {
            assert_eq!(parse_file_name(bad), None, "{bad:?}");
        }
        assert_eq!(parse_file_name(&format!("{}.env", "a".repeat(65))), None);
    }

    proptest! {
        #[test]
        fn a_name_that_is_accepted_stays_in_its_folder(name in ".{0,20}(\\.env|\\.tkn)?") {
            if let Some((id, suffix)) = parse_file_name(&name) {
                prop_assert!(!name.contains(['/', '\0']) && !name.starts_with('.'));
                prop_assert_eq!(file_name(id, suffix), name);
            }
        }

        #[test]
        fn only_the_secret_itself_is_the_secret(note in "[ab]{0,5}", secret in "[ab]{0,5}") {
            prop_assert_eq!(is_secret(&note, &secret), note == secret && !secret.is_empty());
        }
    }

    #[test]
    fn a_line_end_after_the_secret_does_not_count() {
        assert!(is_secret("s3cret\n", "s3cret") && is_secret("s3cret\r\n", "s3cret"));
        assert!(!is_secret("s3cret ", "s3cret") && !is_secret("\n", "\n\n"));
    }
}
