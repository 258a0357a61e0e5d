//! The traces of dayfly, and what becomes of each. Pure.

use std::path::PathBuf;

use dayfly_fleet::recovery::Clearing;
use serde::Serialize;

use crate::units::mebibytes;

/// A trace of dayfly on this host or at a forge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Trace {
    /// A process that runs loops. It has to end before anything is removed.
    Process {
        instance: String,
        /// None if its status cannot be read.
        pid: Option<u32>,
    },
    /// The machine of a failed job that is kept, and thawed now. Its session has to end before anything is removed.
    Thawed { runner: String },
    /// A runner, or an instance without one, that a process has left which has died.
    Left {
        instance: String,
        /// None for the instance itself.
        runner: Option<String>,
        machine_lives: bool,
    },
    /// The registration of such a runner.
    Registration {
        name: String,
        scope: Option<String>,
        forge: Option<String>,
        /// False if no credential for its owner was given.
        has_credential: bool,
    },
    /// The scale set of a pool.
    ScaleSet {
        name: String,
        group: String,
        scope: String,
        forge: String,
        /// None if it could not be looked up.
        id: Option<u64>,
        /// The reason for that.
        problem: Option<String>,
        /// True if `--scale-sets` was given.
        is_wanted: bool,
    },
    /// A file or folder of the state, the configuration or the installation.
    File {
        path: PathBuf,
        what: FileKind,
        /// Space on the disk.
        bytes: u64,
    },
    /// An installed package.
    Package { name: String, command: String },
    /// A user or a group of this host that a package did not create.
    User { name: String },
    /// The guard of a host whose forwarding dayfly has turned on.
    Guard { table: String, command: String },
}

/// The use of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FileKind {
    State,
    /// In the state folder, but not known to be dayfly's.
    Foreign,
    Configuration,
    Program,
    Unit,
}

/// The fate of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Removed,
    /// It stays, for this reason.
    Stays(String),
    /// It has to go first, in this way.
    Blocks(String),
}

impl Trace {
    /// Returns what becomes of the trace if the command removes.
    pub(super) fn fate(&self) -> Fate {
        match self {
            Self::Process { .. } => Fate::Blocks(
                "end it first: systemctl stop dayfly, dayfly drain --wait, or SIGTERM".to_owned(),
            ),
            Self::Thawed { .. } => Fate::Blocks("end the session of dayfly thaw first".to_owned()),
            Self::Registration { has_credential: false, .. } => {
                Fate::Stays("no credential for its owner was given (--config, -p)".to_owned())
            }
            Self::ScaleSet { problem: Some(problem), .. } => {
                Fate::Stays(format!("it could not be looked up: {problem}"))
            }
            Self::ScaleSet { is_wanted: false, .. } => {
                Fate::Stays("another host may use it; --scale-sets deletes it".to_owned())
            }
            Self::File { what: FileKind::Foreign, .. } => Fate::Stays("dayfly does not know it".to_owned()),
            Self::Package { command, .. } | Self::Guard { command, .. } => {
                Fate::Stays(format!("this removes it: {command}"))
            }
            _ => Fate::Removed,
        }
    }

    /// Returns the trace in words.
    pub(super) fn words(&self) -> String {
        let of = |scope: &Option<String>, forge: &Option<String>| {
            let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
            format!("{} at {}", known(scope), known(forge))
        };
        match self {
            Self::Process { instance, pid: Some(pid) } => format!("process {pid} of instance {instance}"),
            Self::Process { instance, pid: None } => format!("process of instance {instance}"),
            Self::Thawed { runner } => format!("thawed machine of runner {runner}"),
            Self::Left { instance, runner: None, .. } => format!("instance {instance} of a dead process"),
            Self::Left { instance, runner: Some(runner), machine_lives } => {
                let machine = if *machine_lives { ", whose machine lives" } else { "" };
                format!("runner {runner} of instance {instance}{machine}")
            }
            Self::Registration { name, scope, forge, .. } => {
                format!("registration {name} of {}", of(scope, forge))
            }
            Self::ScaleSet { name, scope, forge, .. } => format!("scale set {name} of {scope} at {forge}"),
            Self::File { path, bytes, .. } => match bytes >> 20 {
                0 => path.display().to_string(),
                _ => format!("{} ({})", path.display(), mebibytes(*bytes)),
            },
            Self::Package { name, .. } => format!("package {name}"),
            Self::User { name } => format!("user and group {name}"),
            Self::Guard { table, .. } => format!("nft table {table}, and net.ipv4.ip_forward, which is on"),
        }
    }
}

