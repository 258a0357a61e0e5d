//! Remarks about a workflow file, with their positions.

use std::fmt::{self, Write as _};

use crate::visible::Visible;

/// A position in a text file. Lines and columns count from 1; columns are in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One remark about a workflow file, shown as one line: `ci.yml:12:5: jobs.build: unknown key "stepz"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the caller named it.
    pub file: String,
    /// The position in the file, if the remark is about one.
    pub position: Option<Position>,
    /// The path in the workflow (`jobs.build.steps[0].run`); empty for the workflow as a whole.
    pub path: String,
    /// A description of the error and, if known, of the correction.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = Visible(f);
        write!(f, "{}:", self.file)?;
        if let Some(position) = self.position {
            write!(f, "{position}:")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)
    }
}

/// The reasons why a workflow file is refused: one or more remarks, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    remarks: Vec<Diagnostic>,
    left_out: usize,
}

impl Diagnostics {
    /// Most remarks that are kept, because a file that is not a workflow at all would otherwise fill the screen.
    pub const REMARKS_MAX: usize = 20;

    /// Sorts the remarks by position and keeps the first [`Self::REMARKS_MAX`]. Returns `None` if there are none.
    pub(crate) fn new(mut remarks: Vec<Diagnostic>) -> Option<Self> {
        if remarks.is_empty() {
            return None;
        }
        remarks.sort_by_key(|remark| remark.position);
        remarks.dedup();
        let left_out = remarks.len().saturating_sub(Self::REMARKS_MAX);
        remarks.truncate(Self::REMARKS_MAX);
        Some(Self { remarks, left_out })
    }

    /// Returns the remarks, in the order of the file; never empty.
    pub fn remarks(&self) -> &[Diagnostic] {
        &self.remarks
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, remark) in self.remarks.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{remark}")?;
        }
        if self.left_out > 0 {
            write!(f, "\n... and {} more", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
