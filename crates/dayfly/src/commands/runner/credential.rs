//! Reads the credential for a forge from a command's options: a token, or a GitHub App.

use std::path::Path;

use dayfly_forge::{AppKey, Credential, GithubApp, RunnerScope};
use secrecy::{ExposeSecret as _, SecretString};

use crate::cli::AccessArgs;
use crate::exit::{Failure, Result};
use crate::rules;

/// Longest file with the forge's token, bytes. GitHub's personal tokens have less than 300.
const PAT_FILE_MAX: u64 = 4096;
/// Longest file with a private key, bytes. A key of 4096 bits has about 3300.
const KEY_FILE_MAX: u64 = 16 * 1024;

/// The options of a command that name a credential.
pub(crate) struct CredentialOptions<'a> {
    /// The first word of the command's variables: `RUNNER` or `TOKEN`.
    pub(crate) prefix: &'static str,
    pub(crate) pat: Option<&'a SecretString>,
    pub(crate) pat_file: Option<&'a Path>,
    pub(crate) app_id: Option<&'a str>,
    pub(crate) app_installation: Option<u64>,
    pub(crate) app_key_file: Option<&'a Path>,
    /// Returns true if an option is on the command line, and not only in a variable.
    pub(crate) is_argument: Box<dyn Fn(&str) -> bool + 'a>,
}

impl<'a> CredentialOptions<'a> {
    /// Returns the options whose variables begin with `RUNNER`.
    pub(crate) fn of(access: &'a AccessArgs, is_argument: impl Fn(&str) -> bool + 'a) -> Self {
        Self {
            prefix: "RUNNER",
            pat: access.pat.as_ref(),
            pat_file: access.pat_file.as_deref(),
            app_id: access.app_id.as_deref(),
            app_installation: access.app_installation,
            app_key_file: access.app_key_file.as_deref(),
            is_argument: Box::new(is_argument),
        }
    }
}

/// Returns the credential for the forge. A token and an App exclude each other, but arguments of one win over variables of
/// the other.
///
/// # Errors
/// Neither or both are given, or what is given cannot be used.
pub(crate) fn credential(
    options: &CredentialOptions<'_>,
    scope: &RunnerScope,
    warnings: &mut Vec<String>,
) -> Result<Credential> {
    let prefix = options.prefix;
    let has_token = options.pat.is_some() || options.pat_file.is_some();
    let has_app =
        options.app_id.is_some() || options.app_installation.is_some() || options.app_key_file.is_some();
    let is_argument = |ids: &[&str]| ids.iter().any(|id| (options.is_argument)(id));
    let token_is_argument = is_argument(&["pat", "pat_file"]);
    let app_is_argument = is_argument(&["app_id", "app_installation", "app_key_file"]);
    match (has_token, has_app) {
        (true, false) => token(options, warnings),
        (false, true) => app(options, scope),
        (true, true) if token_is_argument && !app_is_argument => token(options, warnings),
        (true, true) if app_is_argument && !token_is_argument => app(options, scope),
        (true, true) => {
            Err(Failure::usage("a token and a GitHub App were given, but one credential is needed").hint(format!(
                "give either {prefix}_PAT or --pat-file, or --app-id and --app-key-file ({prefix}_APP_ID, \
                 {prefix}_APP_KEY_FILE)"
            )))
        }
        (false, false) => Err(Failure::usage("no token for the forge's API was given").hint(format!(
            "set {prefix}_PAT, give --pat-file FILE, or give --app-id ID and --app-key-file FILE for a GitHub App"
        ))),
    }
}

/// Returns the credential of the token: from the argument, else from the file, else from the variable.
fn token(options: &CredentialOptions<'_>, warnings: &mut Vec<String>) -> Result<Credential> {
    let is_argument = (options.is_argument)("pat");
    if is_argument {
        warnings.push(format!(
            "-T: every user of this host can read the token among the arguments; give it by {}_PAT or --pat-file",
            options.prefix
        ));
    }
    match (options.pat, options.pat_file) {
        (Some(given), None) => token_of(given.clone()),
        (Some(given), Some(_)) if is_argument => token_of(given.clone()),
        (_, Some(file)) => token_in(file),
        (None, None) => token_of(SecretString::default()),
    }
}

/// Returns the credential of a token in a file that only its owner can read.
///
/// # Errors
/// The file cannot be read, is open to others, or does not hold one word.
pub(crate) fn token_in(file: &Path) -> Result<Credential> {
    token_of(rules::read_secret_file(file, "token", PAT_FILE_MAX)?)
}

/// Returns the credential of a token.
///
/// # Errors
/// The text is not one word.
pub(crate) fn token_of(text: SecretString) -> Result<Credential> {
    let token = text.expose_secret().trim();
    if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Failure::usage("the token for the forge's API must be one word"));
    }
    Ok(Credential::token(token))
}

/// Returns the credential of the GitHub App.
fn app(options: &CredentialOptions<'_>, scope: &RunnerScope) -> Result<Credential> {
    let missing = |option: &str, variable: &str| {
        Failure::usage(format!("the GitHub App lacks {option}"))
            .hint(format!("give {option}, or set {}_{variable}", options.prefix))
    };
    let id = options.app_id.ok_or_else(|| missing("--app-id ID", "APP_ID"))?;
    let file = options.app_key_file.ok_or_else(|| missing("--app-key-file FILE", "APP_KEY_FILE"))?;
    app_of(id, options.app_installation, file, vec![scope.clone()]).map(Credential::app)
}

/// Returns a GitHub App whose private key is in a file. `scopes` have the same owner.
///
/// # Errors
/// The file cannot be read, is open to others, or holds no key; or a scope is an enterprise.
pub(crate) fn app_of(
    id: &str,
    installation: Option<u64>,
    key_file: &Path,
    scopes: Vec<RunnerScope>,
) -> Result<GithubApp> {
    let pem = rules::read_secret_file(key_file, "private key", KEY_FILE_MAX)?;
    let key = AppKey::from_pem(pem);
    let key = key.map_err(|error| Failure::usage(format!("cannot use {}: {error}", key_file.display())))?;
    let app = GithubApp::new(id, key, scopes).map_err(Failure::usage)?;
    Ok(match installation {
        Some(installation) => app.installation(installation),
        None => app,
    })
}

#[cfg(test)]
mod tests;
