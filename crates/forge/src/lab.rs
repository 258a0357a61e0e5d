//! Calls that only a lab understands.

use std::time::Duration;

use reqwest::Method;

use super::Forge;
use super::error::ForgeError;
use super::request::Call;
use super::running_lab::{Disbelief, token_of_running_lab};
use crate::proof::{Nonce, ProofAnswer, mac};
use subtle::ConstantTimeEq as _;

const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Longest time to read the files that an answer names. They may be on a file system that does not respond.
const FILES_WAIT: Duration = Duration::from_secs(5);

/// A lab that runs on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenLab {
    /// The address at which guests of QEMU's user network reach the lab: `http://10.0.2.2:PORT`, or the address that its
    /// owner has set.
    pub runner_url: String,
}

impl Forge {
    /// Asks the forge to prove that it is a lab on this host. The forge names the file of its token and answers a
    /// challenge with a MAC that can be computed only with the file's content. The file must be private, it must belong
    /// to this user or root, and a running lab must hold the lock file beside it. The call does not send this client's
    /// token. Returns `None` if the forge is not a lab or did not prove it; a failed proof is logged.
    ///
    /// # Errors
    /// A temporary [`ForgeError`], for example if the forge does not answer.
    pub async fn prove_lab(&self) -> Result<Option<ProvenLab>, ForgeError> {
        if self.base().url().scheme() != "http" {
            return Ok(None);
        }
        let nonce = Nonce::random();
        let url = self.base().join(&format!("../../lab/v1/proof?nonce={}", nonce.as_str()))?;
        let call = Call::get("ask the forge whether it is a lab of this host", url);
        let answer = match self.send(call.anonymous().answer_bytes_max(ANSWER_BYTES_MAX)).await {
            Ok(answer) => answer,
            Err(error) if error.is_temporary() => return Err(error),
            Err(_) => return Ok(None),
        };
        let Ok(given) = answer.json::<ProofAnswer>() else { return Ok(None) };
        let (Some(peer), "dayfly") = (answer.peer, given.lab.as_str()) else { return Ok(None) };
        let runner_url = given.runner_url.clone();
        let check = tokio::task::spawn_blocking(move || {
            let token = token_of_running_lab(&given.token_file)?;
            let right = mac(&token, &nonce, peer, &given.runner_url);
            if right.as_bytes().ct_eq(given.mac.as_bytes()).into() {
                Ok(())
            } else {
                Err(Disbelief::WrongMac)
            }
        });
        let forge = self.base().url();
        match tokio::time::timeout(FILES_WAIT, check).await {
            Ok(Ok(Ok(()))) => Ok(Some(ProvenLab { runner_url })),
            Ok(Ok(Err(disbelief))) => {
                tracing::warn!(%forge, %disbelief, "the forge claims to be a lab on this host but does not prove it");
                Ok(None)
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(%forge, "the files that would prove that the forge is a lab cannot be read in time");
                Ok(None)
            }
        }
    }

    /// Reports to a lab that the machine of a runner is gone. The lab then ends the runner's job at once and removes its
    /// registration. Another forge notices it only when the runner is silent for too long. Returns true if the forge has
    /// accepted the report.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn tell_lost(&self, runner: u64) -> Result<bool, ForgeError> {
        let url = self.base().join(&format!("../../lab/v1/runners/{runner}"))?;
        match self
            .send(Call::new(format!("tell that runner {runner} has lost its machine"), Method::DELETE, url))
            .await
        {
            Ok(_) => Ok(true),
            Err(ForgeError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
