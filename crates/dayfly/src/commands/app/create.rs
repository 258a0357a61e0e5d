//! The steps of `dayfly app create`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use dayfly_forge::proof::Nonce;
use dayfly_forge::{ApiBase, AppManifest, Credential, Forge, ForgeError, ForgeUse, NewApp, Url};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::files::{SecretFiles, store};
use super::page;
use super::server::{self, Callback, Desk};
use crate::cli::{AppCreateArgs, AppScope};
use crate::commands::init::quoted;
use crate::commands::runner::request::forge_client;
use crate::config::DemandWord;
use crate::defaults::FORGE_URL;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::units::span;

/// Longest wait for the browser. A code of the forge serves for an hour, and so does this page.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Random characters in the default name.
const NAME_DIGITS: usize = 6;

/// The checked options.
pub(super) struct Plan {
    manifest: AppManifest,
    base: ApiBase,
    files: SecretFiles,
}

/// An App whose secrets are in their files.
struct Stored {
    app: NewApp,
    has_webhook_secret: bool,
}

impl Plan {
    /// Checks the options.
    ///
    /// # Errors
    /// An option is wrong, or a file cannot be created. Nothing was created yet.
    pub(super) fn read(args: &AppCreateArgs) -> Result<Self> {
        let base = ApiBase::from_host_or_url(&args.forge).map_err(Failure::usage)?;
        if args.timeout.0 > TIMEOUT_MAX {
            return Err(Failure::usage(
                "--timeout is longer than an hour, for which the forge keeps its answer",
            ));
        }
        if args.scope == AppScope::Org && args.organization.is_none() {
            return Err(Failure::usage(
                "an App for the runners of an organisation has to belong to the organisation",
            )
            .hint("give --organization NAME"));
        }
        let name = args
            .name
            .clone()
            .unwrap_or_else(|| format!("dayfly-{}", &Nonce::random().as_str()[..NAME_DIGITS]));
        if !AppManifest::is_name(&name) {
            return Err(Failure::usage(format!("{name:?} is no name of an App: it has 1 to 34 characters")));
        }
        let webhook = webhook(args)?;
        let files = SecretFiles::new(&name, args.key_file.as_deref(), args.webhook_secret_file.as_deref())?;
        if !args.manual {
            files.check(webhook.is_some())?;
        }
        let (organization, uses) = (args.organization.clone(), uses(args));
        Ok(Self { manifest: AppManifest { name, organization, uses, webhook }, base, files })
    }

    /// Returns the lines for the configuration file.
    fn lines(&self, app_id: &str) -> String {
        let web = self.base.web_url();
        let url = if web == FORGE_URL { String::new() } else { format!("url = {}\n", quoted(&web)) };
        let key_file = quoted(&self.files.key.display().to_string());
        let webhook = match &self.manifest.webhook {
            Some(_) => {
                let secret_file = quoted(&self.files.webhook_secret.display().to_string());
                format!("\n\n[webhook]\nlisten = \"127.0.0.1:9440\"\nsecret_file = {secret_file}")
            }
            None => String::new(),
        };
        format!("[forges.main]\n{url}app_id = {app_id}\nkey_file = {key_file}{webhook}")
    }
}

fn uses(args: &AppCreateArgs) -> Vec<ForgeUse> {
    let reads_jobs = args.demand.iter().any(|word| matches!(word, DemandWord::Poll | DemandWord::Webhook));
    let runners = ForgeUse::Runners(args.scope.kind());
    std::iter::once(runners).chain(reads_jobs.then_some(ForgeUse::Jobs)).collect()
}

/// Returns the address of the webhook; none without the demand `webhook`.
fn webhook(args: &AppCreateArgs) -> Result<Option<Url>> {
    match (&args.webhook_url, args.demand.contains(&DemandWord::Webhook)) {
        (None, false) => Ok(None),
        (Some(text), true) => {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let refused =
                || Failure::usage(format!("--webhook-url {text:?} is no address that begins with https://"));
            url.map(Some).ok_or_else(refused)
        }
        (None, true) => Err(Failure::usage("the demand webhook needs --webhook-url").hint(
            "it is the address at which the forge reaches dayfly, e.g. https://ci.example.com/webhook",
        )),
        (Some(_), false) => Err(Failure::usage("--webhook-url is for --demand webhook")),
    }
}

