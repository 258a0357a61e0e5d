//! Finds out what really boots on this host, and how fast.
//!
//! `/dev/kvm` can open and answer its version, and still boot no stock kernel (seen on hosts that are virtual machines
//! themselves: the guest hangs right after its decompressor). QEMU can be installed with a firmware that does not find the
//! kernel. So both are tried with a probe guest: the image's kernel and the guest binary, no disks. The result is
//! remembered for this kernel, this QEMU with its firmware, and this processor.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use dayfly_guest::protocol::{self, GuestMessage, HostMessage};

use super::firmware::Firmware;
use super::platform::{Platform, load_factor};
pub use super::sightings::Trust;
use super::sightings::{SIGHTINGS, Sighting, key, read, remember};
use super::{cpu_model, plan, tsc};
use crate::accel::{Accel, AccelChoice};
use crate::cgroup::GroupSize;
use crate::machine::spawn::{Outputs, Recipe, Vmm};
use crate::machine::{Exit, LeftoverError, StartError, record};
use crate::network::Connection;
use crate::spec::QemuSettings;
use crate::vm_host::VmHost;
use crate::vmm::{Boot, VmmFiles, VmmNeeds, kvm};
use dayfly_host::clock::now_s;
use dayfly_image::Image;

/// Longest time that a probe guest may take on a quiet host. A real processor needs well under a second with KVM, and 2.5 s
/// under emulation; a nested host takes many times as long.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// Memory of a probe guest, MiB.
const PROBE_MEMORY_MIB: u32 = 256;

/// The accelerator to use on this host, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccelReport {
    /// The accelerator.
    pub accel: Accel,
    /// The observation, in words for people.
    pub seen: String,
    /// True if a guest has booted with it. If not, the image's kernel or the guest binary is the cause, not this host.
    pub boots: bool,
    /// A known drawback of the requested processor model, in words for people.
    pub warning: Option<String>,
}

/// The result of booting a probe guest.
enum GuestBoot {
    /// It said hello after this time.
    Hello { took: Duration },
    /// It did not say hello.
    NoHello {
        /// The reason.
        reason: String,
        /// True if no guest could say hello on this host.
        of_host: bool,
    },
}

/// The result of booting a guest with KVM.
pub(crate) enum KvmBoot {
    /// It boots on this platform.
    Boots(Platform),
    /// It does not.
    Fails {
        /// The reason.
        reason: String,
    },
}

/// The parts of a probe guest.
#[derive(Debug, Clone, Copy)]
pub struct ProbeGuest<'a> {
    /// The image whose kernel it boots.
    pub image: &'a Image,
    /// The guest binary.
    pub guest_binary: &'a Path,
    /// Its processor model if it is emulated; none means the usual one.
    pub cpu_model: Option<&'a str>,
}

/// A question about this host: does a guest boot with this accelerator?
struct Probe<'a> {
    host: &'a VmHost,
    qemu: PathBuf,
    accel: Accel,
    guest: ProbeGuest<'a>,
}

/// Resolves the platform of a machine. Emulation is not probed here, because the machine itself shows whether it works.
pub(crate) async fn resolve(
    host: &VmHost,
    settings: &QemuSettings,
    guest_binary: &Path,
) -> Result<Platform, StartError> {
    let (image, cpu_model) = (&settings.image, settings.cpu_model.as_deref());
    let probe = |accel| Probe::of(host, accel, ProbeGuest { image, guest_binary, cpu_model });
    match settings.accel {
        AccelChoice::Tcg => Ok(probe(Accel::Tcg)?.platform_as_known()),
        AccelChoice::Kvm => match probe_kvm(&probe(Accel::Kvm)?, Trust::Remembered).await? {
            KvmBoot::Boots(platform) => Ok(platform),
            KvmBoot::Fails { reason } => Err(StartError::NoKvm { reason }),
        },
        AccelChoice::Auto => match probe_kvm(&probe(Accel::Kvm)?, Trust::Remembered).await? {
            KvmBoot::Boots(platform) => Ok(platform),
            KvmBoot::Fails { .. } => Ok(probe(Accel::Tcg)?.platform_as_known()),
        },
    }
}

