//! Measures starts, ends and idle costs of machines.

use std::fs;
use std::time::{Duration, Instant};

use dayfly_host::space;
use dayfly_vm::Vm;
use rustix::process::{Pid, Signal};

use crate::figures::{Figure, milliseconds};
use crate::machines::{Stage, Times, What};
use crate::{Error, containers};

/// Memory that is left to this host when as many machines as fit are started, in MiB.
const RESERVE_MIB: u64 = 1024;
/// How long the CPU time of idle machines is measured.
const IDLE: Duration = Duration::from_secs(10);

/// Measures the rebuild of one template.
pub(crate) async fn template(stage: &Stage) -> Result<Figure, Error> {
    let begin = Instant::now();
    let machine = stage.machine(Some(0));
    dayfly_vm::rebuild(&stage.host, &machine, &stage.network, &[], &mut |_| {}).await;
    Ok(Figure::of("template built", "s", "-", vec![begin.elapsed().as_secs_f64()]))
}

async fn end(vm: &mut Vm) -> f64 {
    let begin = Instant::now();
    vm.kill().await;
    milliseconds(begin)
}

/// Measures forks, one after another.
pub(crate) async fn forks(stage: &Stage, samples: u32) -> Result<Vec<Figure>, Error> {
    let (mut exec, mut whole, mut gone, mut clock) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..samples {
        let (mut vm, times) =
            stage.start(&format!("fork{number}"), stage.machine(Some(0)), What::Answer).await?;
        exec.push(Times::between(times.started, times.identified)?);
        whole.push(Times::between(times.asked, times.identified)?);
        let begin = Instant::now();
        end(&mut vm).await;
        vm.destroy().await?;
        gone.push(milliseconds(begin));
    }
    for number in 0..samples.div_ceil(4) {
        let name = format!("clock{number}");
        let (mut vm, mut times) = stage.start(&name, stage.machine(Some(0)), What::Clock).await?;
        stage.hear(&mut vm, &mut times).await?;
        clock.extend(times.clock_ms);
        end(&mut vm).await;
        vm.destroy().await?;
    }
    Ok(vec![
        Figure::of(
            "fork: exec of the VMM -> agent's answer with identity set, Docker there",
            "ms",
            "50 ms",
            exec,
        ),
        Figure::of("fork: asked for -> the same, network and jail made too", "ms", "-", whole),
        Figure::of("fork: guest's clock behind the host's when a command tells it", "ms", "2 s", clock),
        Figure::of("job's end -> VM, disk, network and files gone", "ms", "50 ms", gone),
    ])
}

/// Compares forks with containers of the same root file system, each until its Docker answers.
pub(crate) async fn docker(stage: &Stage, samples: u32) -> Result<Vec<Figure>, Error> {
    let Some(container) = containers::measure(&stage.root()?, samples)? else { return Ok(Vec::new()) };
    let (mut there, mut asked) = (Vec::new(), Vec::new());
    for number in 0..samples {
        let name = format!("docker{number}");
        let (mut vm, mut times) = stage.start(&name, stage.machine(Some(0)), What::DockerCommand).await?;
        stage.hear(&mut vm, &mut times).await?;
        there.push(Times::between(times.started, times.identified)?);
        asked.push(Times::between(times.started, times.docker_command)?);
        end(&mut vm).await;
        vm.destroy().await?;
    }
    let (first, command) = (
        "fork: exec of the VMM -> answer, Docker there",
        "fork: exec of the VMM -> Docker has answered a command",
    );
    let (there, asked) = (Figure::of(first, "ms", "-", there), Figure::of(command, "ms", "-", asked));
    let ratio = |name, goal, figure: &Figure| Figure::of(name, ":1", goal, vec![figure.p50 / container.p50]);
    Ok(vec![
        ratio("fork with Docker there : container until Docker answers (medians)", "0.15", &there),
        ratio("fork until Docker has answered a command : the same (medians)", "-", &asked),
        there,
        asked,
        container,
    ])
}

/// Counts how many forks fit on this host. Each is stopped by SIGSTOP once it has answered.
pub(crate) async fn fit(stage: &Stage) -> Result<(Vec<Figure>, String), Error> {
    let mut machines = Vec::new();
    let reason = loop {
        if available_mib()? < RESERVE_MIB {
            break format!("memory: less than {RESERVE_MIB} MiB were left");
        }
        let name = format!("fit{}", machines.len());
        match stage.start(&name, stage.machine(Some(0)), What::Answer).await {
            Ok((vm, times)) => {
                signal(&[times.pid], Signal::STOP)?;
                machines.push(vm);
            }
            Err(error) => break error.to_string(),
        }
    };
    let count = machines.len();
    for vm in &mut machines {
        end(vm).await;
    }
    for vm in machines {
        vm.destroy().await?;
    }
    let name = "forks that fit on this host, idle and stopped";
    Ok((vec![Figure::of(name, "forks", "-", vec![count as f64])], reason))
}

