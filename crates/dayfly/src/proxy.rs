//! The proxy of the environment, in the variables that every HTTP program reads.

use std::env;

use crate::exit::{Failure, Result};
use dayfly_forge::Url;

/// The proxy for an address, if the environment names one. Lower-case names win, as in curl.
///
/// # Errors
/// The variable holds no address.
pub(crate) fn of(url: &Url) -> Result<Option<Url>> {
    let name = if url.scheme() == "https" { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let host = url.host_str().unwrap_or_default();
    let without = variable("NO_PROXY").unwrap_or_default();
    let Some(proxy) = variable(name).filter(|_| !is_listed(host, &without)) else { return Ok(None) };
    let full = with_scheme(&proxy);
    // It may hold a password: only its name is told.
    Url::parse(&full).map(Some).map_err(|error| Failure::usage(format!("{name} holds no address: {error}")))
}

/// A variable by either of its names.
pub(crate) fn variable(name: &str) -> Option<String> {
    let names = [name.to_ascii_lowercase(), name.to_owned()];
    names.into_iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

/// Proxies are often named without the scheme that almost all of them have.
pub(crate) fn with_scheme(proxy: &str) -> String {
    if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") }
}

/// Whether a list like `localhost,.example.com` names a host or a domain that it is in.
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
