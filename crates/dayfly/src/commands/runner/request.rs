//! Reads a pool from a loop's options, and checks them before anything is created and before any request to the forge.

use std::fs;
use std::io::Read as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::pool::{MachineSpec, PoolSpec, Registration};
use dayfly_forge::{ApiBase, RunnerScope};
use dayfly_guest::variables;
use dayfly_vm::{Entrypoint, Mount};
use secrecy::{ExposeSecret as _, SecretString};

use crate::cli::{LoopOptions, RegistrationWord};
use crate::exit::{Failure, Result};
use crate::settings::Places;

/// Longest secret of the handshake; the file that carries it back holds 4 KiB.
const SECRET_LENGTH_MAX: usize = 1024;

/// Longest file with the forge's token, bytes. GitHub's tokens have less than 300.
const PAT_FILE_MAX: u64 = 4096;

/// The checked options of a loop: a pool, and the secrets and warnings that are not part of its description.
#[derive(Debug)]
pub(crate) struct PoolRequest {
    pub(crate) spec: PoolSpec,
    /// The token of the forge.
    pub(crate) pat: SecretString,
    /// The secret of the handshake; none: a random one for each runner.
    pub(crate) secret: Option<SecretString>,
    /// Warnings about allowed but unwise options.
    pub(crate) warnings: Vec<String>,
}

impl PoolRequest {
    /// Checks options.
    ///
    /// # Errors
    /// The first problem that was found.
    pub(crate) fn read(options: &LoopOptions, places: &Places) -> Result<Self> {
        let args = &options.args;
        let forge = ApiBase::from_host_or_url(&args.forge.forge).map_err(Failure::usage)?;
        let mut warnings = Vec::new();
        let registration = registration(args.forge.registration, args.forge.ephemeral, &mut warnings)?;
        let scope = scope(&args.forge.scope, args.forge.principal.as_deref())?;
        let (dir, guest_dir) = (args.guest.dir.as_deref(), args.guest.guest_dir.as_deref());
        let mut mounts = mounts(&args.guest.mounts)?;
        let entrypoint = entrypoint(args.guest.entrypoint.clone(), dir);
        mounts.extend(dir.map(|dir| guest_programs(dir, guest_dir, places)).transpose()?);
        let named = args.runtime.as_deref().filter(|word| !["", "auto"].contains(word));
        let driver = named.map(str::parse).transpose().map_err(Failure::usage)?;
        let guest_settings = std::env::vars().filter(|(name, value)| variables::is_for_guest(name, value));
        let spec = PoolSpec {
            group: args.forge.group.clone(),
            labels: labels(&args.forge.labels)?,
            registration,
            prefix: args.looping.prefix.clone(),
            repeat: u32::try_from(args.looping.repeat).ok().and_then(NonZeroU32::new),
            lifetime: args.looping.terminate.filter(|&seconds| seconds > 0).map(Duration::from_secs),
            dns: args.guest.dns,
            mounts,
            entrypoint,
            user: args.guest.user.clone(),
            update: args.guest.update,
            verbose: options.verbosity(),
            guest_settings: guest_settings.collect(),
            ..PoolSpec::new(forge, scope, MachineSpec { driver, ..args.machine.spec() })
        };
        let pat = pat(options, &mut warnings)?;
        let secret = args.looping.secret.as_deref().map(secret).transpose()?;
        Ok(Self { spec, pat, secret, warnings })
    }
}

impl LoopOptions {
    /// Returns the verbosity: that of `-v` if it was given, else the number.
    pub(crate) fn verbosity(&self) -> u8 {
        if self.verbose > 0 { self.verbose } else { self.args.looping.verbosity }
    }
}

pub(crate) fn scope(word: &str, principal: Option<&str>) -> Result<RunnerScope> {
    let Some(principal) = principal.filter(|principal| !principal.is_empty()) else {
        return Err(Failure::usage(format!("the scope {word} needs a principal"))
            .hint("give -p OWNER/REPO for a repository, else -p NAME with -s org or -s enterprise"));
    };
    RunnerScope::parse(word, principal).map_err(Failure::usage)
}

