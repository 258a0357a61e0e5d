//! A new GitHub App from a manifest: the form that a person sends to the forge, and the exchange of the code that the forge answers
//! with.
//!
//! ```text
//! browser ──POST manifest, state──> forge: "Create GitHub App" ──302 code, state──> the page that asked
//!                                   POST app-manifests/{code}/conversions <──────── dayfly: id, private key, secrets
//! ```
//!
//! Source: docs.github.com, "Registering a GitHub App from a manifest" and "Registering a GitHub App using URL parameters".

use reqwest::{Method, Url};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::address::part;
use crate::error::ForgeError;
use crate::permission::{ForgeUse, Permission};
use crate::request::Call;
use crate::{ApiBase, Forge};

/// Longest code. GitHub's have 40 characters.
const CODE_LEN_MAX: usize = 200;
/// Longest name of an App (docs.github.com, "Registering a GitHub App").
const NAME_LEN_MAX: usize = 34;
/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The page that people see as the home of the App.
const HOMEPAGE: &str = "https://github.com/dayfly-ci/dayfly";
const DESCRIPTION: &str = "dayfly registers and deletes self-hosted runners, each for one job.";
/// The event about jobs.
const JOB_EVENT: &str = "workflow_job";

/// The App that a person is asked to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppManifest {
    /// Its name, which is unique at the forge. The person can change it.
    pub name: String,
    /// The organisation that is to own it; `None`: the person. Only its owner can install it.
    pub organization: Option<String>,
    /// The uses that it needs permissions for.
    pub uses: Vec<ForgeUse>,
    /// The address to which the forge sends events about jobs; `None`: its webhook is off.
    pub webhook: Option<Url>,
}

/// An App that the forge has created.
#[derive(Debug, Clone, Deserialize)]
pub struct NewApp {
    /// Its app id.
    pub id: u64,
    /// Its name in addresses.
    pub slug: String,
    /// Its client id.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Its page.
    #[serde(default)]
    pub html_url: Option<String>,
    /// Its private key.
    pub pem: SecretString,
    /// The secret of its webhook, with which the forge signs each delivery.
    #[serde(default)]
    pub webhook_secret: Option<SecretString>,
}

impl AppManifest {
    /// Returns true if GitHub accepts a name: 1 to 34 characters, and nothing that cannot be in a line.
    pub fn is_name(name: &str) -> bool {
        (1..=NAME_LEN_MAX).contains(&name.chars().count())
            && name.trim() == name
            && !name.contains(char::is_control)
    }

    /// Returns the manifest. The browser comes back to `redirect_url`.
    pub fn to_json(&self, redirect_url: &str) -> Value {
        let permissions: serde_json::Map<String, Value> = self
            .permissions()
            .map(|permission| (permission.name.to_owned(), permission.access.word().into()))
            .collect();
        let events: &[&str] = if self.webhook.is_some() { &[JOB_EVENT] } else { &[] };
        json!({
            "name": self.name,
            "description": DESCRIPTION,
            "url": HOMEPAGE,
            "redirect_url": redirect_url,
            "public": false,
            "default_permissions": permissions,
            "default_events": events,
            // GitHub refuses a webhook without an address, even if it is off.
            "hook_attributes": {
                "url": self.webhook.as_ref().map_or(HOMEPAGE, Url::as_str),
                "active": self.webhook.is_some(),
            },
        })
    }

    /// Returns the address that the form is sent to.
    ///
    /// # Errors
    /// [`ForgeError::BadAddress`].
    pub fn form_url(&self, base: &ApiBase, state: &str) -> Result<Url, ForgeError> {
        let mut url = self.new_app_page(base)?;
        url.query_pairs_mut().append_pair("state", state);
        Ok(url)
    }

