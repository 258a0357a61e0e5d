//! `dayfly why`: says why a job waits or how it ended, and what to do.

use dayfly_fleet::fact::Moment;
use dayfly_fleet::instance::InstanceInfo;
use dayfly_fleet::status::Status;
use dayfly_fleet::why::{self, Process, Reason, Situation};
use dayfly_vm::kept;

use super::{jobs, reload, runs};
use crate::cli::WhyArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::units::plain;

/// Most runs of the history that may be meant.
const RUNS_MAX: u32 = 1;

pub(crate) fn run(places: &Places, args: &WhyArgs) -> Result<Outcome> {
    let process = |(seen, status): (InstanceInfo, Status)| Process {
        instance: reload::name_of(&seen),
        serves: seen.serves,
        status,
    };
    let processes = jobs::living(places)?.into_iter().map(process).collect();
    let mut situation = Situation { processes, now_ms: Moment::now().ms(), ..Situation::default() };
    let reasons = match &args.subject {
        Some(subject) => {
            situation.runs = runs::open(places)?.find(subject, RUNS_MAX).map_err(Failure::cannot)?;
            for run in &situation.runs {
                if let Some(machine) = kept::find(&places.state, &run.runner).map_err(Failure::cannot)? {
                    situation.kept.insert(run.runner.clone(), machine.manifest().about.until_s);
                }
            }
            let reasons = why::explain(subject, &situation);
            if reasons.is_empty() {
                return Err(unknown(subject, &situation));
            }
            reasons
        }
        None => why::explain_labels(&args.labels, &situation),
    };
    for reason in &reasons {
        if args.json { printer::json(reason) } else { lines(reason).into_iter().for_each(printer::line) }
    }
    Ok(Outcome::Success)
}

fn lines(reason: &Reason) -> Vec<String> {
    let todo = reason.todo.as_ref().map(|todo| format!("  {} {todo}", paint(style::NAME, "->")));
    std::iter::once(plain(&reason.text)).chain(todo).collect()
}

/// Returns the failure for a name that nothing has.
fn unknown(subject: &str, situation: &Situation) -> Failure {
    let pools = situation.processes.iter().flat_map(|process| &process.serves);
    let pools: Vec<&str> = pools.filter_map(|serves| serves.pool.as_deref()).collect();
    let pools = if pools.is_empty() { "none".to_owned() } else { pools.join(", ") };
    Failure::cannot(format!("no pool, job or runner \"{subject}\" is known on this host; its pools are: {pools}")).hint(
        "a job whose labels no pool has is not seen here: dayfly why --labels LABEL,LABEL compares them; dayfly jobs and \
         dayfly runs list what is known",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nothing_has_leads_to_the_lists_and_to_the_labels() {
        let failure = unknown("deploy", &Situation::default());
        assert_eq!(failure.code(), 3);
        assert_eq!(
            failure.to_string(),
            "no pool, job or runner \"deploy\" is known on this host; its pools are: none"
        );
        assert!(failure.what_to_do().expect("a hint").contains("--labels"));
    }

    #[test]
    fn what_a_guest_has_printed_does_not_steer_the_terminal() {
        let reason = Reason {
            reason: "ended",
            text: "The job \u{1b}[2J ended.".to_owned(),
            todo: Some("x".to_owned()),
        };
        let text = anstream::adapter::strip_str(&lines(&reason).join("|")).to_string();
        assert_eq!(text, "The job [2J ended.|  -> x");
    }
}
