//! Taking on an identity: all that must differ between machines that started from the same image or memory.
#![expect(unsafe_code, reason = "the random number generator is fed by ioctl, which has no safe wrapper")]

use crate::boot::personal;
use base64::Engine as _;
use dayfly_guest::protocol::Identity;
use rustix::time::{ClockId, Timespec};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Least bytes of entropy that are taken.
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
    #[error("the entropy is not base64 of {ENTROPY_MIN} to {ENTROPY_MAX} bytes")]
    Entropy,
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Clock and randomness first, since whatever comes after may use them; nothing is taken if a part is malformed.
pub(super) fn take_on(identity: &Identity) -> Result<(), IdentityError> {
    let entropy = check(identity)?;
    set_clock(identity.unix_time_ns).map_err(io_error("cannot set the clock"))?;
    // The last 16 bytes name this start of the machine, and are known to all in it.
    reseed(&entropy[..entropy.len() - 16]).map_err(io_error("cannot feed the random number generator"))?;
    let Identity { hostname, machine_id, dns, .. } = identity;
    rustix::system::sethostname(hostname.as_bytes())
        .map_err(io::Error::from)
        .map_err(io_error("cannot set the host name"))?;
    for (name, content) in [
        (personal::HOSTNAME, format!("{hostname}\n")),
        (personal::HOSTS, personal::hosts(hostname)),
        (personal::MACHINE_ID, format!("{machine_id}\n")),
        (personal::RESOLV_CONF, personal::resolv_conf(*dns)),
        (personal::BOOT_ID, format!("{}\n", uuid_of(&entropy))),
    ] {
        std::fs::write(personal::path(name), content).map_err(io_error(name))?;
    }
    Ok(())
}

/// A random UUID (RFC 9562, version 4) of the last bytes of fresh entropy, as the kernel writes its boot id.
fn uuid_of(entropy: &[u8]) -> String {
    let mut bytes: [u8; 16] = *entropy.last_chunk().unwrap_or(&[0; 16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { what, source }
}

/// Checks all parts and gives the entropy.
fn check(identity: &Identity) -> Result<Vec<u8>, IdentityError> {
    let Identity { hostname, machine_id, entropy, .. } = identity;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    if !(1..=64).contains(&hostname.len()) || !hostname.bytes().all(is_name) {
        return Err(IdentityError::Hostname(hostname.chars().take(80).collect()));
    }
    if machine_id.len() != 32 || !machine_id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(IdentityError::MachineId);
    }
    let entropy =
        base64::engine::general_purpose::STANDARD.decode(entropy).map_err(|_| IdentityError::Entropy)?;
    if (ENTROPY_MIN..=ENTROPY_MAX).contains(&entropy.len()) {
        Ok(entropy)
    } else {
        Err(IdentityError::Entropy)
    }
}

/// Sets the wall clock.
pub(super) fn set_clock(unix_time_ns: u64) -> io::Result<()> {
    let (seconds, nanoseconds) = (unix_time_ns / 1_000_000_000, unix_time_ns % 1_000_000_000);
    let time = Timespec { tv_sec: seconds.cast_signed(), tv_nsec: nanoseconds.cast_signed() };
    Ok(rustix::time::clock_settime(ClockId::Realtime, time)?)
}

/// Adding entropy alone changes nothing that is read next (seen in machines restored from one memory image):
/// the generator must be told to take it up.
fn reseed(entropy: &[u8]) -> io::Result<()> {
    let random = File::options().write(true).open("/dev/urandom")?;
    let pool = rand_pool_info(entropy);
    // SAFETY: the descriptor is open, and `pool` is a `rand_pool_info` whose `buf_size` is the length of its rest.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, pool.as_ptr()) };
    // SAFETY: the descriptor is open, and this call takes no argument.
    if added != 0 || unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `struct rand_pool_info { int entropy_count; int buf_size; __u32 buf[]; }`, the count in bits.
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
            entropy: base64::engine::general_purpose::STANDARD.encode([7; 48]),
            dns: None,
            shell: false,
        }
    }

    #[test]
    fn a_malformed_part_is_refused_before_anything_is_changed() {
        assert_eq!(check(&identity()).expect("good"), [7; 48]);
        let bad_name = Identity { hostname: "a\nb".to_owned(), ..identity() };
        assert!(matches!(check(&bad_name), Err(IdentityError::Hostname(_))));
        let bad_id = Identity { machine_id: "0123".to_owned(), ..identity() };
        assert!(matches!(check(&bad_id), Err(IdentityError::MachineId)));
        for entropy in ["%", "AAAA", ""] {
            let bad = Identity { entropy: entropy.to_owned(), ..identity() };
            assert!(matches!(check(&bad), Err(IdentityError::Entropy)));
        }
    }

    #[test]
    fn a_boot_id_looks_like_the_kernels() {
        let entropy: Vec<u8> = (0..32).map(|byte| byte * 8).collect();
        assert_eq!(uuid_of(&entropy), "80889098-a0a8-40b8-80c8-d0d8e0e8f0f8");
    }

    #[test]
    fn entropy_is_laid_out_as_the_kernel_reads_it() {
        let pool = rand_pool_info(&[1, 0, 0, 0, 0, 0, 0, 1, 9]);
        assert_eq!(pool, [64, 8, u32::from_ne_bytes([1, 0, 0, 0]), u32::from_ne_bytes([0, 0, 0, 1])]);
    }
}
