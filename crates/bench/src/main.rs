//! Measures what dayfly's machines cost on this host (`make bench`).
//!
//! Everything is measured in one run, and the host's load is printed with it. Because hosts are shared and noisy, a figure
//! means little without the others of its run. The bench judges nothing; `BENCHMARKS.md` lists the figures of a quiet host.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measured")]

mod containers;
mod demand;
mod eyes;
mod figures;
mod history;
mod images;
mod jobs;
mod machines;
mod measure;
mod official;
mod take_over;
mod walls;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use figures::{Figure, Surroundings};
use machines::Stage;

/// Measures what dayfly's machines cost on this host.
#[derive(Debug, Parser)]
struct Args {
    /// Only the groups whose name holds this: template, fork, spare, many, boot, docker, job, busy, waiting, demand-listeners, demand-throughput, demand-waiting, demand-burst, take-over, eyes, history, official, images, walls, fit
    #[arg(long, default_value = "")]
    only: String,
    /// How often each is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    samples: u32,
    /// How large the layers of the group `images` are, compressed, MiB
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    image_mib: u64,
    /// State folder with an image
    #[arg(long, env = "DAYFLY_STATE")]
    state: PathBuf,
    /// Id of the image
    #[arg(long, env = "DAYFLY_TEST_IMAGE")]
    image: String,
    /// Archive of the official runner app (actions-runner-linux-x64-*.tar.gz), measured in the group `official` too
    #[arg(long, env = "ACTIONS_RUNNER")]
    actions_runner: Option<PathBuf>,
    /// GitHub's client for scale sets (`scripts/peers scale-set`), measured in the group `demand-listeners` too
    #[arg(long, env = "DAYFLY_TEST_SCALE_SET_PEER")]
    scale_set_peer: Option<PathBuf>,
    /// The program; the guest binary is beside it
    #[arg(long, env = "DAYFLY_BINARY")]
    binary: PathBuf,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    if let Some(ended) = walls::bare::role() {
        return ended;
    }
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure_all(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The reason why something could not be measured.
type Error = Box<dyn std::error::Error + Send + Sync>;

async fn measure_all(args: &Args) -> Result<(), Error> {
    // Each machine takes some descriptors of this process.
    dayfly_host::descriptors::raise_limit()?;
    let stage = Stage::new(&args.state, &args.binary, &args.image)?;
    let begin = Surroundings::look(stage.accel().await?);
    let mut figures: Vec<Figure> = Vec::new();
    let wants = |name: &str| {
        let wanted = name.contains(&args.only);
        if wanted {
            eprintln!("bench: {name}");
        }
        wanted
    };
    if wants("template") {
        figures.push(measure::template(&stage).await?);
    }
    if wants("images") {
        figures.extend(images::measure(&args.state, &args.binary, args.image_mib, args.samples.div_ceil(2))?);
        figures.extend(images::compressions(&stage, &args.state, args.samples.div_ceil(4)).await?);
    }
    if wants("history") {
        figures.extend(history::measure(args.samples)?);
    }
    if wants("eyes") {
        figures.extend(eyes::measure(&args.binary, args.samples).await?);
    }
    // These groups need no template.
    if ["eyes", "history", "images"].contains(&args.only.as_str()) {
        return figures::print(&begin, &figures, args.json);
    }
    // The runners of these groups are processes, and the burst of machines builds its own template.
    for group in demand::Group::ALL {
        if wants(group.name()) {
            figures.extend(group.measure(args.scale_set_peer.as_deref(), args.samples).await?);
        }
    }
    if wants("take-over") {
        figures.extend(take_over::measure().await?);
    }
    if args.only.starts_with("demand") || args.only == "take-over" {
        return figures::print(&begin, &figures, args.json);
    }
    // The group `official` has an image and a template of its own.
    if "official" != args.only {
        stage.prepare().await?;
    }
    if wants("fork") {
        figures.extend(measure::forks(&stage, args.samples).await?);
    }
    if wants("spare") {
        figures.extend(measure::spares(&stage, args.samples).await?);
    }
    if wants("many") {
        figures.extend(measure::many(&stage, 20).await?);
    }
    if wants("boot") {
        figures.push(measure::boots(&stage, args.samples.div_ceil(4)).await?);
    }
    if wants("docker") {
        figures.extend(measure::docker(&stage, args.samples.div_ceil(2)).await?);
    }
    if wants("job") {
        figures.extend(jobs::measure(&args.state, &args.binary, args.samples)?);
    }
    if wants("busy") {
        figures.extend(workload::measure(&args.state, &args.binary, args.samples.div_ceil(4))?);
    }
    if wants("waiting") {
        figures.extend(jobs::waiting(args.samples.div_ceil(2)).await?);
    }
    if wants("walls") {
        figures.extend(walls::measure(args).await?);
    }
    if wants("official") {
        let samples = args.samples.div_ceil(4);
        for app in official::App::all(args.actions_runner.as_deref()) {
            figures.extend(official::measure(&app, &stage, &args.state, &args.binary, samples).await?);
        }
    }
    if wants("fit") {
        let (fitted, reason) = measure::fit(&stage).await?;
        eprintln!("bench: no more forks fit: {reason}");
        figures.extend(fitted);
    }
    figures::print(&begin, &figures, args.json)
}
