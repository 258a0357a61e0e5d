//! Computes figures from samples, and prints them.

use std::path::Path;
use std::time::Instant;

use dayfly_vm::Accel;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// A quantity that was measured several times.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: &'static str,
    unit: &'static str,
    /// The value to be reached.
    goal: &'static str,
    samples: usize,
    /// The median.
    pub(crate) p50: f64,
    p95: f64,
    max: f64,
}

impl Figure {
    /// Computes the figure from all samples.
    pub(crate) fn of(name: &'static str, unit: &'static str, goal: &'static str, mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        // The nearest rank, so that the result is a value that was measured.
        let rank = |percent: usize| {
            let index = (all.len() * percent).div_ceil(100).saturating_sub(1);
            all.get(index).copied().unwrap_or(f64::NAN)
        };
        Self { name, unit, goal, samples: all.len(), p50: rank(50), p95: rank(95), max: rank(100) }
    }
}

/// Returns the time since then, in milliseconds.
pub(crate) fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// The host of the measurement, and its load at the start.
#[derive(Debug, Serialize)]
pub(crate) struct Surroundings {
    cores: usize,
    memory_mib: u64,
    kernel: String,
    qemu: String,
    /// Accelerator of the machines: `kvm` or `tcg`.
    accel: String,
    /// Speed of one core: MiB of zeroes hashed in a second (SHA-256). Figures of two runs can be compared as far as this
    /// value is the same.
    sha256_mib_s: u64,
    load: String,
}

impl Surroundings {
    pub(crate) fn look(accel: Accel) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let kib = memory.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        let qemu = std::process::Command::new("qemu-system-x86_64").arg("--version").output();
        let qemu =
            qemu.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.unwrap_or_default() / 1024,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            qemu: qemu.lines().next().unwrap_or("no QEMU").trim_start_matches("QEMU emulator ").to_owned(),
            accel: accel.to_string(),
            sha256_mib_s: speed(),
            load: load(),
        }
    }
}

/// Returns the best of some short runs, which is the speed of the processor without competition.
fn speed() -> u64 {
    let block = vec![0; 16 << 20];
    let once = || {
        let begin = Instant::now();
        let digest = Sha256::digest(std::hint::black_box(&block));
        std::hint::black_box(digest);
        begin.elapsed()
    };
    let best = (0..5).map(|_| once()).min().unwrap_or_default();
    (16.0 / best.as_secs_f64()) as u64
}

fn load() -> String {
    let text = std::fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Prints all figures.
pub(crate) fn print(begin: &Surroundings, figures: &[Figure], json: bool) -> Result<(), Error> {
    let load_at_end = load();
    if json {
        let all = serde_json::json!({ "host": begin, "load_at_end": load_at_end, "figures": figures });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    let Surroundings { cores, memory_mib, kernel, qemu, accel, sha256_mib_s, load } = begin;
    println!(
        "{accel}; {cores} cores of {sha256_mib_s} MiB/s (SHA-256), {} GiB, Linux {kernel}, QEMU {qemu}, load {load} -> {load_at_end}\n",
        memory_mib / 1024
    );
    println!("| figure | reach | p50 | p95 | max | samples |\n| --- | --- | --- | --- | --- | --- |");
    for Figure { name, unit, goal, samples, p50, p95, max } in figures {
        let shown = |value: &f64| match value {
            value if value.abs() >= 100.0 => format!("{value:.0} {unit}"),
            value if value.abs() >= 1.0 => format!("{value:.1} {unit}"),
            value => format!("{value:.4} {unit}"),
        };
        println!("| {name} | {goal} | {} | {} | {} | {samples} |", shown(p50), shown(p95), shown(max));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_values_that_were_measured() {
        let figure = Figure::of("f", "ms", "-", (1..=20).rev().map(f64::from).collect());
        assert_eq!((figure.p50, figure.p95, figure.max, figure.samples), (10.0, 19.0, 20.0, 20));
        let one = Figure::of("f", "ms", "-", vec![7.0]);
        assert_eq!((one.p50, one.p95, one.max), (7.0, 7.0, 7.0));
    }
}
