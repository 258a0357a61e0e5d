//! The rules for the values of a pool, whether an option gives them or the configuration file. Each refusal is a sentence that
//! names the value; the caller adds the option or the key.

use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dayfly_fleet::pool::Registration;
use dayfly_forge::ApiBase;
use dayfly_vm::{AllowEntry, DriverKind, Entrypoint, Mount, NetworkPolicy};
use secrecy::SecretString;

use crate::cli::{NetworkWord, RegistrationWord};
use crate::defaults::QEMU_MEMORY_MIB_MIN;
use crate::exit::Failure;

/// Longest prefix: a name is the prefix and `-<loop, at most three digits>-<7 characters>`, and has at most 64 characters.
const PREFIX_LENGTH_MAX: usize = 52;
/// Most labels beside the three that every runner has; GitHub allows 100 in all.
const LABELS_MAX: usize = 97;
/// Longest label, bytes.
const LABEL_LENGTH_MAX: usize = 256;

/// Checks a minimum of idle runners of a pool that has at most `max`.
///
/// # Errors
/// It is larger.
pub(crate) fn min_idle_fits(min_idle: u32, max: u32) -> Result<(), String> {
    if min_idle > max { Err(format!("min_idle = {min_idle} is more than max = {max}")) } else { Ok(()) }
}

/// Returns the way in which runners are registered.
///
/// # Errors
/// A JIT config cannot be used for many jobs.
pub(crate) fn registration(
    word: Option<RegistrationWord>,
    ephemeral: bool,
) -> Result<Registration, &'static str> {
    match (word, ephemeral) {
        (Some(RegistrationWord::Jit), false) => {
            Err("a JIT config is for one job: registration by jit and more than one job exclude each other")
        }
        (Some(RegistrationWord::Jit) | None, true) => Ok(Registration::Jit),
        (Some(RegistrationWord::Token) | None, ephemeral) => Ok(Registration::Token { ephemeral }),
    }
}

/// Returns labels without blanks around them and without empty ones; none if there are no others.
///
/// # Errors
/// A label or their number is more than a forge takes.
pub(crate) fn labels(given: &[String]) -> Result<Option<Vec<String>>, String> {
    let labels: Vec<String> =
        given.iter().map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect();
    let is_bad = |label: &&String| label.len() > LABEL_LENGTH_MAX || label.chars().any(char::is_control);
    if let Some(label) = labels.iter().find(is_bad) {
        return Err(format!(
            "\"{label}\" is no label: {LABEL_LENGTH_MAX} bytes at most, without control characters"
        ));
    }
    if labels.len() > LABELS_MAX {
        return Err("a runner has at most 100 labels, and three of them are fixed".to_owned());
    }
    Ok(Some(labels).filter(|labels| !labels.is_empty()))
}

/// Checks that a mount's folder or file exists on this host.
///
/// # Errors
/// It does not.
pub(crate) fn mount_is_there(mount: &Mount) -> Result<(), String> {
    if mount.host.exists() {
        return Ok(());
    }
    Err(format!("the mount {}: {} is not there", String::from(mount.clone()), mount.host.display()))
}

/// Checks that a list of destinations stands with the policy that it is for. Returns the key that is wrong, too.
///
/// # Errors
/// The policy needs a list and has none, or the list is for a policy without one.
pub(crate) fn allow(word: NetworkWord, count: usize) -> Result<(), (&'static str, &'static str)> {
    match (word, count) {
        (NetworkWord::Allow, 0) => Err(("network", "network = allow needs a list of destinations (allow)")),
        // An audit without a list records all that a list would have to hold.
        (NetworkWord::Allow | NetworkWord::Audit, _) | (_, 0) => Ok(()),
        (_, 1..) => Err(("allow", "a list of destinations has a meaning only with network = allow or audit")),
    }
}

/// Returns the network policy of these options.
///
/// # Errors
/// A destination cannot be read, or the list does not stand with the policy.
pub(crate) fn policy(word: NetworkWord, list: &[String]) -> Result<NetworkPolicy, String> {
    let given = list.iter().filter(|text| !text.is_empty());
    let list = given.map(|text| text.parse()).collect::<Result<Vec<AllowEntry>, _>>()?;
    allow(word, list.len()).map_err(|(_, why)| why.to_owned())?;
    Ok(word.policy(list))
}

