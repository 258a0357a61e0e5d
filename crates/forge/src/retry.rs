//! The rule for repeating a call. It is pure: the caller passes in randomness. A call that is repeated asks the
//! [budget](super::budget) first, as every call does; so the budget alone knows how long a forge's limit lasts.

use std::time::Duration;

use dayfly_host::retry::FORGE_CALL;

use super::error::ForgeError;

/// Longest demanded wait that a call waits for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Returns how long to wait before the next attempt, or `None` to give up. `calls` attempts were made so far. `has_budget` is
/// true if a budget knows of the forge's limit. `chance` is between 0 and 1 and spreads callers that failed at the same time.
pub(super) fn wait_before_next(
    calls: u32,
    error: &ForgeError,
    has_budget: bool,
    chance: f64,
) -> Option<Duration> {
    let pause = FORGE_CALL.pause_after(calls)?;
    let demanded = match error {
        ForgeError::RateLimited { wait, .. } if !has_budget => Some(*wait),
        ForgeError::Server { wait, .. } => *wait,
        _ => None,
    };
    match demanded {
        Some(wait) => (wait <= WAIT_MAX).then(|| wait + FORGE_CALL.first.mul_f64(chance)),
        None => error.is_temporary().then(|| pause.mul_f64(0.5 + chance)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_error() -> ForgeError {
        ForgeError::Server { what: "x".into(), status: 502, message: String::new(), wait: None }
    }

    #[test]
    fn waits_grow_and_end() {
        let waits: Vec<_> =
            (1..=4).map(|calls| wait_before_next(calls, &server_error(), true, 0.5)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(250), ms(500), ms(1000), None]);
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        let error = ForgeError::Conflict { what: "x".into(), message: String::new() };
        assert_eq!(wait_before_next(1, &error, true, 0.0), None);
    }

    #[test]
    fn a_wait_that_the_forge_demands_is_kept_if_it_is_bearable() {
        let wait = |seconds| Duration::from_secs(seconds);
        let failed = |seconds| ForgeError::Server {
            what: "x".into(),
            status: 503,
            message: String::new(),
            wait: Some(wait(seconds)),
        };
        assert_eq!(wait_before_next(1, &failed(9), true, 0.0), Some(wait(9)));
        assert_eq!(wait_before_next(1, &failed(61), true, 0.0), None);
        let limited = ForgeError::RateLimited { what: "x".into(), message: String::new(), wait: wait(9) };
        assert_eq!(wait_before_next(1, &limited, false, 0.0), Some(wait(9)));
        let short = wait_before_next(1, &limited, true, 0.5);
        assert_eq!(short, Some(FORGE_CALL.first), "the budget knows when the limit ends");
    }
}
