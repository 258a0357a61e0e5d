//! `dayfly token`: prints a registration token for a runner that the user starts without dayfly.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;

use crate::defaults;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct TokenArgs {
    /// Forge of the runners: a host or a URL
    #[arg(
        short = 'g',
        long = "github",
        visible_alias = "forge",
        env = "TOKEN_GITHUB",
        default_value = defaults::FORGE_HOST,
        value_name = "FORGE"
    )]
    pub(crate) forge: String,
    /// Scope of the runners: repo, org or enterprise (the first three letters suffice)
    #[arg(short, long, env = "TOKEN_SCOPE", default_value = "repo")]
    pub(crate) scope: String,
    /// Owner of the runners: OWNER/REPO, or the name of the organisation or enterprise
    #[arg(short, long, env = "TOKEN_PRINCIPAL", value_name = "NAME")]
    pub(crate) principal: Option<String>,
    /// Token for the forge's API; prefer TOKEN_PAT or --pat-file, because every user of this host can read arguments
    #[arg(short = 'T', long = "pat", visible_alias = "token", env = "TOKEN_PAT", hide_env_values = true)]
    pub(crate) pat: Option<SecretString>,
    /// File that contains the token; only its owner may be able to read it
    #[arg(long, value_name = "FILE")]
    pub(crate) pat_file: Option<PathBuf>,
    /// GitHub App in place of a token: its app id or client id
    #[arg(long, env = "TOKEN_APP_ID", value_name = "ID")]
    pub(crate) app_id: Option<String>,
    /// Installation of the GitHub App [default: the one for the owner of the runners]
    #[arg(long, env = "TOKEN_APP_INSTALLATION", value_name = "ID")]
    pub(crate) app_installation: Option<u64>,
    /// File that contains the private key of the GitHub App; only its owner may be able to read it
    #[arg(long, env = "TOKEN_APP_KEY_FILE", value_name = "FILE")]
    pub(crate) app_key_file: Option<PathBuf>,
    /// File with certificates of authorities (PEM) that are trusted beside the system's
    #[arg(long, env = "TOKEN_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// API version in the path, for forges other than github.com
    #[arg(long, env = "TOKEN_API_VERSION", default_value = "v3", value_name = "VERSION")]
    pub(crate) api_version: String,
    /// Write log lines to this destination: a number is an open descriptor, anything else is a file
    #[arg(short, long, env = "TOKEN_LOG", default_value = "2", value_name = "FD|FILE")]
    pub(crate) log: String,
    /// Set the verbosity of the log: 0 warnings and errors, 1 info, 2 debug, 3 trace; -v counts up from 0
    #[arg(long, env = "TOKEN_VERBOSE", default_value_t = 0, value_name = "0..3")]
    pub(crate) verbosity: u8,
    /// Print the token and its time of expiry as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a short help with each option's variable and its current value
    #[arg(short = 'h')]
    pub(crate) short_help: bool,
    /// Print the long help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

/// Variables of this command that have no option.
pub(crate) const VARIABLES: &[(&str, &str)] =
    &[("HTTPS_PROXY", "a proxy for the forge, also as https_proxy; NO_PROXY lists hosts without one")];
