//! The environment directory: the folder through which a loop on the host and the entrypoint in the machine
//! communicate (`/_environment` in the machine). Only four files of a runner have a meaning, see [`Suffix`].

/// Path of the environment directory in the machine.
pub const DIRECTORY: &str = "/_environment";

/// Path of this program in a machine. It is the same with every driver, because images have links to it. The krun drivers
/// mount the folder; in other machines the path is a link to the binary that the host gave.
pub const GUEST: &str = "/_dayfly/dayfly-guest";

/// First argument with which [`GUEST`] runs the program of a step without a terminal: `step PROGRAM ARGS`.
pub const STEP: &str = "step";

/// File of an image with the environment of its programs (`ENV`), in the format of [`crate::envfile`]. The host writes
/// it when it converts the image.
pub const IMAGE_ENV: &str = "/etc/dayfly/image.env";

/// Folder of a foreign image with the tools that it lacked (Docker's engine, git, ...). The host adds it to the image.
pub const TOOLS: &str = "/opt/dayfly";

/// Possible paths of a Docker daemon: in Docker's package, in Debian's, and among the host's tools.
pub const DAEMONS: [&str; 3] = ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/opt/dayfly/bin/dockerd"];

/// The programs that Docker's engine calls: the name in messages, the program, and the consequence if an image lacks it. The
/// host's tools have all of them, under the same names.
pub const ENGINE_PROGRAMS: [(&str, &str, &str); 5] = [
    ("iptables", "iptables", "dockerd does not start"),
    ("containerd", "containerd", "dockerd does not start"),
    ("containerd's shim", "containerd-shim-runc-v2", "no container starts"),
    ("runc", "runc", "no container starts"),
    ("modprobe", "modprobe", "the kernel cannot load a module when dockerd first needs it"),
];

/// Possible paths of the file in which a distribution stores the certificate authorities that it trusts.
pub const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Most bytes of a `.tkn`, `.brk` or `.trm` file that are read.
pub const NOTE_LENGTH_MAX: usize = 4096;

/// The meaning of a file in the environment directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suffix {
    /// `.env`, written by the loop: settings and secret for the entrypoint, which removes it at once.
    Env,
    /// `.tkn`, written by the entrypoint: the runner has its registration and is about to start. Holds the registration
    /// token if the runner registered itself with one, else the runner's name.
    Tkn,
    /// `.brk`, written by the entrypoint on a termination signal: holds the secret, and makes the loop stop.
    Brk,
    /// `.trm`, written by the loop: holds the secret, and makes the entrypoint stop the runner app.
    Trm,
}

impl Suffix {
    /// All four suffixes.
    pub const ALL: [Self; 4] = [Self::Env, Self::Tkn, Self::Brk, Self::Trm];

    /// Returns the suffix with its dot.
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

/// Returns the name of a file in the environment directory.
///
/// ```
/// use dayfly_guest::environment::{Suffix, file_name};
/// assert_eq!(file_name("2-k3V9x0q", Suffix::Tkn), "2-k3V9x0q.tkn");
/// ```
#[must_use]
pub fn file_name(runner_id: &str, suffix: Suffix) -> String {
    format!("{runner_id}{}", suffix.as_str())
}

/// Returns the runner id and the meaning of a file name; `None` for every other name, above all for a name that could
/// lead out of the folder.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(&str, Suffix)> {
    Suffix::ALL.into_iter().find_map(|suffix| {
        let runner_id = name.strip_suffix(suffix.as_str())?;
        is_runner_id(runner_id).then_some((runner_id, suffix))
    })
}

/// Returns true if a text can be a runner's id: 1 to 64 letters, digits, `-` and `_`, starting with a letter or digit.
#[must_use]
pub fn is_runner_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Returns true if a note (`.trm`, `.brk`) holds the loop's secret. The time of the comparison does not depend on the
/// position of a difference. Line ends after the note are ignored. An empty secret never matches.
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
