//! Groups of a run's jobs: one group for each job of the workflow, with several jobs if it has a matrix.

use indexmap::IndexMap;

use super::job::{Conclusion, JobIndex, JobRun, JobState};
use crate::workflow::model::Workflow;

/// The jobs of a run that come from one job of the workflow.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The groups that this group needs, as indices.
    pub(super) needs: Vec<usize>,
    /// The groups that this group needs directly or indirectly, as indices.
    pub(super) ancestors: Vec<usize>,
    /// True if the group's jobs have been created.
    pub(super) expanded: bool,
    pub(super) jobs: Vec<JobIndex>,
    pub(super) fail_fast: bool,
    pub(super) max_parallel: usize,
    /// The merged outputs of the group's jobs.
    pub(super) outputs: IndexMap<String, String>,
}

impl Group {
    /// Creates the groups of a workflow, not yet expanded.
    pub(super) fn all(workflow: &Workflow) -> Vec<Self> {
        let number = |id: &String| workflow.jobs.get_index_of(id);
        let needs: Vec<Vec<usize>> =
            workflow.jobs.values().map(|job| job.needs.iter().filter_map(number).collect()).collect();
        let groups = (0..needs.len()).map(|group| Self {
            needs: needs[group].clone(),
            ancestors: ancestors(group, &needs),
            expanded: false,
            jobs: Vec::new(),
            fail_fast: true,
            max_parallel: 1,
            outputs: IndexMap::new(),
        });
        groups.collect()
    }

    pub(super) fn is_over(&self, jobs: &[JobRun]) -> bool {
        self.expanded && self.jobs.iter().all(|index| jobs[index.0].conclusion().is_some())
    }

    /// Returns the value of `needs.<id>.result`. A failure that `continue-on-error` tolerates counts as success.
    pub(super) fn result(&self, jobs: &[JobRun]) -> Conclusion {
        let mut conclusions = self.jobs.iter().map(|index| &jobs[index.0]).filter_map(|job| {
            let tolerated = job.continue_on_error && job.conclusion() == Some(Conclusion::Failure);
            if tolerated { Some(Conclusion::Success) } else { job.conclusion() }
        });
        let found: Vec<Conclusion> = conclusions.by_ref().collect();
        let worst = [Conclusion::Failure, Conclusion::Cancelled, Conclusion::Success];
        worst.into_iter().find(|conclusion| found.contains(conclusion)).unwrap_or(Conclusion::Skipped)
    }

    /// Merges the outputs of a job that has completed. For each output, the last value that is not empty wins.
    pub(super) fn merge_outputs(&mut self, outputs: &IndexMap<String, String>) {
        for (name, value) in outputs {
            if !value.is_empty() || !self.outputs.contains_key(name) {
                self.outputs.insert(name.clone(), value.clone());
            }
        }
    }

    /// Returns the waiting jobs that `max-parallel` allows to start now.
    pub(super) fn startable(&self, jobs: &[JobRun]) -> Vec<JobIndex> {
        let state = |index: &&JobIndex| jobs[index.0].state;
        let waiting = self.jobs.iter().filter(|index| matches!(state(index), JobState::Waiting));
        let busy = self.jobs.iter().filter(|index| {
            matches!(
                state(index),
                JobState::Queued { .. } | JobState::Running { .. } | JobState::Cancelling { .. }
            )
        });
        waiting.take(self.max_parallel.saturating_sub(busy.count())).copied().collect()
    }
}

fn ancestors(group: usize, needs: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![false; needs.len()];
    let mut open = needs[group].clone();
    while let Some(next) = open.pop() {
        if !std::mem::replace(&mut seen[next], true) {
            open.extend(&needs[next]);
        }
    }
    (0..needs.len()).filter(|number| seen[*number]).collect()
}
