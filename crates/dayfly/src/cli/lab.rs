//! `dayfly lab`: the built-in forge.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use dayfly_lab::fault::{Fault, FaultSpec, Operation, parse_seconds};

use super::LabSoakArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Serve a GitHub-compatible forge on this host
    Serve(LabServeArgs),
    /// Order, list and clear failures of a lab that runs on this host
    Fault(LabFaultArgs),
    /// Run many jobs while the forge fails and processes are killed, and judge whether each job ran exactly once
    Soak(Box<LabSoakArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct LabServeArgs {
    /// Address and port to listen on; port 0 chooses a free port
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Folder of repositories, runs and logs
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Address to write into JIT configs [default: 10.0.2.2 and the port, at which machines of this host reach it]
    #[arg(long, value_name = "URL")]
    pub(crate) runner_url: Option<String>,
    /// Failure of the forge, as docs/lab.md lists them: NAME[,on=OPERATION][,probability=P|,count=N][,for=TIME][,value=N];
    /// may be given several times
    #[arg(long = "fault", value_name = "FAULT")]
    pub(crate) faults: Vec<FaultSpec>,
    /// Seed of the decisions which calls fail; the same seed and calls fail in the same way [default: a random one]
    #[arg(long, value_name = "N")]
    pub(crate) fault_seed: Option<u64>,
    /// Print JSON lines instead of text; the first one is {"event":"listening","url":..,"token":..}
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LabFaultArgs {
    /// Address of the lab, as `dayfly lab serve` prints it
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) lab: Option<String>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: LabFaultCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabFaultCommand {
    /// Make calls fail from now on
    Add(FaultAddArgs),
    /// List the failures that were ordered, and how often they have happened
    List,
    /// Clear a failure, or all of them
    Clear {
        /// Name of the failure
        #[arg(value_parser = Fault::parse)]
        name: Option<Fault>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FaultAddArgs {
    /// Name of the failure, as docs/lab.md lists them
    #[arg(value_parser = Fault::parse)]
    pub(crate) name: Fault,
    /// Operation that fails [default: each one that can fail in this way]
    #[arg(long, value_name = "OPERATION", value_parser = Operation::parse)]
    pub(crate) on: Option<Operation>,
    /// Probability that a call fails, above 0 and at most 1
    #[arg(long, value_name = "P", conflicts_with = "count")]
    pub(crate) probability: Option<f64>,
    /// Number of calls that fail, from now on
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u32>,
    /// Time after which it ends by itself, e.g. 90s, 5m, 2h [default: when it is cleared]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_seconds)]
    pub(crate) for_s: Option<u64>,
    /// Number of the failure, such as its status or its delay in seconds; docs/lab.md has the meanings
    #[arg(long, value_name = "N")]
    pub(crate) value: Option<u64>,
}
