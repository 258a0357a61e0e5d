//! Moods: ways in which a runner app misbehaves, for tests of what is around it.

use std::str::FromStr;

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// The worker crashes before the first step; the listener completes the job with the reason as an annotation.
    CrashBeforeSteps,
    /// The whole app is gone at the beginning of a step (from 1, without "Set up job"), without another word.
    VanishAtStep(usize),
    /// The app neither polls nor exits after its job, and leaves its session open, until it gets a signal.
    HangAfterJob,
    /// The session is closed behind the app's back when a job begins, so that its next poll is refused.
    LoseSession,
}

impl FromStr for Mood {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "crash-before-steps" => Ok(Self::CrashBeforeSteps),
            None if text == "hang-after-job" => Ok(Self::HangAfterJob),
            None if text == "lose-session" => Ok(Self::LoseSession),
            Some(("vanish-at-step", number)) if number.parse::<usize>().is_ok_and(|number| number > 0) => {
                Ok(Self::VanishAtStep(number.parse().unwrap_or(1)))
            }
            _ => Err(format!(
                "{text:?} is no mood: crash-before-steps, vanish-at-step=N (from 1), hang-after-job or lose-session"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moods_are_read_by_their_names() {
        assert_eq!("crash-before-steps".parse(), Ok(Mood::CrashBeforeSteps));
        assert_eq!("vanish-at-step=2".parse(), Ok(Mood::VanishAtStep(2)));
        for text in ["", "vanish-at-step", "vanish-at-step=0", "vanish-at-step=x", "lose-session=1", "angry"]
        {
            assert!(text.parse::<Mood>().is_err(), "{text}");
        }
    }
}
