//! Converts a forge's name, as users type it, into the address of its REST API.

use std::net::IpAddr;

use reqwest::Url;

use super::error::ForgeError;

/// The API version in the path of a GHES address.
const DEFAULT_VERSION: &str = "v3";

/// The address of a forge's REST API. It ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ApiBase(Url);

impl From<ApiBase> for String {
    fn from(base: ApiBase) -> Self {
        base.0.into()
    }
}

impl TryFrom<String> for ApiBase {
    type Error = ForgeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::from_host_or_url(&text)
    }
}

impl ApiBase {
    /// Parses a host (`github.com`, `ghe.example.com`) or an address (`http://127.0.0.1:8080`). The API of github.com and
    /// of the tenants of ghe.com has its own host; other hosts have it below `/api/v3`.
    ///
    /// # Errors
    /// [`ForgeError::BadAddress`] if `text` is neither.
    pub fn from_host_or_url(text: &str) -> Result<Self, ForgeError> {
        Self::with_version(text, DEFAULT_VERSION)
    }

    /// Like [`Self::from_host_or_url`], with another API version than `v3`. The version is part of the path on hosts that
    /// are not GitHub's own.
    ///
    /// # Errors
    /// [`ForgeError::BadAddress`] if `text` is not the address of a forge, or if `version` is not a plain word.
    pub fn with_version(text: &str, version: &str) -> Result<Self, ForgeError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=20).contains(&version.len()) || version.starts_with('.') || !version.bytes().all(plain) {
            let why = "the version of its API must be a word such as v3".to_owned();
            return Err(ForgeError::BadAddress { text: version.to_owned(), why });
        }
        let bad = |why: &str| ForgeError::BadAddress { text: text.to_owned(), why: why.to_owned() };
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let mut url = Url::parse(&full).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("only http and https are known"));
        }
        let Some(host) = url.host_str().map(str::to_ascii_lowercase) else {
            return Err(bad("it has no host"));
        };
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(bad("give the forge's address alone, and the token apart from it"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        let api_host = match host.as_str() {
            "github.com" | "www.github.com" => Some("api.github.com".to_owned()),
            tenant if tenant.ends_with(".ghe.com") && !tenant.starts_with("api.") => {
                Some(format!("api.{tenant}"))
            }
            _ => None,
        };
        let own_host = api_host.is_some() || host == "api.github.com" || host.ends_with(".ghe.com");
        match path.as_str() {
            "" if own_host => {}
            path if path.is_empty() || path == format!("/api/{version}") => {
                url.set_path(&format!("/api/{version}/"));
            }
            _ => return Err(bad("it must be a host, without owner or repository")),
        }
        if let Some(api_host) = api_host {
            url.set_host(Some(&api_host)).map_err(|error| bad(&error.to_string()))?;
        }
        Ok(Self(url))
    }

    /// Returns the address.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Returns the address of the forge's web pages, without a slash at its end: `https://github.com`,
    /// `http://127.0.0.1:8080`. `config.sh --url` takes this address followed by a scope's
    /// [`web_path`](super::RunnerScope::web_path).
    pub fn web_url(&self) -> String {
        let origin = self.0.origin().ascii_serialization();
        match self.0.host_str().and_then(|host| host.strip_prefix("api.")) {
            Some(host) if host == "github.com" || host.ends_with(".ghe.com") => {
                origin.replacen("://api.", "://", 1)
            }
            _ => origin,
        }
    }

    /// Returns true if the forge is GitHub itself: github.com, or a tenant of ghe.com. It has more hosts than its API's.
    pub fn is_github(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        host == "api.github.com" || host.ends_with(".ghe.com")
    }

    /// Returns true if the forge's host is a loopback address, `localhost` or a name below `localhost`.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }

    /// Returns true if `url` has the same scheme, host and port, so that the token may be sent to it.
    pub(super) fn same_origin(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }

    /// Resolves `path` against the API's address.
    pub(super) fn join(&self, path: &str) -> Result<Url, ForgeError> {
        self.0
            .join(path)
            .map_err(|error| ForgeError::BadAddress { text: path.to_owned(), why: error.to_string() })
    }
}

/// Percent-encodes one part of a path, so that a user's name for something cannot lead to another path.
pub(super) fn part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    if matches!(text, "." | "..") {
        return text.replace('.', "%252E");
    }
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_forge_has_its_api_where_it_belongs() {
        let base = |text: &str| ApiBase::from_host_or_url(text).unwrap().url().to_string();
        assert_eq!(base("github.com"), "https://api.github.com/");
        assert_eq!(base("https://github.com/"), "https://api.github.com/");
        assert_eq!(base("corp.ghe.com"), "https://api.corp.ghe.com/");
        assert_eq!(base("api.corp.ghe.com"), "https://api.corp.ghe.com/");
        assert_eq!(base("ghes.example"), "https://ghes.example/api/v3/");
        assert_eq!(base("http://127.0.0.1:8080"), "http://127.0.0.1:8080/api/v3/");
        assert_eq!(base("http://127.0.0.1:8080/api/v3"), "http://127.0.0.1:8080/api/v3/");
    }

    #[test]
    fn another_version_of_the_api_has_another_path_where_the_path_has_a_version() {
        let base = |text: &str| ApiBase::with_version(text, "v4").unwrap().url().to_string();
        assert_eq!(base("github.com"), "https://api.github.com/");
        assert_eq!(base("ghes.example"), "https://ghes.example/api/v4/");
        for version in ["", "..", "v3/x", "v 3", "../v3"] {
            assert!(ApiBase::with_version("ghes.example", version).is_err(), "{version:?}");
        }
    }

    #[test]
    fn every_kind_of_forge_has_its_pages_where_people_know_them() {
        let web = |text: &str| ApiBase::from_host_or_url(text).unwrap().web_url();
        assert_eq!(web("github.com"), "https://github.com");
        assert_eq!(web("api.github.com"), "https://github.com");
        let is_github = |text: &str| ApiBase::from_host_or_url(text).unwrap().is_github();
        assert!(is_github("github.com") && is_github("acme.ghe.com"));
        assert!(!is_github("ghes.example") && !is_github("github.com.evil.example"));
        assert_eq!(web("corp.ghe.com"), "https://corp.ghe.com");
        assert_eq!(web("api.ghes.example:8443"), "https://api.ghes.example:8443");
        assert_eq!(web("http://127.0.0.1:8080/api/v3"), "http://127.0.0.1:8080");
        assert_eq!(web("http://[::1]:8080"), "http://[::1]:8080");
    }

    #[test]
    fn loopback_is_known_by_name_and_by_number() {
        let loopback = |text: &str| ApiBase::from_host_or_url(text).unwrap().is_loopback();
        assert!(loopback("http://127.0.0.1:1") && loopback("http://[::1]") && loopback("localhost"));
        assert!(!loopback("github.com") && !loopback("http://10.0.2.2") && !loopback("localhost.example"));
    }

    #[test]
    fn what_is_no_forge_is_refused() {
        for text in ["", "http://", "ftp://h", "https://github.com/o/r", "http://u:p@h", "http://h/?q", "a b"]
        {
            assert!(ApiBase::from_host_or_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(part("../x y"), "..%2Fx%20y");
        let base = ApiBase::from_host_or_url("http://h").unwrap();
        let url =
            base.join(&format!("repos/{}/{}/x", part(".."), part("a/../..")).replace("//", "/")).unwrap();
        assert!(url.path().starts_with("/api/v3/repos/"), "{url}");
    }
}
