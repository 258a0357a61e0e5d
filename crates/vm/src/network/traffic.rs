//! The bytes that a machine has sent and received, counted by the kernel at the host's end of its link, or by its gate if it has no
//! link.

use std::path::Path;

use super::gate::ledger;
use super::record::NetworkRecord;
use super::rules::LINK_PREFIX;
use crate::machine::record::Found;

/// The kernel's links of this namespace.
const LINKS: &str = "/sys/class/net";

/// Returns the bytes that the machine of a run folder has received, and those that it has sent; none if it has no network of its
/// own.
pub(crate) fn traffic(run_dir: &Path) -> Option<(u64, u64)> {
    let Ok(Found::Record(record)) = NetworkRecord::read(run_dir) else { return None };
    match record.machine {
        Some(machine) => of_link(Path::new(LINKS), &machine.link),
        None => {
            let ledger = ledger::read(&run_dir.join(ledger::FILE_NAME)).ok()??;
            Some((ledger.received, ledger.sent))
        }
    }
}

fn of_link(links: &Path, link: &str) -> Option<(u64, u64)> {
    // A link with another name was not created by dayfly, so the record is not believed.
    if !link.starts_with(LINK_PREFIX) || link.contains('/') {
        return None;
    }
    let count = |file: &str| {
        let text = std::fs::read_to_string(links.join(link).join("statistics").join(file)).ok()?;
        text.trim().parse().ok()
    };
    // The host's end receives what the machine sends.
    Some((count("tx_bytes")?, count("rx_bytes")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_end_of_a_link_receives_what_the_machine_sends_and_no_other_link_counts() {
        let links = tempfile::tempdir().expect("a folder");
        let ours = format!("{LINK_PREFIX}abc");
        for link in [ours.as_str(), "eth0"] {
            let folder = links.path().join(link).join("statistics");
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join("rx_bytes"), "5\n").expect("written");
            std::fs::write(folder.join("tx_bytes"), "70\n").expect("written");
        }
        assert_eq!(of_link(links.path(), &ours), Some((70, 5)));
        assert_eq!(of_link(links.path(), "eth0"), None);
        assert_eq!(of_link(links.path(), &format!("{LINK_PREFIX}/../eth0")), None);
        assert_eq!(of_link(links.path(), &format!("{LINK_PREFIX}gone")), None);
    }
}