    /// Returns the address of the forge's own form with all fields filled in. It does not come back to dayfly.
    ///
    /// # Errors
    /// [`ForgeError::BadAddress`].
    pub fn prefilled_url(&self, base: &ApiBase) -> Result<Url, ForgeError> {
        let mut url = self.new_app_page(base)?;
        let mut query = url.query_pairs_mut();
        query
            .append_pair("name", &self.name)
            .append_pair("description", DESCRIPTION)
            .append_pair("url", HOMEPAGE);
        query.append_pair("public", "false");
        query.append_pair("webhook_active", if self.webhook.is_some() { "true" } else { "false" });
        if let Some(webhook) = &self.webhook {
            query.append_pair("webhook_url", webhook.as_str()).append_pair("events[]", JOB_EVENT);
        }
        for permission in self.permissions() {
            query.append_pair(permission.name, permission.access.word());
        }
        drop(query);
        Ok(url)
    }

    fn new_app_page(&self, base: &ApiBase) -> Result<Url, ForgeError> {
        let path = match &self.organization {
            Some(organization) => format!("organizations/{}/settings/apps/new", part(organization)),
            None => "settings/apps/new".to_owned(),
        };
        let text = format!("{}/{path}", base.web_url());
        Url::parse(&text).map_err(|error| ForgeError::BadAddress { text, why: error.to_string() })
    }

    /// Returns the permissions of the uses, each once.
    pub fn permissions(&self) -> impl Iterator<Item = Permission> {
        let mut permissions: Vec<Permission> = self.uses.iter().filter_map(|one| one.permission()).collect();
        permissions.sort_by_key(|permission| permission.name);
        permissions.dedup();
        permissions.into_iter()
    }
}

impl NewApp {
    /// Returns its page. A forge cannot lead to another host.
    pub fn page(&self, base: &ApiBase) -> String {
        let web = base.web_url();
        match &self.html_url {
            Some(page) if page.starts_with(&format!("{web}/")) => page.clone(),
            _ => format!("{web}/apps/{}", part(&self.slug)),
        }
    }

    /// Returns the page on which its owner installs it.
    pub fn install_page(&self, base: &ApiBase) -> String {
        format!("{}/installations/new", self.page(base))
    }
}

impl Forge {
    /// Exchanges the code of a new App for its id, key and secrets. The code is the proof, so the credential is not sent. A code
    /// serves once and for an hour.
    ///
    /// # Errors
    /// [`ForgeError::NotFound`] if the code is unknown, used or too old. For the rest see [`ForgeError`].
    pub async fn convert_manifest(&self, code: &str) -> Result<NewApp, ForgeError> {
        let what = "get the id and the key of the new GitHub App";
        let path = format!("app-manifests/{}/conversions", part(code));
        let call = Call::new(what, Method::POST, self.base().join(&path)?).anonymous();
        self.send(call.repeatable().answer_bytes_max(ANSWER_BYTES_MAX)).await?.json()
    }

    /// Returns true if a text has the form of a code.
    pub fn is_manifest_code(code: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=CODE_LEN_MAX).contains(&code.len()) && code.bytes().all(plain)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::ScopeKind;
    use crate::tests::scripted::{Reply, ScriptedForge};

    fn manifest(uses: &[ForgeUse]) -> AppManifest {
        AppManifest { name: "dayfly-1".to_owned(), organization: None, uses: uses.to_vec(), webhook: None }
    }

    fn base() -> ApiBase {
        ApiBase::from_host_or_url("github.com").unwrap()
    }

