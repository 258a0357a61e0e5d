//! `dayfly doctor`: checks this host, with `--jail` the walls around machines, or with `--forge` the forges, and prints how to
//! fix each problem.

mod forge;
mod left;

use dayfly_fleet::fact::Moment;
use dayfly_host::clock::now_s;
use dayfly_image::{Age, AgingPart, Part, Store};
use dayfly_vm::host::{Check, CheckState, facts};
use dayfly_vm::{AccelChoice, AccelReport, ProbeGuest, StartError, Trust, VmHost};

use super::image::build_settings;
use super::machine::{probe_task, unchecked_host};
use crate::cli::DoctorArgs;
use crate::config::MaxAge;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::units::span;

pub(crate) async fn run(places: &Places, args: &DoctorArgs) -> Result<Outcome> {
    let host = unchecked_host(places);
    let probed = probe(places, &host, args.json).await;
    let mut checks = facts(&host, &places.search_path, probed.as_ref(), args.driver);
    checks.push(guest_binary(places));
    checks.extend(ages(places, args.max_age));
    let now_ms = Moment::now().ms();
    checks.extend(left::checks(places, now_ms));
    checks.extend(left::kept_machines(places));
    checks.extend(left::soaks(places));
    report(&checks, args.json, "this host lacks something that dayfly needs")
}

/// Shows the walls between machines and this host.
pub(crate) fn run_at_jail(places: &Places, args: &DoctorArgs) -> Result<Outcome> {
    report(&dayfly_vm::walls::checks(&unchecked_host(places)), args.json, "this host starts no VMM")
}

/// Checks the forges and their credentials. `is_argument` tells whether an option is on the command line.
pub(crate) async fn run_at_forge(
    places: &Places,
    args: &DoctorArgs,
    is_argument: impl Fn(&str) -> bool,
) -> Result<Outcome> {
    let checks = forge::checks(places, args, is_argument).await?;
    report(&checks, args.json, "dayfly cannot do at the forge what it is set up for")
}

/// Prints the checks. `failure` is the error if something is missing.
fn report(checks: &[Check], json: bool, failure: &'static str) -> Result<Outcome> {
    if json {
        printer::json(&checks);
    } else {
        let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
        for check in checks {
            printer::line(shown(check, width));
        }
    }
    match checks.iter().any(|check| check.state == CheckState::Missing) {
        true => Err(Failure::cannot(failure)),
        false => Ok(Outcome::Success),
    }
}

/// Boots a probe guest if there is an image to boot it from, so that the results for KVM and emulation come from a real boot.
/// A remembered failure is tried again, because the user may have fixed its cause.
async fn probe(
    places: &Places,
    host: &VmHost,
    quiet: bool,
) -> Option<std::result::Result<AccelReport, StartError>> {
    let image = Store::new(&places.state).list().ok()?.into_iter().next()?;
    let guest_binary = places.guest_binary().ok()?;
    let guest = ProbeGuest { image: &image, guest_binary: &guest_binary, cpu_model: None };
    let _task = probe_task(host, AccelChoice::Auto, guest, Trust::Success, quiet);
    Some(dayfly_vm::probe(host, AccelChoice::Auto, guest, Trust::Success).await)
}

fn guest_binary(places: &Places) -> Check {
    match places.guest_binary_path() {
        Ok(path) => Check {
            name: "guest binary".into(),
            state: CheckState::Ok,
            seen: path.display().to_string(),
            mend: None,
        },
        Err(failure) => Check {
            name: "guest binary".into(),
            state: CheckState::Missing,
            seen: failure.to_string(),
            mend: Some("make build".to_owned()),
        },
    }
}

/// Checks the ages of the built-in image, the kernel and the tools, as far as this host has them.
fn ages(places: &Places, max_age: MaxAge) -> Vec<Check> {
    match dayfly_image::aging(&build_settings(places)) {
        Ok(parts) => parts.iter().map(|part| age(part, now_s(), max_age)).collect(),
        Err(error) => {
            vec![Check {
                name: "images".into(),
                state: CheckState::Warn,
                seen: error.to_string(),
                mend: None,
            }]
        }
    }
}

fn age(AgingPart { part, created_s }: &AgingPart, now_s: i64, max_age: MaxAge) -> Check {
    let name = part.name().into();
    let command = match part {
        Part::BuiltInImage => "build",
        Part::Kernel => "kernel",
        Part::Tools => "tools",
    };
    let mend = Some(format!("dayfly image {command} --max-age {max_age}"));
    match (Age::at(now_s, *created_s), max_age.0) {
        (Age::Past(age), Some(limit)) if age >= limit => {
            let seen = format!("its packages are {} old (limit: {})", span(age), span(limit));
            Check { name, state: CheckState::Warn, seen, mend }
        }
        (Age::Past(age), _) => {
            let seen = format!("its packages are {} old", span(age));
            Check { name, state: CheckState::Ok, seen, mend: None }
        }
        (Age::Future(ahead), _) => {
            let seen =
                format!("this host's clock is {} behind its build; it counts as new until then", span(ahead));
            Check { name, state: CheckState::Warn, seen, mend: None }
        }
    }
}

fn shown(check: &Check, width: usize) -> String {
    let (style, word) = match check.state {
        CheckState::Ok => (style::GOOD, "ok     "),
        CheckState::Note => (style::DIM, "note   "),
        CheckState::Warn => (style::WARN, "warning"),
        CheckState::Missing => (style::BAD, "missing"),
    };
    let seen = format!("{} {:width$}  {}", paint(style, word), check.name, check.seen);
    let is_problem = matches!(check.state, CheckState::Warn | CheckState::Missing);
    match check.mend.as_ref().filter(|_| is_problem) {
        Some(mend) => format!("{seen}\n        {:width$}  {} {mend}", "", paint(style::DIM, "fix it:")),
        None => seen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_older_than_the_limit_is_named_with_the_command_that_builds_it_anew() {
        const DAY_S: i64 = 86400;
        let now_s = 100 * DAY_S;
        let week: MaxAge = "7d".parse().expect("an age");
        let check = |part, days: i64, max_age| {
            let Check { name, state, seen, mend } =
                age(&AgingPart { part, created_s: now_s - days * DAY_S }, now_s, max_age);
            format!("{name}: {state:?}: {seen}{}", mend.map(|mend| format!(" -> {mend}")).unwrap_or_default())
        };
        let lines = [
            check(Part::BuiltInImage, 6, week),
            check(Part::BuiltInImage, 7, week),
            check(Part::Tools, 30, week),
            check(Part::Kernel, 30, MaxAge(None)),
            check(Part::Kernel, -3, week),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        built-in image: Ok: its packages are 6 days old
        built-in image: Warn: its packages are 7 days old (limit: 7 days) -> dayfly image build --max-age 7d
        tools for images: Warn: its packages are 30 days old (limit: 7 days) -> dayfly image tools --max-age 7d
        kernel for images: Ok: its packages are 30 days old
        kernel for images: Warn: this host's clock is 3 days behind its build; it counts as new until then
        ");
    }
}
