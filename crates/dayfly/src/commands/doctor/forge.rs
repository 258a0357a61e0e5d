//! `dayfly doctor --forge`: checks forges, credentials and permissions before the first runner needs them.
//!
//! ```text
//! forge answers ── clock ── credential ─┬─ rate limits
//!                                       └─ for each owner of runners: found ── runners ── groups ── jobs
//! ```
//!
//! All calls only read; for a GitHub App a token is requested, which ends by itself. Whether a fine-grained token may register
//! runners cannot be read, and is reported so.

#[cfg(test)]
mod tests;
mod verdict;

use std::time::Duration;

use dayfly_forge::{CredentialKind, Forge, ForgeError, ForgeUse, RateLimit, RunnerScope};
use dayfly_vm::host::{Check, CheckState};

use crate::cli::DoctorArgs;
use crate::commands::subject::{self, Named, Owner, Subject};
use crate::exit::{Failure, Result};
use crate::settings::Places;
use crate::units::span;
use verdict::{Evidence, Verdict};

/// Longest time that the checks of one credential may take.
const SUBJECT_TIME_MAX: Duration = Duration::from_secs(120);
/// Difference between the clocks that is reported, and the one that runner apps refuse (actions/runner 2.336.0: "more than
/// five minutes"), in seconds.
const CLOCK_DIFFERENCE_S: (u64, u64) = (30, 300);
/// Share of an hour's calls, in percent, below which the rest is reported as a problem. dayfly holds back looks at runners then.
const CALLS_LEFT_PERCENT_MIN: u64 = 15;

/// Checks the forges of the configuration file, or the one of the options.
///
/// # Errors
/// The file has errors, or the options are wrong.
pub(super) async fn checks(
    places: &Places,
    args: &DoctorArgs,
    is_argument: impl Fn(&str) -> bool,
) -> Result<Vec<Check>> {
    let mut all = Vec::new();
    let named = Named { config: args.config.as_deref(), address: &args.address, access: &args.access };
    for subject in subject::read(places, &named, is_argument)? {
        all.extend(examine(&subject, SUBJECT_TIME_MAX).await);
    }
    Ok(all)
}

/// Checks one credential at one forge.
async fn examine(subject: &Subject, limit: Duration) -> Vec<Check> {
    let mut report = Report { prefix: subject.prefix.clone(), checks: Vec::new() };
    match &subject.forge {
        Err(failure) => {
            let mend = failure.what_to_do().map(str::to_owned);
            report.add("credential", Verdict::missing(failure, mend));
        }
        Ok(forge) => {
            let examined = tokio::time::timeout(limit, examine_forge(forge, &subject.owners, &mut report));
            if examined.await.is_err() {
                let why = format!("the checks have not ended within {}", span(limit));
                report.add("time", Verdict::missing(why, Some("try again later".to_owned())));
            }
        }
    }
    report.checks
}

/// The results so far. They are there even if the rest takes too long.
struct Report {
    prefix: String,
    checks: Vec<Check>,
}

impl Report {
    fn add(&mut self, name: &str, verdict: Verdict) {
        let Verdict { state, seen, mend } = verdict;
        let (name, seen) = (plain(&format!("{}{name}", self.prefix)), plain(&seen));
        self.checks.push(Check { name: name.into(), state, seen, mend: mend.as_deref().map(plain) });
    }
}

/// Returns a text of a forge without characters that could steer a terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

async fn examine_forge(forge: &Forge, owners: &[Owner], report: &mut Report) {
    if let Err(error) = forge.reach().await {
        return report.add("forge", Verdict::missing(Failure::cannot(error), None));
    }
    let web = forge.base().web_url();
    let trust = if web.starts_with("https:") { " and its certificate is trusted" } else { "" };
    report.add("forge", Verdict::ok(format!("{web} answers{trust}")));
    report.add("clock", clock(forge.credential().clock_ahead_s()));
    let Some(token) = credential(forge, report).await else { return };
    if token.is_usable {
        report.add("rate limit", rate_limits(forge.rate_limits().await));
    }
    for owner in owners {
        examine_owner(forge, &token, owner, report).await;
    }
}

fn clock(ahead_s: Option<i64>) -> Verdict {
    let Some(ahead_s) = ahead_s else { return Verdict::note("the forge does not tell its time") };
    let (told_s, refused_s) = CLOCK_DIFFERENCE_S;
    let (difference_s, direction) = (ahead_s.unsigned_abs(), if ahead_s < 0 { "behind" } else { "ahead of" });
    if difference_s <= told_s {
        return Verdict::ok("agrees with the forge's");
    }
    let seen =
        format!("this host's clock is {} {direction} the forge's", span(Duration::from_secs(difference_s)));
    let state = if difference_s <= refused_s { CheckState::Warn } else { CheckState::Missing };
    Verdict { state, seen, mend: Some("synchronise this host's clock (NTP)".to_owned()) }
}

/// An accepted credential.
struct Token {
    kind: CredentialKind,
    scopes: Option<Vec<String>>,
    /// False if the App is accepted, but gets no token for all that it is used for. Its installations say why.
    is_usable: bool,
}

