//! Expansion of `strategy.matrix`.
//!
//! It follows GitHub's rules (documentation, "Running variations of jobs in a workflow"; actions/runner, `MatrixBuilder.cs`).
//! The vectors are multiplied in the order of the file, and the last one changes fastest. An entry of `exclude` removes the
//! combinations that match all of its keys. An entry of `include` matches a combination if its keys that are vectors do;
//! then its other keys are added, and the vectors keep their own values. An entry that matches no combination becomes one
//! of its own. The names of these two filters are compared with their case, and the names of vectors are not.

use thiserror::Error;

use crate::expression::{Object, Value};

/// Most jobs of one matrix; GitHub's limit.
pub const JOBS_MAX: usize = 256;
/// Most comparisons that `exclude` may cause: combinations times the single values in its entries.
const COMPARISONS_MAX: usize = 1_000_000;
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";

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
    /// An entry of `include` or `exclude` has no keys.
    #[error("an entry of the matrix's \"{filter}\" has no keys")]
    EmptyFilter {
        /// `include` or `exclude`.
        filter: &'static str,
    },
    /// The matrix has no combinations, or `exclude` removes all of them.
    #[error("the matrix makes no jobs")]
    Empty,
    /// The matrix has more than [`JOBS_MAX`] combinations.
    #[error("the matrix makes more than {JOBS_MAX} jobs")]
    TooManyJobs,
    /// The filter `exclude` needs too many comparisons, whatever number of jobs it would leave.
    #[error(
        "the matrix is too large for its \"exclude\": its vectors and the {values} values to exclude need more than {COMPARISONS_MAX} comparisons"
    )]
    TooManyComparisons {
        /// Number of the single values in the entries of `exclude`.
        values: usize,
    },
}

/// One combination of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Combination {
    /// The `matrix` context.
    pub values: Object,
    /// Number of the leading values that a job's name lists. The values that `include` has added are behind them.
    pub named: usize,
}