/// Checks that a network policy can be enforced.
///
/// # Errors
/// The driver gives its machines no network of their own, or the forge is more than one host.
pub(crate) fn network(
    policy: &NetworkPolicy,
    driver: Option<DriverKind>,
    forge: &ApiBase,
) -> Result<(), String> {
    let word = policy.as_str();
    if matches!(policy, NetworkPolicy::Guarded | NetworkPolicy::Open) {
        return Ok(());
    }
    if let Some(driver) = driver.filter(|&driver| driver != DriverKind::Qemu) {
        return Err(format!(
            "network = {word} needs the driver qemu: machines of {driver} have no network of their own"
        ));
    }
    if forge.is_github() && *policy == NetworkPolicy::None {
        let host = forge.url().host_str().unwrap_or_default();
        return Err(format!(
            "network = none lets through the forge's own host alone, and a runner of {host} needs many hosts of GitHub; \
             use network = allow with the preset github"
        ));
    }
    Ok(())
}

/// Returns the entrypoint as the machine sees it: the requested one, or the guest binary in the folder of guest programs.
pub(crate) fn entrypoint(given: Option<PathBuf>, dir: Option<&Path>, args: Vec<String>) -> Entrypoint {
    let program = given.or_else(|| dir.map(|dir| dir.join("dayfly-guest")));
    Entrypoint { program, args }
}

/// Returns the mount of the folder of guest programs `host` at `dir`.
///
/// # Errors
/// The path in the machine is relative.
pub(crate) fn guest_programs(dir: &Path, host: PathBuf) -> Result<Mount, String> {
    if !dir.is_absolute() {
        return Err(format!("{}: the directory in the machine must be absolute", dir.display()));
    }
    Ok(Mount { host, guest: dir.to_owned(), options: vec!["ro".to_owned()] })
}

/// Checks that the folder of guest programs exists on this host.
///
/// # Errors
/// It does not.
pub(crate) fn guest_programs_are_there(host: &Path) -> Result<(), String> {
    if host.is_dir() {
        return Ok(());
    }
    Err(format!("the folder of guest programs {} is not there", host.display()))
}

/// Checks that a QEMU machine boots with so much memory.
///
/// # Errors
/// It does not.
pub(crate) fn qemu_memory(memory_mib: u32) -> Result<(), String> {
    if memory_mib >= QEMU_MEMORY_MIB_MIN {
        return Ok(());
    }
    Err(format!(
        "{memory_mib} MiB of memory are too few: a machine with Docker and a runner needs {QEMU_MEMORY_MIB_MIN} to boot"
    ))
}

/// Checks a processor model with features, e.g. `max,-smap`. QEMU rejects an unknown model when the probe guest boots.
///
/// # Errors
/// The text cannot be a model.
pub(crate) fn cpu_model(text: &str) -> Result<String, String> {
    let may_be = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ',' | '=' | '+');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(may_be) {
        true => Ok(text.to_owned()),
        false => Err("expected a model of `qemu-system-x86_64 -cpu help`, e.g. max or max,-smap".to_owned()),
    }
}

/// Checks the prefix of the names of machines and registrations.
///
/// # Errors
/// The names would be no host names.
pub(crate) fn prefix(text: &str) -> Result<String, String> {
    let valid = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if text.is_empty() || text.len() > PREFIX_LENGTH_MAX || !valid || text.starts_with(['-', '.']) {
        return Err(format!(
            "expected 1 to {PREFIX_LENGTH_MAX} letters, digits, -, _ or ., beginning with a letter or digit"
        ));
    }
    Ok(text.to_owned())
}

/// Reads a secret from a file that only its owner, and no other user of this host, can read. `what` is the word for it.
///
/// # Errors
/// There is no such file, or others can read it.
pub(crate) fn read_secret_file(file: &Path, what: &str, bytes_max: u64) -> Result<SecretString, Failure> {
    let failed = |error| Failure::usage(format!("cannot read the {what} from {}: {error}", file.display()));
    let mut opened = File::open(file).map_err(failed)?;
    is_the_owners_alone(file, what, &opened.metadata().map_err(failed)?)?;
    let mut text = String::new();
    opened.by_ref().take(bytes_max).read_to_string(&mut text).map_err(failed)?;
    Ok(text.into())
}

/// Longest file of certificate authorities, bytes. In base64 it has to fit into a machine's settings.
const AUTHORITIES_BYTES_MAX: u64 = 32 * 1024;

