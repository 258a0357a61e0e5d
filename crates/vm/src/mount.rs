//! Folders and files of the host that a machine sees.

use std::path::PathBuf;

/// One mount, as `-M host:vm[:options]` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Folder or file of the host, absolute.
    pub host: PathBuf,
    /// Where the machine sees it, absolute.
    pub guest: PathBuf,
    /// Options as they were given, e.g. `ro` or `Z,rw`; none where none were.
    pub options: Vec<String>,
}

impl Mount {
    /// Whether the machine may not write there.
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }
}

/// A text that is no mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// There are not two or three parts.
    #[error("\"{0}\" is no mount (expected HOST:VM or HOST:VM:OPTIONS)")]
    Form(String),
    /// A path is relative: nobody could say to what.
    #[error("\"{0}\" is no mount: {1} is not an absolute path")]
    Relative(String, String),
    /// An option that no driver could honour.
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
