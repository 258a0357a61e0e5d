//! The counts of the rules in a machine's namespace: bytes and packets of each destination, as `nft` lists them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::error::step;
use super::rules::{COUNTED_MAX, DENIED, RECEIVED, SENT};
use super::{NetworkError, nft};

/// The counts of a namespace's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets of the guest that were let through, by their destination.
    pub(super) sent: Vec<Counted>,
    /// Packets to the guest, by their source.
    pub(super) received: Vec<Counted>,
    /// Packets of the guest that were refused, by their destination.
    pub(super) denied: Vec<Counted>,
}

/// The count of one address and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) address: Ipv4Addr,
    /// The protocol's number (IANA).
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// Reads the counts of a namespace, in a thread that enters it and exits there. Takes about 10 ms.
pub(super) fn read(namespace: OwnedFd) -> Result<Counts, NetworkError> {
    let list = move || {
        let entered = rustix::thread::move_into_link_name_space(namespace.as_fd(), None);
        entered.map_err(step("enter the machine's namespace"))?;
        let listed = Command::new(nft::program()?)
            .args(["-j", "-n", "list", "table", "ip", "dayfly"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .map_err(step("start nft"))?;
        if !listed.status.success() {
            let reason = String::from_utf8_lossy(&listed.stderr).into_owned();
            return Err(step("list the rules' counts")(io::Error::other(reason)));
        }
        let json = serde_json::from_slice::<Value>(&listed.stdout).map_err(io::Error::from);
        json.map(|json| parse(&json)).map_err(step("read the rules' counts"))
    };
    let thread = std::thread::Builder::new().name("network".to_owned()).spawn(list);
    let panicked = |_| Err(step("list the rules' counts")(io::Error::other("its thread has panicked")));
    thread.map_err(step("start a thread"))?.join().unwrap_or_else(panicked)
}

/// Reads the JSON of `nft` (libnftables-json(5)). Elements of another form are skipped.
fn parse(json: &Value) -> Counts {
    let things = json.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let set = |name: &str| {
        let sets = things.iter().filter_map(|thing| thing.get("set"));
        let elements = sets.filter(|set| set.get("name").and_then(Value::as_str) == Some(name));
        let elements = elements.filter_map(|set| set.get("elem")?.as_array()).flatten();
        elements.filter_map(|element| counted(element.get("elem")?)).take(COUNTED_MAX).collect()
    };
    Counts { sent: set(SENT), received: set(RECEIVED), denied: set(DENIED) }
}

fn counted(element: &Value) -> Option<Counted> {
    let [address, protocol, port] = element.get("val")?.get("concat")?.as_array()?.as_slice() else {
        return None;
    };
    let count = |what| element.get("counter")?.get(what)?.as_u64();
    Some(Counted {
        address: address.as_str()?.parse().ok()?,
        protocol: u8::try_from(protocol.as_u64()?).ok()?,
        port: u16::try_from(port.as_u64()?).ok()?,
        packets: count("packets")?,
        bytes: count("bytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_nft_are_read_and_what_is_odd_is_skipped() {
        let element = |address: &str, port: Value| {
            let counter = serde_json::json!({"packets": 3, "bytes": 180});
            serde_json::json!({"elem": {"val": {"concat": [address, 6, port]}, "counter": counter}})
        };
        let good = element("192.0.2.7", 443.into());
        let odd = [element("x", 1.into()), element("192.0.2.7", 70_000.into()), "192.0.2.8".into()];
        let json = serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"set": {"name": "sent", "elem": [good.clone(), odd[0], odd[1], odd[2]]}},
            {"set": {"name": "received"}},
            {"set": {"name": "denied", "elem": vec![good; 1000]}},
        ]});
        let counts = parse(&json);
        let address = Ipv4Addr::new(192, 0, 2, 7);
        assert_eq!(counts.sent, [Counted { address, protocol: 6, port: 443, packets: 3, bytes: 180 }]);
        assert_eq!((counts.received.len(), counts.denied.len()), (0, COUNTED_MAX));
        assert_eq!(parse(&Value::Null), Counts::default());
    }
}
