#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const HOUR_S: u64 = 3600;

fn lane(importance: Importance) -> Lane {
    let method = if importance < Importance::Register { Method::GET } else { Method::POST };
    Lane { importance, method }
}

/// An answer of the hour that ends at `reset_s` seconds after `now_s`.
fn answer(limit: u64, remaining: u64, reset_s: u64, now_s: u64) -> AnswerLimits {
    AnswerLimits {
        primary: Some(PrimaryLimit {
            resource: "core".to_owned(),
            limit,
            remaining,
            used: limit - remaining,
            reset_s: i64::try_from(reset_s).unwrap(),
            resets_in: Duration::from_secs(reset_s - now_s),
        }),
        demanded: None,
        retry_after: None,
    }
}

fn refused(demanded: DemandedWait) -> AnswerLimits {
    AnswerLimits { primary: None, demanded: Some(demanded), retry_after: None }
}

fn decide(ledger: &Ledger, importance: Importance, now: Instant) -> Decision {
    let lane = lane(importance);
    ledger.decide(&Ask { lane: &lane, points: 0, latest: now + importance.patience(), chance: 0.5 }, now)
}

/// Returns the calls that go at once, the least important first.
fn going(ledger: &Ledger, now: Instant) -> Vec<Importance> {
    Importance::ALL
        .into_iter()
        .filter(|importance| decide(ledger, *importance, now) == Decision::Go)
        .collect()
}

fn after(remaining: u64) -> (Ledger, Instant) {
    let (mut ledger, start) = (Ledger::default(), Instant::now());
    ledger.learn(&lane(Importance::Look), &answer(5000, remaining, HOUR_S, 0), start);
    (ledger, start)
}

#[test]
fn calls_are_shed_in_the_order_of_their_importance() {
    use Importance::{Essential, Look, Poll, Register};
    for (remaining, expected) in [
        (5000, &[Poll, Look, Register, Essential][..]),
        (1501, &[Poll, Look, Register, Essential]),
        (1500, &[Look, Register, Essential]),
        (750, &[Register, Essential]),
        (250, &[Essential]),
        (1, &[Essential]),
        (0, &[]),
    ] {
        let (ledger, start) = after(remaining);
        assert_eq!(going(&ledger, start), expected, "{remaining}");
        assert_eq!(going(&ledger, start + Duration::from_secs(HOUR_S)).len(), 4, "after the reset");
    }
}

