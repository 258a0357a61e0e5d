//! The scratch space of this host: what the machines of all processes have on the disk of the state folder.
//!
//! ```text
//!   instances/<i>/runs/<id>   ──┐
//!   instances/<i>/spares/<id> ──┼──> measure ──> ScratchUse ──> budget, `dayfly disk`
//!   templates/<id>, kept/<id> ──┘
//! ```
//!
//! Allocated blocks count, because scratch disks and memory files are sparse. Nothing depends on whether a process
//! lives: what a dead one has left takes the same space.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_host::space::SpaceMeter;
use dayfly_vm::kept;
use serde::{Deserialize, Serialize};

use crate::fact::FactRecord;
use crate::instance::{self, SPARES, folders_in};
use crate::journal;

/// The space that a new machine has soon, at least: the journal of its file system, what a job checks out, its logs.
pub const MACHINE_MIN_MIB: u64 = 64;

/// Most files and folders that one measurement looks at.
const ENTRIES_MAX: usize = 200_000;
/// Longest time that one measurement takes.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Longest first line of a journal that is read, bytes.
const LINE_MAX: u64 = 64 * 1024;

/// The user of some scratch space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScratchKind {
    /// A run: the machine of one runner, with its disk, its journal and its logs. It may be left by a dead process.
    Run,
    /// A fork that was created before it is needed.
    Spare,
    /// A frozen machine that others are forked from: its memory and its disk.
    Template,
    /// A frozen machine whose job has failed: its memory and its disk.
    Kept,
}

impl ScratchKind {
    /// Returns the word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Spare => "spare",
            Self::Template => "template",
            Self::Kept => "kept machine",
        }
    }
}

/// A folder with scratch space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScratchItem {
    /// Its user.
    pub kind: ScratchKind,
    /// Name of the folder: the id of a runner or of a template.
    pub id: String,
    /// Name of the instance; none for a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Name of the pool of a run, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Name of the machine and the registration of a run, if its journal can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The space, bytes.
    pub bytes: u64,
}

/// The scratch space in use on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ScratchUse {
    /// All that has some.
    pub items: Vec<ScratchItem>,
    /// False if some files could not be read or were too many, so that more space is in use.
    pub is_whole: bool,
}

/// The sum of the scratch space in use, as an orchestrator with a limit publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScratchSummary {
    /// The space, MiB.
    pub used_mib: u64,
    /// The limit of this host, MiB; none if only pools have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_mib: Option<u64>,
    /// False if more space is in use than could be measured.
    pub is_whole: bool,
}

impl ScratchSummary {
    /// Returns true if it says more than an earlier one: the limit is another one, or the space has changed by a
    /// twentieth of it.
    pub(crate) fn is_news_after(&self, before: &Self) -> bool {
        let step_mib = self.limit_mib.map_or(1024, |limit| (limit / 20).max(1));
        (self.limit_mib, self.is_whole) != (before.limit_mib, before.is_whole)
            || self.used_mib.abs_diff(before.used_mib) >= step_mib
    }
}

impl ScratchUse {
    /// Returns the sum, MiB, rounded up.
    pub fn total_mib(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).fold(0, u64::saturating_add).div_ceil(1 << 20)
    }
}

/// Measures the scratch space under a state folder, which takes time. The cost has a bound: a measurement that reaches
/// it is not whole.
pub fn measure(state: &Path) -> ScratchUse {
    measure_within(state, SpaceMeter::new(ENTRIES_MAX, TIME_MAX))
}

fn measure_within(state: &Path, mut meter: SpaceMeter) -> ScratchUse {
    let (mut items, mut is_readable) = (Vec::new(), true);
    let mut folders = |path: &Path| {
        folders_in(path).unwrap_or_else(|_| {
            is_readable = false;
            Vec::new()
        })
    };
    for instance in folders(&state.join(instance::FOLDER)) {
        let name = name_of(&instance);
        for run in folders(&instance.join("runs")) {
            let item = item(ScratchKind::Run, &run, &mut meter);
            let begun = first_fact(&run);
            items.push(ScratchItem {
                instance: Some(name.clone()),
                pool: begun.as_ref().and_then(|begun| begun.pool.clone()),
                name: begun.and_then(|begun| Some(begun.runner?.name)),
                ..item
            });
        }
        for spare in folders(&instance.join(SPARES)) {
            let item = item(ScratchKind::Spare, &spare, &mut meter);
            items.push(ScratchItem { instance: Some(name.clone()), ..item });
        }
    }
    let templates = folders(&state.join(dayfly_vm::template::FOLDER));
    items.extend(templates.iter().map(|path| item(ScratchKind::Template, path, &mut meter)));
    match kept::list(state) {
        Ok(machines) => items.extend(machines.iter().map(kept_item)),
        Err(_) => is_readable = false,
    }
    ScratchUse { items, is_whole: is_readable && meter.is_whole() }
}