/// Returns the traces of an instance that are left after it was cleared, each with the reason.
pub(super) fn left_of(traces: &[Trace], instance: &str, clearing: &Clearing) -> Vec<(Trace, String)> {
    let reason = |trace: &Trace| match trace {
        Trace::Left { instance: of, runner: Some(runner), .. } if of == instance => {
            clearing.kept.iter().find(|kept| kept.folder.ends_with(runner)).map(|kept| kept.why.clone())
        }
        Trace::Left { instance: of, runner: None, .. } if of == instance && !clearing.is_gone => {
            Some("a part of it stays".to_owned())
        }
        Trace::Registration { name, has_credential: true, .. } => {
            let left = clearing.registrations.iter().find(|left| left.name == *name);
            // The name of a registration ends with the id of its runner, which is the name of the folder.
            let is_of = |runner: &str| name.strip_suffix(runner).is_some_and(|rest| rest.ends_with('-'));
            let mut kept = clearing.kept.iter().filter_map(|kept| kept.folder.file_name()?.to_str());
            let is_kept = kept.any(is_of);
            left.map(|left| left.why.clone()).or_else(|| is_kept.then(|| "its runner stays".to_owned()))
        }
        _ => None,
    };
    traces.iter().filter_map(|trace| Some((trace.clone(), reason(trace)?))).collect()
}

/// Returns the traces as lines: first those that block, then those that are removed, then those that stay.
pub(super) fn lines(traces: &[Trace]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut part = |title: &str, select: &dyn Fn(Fate) -> Option<String>| {
        let chosen: Vec<_> = traces.iter().filter_map(|one| Some((one, select(one.fate())?))).collect();
        if !chosen.is_empty() {
            lines.push(title.to_owned());
        }
        for (trace, why) in chosen {
            let why = if why.is_empty() { why } else { format!(" - {why}") };
            lines.push(format!("  {}{why}", trace.words()));
        }
    };
    part("in the way:", &|fate| match fate {
        Fate::Blocks(why) => Some(why),
        _ => None,
    });
    part("removed:", &|fate| (fate == Fate::Removed).then(String::new));
    part("stays:", &|fate| match fate {
        Fate::Stays(why) => Some(why),
        _ => None,
    });
    lines
}

#[cfg(test)]
mod tests {
    use dayfly_fleet::recovery::{KeptRun, LeftRegistration};

    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn file(path: &str, what: FileKind, mib: u64) -> Trace {
        Trace::File { path: path.into(), what, bytes: mib << 20 }
    }

