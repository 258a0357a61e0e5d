//! Builds a template if there is none, forks it several times, and prints what happens.
//!
//! `cargo run -p dayfly-vm --example fork -- STATE GUEST_BINARY [FORKS]`
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people who work on this crate")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dayfly_image::Store;
use dayfly_vm::{
    AccelChoice, Driver, Entrypoint, Launcher, Machine, Network, NetworkPolicy, QemuSettings,
    TemplateSettings, VmEvent, VmHost, VmSpec,
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let first = args.next().unwrap();
    if first == "vmm-launch" {
        return dayfly_vm::launch::main(args.next().unwrap().parse().unwrap());
    }
    let (state, guest_binary) = (PathBuf::from(first), PathBuf::from(args.next().unwrap()));
    let forks: usize = args.next().map_or(5, |text| text.parse().unwrap());
    let launcher =
        Launcher { program: std::env::current_exe().unwrap(), args: vec!["vmm-launch".to_owned()] };
    let mut host = VmHost::new(state.clone(), launcher);
    host.spare_folder = Some(state.join("spares"));
    let image = Store::new(&state).list().unwrap().remove(0);
    let machine = Machine {
        cpus: 2,
        memory_mib: 1024,
        boot_limit: None,
        guest_binary,
        driver: Driver::Qemu(QemuSettings {
            disk_mib: 32 * 1024,
            image,
            source: None,
            accel: AccelChoice::Tcg,
            cpu_model: None,
            template: Some(TemplateSettings {
                spares: args.next().map_or(0, |text| text.parse().unwrap()),
                ..Default::default()
            }),
        }),
    };
    let network = Network::new(NetworkPolicy::default(), [1, 1, 1, 1].into());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        dayfly_vm::prepare(&host, &machine, &network, &[], &mut |told| {
            println!("{:8.3} {told:?}", start.elapsed().as_secs_f32());
        })
        .await
        .unwrap();
        println!("{:8.3} ready", start.elapsed().as_secs_f32());
        for number in 0..forks {
            let run = state.join(format!("fork-{number}"));
            let environment = state.join("environment");
            std::fs::create_dir_all(&environment).unwrap();
            let spec = VmSpec {
                name: format!("fork-{number}"),
                runner_id: format!("{number}-a"),
                machine: machine.clone(),
                network: network.clone(),
                environment,
                settings: format!("RUNNER_ID={number}-a\n").into(),
                entrypoint: Entrypoint::default(),
                mounts: Vec::new(),
                shell: false,
            };
            let start = Instant::now();
            let run = run.join("vm");
            std::fs::create_dir_all(&run).unwrap();
            let mut vm = dayfly_vm::start(&host, spec, &run).await.unwrap();
            println!("{:8.3} launched", start.elapsed().as_secs_f32());
            loop {
                let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(3), vm.next_event()).await
                else {
                    break;
                };
                println!("{:8.3} {event:?}", start.elapsed().as_secs_f32());
                if matches!(event, VmEvent::EntrypointExited { .. } | VmEvent::Gone { .. }) {
                    break;
                }
            }
            let end = Instant::now();
            vm.kill().await;
            println!("{:8.3} ended", end.elapsed().as_secs_f32());
            vm.destroy().await.unwrap();
            println!("{:8.3} gone", end.elapsed().as_secs_f32());
            std::fs::remove_dir_all(run.parent().unwrap()).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(args.next().map_or(0, |text| text.parse().unwrap()))).await;
        host.spares.end().await;
    });
    ExitCode::SUCCESS
}
