//! Which accelerator really works here.
//!
//! `/dev/kvm` can open and answer its version, and still boot no stock kernel (seen on hosts that are virtual machines
//! themselves: the guest hangs right after its decompressor). So `auto` trusts only a probe guest: the image's kernel,
//! the guest binary, no disks. The answer is remembered for this kernel, this QEMU and this processor.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dayfly_guest::protocol::{self, GuestMessage, HostMessage};
use serde::{Deserialize, Serialize};

use crate::accel::{Accel, AccelChoice};
use crate::driver::qemu::{self, Boot, Needs};
use crate::image::Image;
use crate::machine::files::Files;
use crate::machine::spawn::{Outputs, Recipe};
use crate::machine::{StartError, VmHost, record};
use crate::network::Connection;
use crate::{kvm, tsc};

/// How long a probe guest may take. With KVM it takes well under a second.
const PROBE_LIMIT: Duration = Duration::from_secs(15);
/// Its memory, MiB.
const PROBE_MEMORY_MIB: u32 = 256;
/// Name of the file that remembers answers.
const ANSWERS: &str = "accel.json";
/// Answers that are remembered: a few kernels and QEMUs of one host.
const ANSWERS_MAX: usize = 16;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What works best.
    pub accel: Accel,
    /// What was seen, for people.
    pub seen: String,
}

type Answers = BTreeMap<String, Answer>;

/// What a machine is run with, given what was asked for.
pub(crate) async fn resolve(
    host: &VmHost,
    choice: AccelChoice,
    image: &Image,
    guest_binary: &Path,
) -> Result<Accel, StartError> {
    match choice {
        AccelChoice::Tcg => Ok(Accel::Tcg),
        AccelChoice::Kvm => match kvm::usable() {
            Ok(()) => Ok(Accel::Kvm),
            Err(unusable) => Err(StartError::NoKvm { reason: unusable.to_string() }),
        },
        AccelChoice::Auto => Ok(answer(host, image, guest_binary).await?.accel),
    }
}

/// What works best here: remembered, or found out by booting a probe guest.
///
/// # Errors
/// No QEMU, or an image or guest binary that cannot be read. A guest that does not boot is an answer, not an error.
pub async fn answer(host: &VmHost, image: &Image, guest_binary: &Path) -> Result<Answer, StartError> {
    if let Err(unusable) = kvm::usable() {
        // Cheap to see, and may change at any time: not remembered.
        return Ok(Answer { accel: Accel::Tcg, seen: unusable.to_string() });
    }
    let key = key(&host.qemu()?);
    let path = host.state.join(ANSWERS);
    if let Some(answer) = read(&path).remove(&key) {
        return Ok(answer);
    }
    let answer = match boot(host, image, guest_binary).await? {
        Ok(()) => Answer { accel: Accel::Kvm, seen: "a probe guest booted with KVM".to_owned() },
        Err(reason) => Answer { accel: Accel::Tcg, seen: reason },
    };
    remember(&path, key, &answer);
    Ok(answer)
}

/// The remembered answer of this host, without booting anything.
pub(crate) fn remembered(host: &VmHost) -> Option<Answer> {
    read(&host.state.join(ANSWERS)).remove(&key(&host.qemu().ok()?))
}

/// What an answer holds for: this kernel, this QEMU, this processor.
fn key(qemu: &Path) -> String {
    let system = rustix::system::uname();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    format!(
        "{}; {}; {}",
        system.release().to_string_lossy(),
        qemu_version(qemu).unwrap_or_default(),
        model.trim_start_matches(['\t', ' ', ':'])
    )
}

/// First line of `--version`.
pub(crate) fn qemu_version(qemu: &Path) -> Option<String> {
    let output = std::process::Command::new(qemu).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.trim_start_matches("QEMU emulator version ").to_owned())
}

