//! Builds an image if there is none, boots it, and prints what happens.
//!
//! `cargo run -p dayfly-vm --example boot -- STATE GUEST_BINARY [SECONDS] [auto|kvm|tcg]`
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people who work on this crate")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dayfly_image::{BuildSettings, Cancel, Progress, build};
use dayfly_vm::{
    AccelChoice, Driver, Entrypoint, Forward, Launcher, Machine, Network, NetworkPolicy, QemuSettings,
    VmEvent, VmHost, VmSpec,
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let first = args.next().unwrap();
    // This program is also the launcher, which must run before any thread is started.
    if first == "vmm-launch" {
        return dayfly_vm::launch::main(args.next().unwrap().parse().unwrap());
    }
    let (state, guest_binary) = (PathBuf::from(first), PathBuf::from(args.next().unwrap()));
    let seconds = args.next().map_or(60, |text| text.parse().unwrap());
    let accel: AccelChoice = args.next().map_or(AccelChoice::Auto, |text| text.parse().unwrap());
    let launcher =
        Launcher { program: std::env::current_exe().unwrap(), args: vec!["vmm-launch".to_owned()] };
    let mut host = VmHost::new(state.clone(), launcher);
    host.limits.hello_tcg = Duration::from_secs(20);

    let start = Instant::now();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let settings = BuildSettings {
        state: state.clone(),
        suite: None,
        packages: None,
        extra: false,
        go_folders: std::env::split_paths(&search).collect(),
        max_age: None,
        gently: false,
        cancel: Cancel::default(),
    };
    for check in dayfly_vm::host::facts(&host, &settings.go_folders, None, None) {
        println!("{:?} {}: {}", check.state, check.name, check.seen);
    }
    let image = match build(&settings, &mut |progress| match progress {
        Progress::Line { .. } => {}
        told => println!("{:7.2} {told:?}", start.elapsed().as_secs_f32()),
    }) {
        Ok(image) => image,
        Err(error) => {
            println!("no image: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!(
        "{:7.2} image {} ({} MB)",
        start.elapsed().as_secs_f32(),
        image.id(),
        image.manifest().bytes() / 1_000_000
    );

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let run_dir = state.join("boot-example");
        let environment = run_dir.join("environment");
        std::fs::create_dir_all(&environment).unwrap();
        let forge = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = forge.local_addr().unwrap();
        let spec = VmSpec {
            name: "example".to_owned(),
            runner_id: "0-example".to_owned(),
            machine: Machine {
                cpus: 2,
                memory_mib: 2048,
                boot_limit: None,
                guest_binary,
                driver: Driver::Qemu(QemuSettings {
                    disk_mib: 32 * 1024,
                    image,
                    source: None,
                    accel,
                    cpu_model: None,
                    template: None,
                }),
            },
            network: Network {
                forward: Some(Forward { guest_port: to.port(), to }),
                ..Network::new(NetworkPolicy::default(), [1, 1, 1, 1].into())
            },
            environment: environment.clone(),
            settings: "RUNNER_ID=0-example\n".into(),
            entrypoint: Entrypoint::default(),
            mounts: Vec::new(),
            shell: false,
        };
        let start = Instant::now();
        let mut vm = match dayfly_vm::start(&host, spec, &run_dir).await {
            Ok(vm) => vm,
            Err(error) => return println!("cannot start: {error}"),
        };
        println!("{:7.2} start() returned", start.elapsed().as_secs_f32());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
        while let Ok(Some(event)) = tokio::time::timeout_at(deadline, vm.next_event()).await {
            println!("{:7.2} {event:?}", start.elapsed().as_secs_f32());
            if matches!(event, VmEvent::Gone { .. }) {
                break;
            }
        }
        let stopping = Instant::now();
        println!(
            "stop: {} ({:.2} s)",
            vm.stop(Duration::from_secs(10)).await,
            stopping.elapsed().as_secs_f32()
        );
        println!("console:\n{}", vm.console_tail());
        vm.destroy().await.unwrap();
        std::fs::remove_dir_all(&run_dir).unwrap();
    });
    ExitCode::SUCCESS
}
