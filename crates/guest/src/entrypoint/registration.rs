//! Resolves the registration of a runner that registers itself: its address, its proof and its labels.

use super::settings::Layers;
use dayfly_guest::runner_app::{Proof, Registration};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RegistrationError {
    #[error("RUNNER_SCOPE is {0:?}, and can begin with repo, org or ent")]
    Scope(String),
    #[error("RUNNER_PRINCIPAL (-p) is {value:?}, and must be {wanted}")]
    Principal { value: String, wanted: &'static str },
    #[error("RUNNER_GITHUB is {0:?}, and must be a host or an http(s) URL without a path")]
    Forge(String),
}

/// Resolves the registration; `None` if there is neither a token nor a PAT. `ephemeral` and `update` are the two
/// switches.
pub(super) fn resolve(
    layers: &Layers<'_>,
    (ephemeral, update): (bool, bool),
) -> Result<Option<Registration>, RegistrationError> {
    let token = layers.get("RUNNER_TOKEN").map(|token| Proof::Token(token.to_owned()));
    let pat = || layers.options.get("pat").map(|pat| Proof::Pat(pat.to_owned()));
    let Some(proof) = token.or_else(pat) else { return Ok(None) };
    let value = |name| layers.in_force(name);
    Ok(Some(Registration {
        url: url(&value("RUNNER_GITHUB"), &value("RUNNER_SCOPE"), &value("RUNNER_PRINCIPAL"))?,
        proof,
        name: value("RUNNER_NAME"),
        group: layers.get("RUNNER_GROUP").map(str::to_owned),
        labels: labels(layers),
        work_folder: value("RUNNER_WORKDIR").into(),
        ephemeral,
        update,
    }))
}

/// Returns the labels. The loop sends all of them; if it sends none, the labels that every runner has come first, then
/// the defaults.
fn labels(layers: &Layers<'_>) -> String {
    if let Some(labels) = layers.get("RUNNER_LABELS") {
        return labels.to_owned();
    }
    let architecture = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
    let (default, distribution) =
        (layers.in_force("RUNNER_DEFAULT_LABELS"), layers.in_force("RUNNER_DISTRO"));
    format!("self-hosted,Linux,{architecture},{default},{distribution},dayfly")
}

/// Returns the web address of a principal at a forge, as `configure --url` expects it.
fn url(forge: &str, scope: &str, principal: &str) -> Result<String, RegistrationError> {
    let base = if forge.contains("://") { forge.to_owned() } else { format!("https://{forge}") };
    let base = base.trim_end_matches('/');
    let host = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"));
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if !host.is_some_and(|host| !host.is_empty() && host.chars().all(is_host)) {
        return Err(RegistrationError::Forge(forge.to_owned()));
    }
    let kind = scope.get(..3).unwrap_or(scope).to_ascii_lowercase();
    let (good, wanted, path) = match kind.as_str() {
        "rep" => {
            let good = principal.split_once('/').is_some_and(|(owner, repo)| is_name(owner) && is_name(repo));
            (good, "OWNER/REPO", principal.to_owned())
        }
        "org" => (is_name(principal), "the name of an organisation", principal.to_owned()),
        "ent" => (is_name(principal), "the name of an enterprise", format!("enterprises/{principal}")),
        _ => return Err(RegistrationError::Scope(scope.to_owned())),
    };
    if !good {
        return Err(RegistrationError::Principal { value: principal.to_owned(), wanted });
    }
    Ok(format!("{base}/{path}"))
}

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && !text.starts_with('.') && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_made_of_forge_scope_and_principal() {
        for (forge, scope, principal, address) in [
            ("github.com", "repo", "efrecon/gh-runner-krunvm", "https://github.com/efrecon/gh-runner-krunvm"),
            ("http://10.0.2.2:8080/", "Repository", "o/r", "http://10.0.2.2:8080/o/r"),
            ("https://ghes.example", "ORG", "acme", "https://ghes.example/acme"),
            ("acme.ghe.com", "enterprise", "acme", "https://acme.ghe.com/enterprises/acme"),
        ] {
            assert_eq!(url(forge, scope, principal).as_deref(), Ok(address));
        }
    }

    #[test]
    fn what_makes_no_address_is_refused_with_its_value() {
        let error = |forge, scope, principal| url(forge, scope, principal).expect_err("refused").to_string();
        assert_eq!(
            error("h", "team", "o/r"),
            "RUNNER_SCOPE is \"team\", and can begin with repo, org or ent"
        );
        assert_eq!(error("h", "repo", ""), "RUNNER_PRINCIPAL (-p) is \"\", and must be OWNER/REPO");
        for principal in ["o", "o/r/x", "../r", "o/", "o r/x"] {
            assert!(
                matches!(url("h", "repo", principal), Err(RegistrationError::Principal { .. })),
                "{principal}"
            );
        }
        assert!(matches!(url("h", "org", "o/r"), Err(RegistrationError::Principal { .. })));
        for forge in ["", "ftp://h", "https://", "h/path", "u:p@h"] {
            assert!(matches!(url(forge, "repo", "o/r"), Err(RegistrationError::Forge(_))), "{forge}");
        }
    }
}
