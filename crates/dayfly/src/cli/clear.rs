//! `dayfly clear`.

use std::path::PathBuf;

use clap::Args;

use super::names;
use super::runner::AccessArgs;
use crate::defaults;

#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    /// Instances to clear, as `dayfly ps` names them; the beginning of a name suffices
    #[arg(required_unless_present = "all", value_name = "INSTANCE", add = names::instances())]
    pub(crate) instances: Vec<String>,
    /// Clear all instances whose process has died, and the folders of soaks that were killed
    #[arg(long, conflicts_with = "instances")]
    pub(crate) all: bool,
    /// Also remove machines that have a job or may have one, and runs whose journal cannot be read
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) deletes: DeletesArgs,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The forges at which something is deleted, and the credentials for it.
#[derive(Debug, Args)]
pub(crate) struct DeletesArgs {
    /// Configuration file whose credentials delete what is at the forge
    /// [default: /etc/dayfly/dayfly.toml, if it exists and no other option names the owner of runners]
    #[arg(long, value_name = "FILE", help_heading = CREDENTIAL)]
    pub(crate) config: Option<PathBuf>,
    /// Forge of the registrations to delete, without a configuration file: a host or a URL
    #[arg(
        short = 'g',
        long = "github",
        visible_alias = "forge",
        env = "RUNNER_GITHUB",
        default_value = defaults::FORGE_HOST,
        value_name = "FORGE",
        help_heading = CREDENTIAL
    )]
    pub(crate) address: String,
    #[command(flatten, next_help_heading = CREDENTIAL)]
    pub(crate) access: AccessArgs,
}

/// The heading of these options.
const CREDENTIAL: &str = "Credential for the forge";
