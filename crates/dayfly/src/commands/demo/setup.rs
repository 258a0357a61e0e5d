//! Sets a demo up: image, instance, lab, and the dispatched run.

use std::sync::Arc;

use dayfly_fleet::demand::Demand;
use dayfly_fleet::fact::FactRecord;
use dayfly_fleet::instance::{Instance, Serves};
use dayfly_fleet::orchestrator::{Budget, FailureRule, Orchestration, PoolRun};
use dayfly_fleet::pool::{Group, Limits, MachineSpec, Pool, PoolSpec, Registrar, USER_DEFAULT};
use dayfly_fleet::reaper::Leftovers;
use dayfly_fleet::recovery;
use dayfly_fleet::run_log::RunLogs;
use dayfly_fleet::stream::FactSink;
use dayfly_forge::{Dispatch, RunnerScope};
use dayfly_host::retry;
use dayfly_lab::{LabEvents, LabSettings};
use dayfly_vm::{Driver, Machine, VmHost};
use serde_json::json;
use tokio::sync::mpsc;

use super::request::Request;
use super::view::View;
use crate::cli::DemoArgs;
use crate::commands::private_lab::PrivateLab;
use crate::commands::{image, machine};
use crate::exit::{Failure, Result};
use crate::settings::Places;

/// The repository that the demo's lab serves.
pub(super) const OWNER: &str = "dayfly";
pub(super) const REPOSITORY: &str = "demo";

/// Returns the scope of the demo's runners.
pub(super) fn scope() -> RunnerScope {
    RunnerScope::Repository { owner: OWNER.to_owned(), name: REPOSITORY.to_owned() }
}

/// Prefix of the names of the demo's machines.
const PREFIX: &str = "demo";

/// A demo whose run has been dispatched.
pub(super) struct Demo {
    pub(super) view: View,
    pub(super) host: VmHost,
    pub(super) instance: Instance,
    pub(super) lab: PrivateLab,
    pub(super) run: u64,
    machine_spec: MachineSpec,
    machine: Machine,
    pub(super) parallel: u32,
    pub(super) keep: bool,
    pub(super) lab_events: LabEvents,
    pub(super) facts: FactSink,
    pub(super) fleet_facts: mpsc::Receiver<FactRecord>,
    /// The logs of its runners; none if they cannot be written.
    pub(super) logs: Option<RunLogs>,
}

impl Demo {
    pub(super) async fn set_up(
        places: &Places,
        args: &DemoArgs,
        request: Request,
        view: View,
    ) -> Result<Self> {
        let name = request.workflow.display_name().to_owned();
        view.fact(
            "workflow",
            &format!("{} ({name})", args.workflow.display()),
            json!({ "file": args.workflow, "name": name }),
        );
        let mut host = machine::host(places)?;
        let machine_spec = args.machine.spec();
        let mut machine = machine::settings(places, &machine_spec, USER_DEFAULT, view.is_json()).await?;
        keep_built_in(&mut machine, &machine_spec);
        if let Driver::Qemu(qemu) = &machine.driver {
            view.fact("image", &image::summary(&qemu.image), image::describe(&qemu.image));
        }
        let accel = machine::prove(&host, &machine, view.is_json()).await?;
        view.fact("accel", &accel.explanation, json!({ "accel": accel.word, "why": accel.explanation }));

        let swept = recovery::sweep(&places.state, &[], None).await.map_err(Failure::cannot)?;
        for run in &swept.cleared {
            let folder = run.folder.display();
            view.warning(&format!("removed the remains of an earlier demo in {folder}"));
        }
        for record in &swept.damaged {
            let record = record.display();
            view.warning(&format!(
                "{record} could not be read, as after a power cut; it is removed with its run"
            ));
        }
        let serves = Serves {
            pool: None,
            forge: String::new(),
            scope: scope(),
            prefix: PREFIX.to_owned(),
            private_lab: true,
            labels: Vec::new(),
        };
        let mut instance = Instance::create(&places.state, vec![serves.clone()]).map_err(Failure::cannot)?;
        host.spare_folder = Some(instance.spares());
        view.fact(
            "instance",
            &instance.folder().display().to_string(),
            json!({ "folder": instance.folder() }),
        );
        match Self::dispatch(&request, &mut instance, serves).await {
            Ok((lab, lab_events, run)) => {
                view.fact(
                    "lab",
                    lab.forge.base().url().as_str(),
                    json!({ "url": lab.forge.base().url().as_str() }),
                );
                let (facts, fleet_facts) = dayfly_fleet::stream::channel();
                let parallel = args.parallel;
                let keep = args.keep;
                Ok(Self {
                    view,
                    host,
                    instance,
                    lab,
                    run,
                    machine_spec,
                    machine,
                    parallel,
                    keep,
                    lab_events,
                    facts,
                    fleet_facts,
                    logs: RunLogs::open(&places.state).ok(),
                })
            }
            Err(failure) => {
                let _ = instance.remove();
                Err(failure)
            }
        }
    }

