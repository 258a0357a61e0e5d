//! The requests that were refused, and a report about them at most once a minute.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::{Notify, mpsc};

/// Time between two reports.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// The reason why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another path than that of the hook.
    Path,
    /// Another method than POST.
    Method,
    /// More requests a second than are allowed.
    Rate,
    /// A body that is too long.
    TooLong,
    /// A body that did not come in time, or not as a whole.
    Incomplete,
    /// No signature, or a wrong one.
    Signature,
    /// A signed body that is no delivery.
    NoDelivery,
    /// The queue of a pool is full.
    Full,
    /// No pool takes deliveries, because the process stops or its file has no such pool.
    NoPool,
    /// More connections at once than are allowed.
    Connection,
}

impl Refusal {
    /// The reasons that are reported. Strangers who look for other programs at the port are no trouble, nor is an end that
    /// was ordered.
    const REPORTED: [Self; 7] = [
        Self::Rate,
        Self::TooLong,
        Self::Incomplete,
        Self::Signature,
        Self::NoDelivery,
        Self::Full,
        Self::Connection,
    ];

    /// Returns the status of the answer.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Rate => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Self::Signature => StatusCode::UNAUTHORIZED,
            Self::NoDelivery => StatusCode::BAD_REQUEST,
            Self::Full | Self::NoPool | Self::Connection => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the text for people, behind a number of requests.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Path => "for another path than that of the webhook",
            Self::Method => "with another method than POST",
            Self::Rate => "above the rate limit",
            Self::TooLong => "with a body that is too long",
            Self::Incomplete => "whose body did not come in time",
            Self::Signature => {
                "with a missing or wrong signature: the secrets here and at the forge may differ"
            }
            Self::NoDelivery => "that are signed, but no delivery of a webhook",
            Self::Full => "that a pool could not take",
            Self::NoPool => "that no pool takes",
            Self::Connection => "at more connections than are allowed at once",
        }
    }
}

/// Counts refusals until they are reported.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: [AtomicU64; Refusal::REPORTED.len()],
    news: Notify,
}

impl Refusals {
    pub(super) fn count(&self, refusal: Refusal) {
        if let Some(at) = Refusal::REPORTED.iter().position(|reported| *reported == refusal) {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
            self.news.notify_one();
        }
    }

    /// Reports the first refusal at once, and those of each minute together. A report that has no room waits in the counts
    /// of the next one.
    pub(super) async fn report(&self, troubles: &mpsc::Sender<String>) {
        loop {
            self.news.notified().await;
            let Ok(room) = troubles.reserve().await else { return };
            if let Some(report) = self.take() {
                room.send(report);
                tokio::time::sleep(REPORT_PAUSE).await;
            }
        }
    }

    /// Returns the text about all refusals since the last one, if there are any.
    fn take(&self) -> Option<String> {
        let counts = self.counts.iter().map(|count| count.swap(0, Ordering::Relaxed));
        let told = counts.zip(Refusal::REPORTED).filter(|(count, _)| *count > 0);
        let parts: Vec<String> = told
            .map(|(count, refusal)| format!("{count} {} ({})", refusal.text(), refusal.status().as_u16()))
            .collect();
        (!parts.is_empty()).then(|| format!("refused requests: {}", parts.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_refusal_is_reported_at_once_and_those_of_a_minute_together() {
        let refusals = Refusals::default();
        let (sender, mut reports) = mpsc::channel(1);
        refusals.count(Refusal::Signature);
        let counting = async {
            let first = reports.recv().await.expect("a report");
            for _ in 0..500 {
                refusals.count(Refusal::Signature);
                refusals.count(Refusal::Path);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            refusals.count(Refusal::Full);
            let before = tokio::time::Instant::now();
            let second = reports.recv().await.expect("a report");
            (first, second, before.elapsed())
        };
        let (first, second, waited) = tokio::select! {
            counted = counting => counted,
            () = refusals.report(&sender) => panic!("it ends"),
        };
        insta::assert_snapshot!(first, @"refused requests: 1 with a missing or wrong signature: the secrets here and at the forge may differ (401)");
        insta::assert_snapshot!(second, @"refused requests: 500 with a missing or wrong signature: the secrets here and at the forge may differ (401); 1 that a pool could not take (503)");
        assert!(waited > Duration::from_secs(50), "{waited:?}");
    }
}
