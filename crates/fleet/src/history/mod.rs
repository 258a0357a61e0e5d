//! The history: what happened to each run, after its folder is gone.
//!
//! ```text
//!   end of a run ───> journal ──┐
//!   next start, of a dead one ──┼──> Entry ──> history/<number>.jsonl ──> RunRecord ──> history/index.sqlite ──> questions
//!   forge's word about a job ───┘     (segments, flushed)                (the fold, pure)
//! ```
//!
//! The segments are the truth. An entry is a line with the facts of one run; a run may have several entries, because the forge may
//! report a job's end later, and because a crash between the entry and the removal of the run's folder repeats the entry. The
//! fold gives the same record for repeated entries.
//!
//! Several processes append to the same segments, without a lock: each entry is one write of one line. The oldest segments are
//! removed once they are older than [`AGE_MAX`], or all together larger than [`BYTES_MAX`].

mod entry;
mod fault;
mod index;
mod parts;
mod record;
mod segments;
mod upkeep;
mod usage;

pub use entry::Entry;
pub use fault::{Fault, Outcome};
pub use index::{Index, IndexError, RunQuestion};
pub use parts::{RunPart, parts_of};
pub use record::{MachineUsed, RunRecord, Times};
pub use segments::{AGE_MAX, BYTES_MAX, History, Place};
pub use upkeep::keep_up;
pub use usage::{Advice, MachineSize, Spread, Usage, UsageBy, usage_of};
