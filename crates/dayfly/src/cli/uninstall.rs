//! `dayfly uninstall`.

use clap::Args;

use super::clear::DeletesArgs;

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
    #[command(flatten)]
    pub(crate) deletes: DeletesArgs,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
