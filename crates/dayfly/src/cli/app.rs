//! `dayfly app`: the GitHub App that dayfly can use in place of a token.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use dayfly_forge::ScopeKind;

use crate::config::{DemandWord, Time};
use crate::defaults;

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Create a GitHub App with the permissions that dayfly needs, and store its key; a browser has to confirm it
    Create(Box<AppCreateArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct AppCreateArgs {
    /// Address of the forge
    #[arg(short = 'g', long, visible_alias = "github", value_name = "URL", default_value = defaults::FORGE_URL)]
    pub(crate) forge: String,
    /// Organisation that owns the App, because its runners or its repositories have runners [default: your own account]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) organization: Option<String>,
    /// Scope of the runners
    #[arg(short, long, value_enum, default_value_t = AppScope::Repo)]
    pub(crate) scope: AppScope,
    /// Sources of the demand for runners, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "static", value_name = "DEMAND")]
    pub(crate) demand: Vec<DemandWord>,
    /// Address to which the forge sends events about jobs, for the demand webhook
    #[arg(long, value_name = "URL")]
    pub(crate) webhook_url: Option<String>,
    /// Name of the App, unique at the forge [default: dayfly and six random characters]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// New file for the private key [default: NAME.pem, as root in /etc/dayfly]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// New file for the secret of the webhook [default: NAME.webhook-secret beside the key]
    #[arg(long, value_name = "FILE")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
    /// Port of the page on 127.0.0.1; 0 chooses a free port
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) port: u16,
    /// How long to wait for the browser, at most an hour
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub(crate) timeout: Time,
    /// Serve no page: print a link to the forge's own form, filled in, and the remaining steps
    #[arg(long, conflicts_with_all = ["port", "timeout"])]
    pub(crate) manual: bool,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The scope of the runners of a GitHub App. GitHub lets no App manage the runners of an enterprise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AppScope {
    /// Repositories
    Repo,
    /// An organisation
    Org,
}

impl AppScope {
    /// Returns the kind of scope that the word names.
    pub(crate) fn kind(self) -> ScopeKind {
        match self {
            Self::Repo => ScopeKind::Repository,
            Self::Org => ScopeKind::Organization,
        }
    }
}
