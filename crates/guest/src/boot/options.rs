//! Parses this program's options on the kernel's command line.

/// The options that start with `dayfly.`; all others are the kernel's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// True to show only that user space runs, then power off.
    pub(super) probe: bool,
    /// True to start Docker.
    pub(super) docker: bool,
}

impl Options {
    pub(super) fn parse(command_line: &str) -> Self {
        let mut options = Self { probe: false, docker: true };
        for word in command_line.split_ascii_whitespace() {
            match word {
                "dayfly.probe" => options.probe = true,
                "dayfly.docker=off" => options.docker = false,
                _ => {}
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
        assert_eq!(options, Options { probe: false, docker: true });
        let options = Options::parse("quiet dayfly.probe dayfly.docker=off\n");
        assert_eq!(options, Options { probe: true, docker: false });
    }
}
