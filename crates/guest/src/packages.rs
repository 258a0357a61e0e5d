//! Parses package lists of a distribution, such as those in `images/`, for image builds on the host or in the image.
//!
//! One package per line; `?name` for a package that some releases of the distribution lack; `#` starts a comment.

/// A parsed list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    /// Packages that must exist.
    pub needed: Vec<String>,
    /// Packages that are installed if the release has them.
    pub wanted: Vec<String>,
}

/// A line that is not a package's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {name:?} is no package name")]
pub struct NotAPackage {
    /// Number of the line, from 1.
    pub line: usize,
    /// The text in place of a package name.
    pub name: String,
}

impl Packages {
    /// Parses a list.
    ///
    /// ```
    /// use dayfly_guest::packages::Packages;
    /// let packages = Packages::parse("git  # why\n?docker-cli\n").unwrap();
    /// assert_eq!((packages.needed, packages.wanted), (vec!["git".to_owned()], vec!["docker-cli".to_owned()]));
    /// assert!(Packages::parse("--force-yes").is_err());
    /// ```
    ///
    /// # Errors
    /// [`NotAPackage`] with the first line that is not a package's name.
    pub fn parse(text: &str) -> Result<Self, NotAPackage> {
        let mut packages = Self::default();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            let (name, list) = match entry.strip_prefix('?') {
                _ if entry.is_empty() => continue,
                Some(name) => (name, &mut packages.wanted),
                None => (entry, &mut packages.needed),
            };
            if !is_name(name) {
                return Err(NotAPackage { line: index + 1, name: name.to_owned() });
            }
            list.push(name.to_owned());
        }
        Ok(packages)
    }

    /// Adds the packages of another list.
    pub fn extend(&mut self, other: Self) {
        self.needed.extend(other.needed);
        self.wanted.extend(other.wanted);
    }
}

/// Returns true if the name has only lower-case letters, digits and `+-._`, and starts with a letter or digit: Debian
/// Policy 5.6.1, and `_`, which Fedora's names may have. apt and dnf would take anything else as an option, a pattern or a
/// path.
fn is_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-._".contains(&byte))
        // `name-` makes apt remove the package.
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_comments_and_wishes_are_told_apart() {
        let packages = Packages::parse("# x\n\ngit   # why\n?docker-cli\nlibstdc++6\n").expect("valid");
        assert_eq!(packages.needed, ["git", "libstdc++6"]);
        assert_eq!(packages.wanted, ["docker-cli"]);
    }

    #[test]
    fn what_a_package_manager_would_take_for_something_else_is_refused() {
        for line in [
            "-y",
            "git curl",
            "./x.deb",
            "git-",
            "?",
            "??x",
            "Git",
            "git=1",
            "git,curl",
            "~nfoo",
            "x*",
            "@core",
            "/usr/bin/git",
            "git|curl",
            "a;b",
            "$(x)",
        ] {
            let error = Packages::parse(&format!("git\n{line}\n")).expect_err(line);
            assert_eq!(error.line, 2, "{line}");
        }
    }
}
