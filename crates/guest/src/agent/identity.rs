//! Applies an identity: everything that must differ between machines that start from the same image or memory.
#![expect(unsafe_code, reason = "the random number generator is fed by ioctl, which has no safe wrapper")]

use crate::boot::personal::{self, Personal};
use dayfly_guest::protocol::Identity;
use rustix::time::{ClockId, Timespec};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

/// Fewest bytes of entropy that are accepted.
const ENTROPY_MIN: usize = 48;
const ENTROPY_MAX: usize = 512;

/// From `linux/random.h`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("{0:?} is no host name")]
    Hostname(String),
    #[error("the machine id is not 32 lower-case hexadecimal digits")]
    MachineId,
    #[error("the boot id is no UUID in lower-case hexadecimal digits")]
    BootId,
    #[error("the entropy is not {ENTROPY_MIN} to {ENTROPY_MAX} bytes")]
    Entropy,
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The files and the device that an identity is written to.
#[derive(Debug)]
pub(super) struct Identities {
    personal: Personal,
    /// The device of the kernel's random number generator. It stays open, as the files do.
    random: File,
}

impl Identities {
    pub(super) fn new(personal: Personal) -> io::Result<Self> {
        Ok(Self { personal, random: File::options().write(true).open("/dev/urandom")? })
    }

    /// Applies an identity. Clock and random number generator come first, because later steps may use them. Nothing is
    /// changed if a part is malformed.
    pub(super) fn take_on(&self, identity: &Identity) -> Result<(), IdentityError> {
        check(identity)?;
        set_clock(identity.unix_time_ns).map_err(io_error("cannot set the clock"))?;
        reseed(&self.random, &identity.entropy)
            .map_err(io_error("cannot feed the random number generator"))?;
        let Identity { hostname, machine_id, boot_id, dns, .. } = identity;
        set_hostname(hostname)?;
        let files = &self.personal;
        for (slot, content, what) in [
            (&files.hostname, format!("{hostname}\n"), "hostname"),
            (&files.hosts, personal::hosts(hostname), "hosts"),
            (&files.machine_id, format!("{machine_id}\n"), "machine-id"),
            (&files.resolv_conf, personal::resolv_conf(*dns), "resolv.conf"),
            (&files.boot_id, format!("{boot_id}\n"), "boot_id"),
        ] {
            slot.set(&content).map_err(io_error(what))?;
        }
        Ok(())
    }

    /// Removes the last identity: resets the host name and empties the files.
    pub(super) fn forget(&self) -> Result<(), IdentityError> {
        set_hostname(personal::NOBODY)?;
        self.personal.forget().map_err(io_error("cannot empty the files of the last identity"))
    }

    /// Sets the server that resolves names; `None` sets that of QEMU's user network.
    pub(super) fn set_dns(&self, dns: Option<Ipv4Addr>) -> io::Result<()> {
        self.personal.resolv_conf.set(&personal::resolv_conf(dns))
    }
}

fn set_hostname(name: &str) -> Result<(), IdentityError> {
    let set = rustix::system::sethostname(name.as_bytes());
    set.map_err(io::Error::from).map_err(io_error("cannot set the host name"))
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { what, source }
}

fn check(identity: &Identity) -> Result<(), IdentityError> {
    let Identity { hostname, machine_id, boot_id, entropy, .. } = identity;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !(1..=64).contains(&hostname.len()) || !hostname.bytes().all(is_name) {
        return Err(IdentityError::Hostname(hostname.chars().take(80).collect()));
    }
    if machine_id.len() != 32 || !machine_id.bytes().all(is_hex) {
        return Err(IdentityError::MachineId);
    }
    if boot_id.len() != 36 || !boot_id.bytes().all(|byte| is_hex(byte) || byte == b'-') {
        return Err(IdentityError::BootId);
    }
    if (ENTROPY_MIN..=ENTROPY_MAX).contains(&entropy.len()) { Ok(()) } else { Err(IdentityError::Entropy) }
}

/// Sets the wall clock.
pub(super) fn set_clock(unix_time_ns: u64) -> io::Result<()> {
    let (seconds, nanoseconds) = (unix_time_ns / 1_000_000_000, unix_time_ns % 1_000_000_000);
    let time = Timespec { tv_sec: seconds.cast_signed(), tv_nsec: nanoseconds.cast_signed() };
    Ok(rustix::time::clock_settime(ClockId::Realtime, time)?)
}

/// Adds entropy to the random number generator, and makes it reseed. Without the reseed, the added entropy does not
/// change the numbers that are read next (seen in machines restored from one memory image).
fn reseed(random: &File, entropy: &[u8]) -> io::Result<()> {
    let pool = rand_pool_info(entropy);
    // SAFETY: the descriptor is open, and `pool` is a `rand_pool_info` whose `buf_size` is the length of its rest.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, pool.as_ptr()) };
    // SAFETY: the descriptor is open, and this call takes no argument.
    if added != 0 || unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Builds a `struct rand_pool_info { int entropy_count; int buf_size; __u32 buf[]; }`, whose count is in bits.
fn rand_pool_info(entropy: &[u8]) -> Vec<u32> {
    let whole_words = entropy.as_chunks::<4>().0;
    let bytes = u32::try_from(whole_words.len() * 4).unwrap_or(0);
    let words = whole_words.iter().map(|word| u32::from_ne_bytes(*word));
    [bytes * 8, bytes].into_iter().chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            hostname: "GH-runner-2-k3V9x0q".to_owned(),
            machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
            unix_time_ns: 0,
            boot_id: "80889098-a0a8-40b8-80c8-d0d8e0e8f0f8".to_owned(),
            entropy: vec![7; 48],
            dns: None,
            shell: false,
        }
    }

    #[test]
    fn a_malformed_part_is_refused_before_anything_is_changed() {
        check(&identity()).expect("good");
        let bad_name = Identity { hostname: "a\nb".to_owned(), ..identity() };
        assert!(matches!(check(&bad_name), Err(IdentityError::Hostname(_))));
        let bad_id = Identity { machine_id: "0123".to_owned(), ..identity() };
        assert!(matches!(check(&bad_id), Err(IdentityError::MachineId)));
        let bad_id = Identity { boot_id: identity().boot_id.to_uppercase(), ..identity() };
        assert!(matches!(check(&bad_id), Err(IdentityError::BootId)));
        for length in [0, 47, 513] {
            let bad = Identity { entropy: vec![7; length], ..identity() };
            assert!(matches!(check(&bad), Err(IdentityError::Entropy)));
        }
    }

    #[test]
    fn entropy_is_laid_out_as_the_kernel_reads_it() {
        let pool = rand_pool_info(&[1, 0, 0, 0, 0, 0, 0, 1, 9]);
        assert_eq!(pool, [64, 8, u32::from_ne_bytes([1, 0, 0, 0]), u32::from_ne_bytes([0, 0, 0, 1])]);
    }
}