fn registration(
    word: Option<RegistrationWord>,
    ephemeral: bool,
    warnings: &mut Vec<String>,
) -> Result<Registration> {
    if !ephemeral {
        warnings.push(
            "RUNNER_EPHEMERAL=0: one job after another runs in the same machine, and finds the files of earlier jobs"
                .to_owned(),
        );
    }
    match (word, ephemeral) {
        (Some(RegistrationWord::Jit), false) => Err(Failure::usage(
            "a JIT config is for one job: --registration jit and RUNNER_EPHEMERAL=0 exclude each other",
        )),
        (Some(RegistrationWord::Jit) | None, true) => Ok(Registration::Jit),
        (Some(RegistrationWord::Token) | None, ephemeral) => Ok(Registration::Token { ephemeral }),
    }
}

/// Returns the forge's token. An argument wins over a file, and both win over the variable.
fn pat(options: &LoopOptions, warnings: &mut Vec<String>) -> Result<SecretString> {
    let forge = &options.args.forge;
    let is_argument = options.is_argument("pat");
    if is_argument {
        warnings.push(
            "-T: every user of this host can read the token among the arguments; give it by RUNNER_PAT or --pat-file"
                .to_owned(),
        );
    }
    read_pat(forge.pat.as_ref(), is_argument, forge.pat_file.as_deref(), "RUNNER_PAT")
}

/// Returns the forge's token: from the argument, else from the file, else from the variable.
pub(crate) fn read_pat(
    given: Option<&SecretString>,
    is_argument: bool,
    file: Option<&Path>,
    variable: &str,
) -> Result<SecretString> {
    let text = match (given, file) {
        (Some(given), None) => given.clone(),
        (Some(given), Some(_)) if is_argument => given.clone(),
        (_, Some(file)) => read_pat_file(file)?,
        (None, None) => {
            return Err(Failure::usage("no token for the forge's API was given")
                .hint(format!("set {variable}, or give --pat-file FILE")));
        }
    };
    let token = text.expose_secret().trim();
    if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Failure::usage("the token for the forge's API must be one word"));
    }
    Ok(token.into())
}

/// Reads the token from a file that only its owner, and no other user of this host, can read. Pipes have no mode that counts.
fn read_pat_file(file: &Path) -> Result<SecretString> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let failed = |error| Failure::usage(format!("cannot read the token from {}: {error}", file.display()));
    let mut opened = fs::File::open(file).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        let whose = format!(
            "cannot use the token in {}: its mode {mode:04o} lets other users read it",
            file.display()
        );
        return Err(Failure::usage(whose).hint(format!("chmod 600 {}", file.display())));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.is_file() && metadata.uid() != own && metadata.uid() != 0 {
        let owner = metadata.uid();
        let whose = format!("cannot use the token in {}: it belongs to the user {owner}", file.display());
        return Err(Failure::usage(whose).hint(format!("chown {own} {}", file.display())));
    }
    let mut text = String::new();
    opened.by_ref().take(PAT_FILE_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text.into())
}

fn labels(given: &[String]) -> Result<Option<Vec<String>>> {
    let labels: Vec<String> =
        given.iter().map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect();
    if let Some(label) = labels.iter().find(|label| label.len() > 256 || label.chars().any(char::is_control))
    {
        return Err(Failure::usage(format!(
            "\"{label}\" is no label: 256 bytes at most, without control characters"
        )));
    }
    if labels.len() > 97 {
        return Err(Failure::usage("a runner has at most 100 labels, and three of them are fixed"));
    }
    Ok(Some(labels).filter(|labels| !labels.is_empty()))
}

fn secret(text: &str) -> Result<SecretString> {
    if text.len() > SECRET_LENGTH_MAX || text.chars().any(|c| c.is_control()) {
        return Err(Failure::usage(format!(
            "the secret must be one line of {SECRET_LENGTH_MAX} bytes at most"
        )));
    }
    Ok(text.into())
}

fn mounts(texts: &[String]) -> Result<Vec<Mount>> {
    let given = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    given
        .map(|text| {
            let mount: Mount = text.parse().map_err(Failure::usage)?;
            if mount.host.exists() {
                return Ok(mount);
            }
            Err(Failure::usage(format!("the mount {text}: {} is not there", mount.host.display())))
        })
        .collect()
}

/// Returns the entrypoint as the machine sees it: the requested one, or the guest binary in the folder of `-D`.
fn entrypoint(given: Option<PathBuf>, dir: Option<&Path>) -> Entrypoint {
    let program = given.or_else(|| dir.map(|dir| dir.join("dayfly-guest")));
    Entrypoint { program, args: Vec::new() }
}

