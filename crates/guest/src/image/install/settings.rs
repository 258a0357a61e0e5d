//! The options and settings of `install`.

use super::super::ImageError;
use crate::options::Takes::{Count, Value};
use crate::options::{Given, Grammar, Options, Switch, UsageError, Words, is_on, option};
use dayfly_guest::runner_app::Version;
use std::path::{Path, PathBuf};

pub(super) const USAGE: &str = "usage: dayfly-guest install [OPTIONS] [VERSION|FILE [ARCH]]";

/// The project that is used unless another one is requested.
const OFFICIAL: &str = "actions/runner";

/// Path of a Dockerfile's `--mount=type=secret,id=install_token`.
const TOKEN_FILE: &str = "/run/secrets/install_token";

static OPTIONS: [Switch; 4] = [
    option('l', "log", Value("LOG"), "INSTALL_LOG", "where lines go: a descriptor's number, or a file"),
    option('u', "user", Value("USER"), "INSTALL_USER", "whose the app is"),
    option('v', "verbose", Count, "INSTALL_VERBOSE", "show what programs print"),
    option('h', "help", crate::options::Takes::Nothing, "", "this text"),
];

const VARIABLES: [(&str, &str); 12] = [
    ("INSTALL_VERSION", "latest, a version, or an archive's path"),
    ("INSTALL_ARCH", "x64 or arm64"),
    ("INSTALL_PROJECT", "whose releases they are; unset: github-act-runner where that cannot be reached"),
    ("INSTALL_GITHUB", "forge of the project: a host or a URL"),
    ("INSTALL_PRINCIPAL", "OWNER/REPO, ORG or enterprises/NAME: take what its runners/downloads names"),
    ("INSTALL_TOKEN", "token for the forge (or the file /run/secrets/install_token)"),
    ("INSTALL_SHA256", "checksum of an archive that is a file (else in FILE.sha256)"),
    ("INSTALL_DIR", "where the app comes, in a folder runner-<version>"),
    ("INSTALL_TOOL_CACHE", "where setup actions put tools"),
    ("INSTALL_DIRECTORIES", "further folders of the user, separated by spaces"),
    ("INSTALL_DEPENDENCIES", "1: install what the official app links"),
    ("RUNNER_TOOL_CACHE", "default of INSTALL_TOOL_CACHE, after it AGENT_TOOLSDIRECTORY"),
];

static GRAMMAR: Grammar = Grammar { program: "install", switches: &OPTIONS, words: Words::AtMost(2) };

pub(super) fn parse(args: &[String]) -> Result<Options, UsageError> {
    Options::parse(&GRAMMAR, args)
}

/// A runner app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum App {
    Official,
    GithubActRunner,
}

impl App {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Official => "actions/runner",
            Self::GithubActRunner => "github-act-runner",
        }
    }

    /// Returns the path of the app's program in its folder, which the entrypoint starts. The official app's scripts are not
    /// used, because `run.sh` exits 0 for nearly everything.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Official => "bin/Runner.Listener",
            Self::GithubActRunner => "github-act-runner",
        }
    }

    pub(super) fn program_in(self, folder: &Path) -> PathBuf {
        folder.join(self.program())
    }
}

/// The requested version or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestedApp {
    Latest,
    /// Without the leading `v`.
    Version(String),
    File(PathBuf),
}

/// The resolved settings. They have no `Debug`, because they hold a token.
pub(super) struct Settings {
    pub(super) wanted: RequestedApp,
    /// `x64` or `arm64`.
    pub(super) arch: &'static str,
    /// `None`: no project was requested.
    project: Option<String>,
    /// Address of the forge's REST API, without a slash at its end.
    pub(super) api: String,
    /// Path of a principal below `api`.
    pub(super) principal: Option<String>,
    pub(super) token: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) user: String,
    pub(super) dir: PathBuf,
    pub(super) tool_cache: PathBuf,
    pub(super) directories: Vec<PathBuf>,
    pub(super) dependencies: bool,
    /// Folder in which there may be a github-act-runner that the host has built.
    pub(super) beside: PathBuf,
}