fn read(path: &Path) -> Answers {
    // A file that cannot be read costs another probe.
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn remember(path: &Path, key: String, answer: &Answer) {
    let mut answers = read(path);
    if answers.len() >= ANSWERS_MAX {
        answers.clear();
    }
    answers.insert(key, answer.clone());
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = serde_json::to_vec_pretty(&answers)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        tracing::warn!("cannot remember what works on this host in {}: {error}", path.display());
    }
}

/// Boots a probe guest with KVM; the inner error says what was seen instead of its hello.
async fn boot(host: &VmHost, image: &Image, guest_binary: &Path) -> Result<Result<(), String>, StartError> {
    let io_error = |what, path: &Path| {
        let path = path.to_owned();
        move |source| StartError::Io { what, path, source }
    };
    let run_dir = host.state.join(format!("probe-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()));
    fs::create_dir_all(&run_dir).map_err(io_error("make the folder", &run_dir))?;
    let result = match recipe(host, image, guest_binary, &run_dir) {
        Ok(recipe) => Ok(greet(Arc::new(recipe)).await),
        Err(error) => Err(error),
    };
    record::destroy_leftover(&run_dir)
        .await
        .map_err(|error| io_error("end", &run_dir)(std::io::Error::other(error)))?;
    fs::remove_dir_all(&run_dir).map_err(io_error("remove", &run_dir))?;
    result
}

fn recipe(host: &VmHost, image: &Image, guest_binary: &Path, run_dir: &Path) -> Result<Recipe, StartError> {
    let needs = Needs {
        qemu: &host.qemu()?,
        name: "probe",
        accel: Accel::Kvm,
        tsc_khz: tsc::frequency_khz(),
        cpus: 1,
        memory_mib: PROBE_MEMORY_MIB,
        boot: Boot::Probe,
    };
    Ok(Recipe {
        invocation: qemu::plan(&needs),
        launcher: host.launcher.clone(),
        accel: Accel::Kvm,
        name: "probe".to_owned(),
        run_dir: run_dir.to_owned(),
        connection: Arc::new(Connection::Shut),
        shares: None,
        forward: None,
        files: Files::to_boot(image, guest_binary)?,
    })
}

async fn greet(recipe: Arc<Recipe>) -> Result<(), String> {
    let outputs = Outputs::new();
    let hello = async {
        let mut vmm = recipe
            .spawn(&outputs, &Arc::new(AtomicBool::new(false)))
            .await
            .map_err(|error| error.to_string())?;
        let Some(mut link) = vmm.link.take() else { return Err("it has no agent port".to_owned()) };
        link.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 1 })
            .map_err(|error| error.to_string())?;
        loop {
            match link.next().await {
                Ok(GuestMessage::Hello { .. }) => return Ok(()),
                Ok(_) => {}
                Err(_) => return Err(format!("its VMM ended: {}", last_line(&outputs))),
            }
        }
    };
    match tokio::time::timeout(PROBE_LIMIT, hello).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(format!("/dev/kvm opens, but a probe guest did not boot: {reason}")),
        Err(_) => Err(format!(
            "/dev/kvm opens, but a probe guest did not boot within {} s (last words: {})",
            PROBE_LIMIT.as_secs(),
            last_line(&outputs)
        )),
    }
}

fn last_line(outputs: &Outputs) -> String {
    outputs.tail().lines().last().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_apart_and_a_damaged_file_costs_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(ANSWERS);
        let answer = |accel| Answer { accel, seen: "x".to_owned() };
        remember(&path, "a".to_owned(), &answer(Accel::Kvm));
        remember(&path, "b".to_owned(), &answer(Accel::Tcg));
        assert_eq!(read(&path).get("a"), Some(&answer(Accel::Kvm)));
        assert_eq!(read(&path).len(), 2);
        fs::write(&path, "{").expect("damage");
        assert!(read(&path).is_empty());
        remember(&path, "a".to_owned(), &answer(Accel::Tcg));
        assert_eq!(read(&path).len(), 1);
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }
}
