//! The number of calls, by importance and end.

use super::Importance;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallEnd {
    /// 2xx.
    Success,
    /// 304: nothing is new. GitHub does not count such a call.
    NotModified,
    /// Another 3xx.
    Redirected,
    /// 401: the forge does not accept the token.
    Unauthorized,
    /// Another 4xx.
    Refused,
    /// 403 or 429 because of a limit.
    Limited,
    /// 5xx, and every status that HTTP does not know.
    Failed,
    /// No answer.
    Lost,
    /// Not sent, because more important calls need the rest of the budget.
    Shed,
}

impl CallEnd {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::NotModified,
        Self::Redirected,
        Self::Unauthorized,
        Self::Refused,
        Self::Limited,
        Self::Failed,
        Self::Lost,
        Self::Shed,
    ];

    /// Returns the end of a call with an answer.
    pub(crate) fn of(status: u16, is_limited: bool) -> Self {
        match status {
            _ if is_limited => Self::Limited,
            200..300 => Self::Success,
            304 => Self::NotModified,
            300..400 => Self::Redirected,
            401 => Self::Unauthorized,
            400..500 => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// The number of calls, by importance and end. Each request counts, also one that repeats another or follows a redirect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallCounts([[u64; CallEnd::ALL.len()]; Importance::ALL.len()]);

impl CallCounts {
    pub(super) fn add(&mut self, importance: Importance, end: CallEnd) {
        self.0[importance as usize][end as usize] += 1;
    }

    /// Returns the number of calls of this importance that ended like this.
    pub fn of(&self, importance: Importance, end: CallEnd) -> u64 {
        self.0[importance as usize][end as usize]
    }

    /// Returns all counts that are not zero.
    pub fn iter(&self) -> impl Iterator<Item = (Importance, CallEnd, u64)> + '_ {
        let pairs = Importance::ALL
            .into_iter()
            .flat_map(|importance| CallEnd::ALL.into_iter().map(move |end| (importance, end)));
        pairs.map(|(importance, end)| (importance, end, self.of(importance, end))).filter(|(_, _, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_importance_and_each_end_has_a_count_of_its_own() {
        let mut counts = CallCounts::default();
        for importance in Importance::ALL {
            for end in CallEnd::ALL {
                assert_eq!(counts.of(importance, end), 0, "{importance:?} {end:?}");
                counts.add(importance, end);
            }
        }
        assert_eq!(counts.iter().filter(|(_, _, n)| *n == 1).count(), 36);
    }

    #[test]
    fn a_status_says_how_a_call_ended() {
        for (status, end) in [
            (204, CallEnd::Success),
            (304, CallEnd::NotModified),
            (302, CallEnd::Redirected),
            (401, CallEnd::Unauthorized),
            (403, CallEnd::Refused),
            (502, CallEnd::Failed),
            (99, CallEnd::Failed),
        ] {
            assert_eq!(CallEnd::of(status, false), end, "{status}");
        }
        assert_eq!(CallEnd::of(403, true), CallEnd::Limited);
    }
}
