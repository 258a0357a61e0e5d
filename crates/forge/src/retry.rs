//! The rule for repeating a call. It is pure: the caller passes in randomness. A call that is repeated asks the
//! [budget](super::budget) first, as every call does; so the budget alone knows how long a forge's limit lasts.

use std::time::Duration;

use dayfly_host::retry::FORGE_CALL;

use super::error::ForgeError;

/// Returns how long to wait before the next attempt, or `None` to give up. `calls` attempts were made so far. `chance` is
/// between 0 and 1 and spreads callers that failed at the same time.
pub(super) fn wait_before_next(calls: u32, error: &ForgeError, chance: f64) -> Option<Duration> {
    let pause = FORGE_CALL.pause_after(calls)?;
    error.is_temporary().then(|| pause.mul_f64(0.5 + chance))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_error() -> ForgeError {
        ForgeError::Server { what: "x".into(), status: 502, message: String::new() }
    }

    #[test]
    fn waits_grow_and_end() {
        let waits: Vec<_> = (1..=4).map(|calls| wait_before_next(calls, &server_error(), 0.5)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(250), ms(500), ms(1000), None]);
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        let error = ForgeError::Conflict { what: "x".into(), message: String::new() };
        assert_eq!(wait_before_next(1, &error, 0.0), None);
    }
}
