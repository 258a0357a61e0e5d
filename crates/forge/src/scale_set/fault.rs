//! The reasons for which the Actions Service refuses a call, by the type that its error names.

/// A reason of the Actions Service that dayfly handles. A part of the error's `typeName` tells it, as in the official client;
/// the names of scale sets' errors were observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceFault {
    /// The name of the runner is taken.
    RunnerExists,
    /// There is no runner with this id.
    RunnerNotFound,
    /// The runner has a job, so it cannot be removed.
    JobStillRunning,
    /// Another session of the scale set is active.
    SessionTaken,
    /// There is no scale set with this id.
    ScaleSetNotFound,
    /// The name of the scale set is taken in its group.
    ScaleSetExists,
}

/// Parts of the types' names. "RunnerScaleSetNotFoundException" must not count as a runner that is not found.
const KNOWN: [(&str, ServiceFault); 6] = [
    ("AgentExistsException", ServiceFault::RunnerExists),
    ("AgentNotFoundException", ServiceFault::RunnerNotFound),
    ("JobStillRunningException", ServiceFault::JobStillRunning),
    ("RunnerScaleSetSessionConflictException", ServiceFault::SessionTaken),
    ("RunnerScaleSetNotFoundException", ServiceFault::ScaleSetNotFound),
    ("RunnerScaleSetExistsException", ServiceFault::ScaleSetExists),
];

impl ServiceFault {
    /// Returns the reason of a refusal, or `None` if the status alone tells it: a token that is not accepted (401, 403), a
    /// server that fails (5xx), a type that is not known.
    pub(crate) fn of(status: u16, type_name: &str) -> Option<Self> {
        if !matches!(status, 400 | 404 | 409 | 410 | 422) {
            return None;
        }
        KNOWN.into_iter().find(|(part, _)| type_name.contains(part)).map(|(_, fault)| fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_a_part_of_its_name() {
        let full = "GitHub.DistributedTask.WebApi.TaskAgentExistsException, GitHub.DistributedTask.WebApi";
        assert_eq!(ServiceFault::of(409, full), Some(ServiceFault::RunnerExists));
        let gone = "GitHub.Actions.Runtime.WebApi.RunnerScaleSetNotFoundException";
        assert_eq!(ServiceFault::of(404, gone), Some(ServiceFault::ScaleSetNotFound));
        assert_eq!(ServiceFault::of(409, "SomethingElseException"), None);
        assert_eq!(ServiceFault::of(500, full), None, "a server that fails may name anything");
    }
}