#[test]
fn a_call_that_is_shed_says_why_and_until_when() {
    let (ledger, start) = after(700);
    let Decision::Shed { until, why } = decide(&ledger, Importance::Look, start) else { panic!("shed") };
    assert_eq!(until, start + Duration::from_secs(HOUR_S));
    insta::assert_snapshot!(why, @r#"the last 700 of 5000 calls of "core" are kept for more important ones"#);
    let (ledger, start) = after(0);
    let Decision::Shed { why, .. } = decide(&ledger, Importance::Essential, start) else { panic!("shed") };
    insta::assert_snapshot!(why, @r#"all 5000 calls of "core" are used"#);
}

#[test]
fn a_reset_that_is_near_is_waited_for_and_the_waiting_calls_are_spread() {
    let (ledger, start) = after(0);
    let near = start + Duration::from_secs(HOUR_S - 5);
    let half = Duration::from_millis(500);
    assert_eq!(
        decide(&ledger, Importance::Essential, near),
        Decision::WaitUntil(near + Duration::from_secs(5) + half)
    );
    assert!(matches!(decide(&ledger, Importance::Look, near), Decision::WaitUntil(_)));
    assert!(matches!(decide(&ledger, Importance::Poll, near), Decision::Shed { .. }), "a poll never waits");
}

#[test]
fn a_demanded_pause_stops_every_call() {
    let (mut ledger, start) = (Ledger::default(), Instant::now());
    ledger.learn(&lane(Importance::Poll), &refused(DemandedWait::Stated(Duration::from_secs(20))), start);
    assert!(going(&ledger, start).is_empty());
    assert!(
        matches!(decide(&ledger, Importance::Look, start), Decision::Shed { .. }),
        "20 s are too long for it"
    );
    assert!(matches!(decide(&ledger, Importance::Essential, start), Decision::WaitUntil(_)));
    ledger.learn(&lane(Importance::Look), &AnswerLimits::default(), start);
    assert!(going(&ledger, start).is_empty(), "an answer to an earlier call does not end the pause");
    assert_eq!(going(&ledger, start + Duration::from_secs(20)).len(), 4);
}

#[test]
fn pauses_of_secondary_limits_without_a_time_grow_up_to_a_limit() {
    let (mut ledger, mut now) = (Ledger::default(), Instant::now());
    let mut pauses = Vec::new();
    for _ in 0..7 {
        for _ in 0..50 {
            // 50 calls were on their way, and all of them were refused.
            ledger.learn(&lane(Importance::Look), &refused(DemandedWait::Unstated), now);
        }
        let pause = ledger.usage(now).blocked_for.unwrap();
        pauses.push(pause.as_secs());
        now += pause;
    }
    assert_eq!(pauses, [60, 120, 240, 480, 900, 900, 900]);
    ledger.learn(&lane(Importance::Look), &AnswerLimits::default(), now);
    ledger.learn(&lane(Importance::Look), &refused(DemandedWait::Unstated), now);
    assert_eq!(ledger.usage(now).blocked_for, Some(Duration::from_secs(60)), "a success ends the row");
}

#[test]
fn an_answer_that_was_overtaken_does_not_fill_the_budget_again() {
    let (mut ledger, start) = after(100);
    ledger.learn(&lane(Importance::Look), &answer(5000, 4000, HOUR_S, 0), start);
    assert_eq!(ledger.usage(start).limits[0].remaining, 100);
    ledger.learn(
        &lane(Importance::Look),
        &answer(5000, 4990, 2 * HOUR_S, HOUR_S),
        start + Duration::from_secs(HOUR_S),
    );
    ledger.learn(&lane(Importance::Look), &answer(5000, 0, HOUR_S, 0), start + Duration::from_secs(HOUR_S));
    assert_eq!(ledger.usage(start + Duration::from_secs(HOUR_S)).limits[0].remaining, 4990);
}

#[test]
fn each_limit_concerns_the_calls_that_are_counted_for_it() {
    let (mut ledger, start) = after(5000);
    let mut registrations = answer(10_000, 0, HOUR_S, 0);
    registrations.primary.as_mut().unwrap().resource = "actions_runner_registration".to_owned();
    ledger.learn(&lane(Importance::Register), &registrations, start);
    assert_eq!(going(&ledger, start), [Importance::Poll, Importance::Look, Importance::Essential]);
}

#[test]
fn names_of_limits_from_a_hostile_forge_do_not_pile_up() {
    let (mut ledger, start) = after(5000);
    for n in 0..1000 {
        let mut odd = answer(10, 10, HOUR_S, 0);
        odd.primary.as_mut().unwrap().resource = format!("r{n}");
        ledger.learn(&lane(Importance::Look), &odd, start);
    }
    assert!(ledger.limits.len() <= LIMITS_MAX && ledger.lanes.len() == 1);
}

#[test]
fn a_burst_of_registrations_stays_below_the_points_of_a_minute() {
    let (mut ledger, start) = after(5000);
    let lane = Lane { importance: Importance::Essential, method: Method::POST };
    let mut sent = Vec::new();
    for _ in 0..250 {
        let ask =
            Ask { lane: &lane, points: 5, latest: start + Importance::Essential.patience(), chance: 0.9 };
        match ledger.admit(&ask, start, &mut false) {
            Decision::Go => sent.push(start),
            Decision::WaitUntil(then) => sent.push(then),
            Decision::Shed { .. } => {}
        }
    }
    assert_eq!(sent.iter().filter(|then| **then == start).count(), 30);
    // GitHub allows 180 in a minute.
    assert_eq!(sent.len(), 180);
    assert!(sent.windows(2).all(|pair| pair[0] <= pair[1]), "they go in the order in which they came");
    assert_eq!(ledger.usage(start).calls.of(Importance::Essential, CallEnd::Shed), 70);
}

#[test]
fn a_forge_without_limits_is_not_slowed_down() {
    let (mut ledger, start) = (Ledger::default(), Instant::now());
    let lane = lane(Importance::Essential);
    for _ in 0..10_000 {
        let ask = Ask { lane: &lane, points: 5, latest: start, chance: 0.5 };
        assert_eq!(ledger.admit(&ask, start, &mut false), Decision::Go);
    }
}

/// Something that happens to a ledger.
#[derive(Debug, Clone)]
enum Step {
    Answer { remaining: u64, hours: u64 },
    Refused(DemandedWait),
    Spend(Importance),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..=5000_u64, 1..4_u64).prop_map(|(remaining, hours)| Step::Answer { remaining, hours }),
        (1..5000_u64).prop_map(|s| Step::Refused(DemandedWait::Stated(Duration::from_secs(s)))),
        Just(Step::Refused(DemandedWait::Unstated)),
        (0..4_usize).prop_map(|n| Step::Spend(Importance::ALL[n])),
        (0..4000_u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..40)
}

fn run(steps: &[Step]) -> (Ledger, Instant) {
    let (mut ledger, start) = (Ledger::default(), Instant::now());
    let mut passed_s = 0;
    for step in steps {
        let now = start + Duration::from_secs(passed_s);
        match step {
            Step::Answer { remaining, hours } => {
                let reset_s = (passed_s / HOUR_S + hours) * HOUR_S;
                ledger.learn(&lane(Importance::Look), &answer(5000, *remaining, reset_s, passed_s), now);
            }
            Step::Refused(demanded) => ledger.learn(&lane(Importance::Look), &refused(*demanded), now),
            Step::Spend(importance) => {
                let lane = lane(*importance);
                let latest = now + importance.patience();
                let ask = Ask { lane: &lane, points: lane.points(), latest, chance: 0.3 };
                ledger.admit(&ask, now, &mut false);
            }
            Step::Pass(s) => passed_s += s,
        }
    }
    (ledger, start + Duration::from_secs(passed_s))
}

proptest! {
    #[test]
    fn a_more_important_call_is_never_worse_off(steps in steps(), chance in 0.0..=1.0_f64) {
        let (ledger, now) = run(&steps);
        let lanes = Importance::ALL.map(|importance| Lane { importance, method: Method::GET });
        let decisions: Vec<_> = lanes
            .iter()
            .map(|lane| {
                let latest = now + lane.importance.patience();
                ledger.decide(&Ask { lane, points: 1, latest, chance }, now)
            })
            .collect();
        // Go comes before wait, and wait before shed.
        let rank = |decision: &Decision| match decision {
            Decision::Go => 0,
            Decision::WaitUntil(_) => 1,
            Decision::Shed { .. } => 2,
        };
        prop_assert!(decisions.windows(2).all(|pair| rank(&pair[0]) >= rank(&pair[1])), "{:?}", decisions);
    }

    #[test]
    fn no_call_waits_longer_than_its_importance_allows(steps in steps(), chance in 0.0..=1.0_f64) {
        let (ledger, now) = run(&steps);
        for importance in Importance::ALL {
            let lane = lane(importance);
            let latest = now + importance.patience();
            match ledger.decide(&Ask { lane: &lane, points: lane.points(), latest, chance }, now) {
                Decision::Go => {}
                Decision::WaitUntil(then) => prop_assert!(then > now && then <= latest + importance.spread()),
                Decision::Shed { until, .. } => prop_assert!(until > latest),
            }
        }
    }

    #[test]
    fn every_limit_ends(steps in steps()) {
        let (ledger, now) = run(&steps);
        prop_assert_eq!(going(&ledger, now + Duration::from_secs(24 * HOUR_S)).len(), 4);
    }
}
