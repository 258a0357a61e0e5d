//! Expansion of `strategy.matrix`.
//!
//! It follows GitHub's rules (documentation, "Running variations of jobs in a workflow"). The vectors are multiplied in the
//! order of the file, and the last one changes fastest. An entry of `exclude` removes the combinations that match all of
//! its keys. An entry of `include` is added to every combination whose original values it does not change. If there is no
//! such combination, the entry becomes a combination of its own. The names of these two filters are compared with their
//! case, and the names of vectors are not.

use thiserror::Error;

use crate::expression::{Object, Value};

/// Most jobs of one matrix; GitHub's limit.
pub const JOBS_MAX: usize = 256;
/// Most comparisons that `exclude` may cause: combinations times entries.
const COMPARISONS_MAX: usize = 1_000_000;
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";
/// The keys of a matrix that are not vectors.
pub(super) const FILTERS: [&str; 2] = [INCLUDE, EXCLUDE];

/// The error for an invalid matrix.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MatrixError {
    /// The matrix is not a mapping.
    #[error("the matrix must be a mapping")]
    NotMapping,
    /// A vector is not a list.
    #[error("the matrix vector \"{vector}\" must be a list of values")]
    NotList {
        /// The vector's name.
        vector: String,
    },
    /// A vector is empty.
    #[error("the matrix vector \"{vector}\" holds no values")]
    EmptyVector {
        /// The vector's name.
        vector: String,
    },
    /// An entry of `include` or `exclude` is not a mapping.
    #[error("each entry of the matrix's \"{filter}\" must be a mapping")]
    FilterNotMapping {
        /// `include` or `exclude`.
        filter: &'static str,
    },
    /// An entry of `exclude` has a key that is not a vector.
    #[error("the matrix's \"exclude\" names \"{key}\", which is not one of its vectors")]
    UnknownVector {
        /// The key.
        key: String,
    },
    /// The matrix has no combinations, or `exclude` removes all of them.
    #[error("the matrix makes no jobs")]
    Empty,
    /// The matrix has more than [`JOBS_MAX`] combinations.
    #[error("the matrix makes more than {JOBS_MAX} jobs")]
    TooManyJobs,
    /// The filter `exclude` needs too many comparisons, whatever number of jobs it would leave.
    #[error(
        "the matrix is too large for its \"exclude\": its vectors and the {entries} entries need more than {COMPARISONS_MAX} comparisons"
    )]
    TooManyComparisons {
        /// Number of the entries of `exclude`.
        entries: usize,
    },
}

/// Returns the combinations of a matrix, in GitHub's order.
///
/// # Errors
/// Fails if the matrix is invalid, empty or too large.
pub fn expand(matrix: &Value) -> Result<Vec<Object>, MatrixError> {
    let Value::Object(matrix) = matrix else { return Err(MatrixError::NotMapping) };
    let mut vectors = Vec::new();
    let mut include = &[][..];
    let mut exclude = &[][..];
    for (key, value) in matrix.iter() {
        let Value::Array(items) = value else { return Err(MatrixError::NotList { vector: key.to_owned() }) };
        match key {
            INCLUDE => include = items,
            EXCLUDE => exclude = items,
            _ if items.is_empty() => return Err(MatrixError::EmptyVector { vector: key.to_owned() }),
            _ => vectors.push((key, items.as_slice())),
        }
    }
    let include = filters(include, INCLUDE)?;
    let exclude = filters(exclude, EXCLUDE)?;
    let mut combinations = multiply(&vectors, &exclude)?;
    add_included(&mut combinations, &vectors, &include)?;
    if combinations.is_empty() {
        return Err(MatrixError::Empty);
    }
    Ok(combinations)
}

fn filters<'a>(items: &'a [Value], filter: &'static str) -> Result<Vec<&'a Object>, MatrixError> {
    let objects = items.iter().map(|item| match item {
        Value::Object(object) => Ok(object),
        _ => Err(MatrixError::FilterNotMapping { filter }),
    });
    objects.collect()
}

/// Returns all combinations of the vectors except the excluded ones.
fn multiply(vectors: &[(&str, &[Value])], exclude: &[&Object]) -> Result<Vec<Object>, MatrixError> {
    for (key, _) in exclude.iter().flat_map(|object| object.iter()) {
        if !vectors.iter().any(|(name, _)| name.eq_ignore_ascii_case(key)) {
            return Err(MatrixError::UnknownVector { key: key.to_owned() });
        }
    }
    if vectors.is_empty() {
        return Ok(Vec::new());
    }
    let product = vectors.iter().fold(1_usize, |product, (_, items)| product.saturating_mul(items.len()));
    let entries = exclude.len();
    if entries == 0 && product > JOBS_MAX {
        return Err(MatrixError::TooManyJobs);
    }
    if product.saturating_mul(entries) > COMPARISONS_MAX {
        return Err(MatrixError::TooManyComparisons { entries });
    }
    let mut combinations = Vec::new();
    for number in 0..product {
        let combination = combination(vectors, number);
        if !exclude
            .iter()
            .any(|object| object.iter().all(|(key, value)| matches(combination.get(key), value)))
        {
            combinations.push(combination);
        }
        if combinations.len() > JOBS_MAX {
            return Err(MatrixError::TooManyJobs);
        }
    }
    Ok(combinations)
}

/// Returns the combination with a number. Each digit of the number chooses a value of one vector; the last digit belongs to
/// the last vector.
fn combination(vectors: &[(&str, &[Value])], number: usize) -> Object {
    let mut rest = number;
    let mut chosen: Vec<(String, Value)> = Vec::with_capacity(vectors.len());
    for (name, items) in vectors.iter().rev() {
        chosen.push(((*name).to_owned(), items[rest % items.len()].clone()));
        rest /= items.len();
    }
    chosen.into_iter().rev().collect()
}

fn add_included(
    combinations: &mut Vec<Object>,
    vectors: &[(&str, &[Value])],
    include: &[&Object],
) -> Result<(), MatrixError> {
    let multiplied = combinations.len();
    for object in include {
        let mut added = false;
        for combination in &mut combinations[..multiplied] {
            let fits = object.iter().all(|(key, value)| {
                let is_vector = vectors.iter().any(|(name, _)| name.eq_ignore_ascii_case(key));
                !is_vector || matches(combination.get(key), value)
            });
            if fits {
                added = true;
                object.iter().for_each(|(key, value)| combination.insert(key.to_owned(), value.clone()));
            }
        }
        if !added {
            combinations.push((*object).clone());
        }
        if combinations.len() > JOBS_MAX {
            return Err(MatrixError::TooManyJobs);
        }
    }
    Ok(())
}

/// Returns true if a value of a combination matches a filter's value. An object matches if the members that the filter
/// names match, so that `exclude` can name only some of them.
fn matches(value: Option<&Value>, wanted: &Value) -> bool {
    match (value, wanted) {
        (Some(Value::Object(object)), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| matches(object.get(key), wanted))
        }
        (Some(Value::Array(items)), Value::Array(wanted)) => {
            items.len() == wanted.len()
                && items.iter().zip(wanted).all(|(item, wanted)| matches(Some(item), wanted))
        }
        (Some(value), wanted) => value.loosely_equals(wanted),
        (None, _) => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
