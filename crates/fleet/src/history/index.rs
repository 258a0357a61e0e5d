//! The index of the history: an SQLite file that answers questions about many runs. It is built from the segments alone, so losing it
//! loses nothing.
//!
//! ```text
//!   segments ── entries after the places that were read ──> RunRecord of each run ──> history/index.sqlite ──> questions
//! ```
//!
//! Each process that asks or runs loops brings the index up to date first; SQLite lets one of them write at a time (WAL), and
//! readers never wait. A file that is damaged, or of another version, is set aside and built anew.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, params};

use super::{AGE_MAX, Entry, History, Outcome, Place, RunRecord};
use crate::fact::Moment;

/// Name of the file.
const FILE: &str = "index.sqlite";
/// Name of a file that was set aside.
const DAMAGED: &str = "index.damaged.sqlite";
/// Name of the lock of the process that sets a damaged file aside.
const LOCK: &str = "index.lock";
/// Version of the tables and of the records in them.
const VERSION: i64 = 2;
/// Longest wait for another process that writes.
const WRITER_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two attempts to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Errors of the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite cannot read or write the file.
    #[error("the index of the history {} cannot be used: {source}; it may be removed, and is then built anew", path.display())]
    Sqlite {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: rusqlite::Error,
    },
    /// The history cannot be read, or a file beside it cannot be written.
    #[error("the history {} cannot be used: {source}", path.display())]
    Io {
        /// Its folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// The runs that a question asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunQuestion {
    /// Those of this pool.
    pub pool: Option<String>,
    /// Those whose job is of this repository.
    pub repository: Option<String>,
    /// Those with this outcome.
    pub outcome: Option<Outcome>,
    /// Those whose last event is not before this time, milliseconds since 1970-01-01 UTC.
    pub since_ms: Option<u64>,
    /// Those whose last event is before this time, milliseconds since 1970-01-01 UTC.
    pub before_ms: Option<u64>,
    /// Most of them; the newest come first.
    pub limit: u32,
}

/// An open index.
#[derive(Debug)]
pub struct Index {
    history: History,
    connection: Connection,
    /// The reason why it was built anew; none if it was not.
    rebuilt: Option<String>,
}

