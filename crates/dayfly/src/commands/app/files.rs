//! The files of a new App: its private key, and the secret of its webhook.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use dayfly_host::file;
use rustix::fs::{Access, access};
use secrecy::{ExposeSecret as _, SecretString};

use crate::exit::{Failure, Result};

/// The folder of the files as root.
const FOLDER_OF_ROOT: &str = "/etc/dayfly";

/// The names of the files. All are absolute.
#[derive(Debug, Clone)]
pub(super) struct SecretFiles {
    pub(super) key: PathBuf,
    pub(super) webhook_secret: PathBuf,
}

impl SecretFiles {
    /// Returns the files for an App of this name, unless the user has named others.
    pub(super) fn new(name: &str, key: Option<&Path>, webhook_secret: Option<&Path>) -> Result<Self> {
        let stem: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let folder =
            if rustix::process::geteuid().is_root() { Path::new(FOLDER_OF_ROOT) } else { Path::new("") };
        let absolute = |path: &Path| std::path::absolute(path).map_err(Failure::usage);
        let key = absolute(&key.map_or_else(|| folder.join(format!("{stem}.pem")), Path::to_owned))?;
        let beside = || key.with_file_name(format!("{stem}.webhook-secret"));
        let webhook_secret = absolute(&webhook_secret.map_or_else(beside, Path::to_owned))?;
        Ok(Self { key, webhook_secret })
    }

    /// Checks before anything is created that the files can be, because the forge gives a key only once.
    ///
    /// # Errors
    /// A file exists, or its folder cannot be written.
    pub(super) fn check(&self, has_webhook: bool) -> Result<()> {
        let secret = has_webhook.then_some(&self.webhook_secret);
        for file in [&self.key].into_iter().chain(secret) {
            if file.symlink_metadata().is_ok() {
                return Err(Failure::usage(format!("{} exists already", file.display()))
                    .hint("give --key-file or --webhook-secret-file another name; no file is replaced"));
            }
            let folder = file.parent().unwrap_or(Path::new("/"));
            let failed =
                |why: String| Failure::cannot(format!("cannot write into {}: {why}", folder.display()));
            if folder == Path::new(FOLDER_OF_ROOT) {
                std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
            }
            access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }
}

/// Stores a secret in a new file that only its owner can read. It is on the disk when this returns.
pub(super) fn store(path: &Path, secret: &SecretString) -> std::result::Result<(), String> {
    let mut text = secret.expose_secret().trim_end().to_owned();
    text.push('\n');
    let stored = file::create_private(path, text.as_bytes());
    secrecy::zeroize::Zeroize::zeroize(&mut text);
    stored.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{} exists already", path.display()),
        _ => format!("cannot write {}: {error}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_gets_a_file_of_its_own_and_replaces_none() {
        let folder = tempfile::tempdir().expect("folder");
        let files = SecretFiles::new("My App", Some(&folder.path().join("k.pem")), None).expect("names");
        assert_eq!(files.webhook_secret, folder.path().join("my-app.webhook-secret"));
        files.check(true).expect("free");
        store(&files.key, &"KEY\n\n".into()).expect("stored");
        assert_eq!(std::fs::read_to_string(&files.key).expect("there"), "KEY\n");
        assert_eq!(std::fs::metadata(&files.key).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(files.check(false).expect_err("taken").code(), 2);
        assert!(store(&files.key, &"OTHER".into()).expect_err("taken").contains("exists already"));
        assert_eq!(std::fs::read_to_string(&files.key).expect("there"), "KEY\n");
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1, "nothing else is left");
    }

    #[test]
    fn a_folder_that_is_missing_is_told_before_anything_is_created() {
        let files = SecretFiles::new("a", Some(Path::new("/nonexistent/x/k.pem")), None).expect("names");
        assert!(files.check(false).expect_err("missing").to_string().contains("/nonexistent/x"));
    }
}
