//! `dayfly exec`, `dayfly shell` and `dayfly cp`: programs in the machine of a runner, beside its job.

use clap::Args;

use super::{names, parse_assignment};

/// The user of a program in a machine, and its surroundings.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    /// User in the machine [default: root]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Folder in the machine that it starts in [default: the home of the user]
    #[arg(short = 'w', long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Variable of the program; may be given several times
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = parse_assignment)]
    pub(crate) env: Vec<(String, String)>,
}

/// Arguments of `dayfly exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: that of the program, 128 + N if signal N killed it; 2 and 3 may also be dayfly's own.\n\n\
    Only root and the user that dayfly runs as can use it, and each use is in the log of the runner (`dayfly logs RUNNER`)."
)]
pub(crate) struct ExecArgs {
    /// Id (e.g. 2-k3V9x0q) or name of the runner
    #[arg(value_name = "RUNNER", add = names::runners())]
    pub(crate) id: String,
    /// Give the program a terminal of the size of this one; the keys Enter ~ . then end the session
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// Program and its arguments, after --
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub(crate) command: Vec<String>,
}

/// Arguments of `dayfly shell`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: that of the shell; 2 and 3 may also be dayfly's own.\n\n\
    The keys Enter ~ . end the session, also if the machine hangs. Only root and the user that dayfly runs as can use it, and \
    each use is in the log of the runner (`dayfly logs RUNNER`).")]
pub(crate) struct ShellArgs {
    /// Id (e.g. 2-k3V9x0q) or name of the runner
    #[arg(value_name = "RUNNER", add = names::runners())]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

/// Arguments of `dayfly cp`.
#[derive(Debug, Args)]
#[command(
    after_help = "Only the content of one file is copied. A whole folder: dayfly exec RUNNER -- tar -C DIR -cf - . >folder.tar"
)]
pub(crate) struct CpArgs {
    /// File to copy: a path here, RUNNER:PATH, or - for standard input
    #[arg(value_name = "FROM", add = names::runners())]
    pub(crate) from: String,
    /// The copy: a path here, RUNNER:PATH, or - for standard output; a folder here gets a file of the same name
    #[arg(value_name = "TO", add = names::runners())]
    pub(crate) to: String,
    /// User in the machine who reads or writes there [default: root]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

/// Arguments of `dayfly thaw`.
#[derive(Debug, Args)]
#[command(
    after_help = "The pool's keep_failed says how long machines are kept. Each thaw begins with the moment at which the job had \
    failed: what is changed in the machine is gone when the session ends. The machine has no registration, and no network without \
    --network."
)]
pub(crate) struct ThawArgs {
    /// Id (e.g. 2-k3V9x0q) or name of the runner [default: list the machines that are kept]
    #[arg(value_name = "RUNNER", add = names::kept())]
    pub(crate) id: Option<String>,
    /// Remove the kept machine at the end
    #[arg(long, requires = "id")]
    pub(crate) rm: bool,
    /// Remove the kept machine without bringing it back
    #[arg(long, requires = "id", conflicts_with_all = ["rm", "network", "command"])]
    pub(crate) discard: bool,
    /// Connect the machine to what the machines of its pool reach, besides the forge
    #[arg(long, requires = "id")]
    pub(crate) network: bool,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// Print the list as JSON
    #[arg(long, conflicts_with = "id")]
    pub(crate) json: bool,
    /// Program and its arguments, after --, in place of a shell
    #[arg(value_name = "COMMAND", last = true, requires = "id")]
    pub(crate) command: Vec<String>,
}
