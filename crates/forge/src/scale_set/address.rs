//! Decides whether an address that a server names may receive a token.

use reqwest::Url;

use crate::request::shown_address;

/// Parses an address that the server at `parent` names for other calls. It must be https. If `parent` itself has no TLS (a
/// lab, a GHES behind a tunnel), an address without TLS on the host of `parent` is accepted too, on any port. So no token is
/// sent in clear text to a place that the user has not named. The host of an https address is not restricted: the services
/// of github.com have names of their own that change.
///
/// # Errors
/// The reason, in words that follow the name of the answer.
pub(super) fn trusted(text: &str, parent: &Url) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it names an address that is none: {error}"))?;
    let shown = shown_address(&url);
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(format!("it names {shown} with a user, a password or a fragment"));
    }
    match (url.scheme(), parent.scheme()) {
        ("https", _) => Ok(url),
        ("http", "http") if url.host() == parent.host() => Ok(url),
        ("http", "http") => Err(format!(
            "it names {shown}, which is another host without TLS; dayfly sends no token there unless it is https"
        )),
        ("http", _) => Err(format!("it names {shown}, which has no TLS; dayfly sends no token there")),
        _ => Err(format!("it names {shown}, which is neither http nor https")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn check(text: &str, parent: &str) -> Result<String, String> {
        trusted(text, &Url::parse(parent).unwrap()).map(String::from)
    }

    #[test]
    fn a_token_goes_to_any_host_with_tls() {
        let service = "https://pipelines.actions.githubusercontent.com/AbCd/";
        assert_eq!(check(service, "https://api.github.com/").unwrap(), service);
        assert!(check("https://ghes.example/x?sessionId=1", "http://ghes.example/api/v3/").is_ok());
    }

    #[test]
    fn a_token_goes_without_tls_only_to_the_host_that_the_user_has_named_without_tls() {
        assert!(check("http://127.0.0.1:9/tenant/", "http://127.0.0.1:8080/api/v3/").is_ok());
        let error = check("http://169.254.169.254/latest?token=S", "http://127.0.0.1/api/v3/").unwrap_err();
        insta::assert_snapshot!(error, @"it names http://169.254.169.254/latest, which is another host without TLS; dayfly sends no token there unless it is https");
        let error = check("http://ghes.example/x", "https://ghes.example/api/v3/").unwrap_err();
        insta::assert_snapshot!(error, @"it names http://ghes.example/x, which has no TLS; dayfly sends no token there");
    }

    #[test]
    fn an_address_with_a_password_or_of_another_kind_is_refused() {
        for text in
            ["https://u:PASSWORD@h/", "ftp://h/", "file:///etc/passwd", "", "/relative", "https://h/#x"]
        {
            let error = check(text, "http://h/").unwrap_err();
            assert!(!error.contains("PASSWORD"), "{error}");
        }
    }
}
