//! A lab that serves inside this process, for the commands that bring their own forge.

use std::time::Duration;

use dayfly_forge::{ApiBase, Forge};
use dayfly_lab::{Lab, LabError, LabSettings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::exit::{Failure, Result};

/// Longest wait for the lab's last answers.
const LAB_END: Duration = Duration::from_secs(5);

/// A lab that serves inside this process.
pub(crate) struct PrivateLab {
    pub(crate) lab: Lab,
    /// A client of its admin.
    pub(crate) forge: Forge,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<std::result::Result<(), LabError>>,
}

impl PrivateLab {
    /// Starts a lab on a free port of this host.
    ///
    /// # Errors
    /// Its folder cannot be used, or there is no port.
    pub(crate) async fn open(settings: LabSettings) -> Result<Self> {
        let lab = Lab::open(settings).map_err(Failure::cannot)?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| Failure::cannot(format!("the lab cannot listen on 127.0.0.1: {error}")))?;
        let address = listener.local_addr().map_err(Failure::cannot)?;
        let (shutdown, ended) = oneshot::channel::<()>();
        let serving = lab.clone();
        let served = tokio::spawn(async move {
            serving
                .serve(listener, async {
                    let _ = ended.await;
                })
                .await
        });
        let base = ApiBase::from_host_or_url(&format!("http://{address}")).map_err(Failure::cannot)?;
        let forge = Forge::new(base, lab.token().clone()).map_err(Failure::cannot)?;
        Ok(Self { lab, forge, shutdown, served })
    }

    /// Stops the lab.
    pub(crate) async fn end(self) {
        let _ = self.shutdown.send(());
        let mut served = self.served;
        if tokio::time::timeout(LAB_END, &mut served).await.is_err() {
            served.abort();
        }
    }
}
