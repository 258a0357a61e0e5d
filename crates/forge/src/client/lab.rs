//! What only a lab understands.

use reqwest::Method;

use super::Forge;
use super::error::ForgeError;
use super::request::Call;

impl Forge {
    /// Whether the forge is a lab.
    ///
    /// # Errors
    /// It does not answer, or refuses the token.
    pub async fn is_lab(&self) -> Result<bool, ForgeError> {
        let url = self.base().join("../../lab/v1")?;
        match self.send(Call::get("ask the forge whether it is a lab", url)).await {
            Ok(answer) => {
                Ok(answer.json::<serde_json::Value>().is_ok_and(|answer| answer["lab"] == "dayfly"))
            }
            Err(ForgeError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells a lab that the machine of a runner is gone: its job ends at once, and its registration goes. Another forge
    /// only finds out when the runner is silent for too long. Returns whether the forge has taken notice.
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
