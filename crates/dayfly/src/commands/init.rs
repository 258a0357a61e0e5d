//! `dayfly init`: writes a configuration file with one pool, from answers on a terminal or from options.

mod ask;
mod template;

pub(crate) use template::quoted;

use std::io::{IsTerminal as _, stderr, stdin};
use std::path::{Path, PathBuf};

use dayfly_host::file::{self, Existing};

use super::validate;
use crate::cli::InitArgs;
use crate::config::{self, DemandWord, ScopeWord, Surroundings};
use crate::exit::{Failure, Outcome, Result};
use crate::printer;

/// The file of the token, unless another way to authenticate is given.
const TOKEN_FILE: &str = "/etc/dayfly/token";
/// Most runners of the pool.
const MAX: u32 = 4;
/// Name of the pool.
const POOL: &str = "build";

/// The values of the file.
#[derive(Debug)]
struct Plan {
    forge: String,
    /// The keys of the forge's credential, with their values as TOML.
    credential: Vec<(&'static str, String)>,
    scope: ScopeWord,
    principal: String,
    pool: String,
    demand: DemandWord,
    max: u32,
}

pub(crate) fn run(args: &InitArgs) -> Result<Outcome> {
    if !args.force && args.output.symlink_metadata().is_ok() {
        return Err(exists(&args.output));
    }
    let mut args = args.clone();
    if args.principal.is_none() {
        if !stdin().is_terminal() {
            return Err(Failure::usage("no terminal to ask on, and no --principal")
                .hint("give --principal OWNER/REPO, or the name of an organisation; `dayfly init --help` lists the rest"));
        }
        ask::complete(&mut args, &mut stdin().lock(), &mut stderr()).map_err(Failure::usage)?;
    }
    let text = template::render(&plan(&args));
    // The answers are checked by the rules of the file itself, before anything is written.
    let around = Surroundings { is_this_host: false, size: None, guest_folder: PathBuf::from("/") };
    let name = args.output.display().to_string();
    let reading = config::parse(&name, text.as_bytes(), &around);
    if reading.config.is_none() {
        reading.findings.iter().for_each(validate::show);
        return Err(Failure::usage("these values make no good configuration; nothing was written"));
    }
    write(&args.output, &text, args.force)?;
    printer::line(format_args!("wrote {name}"));
    printer::note(next_steps(&args, &name));
    Ok(Outcome::Success)
}

fn plan(args: &InitArgs) -> Plan {
    let principal = args.principal.clone().unwrap_or_default();
    Plan {
        forge: args.forge.clone(),
        credential: credential(args),
        scope: args.scope.unwrap_or_else(|| scope_of(&principal)),
        principal,
        pool: args.pool.clone().unwrap_or_else(|| POOL.to_owned()),
        demand: args.demand.unwrap_or(DemandWord::ScaleSet),
        max: args.max.unwrap_or(MAX),
    }
}

fn scope_of(principal: &str) -> ScopeWord {
    if principal.contains('/') { ScopeWord::Repo } else { ScopeWord::Org }
}

fn credential(args: &InitArgs) -> Vec<(&'static str, String)> {
    let path = |path: &Path| {
        // A service is not started in the folder of the user who wrote the file.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        quoted(&absolute.display().to_string())
    };
    if let (Some(id), Some(key)) = (args.app_id, &args.key_file) {
        let installation = args.installation.map(|id| ("installation", id.to_string()));
        return [("app_id", id.to_string())]
            .into_iter()
            .chain(installation)
            .chain([("key_file", path(key))])
            .collect();
    }
    let one = match (&args.token_env, &args.token_credential) {
        (Some(name), _) => ("token_env", quoted(name)),
        (None, Some(name)) => ("token_credential", quoted(name)),
        (None, None) => ("token_file", path(args.token_file.as_deref().unwrap_or(Path::new(TOKEN_FILE)))),
    };
    vec![one]
}

fn exists(path: &Path) -> Failure {
    Failure::usage(format!("{} exists already", path.display()))
        .hint("give --output FILE, or --force to replace it")
}

/// Writes the file in one step, readable by everyone because it holds no secret. Its folder is created.
fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let failed = |error: std::io::Error| Failure::cannot(format!("cannot write {}: {error}", path.display()));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let existing = if force { Existing::Replace } else { Existing::Keep };
    file::publish(path, text.as_bytes(), existing).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => failed(error),
    })
}

