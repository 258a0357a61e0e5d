//! The files of the history: `history/<number>.jsonl` below the state folder.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dayfly_vm::NetworkUse;

use super::Entry;
use crate::fact::{Fact, FactRecord, Moment};
use crate::instance::private_folder;
use crate::journal::append_whole;

/// Folder of the history, under the state folder.
const FOLDER: &str = "history";
/// Length from which on a segment is followed by another one, bytes. It holds some 3000 runs.
const SEGMENT_MAX: u64 = 4 * 1024 * 1024;
/// Age at which a segment is removed, counted from its last entry.
pub const AGE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// Bytes that all segments may take together: some 180,000 runs.
pub const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Longest entry that is read, bytes.
const ENTRY_MAX: u64 = 1024 * 1024;

/// The history of all runs of this host.
#[derive(Debug, Clone)]
pub struct History {
    folder: PathBuf,
}

/// A place in the history: the end of what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes of it.
    pub offset: u64,
}

impl History {
    /// Returns the history below a state folder. Creates nothing.
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join(FOLDER) }
    }

    /// Returns its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps the facts of a run that has ended. Returns after they are on the disk. Does nothing without a fact of a runner.
    ///
    /// # Errors
    /// No space.
    pub fn keep(&self, records: &[FactRecord]) -> io::Result<()> {
        Entry::of(records).map_or(Ok(()), |entry| self.append(&entry))
    }

    /// Returns the bytes of all segments.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn bytes(&self) -> io::Result<u64> {
        let length = |number| fs::metadata(self.path(number)).map_or(0, |metadata| metadata.len());
        Ok(self.segments()?.into_iter().map(length).sum())
    }

    /// Keeps the facts of a run whose process has died.
    ///
    /// # Errors
    /// As for [`History::keep`].
    pub(crate) fn keep_of_the_dead(&self, records: &[FactRecord]) -> io::Result<()> {
        let Some(mut entry) = Entry::of(records) else { return Ok(()) };
        entry.end_with_its_process(Moment::now());
        self.append(&entry)
    }

    /// Keeps a fact about a run that its own journal does not have, because the orchestrator tells it. Does nothing for other
    /// facts.
    ///
    /// # Errors
    /// As for [`History::keep`].
    pub(crate) fn add(&self, record: &FactRecord) -> io::Result<()> {
        match record.fact {
            Fact::JobConcluded { .. } | Fact::JobTaken { .. } => self.keep(std::slice::from_ref(record)),
            _ => Ok(()),
        }
    }

    fn append(&self, entry: &Entry) -> io::Result<()> {
        private_folder(&self.folder).map_err(io::Error::other)?;
        let last = self.segments()?.pop().unwrap_or(1);
        let length = fs::metadata(self.path(last)).map_or(0, |metadata| metadata.len());
        // Another process may do the same at the same time, and appends to the same next segment.
        let number = if length >= SEGMENT_MAX { last + 1 } else { last };
        append_whole(&self.path(number), &entry.line()?)?;
        if number > last { self.prune() } else { Ok(()) }
    }

    /// Returns the numbers of all segments, the oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut numbers: Vec<u64> =
            names.filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:08}.jsonl"))
    }

    /// Passes the entries of a segment from an offset on to `take`. Returns the offset after the last whole line.
    ///
    /// # Errors
    /// The segment cannot be read. One that has just been removed has no entries.
    pub(super) fn read_from(&self, from: Place, mut take: impl FnMut(Entry)) -> io::Result<u64> {
        let mut file = match File::open(self.path(from.segment)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from.offset),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(from.offset))?;
        let (mut reader, mut offset, mut line) = (BufReader::new(file), from.offset, Vec::new());
        loop {
            line.clear();
            let read = reader.by_ref().take(ENTRY_MAX).read_until(b'\n', &mut line)?;
            // The last line may still be written. One that is too long is no entry, and is skipped in parts.
            if !line.ends_with(b"\n") && (read as u64) < ENTRY_MAX {
                return Ok(offset);
            }
            offset += read as u64;
            if let Some(entry) = Entry::read(&line) {
                take(entry);
            }
        }
    }

    /// Returns the facts that the history has of a run, in the order of their times; none if it does not know the run.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn facts_of(&self, runner: &str) -> io::Result<Vec<FactRecord>> {
        let mut records = Vec::new();
        for segment in self.segments()? {
            self.read_from(Place { segment, offset: 0 }, |entry| {
                if entry.runner.id.as_str() == runner {
                    records.extend(entry.records());
                }
            })?;
        }
        records.sort_by_key(|record: &FactRecord| record.at.us());
        records.dedup();
        Ok(records)
    }

    /// Returns the records of the networks of a pool's last runs, the oldest first, at most so many.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn network_uses(&self, pool: &str, most: usize) -> io::Result<Vec<NetworkUse>> {
        let mut last = VecDeque::new();
        for segment in self.segments()? {
            self.read_from(Place { segment, offset: 0 }, |entry| {
                if entry.pool.as_deref() != Some(pool) {
                    return;
                }
                for (_, fact) in entry.facts {
                    if let Fact::NetworkUsed { network } = fact {
                        last.push_back(*network);
                    }
                }
                last.drain(..last.len().saturating_sub(most));
            })?;
        }
        Ok(last.into())
    }

    /// Removes the oldest segments: those whose last entry is older than [`AGE_MAX`], and those beyond [`BYTES_MAX`].
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn prune(&self) -> io::Result<()> {
        self.prune_to(SystemTime::now(), BYTES_MAX)
    }

    fn prune_to(&self, now: SystemTime, bytes_max: u64) -> io::Result<()> {
        let mut bytes = 0;
        // The last one stays, so that the next number is never one that was used before.
        let last = self.segments()?.pop();
        for number in self.segments()?.into_iter().rev() {
            let path = self.path(number);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            bytes += metadata.len();
            let written = metadata.modified().unwrap_or(now);
            let is_old = now.duration_since(written).is_ok_and(|age| age > AGE_MAX);
            if Some(number) != last && (is_old || bytes > bytes_max) {
                // The error is ignored, because another process may remove the same segment at the same time.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::RunnerId;
    use crate::fact::{OverHow, RunnerRef};
    use crate::job_end::tests::failed_on;

    pub(in crate::history) fn run(id: &RunnerId, facts: &[Fact]) -> Vec<FactRecord> {
        let record = |(at, fact): (u64, &Fact)| FactRecord {
            at: Moment::of_ms(1000 + at),
            pool: Some("a".to_owned()),
            loop_index: 1,
            runner: Some(RunnerRef { id: id.clone(), name: id.name("p") }),
            fact: fact.clone(),
        };
        (0..).zip(facts).map(record).collect()
    }

    fn entries(history: &History) -> Vec<Entry> {
        let mut entries = Vec::new();
        for segment in history.segments().expect("read") {
            history.read_from(Place { segment, offset: 0 }, |entry| entries.push(entry)).expect("read");
        }
        entries
    }

    #[test]
    fn what_is_kept_of_a_run_is_found_by_its_id_with_what_the_forge_says_later() {
        let state = tempfile::tempdir().expect("folder");
        let history = History::of(state.path());
        assert!(history.facts_of("1-aaaaaaa").expect("nothing").is_empty());
        let (one, other) = (RunnerId::random(1), RunnerId::random(1));
        let facts = [Fact::Registering, Fact::Over { how: OverHow::JobDone, why: None, kind: None }];
        history.keep(&run(&one, &facts)).expect("kept");
        history.keep(&run(&other, &facts)).expect("kept");
        let mut late = run(&one, &[failed_on("r", 0).fact()]);
        late[0].at = Moment::of_ms(5000);
        history.add(&late[0]).expect("kept");
        history.add(&run(&one, &[Fact::Ended])[0]).expect("nothing to keep");
        let found = history.facts_of(one.as_str()).expect("read");
        assert_eq!(found, [run(&one, &facts), late].concat());
    }

    #[test]
    fn the_records_of_networks_are_those_of_the_last_runs_of_the_pool() {
        let state = tempfile::tempdir().expect("folder");
        let history = History::of(state.path());
        let used = |left_out| NetworkUse { left_out, ..NetworkUse::default() };
        for number in 1..=5 {
            let network = Box::new(used(number));
            history.keep(&run(&RunnerId::random(1), &[Fact::NetworkUsed { network }])).expect("kept");
        }
        history.keep(&run(&RunnerId::random(1), &[Fact::Registering])).expect("kept");
        assert_eq!(history.network_uses("a", 2).expect("read"), [used(4), used(5)]);
        assert!(history.network_uses("b", 2).expect("read").is_empty());
    }

    #[test]
    fn an_entry_that_is_repeated_after_a_crash_gives_the_same_facts() {
        let state = tempfile::tempdir().expect("folder");
        let history = History::of(state.path());
        let id = RunnerId::random(1);
        let records = run(&id, &[Fact::Registering, Fact::StartingVm]);
        history.keep(&records).expect("kept");
        history.keep(&records).expect("kept");
        assert_eq!(history.facts_of(id.as_str()).expect("read"), records);
    }

    #[test]
    fn an_entry_after_one_that_a_full_disk_has_cut_is_not_lost_and_a_half_one_is_not_read_yet() {
        let state = tempfile::tempdir().expect("folder");
        let history = History::of(state.path());
        let records = run(&RunnerId::random(1), &[Fact::Registering]);
        history.keep(&records).expect("kept");
        let mut file = fs::OpenOptions::new().append(true).open(history.path(1)).expect("open");
        file.write_all(b"{\"runner\":\"1-aa").expect("half a line");
        let whole = history.read_from(Place { segment: 1, offset: 0 }, drop).expect("read");
        assert!(whole < fs::metadata(history.path(1)).expect("there").len());
        history.keep(&run(&RunnerId::random(1), &[Fact::Registering])).expect("kept");
        assert_eq!(entries(&history).len(), 2);
    }

    #[test]
    fn segments_follow_each_other_and_the_oldest_go_by_age_and_by_bytes() {
        let state = tempfile::tempdir().expect("folder");
        let history = History::of(state.path());
        let long = [Fact::Warning { message: "x".repeat(900 * 1024) }];
        (0..12).for_each(|_| history.keep(&run(&RunnerId::random(1), &long)).expect("kept"));
        assert_eq!(history.segments().expect("read"), [1, 2, 3]);
        let length = |number| fs::metadata(history.path(number)).expect("there").len();
        history.prune_to(SystemTime::now(), length(2) + length(3)).expect("pruned");
        assert_eq!(history.segments().expect("read"), [2, 3]);
        let old = File::options().append(true).open(history.path(2)).expect("open");
        old.set_modified(SystemTime::now() - AGE_MAX - Duration::from_secs(60)).expect("its time");
        history.prune().expect("pruned");
        assert_eq!(history.segments().expect("read"), [3]);
        history.prune_to(SystemTime::now() + 2 * AGE_MAX, 0).expect("pruned");
        history.keep(&run(&RunnerId::random(1), &long)).expect("kept");
        assert_eq!(history.segments().expect("read"), [3], "numbers only grow");
    }

    #[test]
    fn the_history_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().expect("folder");
        let history = History::of(state.path());
        history.keep(&run(&RunnerId::random(1), &[Fact::Registering])).expect("kept");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(history.folder()), mode(&history.path(1))), (0o700, 0o600));
    }
}
