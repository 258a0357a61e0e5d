//! The list of packages of an image.

use super::ImageError;

/// A list, read: names, and whether the suite may lack them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packages {
    /// Those that must be there.
    pub(super) needed: Vec<String>,
    /// Those that are taken where the suite has them.
    pub(super) wanted: Vec<String>,
}

/// Reads a list: one name a line, `?name` for one that the suite may lack, `#` starts a comment.
pub(super) fn parse(text: &str) -> Result<Packages, ImageError> {
    let mut packages = Packages { needed: Vec::new(), wanted: Vec::new() };
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let (name, list) = match entry.strip_prefix('?') {
            Some(name) => (name, &mut packages.wanted),
            None => (entry, &mut packages.needed),
        };
        if !is_name(name) {
            return Err(ImageError::PackageList {
                line: index + 1,
                what: format!("{name:?} is no package name"),
            });
        }
        list.push(name.to_owned());
    }
    Ok(packages)
}

/// Debian Policy 5.6.1: lower-case letters, digits, and `+-.`, starting with a letter or digit. Anything else would be
/// an option, a pattern or a path to apt.
fn is_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
        // `name-` asks apt to remove it, `name+` to install it.
        && !name.ends_with('-')
}

/// A pattern of apt that matches a package where there is one.
pub(super) fn pattern(name: &str) -> String {
    format!("?and(?exact-name({name}),?not(?virtual))")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_comments_and_wishes_are_told_apart() {
        let packages = parse("# x\n\ngit   # why\n?docker-cli\nlibstdc++6\n").expect("valid");
        assert_eq!(packages.needed, ["git", "libstdc++6"]);
        assert_eq!(packages.wanted, ["docker-cli"]);
    }

    #[test]
    fn what_apt_would_take_for_something_else_is_refused() {
        for line in
            ["-y", "git curl", "./x.deb", "git-", "?", "??x", "Git", "git=1", "git,curl", "~nfoo", "x*"]
        {
            let text = format!("git\n{line}\n");
            assert!(matches!(parse(&text), Err(ImageError::PackageList { line: 2, .. })), "{line}");
        }
    }

    #[test]
    fn the_list_of_our_own_image_is_valid_and_names_each_package_once() {
        let packages = parse(crate::image::recipe::PACKAGES).expect("valid");
        let mut all = [packages.needed, packages.wanted].concat();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        for name in
            ["git", "docker.io", "python3-venv", "nodejs", "build-essential", "linux-image-cloud-amd64"]
        {
            assert!(all.iter().any(|known| known == name), "{name}");
        }
    }
}
