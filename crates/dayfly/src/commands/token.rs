//! `dayfly token`: prints a registration token.

use dayfly_forge::{ApiBase, RunnerScope};
use secrecy::ExposeSecret as _;

use super::runner::credential::{CredentialOptions, credential};
use super::runner::request;
use crate::cli::TokenArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::{printer, rules};

pub(crate) async fn run(args: &TokenArgs, is_argument: impl Fn(&str) -> bool) -> Result<Outcome> {
    let base = ApiBase::with_version(&args.forge, &args.api_version).map_err(Failure::usage)?;
    let scope: RunnerScope = request::scope(&args.scope, args.principal.as_deref())?;
    let options = CredentialOptions {
        prefix: "TOKEN",
        pat: args.pat.as_ref(),
        pat_file: args.pat_file.as_deref(),
        app_id: args.app_id.as_deref(),
        app_installation: args.app_installation,
        app_key_file: args.app_key_file.as_deref(),
        is_argument: Box::new(is_argument),
    };
    let mut warnings = Vec::new();
    let credential = credential(&options, &scope, &mut warnings)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let authorities = args.ca_file.as_deref().map(rules::authorities).transpose()?;
    let forge = request::forge_client(base, credential, authorities.as_deref())?;
    let token = forge.registration_token(&scope).await.map_err(Failure::cannot)?;
    tracing::info!("the token of {scope} is valid until {}", token.expires_at);
    if args.json {
        printer::json(
            &serde_json::json!({ "token": token.token.expose_secret(), "expires_at": token.expires_at.to_string() }),
        );
    } else {
        printer::line(token.token.expose_secret());
    }
    Ok(Outcome::Success)
}
