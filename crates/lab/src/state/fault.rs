//! The faults of the state, and the event for each fault that happens.

use super::LabState;
use crate::event::LabEventKind;
use crate::fault::{Call, Fault, FaultReport, FaultRule, FaultSpec, Fired, Reply};
use crate::refusal::Refusal;

impl LabState {
    /// Adds a rule to the fault desk.
    pub(crate) fn add_fault(&mut self, spec: FaultSpec) -> Result<FaultRule, Refusal> {
        let now_ms = self.now_ms();
        self.faults.add(spec, now_ms)
    }

    /// Removes the rules of a fault, or all rules. Returns their number.
    pub(crate) fn clear_faults(&mut self, fault: Option<Fault>) -> usize {
        self.faults.clear(fault)
    }

    pub(crate) fn fault_report(&self) -> FaultReport {
        self.faults.report(self.now_ms())
    }

    /// Returns the faults of a call that is about to be carried out.
    pub(crate) fn faults_before(&mut self, call: Call, request: &str) -> Vec<Fired> {
        let fired = self.faults.before(call, self.clock.now_ms());
        fired.iter().for_each(|fired| self.log_fault(call, fired, request.to_owned()));
        fired
    }

    /// Returns the faults of the reply to a call that was carried out.
    pub(crate) fn faults_after(&mut self, call: Call, request: &str, reply: Reply) -> Vec<Fired> {
        let fired = self.faults.after(call, self.clock.now_ms(), |fault| reply.can_have(fault));
        fired.iter().for_each(|fired| self.log_fault(call, fired, request.to_owned()));
        fired
    }

    /// Decides whether a fault happens now. Returns its number if it does. `subject` names what it happens to.
    pub(super) fn fault(
        &mut self,
        fault: Fault,
        call: Call,
        subject: impl FnOnce() -> String,
    ) -> Option<u64> {
        let fired = self.faults.of_state(fault, call, self.clock.now_ms())?;
        self.log_fault(call, &fired, subject());
        Some(fired.value)
    }

    fn log_fault(&mut self, call: Call, fired: &Fired, request: String) {
        let Fired { fault, rule, count, .. } = *fired;
        let kind = LabEventKind::FaultInjected { fault, operation: call.operation, request, rule, count };
        let now_ms = self.now_ms();
        self.bus.publish(now_ms, "", 0, kind);
    }
}
