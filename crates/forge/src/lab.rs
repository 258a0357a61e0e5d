//! Calls that only a lab understands.

use std::time::Duration;

use reqwest::Method;
use secrecy::SecretString;
use serde_json::Value;

use super::Forge;
use super::address::part;
use super::error::ForgeError;
use super::request::Call;
use super::running_lab::{Disbelief, token_of_running_lab};
use crate::proof::{Nonce, ProofAnswer, mac};
use subtle::ConstantTimeEq as _;

/// Path of the fault desk, from the address of the REST API.
const FAULTS: &str = "../../lab/v1/faults";
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
        Ok(self.proof_of_lab().await?.map(|(lab, _)| lab))
    }

    /// Returns a client with the admin token of a lab, if the forge proves that it is a lab on this host whose files this user
    /// may read. Returns `None` otherwise.
    ///
    /// # Errors
    /// A temporary [`ForgeError`], for example if the forge does not answer.
    pub async fn as_admin_of_lab(&self) -> Result<Option<Self>, ForgeError> {
        match self.proof_of_lab().await? {
            Some((_, token)) => Self::new(self.base().clone(), token).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the proven lab and its admin token.
    async fn proof_of_lab(&self) -> Result<Option<(ProvenLab, SecretString)>, ForgeError> {
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
                Ok(SecretString::from(token))
            } else {
                Err(Disbelief::WrongMac)
            }
        });
        let forge = self.base().url();
        match tokio::time::timeout(FILES_WAIT, check).await {
            Ok(Ok(Ok(token))) => Ok(Some((ProvenLab { runner_url }, token))),
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

    /// Returns the rules of a lab's fault desk, as the lab writes them.
    ///
    /// # Errors
    /// See [`ForgeError`]. All calls of the fault desk need the lab's admin token.
    pub async fn lab_faults(&self) -> Result<Value, ForgeError> {
        let url = self.base().join(FAULTS)?;
        self.send(Call::get("list the faults of the lab", url)).await?.json()
    }

    /// Adds a rule to a lab's fault desk, and returns it as the lab writes it.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn add_lab_fault(&self, spec: Value) -> Result<Value, ForgeError> {
        let call = Call::new("order a fault from the lab", Method::POST, self.base().join(FAULTS)?);
        self.send(call.body(spec)).await?.json()
    }

    /// Removes the rules of a fault from a lab's fault desk, or all of them. Returns their number.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn clear_lab_faults(&self, fault: Option<&str>) -> Result<u64, ForgeError> {
        let query = fault.map(|fault| format!("?fault={}", part(fault))).unwrap_or_default();
        let url = self.base().join(&format!("{FAULTS}{query}"))?;
        let answer = self.send(Call::new("clear the faults of the lab", Method::DELETE, url)).await?;
        let cleared = answer.json::<Value>()?["cleared"].as_u64();
        cleared.ok_or_else(|| answer.bad("it does not say how many rules were cleared"))
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
