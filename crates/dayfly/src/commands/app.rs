//! `dayfly app create`: creates a GitHub App with exactly the permissions that dayfly needs, and stores its private key.
//!
//! ```text
//! page on 127.0.0.1 ──form: manifest, state──> forge ──code, state──> callback ──> the forge's answer: id, key ──> files
//! ```
//!
//! A browser has to confirm it, on this host or through `ssh -L`. `--manual` prints a link to the forge's own form instead.

mod create;
mod files;
mod page;
mod server;

use crate::cli::{AppCommand, AppCreateArgs};
use crate::exit::{Outcome, Result};
use create::Plan;

pub(crate) async fn run(command: AppCommand) -> Result<Outcome> {
    let AppCommand::Create(args) = command;
    let AppCreateArgs { manual, json, .. } = *args;
    let plan = Plan::read(&args)?;
    match manual {
        true => create::print_steps(&plan, json),
        false => create::by_browser(&plan, args.port, args.timeout.0, json).await,
    }
}
