//! The things that jobs usually need: their paths in images, and the packages and files to add if an image lacks them.

use dayfly_guest::environment::{AUTHORITIES, DAEMONS};

use super::super::manifest::NO_DOCKER;

/// A thing that jobs usually need.
#[derive(Debug)]
pub(in super::super) struct Wanted {
    /// Its name in messages.
    pub(in super::super) name: &'static str,
    /// Paths at which images may have it, from the root. An image needs only one of them.
    pub(in super::super) places: &'static [&'static str],
    /// The tool that is added to an image that lacks it; none if it cannot be added.
    pub(in super::super) tool: Option<Tool>,
    /// True if only Docker's engine needs it. An image without an engine does not lack it.
    pub(in super::super) for_engine: bool,
}

/// The packages, files and links of a tool.
#[derive(Debug)]
pub(in super::super) struct Tool {
    /// Debian packages. A package with a leading question mark is fetched only if the release has it.
    pub(super) packages: &'static [&'static str],
    pub(super) parts: &'static [Part],
    /// Paths of links in the image, and their targets relative to the folder of tools.
    pub(in super::super) links: &'static [(&'static str, &'static str)],
}

/// A part of a tool. Paths in packages have no leading `usr/`, and all of `/bin`, `/sbin` and `/lib` count as below `/usr`.
#[derive(Debug)]
pub(super) enum Part {
    /// A program from any program folder of its package. It is put into `bin`.
    Program(&'static str),
    /// A program that is put into `bin` under another name.
    Named(&'static str, &'static str),
    /// All files of a folder.
    Folder { from: &'static str, to: &'static str },
    /// One file.
    File { from: &'static str, to: &'static str },
    /// All files of a folder, joined into one file.
    Joined { from: &'static str, to: &'static str },
}

use Part::{File, Folder, Joined, Named, Program};

/// Returns the whole table, in the order in which messages list it.
pub(in super::super) fn wanted() -> &'static [Wanted] {
    &WANTED
}