impl Settings {
    pub(super) fn resolve(given: Given<'_>) -> Result<Self, ImageError> {
        let value = |variable| in_force(given, variable);
        let wrong = |variable, wanted| {
            let value = value(variable).chars().take(200).collect();
            ImageError::Setting { variable, value, wanted }
        };
        let path = |variable| {
            let path = PathBuf::from(value(variable));
            if path.is_absolute() { Ok(path) } else { Err(wrong(variable, "must be an absolute path")) }
        };
        let project = given.get("INSTALL_PROJECT").map(str::to_owned);
        if project.as_ref().is_some_and(|project| !is_repository(project)) {
            return Err(wrong("INSTALL_PROJECT", "must be OWNER/REPO"));
        }
        let principal = given.get("INSTALL_PRINCIPAL").map(principal_path);
        let sha256 = given.get("INSTALL_SHA256").map(str::to_ascii_lowercase);
        if sha256.as_ref().is_some_and(|digest| !is_sha256(digest)) {
            return Err(wrong("INSTALL_SHA256", "must be 64 hexadecimal digits"));
        }
        let directories: Vec<_> =
            value("INSTALL_DIRECTORIES").split_ascii_whitespace().map(PathBuf::from).collect();
        if !directories.iter().all(|path| path.is_absolute()) {
            return Err(wrong("INSTALL_DIRECTORIES", "must be absolute paths"));
        }
        Ok(Self {
            wanted: wanted(&value("INSTALL_VERSION")).ok_or_else(|| {
                wrong("INSTALL_VERSION", "must be latest, a version such as 2.336.0, or a file's path")
            })?,
            arch: arch(&value("INSTALL_ARCH"))
                .ok_or_else(|| wrong("INSTALL_ARCH", "must be x64 or arm64"))?,
            project,
            api: api(&value("INSTALL_GITHUB"))
                .ok_or_else(|| wrong("INSTALL_GITHUB", "must be a host or an http(s) URL without a path"))?,
            principal: principal.transpose().map_err(|()| {
                wrong("INSTALL_PRINCIPAL", "must be OWNER/REPO, an organisation or enterprises/NAME")
            })?,
            token: given.get("INSTALL_TOKEN").map(str::to_owned).or_else(token_of_file),
            sha256,
            user: value("INSTALL_USER"),
            dir: path("INSTALL_DIR")?,
            tool_cache: path("INSTALL_TOOL_CACHE")?,
            directories,
            dependencies: is_on(&value("INSTALL_DEPENDENCIES"))
                .ok_or_else(|| wrong("INSTALL_DEPENDENCIES", "can be 1 or 0"))?,
            beside: beside(),
        })
    }

    /// Returns the project whose releases are used.
    pub(super) fn project(&self) -> &str {
        self.project.as_deref().unwrap_or(OFFICIAL)
    }

    pub(super) fn app(&self) -> App {
        if self.project().ends_with("/github-act-runner") { App::GithubActRunner } else { App::Official }
    }

    /// Returns true if no project, principal, version or file was requested, so that another app may replace the official
    /// one.
    pub(super) fn is_default(&self) -> bool {
        self.project.is_none() && self.principal.is_none() && self.wanted == RequestedApp::Latest
    }

    pub(super) fn wants(&self, version: &str) -> bool {
        match &self.wanted {
            RequestedApp::Latest => true,
            RequestedApp::Version(wanted) => wanted == version,
            RequestedApp::File(_) => false,
        }
    }

    /// Returns true if the app is for another architecture than this program.
    pub(super) fn is_foreign(&self) -> bool {
        arch(std::env::consts::ARCH) != Some(self.arch)
    }
}

/// Returns the folder beside this program in which a build may have put a github-act-runner.
fn beside() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().unwrap_or(Path::new("/")).join("runner-app")
}

fn token_of_file() -> Option<String> {
    let token = std::fs::read_to_string(TOKEN_FILE).ok()?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

fn wanted(text: &str) -> Option<RequestedApp> {
    if text.contains('/') {
        return Some(RequestedApp::File(text.into()));
    }
    let version = text.strip_prefix('v').unwrap_or(text);
    match text {
        "latest" => Some(RequestedApp::Latest),
        _ => Version::parse(version)
            .filter(|_| is_plain(version))
            .map(|_| RequestedApp::Version(version.to_owned())),
    }
}

/// Returns the forge's name of an architecture, from the name of the forge, uname, Go or Docker.
fn arch(text: &str) -> Option<&'static str> {
    match text {
        "x64" | "x86_64" | "amd64" => Some("x64"),
        "arm64" | "aarch64" => Some("arm64"),
        _ => None,
    }
}

/// Returns the address of a forge's API. GitHub's API has a host of its own; a GHES has it below its own address.
fn api(forge: &str) -> Option<String> {
    let url = if forge.contains("://") { forge.to_owned() } else { format!("https://{forge}") };
    let url = url.trim_end_matches('/');
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let good = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    match host {
        "github.com" => Some("https://api.github.com".to_owned()),
        _ if !host.is_empty() && host.chars().all(good) => Some(format!("{url}/api/v3")),
        _ => None,
    }
}