    #[test]
    fn each_trace_is_named_with_what_becomes_of_it() {
        let left = |runner: Option<&str>, machine_lives| Trace::Left {
            instance: "Qm3vT8xA".to_owned(),
            runner: runner.map(str::to_owned),
            machine_lives,
        };
        let registration = |name: &str, has_credential| Trace::Registration {
            name: name.to_owned(),
            scope: some("o/r"),
            forge: some("https://api.github.com/"),
            has_credential,
        };
        let scale_set = |name: &str, problem: Option<&str>, is_wanted| Trace::ScaleSet {
            name: name.to_owned(),
            group: "Default".to_owned(),
            scope: "o/r".to_owned(),
            forge: "https://api.github.com/".to_owned(),
            id: problem.is_none().then_some(7),
            problem: problem.map(str::to_owned),
            is_wanted,
        };
        let traces = [
            file("/var/lib/dayfly/images", FileKind::State, 900),
            Trace::Process { instance: "k3V9x0q1".to_owned(), pid: Some(417) },
            left(Some("0-aaaaaaa"), true),
            left(None, false),
            registration("GH-runner-0-aaaaaaa", true),
            registration("GH-runner-1-bbbbbbb", false),
            scale_set("build", None, false),
            scale_set("small", None, true),
            scale_set("large", Some("no answer"), true),
            file("/var/lib/dayfly/notes.txt", FileKind::Foreign, 0),
            file("/etc/dayfly", FileKind::Configuration, 0),
            Trace::Package { name: "dayfly".to_owned(), command: "apt-get purge dayfly".to_owned() },
            Trace::User { name: "dayfly".to_owned() },
            Trace::Guard { table: "ip dayfly-guard".to_owned(), command: "nft delete table".to_owned() },
        ];
        insta::assert_snapshot!(lines(&traces).join("\n"), @r"
        in the way:
          process 417 of instance k3V9x0q1 - end it first: systemctl stop dayfly, dayfly drain --wait, or SIGTERM
        removed:
          /var/lib/dayfly/images (900 MiB)
          runner 0-aaaaaaa of instance Qm3vT8xA, whose machine lives
          instance Qm3vT8xA of a dead process
          registration GH-runner-0-aaaaaaa of o/r at https://api.github.com/
          scale set small of o/r at https://api.github.com/
          /etc/dayfly
          user and group dayfly
        stays:
          registration GH-runner-1-bbbbbbb of o/r at https://api.github.com/ - no credential for its owner was given (--config, -p)
          scale set build of o/r at https://api.github.com/ - another host may use it; --scale-sets deletes it
          scale set large of o/r at https://api.github.com/ - it could not be looked up: no answer
          /var/lib/dayfly/notes.txt - dayfly does not know it
          package dayfly - this removes it: apt-get purge dayfly
          nft table ip dayfly-guard, and net.ipv4.ip_forward, which is on - this removes it: nft delete table
        ");
        assert_eq!(lines(&[]), Vec::<String>::new());
    }

    #[test]
    fn a_runner_that_was_kept_stays_with_its_registration_and_its_instance_and_nothing_else_does() {
        let left = |runner: Option<&str>| Trace::Left {
            instance: "Qm3vT8xA".to_owned(),
            runner: runner.map(str::to_owned),
            machine_lives: false,
        };
        let registration = |runner: &str| Trace::Registration {
            name: format!("GH-runner-{runner}"),
            scope: some("o/r"),
            forge: some("https://api.github.com/"),
            has_credential: true,
        };
        let traces = [
            left(None),
            left(Some("0-aaaaaaa")),
            registration("0-aaaaaaa"),
            left(Some("1-bbbbbbb")),
            registration("1-bbbbbbb"),
            left(Some("2-ccccccc")),
            registration("2-ccccccc"),
            file("/etc/dayfly", FileKind::Configuration, 0),
        ];
        let clearing = Clearing {
            kept: vec![KeptRun { folder: "/s/runs/0-aaaaaaa".into(), why: "a job still runs".to_owned() }],
            registrations: vec![LeftRegistration {
                name: "GH-runner-1-bbbbbbb".to_owned(),
                id: Some(7),
                scope: "o/r".to_owned(),
                forge: "https://api.github.com/".to_owned(),
                why: "no answer".to_owned(),
            }],
            ..Clearing::default()
        };
        let shown: Vec<String> = left_of(&traces, "Qm3vT8xA", &clearing)
            .iter()
            .map(|(trace, why)| format!("{}: {why}", trace.words()))
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        instance Qm3vT8xA of a dead process: a part of it stays
        runner 0-aaaaaaa of instance Qm3vT8xA: a job still runs
        registration GH-runner-0-aaaaaaa of o/r at https://api.github.com/: its runner stays
        registration GH-runner-1-bbbbbbb of o/r at https://api.github.com/: no answer
        ");
        let all_gone = Clearing { is_gone: true, ..Clearing::default() };
        assert_eq!(left_of(&traces, "Qm3vT8xA", &all_gone), []);
        assert_eq!(left_of(&traces, "another", &Clearing::default()), []);
    }
}