fn next_steps(args: &InitArgs, name: &str) -> String {
    let secret = match (&args.token_env, &args.token_credential, &args.key_file) {
        (Some(variable), ..) => format!("set the variable {variable} to the token"),
        (_, Some(credential), _) => format!("give the unit LoadCredential={credential}:FILE"),
        (_, _, Some(key)) => format!("put the App's private key into {} (mode 0600)", key.display()),
        _ => {
            let file = args.token_file.as_deref().unwrap_or(Path::new(TOKEN_FILE));
            format!("put the token into {} (mode 0600)", file.display())
        }
    };
    let webhook = match args.demand {
        Some(DemandWord::Webhook) => {
            ", `openssl rand -hex 32` into /etc/dayfly/webhook-secret (mode 0600), and create the webhook (docs/scale-sets.md)"
        }
        _ => "",
    };
    format!("next: {secret}{webhook}, then `dayfly validate {name}`")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    /// Runs `dayfly init` with options, and returns its end and the file.
    fn init(folder: &Path, options: &str) -> (Result<Outcome>, PathBuf) {
        let output = folder.join("etc/dayfly.toml");
        let words = ["dayfly", "init", "--output", output.to_str().expect("text")].into_iter();
        let cli = Cli::try_parse_from(words.chain(options.split_whitespace())).expect(options);
        let Command::Init(args) = cli.command else { panic!("not init") };
        (run(&args), output)
    }

    #[test]
    fn the_file_of_any_options_is_good() {
        for options in [
            "--principal acme/app",
            "--principal acme/app --scope repo --token-file /etc/t --demand scale-set --max 4",
            "--principal acme/app --demand poll --token-env GITHUB_TOKEN",
            "--principal big-corp --scope enterprise --demand scale-set --token-credential token",
            "--principal acme/app --demand webhook",
            "--principal acme --demand static --max 999 --app-id 7 --key-file key.pem --forge https://ghes.example",
            "--principal acme --app-id 7 --installation 8 --key-file /k.pem --pool linux-big",
        ] {
            let folder = tempfile::tempdir().expect("folder");
            let (end, file) = init(folder.path(), options);
            assert_eq!(end.expect(options), Outcome::Success);
            let around = Surroundings { is_this_host: false, size: None, guest_folder: "/".into() };
            let reading = config::read(&file, &around).expect("read");
            assert!(
                reading.config.is_some() && reading.findings.is_empty(),
                "{options}: {:?}",
                reading.findings
            );
            assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o644);
        }
    }

    #[test]
    fn a_webhook_has_a_fallback_if_the_scope_allows_one_and_else_a_warning() {
        for (options, demand, warnings) in [
            ("--principal acme/app", "demand = [\"webhook\", \"poll\"]\n", 0),
            ("--principal big-corp --scope enterprise", "demand = \"webhook\"\n", 1),
        ] {
            let folder = tempfile::tempdir().expect("folder");
            let (end, file) = init(folder.path(), &format!("{options} --demand webhook"));
            end.expect(options);
            let text = fs::read_to_string(&file).expect("read");
            assert!(text.contains(demand) && text.contains("[webhook]\n"), "{text}");
            let around = Surroundings { is_this_host: false, size: None, guest_folder: "/".into() };
            let reading = config::read(&file, &around).expect("read");
            assert_eq!((reading.errors(), reading.findings.len()), (0, warnings), "{:?}", reading.findings);
        }
    }

    #[test]
    fn a_file_is_replaced_by_force_only() {
        let folder = tempfile::tempdir().expect("folder");
        let (end, file) = init(folder.path(), "--principal acme/app");
        end.expect("written");
        fs::write(&file, "mine").expect("write");
        let (end, _) = init(folder.path(), "--principal acme/app");
        let refusal = end.expect_err("refused");
        assert_eq!((refusal.code(), fs::read_to_string(&file).expect("read").as_str()), (2, "mine"));
        let (end, _) = init(folder.path(), "--principal acme/app --force");
        end.expect("replaced");
        assert!(fs::read_to_string(&file).expect("read").contains("acme/app"));
        assert_eq!(
            fs::read_dir(file.parent().expect("a folder")).expect("read").count(),
            1,
            "nothing else is left"
        );
    }

    #[test]
    fn values_that_the_file_refuses_write_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        for options in [
            "--principal acme/app/x",
            "--principal acme --scope repo",
            "--principal acme --max 0",
            "--principal acme --pool a/b",
            "--principal acme --token-env ghp_abc",
            "--principal acme --forge ftp://x",
        ] {
            let (end, file) = init(folder.path(), options);
            assert_eq!(end.expect_err(options).code(), 2);
            assert!(!file.exists(), "{options}");
        }
    }
}
