//! `dayfly runner`: one loop alone.

use dayfly_fleet::event::{Event, EventKind};
use dayfly_fleet::instance::{Instance, Serves};
use dayfly_fleet::settings::{Limits, LoopSettings};
use dayfly_fleet::stop::StopOrder;
use dayfly_fleet::{LoopEnd, RunnerEnd, recovery, run_loop};
use dayfly_forge::client::{ApiBase, Forge};
use dayfly_guest::protocol::Milestone;

use super::machine::{self, DNS_DEFAULT};
use crate::cli::RunnerArgs;
use crate::exit::{Failure, Outcome, Result, Signal};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::signals::Signals;

/// Labels that every runner has, whatever else is asked for.
const DEFAULT_LABELS: [&str; 3] = ["self-hosted", "Linux", "X64"];

pub(crate) async fn run(places: &Places, args: RunnerArgs) -> Result<Outcome> {
    let mut signals = Signals::take_over()?;
    let forge = ApiBase::from_host_or_url(&args.forge)
        .and_then(|base| Forge::new(base, &args.token))
        .map_err(Failure::usage)?;
    require_lab(&forge).await?;
    let host = machine::host(places)?;
    let machine = machine::settings(places, &args.machine, args.json).await?;
    let accel = machine::prove(&host, &machine, args.json).await?;
    if !args.json {
        printer::note(format_args!("accel: {}", accel.explanation));
    }
    let serves = Serves {
        forge: forge.base().url().to_string(),
        principal: args.principal.to_string(),
        prefix: args.prefix.clone(),
        private_lab: false,
    };
    clear_up(places, &forge, &serves).await?;
    let instance = Instance::create(&places.state, serves).map_err(Failure::cannot)?;
    if args.json {
        printer::json(&serde_json::json!({ "event": "instance", "folder": instance.folder() }));
    }
    let settings = LoopSettings {
        index: 0,
        prefix: args.prefix,
        principal: args.principal,
        group: 1,
        labels: with_default_labels(&args.labels),
        repeat: args.repeat,
        user: "runner".to_owned(),
        machine,
        dns: DNS_DEFAULT,
        mounts: Vec::new(),
        limits: Limits::default(),
        runs: instance.runs(),
        environment: instance.environment(),
        keep: false,
    };
    let (events, mut stream) = dayfly_fleet::event::channel();
    let (sender, stop) = dayfly_fleet::stop::channel();
    let mut stopped_by: Option<Signal> = None;
    let end = {
        let running = run_loop(settings, &host, &forge, &events, stop);
        tokio::pin!(running);
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => {
                    sender.order(if stopped_by.is_none() { StopOrder::Gently } else { StopOrder::AtOnce });
                    stopped_by = stopped_by.or(Some(signal));
                }
                Some(event) = stream.recv() => show(&event, args.json),
                end = &mut running => break end,
            }
        }
    };
    while let Ok(event) = stream.try_recv() {
        show(&event, args.json);
    }
    let folder = instance.folder().to_owned();
    if !instance.remove().map_err(Failure::cannot)? {
        printer::warning(format_args!("{} is left for the next start to clear up", folder.display()));
    }
    match (end, stopped_by) {
        (LoopEnd::Failed(error), _) => Err(Failure::cannot(error)),
        (_, Some(signal)) => Ok(Outcome::StoppedBy(signal)),
        (LoopEnd::Finished(RunnerEnd::MachineLost { exit }), None) => {
            Err(Failure::cannot(format!("the machine has ended in the middle of its work: {exit}")))
        }
        (LoopEnd::Finished(_) | LoopEnd::Stopped, None) => Ok(Outcome::Success),
    }
}

fn only_the_lab(forge: impl std::fmt::Display) -> Failure {
    Failure::cannot(format!("{forge} is not a lab of this host: other forges are not yet supported"))
        .hint("`dayfly lab serve` starts one, and prints the address and where its token is")
}

/// Refuses every forge but the lab: a VM has no way out to another one yet.
async fn require_lab(forge: &Forge) -> Result<()> {
    match forge.prove_lab().await {
        // Only a proven lab gets the token.
        Ok(Some(_)) => forge.check().await.map_err(Failure::cannot),
        Ok(None) => Err(only_the_lab(forge.base().url())),
        Err(error) => Err(Failure::cannot(error)),
    }
}

async fn clear_up(places: &Places, forge: &Forge, serves: &Serves) -> Result<()> {
    let sweep = recovery::sweep(&places.state, Some((forge, serves))).await.map_err(Failure::cannot)?;
    for run in sweep.cleared {
        printer::note(format_args!("cleared up what an earlier start had left in {}", run.display()));
    }
    for (run, why) in sweep.left {
        printer::warning(format_args!("{} is left as it is: {why}", run.display()));
    }
    Ok(())
}

fn with_default_labels(labels: &[String]) -> Vec<String> {
    let given = labels.iter().map(|label| label.trim()).filter(|label| !label.is_empty());
    let mut all: Vec<String> = Vec::new();
    for label in DEFAULT_LABELS.into_iter().chain(given) {
        if !all.iter().any(|other| other.eq_ignore_ascii_case(label)) {
            all.push(label.to_owned());
        }
    }
    all
}

fn show(event: &Event, json: bool) {
    if json {
        return printer::json(event);
    }
    let text = match &event.kind {
        EventKind::Registered { registration } => format!("registered (id {registration})"),
        EventKind::VmmStarted { pid } => format!("machine started (process {pid})"),
        EventKind::VmRestarted { reason } => format!("machine started once again: {reason}"),
        EventKind::AgentHello => "machine is up".to_owned(),
        EventKind::Milestone { milestone: Milestone::DockerReady, .. } => "Docker answers".to_owned(),
        EventKind::RunnerUp => "runner starts".to_owned(),
        EventKind::Listening => "runner waits for a job".to_owned(),
        EventKind::JobStarted { job } => format!("job {job} started"),
        EventKind::JobFinished { result } => format!("job ended: {result}"),
        EventKind::Stopping { reason } => format!("is being stopped: {reason}"),
        EventKind::EntrypointExited { code: Some(code), .. } => {
            format!("entrypoint ended with status {code}")
        }
        EventKind::EntrypointExited { signal, .. } => {
            format!("entrypoint ended by signal {}", signal.unwrap_or_default())
        }
        EventKind::VmGone { exit } => format!("machine is gone ({exit})"),
        EventKind::RegistrationEnded { how } => format!("registration {how}"),
        EventKind::Warning { message } => format!("{}: {message}", paint(style::WARN, "warning")),
        EventKind::Ended => "nothing of it is left".to_owned(),
        EventKind::Registering
        | EventKind::VmKept { .. }
        | EventKind::Milestone { .. }
        | EventKind::Line { .. }
        | EventKind::LinesDropped { .. } => return,
    };
    printer::line(format_args!("{} {text}", paint(style::NAME, &event.name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_labels_come_first_and_nothing_twice() {
        let given = ["gpu".to_owned(), "x64".to_owned(), " ".to_owned()];
        assert_eq!(with_default_labels(&given), ["self-hosted", "Linux", "X64", "gpu"]);
    }
}
