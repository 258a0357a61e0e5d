//! `dayfly-guest entrypoint --standby SECONDS`: an entrypoint that waits until it gets a runner.
//!
//! The agent starts it in a machine that will be frozen. It does everything that does not depend on a runner, including
//! the start of the runner app ([`Blocked`]), for which it has the given time, prints [`READY`], and reads one line from standard input: an [`Order`]. From
//! then on it behaves as if it had been started with the order's arguments and environment.

use super::blocked::Blocked;
use super::options;
use super::settings::Layers;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, Read as _, Write as _};
use std::time::{Duration, Instant};

/// The line that it prints once it waits.
pub(crate) const READY: &str = "standing by";

/// The option that requests standby. It comes before all other options, and the time for the runner app comes next.
pub(crate) const OPTION: &str = "--standby";

/// Largest size of an order in bytes. Arguments and environment have some hundred bytes.
const ORDER_MAX: u64 = 256 * 1024;

/// The arguments and the environment that the entrypoint runs with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Arguments, after `entrypoint`.
    pub(crate) args: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
}

/// Waits for an order, and returns it with the waiting app. Returns `None` if no valid order comes. The first argument is
/// the time for the app.
pub(super) fn wait(args: &[String], environment: &[(String, String)]) -> Option<(Order, Option<Blocked>)> {
    let (seconds, args) = args.split_first()?;
    let limit = Duration::from_secs(seconds.parse::<u16>().ok()?.into());
    super::begin();
    let blocked = options::parse(args).ok().and_then(|options| {
        let layers = Layers { file: None, options: &options, environment };
        Blocked::start(&layers, Instant::now() + limit).unwrap_or_else(|error| {
            // The agent reports this once, for the template. If it matters later, the ordinary start reports it too.
            crate::console::say(&format!("no runner app waits: {error}"));
            None
        })
    });
    let mut stdout = std::io::stdout();
    stdout.write_all(format!("{READY}\n").as_bytes()).and_then(|()| stdout.flush()).ok()?;
    let mut line = String::new();
    std::io::stdin().lock().take(ORDER_MAX).read_line(&mut line).ok()?;
    Some((serde_json::from_str(&line).ok()?, blocked))
}
