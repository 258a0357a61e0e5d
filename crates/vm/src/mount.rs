//! Folders and files of the host that a machine sees.

use std::path::PathBuf;

/// One mount, as the option `-M host:vm[:options]` describes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mount {
    /// Absolute path of the folder or file on the host.
    pub host: PathBuf,
    /// Absolute path at which the machine sees it.
    pub guest: PathBuf,
    /// Options as given, e.g. `ro` or `Z,rw`; empty if none were given.
    pub options: Vec<String>,
}

impl Mount {
    /// Returns true if the machine must not write to the mount.
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }
}

impl From<Mount> for String {
    fn from(mount: Mount) -> Self {
        let options =
            if mount.options.is_empty() { Self::new() } else { format!(":{}", mount.options.join(",")) };
        format!("{}:{}{options}", mount.host.display(), mount.guest.display())
    }
}

impl TryFrom<String> for Mount {
    type Error = MountError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Why a text is not a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The text does not have two or three parts.
    #[error("\"{0}\" is no mount (expected HOST:VM or HOST:VM:OPTIONS)")]
    Form(String),
    /// A path is relative, although there is no folder that it could be relative to.
    #[error("\"{0}\" is no mount: {1} is not an absolute path")]
    Relative(String, String),
    /// No driver supports an option.
    #[error("\"{0}\" is no mount: the option \"{1}\" is unknown (expected ro, rw, z or Z)")]
    Option(String, String),
}

impl std::str::FromStr for Mount {
    type Err = MountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split(':').collect();
        let (host, guest, options) = match parts[..] {
            [host, guest] => (host, guest, ""),
            [host, guest, options] => (host, guest, options),
            _ => return Err(MountError::Form(text.to_owned())),
        };
        if let Some(relative) = [host, guest].into_iter().find(|path| !path.starts_with('/')) {
            return Err(MountError::Relative(text.to_owned(), format!("\"{relative}\"")));
        }
        let options: Vec<String> =
            options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        match options.iter().find(|option| !["ro", "rw", "z", "Z"].contains(&option.as_str())) {
            Some(unknown) => Err(MountError::Option(text.to_owned(), unknown.clone())),
            None => Ok(Self { host: host.into(), guest: guest.into(), options }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_two_absolute_paths_and_known_options() {
        let mount: Mount = "/a:/b:ro,Z".parse().expect("good");
        assert_eq!((mount.host.to_str(), mount.guest.to_str()), (Some("/a"), Some("/b")));
        assert!(mount.is_read_only());
        assert!(!"/a:/b".parse::<Mount>().expect("good").is_read_only());
        for text in ["", "/a", "a:/b", "/a:b", "/a:/b:c", "/a:/b:ro:x", ":", "/a:"] {
            assert!(text.parse::<Mount>().is_err(), "{text:?}");
        }
    }
}