/// Finds out which accelerator machines use on this host, from a stored result or by booting a probe guest.
///
/// # Errors
/// QEMU is missing, the image or the guest binary cannot be read, KVM was requested and does not boot a guest, or QEMU boots
/// no guest at all.
pub async fn answer(
    host: &VmHost,
    choice: AccelChoice,
    guest: ProbeGuest<'_>,
    trust: Trust,
) -> Result<AccelReport, StartError> {
    let probe = |accel| Probe::of(host, accel, guest);
    let why_no_kvm = match choice {
        AccelChoice::Tcg => None,
        AccelChoice::Kvm | AccelChoice::Auto => match probe_kvm(&probe(Accel::Kvm)?, trust).await? {
            KvmBoot::Boots(_) => {
                let seen = "a probe guest booted with KVM".to_owned();
                return Ok(AccelReport { accel: Accel::Kvm, seen, boots: true, warning: None });
            }
            KvmBoot::Fails { reason } if choice == AccelChoice::Kvm => {
                return Err(StartError::NoKvm { reason });
            }
            KvmBoot::Fails { reason } => Some(reason),
        },
    };
    let emulated = probe(Accel::Tcg)?.look(Trust::Success).await?;
    let boots = emulated.hello_ms.is_some();
    if !boots && emulated.of_host {
        return Err(StartError::NoGuestBoots { reason: emulated.seen, kvm: why_no_kvm });
    }
    // If the image is of no use, its own machine or `image check` reports that.
    let seen = why_no_kvm.filter(|_| boots).unwrap_or(emulated.seen);
    Ok(AccelReport { accel: Accel::Tcg, seen, boots, warning: warning(host, guest.cpu_model).await? })
}

/// Returns true if [`answer`] returns without booting anything, so that no progress needs to be shown.
#[must_use]
pub fn is_known(host: &VmHost, choice: AccelChoice, guest: ProbeGuest<'_>, trust: Trust) -> bool {
    let known = |accel, trust| Probe::of(host, accel, guest).ok()?.believed(trust);
    let emulation = || known(Accel::Tcg, Trust::Success).is_some();
    let insists = choice == AccelChoice::Kvm;
    match (choice, kvm::usable()) {
        (AccelChoice::Tcg, _) => emulation(),
        (AccelChoice::Kvm | AccelChoice::Auto, Err(_)) => insists || emulation(),
        (AccelChoice::Kvm | AccelChoice::Auto, Ok(())) => match known(Accel::Kvm, trust) {
            Some(sighting) => sighting.hello_ms.is_some() || insists || emulation(),
            None => false,
        },
    }
}

/// Returns a known drawback of an emulated model that the user has chosen.
async fn warning(host: &VmHost, cpu_model: Option<&str>) -> Result<Option<String>, StartError> {
    let (Some(model), qemu) = (cpu_model.map(str::to_owned), host.qemu()?) else { return Ok(None) };
    let path = qemu.clone();
    let asked = tokio::task::spawn_blocking(move || cpu_model::consequence(&qemu, &model)).await;
    asked.map_err(std::io::Error::other).flatten().map_err(io_error("ask", &path))
}

/// Finds out whether a guest boots with KVM.
pub(crate) async fn kvm(host: &VmHost, guest: ProbeGuest<'_>, trust: Trust) -> Result<KvmBoot, StartError> {
    probe_kvm(&Probe::of(host, Accel::Kvm, guest)?, trust).await
}

async fn probe_kvm(probe: &Probe<'_>, trust: Trust) -> Result<KvmBoot, StartError> {
    if let Err(unusable) = kvm::usable() {
        // Not stored, because it is cheap to check and may change at any time.
        return Ok(KvmBoot::Fails { reason: unusable.to_string() });
    }
    let sighting = probe.look(trust).await?;
    Ok(match sighting.hello_ms {
        Some(_) => KvmBoot::Boots(probe.platform(sighting.firmware.clone()).on_host_of(sighting.hello_ms)),
        None => KvmBoot::Fails { reason: sighting.seen },
    })
}

/// Returns whether a guest is known to boot with KVM, without booting anything; none if that is not known. A failure is
/// believed for a day.
pub(crate) fn remembered_kvm(host: &VmHost) -> Option<Result<(), String>> {
    let key = key(&host.qemu().ok()?, Accel::Kvm, None).ok()?;
    let sighting = read(&host.state.join(SIGHTINGS)).remove(&key)?;
    let sighting = Some(sighting).filter(|sighting| sighting.is_believed(Trust::Remembered, now_s()))?;
    Some(if sighting.hello_ms.is_some() { Ok(()) } else { Err(sighting.seen) })
}

