//! What jobs usually need, where images have it, and what it is made of for those that have not.

use dayfly_guest::environment::{AUTHORITIES, DAEMONS};

use super::super::manifest::NO_DOCKER;

/// A thing that jobs usually need.
#[derive(Debug)]
pub(in super::super) struct Wanted {
    /// As people are told of it.
    pub(in super::super) name: &'static str,
    /// Where images have it, from their root; one of them is enough.
    pub(in super::super) places: &'static [&'static str],
    /// How an image comes by it; none where it cannot be added.
    pub(in super::super) tool: Option<Tool>,
}

/// What a tool is made of.
#[derive(Debug)]
pub(in super::super) struct Tool {
    /// Debian packages; one with a question mark is wanted where its release has it.
    pub(super) packages: &'static [&'static str],
    pub(super) parts: &'static [Part],
    /// Links in the image, and what in the folder of tools they lead to.
    pub(in super::super) links: &'static [(&'static str, &'static str)],
}

/// A part of a tool. Paths in packages are those of a system whose `/bin`, `/sbin` and `/lib` are below `/usr`, without that.
#[derive(Debug)]
pub(super) enum Part {
    /// A program, wherever its package has it: it comes into `bin`.
    Program(&'static str),
    /// A program that is called by another name.
    Named(&'static str, &'static str),
    /// All files of a folder.
    Folder { from: &'static str, to: &'static str },
    /// One file.
    File { from: &'static str, to: &'static str },
    /// All files of a folder, in one.
    Joined { from: &'static str, to: &'static str },
}

use Part::{File, Folder, Joined, Named, Program};

/// All of them, in the order in which people are told.
pub(in super::super) fn wanted() -> &'static [Wanted] {
    &WANTED
}

static WANTED: [Wanted; 10] = [
    // A system without a shell has nothing else of what a step would call either.
    Wanted { name: "sh", places: &["bin/sh"], tool: None },
    Wanted {
        name: "bash",
        places: &["bin/bash", "usr/local/bin/bash"],
        tool: Some(Tool {
            packages: &["bash"],
            parts: &[Program("bash")],
            links: &[("bin/bash", "bin/bash")],
        }),
    },
    Wanted {
        name: "tar",
        places: &["bin/tar", "usr/bin/tar", "usr/local/bin/tar"],
        tool: Some(Tool {
            packages: &["tar"],
            parts: &[Program("tar")],
            links: &[("usr/bin/tar", "bin/tar")],
        }),
    },
    Wanted {
        name: "gzip",
        places: &["bin/gzip", "usr/bin/gzip", "usr/local/bin/gzip"],
        tool: Some(Tool {
            packages: &["gzip"],
            parts: &[Program("gzip")],
            links: &[("usr/bin/gzip", "bin/gzip")],
        }),
    },
    Wanted {
        name: "curl",
        places: &["usr/bin/curl", "usr/local/bin/curl", "bin/curl"],
        tool: Some(Tool {
            packages: &["curl"],
            parts: &[Program("curl")],
            links: &[("usr/bin/curl", "bin/curl")],
        }),
    },
    Wanted {
        name: "git",
        places: &["usr/bin/git", "usr/local/bin/git", "bin/git"],
        tool: Some(Tool {
            packages: &["git"],
            parts: &[
                Program("git"),
                Folder { from: "lib/git-core", to: "lib/git-core" },
                Folder { from: "share/git-core/templates", to: "share/git-core/templates" },
            ],
            // It looks for its commands where it was built for.
            links: &[
                ("usr/bin/git", "bin/git"),
                ("usr/lib/git-core", "lib/git-core"),
                ("usr/share/git-core", "share/git-core"),
            ],
        }),
    },
    Wanted {
        name: "sudo",
        places: &["usr/bin/sudo", "usr/local/bin/sudo", "bin/sudo"],
        tool: Some(Tool {
            packages: &["sudo", "libpam-modules"],
            parts: &[
                Program("sudo"),
                File { from: "libexec/sudo/sudoers.so", to: "lib/sudo/sudoers.so" },
                File {
                    from: "lib/x86_64-linux-gnu/security/pam_permit.so",
                    to: "lib/security/pam_permit.so",
                },
            ],
            links: &[("usr/bin/sudo", "bin/sudo")],
        }),
    },
    Wanted {
        name: "certificate authorities",
        places: &AUTHORITIES,
        tool: Some(Tool {
            packages: &["ca-certificates"],
            parts: &[Joined { from: "share/ca-certificates/mozilla", to: "share/ca-certificates.crt" }],
            links: &[("etc/ssl/certs/ca-certificates.crt", "share/ca-certificates.crt")],
        }),
    },
    Wanted {
        name: "modprobe",
        places: &["sbin/modprobe", "usr/sbin/modprobe"],
        tool: Some(Tool {
            packages: &["kmod"],
            parts: &[Named("kmod", "modprobe")],
            links: &[("sbin/modprobe", "bin/modprobe")],
        }),
    },
    Wanted {
        name: NO_DOCKER,
        places: &DAEMONS,
        tool: Some(Tool {
            packages: &["docker.io", "?docker-cli", "iptables"],
            parts: &[
                Program("dockerd"),
                Program("docker"),
                Program("docker-init"),
                Program("docker-proxy"),
                Program("containerd"),
                Program("containerd-shim-runc-v2"),
                Program("runc"),
                Named("xtables-nft-multi", "iptables"),
                Named("xtables-nft-multi", "ip6tables"),
                Folder { from: "lib/x86_64-linux-gnu/xtables", to: "lib/xtables" },
            ],
            // The daemon finds the rest in its search path, which the agent gives it.
            links: &[("usr/bin/docker", "bin/docker")],
        }),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_link_leads_to_a_part_and_is_where_it_is_looked_for() {
        for Wanted { name, places, tool } in wanted() {
            let Some(tool) = tool else { continue };
            for (link, to) in tool.links {
                let leads = tool.parts.iter().any(|part| match part {
                    Program(program) | Named(_, program) => *to == format!("bin/{program}"),
                    Folder { to: folder, .. } => folder.starts_with(to),
                    File { to: file, .. } | Joined { to: file, .. } => file == to,
                });
                assert!(leads, "{name}: {link} -> {to}");
            }
            let is_found = places.iter().any(|place| {
                let place = place.trim_start_matches('/');
                tool.links.iter().any(|(link, _)| *link == place) || place == "opt/dayfly/bin/dockerd"
            });
            assert!(is_found, "{name}");
        }
    }
}