async fn credential(forge: &Forge, report: &mut Report) -> Option<Token> {
    let kind = forge.credential().kind();
    if kind == CredentialKind::App {
        let name = match forge.app_name().await {
            Ok(name) => name.unwrap_or_default(),
            Err(error) => {
                report.add("credential", Verdict::missing(Failure::cannot(error), None));
                return None;
            }
        };
        report.add("credential", Verdict::ok(format!("the GitHub App \"{name}\"")));
        let is_usable = match forge.token_facts().await {
            Ok(_) => true,
            Err(error) => {
                report.add("token of the App", Verdict::missing(Failure::cannot(error), None));
                false
            }
        };
        return Some(Token { kind, scopes: None, is_usable });
    }
    match forge.token_facts().await {
        Ok(facts) => {
            let at =
                facts.server_version.map(|version| format!(", at version {version}")).unwrap_or_default();
            report.add("credential", Verdict::ok(format!("{}{at}", in_words(kind, facts.scopes.as_deref()))));
            Some(Token { kind, scopes: facts.scopes, is_usable: true })
        }
        Err(error) => {
            report.add("credential", Verdict::missing(Failure::cannot(error), None));
            None
        }
    }
}

fn in_words(kind: CredentialKind, scopes: Option<&[String]>) -> String {
    let scopes = match scopes {
        None => String::new(),
        Some([]) => " without a scope".to_owned(),
        Some(scopes) => format!(" with the scopes {}", scopes.join(", ")),
    };
    match kind {
        CredentialKind::Classic => format!("a classic token{scopes}"),
        CredentialKind::FineGrained => "a fine-grained token".to_owned(),
        CredentialKind::OfApp => format!("a token that an app has made, which ends soon{scopes}"),
        CredentialKind::Lab => "the token of a lab".to_owned(),
        CredentialKind::Other => format!("a token{scopes}"),
        CredentialKind::App => "a GitHub App".to_owned(),
    }
}

fn rate_limits(limits: std::result::Result<Vec<RateLimit>, ForgeError>) -> Verdict {
    let limits = match limits {
        Ok(limits) if limits.is_empty() => return Verdict::ok("none"),
        Ok(limits) => limits,
        Err(error) => return Verdict::unknown(Failure::cannot(error)),
    };
    let all: Vec<String> = limits
        .iter()
        .map(|limit| {
            format!("{} of {} calls an hour are left ({})", limit.remaining, limit.limit, limit.resource)
        })
        .collect();
    let is_low = |limit: &&RateLimit| {
        limit.remaining.saturating_mul(100) < limit.limit.saturating_mul(CALLS_LEFT_PERCENT_MIN)
    };
    match limits.iter().find(is_low) {
        None => Verdict::ok(all.join(", ")),
        Some(low) => {
            let mend = format!("wait {}, or give dayfly a credential of its own", span(low.resets_in));
            Verdict { state: CheckState::Warn, seen: all.join(", "), mend: Some(mend) }
        }
    }
}

async fn examine_owner(forge: &Forge, token: &Token, owner: &Owner, report: &mut Report) {
    let (scope, name) = (&owner.scope, owner.scope.to_string());
    let installation = match forge.installation(scope).await {
        Ok(installation) => installation,
        Err(error) => return report.add(&name, Verdict::missing(Failure::cannot(error), None)),
    };
    let web = forge.base().web_url();
    let evidence = Evidence {
        kind: token.kind,
        scopes: token.scopes.as_deref(),
        installation: installation.as_ref(),
        web: &web,
        scope,
    };
    if let Some(suspended) = evidence.suspended() {
        return report.add(&name, suspended);
    }
    if token.is_usable && !matches!(scope, RunnerScope::Enterprise(_)) {
        report.add(&name, evidence.place(forge.place(scope).await));
    }
    let runners = judge(forge, token, &evidence, ForgeUse::Runners(scope.kind())).await;
    let may_look = runners.state != CheckState::Missing && token.is_usable;
    report.add(
        &format!("{name}: {}", if !owner.scale_sets.is_empty() { "runners, scale sets" } else { "runners" }),
        runners,
    );
    for group in owner.groups.iter().filter(|_| may_look) {
        let verdict = match forge.group_id(scope, group).await {
            Ok(_) => Verdict::ok("is there"),
            Err(error) if error.is_temporary() => Verdict::unknown(Failure::cannot(error)),
            Err(error) => Verdict::missing(Failure::cannot(error), None),
        };
        report.add(&format!("{name}: group {group}"), verdict);
    }
    if owner.jobs {
        report.add(&format!("{name}: jobs"), judge(forge, token, &evidence, ForgeUse::Jobs).await);
    }
}

async fn judge(forge: &Forge, token: &Token, evidence: &Evidence<'_>, one: ForgeUse) -> Verdict {
    let answer = match token.is_usable {
        true => Some(forge.try_use(evidence.scope, one).await),
        false => None,
    };
    evidence.judge(one, answer)
}