impl<'a> Probe<'a> {
    fn of(host: &'a VmHost, accel: Accel, guest: ProbeGuest<'a>) -> Result<Self, StartError> {
        Ok(Self { host, qemu: host.qemu()?, accel, guest })
    }

    fn key(&self) -> std::io::Result<String> {
        key(&self.qemu, self.accel, self.guest.cpu_model)
    }

    fn platform(&self, firmware: Firmware) -> Platform {
        Platform::of(self.qemu.clone(), firmware, self.accel, self.guest.cpu_model)
    }

    /// Returns the platform as far as it is known. If there is no stored result, the host counts as an ordinary one.
    fn platform_as_known(&self) -> Platform {
        match self.remembered() {
            Some(sighting) => self.platform(sighting.firmware).on_host_of(sighting.hello_ms),
            None => {
                let first = Firmware::candidates(&self.qemu).into_iter().next();
                self.platform(first.unwrap_or(Firmware::Default))
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.host.state.join(SIGHTINGS)
    }

    fn remembered(&self) -> Option<Sighting> {
        let key = self.key().ok()?;
        read(&self.path()).remove(&key)
    }

    fn believed(&self, trust: Trust) -> Option<Sighting> {
        self.remembered().filter(|sighting| sighting.is_believed(trust, now_s()))
    }

    /// Returns the remembered sighting, or boots a probe guest now.
    async fn look(&self, trust: Trust) -> Result<Sighting, StartError> {
        if let Some(sighting) = self.believed(trust) {
            return Ok(sighting);
        }
        let _one_at_a_time = self.host.probing.lock().await;
        // Another task may have finished a probe meanwhile.
        if let Some(sighting) = self.believed(trust) {
            return Ok(sighting);
        }
        let sighting = self.boot().await?;
        if sighting.hello_ms.is_none() && !self.is_proven_to_fail(&sighting).await? {
            return Ok(sighting);
        }
        self.remember(&sighting)?;
        Ok(sighting)
    }

    /// Returns true if a failure is due to this host rather than the image, because the same guest boots under emulation.
    async fn is_proven_to_fail(&self, failure: &Sighting) -> Result<bool, StartError> {
        if self.accel == Accel::Tcg {
            return Ok(false);
        }
        let emulated = Self { accel: Accel::Tcg, qemu: self.qemu.clone(), ..*self };
        if emulated.believed(Trust::Success).is_some() && failure.of_host {
            return Ok(true);
        }
        let sighting = emulated.boot().await?;
        if sighting.hello_ms.is_some() {
            emulated.remember(&sighting)?;
        }
        Ok(sighting.hello_ms.is_some())
    }

    fn remember(&self, sighting: &Sighting) -> Result<(), StartError> {
        remember(&self.path(), self.key().map_err(io_error("read", &self.qemu))?, sighting);
        Ok(())
    }

    /// Boots a probe guest, from the first firmware that finds its kernel.
    async fn boot(&self) -> Result<Sighting, StartError> {
        let (mut failures, mut of_host): (Vec<String>, bool) = (Vec::new(), true);
        let mut last = Firmware::Default;
        for firmware in Firmware::candidates(&self.qemu) {
            last = firmware.clone();
            match self.boot_from(firmware.clone()).await? {
                GuestBoot::Hello { took } => {
                    let hello_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    let seen = format!("a probe guest said hello after {:.1} s", took.as_secs_f32());
                    return Ok(Sighting {
                        firmware,
                        hello_ms: Some(hello_ms),
                        seen,
                        of_host: false,
                        at_s: now_s(),
                    });
                }
                GuestBoot::NoHello { reason, of_host: is_of_host } => {
                    of_host &= is_of_host;
                    if !failures.contains(&reason) {
                        failures.push(reason);
                    }
                }
            }
        }
        let with = match self.accel {
            Accel::Kvm => "/dev/kvm opens, but a probe guest did not boot",
            Accel::Tcg => "a probe guest did not boot under emulation",
        };
        let seen = format!("{with}: {}", failures.join("; then "));
        Ok(Sighting { firmware: last, hello_ms: None, seen, of_host, at_s: now_s() })
    }

    /// Boots a probe guest from one firmware.
    async fn boot_from(&self, firmware: Firmware) -> Result<GuestBoot, StartError> {
        let run_dir = self.host.state.join(format!("{FOLDER}{}", uuid::Uuid::new_v4().simple()));
        let _lock = ProbeFolder::create(&run_dir).map_err(io_error("make the folder", &run_dir))?;
        let platform = self.platform(firmware);
        let limit = PROBE_LIMIT.mul_f64(load_factor());
        let result = match self.recipe(&platform, &run_dir) {
            Ok(recipe) => greet(Arc::new(recipe), limit).await,
            Err(error) => Err(error),
        };
        let destroyed = record::destroy_leftover(&run_dir).await;
        destroyed.map_err(|error| io_error("end", &run_dir)(std::io::Error::other(error)))?;
        fs::remove_dir_all(&run_dir).map_err(io_error("remove", &run_dir))?;
        result
    }

    fn recipe(&self, platform: &Platform, run_dir: &Path) -> Result<Recipe, StartError> {
        let needs = VmmNeeds {
            platform,
            name: "probe",
            tsc_khz: tsc::frequency_khz(),
            cpus: 1,
            memory_mib: PROBE_MEMORY_MIB,
            boot: Boot::Probe,
        };
        Ok(Recipe {
            command: plan::plan(&needs),
            launcher: self.host.launcher.clone(),
            accel: self.accel,
            cgroups: self.host.cgroups.clone(),
            size: GroupSize { memory_mib: PROBE_MEMORY_MIB, cpus: 1, accel: self.accel, shares: 0 },
            name: "probe".to_owned(),
            run_dir: run_dir.to_owned(),
            connection: Arc::new(Connection::Shut),
            shares: None,
            forward: None,
            files: platform.with_firmware(VmmFiles::to_boot(self.guest.image, self.guest.guest_binary)?)?,
        })
    }
}

/// Beginning of the names of the folders of probe guests, under the state folder.
const FOLDER: &str = "probe-";
/// File in such a folder that is locked as long as the process lives that probes.
const LOCK: &str = "lock";
/// Longest time between the creation of a folder and of the lock in it.
const STARTING_MAX: Duration = Duration::from_secs(60);

/// The lock of a probe guest's folder.
struct ProbeFolder(#[expect(dead_code, reason = "held, not read")] File);

impl ProbeFolder {
    fn create(run_dir: &Path) -> std::io::Result<Self> {
        dayfly_host::stage::make_folder(run_dir).map_err(std::io::Error::other)?;
        let lock = File::options().write(true).create(true).truncate(false).open(run_dir.join(LOCK))?;
        lock.try_lock()?;
        Ok(Self(lock))
    }
}

/// Stops the probe guests of processes that were killed, and removes their folders.
///
/// # Errors
/// A folder cannot be read or removed, or a guest does not end.
pub async fn sweep_probes(state: &Path) -> Result<(), LeftoverError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| LeftoverError::Io { what, path, source }
    };
    let entries = match fs::read_dir(state) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed("read", state))?,
    };
    for entry in entries {
        let entry = entry.map_err(failed("read", state))?;
        if entry.file_name().to_string_lossy().starts_with(FOLDER) && is_left(&entry.path()) {
            let run_dir = entry.path();
            record::destroy_leftover(&run_dir).await?;
            fs::remove_dir_all(&run_dir).map_err(failed("remove", &run_dir))?;
        }
    }
    Ok(())
}

