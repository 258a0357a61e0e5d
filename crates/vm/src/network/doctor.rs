//! Checks what this host's machines need for their networks.

use std::process::Command;

use super::gated::{self, Obstacle};
use super::rules::LINK_PREFIX;
use super::{forwarding, nft};
use crate::host::Check;
use crate::launch::Launcher;

/// Checks this host and changes nothing. Without root, it makes a network, and drops it.
pub(crate) fn checks(launcher: &Launcher) -> Vec<Check> {
    const NAME: &str = "network";
    if !rustix::process::geteuid().is_root() {
        return vec![of_ordinary_user(gated::obstacle(launcher))];
    }
    let Ok(program) = nft::program() else {
        let seen = format!("none of {} is there: no machine gets a network", nft::PATHS.join(", "));
        return vec![Check::missing(NAME, seen, "apt-get install nftables")];
    };
    if !std::path::Path::new("/dev/net/tun").exists() {
        return vec![Check::missing(
            NAME,
            "/dev/net/tun is not there: no machine gets a network",
            "modprobe tun",
        )];
    }
    let forwards = if forwarding::is_on().unwrap_or_default() { "on" } else { "off until the first machine" };
    let seen = format!("a namespace for each machine; net.ipv4.ip_forward is {forwards}");
    let chains = Command::new(program).args(["-j", "list", "chains"]).env_clear().output();
    let chains =
        chains.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match dropping_chain(&chains) {
        Some(chain) => {
            vec![Check::warn(NAME, format!("{seen}; {chain} drops forwarded packets"), Some(&mend()))]
        }
        None => vec![Check::ok(NAME, seen)],
    }
}

fn of_ordinary_user(obstacle: Option<Obstacle>) -> Check {
    const NAME: &str = "network";
    let Some(Obstacle { why, mend }) = obstacle else {
        return Check::ok(NAME, "not root: a namespace for each machine, whose only way out is its gate");
    };
    let seen = format!(
        "not root, and machines get no network of their own: they reach all that this host reaches, and no policy can be \
         enforced; {why}"
    );
    Check::warn(NAME, seen, Some(mend.unwrap_or("run dayfly as root")))
}

/// Returns commands that let machines through a firewall that drops forwarded packets, e.g. Docker's. A rule of dayfly
/// cannot do this, because a packet has to pass every chain.
fn mend() -> String {
    format!(
        "iptables -I FORWARD -i {LINK_PREFIX}+ -j ACCEPT && iptables -I FORWARD -o {LINK_PREFIX}+ -m conntrack \
         --ctstate ESTABLISHED,RELATED -j ACCEPT (where Docker runs, in DOCKER-USER instead of FORWARD)"
    )
}

/// Returns the first foreign chain that drops forwarded packets, from the output of `nft -j list chains`.
fn dropping_chain(json: &str) -> Option<String> {
    let listed: serde_json::Value = serde_json::from_str(json).ok()?;
    listed.get("nftables")?.as_array()?.iter().filter_map(|entry| entry.get("chain")).find_map(|chain| {
        let field = |name| chain.get(name).and_then(serde_json::Value::as_str);
        let drops = field("hook") == Some("forward")
            && field("policy") == Some("drop")
            && matches!(field("family"), Some("ip" | "inet"));
        drops.then(|| {
            let [family, table, name] =
                ["family", "table", "name"].map(|name| field(name).unwrap_or_default());
            format!("the chain {family} {table} {name}")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_is_told_what_keeps_machines_from_a_network_of_their_own() {
        let shown = |obstacle| {
            let Check { state, seen, mend, .. } = of_ordinary_user(obstacle);
            format!("{state:?}: {seen}; {mend:?}")
        };
        let obstacle = Obstacle { why: "no nft found".to_owned(), mend: Some("apt-get install nftables") };
        insta::assert_snapshot!([shown(None), shown(Some(obstacle))].join("\n"), @r#"
        Ok: not root: a namespace for each machine, whose only way out is its gate; None
        Warn: not root, and machines get no network of their own: they reach all that this host reaches, and no policy can be enforced; no nft found; Some("apt-get install nftables")
        "#);
    }

    #[test]
    fn a_firewall_that_drops_what_is_forwarded_is_seen() {
        let chains = |policy: &str| {
            format!(
                r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {{"chain": {{"family": "ip", "table": "filter",
                "name": "FORWARD", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "{policy}"}}}}]}}"#
            )
        };
        assert_eq!(dropping_chain(&chains("drop")).as_deref(), Some("the chain ip filter FORWARD"));
        assert_eq!(dropping_chain(&chains("accept")), None);
        assert_eq!(dropping_chain(""), None);
    }
}
