//! The labels of a pool's runners, and the jobs that they fit.

/// The labels of a pool's runners.
#[derive(Debug, Clone)]
pub struct PoolLabels {
    own: Vec<String>,
    /// True if the pool is a size of another one, so that each label names the size.
    is_size: bool,
}

impl PoolLabels {
    /// Creates the labels of a pool.
    pub fn of_pool(own: Vec<String>) -> Self {
        Self { own, is_size: false }
    }

    /// Creates the labels of a size of a pool; see [`crate::pool::PoolSpec::size_of`].
    pub fn of_size(own: Vec<String>) -> Self {
        Self { own, is_size: true }
    }

    /// Returns true if the pool's runners can run a job: GitHub compares labels without regard to case, and a runner needs all
    /// labels of the job. A job without labels asks for a group, which no source names.
    pub(super) fn fit(&self, wanted: &[String]) -> bool {
        !wanted.is_empty() && wanted.iter().all(|label| self.has(label))
    }

    /// Returns a text about a job that asks for a size and for other labels beside it, because no runner of the pool has both.
    pub(super) fn mistake(&self, job: u64, wanted: &[String]) -> Option<String> {
        let size = wanted.iter().find(|label| self.is_size && self.has(label))?;
        let others: Vec<&str> = wanted.iter().filter(|label| !self.has(label)).map(String::as_str).collect();
        let others = Some(others.join(", ")).filter(|others| !others.is_empty())?;
        Some(format!(
            "the job {job} asks for {size} and for {others}, and no runner of this pool has both; the label of a size has to \
             stand alone: runs-on: {size}"
        ))
    }

    fn has(&self, label: &str) -> bool {
        self.own.iter().any(|own| own.eq_ignore_ascii_case(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(words: &str) -> Vec<String> {
        words.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_job_with_a_size_fits_only_that_size_and_a_job_without_fits_none() {
        let own = PoolLabels::of_pool(labels("self-hosted Linux build"));
        let size = PoolLabels::of_size(labels("build-dayfly-4cpu-8gb dayfly-4cpu-8gb"));
        for (wanted, fits) in [
            ("build", [true, false]),
            ("self-hosted linux", [true, false]),
            ("dayfly-4cpu-8gb", [false, true]),
            ("Build-Dayfly-4cpu-8gb", [false, true]),
            ("dayfly-2cpu-4gb", [false, false]),
            ("build dayfly-4cpu-8gb", [false, false]),
        ] {
            let wanted = labels(wanted);
            assert_eq!([own.fit(&wanted), size.fit(&wanted)], fits, "{wanted:?}");
        }
    }

    #[test]
    fn a_job_that_asks_for_a_size_and_for_other_labels_is_a_mistake() {
        let size = PoolLabels::of_size(labels("build-dayfly-4cpu-8gb dayfly-4cpu-8gb"));
        let mistake = |wanted| size.mistake(7, &labels(wanted));
        assert_eq!(
            mistake("self-hosted dayfly-4cpu-8gb build").as_deref(),
            Some(
                "the job 7 asks for dayfly-4cpu-8gb and for self-hosted, build, and no runner of this pool has both; the \
                 label of a size has to stand alone: runs-on: dayfly-4cpu-8gb"
            )
        );
        assert_eq!((mistake("dayfly-4cpu-8gb"), mistake("self-hosted build")), (None, None));
        let own = PoolLabels::of_pool(labels("self-hosted build"));
        assert_eq!(own.mistake(7, &labels("build gpu")), None, "another pool may have both");
    }
}
