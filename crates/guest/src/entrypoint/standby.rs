//! `dayfly-guest entrypoint --standby`: an entrypoint that waits to be told which runner it is for.
//!
//! The agent starts it in a machine that is to be frozen. It does all that does not depend on a runner, the runner app
//! included ([`Blocked`]), says [`READY`], and reads one line from standard input: an [`Order`]. From there on it is what it
//! would have been if it had been started with that.

use super::blocked::Blocked;
use super::options;
use super::settings::Layers;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, Read as _, Write as _};

/// What it prints once it waits.
pub(crate) const READY: &str = "standing by";

/// Asks for it, before all other options.
pub(crate) const OPTION: &str = "--standby";

/// Longest order, bytes: arguments and environment have some hundred.
const ORDER_MAX: u64 = 256 * 1024;

/// What it is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Arguments, after `entrypoint`.
    pub(crate) args: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
}

/// Waits; what was ordered, and the app that waits too. `None` where nobody will order any more.
pub(super) fn wait(args: &[String], environment: &[(String, String)]) -> Option<(Order, Option<Blocked>)> {
    super::begin();
    let blocked = options::parse(args).ok().and_then(|options| {
        let layers = Layers { file: None, options: &options, environment };
        Blocked::start(&layers).unwrap_or_else(|error| {
            // The ordinary start tells it, where it matters then.
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
