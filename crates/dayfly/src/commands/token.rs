//! `dayfly token`: prints a registration token.

use dayfly_forge::{ApiBase, Forge, ForgeOptions, RunnerScope};
use secrecy::ExposeSecret as _;

use super::runner::request;
use crate::cli::TokenArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::{printer, proxy};

pub(crate) async fn run(args: &TokenArgs, pat_is_an_argument: bool) -> Result<Outcome> {
    if pat_is_an_argument {
        tracing::warn!(
            "-T: every user of this host can read the token among the arguments; give it by TOKEN_PAT or --pat-file"
        );
    }
    let base = ApiBase::with_version(&args.forge, &args.api_version).map_err(Failure::usage)?;
    let scope: RunnerScope = request::scope(&args.scope, args.principal.as_deref())?;
    let pat =
        request::read_pat(args.pat.as_ref(), pat_is_an_argument, args.pat_file.as_deref(), "TOKEN_PAT")?;
    let options = ForgeOptions { proxy: proxy::of(base.url())?, ..ForgeOptions::default() };
    let forge = Forge::with_options(base, pat, &options).map_err(Failure::cannot)?;
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
