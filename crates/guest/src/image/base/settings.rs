//! The options and settings of `base`.

use super::super::ImageError;
use super::super::distribution::Family;
use crate::options::Takes::{Count, Nothing, Value};
use crate::options::{Given, Grammar, Options, Switch, UsageError, Words, is_on, option};
use dayfly_guest::environment;
use std::path::PathBuf;

pub(super) const USAGE: &str = "usage: dayfly-guest base [OPTIONS]";

static OPTIONS: [Switch; 4] = [
    option('d', "docker", Nothing, "BASE_DOCKER", "Docker's own engine and client, in place of podman"),
    option('l', "log", Value("LOG"), "BASE_LOG", "where lines go: a descriptor's number, or a file"),
    option('v', "verbose", Count, "BASE_VERBOSE", "show what package managers print"),
    option('h', "help", Nothing, "", "this text"),
];

const VARIABLES: [(&str, &str); 6] = [
    ("BASE_USER", "who jobs run as"),
    ("BASE_UID", "its number"),
    ("BASE_GROUP", "its group"),
    ("BASE_GID", "the group's number"),
    ("BASE_SUDO", "group whose members may become root without a password"),
    ("BASE_DOCKER_WRAPPER", "what `docker` is a link to, the real client becoming docker.orig"),
];

static GRAMMAR: Grammar = Grammar { program: "base", switches: &OPTIONS, words: Words::AtMost(0) };

pub(super) fn parse(args: &[String]) -> Result<Options, UsageError> {
    Options::parse(&GRAMMAR, args)
}

/// A user or a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) id: u32,
}

/// The resolved settings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// True for Docker's own engine instead of podman.
    pub(super) docker: bool,
    pub(super) user: Named,
    pub(super) group: Named,
    /// Group whose members may become root.
    pub(super) sudo: String,
    /// Target of the link `docker`; `None`: `docker` stays the client itself.
    pub(super) wrapper: Option<PathBuf>,
}

impl Settings {
    pub(super) fn resolve(given: Given<'_>, family: Family) -> Result<Self, ImageError> {
        let value = |variable| in_force(given, variable, Some(family));
        let wrong = |variable, wanted| {
            let value = value(variable).chars().take(64).collect();
            ImageError::Setting { variable, value, wanted }
        };
        let name = |variable| {
            let name = value(variable);
            let wanted =
                "must be a name: a lower-case letter or `_`, then letters, digits, `_` and `-`, at most 32";
            if is_account_name(&name) { Ok(name) } else { Err(wrong(variable, wanted)) }
        };
        let id = |variable| match value(variable).parse() {
            Ok(id) if (1..60_000).contains(&id) => Ok(id),
            _ => Err(wrong(variable, "must be a number from 1 to 59999")),
        };
        let docker = is_on(&value("BASE_DOCKER")).ok_or_else(|| wrong("BASE_DOCKER", "can be 1 or 0"))?;
        let wrapper = Some(value("BASE_DOCKER_WRAPPER")).filter(|path| !path.is_empty()).map(PathBuf::from);
        if wrapper.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(wrong("BASE_DOCKER_WRAPPER", "must be an absolute path"));
        }
        Ok(Self {
            docker,
            user: Named { name: name("BASE_USER")?, id: id("BASE_UID")? },
            group: Named { name: name("BASE_GROUP")?, id: id("BASE_GID")? },
            sudo: name("BASE_SUDO")?,
            wrapper,
        })
    }
}

/// Returns the value of a variable, or its default.
fn in_force(given: Given<'_>, variable: &str, family: Option<Family>) -> String {
    if let Some(value) = given.get(variable) {
        return value.to_owned();
    }
    match variable {
        "BASE_DOCKER" | "BASE_VERBOSE" => "0".to_owned(),
        "BASE_LOG" => "2".to_owned(),
        "BASE_USER" | "BASE_GROUP" => "runner".to_owned(),
        "BASE_UID" => "1001".to_owned(),
        "BASE_GID" => "121".to_owned(),
        "BASE_SUDO" => family.map_or("sudo|wheel", Family::sudo_group).to_owned(),
        // Docker's own engine creates its own networks, in a machine whose kernel supports them.
        "BASE_DOCKER_WRAPPER" if is_on(&in_force(given, "BASE_DOCKER", family)) == Some(true) => {
            String::new()
        }
        "BASE_DOCKER_WRAPPER" => environment::GUEST.to_owned(),
        _ => String::new(),
    }
}

