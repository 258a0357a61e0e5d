//! Finds runners that keep their machine although their job is over: their registration is gone, or their job runs for longer
//! than a forge lets a job run. The guest's word does not count, because a job can stop the entrypoint, and a runner app can
//! hang after its job. Also finds runners that seem to wait for a job for too long; the forge then decides whether they do.

use std::time::Duration;

use tokio::time::Instant;

/// The answer of the forge about a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RegistrationAnswer {
    /// It exists; the runner has a job, or has none.
    Exists {
        /// True if it has a job.
        busy: bool,
    },
    /// It does not exist.
    Gone,
    /// The forge gave no usable answer.
    Unknown,
}

/// The reason to end a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its registration has been gone for this long.
    Unregistered(Duration),
    /// Its job has run for this long.
    JobTooLong(Duration),
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unregistered(time) => write!(
                f,
                "its registration has been gone from the forge for {} s, but its machine has not ended",
                time.as_secs()
            ),
            Self::JobTooLong(time) => {
                write!(f, "its job has run for {} hours, which is the limit", time.as_secs() / 3600)
            }
        }
    }
}

/// The rules; see [`crate::pool::Limits`].
#[derive(Debug, Clone, Copy)]
pub(super) struct LivenessRule {
    pub(super) pace: Duration,
    pub(super) after_job: Duration,
    pub(super) gone: Duration,
    pub(super) job: Duration,
    pub(super) idle: Option<Duration>,
}

/// The state from which the loop decides if a runner whose app is up is alive. Pure: time is passed in.
#[derive(Debug)]
pub(super) struct Liveness {
    rule: LivenessRule,
    /// Time of the next question to the forge.
    next: Instant,
    /// Earliest time of a question that a line of the app causes. A job can print such lines, and all runners share the calls
    /// of one token.
    hurry_from: Instant,
    gone_since: Option<Instant>,
    /// Time since which the runner has a job. The app's lines and the forge's answers start it; only the forge ends it,
    /// because a job can print the app's lines.
    busy_since: Option<Instant>,
    /// Time since which the runner waits for a job, as far as is known.
    idle_since: Option<Instant>,
}

impl Liveness {
    /// Returns the state of a runner that is up now. `chance`, between 0 and 1, spreads the questions of many runners.
    pub(super) fn new(rule: LivenessRule, chance: f64, now: Instant) -> Self {
        let first = rule.pace.mul_f64(0.5 + chance / 2.0);
        let (gone_since, busy_since, idle_since) = (None, None, Some(now));
        Self { rule, next: now + first, hurry_from: now, gone_since, busy_since, idle_since }
    }

    /// Returns the time of the next question to the forge.
    pub(super) fn next_question(&self) -> Instant {
        self.next
    }

    /// Returns the time at which the runner's job is too long, if it has one.
    pub(super) fn job_ends(&self) -> Option<Instant> {
        self.busy_since.map(|since| since + self.rule.job)
    }

    /// Returns the time at which the runner has waited for a job for too long, if it waits for one.
    pub(super) fn idle_ends(&self) -> Option<Instant> {
        Some(self.idle_since? + self.rule.idle?)
    }

    /// Notes that the forge is being asked to delete the registration of a runner that waits. If the forge does not answer, or
    /// says that the runner has a job, it is asked again after as long a wait.
    pub(super) fn idle_ended(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }

    /// Notes that the app reports a job.
    pub(super) fn job_started(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
        self.idle_since = None;
    }

    /// Notes that the app reports the end of a job. The machine usually ends within seconds; if it does not, the forge is
    /// asked.
    pub(super) fn job_finished(&mut self, now: Instant) {
        self.next = self.next.min(self.hurry_from.max(now + self.rule.after_job));
        self.idle_since = Some(now);
    }

    /// Makes the next question due now.
    pub(super) fn look_now(&mut self, now: Instant) {
        self.next = now;
    }

    /// Notes that the forge is being asked, so that it is not asked twice.
    pub(super) fn asked(&mut self, now: Instant) {
        self.next = now + self.rule.pace;
        self.hurry_from = now + self.rule.pace / 3;
    }

    /// Takes in the forge's answer.
    pub(super) fn take(&mut self, answer: RegistrationAnswer, now: Instant) -> Option<Verdict> {
        match answer {
            RegistrationAnswer::Exists { busy } => {
                self.gone_since = None;
                self.busy_since = busy.then(|| self.busy_since.unwrap_or(now));
                self.idle_since = (!busy).then(|| self.idle_since.unwrap_or(now));
                self.next = now + self.rule.pace;
            }
            RegistrationAnswer::Gone => {
                let since = *self.gone_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= self.rule.gone {
                    return Some(Verdict::Unregistered(now.saturating_duration_since(since)));
                }
                self.next = since + self.rule.gone;
            }
            // It proves nothing. A runner whose registration was gone is asked about again soon.
            RegistrationAnswer::Unknown => {
                self.next = now + if self.gone_since.is_some() { self.rule.gone } else { self.rule.pace };
            }
        }
        None
    }

    /// Returns the verdict about a runner whose job may be too long.
    pub(super) fn judge_job(&self, now: Instant) -> Option<Verdict> {
        self.job_ends().filter(|ends| *ends <= now).map(|_| Verdict::JobTooLong(self.rule.job))
    }
}