    async fn dispatch(
        request: &Request,
        instance: &mut Instance,
        serves: Serves,
    ) -> Result<(PrivateLab, LabEvents, u64)> {
        let lab = PrivateLab::open(LabSettings::new(instance.lab())).await?;
        instance
            .serve(vec![Serves { forge: lab.forge.base().url().to_string(), ..serves }])
            .map_err(Failure::cannot)?;
        let forge = &lab.forge;
        let (owner, name) = (OWNER, REPOSITORY);
        for (key, value) in &request.vars {
            forge.put_variable(owner, name, key, value).await.map_err(Failure::usage)?;
        }
        for (key, value) in &request.secrets {
            forge.put_secret(owner, name, key, value).await.map_err(Failure::usage)?;
        }
        forge.put_workflow(owner, name, &request.file, &request.text).await.map_err(Failure::usage)?;
        let lab_events = lab.lab.subscribe();
        let dispatch = Dispatch { inputs: request.inputs.clone(), any_event: true, ..Dispatch::default() };
        let run = forge.dispatch(owner, name, &request.file, &dispatch).await.map_err(Failure::usage)?;
        Ok((lab, lab_events, run))
    }

    /// Returns the demo's pool. Each slot gets the labels and the group of its job.
    pub(super) fn pool_run(&self) -> PoolRun {
        let forge = self.lab.forge.clone();
        let spec = PoolSpec {
            prefix: PREFIX.to_owned(),
            demand: Demand::Jobs { max: self.parallel },
            keep: self.keep,
            ..PoolSpec::new(forge.base().clone(), scope(), self.machine_spec.clone())
        };
        let pool = Pool {
            spec: Arc::new(spec),
            forge,
            registrar: Registrar::Rest,
            is_lab: true,
            group: Group::default_group(),
            labels: Vec::new(),
            machine: self.machine.clone(),
            secret: None,
            runs: self.instance.runs(),
            leftovers: Leftovers::default(),
            limits: Limits::default(),
        };
        let rule = FailureRule { retry: retry::RUNNER_OF_JOB, is_strict: true };
        PoolRun { pool, rule, sources: Vec::new(), inherited: Vec::new() }
    }

    pub(super) fn orchestration(&self, pool: PoolRun) -> Orchestration {
        let environment = self.instance.environment();
        Orchestration {
            pools: vec![pool],
            budget: Budget::default(),
            environment,
            changes: None,
            ends_with_demand: true,
            heartbeat: None,
        }
    }
}

/// Keeps the built-in image that the demo has begun with. A demo lasts for minutes: a build in the background would take the
/// processors from its machines and be stopped at its end, and a successor that another process has built would have the next
/// job wait for a new template. So a demo has no `--max-age` either.
fn keep_built_in(machine: &mut Machine, spec: &MachineSpec) {
    if let Driver::Qemu(qemu) = &mut machine.driver
        && spec.image.is_none()
    {
        qemu.source = None;
    }
}