/// Returns true if the process that probes in this folder has exited.
fn is_left(run_dir: &Path) -> bool {
    match File::open(run_dir.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(_) => {
            let changed = fs::metadata(run_dir).and_then(|metadata| metadata.modified());
            changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > STARTING_MAX))
        }
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Io { what, path, source }
}

/// Starts a guest and waits for its hello.
///
/// # Errors
/// This host has run out of something that the guest needs, which says nothing about the accelerator.
async fn greet(recipe: Arc<Recipe>, limit: Duration) -> Result<GuestBoot, StartError> {
    let (outputs, began) = (Outputs::new(), Instant::now());
    let spawned = recipe.spawn(&outputs, &Arc::new(AtomicBool::new(false))).await;
    let mut vmm = match spawned {
        Ok(vmm) => vmm,
        Err(error) => return not_started(error.into()),
    };
    Ok(match tokio::time::timeout(limit, hello(&mut vmm, &outputs)).await {
        Ok(Some(())) => GuestBoot::Hello { took: began.elapsed() },
        Ok(None) => {
            let ended = vmm.why_ended(&outputs).await;
            if let Exit::OutOfMemory(_) = ended.exit {
                return Err(StartError::KilledForMemory { exit: ended.words });
            }
            // The guest itself causes all other exits.
            let of_host = matches!(
                ended.exit,
                Exit::NoBootDevice | Exit::Failed { .. } | Exit::Signalled { .. } | Exit::Unobserved { .. }
            );
            GuestBoot::NoHello { reason: ended.words, of_host }
        }
        Err(_) => {
            let (seconds, last) = (limit.as_secs(), outputs.last_line());
            let reason = format!("no hello within {seconds} s (its last words: {last})");
            GuestBoot::NoHello { reason, of_host: false }
        }
    })
}