/// Prints how to create the App without a page of dayfly.
pub(super) fn print_steps(plan: &Plan, json: bool) -> Result<Outcome> {
    let url = plan.manifest.prefilled_url(&plan.base).map_err(Failure::usage)?;
    let key_file = plan.files.key.display().to_string();
    if json {
        printer::json(&json!({"event": "manual", "url": url.as_str(), "key_file": key_file}));
    } else {
        printer::line(steps(plan, &url));
    }
    Ok(Outcome::Success)
}

fn steps(plan: &Plan, url: &Url) -> String {
    let (web, key, lines) = (plan.base.web_url(), plan.files.key.display(), plan.lines("APP_ID"));
    let secret = match &plan.manifest.webhook {
        Some(_) => format!(
            "   Enter a webhook secret: a random text of your choice. Store it in {} too.\n",
            plan.files.webhook_secret.display()
        ),
        None => String::new(),
    };
    format!(
        "1. Open this address in any browser where you are signed in at {web}, and press \"Create GitHub App\":\n\n   {url}\n\n\
         {secret}2. Note the App ID on the page that follows, and press \"Generate a private key\" there.\n\
         3. Copy the downloaded file to this host: install -m 600 DOWNLOADED.pem {key}\n\
         4. Press \"Install App\" on the App's page.\n\
         5. Write into dayfly.toml, with the App ID:\n\n{lines}"
    )
}

/// Serves the page, waits for the browser, and stores what the forge answers.
pub(super) async fn by_browser(plan: &Plan, port: u16, timeout: Duration, json: bool) -> Result<Outcome> {
    let forge = forge_client(plan.base.clone(), Credential::token(""), None)?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| {
        let failure = Failure::cannot(format!("cannot listen on 127.0.0.1:{port}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.hint("another program has this port; leave --port out for a free one")
            }
            _ => failure,
        }
    })?;
    let port = listener.local_addr().map_err(Failure::cannot)?.port();
    let (callbacks, mut given) = mpsc::channel(1);
    let nonce = Nonce::random().as_str().to_owned();
    let desk = Arc::new(desk(plan, port, &nonce, callbacks)?);
    announce(plan, port, timeout, json);
    let (end, ended) = oneshot::channel();
    let work = async {
        let outcome = wait_and_store(plan, &forge, &desk, &mut given, timeout, &nonce).await;
        let _ = end.send(());
        outcome
    };
    let ((), stored) = tokio::join!(server::serve(listener, server::router(desk.clone()), ended), work);
    tell(plan, &stored?, json);
    Ok(Outcome::Success)
}

fn desk(plan: &Plan, port: u16, nonce: &str, callbacks: mpsc::Sender<Callback>) -> Result<Desk> {
    let state = Nonce::random();
    let manifest = plan.manifest.to_json(&format!("http://127.0.0.1:{port}/callback")).to_string();
    let form_url = plan.manifest.form_url(&plan.base, state.as_str()).map_err(Failure::usage)?;
    let web = plan.base.web_url();
    let form = page::form(nonce, &plan.manifest, &manifest, form_url.as_str(), &web);
    let desk = Desk::new(form, nonce.to_owned(), state.as_str().into(), &web, callbacks);
    desk.ok_or_else(|| Failure::usage(format!("{web} cannot be in a header of a page")))
}

fn announce(plan: &Plan, port: u16, timeout: Duration, json: bool) {
    let url = format!("http://127.0.0.1:{port}/");
    if json {
        return printer::json(&json!({"event": "listening", "url": url, "name": plan.manifest.name}));
    }
    printer::line(format_args!("open this page in a browser: {}", paint(style::NAME, &url)));
    printer::note(format_args!(
        "If the browser is on another computer, run this there first and leave it open: ssh -L {port}:127.0.0.1:{port} THIS-HOST\n\
         Without any way to reach this host, take `--manual`. dayfly waits for {}; Ctrl-C stops it.",
        span(timeout)
    ));
}

