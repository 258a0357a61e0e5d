//! Expansion of `strategy.matrix`.
//!
//! GitHub's rules (documentation, "Running variations of jobs in a workflow"): the vectors are multiplied in the order
//! of the file, the last one changing fastest; `exclude` removes what it matches in all of its keys; each entry of
//! `include` is added to every combination whose original values it does not change, and where there is none, it
//! becomes a combination of its own.

use thiserror::Error;

use crate::expression::{Object, Value};

/// Jobs that one matrix may make; GitHub's own bound.
pub const JOBS_MAX: usize = 256;
/// Work that filters may cause: combinations times entries.
const COMPARISONS_MAX: usize = 1_000_000;

/// A matrix that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MatrixError {
    /// It is no mapping.
    #[error("the matrix must be a mapping")]
    NotMapping,
    /// A vector is no list.
    #[error("the matrix vector \"{vector}\" must be a list of values")]
    NotList {
        /// Its name.
        vector: String,
    },
    /// A vector has nothing in it.
    #[error("the matrix vector \"{vector}\" holds no values")]
    EmptyVector {
        /// Its name.
        vector: String,
    },
    /// An entry of `include` or `exclude` is no mapping.
    #[error("each entry of the matrix's \"{filter}\" must be a mapping")]
    FilterNotMapping {
        /// `include` or `exclude`.
        filter: &'static str,
    },
    /// An entry of `exclude` names something that is no vector.
    #[error("the matrix's \"exclude\" names \"{key}\", which is none of its vectors")]
    UnknownVector {
        /// What it names.
        key: String,
    },
    /// Nothing is left.
    #[error("the matrix makes no jobs")]
    Empty,
    /// Too much.
    #[error("the matrix makes more than {JOBS_MAX} jobs")]
    TooManyJobs,
}

/// The combinations of a matrix, in GitHub's order.
///
/// # Errors
/// What is wrong with it.
pub fn expand(matrix: &Value) -> Result<Vec<Object>, MatrixError> {
    let Value::Object(matrix) = matrix else { return Err(MatrixError::NotMapping) };
    let mut vectors = Vec::new();
    let mut include = &[][..];
    let mut exclude = &[][..];
    for (key, value) in matrix.iter() {
        let Value::Array(items) = value else { return Err(MatrixError::NotList { vector: key.to_owned() }) };
        match key {
            "include" => include = items,
            "exclude" => exclude = items,
            _ if items.is_empty() => return Err(MatrixError::EmptyVector { vector: key.to_owned() }),
            _ => vectors.push((key, items.as_slice())),
        }
    }
    let include = filters(include, "include")?;
    let exclude = filters(exclude, "exclude")?;
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

/// All combinations of the vectors, without those that are excluded.
fn multiply(vectors: &[(&str, &[Value])], exclude: &[&Object]) -> Result<Vec<Object>, MatrixError> {
    for (key, _) in exclude.iter().flat_map(|object| object.iter()) {
        if !vectors.iter().any(|(name, _)| name.eq_ignore_ascii_case(key)) {
            return Err(MatrixError::UnknownVector { key: key.to_owned() });
        }
    }
    if vectors.is_empty() {
        return Ok(Vec::new());
    }
    let product = vectors.iter().try_fold(1_usize, |product, (_, items)| product.checked_mul(items.len()));
    let product = product.ok_or(MatrixError::TooManyJobs)?;
    if product.saturating_mul(exclude.len().max(1)) > COMPARISONS_MAX {
        return Err(MatrixError::TooManyJobs);
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

/// The combination with a number: its digits choose from the vectors, the last vector being the last digit.
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

/// Whether a value of a combination is what a filter asks for. An object matches when all that the filter says of it
/// does, so that `exclude` can name a part.
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
