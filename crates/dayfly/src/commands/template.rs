//! `dayfly template build|ls|rm|gc`: manages the frozen machines that others are forked from.

use std::time::Duration;

use dayfly_vm::template::{AGE_MAX, BYTES_MAX, Template, TemplateError, TemplateStore};
use dayfly_vm::{Network, Preparing};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::machine;
use crate::cli::TemplateBuildArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, Task, paint, style};
use crate::rules;
use crate::settings::Places;
use crate::units::{age, mebibytes, short_id};

/// Most events of a build that wait to be shown. If the queue is full, further events are dropped.
const TOLD_MAX: usize = 256;

/// Builds the template of the machines that the arguments describe, repeatedly if `--refresh-every` is given.
pub(crate) async fn build(places: &Places, args: TemplateBuildArgs) -> Result<Outcome> {
    loop {
        build_once(places, &args).await?;
        let Some(every) = args.refresh_every else { return Ok(Outcome::Success) };
        tokio::time::sleep(every.0).await;
    }
}

async fn build_once(places: &Places, args: &TemplateBuildArgs) -> Result<()> {
    if args.machine.cold {
        return Err(Failure::usage("--cold machines have no template"));
    }
    let host = machine::host(places)?;
    let machine = machine::settings(places, &args.machine.spec(), &args.user, args.json).await?;
    // Machines with templates are those of the driver qemu, so that each policy can be enforced as root.
    let policy = rules::policy(args.network, &args.allow).map_err(Failure::usage)?;
    let network = Network::new(policy, args.dns);
    let (sender, mut told) = mpsc::channel(TOLD_MAX);
    let mut tell = move |what| {
        let _ = sender.try_send(what);
    };
    let building = async {
        match args.refresh_every.is_some() || args.again {
            true => {
                dayfly_vm::rebuild(&host, &machine, &network, &[], &mut tell).await;
                Ok(())
            }
            false => dayfly_vm::prepare(&host, &machine, &network, &[], &mut tell).await,
        }
    };
    tokio::pin!(building);
    let mut shown = TemplateProgress { json: args.json, task: None, failure: None, built: false };
    let built = loop {
        tokio::select! {
            biased;
            Some(what) = told.recv() => shown.take(what),
            built = &mut building => break built,
        }
    };
    while let Ok(what) = told.try_recv() {
        shown.take(what);
    }
    built.map_err(Failure::cannot)?;
    shown.end()
}

/// Shows the events of a build and remembers how it ended.
struct TemplateProgress {
    json: bool,
    task: Option<Task>,
    failure: Option<String>,
    built: bool,
}

impl TemplateProgress {
    fn take(&mut self, what: Preparing) {
        match what {
            Preparing::Building { template } => {
                self.task = Some(Task::begin(&format!("building template {template}"), self.json));
            }
            Preparing::Waiting { template } => {
                let title = format!("waiting for another process that builds template {template}");
                self.task = Some(Task::begin(&title, self.json));
            }
            Preparing::Line(text) => {
                if let Some(task) = &mut self.task {
                    task.at(&text);
                }
            }
            Preparing::Built { template, took_ms, bytes } => {
                self.built = true;
                if let Some(task) = self.task.take() {
                    task.done("done");
                }
                if self.json {
                    printer::json(&json!({ "template": template, "took_ms": took_ms, "bytes": bytes }));
                } else {
                    let took = Duration::from_millis(took_ms).as_secs_f32();
                    printer::line(format_args!("template {template} ({}, {took:.1} s)", mebibytes(bytes)));
                }
            }
            Preparing::Failed { reason, .. } | Preparing::Cold { reason } => {
                self.task = None;
                // The first failure is reported, because a later one is about the template without the warm-up.
                self.failure.get_or_insert(reason);
            }
        }
    }

    fn end(self) -> Result<()> {
        if let Some(reason) = self.failure {
            return Err(Failure::cannot(format!("no template: {reason}")));
        }
        if !self.built && !self.json {
            printer::note("the template exists already; --again builds it again");
        }
        Ok(())
    }
}

pub(crate) fn ls(places: &Places, json: bool) -> Result<Outcome> {
    let templates = TemplateStore::new(&places.state).list().map_err(Failure::cannot)?;
    if json {
        printer::json(&templates.iter().map(describe).collect::<Vec<_>>());
    } else if templates.is_empty() {
        printer::note(format_args!(
            "no templates in {}; the first machine builds one, and so does `dayfly template build`",
            places.state.display()
        ));
    } else {
        printer::line(paint(
            style::HEAD,
            "id            image         cpus  memory    on disk   age        forks   hits  warm-up",
        ));
        for template in &templates {
            printer::line(row(template));
        }
    }
    Ok(Outcome::Success)
}

fn row(template: &Template) -> String {
    let (manifest, counts) = (template.manifest(), template.counts());
    let starts = counts.forks + counts.failures;
    let hits = match starts {
        0 => "-".to_owned(),
        _ => format!("{}%", counts.forks * 100 / starts),
    };
    let row = format!(
        "{:12}  {:12}  {:>4}  {:>6} M  {:>8}  {:9}  {:>6}  {:>5}  {}",
        short_id(manifest.id.as_str()),
        short_id(&manifest.image),
        manifest.cpus,
        manifest.memory_mib,
        mebibytes(template.bytes()),
        age(manifest.created_s),
        counts.forks,
        hits,
        manifest.warm_up.as_deref().unwrap_or("-"),
    );
    row.trim_end().to_owned()
}

fn describe(template: &Template) -> Value {
    let (manifest, counts) = (template.manifest(), template.counts());
    json!({
        "id": manifest.id, "image": manifest.image, "cpus": manifest.cpus, "memory_mib": manifest.memory_mib,
        "disk_mib": manifest.disk_mib, "accel": manifest.accel, "warm_up": manifest.warm_up,
        "created_s": manifest.created_s, "took_ms": manifest.took_ms, "bytes": template.bytes(),
        "forks": counts.forks, "failures": counts.failures, "used_s": counts.used_s, "folder": template.folder(),
    })
}

pub(crate) fn rm(places: &Places, ids: &[String], all: bool) -> Result<Outcome> {
    let store = TemplateStore::new(&places.state);
    let templates = match all {
        true => store.list().map_err(Failure::cannot)?,
        false => ids
            .iter()
            .map(|id| store.find(id))
            .collect::<std::result::Result<_, _>>()
            .map_err(Failure::cannot)?,
    };
    for template in &templates {
        match store.remove(template) {
            Ok(()) => printer::line(format_args!("removed {}", short_id(template.manifest().id.as_str()))),
            // All templates means all that can go: the others are named, and the rest is removed.
            Err(error @ TemplateError::InUse { .. }) if all => printer::warning(error),
            Err(error) => return Err(Failure::cannot(error)),
        }
    }
    Ok(Outcome::Success)
}

/// Removes old templates, and templates beyond the limit of space, as each build does.
pub(crate) fn gc(places: &Places, keep_bytes: Option<u64>) -> Result<Outcome> {
    let store = TemplateStore::new(&places.state);
    let gone = store.collect(AGE_MAX, keep_bytes.unwrap_or(BYTES_MAX)).map_err(Failure::cannot)?;
    for id in &gone {
        printer::line(format_args!("removed {}", short_id(id.as_str())));
    }
    if gone.is_empty() {
        printer::note("no template had to be removed");
    }
    Ok(Outcome::Success)
}