static WANTED: [Wanted; 15] = [
    // An image without a shell has none of the other programs that a step would call either.
    Wanted { name: "sh", places: &["bin/sh"], tool: None, for_engine: false },
    Wanted {
        name: "bash",
        places: &["bin/bash", "usr/local/bin/bash"],
        tool: Some(Tool {
            packages: &["bash"],
            parts: &[Program("bash")],
            links: &[("bin/bash", "bin/bash")],
        }),
        for_engine: false,
    },
    Wanted {
        name: "tar",
        places: &["bin/tar", "usr/bin/tar", "usr/local/bin/tar"],
        tool: Some(Tool {
            packages: &["tar"],
            parts: &[Program("tar")],
            links: &[("usr/bin/tar", "bin/tar")],
        }),
        for_engine: false,
    },
    Wanted {
        name: "gzip",
        places: &["bin/gzip", "usr/bin/gzip", "usr/local/bin/gzip"],
        tool: Some(Tool {
            packages: &["gzip"],
            parts: &[Program("gzip")],
            links: &[("usr/bin/gzip", "bin/gzip")],
        }),
        for_engine: false,
    },
    Wanted {
        name: "curl",
        places: &["usr/bin/curl", "usr/local/bin/curl", "bin/curl"],
        tool: Some(Tool {
            packages: &["curl"],
            parts: &[Program("curl")],
            links: &[("usr/bin/curl", "bin/curl")],
        }),
        for_engine: false,
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
            // git looks for its commands at the path that it was built with.
            links: &[
                ("usr/bin/git", "bin/git"),
                ("usr/lib/git-core", "lib/git-core"),
                ("usr/share/git-core", "share/git-core"),
            ],
        }),
        for_engine: false,
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
        for_engine: false,
    },
    Wanted {
        name: "certificate authorities",
        places: &AUTHORITIES,
        tool: Some(Tool {
            packages: &["ca-certificates"],
            parts: &[Joined { from: "share/ca-certificates/mozilla", to: "share/ca-certificates.crt" }],
            links: &[("etc/ssl/certs/ca-certificates.crt", "share/ca-certificates.crt")],
        }),
        for_engine: false,
    },
    Wanted {
        name: "modprobe",
        places: &["sbin/modprobe", "usr/sbin/modprobe"],
        tool: Some(Tool {
            packages: &["kmod"],
            parts: &[Named("kmod", "modprobe")],
            links: &[("sbin/modprobe", "bin/modprobe")],
        }),
        for_engine: false,
    },
    Wanted {
        name: "iptables",
        places: &["sbin/iptables", "usr/sbin/iptables", "usr/local/sbin/iptables", "opt/dayfly/bin/iptables"],
        tool: Some(Tool {
            packages: &["iptables"],
            parts: &[
                Named("xtables-nft-multi", "iptables"),
                Named("xtables-nft-multi", "ip6tables"),
                Folder { from: "lib/x86_64-linux-gnu/xtables", to: "lib/xtables" },
            ],
            // iptables looks for its extensions at the path that it was built with.
            links: &[
                ("usr/sbin/iptables", "bin/iptables"),
                ("usr/sbin/ip6tables", "bin/ip6tables"),
                ("usr/lib/x86_64-linux-gnu/xtables", "lib/xtables"),
            ],
        }),
        for_engine: true,
    },
    Wanted {
        name: "containerd",
        places: &[
            "usr/bin/containerd",
            "usr/local/bin/containerd",
            "bin/containerd",
            "opt/dayfly/bin/containerd",
        ],
        tool: Some(Tool { packages: &["containerd"], parts: &[Program("containerd")], links: &[] }),
        for_engine: true,
    },
    Wanted {
        name: "containerd's shim",
        places: &[
            "usr/bin/containerd-shim-runc-v2",
            "usr/local/bin/containerd-shim-runc-v2",
            "bin/containerd-shim-runc-v2",
            "opt/dayfly/bin/containerd-shim-runc-v2",
        ],
        tool: Some(Tool {
            packages: &["containerd"],
            parts: &[Program("containerd-shim-runc-v2")],
            links: &[],
        }),
        for_engine: true,
    },
    Wanted {
        name: "runc",
        places: &["usr/bin/runc", "usr/sbin/runc", "usr/local/bin/runc", "bin/runc", "opt/dayfly/bin/runc"],
        tool: Some(Tool { packages: &["runc"], parts: &[Program("runc")], links: &[] }),
        for_engine: true,
    },
    Wanted {
        name: "docker-proxy",
        places: &[
            "usr/bin/docker-proxy",
            "usr/sbin/docker-proxy",
            "usr/libexec/docker/docker-proxy",
            "usr/local/bin/docker-proxy",
            "opt/dayfly/bin/docker-proxy",
        ],
        tool: Some(Tool { packages: &["docker.io"], parts: &[Program("docker-proxy")], links: &[] }),
        for_engine: true,
    },
    Wanted {
        name: NO_DOCKER,
        places: &DAEMONS,
        tool: Some(Tool {
            packages: &["docker.io", "docker-cli", "docker-buildx", "docker-compose", "tini"],
            // All else that the engine needs is listed above. The agent gives the daemon a search path that includes it.
            parts: &[
                Program("dockerd"),
                Program("docker"),
                Named("tini-static", "docker-init"),
                Folder { from: "libexec/docker/cli-plugins", to: "libexec/docker/cli-plugins" },
            ],
            links: &[
                ("usr/bin/docker", "bin/docker"),
                // The client looks for `docker compose` and `docker buildx` there.
                ("usr/libexec/docker/cli-plugins", "libexec/docker/cli-plugins"),
            ],
        }),
        for_engine: false,
    },
];

#[cfg(test)]
mod tests {
    use dayfly_guest::environment::ENGINE_PROGRAMS;

    use super::super::is_tool;
    use super::*;

    #[test]
    fn each_program_that_a_check_of_the_engine_looks_for_is_a_tool_of_its_name() {
        for (name, program, _) in ENGINE_PROGRAMS {
            let found = wanted().iter().find(|wanted| wanted.name == name).expect(name);
            assert!(found.places.iter().all(|place| place.ends_with(&format!("/{program}"))), "{name}");
            assert!(is_tool(name), "{name}");
        }
        assert!(!is_tool("sh") && !is_tool("the variable X"));
    }

    #[test]
    fn each_link_leads_to_a_part_and_is_where_it_is_looked_for() {
        for Wanted { name, places, tool, .. } in wanted() {
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
                // The daemon's search path ends with this folder.
                let is_program = |program: &str| place == format!("opt/dayfly/bin/{program}");
                tool.links.iter().any(|(link, _)| *link == place)
                    || tool.parts.iter().any(|part| matches!(part, Program(program) if is_program(program)))
            });
            assert!(is_found, "{name}");
        }
    }
}
