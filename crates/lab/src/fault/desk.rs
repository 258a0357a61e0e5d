//! The desk: the rules that are in force, and the decision which occasions they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use super::kind::{Fault, Stage};
use super::operation::Call;
use super::spec::{FaultSpec, Trigger};
use crate::refusal::Refusal;

/// Most rules at one time.
const RULES_MAX: usize = 100;
/// Window of a budget of calls if its rule has no end, in seconds. GitHub's budgets last as long.
const WINDOW_S: u64 = 3600;

/// A rule, as a report shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultRule {
    /// Its number, from 1.
    pub id: u64,
    /// The order.
    #[serde(flatten)]
    pub spec: FaultSpec,
    /// The number of occasions on which it was asked.
    pub seen: u64,
    /// The number of them that it has taken.
    pub fired: u64,
    /// True if it takes no more occasions, because its count is used up or its time is over.
    pub is_over: bool,
}

/// All rules, with the seed of their decisions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultReport {
    /// The seed. A run with the same seed, the same rules and the same requests decides in the same way.
    pub seed: u64,
    /// The rules, oldest first.
    pub rules: Vec<FaultRule>,
}

/// A rule has taken an occasion.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fired {
    pub(crate) fault: Fault,
    /// The fault's number.
    pub(crate) value: u64,
    /// The rule's number.
    pub(crate) rule: u64,
    /// How many occasions the rule has taken, with this one.
    pub(crate) count: u64,
    /// The state of a budget of calls, for [`Fault::RateLimit`].
    pub(crate) budget: Option<CallBudget>,
}

/// A budget of calls after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallBudget {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Time of the reset, in seconds since 1970.
    pub(crate) reset_s: i64,
    /// True if the call is beyond the budget.
    pub(crate) is_exceeded: bool,
}

struct Rule {
    id: u64,
    spec: FaultSpec,
    until_ms: Option<i64>,
    /// Each rule has a generator of its own, so that its decisions do not depend on occasions that are not its own.
    generator: StdRng,
    seen: u64,
    fired: u64,
    /// The calls of the present window of a budget, and its end.
    window: (u64, i64),
}

impl Rule {
    fn is_over(&self, now_ms: i64) -> bool {
        let is_used_up = matches!(self.spec.trigger, Trigger::Count(count) if self.fired >= u64::from(count));
        is_used_up || self.until_ms.is_some_and(|until_ms| until_ms <= now_ms)
    }

    /// Decides about an occasion that the rule is for.
    fn takes(&mut self) -> bool {
        self.seen += 1;
        let takes = match self.spec.trigger {
            Trigger::Always | Trigger::Count(_) => true,
            Trigger::Probability(chance) => self.generator.random_bool(chance),
        };
        self.fired += u64::from(takes);
        takes
    }

    fn count_call(&mut self, now_ms: i64) -> CallBudget {
        let (used, end_ms) = &mut self.window;
        if *end_ms <= now_ms {
            let window_s = self.spec.for_s.unwrap_or(WINDOW_S);
            *end_ms = self.until_ms.unwrap_or_else(|| later(now_ms, window_s));
            *used = 0;
        }
        *used += 1;
        let limit = self.spec.number();
        CallBudget {
            limit,
            remaining: limit.saturating_sub(*used),
            // Rounded up, so that the limit is over at the stated second.
            reset_s: (*end_ms + 999) / 1000,
            is_exceeded: *used > limit,
        }
    }
}

/// Returns the time so many seconds later, in milliseconds.
fn later(now_ms: i64, seconds: u64) -> i64 {
    now_ms + i64::try_from(seconds * 1000).unwrap_or(i64::MAX / 4)
}

/// The rules in force. The thread that owns the state owns the desk.
pub(crate) struct FaultDesk {
    seed: u64,
    rules: Vec<Rule>,
    last: u64,
    /// True if there is a rule for the layer around the handlers, which asks the desk only then.
    has_rules_for_calls: Arc<AtomicBool>,
}

