//! `dayfly validate`, `dayfly init` and `dayfly reload`: the configuration file.

use std::path::PathBuf;

use clap::Args;

use crate::config::{DemandWord, ScopeWord};
use crate::defaults;

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Configuration file
    #[arg(default_value = defaults::CONFIG_FILE)]
    pub(crate) file: PathBuf,
    /// Print JSON instead of text: the problems, and the configuration with all defaults
    #[arg(long)]
    pub(crate) json: bool,
    /// The file is for another host: do not look for its files here, nor compare its pools with the size of this host
    #[arg(long)]
    pub(crate) other_host: bool,
    /// Print the JSON schema of the file, for editors, and check nothing
    #[arg(long, conflicts_with_all = ["file", "json", "other_host"])]
    pub(crate) schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Only the orchestrator that runs from this file [default: all that run from a file]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InitArgs {
    /// Owner of the runners: OWNER/REPO, or the name of the organisation or enterprise
    #[arg(short, long, value_name = "NAME")]
    pub(crate) principal: Option<String>,
    /// Scope of the runners [default: repo if the principal has a slash, else org]
    #[arg(short, long, value_enum)]
    pub(crate) scope: Option<ScopeWord>,
    /// Address of the forge
    #[arg(short = 'g', long, visible_alias = "github", value_name = "URL", default_value = defaults::FORGE_URL)]
    pub(crate) forge: String,
    /// File that contains the token [default: /etc/dayfly/token, unless there is another way to authenticate]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Name of the environment variable that contains the token
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    pub(crate) token_env: Option<String>,
    /// Name of the systemd credential that contains the token
    #[arg(long, value_name = "NAME", conflicts_with_all = ["token_file", "token_env"])]
    pub(crate) token_credential: Option<String>,
    /// Id of a GitHub App
    #[arg(long, value_name = "ID", requires = "key_file", conflicts_with_all = ["token_file", "token_env", "token_credential"])]
    pub(crate) app_id: Option<u64>,
    /// Id of the App's installation
    #[arg(long, value_name = "ID", requires = "app_id")]
    pub(crate) installation: Option<u64>,
    /// File that contains the App's private key
    #[arg(long, value_name = "FILE", requires = "app_id")]
    pub(crate) key_file: Option<PathBuf>,
    /// Name of the pool; workflows ask for its runners by this label
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// Source of the demand for runners [default: scale-set]
    #[arg(long, value_enum)]
    pub(crate) demand: Option<DemandWord>,
    /// Most runners [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u32>,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = defaults::CONFIG_FILE)]
    pub(crate) output: PathBuf,
    /// Replace the file if it exists
    #[arg(short, long)]
    pub(crate) force: bool,
}
