//! Finds out how a VM reaches the forge.

use std::net::{IpAddr, SocketAddr};

use dayfly_forge::Url;
use dayfly_vm::Forward;

use super::{Run, RunnerError};

/// The settings of the guest that name a proxy.
const PROXIES: [&str; 2] = ["RUNNER_HTTP_PROXY", "RUNNER_HTTPS_PROXY"];
/// The setting of the guest that lists the hosts without a proxy.
pub(super) const NO_PROXY: &str = "RUNNER_NO_PROXY";

/// The way from a VM to the forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    /// The forge's web address, as the VM sees it.
    pub(super) url: String,
    /// The port of the host's loopback that must be forwarded to the VM.
    pub(super) forward: Option<Forward>,
    /// Addresses that the network's rules must let through.
    pub(super) allow: Vec<SocketAddr>,
    /// Host names of the forge and of proxies.
    pub(super) names: Vec<String>,
}

impl Reach {
    /// Returns the way to a forge: through a port forwarded at `loopback_host` if the forge listens on the host's loopback,
    /// else to its own address.
    fn of(web_url: &str, port: u16, addresses: &[SocketAddr], loopback_host: IpAddr) -> Self {
        match addresses.iter().find(|address| address.ip().is_loopback()) {
            Some(&to) => Self {
                url: format!("http://{loopback_host}:{port}"),
                forward: Some(Forward { guest_port: port, to }),
                allow: Vec::new(),
                names: Vec::new(),
            },
            None => {
                Self { url: web_url.to_owned(), forward: None, allow: addresses.to_vec(), names: Vec::new() }
            }
        }
    }

    /// Returns the hosts without a proxy if the user's settings name one: the user's, and a forge on this host, which no proxy
    /// reaches.
    pub(super) fn no_proxy(&self, settings: &[(String, String)]) -> Option<String> {
        let has_proxy = PROXIES.iter().any(|name| value(settings, name).is_some());
        if !has_proxy || self.forward.is_none() {
            return None;
        }
        let host = Url::parse(&self.url).ok()?.host_str()?.to_owned();
        Some(value(settings, NO_PROXY).map_or_else(|| host.clone(), |hosts| format!("{hosts},{host}")))
    }
}

/// Returns the value of a setting unless it is empty.
fn value<'a>(settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = settings.iter().find(|(own, _)| own == name);
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

/// Returns the hosts and ports of the proxies that the settings name.
fn proxies(settings: &[(String, String)]) -> Vec<(String, u16)> {
    let address = |proxy: &str| {
        let url = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
        let url = Url::parse(&url).ok()?;
        Some((url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?))
    };
    PROXIES.iter().filter_map(|name| address(value(settings, name)?)).collect()
}

impl Run<'_> {
    /// Looks up the forge's address, anew for each runner because addresses change. One host is enough: GitHub's web pages
    /// and API have different hosts, but both are public, and only a private host must be let through.
    pub(super) async fn reach(&self) -> Result<Reach, RunnerError> {
        let url = self.pool.forge.base().url();
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(self.no_address(url.as_str(), "it names no host and port"));
        };
        let host = host.trim_matches(['[', ']']);
        let found = tokio::net::lookup_host((host, port)).await;
        let addresses: Vec<_> = found.map_err(|error| self.no_address(host, &error.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(self.no_address(host, "it has none"));
        }
        let loopback_host = self.pool.machine.driver.kind().loopback_host();
        let mut reach = Reach::of(&self.pool.forge.base().web_url(), port, &addresses, loopback_host);
        reach.names.push(host.to_lowercase());
        for (host, port) in proxies(&self.pool.spec.guest_settings) {
            // A proxy may be in a private network, which is shut otherwise.
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            let found = found.map_err(|error| self.no_address(&host, &error.to_string()))?;
            reach.allow.extend(found.filter(|address| !reach.allow.contains(address)).collect::<Vec<_>>());
            reach.names.push(host.to_lowercase());
        }
        Ok(reach)
    }

    fn no_address(&self, host: &str, problem: &str) -> RunnerError {
        RunnerError::Address { name: self.name.clone(), host: host.to_owned(), problem: problem.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forge_on_this_host_is_reached_by_a_forwarded_port_and_no_other_is() {
        let guest_view = IpAddr::from([10, 0, 2, 2]);
        let here = ["127.0.0.1:8080".parse().expect("an address")];
        let reach = Reach::of("http://localhost:8080", 8080, &here, guest_view);
        assert_eq!(reach.url, "http://10.0.2.2:8080");
        assert_eq!(reach.forward, Some(Forward { guest_port: 8080, to: here[0] }));
        assert!(reach.allow.is_empty());

        let there = ["192.168.7.7:443".parse().expect("an address")];
        let reach = Reach::of("https://ghes.example", 443, &there, guest_view);
        assert_eq!((reach.url.as_str(), reach.forward), ("https://ghes.example", None));
        assert_eq!(reach.allow, there);
    }

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_proxies_that_the_settings_name_are_known_by_host_and_port() {
        let both = settings(&[
            ("RUNNER_HTTP_PROXY", "http://user:word@proxy.example:3128/"),
            ("RUNNER_HTTPS_PROXY", "[fd00::1]:8080"),
        ]);
        assert_eq!(proxies(&both), [("proxy.example".to_owned(), 3128), ("fd00::1".to_owned(), 8080)]);
        assert_eq!(proxies(&settings(&[("RUNNER_HTTP_PROXY", ""), ("RUNNER_HTTPS_PROXY", "::")])), []);
    }

    #[test]
    fn a_forge_on_this_host_is_reached_without_a_proxy() {
        let here = ["127.0.0.1:8080".parse().expect("an address")];
        let reach = Reach::of("http://localhost:8080", 8080, &here, [10, 0, 2, 2].into());
        let proxy = ("RUNNER_HTTP_PROXY", "proxy:3128");
        assert_eq!(reach.no_proxy(&settings(&[proxy])).as_deref(), Some("10.0.2.2"));
        let listed = settings(&[proxy, (NO_PROXY, ".example.com")]);
        assert_eq!(reach.no_proxy(&listed).as_deref(), Some(".example.com,10.0.2.2"));
        assert_eq!(reach.no_proxy(&settings(&[(NO_PROXY, "x")])), None);
        let elsewhere = Reach { forward: None, ..reach };
        assert_eq!(elsewhere.no_proxy(&listed), None);
    }
}
