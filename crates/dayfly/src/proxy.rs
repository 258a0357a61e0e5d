//! Reads the proxy from the environment variables that HTTP programs share.

use std::env;

use crate::exit::{Failure, Result};
use dayfly_forge::Url;

/// Returns the proxy for an address, if the environment names one. Lower-case names take precedence, as in curl.
///
/// # Errors
/// The variable holds no address.
pub(crate) fn of(url: &Url) -> Result<Option<Url>> {
    let name = if url.scheme() == "https" { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let host = url.host_str().unwrap_or_default();
    let without = variable("NO_PROXY").unwrap_or_default();
    let Some(proxy) = variable(name).filter(|_| !is_listed(host, &without)) else { return Ok(None) };
    let full = with_scheme(&proxy);
    // The error names only the variable, because its value may contain a password.
    Url::parse(&full).map(Some).map_err(|error| Failure::usage(format!("{name} holds no address: {error}")))
}

/// Reads a variable by its lower-case or its upper-case name. An empty variable is ignored.
pub(crate) fn variable(name: &str) -> Option<String> {
    let names = [name.to_ascii_lowercase(), name.to_owned()];
    names.into_iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

/// Adds `http://` if the proxy is given without a scheme.
pub(crate) fn with_scheme(proxy: &str) -> String {
    if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") }
}

/// Returns true if a list like `localhost,.example.com` names the host or one of its domains.
fn is_listed(host: &str, list: &str) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let domain = entry.trim_start_matches('.');
        entry == "*" || host.eq_ignore_ascii_case(domain) || ends_with_domain(host, domain)
    })
}

fn ends_with_domain(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
    host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_domains_without_a_proxy_are_known() {
        for (host, list, listed) in [
            ("ghe.example.com", "example.com", true),
            ("ghe.example.com", "a, .EXAMPLE.com", true),
            ("badexample.com", "example.com", false),
            ("example.com", "example.com", true),
            ("x", "*", true),
            ("x", "", false),
        ] {
            assert_eq!(is_listed(host, list), listed, "{host} {list}");
        }
    }
}