/// An error of SQLite, or of the files of the history.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Index {
    /// Opens the index of a history, creates it if it is missing, and brings it up to date. A damaged file is set aside and built
    /// anew.
    ///
    /// # Errors
    /// No space, no right, or SQLite refuses a new file too.
    pub fn open(history: &History) -> Result<Self, IndexError> {
        let trouble = match Self::open_once(history) {
            Ok(index) => return Ok(index),
            Err(trouble) if !trouble.is_damage() => return Err(trouble.about(history)),
            Err(trouble) => trouble,
        };
        set_aside(history).map_err(|trouble| trouble.about(history))?;
        let mut index = Self::open_once(history).map_err(|trouble| trouble.about(history))?;
        index.rebuilt = Some(format!(
            "the index of the history was damaged ({trouble}); it is set aside as {} and built anew",
            history.folder().join(DAMAGED).display()
        ));
        Ok(index)
    }

    /// Returns a word about a damaged index that was set aside; none if it was not.
    pub fn rebuilt(&self) -> Option<&str> {
        self.rebuilt.as_deref()
    }

    fn open_once(history: &History) -> Result<Self, Trouble> {
        crate::instance::private_folder(history.folder()).map_err(io::Error::other)?;
        let path = history.folder().join(FILE);
        // SQLite gives its other files the mode of this one.
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let connection = Connection::open(&path)?;
        connection.busy_timeout(WRITER_LIMIT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A crash of the host may lose the last rows, which are then read from the segments again.
        connection.pragma_update(None, "synchronous", "normal")?;
        let mut index = Self { history: history.clone(), connection, rebuilt: None };
        index.create_tables()?;
        index.catch_up_once()?;
        Ok(index)
    }

    fn create_tables(&mut self) -> Result<(), Trouble> {
        let version = |connection: &Connection| {
            connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        };
        if version(&self.connection)? == VERSION {
            return Ok(());
        }
        let work = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have done it meanwhile.
        if version(&work)? != VERSION {
            work.execute_batch(TABLES)?;
            work.pragma_update(None, "user_version", VERSION)?;
        }
        Ok(work.commit()?)
    }

    /// Brings the index up to date with the segments.
    ///
    /// # Errors
    /// As for [`Index::open`].
    pub fn catch_up(&mut self) -> Result<(), IndexError> {
        self.catch_up_once().map_err(|trouble| trouble.about(&self.history))
    }

    fn catch_up_once(&mut self) -> Result<(), Trouble> {
        let segments = self.history.segments()?;
        for &segment in &segments {
            let length = fs::metadata(self.history.path(segment)).map_or(0, |metadata| metadata.len());
            if length > place(&self.connection, segment)? {
                self.read_segment(segment)?;
            }
        }
        self.forget(segments.first().copied().unwrap_or_default())
    }

    /// Reads the rest of a segment, in one transaction.
    fn read_segment(&mut self, segment: u64) -> Result<(), Trouble> {
        let work = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut find = work.prepare("SELECT record FROM runs WHERE runner = ?")?;
            let mut put = work.prepare(PUT)?;
            let from = Place { segment, offset: place(&work, segment)? };
            let mut failure = None;
            let to = self.history.read_from(from, |entry| {
                if failure.is_none()
                    && let Err(error) = add(&entry, segment, (&mut find, &mut put))
                {
                    failure = Some(error);
                }
            })?;
            if let Some(error) = failure {
                return Err(error.into());
            }
            let put_place = "INSERT OR REPLACE INTO places (segment, offset) VALUES (?, ?)";
            work.execute(put_place, params![as_number(segment), as_number(to)])?;
        }
        Ok(work.commit()?)
    }

    /// Removes the runs of segments that are gone, and those that are too old.
    fn forget(&mut self, oldest: u64) -> Result<(), Trouble> {
        let age_ms = u64::try_from(AGE_MAX.as_millis()).unwrap_or(u64::MAX);
        let before = as_number(Moment::now().ms().saturating_sub(age_ms));
        let oldest = as_number(oldest);
        let is_due = "SELECT EXISTS (SELECT 1 FROM places WHERE segment < ?)
            OR EXISTS (SELECT 1 FROM runs WHERE at_ms < ?)";
        if !self.connection.query_row(is_due, params![oldest, before], |row| row.get(0))? {
            return Ok(());
        }
        let work = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        work.execute("DELETE FROM runs WHERE segment < ? OR at_ms < ?", params![oldest, before])?;
        work.execute("DELETE FROM places WHERE segment < ?", [oldest])?;
        Ok(work.commit()?)
    }

    /// Returns the runs that a question asks for, the newest first.
    ///
    /// # Errors
    /// SQLite cannot read the file.
    pub fn runs(&self, question: &RunQuestion) -> Result<Vec<RunRecord>, IndexError> {
        self.ask(question).map_err(|error| Trouble::from(error).about(&self.history))
    }

    fn ask(&self, question: &RunQuestion) -> rusqlite::Result<Vec<RunRecord>> {
        let RunQuestion { pool, repository, outcome, since_ms, before_ms, limit } = question;
        let mut conditions: Vec<&str> = Vec::new();
        let mut values: Vec<Box<dyn rusqlite::ToSql>> = Vec::new();
        let mut also = |condition, value| {
            conditions.push(condition);
            values.push(value);
        };
        if let Some(pool) = pool {
            also("pool = ?", Box::new(pool.clone()));
        }
        if let Some(repository) = repository {
            also("repository = ?", Box::new(repository.to_lowercase()));
        }
        if let Some(outcome) = outcome {
            also("outcome = ?", Box::new(outcome.as_str()));
        }
        if let Some(since_ms) = since_ms {
            also("at_ms >= ?", Box::new(as_number(*since_ms)));
        }
        if let Some(before_ms) = before_ms {
            also("at_ms < ?", Box::new(as_number(*before_ms)));
        }
        let conditions = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
        values.push(Box::new(*limit));
        // The inner question is answered by an index alone.
        let text = format!(
            "SELECT record FROM runs WHERE rowid IN
                (SELECT rowid FROM runs WHERE {conditions} ORDER BY at_ms DESC LIMIT ?) ORDER BY at_ms DESC, rowid DESC"
        );
        let mut query = self.connection.prepare(&text)?;
        let rows = query.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(0))?;
        rows.filter_map(|row| row.map(|text| serde_json::from_str(&text).ok()).transpose()).collect()
    }

    /// Returns the runs whose runner has this id or name, or whose job has this name or id, the newest first.
    ///
    /// # Errors
    /// As for [`Index::runs`].
    pub fn find(&self, name: &str, limit: u32) -> Result<Vec<RunRecord>, IndexError> {
        let found = || {
            let text = "SELECT record FROM runs WHERE runner = ?1 OR name = ?1 OR job = ?1 OR job_id = ?3 ORDER BY at_ms DESC LIMIT ?2";
            let mut query = self.connection.prepare(text)?;
            let rows = query
                .query_map(params![name, limit, name.parse::<i64>().ok()], |row| row.get::<_, String>(0))?;
            rows.filter_map(|row| row.map(|text| serde_json::from_str(&text).ok()).transpose())
                .collect::<rusqlite::Result<_>>()
        };
        found().map_err(|error| Trouble::from(error).about(&self.history))
    }

    /// Returns the number of runs.
    ///
    /// # Errors
    /// As for [`Index::runs`].
    pub fn count(&self) -> Result<u64, IndexError> {
        let count = self.connection.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0));
        count.map(as_size).map_err(|error| Trouble::from(error).about(&self.history))
    }
}

