//! The server for webhooks, which all pools of a file share.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dayfly_fleet::demand::WEBHOOK;
use dayfly_fleet::fact::Fact;
use dayfly_fleet::stream::FactSink;
use dayfly_forge::webhook::{WebhookOptions, WebhookQueues, WebhookSecret, WebhookServer, WebhookTls};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::file::secret_at;
use crate::commands::runner::request::WebhookRequest;
use crate::config::{CertificatePlace, WebhookConfig};
use crate::exit::{Failure, Result};
use crate::rules;

/// Longest file with a certificate and its chain, or with a private key, bytes.
const PEM_FILE_MAX: u64 = 256 * 1024;
/// Time between two looks for a renewed certificate.
const RENEWAL_LOOK: Duration = Duration::from_secs(600);
/// Most texts about troubles that wait to be told. There is one a minute.
const TROUBLES_MAX: usize = 4;

/// A server that has its port and does not serve yet.
pub(super) struct Webhook {
    server: WebhookServer,
    queues: WebhookQueues,
    url: String,
    renewal: Option<Renewal>,
}

/// Subscribes pools to the deliveries of a server.
#[derive(Debug, Clone)]
pub(super) struct WebhookSubscriber {
    queues: WebhookQueues,
    url: String,
}

/// A server that serves. It ends when this is dropped.
pub(super) struct Serving {
    tasks: JoinSet<()>,
    stop: oneshot::Sender<()>,
    troubles: mpsc::Receiver<String>,
}

/// Takes the port, and reads the secret and the certificate.
///
/// # Errors
/// One of them cannot be used.
pub(super) fn listen(config: &WebhookConfig) -> Result<Webhook> {
    let secret = secret(config).map_err(|failure| failure.at("webhook"))?;
    let renewal = config.certificate.as_ref().map(Renewal::new).transpose();
    let renewal = renewal.map_err(|failure| failure.at("webhook"))?;
    let options = WebhookOptions {
        path: config.path.clone(),
        secret,
        requests_per_second: config.rate_limit,
        tls: renewal.as_ref().map(|renewal| renewal.current.subscribe()),
    };
    let queues = WebhookQueues::default();
    let server = WebhookServer::bind(config.listen, options, queues.clone()).map_err(|error| {
        Failure::cannot(format!("cannot listen for webhooks at {}: {error}", config.listen))
            .hint("stop the program that has the port (`ss -ltnp` shows it), or change webhook.listen")
    })?;
    Ok(Webhook { url: server.url(), server, queues, renewal })
}

fn secret(config: &WebhookConfig) -> Result<WebhookSecret> {
    let text = secret_at(&config.secret, "webhook's secret")?;
    let secret = text.expose_secret().trim();
    if secret.chars().any(char::is_control) {
        return Err(Failure::usage("the webhook's secret must be one line"));
    }
    WebhookSecret::new(secret.into()).ok_or_else(|| {
        Failure::usage("the webhook's secret is empty").hint("`openssl rand -hex 32` makes one")
    })
}

impl Webhook {
    /// Returns the subscriber, for pools that are there from the start and for those that come later.
    pub(super) fn subscriber(&self) -> WebhookSubscriber {
        WebhookSubscriber { queues: self.queues.clone(), url: self.url.clone() }
    }

    /// Starts to serve.
    pub(super) fn start(self) -> Serving {
        let (stop, stopped) = oneshot::channel();
        let (sender, troubles) = mpsc::channel(TROUBLES_MAX);
        let mut tasks = JoinSet::new();
        if let Some(renewal) = self.renewal {
            tasks.spawn(renewal.follow(sender.clone()));
        }
        tasks.spawn(self.server.serve(sender, async move { drop(stopped.await) }));
        Serving { tasks, stop, troubles }
    }
}

impl WebhookSubscriber {
    /// Returns a request for the deliveries, from now on.
    pub(super) fn request(&self) -> WebhookRequest {
        WebhookRequest { queue: self.queues.subscribe(), url: self.url.clone() }
    }
}

/// Runs `work`, and meanwhile tells about the troubles of the server. Stops the server when the work is done.
pub(super) async fn beside<T>(
    serving: Option<Serving>,
    facts: &FactSink,
    work: impl Future<Output = T>,
) -> T {
    let Some(Serving { mut tasks, stop, mut troubles }) = serving else { return work.await };
    // No pool has this number alone: the server is that of all pools.
    let mut facts = facts.of_loop(0);
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            Some(message) = troubles.recv() => {
                facts.tell(Fact::SourceTrouble { source: WEBHOOK.to_owned(), message }).await;
            }
        }
    };
    let _ = stop.send(());
    // The server ends within two seconds; a look for a certificate never does.
    let _ = tasks.join_next().await;
    tasks.shutdown().await;
    done
}

/// A certificate that another program renews.
struct Renewal {
    place: CertificatePlace,
    current: watch::Sender<WebhookTls>,
    /// Times of the last changes of the certificate's file and of the key's.
    changed: [Option<SystemTime>; 2],
}

impl Renewal {
    fn new(place: &CertificatePlace) -> Result<Self> {
        let changed = Self::changes(place);
        Ok(Self { place: place.clone(), current: watch::channel(certificate(place)?).0, changed })
    }

    fn changes(place: &CertificatePlace) -> [Option<SystemTime>; 2] {
        [&place.cert_file, &place.key_file]
            .map(|file| fs::metadata(file).and_then(|found| found.modified()).ok())
    }

    /// Looks for new files until it is dropped.
    async fn follow(mut self, troubles: mpsc::Sender<String>) {
        loop {
            tokio::time::sleep(RENEWAL_LOOK).await;
            if let Err(failure) = self.look() {
                let message = format!("the certificate has changed, and the old one serves on: {failure}");
                let _ = troubles.try_send(message);
            }
        }
    }

    /// Reads the files again if they have changed. Until new ones can be read, the old certificate serves.
    fn look(&mut self) -> Result<()> {
        let changed = Self::changes(&self.place);
        if changed != self.changed {
            self.changed = changed;
            self.current.send_replace(certificate(&self.place)?);
        }
        Ok(())
    }
}

fn certificate(place: &CertificatePlace) -> Result<WebhookTls> {
    let chain = read(&place.cert_file)?;
    let key: SecretString = rules::read_secret_file(&place.key_file, "private key", PEM_FILE_MAX)?;
    WebhookTls::from_pem(&chain, key.expose_secret().as_bytes()).map_err(|error| {
        Failure::usage(format!(
            "cannot use {} with {}: {error}",
            place.cert_file.display(),
            place.key_file.display()
        ))
    })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let failed = |error| Failure::usage(format!("cannot read the certificate {}: {error}", file.display()));
    let mut bytes = Vec::new();
    fs::File::open(file).map_err(failed)?.take(PEM_FILE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