fn available_mib() -> Result<u64, Error> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// Measures spares, which are forks that were created in advance.
pub(crate) async fn spares(stage: &Stage, samples: u32) -> Result<Vec<Figure>, Error> {
    let (mut cont, mut whole) = (Vec::new(), Vec::new());
    // The first machine is a fork, and causes the first spare to be created.
    for number in 0..=samples {
        let (mut vm, times) =
            stage.start(&format!("spare{number}"), stage.machine(Some(1)), What::Answer).await?;
        if number > 0 {
            cont.push(Times::between(times.started, times.identified)?);
            whole.push(Times::between(times.asked, times.identified)?);
        }
        end(&mut vm).await;
        vm.destroy().await?;
        while stage.host.spares.ready() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(vec![
        Figure::of("spare: cont -> agent's answer with identity set", "ms", "5 ms", cont),
        Figure::of("spare: asked for -> the same", "ms", "-", whole),
    ])
}

/// Measures many forks at once, and their cost while they are idle.
pub(crate) async fn many(stage: &Stage, count: usize) -> Result<Vec<Figure>, Error> {
    let begin = Instant::now();
    let starts = (0..count).map(|number| async move {
        let name = format!("many{number}");
        stage.start(&name, stage.machine(Some(0)), What::Answer).await
    });
    let started = all(starts).await;
    let at_once = begin.elapsed().as_secs_f64();
    let machines = started.into_iter().collect::<Result<Vec<_>, _>>()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pids: Vec<u32> = machines.iter().map(|(_, times)| times.pid).collect();
    let cpu = idle_cpu(&pids).await?;
    let pss = pids.iter().map(|&pid| pss_mib(pid)).collect::<Result<Vec<_>, _>>()?;
    let disk =
        (0..count).map(|number| disk_mib(stage, &format!("many{number}"))).collect::<Result<_, _>>()?;
    signal(&pids, Signal::STOP)?;
    let stopped = idle_cpu(&pids).await?;
    signal(&pids, Signal::CONT)?;
    let begin = Instant::now();
    all(machines.into_iter().map(|(mut vm, _)| async move {
        end(&mut vm).await;
        vm.destroy().await
    }))
    .await
    .into_iter()
    .collect::<Result<Vec<_>, _>>()?;
    let gone = milliseconds(begin);
    Ok(vec![
        Figure::of("20 forks at once, all answering", "s", "1.0 s", vec![at_once]),
        Figure::of("20 machines ended at once", "ms", "-", vec![gone]),
        Figure::of("memory (PSS) of an idle fork of 20", "MiB", "24 MiB", pss),
        Figure::of("CPU of an idle fork, running", "core", "0.010", cpu),
        Figure::of("CPU of an idle fork, stopped", "core", "0", stopped),
        Figure::of("disk of an idle fork", "MiB", "1 MiB", disk),
    ])
}

/// Waits for all futures concurrently, and returns their results.
async fn all<T>(work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = work.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, done) in &mut pending {
            if done.is_none()
                && let std::task::Poll::Ready(value) = one.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        if pending.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, done)| done).collect()
}

fn signal(pids: &[u32], signal: Signal) -> Result<(), Error> {
    for &pid in pids {
        let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no process")?;
        rustix::process::kill_process(pid, signal)?;
    }
    Ok(())
}

/// Returns the share of a core that each of these processes uses while it is idle.
async fn idle_cpu(pids: &[u32]) -> Result<Vec<f64>, Error> {
    let before = pids.iter().map(|&pid| seconds_of_threads(pid)).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    tokio::time::sleep(IDLE).await;
    let seconds = begin.elapsed().as_secs_f64();
    pids.iter().zip(before).map(|(&pid, before)| Ok((seconds_of_threads(pid)? - before) / seconds)).collect()
}

/// Returns the CPU time of a process in seconds, also of threads that have ended. It is a multiple of a tick, 10 ms.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64, Error> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program may have spaces and parentheses. After it, user time is the twelfth field, system time the next.
    let (_, fields) = text.rsplit_once(") ").ok_or("no name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Returns the CPU time of the threads that a process has now, in seconds. Reads `schedstat`, because ticks would be too coarse
/// for a VMM that is idle, whose threads stay.
fn seconds_of_threads(pid: u32) -> Result<f64, Error> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().unwrap_or("0").parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// Returns the memory of a process in MiB (PSS: it counts a share of memory that is shared with other processes).
pub(crate) fn pss_mib(pid: u32) -> Result<f64, Error> {
    rollup_mib(pid, "Pss:")
}

/// Returns the part of it that is no file's, in MiB. The kernel can drop and read again the pages of a program's file.
pub(crate) fn anonymous_mib(pid: u32) -> Result<f64, Error> {
    rollup_mib(pid, "Pss_Anon:")
}

fn rollup_mib(pid: u32, key: &str) -> Result<f64, Error> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)).ok_or(format!("no {key}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn disk_mib(stage: &Stage, name: &str) -> Result<f64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(stage.run_dir(name))? {
        bytes += space::on_disk(&entry?.metadata()?);
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}

/// Measures machines that are booted.
pub(crate) async fn boots(stage: &Stage, samples: u32) -> Result<Figure, Error> {
    let mut docker = Vec::new();
    for number in 0..samples {
        let (mut vm, times) =
            stage.start(&format!("boot{number}"), stage.machine(None), What::Docker).await?;
        docker.push(Times::between(times.started, times.docker)? / 1000.0);
        end(&mut vm).await;
        vm.destroy().await?;
    }
    Ok(Figure::of("cold boot: exec of the VMM -> Docker answers", "s", "8 s", docker))
}
