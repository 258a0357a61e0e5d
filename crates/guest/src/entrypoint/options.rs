//! The entrypoint's arguments.

use dayfly_guest::environment::{self, Suffix, file_name, is_runner_id};
use dayfly_guest::runner_app::PROGRAM;
use std::path::PathBuf;

pub(super) const USAGE: &str = "\
usage: dayfly-guest entrypoint -i RUNNER_ID [OPTIONS]
  -i ID              id of the runner, names its files in the environment directory
  -E FILE            settings [default: <environment>/<id>.env]; read and removed first thing
  -k FILE            where to write the note that the runner starts [default: <environment>/<id>.tkn]
  -n NAME            name of the runner [default: RUNNER_NAME of the settings]
  -u USER            run the app as this user, '' for the own one [default: RUNNER_USER of the settings, or runner]
  -l FILE            append every line to this file as well
  -v                 say more
  --environment DIR  the environment directory [default: /_environment]
  --app PROGRAM      the runner app [default: /opt/runner/github-act-runner]
  --app-dir DIR      its folder, made anew [default: app in the user's home]
";

/// Parsed and checked arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) runner_id: String,
    pub(super) environment: PathBuf,
    pub(super) env: Option<PathBuf>,
    pub(super) tkn: Option<PathBuf>,
    pub(super) name: Option<String>,
    /// `Some("")`: no change of user.
    pub(super) user: Option<String>,
    pub(super) log: Option<PathBuf>,
    pub(super) verbose: bool,
    pub(super) app: PathBuf,
    pub(super) app_dir: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    #[error("{0} needs a value")]
    NoValue(String),
    #[error("{0:?} is no option of the entrypoint")]
    Unknown(String),
    #[error("-i ID is missing")]
    NoId,
    #[error("{0:?} is no id of a runner: 1 to 64 letters, digits, `-` and `_`")]
    Id(String),
}

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self, UsageError> {
        let mut options = Self {
            runner_id: String::new(),
            environment: environment::DIRECTORY.into(),
            env: None,
            tkn: None,
            name: None,
            user: None,
            log: None,
            verbose: false,
            app: PROGRAM.into(),
            app_dir: None,
        };
        let mut args = args.iter();
        while let Some(option) = args.next() {
            if option == "-v" {
                options.verbose = true;
                continue;
            }
            let mut value = || args.next().cloned().ok_or_else(|| UsageError::NoValue(option.clone()));
            match option.as_str() {
                "-i" => options.runner_id = value()?,
                "-E" => options.env = Some(value()?.into()),
                "-k" => options.tkn = Some(value()?.into()),
                "-n" => options.name = Some(value()?),
                "-u" => options.user = Some(value()?),
                "-l" => options.log = Some(value()?.into()),
                "--environment" => options.environment = value()?.into(),
                "--app" => options.app = value()?.into(),
                "--app-dir" => options.app_dir = Some(value()?.into()),
                _ => return Err(UsageError::Unknown(option.clone())),
            }
        }
        match options.runner_id.as_str() {
            "" => Err(UsageError::NoId),
            id if !is_runner_id(id) => Err(UsageError::Id(options.runner_id)),
            _ => Ok(options),
        }
    }

    pub(super) fn env_path(&self) -> PathBuf {
        self.env.clone().unwrap_or_else(|| self.environment.join(file_name(&self.runner_id, Suffix::Env)))
    }

    pub(super) fn tkn_path(&self) -> PathBuf {
        self.tkn.clone().unwrap_or_else(|| self.environment.join(file_name(&self.runner_id, Suffix::Tkn)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, UsageError> {
        Options::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn an_id_is_enough() {
        let options = parse("-i 2-k3V9x0q").expect("good");
        assert_eq!(options.env_path(), PathBuf::from("/_environment/2-k3V9x0q.env"));
        assert_eq!(options.tkn_path(), PathBuf::from("/_environment/2-k3V9x0q.tkn"));
        assert_eq!(options.app, PathBuf::from("/opt/runner/github-act-runner"));
    }

    #[test]
    fn every_option_is_taken() {
        let options =
            parse("-i 1 -E e -k t -n n -u u -l l -v --environment d --app p --app-dir a").expect("good");
        assert_eq!((options.env_path(), options.tkn_path()), ("e".into(), "t".into()));
        assert_eq!(options.environment, PathBuf::from("d"));
        assert!(options.verbose);
    }

    #[test]
    fn wrong_usage_says_what() {
        assert_eq!(parse("-v"), Err(UsageError::NoId));
        assert_eq!(parse("-i"), Err(UsageError::NoValue("-i".to_owned())));
        assert_eq!(parse("-i ../x"), Err(UsageError::Id("../x".to_owned())));
        assert_eq!(parse("-i 1 -S secret"), Err(UsageError::Unknown("-S".to_owned())));
    }
}
