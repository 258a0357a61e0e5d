//! Keeps the image of a pool fresh while its loops run, and tells about it.

use std::collections::HashMap;
use std::time::Duration;

use dayfly_fleet::pool::Pool;
use dayfly_image::{Refresh, keep_fresh};
use dayfly_vm::{Driver, QemuSettings};
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinSet};

use crate::printer;
use crate::units::span;

/// The image of a pool, and the age at which it is built anew.
type Kept = (Option<String>, Duration);

/// Builds the images of pools, or their parts, anew when they reach a pool's limit, until this is dropped.
pub(crate) struct Keepers {
    json: bool,
    kept: HashMap<Kept, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Keepers {
    /// Begins with these pools.
    pub(crate) fn of<'a>(pools: impl IntoIterator<Item = &'a Pool>, json: bool) -> Self {
        let mut keepers = Self { json, kept: HashMap::new(), tasks: JoinSet::new() };
        keepers.serve(pools);
        keepers
    }

    /// Serves these pools from now on. A build for an image that none of them has is given up.
    pub(crate) fn serve<'a>(&mut self, pools: impl IntoIterator<Item = &'a Pool>) {
        let mut before = std::mem::take(&mut self.kept);
        for pool in pools {
            let Driver::Qemu(QemuSettings { source: Some(source), .. }) = &pool.machine.driver else {
                continue;
            };
            let machine = &pool.spec.machine;
            let Some(max_age) = machine.max_age else { continue };
            // Pools of the same image need one keeper.
            let key = (machine.image.clone(), max_age);
            if self.kept.contains_key(&key) {
                continue;
            }
            let keeper = before.remove(&key).unwrap_or_else(|| {
                let (source, json) = (source.clone(), self.json);
                self.tasks.spawn(async move {
                    let mut tell = |message: Refresh| tell(&message, max_age, json);
                    match keep_fresh(&source, max_age, &mut tell).await {}
                })
            });
            self.kept.insert(key, keeper);
        }
        before.values().for_each(AbortHandle::abort);
        while self.tasks.try_join_next().is_some() {}
    }
}

fn tell(message: &Refresh, max_age: Duration, json: bool) {
    if json {
        printer::json(&describe(message));
    }
    match message {
        Refresh::Building { .. } | Refresh::Built { .. } => tracing::info!("{}", text(message, max_age)),
        Refresh::Failed { .. } | Refresh::FromTheFuture { .. } => {
            tracing::warn!("{}", text(message, max_age));
        }
    }
}

/// Returns a message as a log line.
fn text(message: &Refresh, max_age: Duration) -> String {
    let limit = span(max_age);
    match message {
        Refresh::Building { part, age } => format!(
            "the packages of the {part} are {} old (limit: {limit}); a new build begins, and the old one serves meanwhile",
            span(*age)
        ),
        Refresh::Built { part, took } => {
            format!("new {part} complete after {}; the next runners get it", span(*took))
        }
        Refresh::Failed { part, reason, age, pause } => format!(
            "no new {part}; the old one serves on, with packages that are {} old (limit: {limit}); next try in {}, and \
             further failures are not logged: {reason}",
            span(*age),
            span(*pause)
        ),
        Refresh::FromTheFuture { part, ahead } => format!(
            "this host's clock is {} behind the build of the {part}, which counts as new until then; if the clock is \
             right, remove it (`dayfly image gc`, `dayfly image rm`)",
            span(*ahead)
        ),
    }
}

/// Describes a message as JSON.
fn describe(message: &Refresh) -> Value {
    let (step, part) = match message {
        Refresh::Building { part, .. } => ("building", part),
        Refresh::Built { part, .. } => ("built", part),
        Refresh::Failed { part, .. } => ("failed", part),
        Refresh::FromTheFuture { part, .. } => ("from_the_future", part),
    };
    let mut value = json!({ "event": "image_refresh", "step": step, "part": part.to_string() });
    match message {
        Refresh::Building { age, .. } => value["age_s"] = json!(age.as_secs()),
        Refresh::Built { took, .. } => value["took_s"] = json!(took.as_secs()),
        Refresh::Failed { reason, age, pause, .. } => {
            value["age_s"] = json!(age.as_secs());
            value["pause_s"] = json!(pause.as_secs());
            value["reason"] = json!(reason);
        }
        Refresh::FromTheFuture { ahead, .. } => value["ahead_s"] = json!(ahead.as_secs()),
    }
    value
}

#[cfg(test)]
mod tests {
    use dayfly_image::Part;

    use super::*;

    #[test]
    fn each_message_says_how_old_what_is_and_what_happens_next() {
        let days = |days: u64| Duration::from_secs(days * 86400);
        let part = Part::BuiltInImage;
        let messages = [
            Refresh::Building { part, age: days(8) },
            Refresh::Built { part: Part::Tools, took: Duration::from_secs(93) },
            Refresh::Failed {
                part,
                reason: "mmdebstrap failed (exit status: 25)".to_owned(),
                age: days(8),
                pause: Duration::from_secs(600),
            },
            Refresh::FromTheFuture { part: Part::Kernel, ahead: days(3) },
        ];
        let shown = |message| format!("{}\n{}", text(message, days(7)), describe(message));
        insta::assert_snapshot!(messages.iter().map(shown).collect::<Vec<_>>().join("\n"));
    }
}