/// Returns the combinations of a matrix, in GitHub's order.
///
/// # Errors
/// Fails if the matrix is invalid, empty or too large.
pub fn expand(matrix: &Value) -> Result<Vec<Combination>, MatrixError> {
    let Value::Object(matrix) = matrix else { return Err(MatrixError::NotMapping) };
    let mut vectors = Vectors::default();
    let mut include = &[][..];
    let mut exclude = &[][..];
    for (key, value) in matrix.iter() {
        let Value::Array(items) = value else { return Err(MatrixError::NotList { vector: key.to_owned() }) };
        match key {
            INCLUDE => include = items,
            EXCLUDE => exclude = items,
            _ if items.is_empty() => return Err(MatrixError::EmptyVector { vector: key.to_owned() }),
            _ => vectors.add(key, items),
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

/// Returns a notice about a vector that is named like a filter except for its case. GitHub compares these names with their
/// case (actions/runner, `PipelineTemplateConverter`), so that the entries become values of a vector.
pub(super) fn misspelt_filter(vector: &str) -> Option<String> {
    let filter = [INCLUDE, EXCLUDE].into_iter().find(|filter| vector.eq_ignore_ascii_case(filter))?;
    (vector != filter).then(|| {
        format!(
            "{vector:?} is a vector of the matrix, because its filters are written in lower case; did you mean \"{filter}\"?"
        )
    })
}

/// The vectors of a matrix, in the order of the file.
#[derive(Default)]
struct Vectors<'a> {
    entries: Vec<(&'a str, &'a [Value])>,
    /// The names, for look-ups that ignore case.
    names: Object,
}

impl<'a> Vectors<'a> {
    fn add(&mut self, name: &'a str, items: &'a [Value]) {
        self.entries.push((name, items));
        self.names.insert(name.to_owned(), Value::Null);
    }

    fn contain(&self, name: &str) -> bool {
        self.names.get(name).is_some()
    }

    /// Returns the combination with a number. Each digit of the number chooses a value of one vector; the last digit
    /// belongs to the last vector.
    fn combination(&self, number: usize) -> Combination {
        let mut rest = number;
        let mut chosen: Vec<(String, Value)> = Vec::with_capacity(self.entries.len());
        for (name, items) in self.entries.iter().rev() {
            chosen.push(((*name).to_owned(), items[rest % items.len()].clone()));
            rest /= items.len();
        }
        Combination { values: chosen.into_iter().rev().collect(), named: self.entries.len() }
    }
}

fn filters<'a>(items: &'a [Value], filter: &'static str) -> Result<Vec<&'a Object>, MatrixError> {
    let objects = items.iter().map(|item| match item {
        Value::Object(object) if object.is_empty() => Err(MatrixError::EmptyFilter { filter }),
        Value::Object(object) => Ok(object),
        _ => Err(MatrixError::FilterNotMapping { filter }),
    });
    objects.collect()
}

/// Returns all combinations of the vectors except the excluded ones.
fn multiply(vectors: &Vectors<'_>, exclude: &[&Object]) -> Result<Vec<Combination>, MatrixError> {
    for (key, _) in exclude.iter().flat_map(|object| object.iter()) {
        if !vectors.contain(key) {
            return Err(MatrixError::UnknownVector { key: key.to_owned() });
        }
    }
    if vectors.entries.is_empty() {
        return Ok(Vec::new());
    }
    let product =
        vectors.entries.iter().fold(1_usize, |product, (_, items)| product.saturating_mul(items.len()));
    if exclude.is_empty() && product > JOBS_MAX {
        return Err(MatrixError::TooManyJobs);
    }
    let values: usize = exclude.iter().flat_map(|object| object.iter()).map(|(_, value)| leaves(value)).sum();
    if product.saturating_mul(values) > COMPARISONS_MAX {
        return Err(MatrixError::TooManyComparisons { values });
    }
    let mut combinations = Vec::new();
    for number in 0..product {
        let combination = vectors.combination(number);
        if !exclude.iter().any(|object| matches_all(&combination, object.iter())) {
            combinations.push(combination);
        }
        if combinations.len() > JOBS_MAX {
            return Err(MatrixError::TooManyJobs);
        }
    }
    Ok(combinations)
}

/// Returns the number of comparisons that a value of a filter causes.
fn leaves(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.iter().map(|(_, item)| leaves(item)).sum::<usize>().max(1),
        Value::Array(items) => items.iter().map(leaves).sum::<usize>().max(1),
        _ => 1,
    }
}

fn add_included(
    combinations: &mut Vec<Combination>,
    vectors: &Vectors<'_>,
    include: &[&Object],
) -> Result<(), MatrixError> {
    let multiplied = combinations.len();
    for object in include {
        let (filter, extra): (Vec<_>, Vec<_>) = object.iter().partition(|(key, _)| vectors.contain(key));
        let mut added = false;
        for combination in &mut combinations[..multiplied] {
            if matches_all(combination, filter.iter().copied()) {
                added = true;
                extra
                    .iter()
                    .for_each(|(key, value)| combination.values.insert((*key).to_owned(), (*value).clone()));
            }
        }
        if !added {
            let values: Object = filter
                .iter()
                .chain(&extra)
                .map(|(key, value)| ((*key).to_owned(), (*value).clone()))
                .collect();
            combinations.push(Combination { named: values.len(), values });
        }
        if combinations.len() > JOBS_MAX {
            return Err(MatrixError::TooManyJobs);
        }
    }
    Ok(())
}

fn matches_all<'a>(
    combination: &Combination,
    mut filter: impl Iterator<Item = (&'a str, &'a Value)>,
) -> bool {
    filter.all(|(key, wanted)| matches(combination.values.get(key), wanted))
}

/// Returns true if a value of a combination matches a filter's value. As on GitHub, each single value of the filter is
/// compared by `==` of the expression language with what stands at its place in the combination: a filter may name only some
/// members of an object or the first items of a list, and a missing value counts as null.
fn matches(value: Option<&Value>, wanted: &Value) -> bool {
    let at = |index: Value| value.and_then(|value| value.index(&index));
    match wanted {
        Value::Object(wanted) => wanted.iter().all(|(key, wanted)| matches(at(key.into()), wanted)),
        #[expect(clippy::cast_precision_loss, reason = "a list has far fewer items")]
        Value::Array(wanted) => {
            wanted.iter().enumerate().all(|(place, wanted)| matches(at((place as f64).into()), wanted))
        }
        single => value.unwrap_or(&Value::Null).loosely_equals(single),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
