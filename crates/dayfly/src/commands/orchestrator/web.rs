//! The server for the page and the metrics of an orchestrator: its address, its token, and the pools that it shows.

use std::path::Path;
use std::sync::Arc;

use dayfly_fleet::orchestrator::Budget;
use dayfly_traces::TraceCounts;
use dayfly_web::{
    Access, ForgeAccount, ListenAddress, PoolEntry, Publisher, Site, TOKEN_LENGTH_MIN, WebServer, channel,
    router,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::file::{self, secret_at};
use super::reload::KnownPool;
use crate::cli::OrchestratorArgs;
use crate::config::{PoolConfig, SecretPlace, WebConfig};
use crate::exit::{Failure, Result};

/// A server that has its address, and does not serve yet.
pub(super) struct Web {
    server: WebServer,
    access: Access,
}

/// The ends that get what the server shows.
pub(super) struct Feed {
    /// For facts and the status.
    pub(super) publisher: Publisher,
    /// For the pools.
    pub(super) site: watch::Sender<Arc<Site>>,
}

/// A server that serves. It ends when this is dropped.
pub(super) struct Serving {
    tasks: JoinSet<()>,
    stop: oneshot::Sender<()>,
}

/// Takes the address that the options name, or else the file; none if neither does.
///
/// # Errors
/// The address is taken or is not one of this host; the token is missing, too short, or readable by others.
pub(super) fn listen(args: &OrchestratorArgs, config: Option<&WebConfig>) -> Result<Option<Web>> {
    let (address, token_file, key) = match (&args.listen, config) {
        (Some(address), _) => (address, args.listen_token.as_deref(), "--listen"),
        (None, Some(WebConfig { listen, token_file })) => (listen, token_file.as_deref(), "web.listen"),
        (None, None) => return Ok(None),
    };
    open(address, token_file, key).map(Some)
}

/// Takes an address. `key` is the option or the key that has named it.
fn open(address: &ListenAddress, token_file: Option<&Path>, key: &str) -> Result<Web> {
    let token = token_file.map(token_in).transpose()?;
    let access = Access::new(address, token).ok_or_else(|| needs_token(address, token_file))?;
    let server = WebServer::bind(address).map_err(|error| {
        Failure::cannot(error)
            .hint(format!("stop the program that has the address (`ss -ltnxp` shows it), or change {key}"))
    })?;
    Ok(Web { server, access })
}

fn token_in(file: &Path) -> Result<SecretString> {
    let text = secret_at(&SecretPlace::File(file.to_owned()), "token of the server")?;
    let token = text.expose_secret().trim();
    if token.chars().any(char::is_control) {
        return Err(Failure::usage(format!("the token in {} must be one line", file.display())));
    }
    Ok(token.into())
}

fn needs_token(address: &ListenAddress, token_file: Option<&Path>) -> Failure {
    let failure = match token_file {
        None => Failure::usage(format!("{address} can be reached from other hosts, and there is no token")),
        Some(file) => Failure::usage(format!(
            "the token in {} is too short: it must have {TOKEN_LENGTH_MIN} characters",
            file.display()
        )),
    };
    failure
        .hint("`openssl rand -hex 32` makes a token; give its file with --listen-token, or as web.token_file")
}

impl Web {
    /// Starts to serve. `traces` is none if no traces are sent.
    pub(super) fn start(self, state: &Path, traces: Option<TraceCounts>) -> (Serving, Feed) {
        let Self { server, access } = self;
        if let Some(address) = server.address() {
            tracing::info!("page and metrics are at {}", address.url());
        }
        let (publisher, site, published) = channel(Site::default(), state, traces);
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(router(published, access), async move { drop(stopped.await) }));
        (Serving { tasks, stop }, Feed { publisher, site })
    }
}

/// Runs `work` while the server serves. Stops the server when the work is done.
pub(super) async fn beside<T>(serving: Option<Serving>, work: impl Future<Output = T>) -> T {
    let done = work.await;
    if let Some(Serving { mut tasks, stop }) = serving {
        let _ = stop.send(());
        // It ends within two seconds. A panic of it has been reported, and ends no runner.
        let _ = tasks.join_next().await;
    }
    done
}

/// Returns the pools and the credentials that are in use.
pub(super) fn site_of(pools: &[KnownPool], budget: Budget) -> Site {
    let mut site = Site { budget, ..Site::default() };
    for KnownPool { text, pool, .. } in pools {
        site.pools.push(entry_of(&text.config));
        let name = account_of(&text.config);
        if site.forges.iter().all(|forge| forge.name != name) {
            site.forges.push(ForgeAccount { name, credential: pool.forge.credential().clone() });
        }
    }
    site
}

fn entry_of(config: &PoolConfig) -> PoolEntry {
    PoolEntry {
        name: config.name.clone(),
        scale_set: config.scale_set.clone(),
        scope: config.spec.scope.clone(),
        min_idle: config.min_idle,
        max: config.max,
        vcpus: config.spec.machine.cpus,
        memory_mib: config.spec.machine.memory_mib,
    }
}

/// Returns the name of a pool's credential: that of its forge in the file, and the owner of its runners.
fn account_of(config: &PoolConfig) -> String {
    match file::holder(config) {
        (forge, owner) if forge.is_empty() => owner,
        (forge, owner) => format!("{forge}/{owner}"),
    }
}

#[cfg(test)]
mod tests;
