//! Explains which pools a job with some labels fits.

use super::{Reason, Situation, pool};
use crate::instance::Serves;

/// Explains how a job with these labels fares on this host.
pub(super) fn explain(wanted: &[String], situation: &Situation) -> Vec<Reason> {
    let pools =
        situation.processes.iter().flat_map(|process| process.serves.iter().map(move |pool| (process, pool)));
    let known: Vec<_> = pools.filter(|(_, pool)| !pool.labels.is_empty()).collect();
    if known.is_empty() {
        return vec![
            Reason::new("no_pool", "No process of this host serves a pool whose labels are known.")
                .todo("start one: dayfly orchestrator; dayfly ps lists those that run"),
        ];
    }
    let mut reasons = Vec::new();
    for (process, fits) in known.iter().filter(|(_, pool)| missing(wanted, pool).is_empty()) {
        let name = name_of(fits);
        let text = format!("A job with the labels {} fits the pool {name}.", wanted.join(", "));
        reasons.push(Reason::new("fits", text));
        reasons.extend(fits.pool.iter().flat_map(|name| pool::named_of(process, name, situation.now_ms)));
    }
    if !reasons.is_empty() {
        return reasons;
    }
    let nearest = known.iter().map(|(_, pool)| *pool).min_by_key(|pool| missing(wanted, pool).len());
    let nearest = nearest.map(|pool| {
        let lacks = missing(wanted, pool).join(", ");
        format!(" The nearest is {}: it has {}, and lacks {lacks}.", name_of(pool), pool.labels.join(", "))
    });
    let text = format!(
        "No pool of this host has all of the labels {}.{}",
        wanted.join(", "),
        nearest.unwrap_or_default()
    );
    let todo = "change runs-on of the job, or add the labels to a pool (labels in its table) and run dayfly reload; a size's label \
                has to stand alone";
    vec![Reason::new("no_pool_has_these_labels", text).todo(todo)]
}

fn name_of(pool: &Serves) -> String {
    pool.pool.clone().unwrap_or_else(|| format!("of the command line for {}", pool.scope))
}

/// Returns the labels that the runners of a pool lack. The forge compares labels without regard to case.
fn missing<'a>(wanted: &'a [String], pool: &Serves) -> Vec<&'a str> {
    let has = |label: &&String| pool.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
    wanted.iter().filter(|label| !has(label)).map(String::as_str).collect()
}
