//! `dayfly doctor`: checks this host and prints the command that fixes each problem.

use dayfly_image::Store;
use dayfly_vm::host::{Check, CheckState, facts};
use dayfly_vm::{AccelChoice, AccelReport, ProbeGuest, StartError, Trust, VmHost};

use super::machine::{probe_task, unchecked_host};
use crate::cli::DoctorArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;

pub(crate) async fn run(places: &Places, args: &DoctorArgs) -> Result<Outcome> {
    let host = unchecked_host(places);
    let probed = probe(places, &host, args.json).await;
    let mut checks = facts(&host, &places.search_path, probed.as_ref(), args.driver);
    checks.push(guest_binary(places));
    if args.json {
        printer::json(&checks);
    } else {
        let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        for check in &checks {
            show(check, width);
        }
    }
    if checks.iter().any(|check| check.state == CheckState::Missing) {
        return Err(Failure::cannot("this host lacks something that dayfly needs"));
    }
    Ok(Outcome::Success)
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
            name: "guest binary",
            state: CheckState::Ok,
            seen: path.display().to_string(),
            mend: None,
        },
        Err(failure) => Check {
            name: "guest binary",
            state: CheckState::Missing,
            seen: failure.to_string(),
            mend: Some("make build".to_owned()),
        },
    }
}

fn show(check: &Check, width: usize) {
    let (style, word) = match check.state {
        CheckState::Ok => (style::GOOD, "ok     "),
        CheckState::Note => (style::DIM, "note   "),
        CheckState::Warn => (style::WARN, "warning"),
        CheckState::Missing => (style::BAD, "missing"),
    };
    printer::line(format_args!("{} {:width$}  {}", paint(style, word), check.name, check.seen));
    let is_problem = matches!(check.state, CheckState::Warn | CheckState::Missing);
    if let Some(mend) = check.mend.as_ref().filter(|_| is_problem) {
        printer::line(format_args!("        {:width$}  {} {mend}", "", paint(style::DIM, "fix it:")));
    }
}
