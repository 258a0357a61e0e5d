//! Builds images and their parts anew when they have become too old, while the old ones serve.
//!
//! ```text
//!   keep_fresh ── aging ── next_step ─┬─ wait (at most LOOK_AGAIN, because the wall clock may be set)
//!      ^                              └─ build, at the lowest priority ── the resolver finds it for the next machine
//!      └────────── failed: said once, and again after a pause that doubles ──────────┘
//! ```
//!
//! The built-in image is a part of its own. An imported image has the kernel and the tools of this host as parts; when one
//! of them has a successor, the next import gives the next generation of the image.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::age::Age;
use super::background::in_background;
use super::resolver::Wanted;
use super::{BuildSettings, ImageError, ImageResolver, Progress, Store, build, kernel, tools};
use crate::oci::ImageName;
use dayfly_host::clock::now_s;
use dayfly_host::retry;

/// Time from the start of the process to its first build, because its first machines start then, and because a process that
/// ends soon would build for nothing.
const SETTLE: Duration = Duration::from_secs(60);
/// Longest time until the ages are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// Longest build. A mirror that stalls must not end all later ones.
const BUILD_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// A part that is built on this host from Debian's packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The built-in image.
    BuiltInImage,
    /// The kernel for images that have none.
    Kernel,
    /// The tools for images that lack them.
    Tools,
}

impl Part {
    /// Returns its name, as shown to users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BuiltInImage => "built-in image",
            Self::Kernel => "kernel for images",
            Self::Tools => "tools for images",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part, and the time that its packages are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgingPart {
    /// The part.
    pub part: Part,
    /// Time of its build, seconds since 1970-01-01 UTC.
    pub created_s: i64,
}

/// A message of [`keep_fresh`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// A build of a part has begun.
    Building {
        /// The part.
        part: Part,
        /// The age of the one that serves meanwhile.
        age: Duration,
    },
    /// A build has ended; the next machines get it.
    Built {
        /// The part.
        part: Part,
        /// Time that it took.
        took: Duration,
    },
    /// A build has failed. Further failures in a row are not told.
    Failed {
        /// The part.
        part: Part,
        /// The reason.
        reason: String,
        /// The age of the one that goes on to serve.
        age: Duration,
        /// Time until the next attempt.
        pause: Duration,
    },
    /// This host's clock shows a time before the build of a part, which counts as new until its time comes. Told once.
    FromTheFuture {
        /// The part.
        part: Part,
        /// Time by which its build is ahead.
        ahead: Duration,
    },
}

/// The attempts to build a part.
#[derive(Debug, Clone, Copy)]
struct Attempts {
    /// Failures in a row.
    failures: u32,
    /// Time before which there is no further attempt.
    not_before: Instant,
}

/// The next step of [`keep_fresh`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Build(AgingPart),
    Wait(Duration),
}

/// Decides what to do at `now`, which is `now_s` by the wall clock: builds the oldest of the parts that have reached
/// `max_age` and may be attempted, or waits until there may be one.
fn next_step(
    parts: &[AgingPart],
    attempts: &BTreeMap<Part, Attempts>,
    max_age: Duration,
    now: Instant,
    now_s: i64,
) -> Step {
    let rests = |part: &AgingPart| {
        let of_part = attempts.get(&part.part);
        of_part.map_or(Duration::ZERO, |of_part| of_part.not_before.saturating_duration_since(now))
    };
    let until_old = |part: &AgingPart| match Age::at(now_s, part.created_s) {
        Age::Past(age) => max_age.saturating_sub(age),
        Age::Future(_) => LOOK_AGAIN,
    };
    let waits = |part: &AgingPart| rests(part).max(until_old(part));
    let due = parts.iter().filter(|part| waits(part).is_zero()).min_by_key(|part| part.created_s);
    match due {
        Some(due) => Step::Build(*due),
        None => Step::Wait(parts.iter().map(waits).fold(LOOK_AGAIN, Duration::min)),
    }
}

/// Returns the parts of a store that this host builds, each with the time of the newest one, for a check of the host. Of the
/// built images, this is the newest one.
///
/// # Errors
/// The store cannot be read.
pub fn aging(settings: &BuildSettings) -> Result<Vec<AgingPart>, ImageError> {
    let images = Store::new(&settings.state).list()?;
    let built = images.iter().map(|image| image.manifest()).find(|manifest| manifest.origin.is_none());
    let bundles = [(Part::Kernel, kernel::newest(settings)?), (Part::Tools, tools::newest(settings)?)];
    let image = built.map(|manifest| AgingPart { part: Part::BuiltInImage, created_s: manifest.created_s });
    let bundles = bundles
        .into_iter()
        .filter_map(|(part, newest)| newest.map(|newest| AgingPart { part, created_s: newest.created_s }));
    Ok(image.into_iter().chain(bundles).collect())
}

