//! Remembers which names have led a machine to which addresses. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Most pairs of a name and an address. A further one takes the place of the one that ends first.
const PAIRS_MAX: usize = 4096;
/// Shortest and longest time for which an address is remembered. The time of its record is often seconds, but programs use an
/// address for longer: they look a name up once, and connect again and again.
const KEPT_MIN: Duration = Duration::from_secs(10 * 60);
const KEPT_MAX: Duration = Duration::from_secs(2 * 3600);

/// The addresses that listed names have had of late.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    ends: HashMap<(Ipv4Addr, String), Instant>,
}

impl Resolved {
    /// Remembers the addresses of a name, for as long as the record says, within bounds.
    pub(super) fn insert(&mut self, name: &str, addresses: &[IpAddr], lifetime: Duration, now: Instant) {
        let end = now + lifetime.clamp(KEPT_MIN, KEPT_MAX);
        for address in addresses {
            let IpAddr::V4(address) = address.to_canonical() else { continue };
            let pair = (address, name.to_ascii_lowercase());
            if self.ends.len() >= PAIRS_MAX && !self.ends.contains_key(&pair) {
                self.make_room(now);
            }
            self.ends.insert(pair, end);
        }
    }

    /// Returns the names that have led to the address of late.
    pub(super) fn names(&self, address: Ipv4Addr, now: Instant) -> impl Iterator<Item = &str> {
        let of_address = self.ends.iter().filter(move |((own, _), end)| *own == address && now < **end);
        of_address.map(|((_, name), _)| name.as_str())
    }

    fn make_room(&mut self, now: Instant) {
        self.ends.retain(|_, end| now < *end);
        if self.ends.len() >= PAIRS_MAX {
            let first = self.ends.iter().min_by_key(|(_, end)| **end).map(|(pair, _)| pair.clone());
            first.and_then(|pair| self.ends.remove(&pair));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

    fn has(resolved: &Resolved, name: &str, address: Ipv4Addr, now: Instant) -> bool {
        resolved.names(address, now).any(|found| found == name)
    }

    #[test]
    fn an_address_is_remembered_for_the_time_of_its_record_within_bounds() {
        let start = Instant::now();
        for (lifetime_s, kept_s) in [(0, 600), (1000, 1000), (1 << 31, 7200)] {
            let mut resolved = Resolved::default();
            resolved.insert("Www.example", &[ADDRESS.into()], Duration::from_secs(lifetime_s), start);
            let at = |seconds| start + Duration::from_secs(seconds);
            assert!(has(&resolved, "www.example", ADDRESS, at(kept_s - 1)), "{lifetime_s}");
            assert!(!has(&resolved, "www.example", ADDRESS, at(kept_s)), "{lifetime_s}");
            assert!(!has(&resolved, "www.example", Ipv4Addr::LOCALHOST, start));
            assert_eq!(resolved.names(ADDRESS, at(1)).collect::<Vec<_>>(), ["www.example"]);
            assert_eq!(resolved.names(ADDRESS, at(kept_s)).count(), 0);
        }
    }

    #[test]
    fn a_machine_that_resolves_without_end_takes_no_memory_without_end() {
        let start = Instant::now();
        let mut resolved = Resolved::default();
        for number in 0..PAIRS_MAX + 100 {
            let now = start + Duration::from_millis(number as u64);
            resolved.insert(&format!("{number}.example"), &[ADDRESS.into()], Duration::ZERO, now);
        }
        assert_eq!(resolved.ends.len(), PAIRS_MAX);
        let now = start + Duration::from_secs(10);
        assert!(!has(&resolved, "0.example", ADDRESS, now), "the oldest goes");
        assert!(has(&resolved, &format!("{}.example", PAIRS_MAX + 99), ADDRESS, now));
    }
}
