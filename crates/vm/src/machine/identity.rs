//! The identities of machines.

use std::net::Ipv4Addr;

use dayfly_guest::protocol::Identity;
use rand::Rng as _;

/// Creates a new identity. The current time in it is read last.
pub(crate) fn identity(hostname: &str, dns: Option<Ipv4Addr>, shell: bool) -> Identity {
    let mut entropy = vec![0; 48];
    rand::rng().fill_bytes(&mut entropy);
    Identity {
        hostname: hostname.to_owned(),
        machine_id: uuid::Uuid::new_v4().simple().to_string(),
        boot_id: uuid::Uuid::new_v4().to_string(),
        entropy,
        dns,
        shell,
        unix_time_ns: unix_time_ns(),
    }
}

/// Returns the host's wall clock, or 0 if it is before 1970.
pub(crate) fn unix_time_ns() -> u64 {
    u64::try_from(dayfly_host::clock::since_epoch().as_nanos()).unwrap_or_default()
}