/// Reads the certificates of authorities, in PEM form.
///
/// # Errors
/// There is no such file, it is too long, or it holds no certificate, or a private key, which would reach every machine.
pub(crate) fn authorities(file: &Path) -> Result<String, Failure> {
    let refused =
        |why: &str| Failure::usage(format!("cannot use the authorities in {}: {why}", file.display()));
    let opened = File::open(file).map_err(|error| refused(&error.to_string()))?;
    let mut text = String::new();
    let read = opened.take(AUTHORITIES_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| refused(&error.to_string()))?;
    if text.len() as u64 > AUTHORITIES_BYTES_MAX {
        return Err(refused("it has more than 32 KiB")
            .hint("name a file with your own authorities only; the machines' images have the public ones"));
    }
    if text.contains("PRIVATE KEY-----") {
        return Err(refused("it holds a private key, which every machine would get"));
    }
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(refused("it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(text)
}

/// Checks that a file with a secret exists, and that no other user can read it. Does not read it.
///
/// # Errors
/// It does not exist, or others can read it.
pub(crate) fn secret_file(file: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::usage(format!("cannot read {}: {error}", file.display()));
    is_the_owners_alone(file, "secret", &fs::metadata(file).map_err(failed)?)
}

/// Checks that a file exists. `what` is the word for it.
///
/// # Errors
/// It does not exist, or is no file.
pub(crate) fn is_there(file: &Path, what: &str) -> Result<(), Failure> {
    let found = fs::metadata(file).map_err(|error| error.to_string());
    match found {
        Ok(found) if !found.is_dir() => Ok(()),
        Ok(_) => Err(Failure::usage(format!("the {what} {} is a folder", file.display()))),
        Err(why) => Err(Failure::usage(format!("cannot read the {what} {}: {why}", file.display()))),
    }
}

/// Checks owner and mode of a file with a secret. Pipes have no mode that counts.
fn is_the_owners_alone(file: &Path, what: &str, metadata: &Metadata) -> Result<(), Failure> {
    if !metadata.is_file() {
        return Ok(());
    }
    let (mode, owner) = (metadata.permissions().mode() & 0o777, metadata.uid());
    if mode & 0o077 != 0 {
        let whose = format!(
            "cannot use the {what} in {}: its mode {mode:04o} lets other users read it",
            file.display()
        );
        return Err(Failure::usage(whose).hint(format!("chmod 600 {}", file.display())));
    }
    let own = rustix::process::geteuid().as_raw();
    if owner != own && owner != 0 {
        let whose = format!("cannot use the {what} in {}: it belongs to the user {owner}", file.display());
        return Err(Failure::usage(whose).hint(format!("chown {own} {}", file.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_for_many_jobs_registers_itself() {
        let (jit, token) = (Some(RegistrationWord::Jit), Some(RegistrationWord::Token));
        assert_eq!(registration(None, true), Ok(Registration::Jit));
        assert_eq!(registration(token, true), Ok(Registration::Token { ephemeral: true }));
        assert_eq!(registration(None, false), Ok(Registration::Token { ephemeral: false }));
        assert!(registration(jit, false).is_err());
    }

    #[test]
    fn a_secret_in_a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("pat");
        fs::write(&file, "from-file\n").expect("write");
        for (mode, is_good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o622, false)]
        {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("mode");
            for refusal in [read_secret_file(&file, "token", 4096).map(drop), secret_file(&file)] {
                assert_eq!(refusal.is_ok(), is_good, "{mode:o}");
                if let Err(error) = refusal {
                    assert!(error.to_string().contains(&format!("its mode {mode:04o}")), "{error}");
                    assert!(error.what_to_do().is_some_and(|hint| hint.starts_with("chmod 600 ")), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_mount_whose_host_side_is_missing_is_told() {
        let there = |text: &str| mount_is_there(&text.parse().expect("a mount"));
        assert_eq!(
            there("/nonexistent/x:/y").expect_err("refused"),
            "the mount /nonexistent/x:/y: /nonexistent/x is not there"
        );
        assert_eq!(there("/:/y:ro"), Ok(()));
    }

    #[test]
    fn the_entrypoint_is_the_one_asked_for_or_the_one_in_the_mounted_folder() {
        let program = |given: Option<&str>, dir: Option<&str>| {
            entrypoint(given.map(PathBuf::from), dir.map(Path::new), Vec::new()).program
        };
        assert_eq!(program(None, None), None);
        assert_eq!(program(None, Some("/local")), Some("/local/dayfly-guest".into()));
        assert_eq!(program(Some("/x"), Some("/local")), Some("/x".into()));
    }

    #[test]
    fn a_prefix_that_makes_a_bad_host_name_is_refused() {
        for text in ["", "-a", "a b", "a/b", &"a".repeat(53)] {
            assert!(prefix(text).is_err(), "{text}");
        }
        assert!(prefix("GH-runner").is_ok());
    }

    #[test]
    fn labels_have_no_blanks_around_them_and_a_limit() {
        let given = |count: usize| labels(&(0..count).map(|n| format!(" l{n} ")).collect::<Vec<_>>());
        assert_eq!(given(1), Ok(Some(vec!["l0".to_owned()])));
        assert_eq!(labels(&[" ".to_owned()]), Ok(None));
        assert!(given(97).is_ok() && given(98).is_err());
        assert!(labels(&["a\u{1b}b".to_owned()]).is_err());
    }
}
