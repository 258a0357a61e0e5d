//! Parses the package list of an image.

use super::ImageError;
pub(super) use dayfly_guest::packages::Packages;

/// Parses a package list.
pub(super) fn parse(text: &str) -> Result<Packages, ImageError> {
    Packages::parse(text).map_err(|error| ImageError::PackageList {
        line: error.line,
        what: format!("{:?} is no package name", error.name),
    })
}

/// Returns an apt pattern that matches a package if it exists.
pub(super) fn pattern(name: &str) -> String {
    format!("?and(?exact-name({name}),?not(?virtual))")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_package_is_named() {
        let error = parse("git\n-y\n").expect_err("refused");
        assert!(matches!(error, ImageError::PackageList { line: 2, .. }), "{error}");
    }

    #[test]
    fn the_list_of_our_own_image_is_valid_and_names_each_package_once() {
        let packages = parse(crate::recipe::PACKAGES).expect("valid");
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
