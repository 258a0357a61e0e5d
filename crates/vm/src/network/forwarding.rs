//! Turns IP forwarding on this host on if it is off. It is never turned off again, because other programs may need it by
//! then.

use std::fs;
use std::io;

use super::error::step;
use super::{NetworkError, nft, rules, upkeep};

/// The switch of the calling thread's namespace.
const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
/// The links of the calling thread's namespace; `/sys/class/net` shows those of the process that mounted it.
const LINKS: &str = "/proc/thread-self/net/dev";

/// Turns forwarding on, after it has set guard rules, so that the host does not become a router for others.
pub(super) fn enable() -> Result<(), NetworkError> {
    if is_on().map_err(step("read net.ipv4.ip_forward"))? {
        return Ok(());
    }
    let links = links().map_err(step("list this host's links"))?;
    let outer: Vec<String> =
        links.into_iter().filter(|link| link != "lo" && !link.starts_with(rules::LINK_PREFIX)).collect();
    if !outer.is_empty() {
        nft::run("the guard of this host", &rules::guard(&outer))?;
        upkeep::keep_guard(&outer);
    }
    fs::write(SWITCH, "1").map_err(step("turn net.ipv4.ip_forward on"))?;
    tracing::info!(
        "turned net.ipv4.ip_forward on, which machines need to reach the internet; it stays on, and the nft table \
         dayfly-guard keeps packets from passing between the links that this host had ({})",
        outer.join(", ")
    );
    Ok(())
}

/// Returns true if this host forwards packets.
pub(super) fn is_on() -> io::Result<bool> {
    Ok(fs::read_to_string(SWITCH)?.trim() == "1")
}

/// Returns the names of the links in the calling thread's namespace.
pub(super) fn links() -> io::Result<Vec<String>> {
    let text = fs::read_to_string(LINKS)?;
    Ok(text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}