fn principal_path(text: &str) -> Result<String, ()> {
    match text.split_once('/') {
        Some(("enterprises", name)) if is_plain(name) => Ok(format!("enterprises/{name}")),
        Some(_) if is_repository(text) => Ok(format!("repos/{text}")),
        None if is_plain(text) => Ok(format!("orgs/{text}")),
        _ => Err(()),
    }
}

fn is_repository(text: &str) -> bool {
    text.split_once('/').is_some_and(|(owner, repository)| is_plain(owner) && is_plain(repository))
}

/// Returns true if the text can be one part of a URL's path, or of a folder's path.
pub(super) fn is_plain(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    !text.is_empty() && text.len() <= 100 && !text.starts_with('.') && text.bytes().all(good)
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Returns the value of a variable, or its default.
fn in_force(given: Given<'_>, variable: &str) -> String {
    let word = |at: usize| given.options.words.get(at).map(String::as_str).filter(|word| !word.is_empty());
    let of_word = match variable {
        "INSTALL_VERSION" => word(0),
        "INSTALL_ARCH" => word(1),
        _ => None,
    };
    if let Some(value) = of_word.or_else(|| given.get(variable)) {
        return value.to_owned();
    }
    let default = match variable {
        "INSTALL_VERSION" => "latest",
        "INSTALL_ARCH" => arch(std::env::consts::ARCH).unwrap_or(std::env::consts::ARCH),
        "INSTALL_PROJECT" => OFFICIAL,
        "INSTALL_GITHUB" => "github.com",
        "INSTALL_DIR" => "/opt/runner",
        "INSTALL_DIRECTORIES" => "/_work",
        "INSTALL_USER" => "runner",
        "INSTALL_LOG" => "2",
        "INSTALL_VERBOSE" => "0",
        "INSTALL_DEPENDENCIES" => "1",
        "INSTALL_TOOL_CACHE" => {
            let others = ["RUNNER_TOOL_CACHE", "AGENT_TOOLSDIRECTORY"];
            others.into_iter().find_map(|other| given.get(other)).unwrap_or("/opt/hostedtoolcache")
        }
        _ => "",
    };
    default.to_owned()
}

pub(super) fn help(given: Given<'_>) -> String {
    let mut text = format!("{USAGE}\nPuts a runner app into an image, with what it needs.\n\n");
    text.push_str(&crate::options::help(&OPTIONS, |option| in_force(given, option.variable)));
    text.push_str("\nVariables without an option:\n");
    let value = |variable: &str| match (variable, in_force(given, variable)) {
        // A secret is never shown, only that it is set.
        ("INSTALL_TOKEN", token) if !token.is_empty() => "set".to_owned(),
        (_, value) => value,
    };
    text.push_str(&crate::options::help_of_variables(&VARIABLES, value));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(args: &[&str], environment: &[(&str, &str)], then: impl Fn(Given<'_>) -> T) -> T {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let options = parse(&args).expect("good usage");
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().map(pair).collect();
        then(Given { options: &options, environment: &environment })
    }

    fn resolve(args: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
        with(args, environment, |given| Settings::resolve(given).map_err(|error| error.to_string()))
    }

    #[test]
    fn without_anything_the_latest_official_app_is_wanted_and_another_may_take_its_place() {
        let settings = resolve(&[], &[]).expect("good");
        assert_eq!((settings.wanted.clone(), settings.app()), (RequestedApp::Latest, App::Official));
        assert_eq!((settings.project(), settings.api.as_str()), ("actions/runner", "https://api.github.com"));
        assert!(settings.is_default() && settings.dependencies && settings.principal.is_none());
        assert_eq!(settings.dir, Path::new("/opt/runner"));
        assert_eq!(settings.directories, [Path::new("/_work")]);
        assert_eq!(
            (settings.user.as_str(), settings.tool_cache.to_str()),
            ("runner", Some("/opt/hostedtoolcache"))
        );
    }

    #[test]
    fn whoever_asks_for_one_gets_no_other() {
        for (args, environment) in [
            (vec!["2.336.0"], vec![]),
            (vec![], vec![("INSTALL_PROJECT", "actions/runner")]),
            (vec![], vec![("INSTALL_PRINCIPAL", "acme")]),
            (vec!["/tmp/a.tar.gz"], vec![]),
        ] {
            assert!(!resolve(&args, &environment).expect("good").is_default(), "{args:?} {environment:?}");
        }
    }

    #[test]
    fn words_win_over_variables_and_versions_lose_their_v() {
        let settings =
            resolve(&["v2.336.0", "aarch64", "-u", "ci"], &[("INSTALL_VERSION", "1.0.0")]).expect("good");
        assert_eq!(settings.wanted, RequestedApp::Version("2.336.0".to_owned()));
        assert_eq!((settings.arch, settings.user.as_str()), ("arm64", "ci"));
        let file = resolve(&["./a.tar.gz"], &[]).expect("good").wanted;
        assert_eq!(file, RequestedApp::File("./a.tar.gz".into()));
    }

    #[test]
    fn the_tool_cache_is_where_jobs_look_for_it() {
        let of = |environment: &[(&str, &str)]| resolve(&[], environment).expect("good").tool_cache;
        let (own, runner, agent) = (
            ("INSTALL_TOOL_CACHE", "/own"),
            ("RUNNER_TOOL_CACHE", "/runner"),
            ("AGENT_TOOLSDIRECTORY", "/agent"),
        );
        assert_eq!(of(&[own, runner, agent]), Path::new("/own"));
        assert_eq!(of(&[runner, agent]), Path::new("/runner"));
        assert_eq!(of(&[agent]), Path::new("/agent"));
    }

    #[test]
    fn forges_and_principals_become_addresses() {
        let of = |forge, principal| {
            let settings = resolve(&[], &[("INSTALL_GITHUB", forge), ("INSTALL_PRINCIPAL", principal)]);
            settings.map(|settings| format!("{}/{}", settings.api, settings.principal.unwrap_or_default()))
        };
        assert_eq!(of("github.com", "a/b").as_deref(), Ok("https://api.github.com/repos/a/b"));
        assert_eq!(of("ghes.local", "acme").as_deref(), Ok("https://ghes.local/api/v3/orgs/acme"));
        let enterprise = of("http://127.0.0.1:8080/", "enterprises/big");
        assert_eq!(enterprise.as_deref(), Ok("http://127.0.0.1:8080/api/v3/enterprises/big"));
    }

    #[test]
    fn wrong_settings_are_named_with_their_value() {
        for (variable, value) in [
            ("INSTALL_VERSION", "newest"),
            ("INSTALL_VERSION", "2.x"),
            ("INSTALL_ARCH", "riscv64"),
            ("INSTALL_PROJECT", "runner"),
            ("INSTALL_PROJECT", "a/../b"),
            ("INSTALL_GITHUB", "https://ghes.local/path"),
            ("INSTALL_PRINCIPAL", "a/b/c"),
            ("INSTALL_SHA256", "abc"),
            ("INSTALL_DIR", "runner"),
            ("INSTALL_DIRECTORIES", "/_work work"),
            ("INSTALL_DEPENDENCIES", "maybe"),
        ] {
            let error =
                resolve(&[], &[(variable, value)]).err().unwrap_or_else(|| panic!("{variable}={value}"));
            assert!(error.starts_with(&format!("{variable} is {value:?}, and ")), "{error}");
        }
    }

    #[test]
    fn the_help_shows_what_is_in_force_and_no_token() {
        let environment = [("INSTALL_TOKEN", "ghp_XXXX"), ("INSTALL_ARCH", "x64")];
        insta::assert_snapshot!(with(&["-h", "2.336.0"], &environment, help), @r"
        usage: dayfly-guest install [OPTIONS] [VERSION|FILE [ARCH]]
        Puts a runner app into an image, with what it needs.

          -l, --log LOG              where lines go: a descriptor's number, or a file [INSTALL_LOG=2]
          -u, --user USER            whose the app is [INSTALL_USER=runner]
          -v, --verbose              show what programs print [INSTALL_VERBOSE=0]
          -h, --help                 this text

        Variables without an option:
          INSTALL_VERSION            latest, a version, or an archive's path [2.336.0]
          INSTALL_ARCH               x64 or arm64 [x64]
          INSTALL_PROJECT            whose releases they are; unset: github-act-runner where that cannot be reached [actions/runner]
          INSTALL_GITHUB             forge of the project: a host or a URL [github.com]
          INSTALL_PRINCIPAL          OWNER/REPO, ORG or enterprises/NAME: take what its runners/downloads names []
          INSTALL_TOKEN              token for the forge (or the file /run/secrets/install_token) [set]
          INSTALL_SHA256             checksum of an archive that is a file (else in FILE.sha256) []
          INSTALL_DIR                where the app comes, in a folder runner-<version> [/opt/runner]
          INSTALL_TOOL_CACHE         where setup actions put tools [/opt/hostedtoolcache]
          INSTALL_DIRECTORIES        further folders of the user, separated by spaces [/_work]
          INSTALL_DEPENDENCIES       1: install what the official app links [1]
          RUNNER_TOOL_CACHE          default of INSTALL_TOOL_CACHE, after it AGENT_TOOLSDIRECTORY []
        ");
    }
}