fn item(kind: ScratchKind, path: &Path, meter: &mut SpaceMeter) -> ScratchItem {
    let (id, bytes) = (name_of(path), meter.allocated(path));
    ScratchItem { kind, id, instance: None, pool: None, name: None, bytes }
}

/// Returns the item of a kept machine, without the files that a template or an image has too.
fn kept_item(machine: &kept::KeptMachine) -> ScratchItem {
    let about = &machine.manifest().about;
    ScratchItem {
        kind: ScratchKind::Kept,
        id: about.runner.clone(),
        instance: None,
        pool: about.pool.clone(),
        name: Some(about.name.clone()),
        bytes: machine.bytes(),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the first fact of a run's journal, which says whose it is.
fn first_fact(run: &Path) -> Option<FactRecord> {
    let journal: PathBuf = run.join(journal::FILE_NAME);
    let mut line = String::new();
    BufReader::new(File::open(journal).ok()?.take(LINE_MAX)).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use dayfly_forge::RunnerScope;

    use super::*;
    use crate::fact::tests::record;
    use crate::journal::Journal;

    /// Writes a file of so many MiB into a new folder.
    pub(crate) fn filled(folder: &Path, mib: usize) {
        fs::create_dir_all(folder).expect("folder");
        let file = fs::File::create(folder.join("disk")).expect("file");
        let mut file = std::io::BufWriter::new(file);
        std::io::Write::write_all(&mut file, &vec![7; mib << 20]).expect("written");
        file.into_inner().expect("flushed").sync_all().expect("on the disk");
    }

    #[test]
    fn runs_spares_and_templates_of_all_processes_count_with_their_pools() {
        let state = tempfile::tempdir().expect("folder");
        let of = |path: &str| state.path().join(path);
        filled(&of("instances/a/runs/0-aaaaaaa"), 3);
        let begun =
            journal::begun("/e".into(), "http://f/".to_owned(), RunnerScope::Organization("o".into()));
        let begun = FactRecord { pool: Some("build".to_owned()), ..record(begun) };
        Journal::open(&of("instances/a/runs/0-aaaaaaa")).expect("journal").write(&begun).expect("written");
        filled(&of("instances/b/runs/1-bbbbbbb"), 1);
        filled(&of("instances/b/spares/x"), 2);
        filled(&of("templates/t"), 4);
        filled(&of("images/i"), 5);
        let measured = measure(state.path());
        let shown = |item: &ScratchItem| {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let (kind, mib) = (item.kind.as_str(), item.bytes >> 20);
            format!(
                "{kind} {} {} {} {} {mib}",
                item.id,
                text(&item.instance),
                text(&item.pool),
                text(&item.name)
            )
        };
        assert_eq!(
            measured.items.iter().map(shown).collect::<Vec<_>>(),
            [
                "run 0-aaaaaaa a build p-0-aaaaaaa 3",
                "run 1-bbbbbbb b - - 1",
                "spare x b - - 2",
                "template t - - - 4",
            ]
        );
        assert!(measured.is_whole && (10..=11).contains(&measured.total_mib()), "{}", measured.total_mib());
    }

    #[test]
    fn a_summary_is_told_if_the_limit_or_a_twentieth_of_it_has_changed() {
        let of = |used_mib| ScratchSummary { used_mib, limit_mib: Some(2000), is_whole: true };
        for (now, is_news) in [
            (of(1099), false),
            (of(1100), true),
            (of(900), true),
            (ScratchSummary { limit_mib: None, ..of(1000) }, true),
            (ScratchSummary { is_whole: false, ..of(1000) }, true),
        ] {
            assert_eq!(now.is_news_after(&of(1000)), is_news, "{now:?}");
        }
    }

    #[test]
    fn a_measurement_that_reaches_its_bound_says_that_it_is_not_whole() {
        let state = tempfile::tempdir().expect("folder");
        (0..9).for_each(|number| filled(&state.path().join(format!("instances/a/runs/{number}-aaaaaaa")), 0));
        let few = measure_within(state.path(), SpaceMeter::new(5, TIME_MAX));
        assert_eq!((few.items.len(), few.is_whole), (9, false));
        assert!(measure(state.path()).is_whole);
        assert_eq!(measure(&state.path().join("none")), ScratchUse { items: Vec::new(), is_whole: true });
    }
}