/// Waits for the browser to come back, and exchanges its code. The browser gets the outcome, too.
async fn wait_and_store(
    plan: &Plan,
    forge: &Forge,
    desk: &Desk,
    given: &mut mpsc::Receiver<Callback>,
    timeout: Duration,
    nonce: &str,
) -> Result<Stored> {
    let callback = tokio::select! {
        callback = given.recv() => callback,
        () = desk.gave_up.notified() => {
            let why = format!("{} callbacks had a wrong state, so another program calls this page", server::WRONG_STATES_MAX);
            return Err(Failure::cannot(why).hint("start again; the port is another one then"));
        }
        () = tokio::time::sleep(timeout) => None,
    };
    let Some(Callback { code, reply }) = callback else {
        let why = format!(
            "no browser has confirmed the App within {}; none was created by this page",
            span(timeout)
        );
        return Err(Failure::cannot(why).hint("start again, or take --manual"));
    };
    let stored = exchange(plan, forge, &code).await;
    let answer = match &stored {
        Ok(stored) => {
            let install = stored.app.install_page(&plan.base);
            (StatusCode::OK, page::created(nonce, &install, &plan.files.key.display().to_string()))
        }
        Err(failure) => (StatusCode::BAD_GATEWAY, page::failed(nonce, &failure.to_string())),
    };
    let _ = reply.send(answer);
    stored
}

async fn exchange(plan: &Plan, forge: &Forge, code: &str) -> Result<Stored> {
    let app = forge.convert_manifest(code).await.map_err(|error| match error {
        ForgeError::NotFound { message, .. } => {
            Failure::cannot(format!("the forge does not know the code that the browser brought, or it was used ({message})"))
                .hint("start again; if the App exists already, delete it on its settings page, or generate a key there")
        }
        error => Failure::cannot(error)
            .hint("the App may exist: generate a private key on its settings page, or delete it there and start again"),
    })?;
    let lost = |why: String| {
        Failure::cannot(format!("the App {} exists, but dayfly has no key of it: {why}", app.id)).hint(
            format!("generate a private key on its settings page, which {} leads to", app.page(&plan.base)),
        )
    };
    store(&plan.files.key, &app.pem).map_err(lost)?;
    let secret = app.webhook_secret.as_ref().filter(|_| plan.manifest.webhook.is_some());
    if let Some(secret) = secret {
        store(&plan.files.webhook_secret, secret).map_err(|why| {
            Failure::cannot(format!(
                "the App {} exists, but the secret of its webhook is not stored: {why}",
                app.id
            ))
            .hint("set another webhook secret on the App's settings page")
        })?;
    }
    let has_webhook_secret = secret.is_some();
    Ok(Stored { app, has_webhook_secret })
}

fn tell(plan: &Plan, stored: &Stored, json: bool) {
    let Stored { app, has_webhook_secret } = stored;
    let install = app.install_page(&plan.base);
    let secret_file = has_webhook_secret.then(|| plan.files.webhook_secret.display().to_string());
    if json {
        return printer::json(&json!({
            "event": "created",
            "app_id": app.id,
            "client_id": app.client_id,
            "slug": app.slug,
            "page": app.page(&plan.base),
            "install_page": install,
            "key_file": plan.files.key.display().to_string(),
            "webhook_secret_file": secret_file,
        }));
    }
    printer::line(format_args!("created the GitHub App {} with the id {}", plain(&app.slug), app.id));
    printer::line(format_args!("its private key is in {}", paint(style::NAME, plan.files.key.display())));
    if let Some(file) = secret_file {
        printer::line(format_args!("the secret of its webhook is in {}", paint(style::NAME, file)));
    }
    printer::line(format_args!("install it now: {}", paint(style::NAME, plain(&install))));
    printer::line(format_args!("lines for dayfly.toml:\n\n{}", plan.lines(&app.id.to_string())));
    printer::note("then check it: dayfly doctor --forge");
}

/// Returns a text of the forge without characters that could steer a terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests;