#[cfg(test)]
mod tests {
    use RegistrationAnswer::{Exists, Gone, Unknown};

    use super::*;

    const RULE: LivenessRule = LivenessRule {
        pace: Duration::from_secs(900),
        after_job: Duration::from_secs(15),
        gone: Duration::from_secs(120),
        job: Duration::from_secs(5 * 24 * 3600),
        idle: Some(Duration::from_secs(600)),
    };

    /// Plays the answers, each at the time of its question. Returns the seconds of the questions and the verdict.
    async fn play(mut liveness: Liveness, answers: &[RegistrationAnswer]) -> (Vec<u64>, Option<Verdict>) {
        let (begin, mut asked) = (Instant::now(), Vec::new());
        for answer in answers {
            tokio::time::sleep_until(liveness.next_question()).await;
            asked.push(begin.elapsed().as_secs());
            liveness.asked(Instant::now());
            if let verdict @ Some(_) = liveness.take(*answer, Instant::now()) {
                return (asked, verdict);
            }
        }
        (asked, None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_waits_costs_four_calls_an_hour() {
        let liveness = Liveness::new(RULE, 0.0, Instant::now());
        let (asked, verdict) = play(liveness, &[Exists { busy: false }; 5]).await;
        assert_eq!((asked, verdict), (vec![450, 1350, 2250, 3150, 4050], None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_that_stays_gone_for_two_minutes_ends_its_runner() {
        let mut liveness = Liveness::new(RULE, 1.0, Instant::now());
        liveness.job_finished(Instant::now());
        let (asked, verdict) = play(liveness, &[Gone; 2]).await;
        assert_eq!((asked, verdict), (vec![15, 135], Some(Verdict::Unregistered(Duration::from_secs(120)))));
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_and_a_forge_in_trouble_prove_nothing() {
        let liveness = Liveness::new(RULE, 1.0, Instant::now());
        let (asked, verdict) =
            play(liveness, &[Gone, Exists { busy: true }, Gone, Unknown, Unknown, Gone]).await;
        assert_eq!(asked, [900, 1020, 1920, 2040, 2160, 2280]);
        assert_eq!(verdict, Some(Verdict::Unregistered(Duration::from_secs(360))));
        let (_, verdict) = play(Liveness::new(RULE, 1.0, Instant::now()), &[Unknown; 50]).await;
        assert_eq!(verdict, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_forges_the_ends_of_jobs_costs_twelve_calls_an_hour() {
        let (begin, mut calls) = (Instant::now(), 0);
        let mut liveness = Liveness::new(RULE, 1.0, begin);
        while begin.elapsed() < Duration::from_secs(3600) {
            liveness.job_finished(Instant::now());
            if liveness.next_question() <= Instant::now() {
                calls += 1;
                liveness.asked(Instant::now());
                liveness.take(Exists { busy: true }, Instant::now());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(calls, 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_has_a_limit_that_its_own_words_do_not_extend() {
        let begin = Instant::now();
        let mut liveness = Liveness::new(RULE, 1.0, begin);
        assert_eq!(liveness.job_ends(), None, "a runner may wait for a job for ever");
        liveness.job_started(begin);
        for _ in 0..5 * 24 - 1 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            // Forged lines: a job that ends and begins again and again.
            liveness.job_finished(Instant::now());
            liveness.job_started(Instant::now());
            assert_eq!(liveness.take(Exists { busy: true }, Instant::now()), None);
            assert_eq!(liveness.judge_job(Instant::now()), None);
        }
        tokio::time::sleep_until(liveness.job_ends().expect("a job")).await;
        assert_eq!(begin.elapsed(), RULE.job);
        assert_eq!(liveness.judge_job(Instant::now()), Some(Verdict::JobTooLong(RULE.job)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_forges_word_starts_a_job_that_the_app_is_silent_about_and_ends_it() {
        let mut liveness = Liveness::new(RULE, 1.0, Instant::now());
        liveness.take(Exists { busy: true }, Instant::now());
        assert_eq!(liveness.job_ends(), Some(Instant::now() + RULE.job));
        liveness.take(Exists { busy: false }, Instant::now());
        assert_eq!(liveness.job_ends(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_is_idle_from_its_start_and_from_the_end_of_each_job() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(RULE, 0.5, begin);
        assert_eq!(liveness.idle_ends(), Some(at(600)));
        liveness.job_started(at(10));
        assert_eq!(liveness.idle_ends(), None);
        liveness.job_finished(at(100));
        assert_eq!(liveness.idle_ends(), Some(at(700)), "it may have one job after another");
        liveness.take(Exists { busy: true }, at(200));
        assert_eq!(liveness.idle_ends(), None, "the forge knows better");
        liveness.take(Exists { busy: false }, at(300));
        liveness.take(Exists { busy: false }, at(400));
        assert_eq!(liveness.idle_ends(), Some(at(900)));
        liveness.idle_ended(at(900));
        assert_eq!(liveness.idle_ends(), Some(at(1500)), "the next attempt is not at once");
        let patient = Liveness::new(LivenessRule { idle: None, ..RULE }, 0.5, begin);
        assert_eq!(patient.idle_ends(), None);
    }
}