/// The tables. Each index of `runs` has all columns that a question names, so that only the rows of the answer are read.
const TABLES: &str = "
    DROP TABLE IF EXISTS runs;
    DROP TABLE IF EXISTS places;
    CREATE TABLE runs (
        runner TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        job TEXT,
        job_id INTEGER,
        at_ms INTEGER NOT NULL,
        pool TEXT,
        repository TEXT,
        outcome TEXT NOT NULL,
        segment INTEGER NOT NULL,
        record TEXT NOT NULL
    );
    CREATE INDEX runs_by_time ON runs (at_ms);
    CREATE INDEX runs_by_pool ON runs (pool, at_ms, outcome, repository);
    CREATE INDEX runs_by_repository ON runs (repository, at_ms, outcome, pool);
    CREATE INDEX runs_by_outcome ON runs (outcome, at_ms, pool, repository);
    CREATE INDEX runs_by_name ON runs (name);
    CREATE INDEX runs_by_job ON runs (job, at_ms);
    CREATE INDEX runs_by_job_id ON runs (job_id);
    CREATE TABLE places (segment INTEGER PRIMARY KEY, offset INTEGER NOT NULL);
";

const PUT: &str = "
    INSERT INTO runs (runner, name, job, at_ms, pool, repository, outcome, segment, record, job_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
    ON CONFLICT (runner) DO UPDATE SET name = ?2, job = ?3, at_ms = ?4, pool = ?5, repository = ?6, outcome = ?7,
        segment = ?8, record = ?9, job_id = ?10";

/// Returns the number of bytes of a segment that were read.
fn place(connection: &Connection, segment: u64) -> rusqlite::Result<u64> {
    let offset = "SELECT offset FROM places WHERE segment = ?";
    let offset = connection.query_row(offset, [as_number(segment)], |row| row.get::<_, i64>(0)).optional()?;
    Ok(offset.map_or(0, as_size))
}

/// Adds an entry to the record of its run.
fn add(
    entry: &Entry,
    segment: u64,
    (find, put): (&mut rusqlite::Statement<'_>, &mut rusqlite::Statement<'_>),
) -> rusqlite::Result<()> {
    let runner = entry.runner.id.as_str();
    let known: Option<String> = find.query_row([runner], |row| row.get(0)).optional()?;
    let known = known.and_then(|text| serde_json::from_str(&text).ok());
    let mut record: RunRecord = known.unwrap_or_else(|| RunRecord::new(entry));
    record.take(entry);
    let text = serde_json::to_string(&record)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    // A run with none of the steps that have times in its record, as after a guest that only ran out of memory.
    let at_ms = record.times.last().or_else(|| entry.facts.iter().map(|(at, _)| at.ms()).max());
    let at_ms = at_ms.unwrap_or_else(|| Moment::now().ms());
    put.execute(params![
        runner,
        record.name,
        record.job,
        as_number(at_ms),
        record.pool,
        record.repository.as_ref().map(|name| name.to_lowercase()),
        record.outcome().as_str(),
        as_number(segment),
        text,
        record.job_id.map(as_number),
    ])?;
    Ok(())
}

impl Trouble {
    /// Returns true if the file is no index, or is damaged. A full disk, or a process that writes for too long, is no damage.
    fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(error) => {
                matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                ) || matches!(error, rusqlite::Error::InvalidColumnType(..))
            }
            Self::Io(_) => false,
        }
    }

    fn about(self, history: &History) -> IndexError {
        match self {
            Self::Sqlite(source) => IndexError::Sqlite { path: history.folder().join(FILE), source },
            Self::Io(source) => IndexError::Io { path: history.folder().to_owned(), source },
        }
    }
}

/// Sets a damaged file aside, unless another process has done so meanwhile.
fn set_aside(history: &History) -> Result<(), Trouble> {
    let folder = history.folder();
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(LOCK))?;
    wait_for(&lock)?;
    if Index::open_once(history).err().is_none_or(|trouble| !trouble.is_damage()) {
        return Ok(());
    }
    let file = folder.join(FILE);
    fs::rename(&file, folder.join(DAMAGED))?;
    for beside in ["-wal", "-shm"] {
        remove_if_there(&folder.join(format!("{FILE}{beside}")))?;
    }
    Ok(())
}

fn wait_for(lock: &File) -> io::Result<()> {
    let until = Instant::now() + WRITER_LIMIT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process builds the index anew"));
            }
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns a number as SQLite stores it.
fn as_number(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn as_size(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests;
