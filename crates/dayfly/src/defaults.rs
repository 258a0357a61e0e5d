//! The defaults and bounds of what users may set, each of them once: the options of commands and the keys of the
//! configuration file both take them from here.
//!
//! Defaults that the fleet knows too (DNS server, user, group) are its own constants.

use std::time::Duration;

/// Address of the forge that the file uses if it names none.
pub(crate) const FORGE_URL: &str = "https://github.com";
/// The same forge, as the options of the shell version name it.
pub(crate) const FORGE_HOST: &str = "github.com";

/// Virtual CPUs of a machine.
pub(crate) const CPUS: u32 = 2;
/// Most virtual CPUs of a machine.
pub(crate) const CPUS_MAX: u32 = 64;
/// Memory of a machine, MiB.
pub(crate) const MEMORY_MIB: u32 = 1024;
/// Most memory of a machine, MiB.
pub(crate) const MEMORY_MIB_MAX: u32 = 1_048_576;
/// Least memory of a QEMU machine, MiB: kernel, Docker, runner app, and space for a job.
pub(crate) const QEMU_MEMORY_MIB_MIN: u32 = 512;
/// Scratch disk of a machine, GiB.
pub(crate) const DISK_GIB: u64 = 32;
/// Largest scratch disk, GiB.
pub(crate) const DISK_GIB_MAX: u64 = 4096;
/// Number of forks that are kept ready.
pub(crate) const SPARES: u32 = 0;
/// Most sizes of a pool beside its own. Each has a template and, for scale sets, a session.
pub(crate) const SIZES_MAX: usize = 16;
/// Most forks that are kept ready.
pub(crate) const SPARES_MAX: u32 = 256;

/// Age at which an image that dayfly builds is built anew.
pub(crate) const MAX_AGE: &str = "7d";

/// Prefix of the names of machines and registrations.
pub(crate) const PREFIX: &str = "GH-runner";
/// Number of runners of a pool, and of loops of an orchestrator.
pub(crate) const RUNNERS: u32 = 1;
/// Most runners of a pool, because the numbers of loops have three digits in the names of their environment directories.
pub(crate) const RUNNERS_MAX: u32 = 999;
/// Time after which an idle runner goes that no job needs, and that is above the minimum.
pub(crate) const IDLE: Duration = Duration::from_secs(600);
/// Least time after which an idle runner of a static demand goes. The next one costs a start and calls of the forge.
pub(crate) const STATIC_IDLE_MIN: Duration = Duration::from_secs(60);
/// Number of loops of a static demand that start at once.
pub(crate) const PARALLEL_START: u32 = 1;
/// Most machines that may start at once.
pub(crate) const STARTS_MAX: u32 = 64;
/// Most detailed verbosity of an entrypoint.
pub(crate) const VERBOSITY_MAX: u8 = 3;

/// Address and port of the server for webhooks.
pub(crate) const WEBHOOK_LISTEN: &str = "127.0.0.1:9440";
/// Path of a webhook's address.
pub(crate) const WEBHOOK_PATH: &str = "/webhook";
/// Most deliveries of webhooks a second. Each job has three.
pub(crate) const WEBHOOK_RATE: u32 = 100;
/// Largest limit for the deliveries of webhooks a second.
pub(crate) const WEBHOOK_RATE_MAX: u32 = 10_000;

/// Address and port of the server for the page and the metrics.
pub(crate) const WEB_LISTEN: &str = "127.0.0.1:9441";

/// Address of the collector of traces: the port of OTLP over HTTP.
pub(crate) const TRACES_ENDPOINT: &str = "http://127.0.0.1:4318";

/// The configuration file.
pub(crate) const CONFIG_FILE: &str = "/etc/dayfly/dayfly.toml";
