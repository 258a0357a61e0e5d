//! Finds out how a VM reaches the forge.

use std::net::{IpAddr, SocketAddr};

use dayfly_vm::Forward;

use super::{Run, RunnerError};

/// The way from a VM to the forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    /// The forge's web address, as the VM sees it.
    pub(super) url: String,
    /// The port of the host's loopback that must be forwarded to the VM.
    pub(super) forward: Option<Forward>,
    /// Addresses that the network's rules must let through.
    pub(super) allow: Vec<SocketAddr>,
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
            },
            None => Self { url: web_url.to_owned(), forward: None, allow: addresses.to_vec() },
        }
    }
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
        Ok(Reach::of(&self.pool.forge.base().web_url(), port, &addresses, loopback_host))
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
}