/// Returns the mount for `-D`: this host's folder of guest programs, at that path.
fn guest_programs(dir: &Path, guest_dir: Option<&Path>, places: &Places) -> Result<Mount> {
    if !dir.is_absolute() {
        return Err(Failure::usage(format!(
            "-D {}: the directory in the machine must be absolute",
            dir.display()
        )));
    }
    let host = match guest_dir {
        Some(folder) => std::path::absolute(folder).map_err(Failure::usage)?,
        None => places.guest_binary_path()?.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    if !host.is_dir() {
        return Err(Failure::usage(format!("the folder of guest programs {} is not there", host.display())));
    }
    Ok(Mount { host, guest: dir.to_owned(), options: vec!["ro".to_owned()] })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_runner_for_many_jobs_registers_itself() {
        let registration = |word, ephemeral| {
            let mut warnings = Vec::new();
            registration(word, ephemeral, &mut warnings).map(|registration| (registration, warnings.len()))
        };
        let (jit, token) = (Some(RegistrationWord::Jit), Some(RegistrationWord::Token));
        assert_eq!(registration(None, true).expect("good"), (Registration::Jit, 0));
        assert_eq!(registration(token, true).expect("good"), (Registration::Token { ephemeral: true }, 0));
        assert_eq!(registration(None, false).expect("good"), (Registration::Token { ephemeral: false }, 1));
        assert_eq!(registration(jit, false).expect_err("refused").code(), 2);
    }

    #[test]
    fn an_argument_wins_over_a_file_and_a_file_over_the_variable() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("pat");
        fs::write(&file, "from-file\n").expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
        let read = |given: Option<&str>, is_argument, file| {
            let given = given.map(SecretString::from);
            read_pat(given.as_ref(), is_argument, file, "RUNNER_PAT")
                .map(|token| token.expose_secret().to_owned())
        };
        assert_eq!(read(Some("a"), true, Some(&file)).expect("good"), "a");
        assert_eq!(read(Some("v"), false, Some(&file)).expect("good"), "from-file");
        assert_eq!(read(Some("v"), false, None).expect("good"), "v");
        assert_eq!(read(None, false, None).expect_err("none").code(), 2);
        assert_eq!(read(Some("two words"), true, None).expect_err("refused").code(), 2);
    }

    #[test]
    fn a_token_in_a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("pat");
        fs::write(&file, "from-file\n").expect("write");
        for (mode, is_good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o622, false)]
        {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("mode");
            let read = read_pat(None, false, Some(&file), "RUNNER_PAT");
            assert_eq!(read.is_ok(), is_good, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains(&format!("its mode {mode:04o}")), "{error}");
            }
        }
        assert!(read_pat(None, false, Some(Path::new("/dev/null")), "RUNNER_PAT").is_err(), "it is empty");
    }

    #[test]
    fn a_scope_needs_a_principal() {
        assert_eq!(scope("repo", None).expect_err("refused").code(), 2);
        assert_eq!(scope("ORGANISATION", Some("acme")).expect("good").to_string(), "acme");
        assert_eq!(scope("repo", Some("acme")).expect_err("refused").code(), 2);
        assert_eq!(scope("team", Some("acme")).expect_err("refused").code(), 2);
    }

    #[test]
    fn a_mount_whose_host_side_is_missing_is_told() {
        let error = mounts(&["/nonexistent/x:/y".to_owned()]).expect_err("refused");
        assert_eq!(error.to_string(), "the mount /nonexistent/x:/y: /nonexistent/x is not there");
        assert_eq!(mounts(&["/:/y:ro".to_owned(), "  ".to_owned()]).expect("good").len(), 1);
    }

    #[test]
    fn the_entrypoint_is_the_one_asked_for_or_the_one_in_the_mounted_folder() {
        let program = |given: Option<&str>, dir: Option<&str>| {
            entrypoint(given.map(PathBuf::from), dir.map(Path::new)).program
        };
        assert_eq!(program(None, None), None);
        assert_eq!(program(None, Some("/local")), Some("/local/dayfly-guest".into()));
        assert_eq!(program(Some("/x"), Some("/local")), Some("/x".into()));
    }
}
