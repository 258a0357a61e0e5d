//! The labels of runners.

use std::env;

use dayfly_vm::{Driver, Machine};

/// Labels that every runner has. dayfly sends them itself, because a forge need not add them to a JIT config.
const ALWAYS: [&str; 2] = ["self-hosted", "Linux"];

/// Returns all labels of a runner: the three fixed ones, then the given ones, or else the default ones.
pub(crate) fn all(given: Option<Vec<String>>, machine: &Machine) -> Vec<String> {
    let rest = given.unwrap_or_else(|| {
        let krun = env::var("RUNNER_DEFAULT_LABELS").unwrap_or_else(|_| "krun".to_owned());
        let distribution = env::var("RUNNER_DISTRO").ok().or_else(|| distribution(&machine.driver));
        defaults(&krun, distribution.as_deref())
    });
    joined(rest)
}

/// Returns the distribution that jobs see, i.e. the `ID` in os-release; none if it is not known before the machine runs.
fn distribution(driver: &Driver) -> Option<String> {
    match driver {
        Driver::Qemu(qemu) => {
            let manifest = qemu.image.manifest();
            of_suite(&manifest.suite, manifest.origin.is_some())
        }
        Driver::Process(_) => dayfly_vm::host::distribution(),
        Driver::PodmanKrun(krun) | Driver::Krunvm(krun) => {
            let known = ["ubuntu", "fedora", "debian", "alpine", "centos", "opensuse", "archlinux"];
            known.into_iter().find(|name| krun.image.contains(name)).map(str::to_owned)
        }
    }
}

/// Returns the distribution of an image, from its manifest's suite. That of the built-in image is a release of Debian; that
/// of an imported one begins with the `ID` of its os-release, or is `unknown`.
fn of_suite(suite: &str, is_imported: bool) -> Option<String> {
    if !is_imported {
        return Some("debian".to_owned());
    }
    let is_id = |id: &&str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        !id.is_empty() && *id != "unknown" && id.bytes().all(plain)
    };
    suite.split(' ').next().filter(is_id).map(str::to_owned)
}

fn defaults(first: &str, distribution: Option<&str>) -> Vec<String> {
    first.split(',').chain(distribution).chain(["dayfly"]).map(|label| label.trim().to_owned()).collect()
}

fn joined(rest: Vec<String>) -> Vec<String> {
    let architecture = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
    let always = ALWAYS.into_iter().chain([architecture]).map(str::to_owned);
    let mut all: Vec<String> = Vec::new();
    for label in always.chain(rest) {
        if !label.is_empty() && !all.iter().any(|other| other.eq_ignore_ascii_case(&label)) {
            all.push(label);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_are_always_there_and_nothing_twice() {
        let given = ["gpu".to_owned(), "LINUX".to_owned(), String::new()].to_vec();
        assert_eq!(joined(given).join(","), format!("self-hosted,Linux,{},gpu", joined(Vec::new())[2]));
        assert_eq!(defaults("krun", Some("debian")), ["krun", "debian", "dayfly"]);
        assert_eq!(defaults("a, b", None), ["a", "b", "dayfly"]);
    }

    #[test]
    fn the_distribution_is_that_of_the_image_whatever_the_host_is() {
        assert_eq!(of_suite("bookworm", false).as_deref(), Some("debian"));
        assert_eq!(of_suite("ubuntu noble", true).as_deref(), Some("ubuntu"));
        assert_eq!(of_suite("fedora 41", true).as_deref(), Some("fedora"));
        assert_eq!(of_suite("unknown", true), None);
        assert_eq!(of_suite("No Such System", true), None);
    }
}