impl FaultDesk {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rules: Vec::new(), last: 0, has_rules_for_calls: Arc::default() }
    }

    pub(crate) fn has_rules_for_calls(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_rules_for_calls)
    }

    /// Adds a rule and returns it. If the desk is full, rules that are over make room.
    pub(crate) fn add(&mut self, spec: FaultSpec, now_ms: i64) -> Result<FaultRule, Refusal> {
        spec.check().map_err(|error| Refusal::invalid([error.to_string()]))?;
        if self.rules.len() >= RULES_MAX {
            self.rules.retain(|rule| !rule.is_over(now_ms));
        }
        if self.rules.len() >= RULES_MAX {
            return Err(Refusal::new(
                422,
                format!("The fault desk holds {RULES_MAX} rules at most; clear some"),
            ));
        }
        self.last += 1;
        self.rules.push(Rule {
            id: self.last,
            until_ms: spec.for_s.map(|seconds| later(now_ms, seconds)),
            spec,
            generator: StdRng::seed_from_u64(self.seed.rotate_left(32) ^ self.last),
            seen: 0,
            fired: 0,
            window: (0, 0),
        });
        self.note_rules();
        Ok(self.report(now_ms).rules.pop().expect("it was just added"))
    }

    /// Removes the rules of a fault, or all rules. Returns their number.
    pub(crate) fn clear(&mut self, fault: Option<Fault>) -> usize {
        let before = self.rules.len();
        self.rules.retain(|rule| fault.is_some_and(|fault| fault != rule.spec.fault));
        self.note_rules();
        before - self.rules.len()
    }

    pub(crate) fn report(&self, now_ms: i64) -> FaultReport {
        let show = |rule: &Rule| FaultRule {
            id: rule.id,
            spec: rule.spec.clone(),
            seen: rule.seen,
            fired: rule.fired,
            is_over: rule.is_over(now_ms),
        };
        FaultReport { seed: self.seed, rules: self.rules.iter().map(show).collect() }
    }

    /// Decides whether a fault of the state happens now. The first rule that takes the occasion counts.
    pub(crate) fn of_state(&mut self, fault: Fault, call: Call, now_ms: i64) -> Option<Fired> {
        self.ask(call, now_ms, |rule| rule.fault == fault).next()
    }

    /// Decides which faults happen to a call before it is carried out: the budgets that count it, and at most one refusal.
    pub(crate) fn before(&mut self, call: Call, now_ms: i64) -> Vec<Fired> {
        let mut all = Vec::new();
        for fired in self.ask(call, now_ms, |spec| spec.fault.stage() == Stage::Before) {
            let refuses = fired.budget.is_none_or(|budget| budget.is_exceeded);
            all.push(fired);
            if refuses {
                break;
            }
        }
        all
    }

    /// Decides which faults happen to the reply of a call. `can` returns true for the faults that this reply can have.
    pub(crate) fn after(&mut self, call: Call, now_ms: i64, can: impl Fn(Fault) -> bool) -> Vec<Fired> {
        self.ask(call, now_ms, |spec| spec.fault.stage() == Stage::After && can(spec.fault)).collect()
    }

    /// Asks the rules, oldest first. A rule is asked only when the iterator comes to it.
    fn ask(
        &mut self,
        call: Call,
        now_ms: i64,
        wanted: impl Fn(&FaultSpec) -> bool,
    ) -> impl Iterator<Item = Fired> {
        let asked = self
            .rules
            .iter_mut()
            .filter(move |rule| wanted(&rule.spec) && rule.spec.is_for(call) && !rule.is_over(now_ms));
        asked.filter_map(move |rule| {
            let budget =
                |rule: &mut Rule| (rule.spec.fault == Fault::RateLimit).then(|| rule.count_call(now_ms));
            rule.takes().then(|| Fired {
                fault: rule.spec.fault,
                value: rule.spec.number(),
                rule: rule.id,
                count: rule.fired,
                budget: budget(rule),
            })
        })
    }

    fn note_rules(&self) {
        let has_some = self.rules.iter().any(|rule| rule.spec.fault.stage() != Stage::State);
        self.has_rules_for_calls.store(has_some, Ordering::Release);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn desk(seed: u64, orders: &[&str]) -> FaultDesk {
        let mut desk = FaultDesk::new(seed);
        for order in orders {
            desk.add(order.parse().unwrap(), 0).unwrap();
        }
        desk
    }

    fn decisions(desk: &mut FaultDesk, call: Call, calls: usize) -> Vec<bool> {
        (0..calls).map(|_| !desk.before(call, 0).is_empty()).collect()
    }

    #[test]
    fn a_seed_decides_the_same_for_the_same_occasions() {
        let order = "server-error,on=rest,probability=0.5";
        let first = decisions(&mut desk(7, &[order]), Call::JIT, 200);
        assert_eq!(decisions(&mut desk(7, &[order]), Call::JIT, 200), first);
        assert_ne!(decisions(&mut desk(8, &[order]), Call::JIT, 200), first);
        let taken = first.iter().filter(|taken| **taken).count();
        assert!((60..140).contains(&taken), "{taken}");

        // Occasions of other rules, and calls that the rule is not for, do not change its decisions.
        let mut mixed = desk(7, &[order, "unauthorized,on=session,probability=0.5"]);
        let among_others: Vec<bool> = (0..200)
            .map(|_| {
                mixed.before(Call::SESSION, 0);
                !mixed.before(Call::JIT, 0).is_empty()
            })
            .collect();
        assert_eq!(among_others, first);
    }

    #[test]
    fn a_count_takes_the_next_occasions_and_no_more() {
        let mut desk = desk(1, &["unauthorized,on=generate-jitconfig,count=2"]);
        assert!(desk.before(Call::DELETE_RUNNER, 0).is_empty(), "it is for another operation");
        assert_eq!(decisions(&mut desk, Call::JIT, 4), [true, true, false, false]);
        let rule = &desk.report(0).rules[0];
        assert_eq!((rule.seen, rule.fired, rule.is_over), (2, 2, true));
    }

    #[test]
    fn a_rule_ends_after_its_time() {
        let mut desk = desk(1, &["session-conflict,for=30s"]);
        let mut at = |now_ms| desk.of_state(Fault::SessionConflict, Call::SESSION, now_ms).is_some();
        assert_eq!([at(0), at(29_999), at(30_000)], [true, true, false]);
        assert!(desk.report(30_000).rules[0].is_over);
    }

    #[test]
    fn one_refusal_is_enough_and_the_next_rule_keeps_its_count() {
        let mut desk = desk(1, &["server-error,count=1", "unauthorized,count=1"]);
        let mut next = || desk.before(Call::JIT, 0).iter().map(|fired| fired.fault).collect::<Vec<_>>();
        assert_eq!(next(), [Fault::ServerError]);
        assert_eq!(next(), [Fault::Unauthorized]);
        assert_eq!(next(), []);
    }

    #[test]
    fn a_budget_counts_down_and_begins_again_after_its_window() {
        let mut desk = desk(1, &["rate-limit,value=2"]);
        let mut next = |now_ms| desk.before(Call::JIT, now_ms)[0].budget.unwrap();
        let budgets = [next(500), next(600), next(700), next(3_600_500)];
        let shown = budgets.map(|it| (it.remaining, it.is_exceeded, it.reset_s));
        assert_eq!(shown, [(1, false, 3601), (0, false, 3601), (0, true, 3601), (1, false, 7201)]);
    }

    #[test]
    fn faults_are_cleared_by_name_or_together() {
        let mut desk = desk(1, &["drop-reply", "server-error", "drop-reply,on=message"]);
        assert!(desk.has_rules_for_calls().load(Ordering::Acquire));
        assert_eq!(desk.clear(Some(Fault::DropReply)), 2);
        assert_eq!(decisions(&mut desk, Call::JIT, 1), [true]);
        assert_eq!((desk.clear(None), desk.report(0).rules.len()), (1, 0));
        assert!(!desk.has_rules_for_calls().load(Ordering::Acquire));
    }

    #[test]
    fn a_full_desk_refuses_rules_until_one_is_over() {
        let mut desk = desk(1, &["unauthorized,count=1"]);
        for _ in 1..RULES_MAX {
            desk.add("webhook-loss".parse().unwrap(), 0).unwrap();
        }
        assert_eq!(desk.add("drop-reply".parse().unwrap(), 0).unwrap_err().status, 422);
        desk.before(Call::JIT, 0);
        assert_eq!(desk.add("drop-reply".parse().unwrap(), 0).unwrap().id, 101);
    }
}
