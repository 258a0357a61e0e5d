//! `dayfly uninstall`.

use std::path::PathBuf;

use clap::Args;

use super::runner::AccessArgs;
use crate::defaults;

#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Only list each trace, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove without asking
    #[arg(short, long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
    /// Also remove machines that have a job or may have one, and runs whose journal cannot be read
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Also delete the scale sets of the configuration file's pools; another host may use them too
    #[arg(long)]
    pub(crate) scale_sets: bool,
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
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The heading of the options for what is at the forge.
const CREDENTIAL: &str = "Credential for the forge";
