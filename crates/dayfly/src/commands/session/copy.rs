//! `dayfly cp`: copies a file into the machine of a runner, or out of it.
//!
//! `cat` and `dd` of the machine read and write there, so that a user of the machine needs the rights, and a hostile machine
//! decides nothing but the content of the one file that was named.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dayfly_guest::protocol::session::SessionProgram;

use super::terminal::Typed;
use super::{Ends, Output, open};
use crate::cli::CpArgs;
use crate::commands::logs::runner_id;
use crate::exit::{Failure, Outcome, Result};
use crate::settings::Places;
use crate::signals::Signals;

/// The name of standard input or output in place of a file.
const STANDARD: &str = "-";

/// The direction of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Copy<'a> {
    /// Into the machine.
    In { from: &'a str, runner: &'a str, to: &'a str },
    /// Out of the machine.
    Out { runner: &'a str, from: &'a str, to: &'a str },
}

pub(crate) async fn run(places: &Places, args: CpArgs) -> Result<Outcome> {
    let CpArgs { from, to, user } = &args;
    let program = |words: Vec<String>| SessionProgram {
        command: words,
        user: user.clone(),
        ..SessionProgram::default()
    };
    let mut signals = Signals::take_over()?;
    match direction(from, to)? {
        Copy::In { from, runner, to } => {
            let input = if from == STANDARD { Typed::start() } else { open_plain(from).map(Typed::of) };
            let input = input.map_err(|error| Failure::cannot(format!("cannot read {from}: {error}")))?;
            let write = ["dd", &format!("of={to}"), "bs=64k", "status=none"].map(str::to_owned);
            let session = open(places, runner, program(write.to_vec())).await?;
            Ends::new(session, Some(input), Output::Standard).run(&mut signals).await
        }
        Copy::Out { runner, from, to } => {
            let read = ["cat", "--", from].map(str::to_owned);
            let session = open(places, runner, program(read.to_vec())).await?;
            if to == STANDARD {
                return Ends::new(session, None, Output::Standard).run(&mut signals).await;
            }
            let part = Part::create(&target(Path::new(to), from))?;
            let output = Output::File(part.file.try_clone().map_err(Failure::cannot)?);
            let outcome = Ends::new(session, None, output).run(&mut signals).await?;
            if outcome == Outcome::Program(0) {
                part.finish()?;
            }
            Ok(outcome)
        }
    }
}

/// Decides which side is in a machine. A file of this host whose name has a colon can be given as ./NAME.
fn direction<'a>(from: &'a str, to: &'a str) -> Result<Copy<'a>> {
    match (in_machine(from), in_machine(to)) {
        (None, Some((runner, to))) => Ok(Copy::In { from, runner, to }),
        (Some((runner, from)), None) => Ok(Copy::Out { runner, from, to }),
        (Some(_), Some(_)) => {
            Err(Failure::usage("both files are in machines").hint("copy to a file of this host first"))
        }
        (None, None) => {
            Err(Failure::usage(format!("neither {from} nor {to} is a file of a runner's machine"))
                .hint("name it as RUNNER:PATH, e.g. 2-k3V9x0q:/var/log/docker.log"))
        }
    }
}

/// Splits the name of a file in a machine into runner and path.
fn in_machine(name: &str) -> Option<(&str, &str)> {
    let (runner, path) = name.split_once(':')?;
    (runner_id(runner).is_ok() && !path.is_empty()).then_some((runner, path))
}

/// Returns the path of a copy: a folder gets a file of the same name. The name comes from the command line, never from the
/// machine.
fn target(to: &Path, from: &str) -> PathBuf {
    match Path::new(from).file_name() {
        Some(name) if to.is_dir() => to.join(name),
        _ => to.to_owned(),
    }
}

fn open_plain(path: &str) -> io::Result<std::os::fd::OwnedFd> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder; pack it with tar"));
    }
    Ok(file.into())
}

/// A file that is being written, beside its final name. It is removed when it is dropped.
struct Part {
    file: File,
    path: PathBuf,
    to: PathBuf,
}

impl Part {
    fn create(to: &Path) -> Result<Self> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let path = to.with_file_name(name);
        let file = File::options().write(true).create_new(true).mode(0o666).open(&path);
        let failed = |error| Failure::cannot(format!("cannot write {}: {error}", path.display()));
        Ok(Self { file: file.map_err(failed)?, to: to.to_owned(), path })
    }

    /// Gives the file its name.
    fn finish(self) -> Result<()> {
        std::fs::rename(&self.path, &self.to)
            .map_err(|error| Failure::cannot(format!("cannot write {}: {error}", self.to.display())))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After its rename, there is no such file.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_is_in_a_machine() {
        let id = "2-k3V9x0q";
        let (of_id, of_name) = (format!("{id}:/a:b"), format!("GH-runner-{id}:x"));
        assert_eq!(direction("f", &of_id).expect("in"), Copy::In { from: "f", runner: id, to: "/a:b" });
        let out = Copy::Out { runner: "GH-runner-2-k3V9x0q", from: "x", to: "." };
        assert_eq!(direction(&of_name, ".").expect("out"), out);
        for (from, to, why) in [
            ("a", "b", "neither a nor b is a file of a runner's machine"),
            ("./2-k3V9x0q:/a", "x:/b", "neither ./2-k3V9x0q:/a nor x:/b is a file of a runner's machine"),
            (of_id.as_str(), of_name.as_str(), "both files are in machines"),
            ("2-k3V9x0q:", "b", "neither 2-k3V9x0q: nor b is a file of a runner's machine"),
        ] {
            let refused = direction(from, to).expect_err("refused");
            assert_eq!((refused.code(), refused.to_string().as_str()), (2, why));
        }
    }

    #[test]
    fn a_copy_has_its_name_only_when_it_is_whole_and_a_folder_gets_the_name_that_was_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = target(folder.path(), "../../etc/passwd");
        assert_eq!(to, folder.path().join("passwd"));
        assert_eq!(target(&to, "/x/y"), to);
        std::fs::write(&to, "before").expect("written");
        drop(Part::create(&to).expect("created"));
        assert_eq!(std::fs::read_to_string(&to).expect("read"), "before");
        let part = Part::create(&to).expect("created");
        io::Write::write_all(&mut &part.file, b"after").expect("written");
        part.finish().expect("renamed");
        assert_eq!(std::fs::read_to_string(&to).expect("read"), "after");
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1, "nothing else is left");
    }
}
