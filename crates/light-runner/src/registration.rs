//! Registration with a token, as the official app's `config.sh` does ("runner admin" flow).
//!
//! The key comes from the caller, because generating one takes a tenth of a second to several seconds. The key of any JIT
//! config of the same lab will do for a test.

use dayfly_forge::jit::{CredentialsData, CredentialsFile, JitConfig, RsaParameters, RunnerFile};
use serde_json::{Value, json};

use crate::VERSION;
use crate::http::{Call, CallError, Http};

/// A runner that is to be registered.
#[derive(Debug, Clone)]
pub struct NewRegistration<'a> {
    /// The lab's address, without a slash at its end.
    pub lab_url: &'a str,
    /// The path of the scope's page, such as `OWNER/NAME`.
    pub page: &'a str,
    /// The registration token.
    pub token: &'a str,
    /// The runner's name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a [&'a str],
    /// True if it is for one job.
    pub ephemeral: bool,
}

/// Registers a runner. The result has the form of a JIT config, so that the runner starts from it as from one.
///
/// # Errors
/// If the lab refuses the registration or cannot be reached.
pub async fn register(new: &NewRegistration<'_>, key: RsaParameters) -> Result<JitConfig, CallError> {
    let labels: Vec<Value> = new.labels.iter().map(|label| json!({"name": label, "type": "user"})).collect();
    let (modulus, exponent) = (&key.modulus, &key.exponent);
    let body = json!({
        "url": format!("{}/{}", new.lab_url, new.page), "group_id": 1, "name": new.name, "version": VERSION,
        "updates_disabled": true, "ephemeral": new.ephemeral, "labels": labels,
        "public_key": format!("<RSAKeyValue><Modulus>{modulus}</Modulus><Exponent>{exponent}</Exponent></RSAKeyValue>"),
    });
    let url = format!("{}/api/v3/actions/runners/register", new.lab_url);
    let answer = Http::default().send(Call::post(&url, new.token, &body)).await?;
    Ok(registered(&answer, key, new.ephemeral))
}

/// Returns the configuration that an answer of `runners/register` leads to, as `config.sh` writes it.
pub fn registered(answer: &Value, key: RsaParameters, ephemeral: bool) -> JitConfig {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let authorization = &answer["authorization"];
    let server = text(&authorization["server_url"]);
    let runner = RunnerFile {
        agent_id: answer["id"].to_string(),
        agent_name: text(&answer["name"]),
        pool_id: "1".to_owned(),
        pool_name: String::new(),
        disable_update: "True".to_owned(),
        ephemeral: if ephemeral { "True" } else { "False" }.to_owned(),
        server_url: server.clone(),
        work_folder: "_work".to_owned(),
        git_hub_url: String::new(),
        use_v2_flow: "True".to_owned(),
        server_url_v2: server,
    };
    let data = CredentialsData {
        client_id: text(&authorization["client_id"]),
        authorization_url: text(&authorization["authorization_url"]),
        require_fips_cryptography: String::new(),
    };
    JitConfig { runner, credentials: CredentialsFile { scheme: "OAuth".to_owned(), data }, key }
}
