//! The labels of a pool's runners, and the jobs that they fit.

/// The labels of a pool's runners.
#[derive(Debug, Clone)]
pub(super) struct PoolLabels(pub(super) Vec<String>);

impl PoolLabels {
    /// Returns true if the pool's runners can run a job: GitHub compares labels without regard to case, and a runner needs all
    /// labels of the job. A job without labels asks for a group, which no source names.
    pub(super) fn fit(&self, wanted: &[String]) -> bool {
        let has = |label: &String| self.0.iter().any(|own| own.eq_ignore_ascii_case(label));
        !wanted.is_empty() && wanted.iter().all(has)
    }
}
