//! Asks the forges of pools for everything that must be known before the first runner.

use std::time::Duration;

use dayfly_fleet::pool::Group;
use dayfly_forge::{ForgeError, RunnerScope};
use dayfly_host::retry;
use futures_util::{StreamExt as _, stream};

use crate::commands::runner::request::PoolRequest;
use crate::exit::{Failure, Result};
use crate::service::Service;

/// Most pools whose forges are asked at the same time.
const ASKS_AT_ONCE: usize = 32;
/// Most attempts for a pool whose forge answers for other pools. It may be the credential that has no calls left for an hour.
const ATTEMPTS_BESIDE_ANSWERS: u32 = 4;

/// A pool whose forge has answered.
pub(crate) struct AnsweredPool {
    pub(crate) request: PoolRequest,
    pub(super) answer: ForgeAnswer,
}

/// The answer of a pool's forge.
pub(crate) struct ForgeAnswer {
    pub(super) is_lab: bool,
    pub(super) group: Group,
}

/// The answer, or the reason why there is none.
pub(crate) type ForgeReply = std::result::Result<ForgeAnswer, ForgeError>;

/// Pools, each with something of the caller's, by whether their forges have answered.
pub(crate) struct Asked<T> {
    pub(crate) known: Vec<(T, AnsweredPool)>,
    /// Those whose forge gives no answer at the moment, with the reason.
    pub(crate) waiting: Vec<(T, PoolRequest, ForgeError)>,
}

impl<T> Asked<T> {
    /// Sorts pools by the answers of their forges.
    pub(crate) fn sort(pools: Vec<(T, PoolRequest)>, answers: Vec<ForgeReply>) -> Self {
        let mut asked = Self { known: Vec::new(), waiting: Vec::new() };
        for ((own, request), answer) in pools.into_iter().zip(answers) {
            match answer {
                Ok(answer) => asked.known.push((own, AnsweredPool { request, answer })),
                Err(error) => asked.waiting.push((own, request, error)),
            }
        }
        asked
    }
}

/// Asks the forges of pools.
///
/// # Errors
/// One of them cannot be reached, or refuses.
pub(crate) async fn ask(requests: Vec<PoolRequest>) -> Result<Vec<AnsweredPool>> {
    warn(requests.iter());
    let mut known = Vec::new();
    for request in requests {
        let answer = ask_once(&request).await.map_err(failure)?;
        known.push(AnsweredPool { request, answer });
    }
    Ok(known)
}

/// Asks the forges of pools until one of them has answered for all of its pools, without a limit. The log and the service manager
/// learn of each attempt.
///
/// # Errors
/// A forge refuses.
pub(crate) async fn ask_patiently<T>(
    mut pools: Vec<(T, PoolRequest)>,
    service: &Service,
) -> Result<Asked<T>> {
    warn(pools.iter().map(|(_, request)| request));
    let mut asked = Asked { known: Vec::new(), waiting: Vec::new() };
    for failures in 1.. {
        let answers = ask_all(pools.iter().map(|(_, request)| request)).await;
        let Asked { known, mut waiting } = Asked::sort(pools, answers);
        asked.known.extend(known);
        if let Some(at) = waiting.iter().position(|(.., error)| !error.is_temporary()) {
            return Err(failure(waiting.swap_remove(at).2));
        }
        let Some((_, _, error)) =
            waiting.iter().find(|(_, request, _)| is_worth_a_wait(request, &asked, failures))
        else {
            asked.waiting = waiting;
            break;
        };
        // The rule has no last attempt.
        let pause = retry::FORGE_AT_START.pause_after(failures).unwrap_or(retry::FORGE_AT_START.limit);
        service.status(format!("waiting for the forge: {error}"));
        tracing::warn!("{}", waiting_for(error, pause));
        tokio::time::sleep(pause).await;
        pools = waiting.into_iter().map(|(own, request, _)| (own, request)).collect();
    }
    Ok(asked)
}

/// Returns true if a start waits for the answer to this request: no forge has answered yet, or this one answers for other pools,
/// and has not failed for this one too often.
fn is_worth_a_wait<T>(request: &PoolRequest, asked: &Asked<T>, failures: u32) -> bool {
    let is_same = |(_, known): &(T, AnsweredPool)| known.request.spec.forge.url() == request.spec.forge.url();
    asked.known.is_empty() || failures < ATTEMPTS_BESIDE_ANSWERS && asked.known.iter().any(is_same)
}

/// Asks the forges of pools side by side, so that one that is slow does not hold up the others. Returns their answers in the
/// order of the pools.
pub(crate) async fn ask_all(requests: impl Iterator<Item = &PoolRequest>) -> Vec<ForgeReply> {
    stream::iter(requests.map(ask_once)).buffered(ASKS_AT_ONCE).collect().await
}

async fn ask_once(request: &PoolRequest) -> ForgeReply {
    let PoolRequest { spec, forge, .. } = request;
    let is_lab = forge.prove_lab().await?.is_some();
    let id = forge.group_id(&spec.scope, &spec.group).await?;
    // A credential that may create a registration token may register runners in both ways, and creating one changes nothing.
    forge.registration_token(&spec.scope).await?;
    if !spec.allow_public && forge.takes_public_jobs(&spec.scope, &spec.group).await? {
        let group = (!matches!(spec.scope, RunnerScope::Repository { .. })).then(|| spec.group.clone());
        return Err(ForgeError::Public { scope: spec.scope.to_string(), group });
    }
    Ok(ForgeAnswer { is_lab, group: Group { id, name: spec.group.clone() } })
}

fn warn<'a>(requests: impl Iterator<Item = &'a PoolRequest>) {
    for warning in requests.flat_map(|request| &request.warnings) {
        tracing::warn!("{warning}");
    }
}

/// Returns the text about a forge that is waited for.
fn waiting_for(error: &ForgeError, pause: Duration) -> String {
    format!("{error}; the start waits for the forge, next attempt in {} s", pause.as_secs())
}

fn failure(error: ForgeError) -> Failure {
    match error {
        ForgeError::RepositoryGroup { .. } | ForgeError::UnknownGroup { .. } => Failure::usage(error),
        ForgeError::Public { .. } => Failure::usage(error).hint(
            "if that is meant, set allow_public = true for the pool, or give --allow-public; at the forge, let the runs of pull \
             requests from all outside contributors wait for an approval",
        ),
        _ => Failure::cannot(error),
    }
}

#[cfg(test)]
mod tests;