/// Returns true if useradd accepts the name by default.
fn is_account_name(name: &str) -> bool {
    let start = |c: char| c.is_ascii_lowercase() || c == '_';
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    name.len() <= 32 && name.starts_with(start) && name.bytes().all(rest)
}

pub(super) fn help(given: Given<'_>) -> String {
    let family = Family::here().ok();
    let mut text = format!(
        "{USAGE}\nMakes an image out of a distribution's: packages, the user that jobs run as, and a container engine.\n\n"
    );
    text.push_str(&crate::options::help(&OPTIONS, |option| in_force(given, option.variable, family)));
    text.push_str("\nVariables without an option:\n");
    let value = |variable: &str| in_force(given, variable, family);
    text.push_str(&crate::options::help_of_variables(&VARIABLES, value));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let options = parse(&args).expect("good usage");
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().map(pair).collect();
        let given = Given { options: &options, environment: &environment };
        Settings::resolve(given, Family::Fedora).map_err(|error| error.to_string())
    }

    #[test]
    fn without_anything_the_defaults_are_those_of_the_shell_version() {
        let settings = resolve(&[], &[]).expect("good");
        let user = Named { name: "runner".to_owned(), id: 1001 };
        let group = Named { name: "runner".to_owned(), id: 121 };
        let wrapper = Some("/_dayfly/dayfly-guest".into());
        assert_eq!(settings, Settings { docker: false, user, group, sudo: "wheel".to_owned(), wrapper });
    }

    #[test]
    fn dockers_own_engine_is_not_wrapped_unless_that_is_asked_for() {
        let settings = resolve(&["-d"], &[("BASE_USER", "ci"), ("BASE_UID", "2000")]).expect("good");
        assert_eq!((settings.docker, settings.wrapper), (true, None));
        assert_eq!(settings.user, Named { name: "ci".to_owned(), id: 2000 });
        let settings = resolve(&[], &[("BASE_DOCKER", "yes"), ("BASE_DOCKER_WRAPPER", "/local/docker")]);
        assert_eq!(settings.expect("good").wrapper, Some("/local/docker".into()));
    }

    #[test]
    fn wrong_settings_are_named_with_their_value() {
        let error = |name, value| resolve(&[], &[(name, value)]).expect_err("refused");
        assert!(
            error("BASE_USER", "Run ner:x").starts_with("BASE_USER is \"Run ner:x\", and must be a name: ")
        );
        assert_eq!(error("BASE_UID", "0"), "BASE_UID is \"0\", and must be a number from 1 to 59999");
        assert_eq!(error("BASE_GID", "x"), "BASE_GID is \"x\", and must be a number from 1 to 59999");
        assert_eq!(error("BASE_DOCKER", "podman"), "BASE_DOCKER is \"podman\", and can be 1 or 0");
        let relative = error("BASE_DOCKER_WRAPPER", "docker");
        assert_eq!(relative, "BASE_DOCKER_WRAPPER is \"docker\", and must be an absolute path");
    }

    #[test]
    fn the_help_shows_what_is_in_force() {
        let environment = [("BASE_SUDO".to_owned(), "admins".to_owned())];
        let options = parse(&["-vd".to_owned()]).expect("good");
        let given = Given { options: &options, environment: &environment };
        insta::assert_snapshot!(help(given), @r"
        usage: dayfly-guest base [OPTIONS]
        Makes an image out of a distribution's: packages, the user that jobs run as, and a container engine.

          -d, --docker               Docker's own engine and client, in place of podman [BASE_DOCKER=1]
          -l, --log LOG              where lines go: a descriptor's number, or a file [BASE_LOG=2]
          -v, --verbose              show what package managers print [BASE_VERBOSE=1]
          -h, --help                 this text

        Variables without an option:
          BASE_USER                  who jobs run as [runner]
          BASE_UID                   its number [1001]
          BASE_GROUP                 its group [runner]
          BASE_GID                   the group's number [121]
          BASE_SUDO                  group whose members may become root without a password [admins]
          BASE_DOCKER_WRAPPER        what `docker` is a link to, the real client becoming docker.orig []
        ");
    }
}
