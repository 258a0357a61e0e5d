//! What the kernel's command line says to this program.

use std::net::Ipv4Addr;

/// The options that start with `dayfly.`; all others are the kernel's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Only show that user space runs, then power off.
    pub(super) probe: bool,
    /// Start Docker.
    pub(super) docker: bool,
    /// Offer a shell on the console.
    pub(super) shell: bool,
    /// The name server, where the host names one.
    pub(super) dns: Option<Ipv4Addr>,
}

impl Options {
    pub(super) fn parse(command_line: &str) -> Self {
        let mut options = Self { probe: false, docker: true, shell: false, dns: None };
        for word in command_line.split_ascii_whitespace() {
            match word {
                "dayfly.probe" => options.probe = true,
                "dayfly.docker=off" => options.docker = false,
                "dayfly.shell" => options.shell = true,
                _ => {
                    if let Some(dns) = word.strip_prefix("dayfly.dns=") {
                        options.dns = dns.parse().ok();
                    }
                }
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_our_own_count() {
        let options =
            Options::parse("console=ttyS0 tsc=reliable xdayfly.probe dayfly.probes dayfly.docker=on\n");
        assert_eq!(options, Options { probe: false, docker: true, shell: false, dns: None });
        let options = Options::parse("quiet dayfly.probe dayfly.docker=off dayfly.shell\n");
        assert_eq!(options, Options { probe: true, docker: false, shell: true, dns: None });
        assert_eq!(Options::parse("dayfly.dns=1.1.1.1").dns, Some(Ipv4Addr::new(1, 1, 1, 1)));
        assert_eq!(Options::parse("dayfly.dns=one").dns, None);
    }
}