    #[test]
    fn an_app_gets_exactly_the_permissions_of_its_uses() {
        let runners = ForgeUse::Runners(ScopeKind::Repository);
        let one = manifest(&[runners]).to_json("http://127.0.0.1:1/callback");
        insta::assert_snapshot!(serde_json::to_string_pretty(&one).unwrap(), @r#"
        {
          "name": "dayfly-1",
          "description": "dayfly registers and deletes self-hosted runners, each for one job.",
          "url": "https://github.com/dayfly-ci/dayfly",
          "redirect_url": "http://127.0.0.1:1/callback",
          "public": false,
          "default_permissions": {
            "administration": "write"
          },
          "default_events": [],
          "hook_attributes": {
            "url": "https://github.com/dayfly-ci/dayfly",
            "active": false
          }
        }
        "#);
        let webhook = AppManifest {
            webhook: Some(Url::parse("https://ci.example/hook").unwrap()),
            ..manifest(&[ForgeUse::Runners(ScopeKind::Organization), ForgeUse::Jobs, ForgeUse::Jobs])
        };
        let all = webhook.to_json("x");
        assert_eq!(
            all["default_permissions"],
            json!({"actions": "read", "organization_self_hosted_runners": "write"})
        );
        assert_eq!(all["default_events"], json!(["workflow_job"]));
        assert_eq!(all["hook_attributes"], json!({"url": "https://ci.example/hook", "active": true}));
    }

    #[test]
    fn the_form_goes_to_the_page_of_the_owner_and_no_name_leads_elsewhere() {
        let own = manifest(&[]).form_url(&base(), "s&t").unwrap();
        assert_eq!(own.as_str(), "https://github.com/settings/apps/new?state=s%26t");
        let ghes = ApiBase::from_host_or_url("http://ghes.example:8080").unwrap();
        let of_organization = AppManifest { organization: Some("../x?".to_owned()), ..manifest(&[]) };
        let url = of_organization.form_url(&ghes, "s").unwrap();
        assert_eq!(
            url.as_str(),
            "http://ghes.example:8080/organizations/..%2Fx%3F/settings/apps/new?state=s"
        );
    }

    #[test]
    fn the_form_of_the_forge_can_be_filled_in_by_a_link() {
        let link = AppManifest {
            webhook: Some(Url::parse("https://ci.example/hook").unwrap()),
            ..manifest(&[ForgeUse::Runners(ScopeKind::Repository), ForgeUse::Jobs])
        };
        insta::assert_snapshot!(link.prefilled_url(&base()).unwrap(), @"https://github.com/settings/apps/new?name=dayfly-1&description=dayfly+registers+and+deletes+self-hosted+runners%2C+each+for+one+job.&url=https%3A%2F%2Fgithub.com%2Fdayfly-ci%2Fdayfly&public=false&webhook_active=true&webhook_url=https%3A%2F%2Fci.example%2Fhook&events%5B%5D=workflow_job&actions=read&administration=write");
    }

    #[tokio::test]
    async fn a_code_is_exchanged_without_the_credential() {
        let server = ScriptedForge::start(|request| match request.line.contains("/good/") {
            true => Reply::new(
                201,
                json!({"id": 7, "slug": "d", "client_id": "Iv1", "html_url": "https://evil.example/x", "pem": "KEY", "webhook_secret": null}),
            ),
            false => Reply::new(404, json!({"message": "Not Found"})),
        })
        .await;
        let forge = Forge::new(ApiBase::from_host_or_url(&server.url).unwrap(), "ghp_XXXX").unwrap();
        let app = forge.convert_manifest("good").await.unwrap();
        assert_eq!((app.id, app.webhook_secret.is_none()), (7, true));
        assert_eq!(app.install_page(forge.base()), format!("{}/apps/d/installations/new", server.url));
        assert!(!format!("{app:?}").contains("KEY"));
        let refused = forge.convert_manifest("bad").await.unwrap_err();
        assert!(matches!(refused, ForgeError::NotFound { .. }), "{refused}");
        let requests = server.requests("POST /api/v3/app-manifests/");
        assert_eq!(requests.len(), 2);
        assert!(requests.iter().all(|request| request.bearer.is_empty()));
    }

    #[test]
    fn only_plain_words_are_codes_and_short_lines_are_names() {
        assert!(
            Forge::is_manifest_code("a1-_")
                && !Forge::is_manifest_code("")
                && !Forge::is_manifest_code("a/b")
        );
        assert!(!Forge::is_manifest_code(&"a".repeat(201)));
        assert!(
            AppManifest::is_name("My App") && !AppManifest::is_name(" a") && !AppManifest::is_name("a\nb")
        );
        assert!(!AppManifest::is_name(&"a".repeat(35)));
    }
}