impl ImageResolver {
    /// Returns the parts of the image that it last resolved to. An image that was given by its id stays as it is, so that it
    /// has none.
    fn aging(&self) -> Vec<AgingPart> {
        match self.wanted() {
            Wanted::BuiltIn(_) => {
                let newest = self.built_in_generations().into_iter().next();
                let part = newest.map(|image| AgingPart {
                    part: Part::BuiltInImage,
                    created_s: image.manifest().created_s,
                });
                part.into_iter().collect()
            }
            Wanted::Named { name: ImageName::Own(_), .. } => Vec::new(),
            Wanted::Named { settings, .. } => {
                let Some(bundles) = self.last_one().and_then(|image| image.manifest().bundles()) else {
                    return Vec::new();
                };
                // A newer bundle may already be there, and one that was removed is as old as the one in the image.
                let of = |part, in_image: Option<i64>, newest: Option<i64>| {
                    in_image.map(|in_image| AgingPart { part, created_s: newest.unwrap_or(in_image) })
                };
                let newest = |found: Result<Option<super::series::Generation>, _>| {
                    found.ok().flatten().map(|generation| generation.created_s)
                };
                let kernel = of(Part::Kernel, bundles.kernel_s, newest(kernel::newest(&settings.build)));
                let tools = of(Part::Tools, bundles.tools_s, newest(tools::newest(&settings.build)));
                kernel.into_iter().chain(tools).collect()
            }
        }
    }

    /// Builds a part anew if it has reached `max_age` still. Another process may have built it, or builds it just now; then
    /// this waits for it.
    async fn refresh(&self, part: Part, max_age: Duration) -> Result<(), String> {
        let settings =
            BuildSettings { max_age: Some(max_age), gently: true, ..self.build_settings().clone() };
        let mut ignore = |_: Progress| {};
        let built = in_background(settings, &mut ignore, move |settings, progress| match part {
            Part::BuiltInImage => build(settings, progress).map(Some),
            Part::Kernel => kernel::kernel(settings, progress).map(|_| None),
            Part::Tools => tools::tools(settings, progress).map(|_| None),
        });
        let too_long = |_| format!("it was not complete within {} s", BUILD_LIMIT.as_secs());
        let built = tokio::time::timeout(BUILD_LIMIT, built).await.map_err(too_long)?;
        if let Some(image) = built.map_err(|error| error.to_string())? {
            self.adopt(&image);
        }
        Ok(())
    }
}

/// Keeps the parts of an image younger than `max_age`, for as long as the future lives: builds them anew in time, while
/// machines use the old ones. [`ImageResolver::resolve`] then finds the new ones. Dropping the future cancels a build.
pub async fn keep_fresh(
    source: &ImageResolver,
    max_age: Duration,
    tell: &mut (dyn FnMut(Refresh) + Send),
) -> Infallible {
    let mut attempts: BTreeMap<Part, Attempts> = BTreeMap::new();
    let mut told_future: BTreeMap<Part, i64> = BTreeMap::new();
    tokio::time::sleep(SETTLE).await;
    loop {
        let (parts, now_s) = (source.aging(), now_s());
        for AgingPart { part, created_s } in &parts {
            if let Age::Future(ahead) = Age::at(now_s, *created_s)
                && told_future.insert(*part, *created_s) != Some(*created_s)
            {
                tell(Refresh::FromTheFuture { part: *part, ahead });
            }
        }
        match next_step(&parts, &attempts, max_age, Instant::now(), now_s) {
            Step::Wait(pause) => tokio::time::sleep(pause).await,
            Step::Build(due) => {
                let failures = attempts.get(&due.part).map_or(0, |of_part| of_part.failures);
                let next = attempt(source, due, failures, max_age, tell).await;
                attempts.insert(due.part, next);
            }
        }
    }
}

/// Builds a part once, and returns when the next attempt may be.
async fn attempt(
    source: &ImageResolver,
    AgingPart { part, created_s }: AgingPart,
    failures: u32,
    max_age: Duration,
    tell: &mut (dyn FnMut(Refresh) + Send),
) -> Attempts {
    let age = Duration::from_secs(now_s().abs_diff(created_s));
    if failures == 0 {
        tell(Refresh::Building { part, age });
    }
    let began = Instant::now();
    match source.refresh(part, max_age).await {
        Ok(()) => {
            tell(Refresh::Built { part, took: began.elapsed() });
            // With a limit of seconds, builds would otherwise follow one another without a pause.
            Attempts { failures: 0, not_before: Instant::now() + LOOK_AGAIN }
        }
        Err(reason) => {
            let failures = failures.saturating_add(1);
            let pause = retry::IMAGE_REFRESH.pause_after(failures).unwrap_or(LOOK_AGAIN);
            if failures == 1 {
                tell(Refresh::Failed { part, reason, age, pause });
            } else {
                tracing::debug!("the {part} is not built anew (attempt {failures} in a row): {reason}");
            }
            Attempts { failures, not_before: Instant::now() + pause }
        }
    }
}

#[cfg(test)]
mod tests;
