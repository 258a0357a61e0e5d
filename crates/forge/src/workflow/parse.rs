//! From the text of a file to a [`Workflow`].

use super::diagnostic::Diagnostics;
use super::model::Workflow;

/// Reads a workflow file and checks all of it.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn parse(file: &str, text: &str) -> Result<Workflow, Diagnostics> {
    let _ = (file, text);
    unimplemented!("being written")
}