/// Returns the result of a guest whose VMM could not be started.
fn not_started(error: StartError) -> Result<GuestBoot, StartError> {
    match error.scarcity() {
        Some(_) => Err(error),
        None => Ok(GuestBoot::NoHello { reason: error.to_string(), of_host: true }),
    }
}

/// Waits for the hello; none if the guest can no longer say hello.
async fn hello(vmm: &mut Vmm, outputs: &Outputs) -> Option<()> {
    let link = vmm.link.as_mut()?;
    link.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 1, lines_seen: 0 }).ok()?;
    loop {
        tokio::select! {
            message = link.next() => match message {
                Ok(GuestMessage::Hello { .. }) => return Some(()),
                Ok(_) => {}
                Err(_) => return None,
            },
            () = outputs.console.no_boot_device() => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sightings::{FAILURE_KEPT_S, remember};
    use super::*;

    #[tokio::test]
    async fn a_probe_guest_of_a_killed_process_is_ended_and_one_of_a_living_process_is_not() {
        use crate::machine::record::MachineRecord;
        let state = tempfile::tempdir().expect("folder");
        let [left, used, new] = ["a", "b", "c"].map(|name| state.path().join(format!("{FOLDER}{name}")));
        drop(ProbeFolder::create(&left).expect("folder"));
        let _lock = ProbeFolder::create(&used).expect("folder");
        fs::create_dir(&new).expect("folder");
        let mut guest = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        MachineRecord::of_process(guest.id(), "probe")
            .and_then(|record| record.write(&left))
            .expect("record");
        sweep_probes(state.path()).await.expect("swept");
        assert!(guest.wait().expect("ended").code().is_none(), "it was killed");
        assert!(!left.exists() && used.exists() && new.exists());
    }

    #[test]
    fn a_host_that_has_run_out_of_something_is_not_remembered_as_one_that_boots_no_guest() {
        let of = |number| {
            let source = std::io::Error::from_raw_os_error(number);
            not_started(crate::LaunchError::Spawn { program: "/x".into(), source }.into())
        };
        for number in [libc::ENOMEM, libc::EAGAIN, libc::EMFILE, libc::ENFILE, libc::ENOSPC] {
            assert!(of(number).is_err(), "{number}");
        }
        assert!(matches!(of(libc::ENOENT), Ok(GuestBoot::NoHello { of_host: true, .. })));
    }

    #[test]
    fn an_old_failure_with_kvm_is_not_known_without_a_probe_guest() {
        let folder = tempfile::tempdir().expect("folder");
        let qemu = folder.path().join("qemu");
        fs::write(&qemu, "x").expect("a program");
        let launcher = crate::Launcher { program: "/x".into(), args: Vec::new() };
        let mut host = VmHost::new(folder.path().to_owned(), launcher);
        host.qemu = Some(qemu.clone());
        let remembered = |at_s| {
            let sighting = Sighting {
                firmware: Firmware::Default,
                hello_ms: None,
                seen: "it hung".to_owned(),
                of_host: true,
                at_s,
            };
            let key = key(&qemu, Accel::Kvm, None).expect("a key");
            remember(&folder.path().join(SIGHTINGS), key, &sighting);
            remembered_kvm(&host)
        };
        assert_eq!(remembered(now_s()), Some(Err("it hung".to_owned())));
        assert_eq!(remembered(now_s() - FAILURE_KEPT_S), None);
    }
}
