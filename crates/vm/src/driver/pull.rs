//! Fetches the images of machines, before anything of a machine is created.

use std::path::Path;
use std::time::Duration;

use super::{krunvm, podman};
use crate::check;
use crate::machine::StartError;
use crate::spec::{Driver, Machine, QemuSettings};
use crate::vm_host::VmHost;
use dayfly_host::tool::{self, Invocation};
use dayfly_image::{Accept, Image, ImageError, ImageResolver, Imported, Progress, Store};

/// Longest time that the search for a local image may take.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// A message while an image is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulling {
    /// A phase that takes longer has begun, in words.
    Phase(String),
    /// The name resolves to another image than before.
    Changed {
        /// Name of the image.
        name: String,
        /// Id of the image that the name resolves to now.
        image: String,
    },
    /// A problem that does not stop the fetch, in words.
    Warning(String),
}

/// Fetches the image of a machine, and returns the machine with the image that the name resolves to now. If the image
/// cannot be fetched but is present locally, the local one is used with a warning, because registries fail and some images
/// are in no registry.
///
/// # Errors
/// The registry or the tool is missing, fails, or takes longer than `limit`, and no local image exists.
pub async fn pull(
    host: &VmHost,
    machine: &Machine,
    limit: Duration,
    tell: &mut (dyn FnMut(Pulling) + Send),
) -> Result<Machine, StartError> {
    let mut pulled = machine.clone();
    match &mut pulled.driver {
        Driver::Process(_) => {}
        Driver::Qemu(settings) => look_again(host, settings, &machine.guest_binary, limit, tell).await?,
        Driver::PodmanKrun(krun) => {
            let podman = podman::podman(host)?;
            let exists = podman::image_exists(&podman, &krun.image);
            fetch(&podman::pull(&podman, &krun.image), &exists, limit, tell).await?;
        }
        Driver::Krunvm(krun) => {
            let buildah = krunvm::buildah(host)?;
            let exists = krunvm::image_exists(&buildah, &krun.image);
            fetch(&krunvm::pull(&buildah, &krun.image), &exists, limit, tell).await?;
        }
    }
    Ok(pulled)
}

async fn look_again(
    host: &VmHost,
    settings: &mut QemuSettings,
    guest_binary: &Path,
    limit: Duration,
    tell: &mut (dyn FnMut(Pulling) + Send),
) -> Result<(), StartError> {
    let Some(source) = &settings.source else {
        // So that neither a collection nor a successor takes the image for unused.
        Store::new(&host.state).touch(&settings.image);
        return Ok(());
    };
    let before = source.last_id();
    let accept = |image: &Image| check::refuse_broken(image, guest_binary);
    let imported = tokio::time::timeout(limit, follow(source, tell, &accept)).await;
    let Imported { image, warnings } = match imported {
        Ok(imported) => imported?,
        Err(_) => {
            let error = ImageError::TooLong { name: source.name(), limit_s: limit.as_secs() };
            let there = image_there(&Store::new(&host.state), before.as_deref(), &settings.image);
            let Some(image) = there else { return Err(error.into()) };
            accept(&image)?;
            Imported { image, warnings: vec![taken_as_it_is(&error)] }
        }
    };
    for warning in warnings {
        tell(Pulling::Warning(warning));
    }
    if let Some(before) = before.filter(|before| before != image.id()) {
        host.templates.supersede(&before);
        tell(Pulling::Changed { name: source.name(), image: image.id().to_owned() });
    }
    settings.image = image;
    Ok(())
}

/// Returns the image that a machine can use without a lookup: the one that its name resolved to last (`last_id`), else the
/// one of its settings; none if the store has neither any more.
fn image_there(store: &Store, last_id: Option<&str>, of_settings: &Image) -> Option<Image> {
    let mut ids = last_id.into_iter().chain([of_settings.id()]);
    ids.find_map(|id| store.find(id).ok())
}

fn taken_as_it_is(error: &dyn std::error::Error) -> String {
    format!("the image that is there is taken as it is: {error}")
}

async fn follow(
    source: &ImageResolver,
    tell: &mut (dyn FnMut(Pulling) + Send),
    accept: Accept<'_>,
) -> Result<Imported, ImageError> {
    let mut pulls = false;
    let mut tell_phase = |progress| match progress {
        Progress::Waiting { what } => {
            tell(Pulling::Phase(format!("waiting for another process that makes {what}")))
        }
        Progress::Phase { name } => tell(Pulling::Phase(name.to_owned())),
        Progress::Pulling { bytes, layers, .. } if !std::mem::replace(&mut pulls, true) => {
            tell(Pulling::Phase(format!("{layers} layers, {} MiB", bytes >> 20)));
        }
        Progress::Asking | Progress::Pulling { .. } | Progress::Line { .. } => {}
    };
    source.resolve(&mut tell_phase, accept).await
}

async fn fetch(
    pull: &Invocation,
    exists: &Invocation,
    limit: Duration,
    tell: &mut (dyn FnMut(Pulling) + Send),
) -> Result<(), StartError> {
    let Err(error) = tool::run(pull, limit).await else { return Ok(()) };
    if tool::run(exists, LOOK_LIMIT).await.is_ok() {
        tell(Pulling::Warning(taken_as_it_is(&error)));
        return Ok(());
    }
    Err(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_pull_that_takes_too_long_leads_to_the_image_that_is_there() {
        let state = tempfile::tempdir().expect("a folder");
        let store = Store::new(state.path());
        let put = |id: &str| {
            let folder = state.path().join("images").join(id);
            fs::create_dir_all(&folder).expect("a folder");
            for name in ["root.squashfs", "kernel", "initramfs"] {
                fs::write(folder.join(name), name).expect("a file");
            }
            let manifest = serde_json::json!({
                "format": 1, "id": id, "inputs": "", "suite": "x", "kernel": "x", "created_s": 0, "files": {},
                "runner_app": { "name": "", "version": "", "sha256": "", "toolchain": "" }, "packages": {},
            });
            fs::write(folder.join("manifest.json"), manifest.to_string()).expect("a manifest");
            store.find(id).expect("there")
        };
        let (first, last) = (put("aa11"), put("bb22"));
        let there = |last_id| image_there(&store, last_id, &first).map(|image| image.id().to_owned());
        assert_eq!(there(None).as_deref(), Some("aa11"));
        assert_eq!(there(Some("bb22")).as_deref(), Some("bb22"));
        fs::remove_dir_all(last.folder()).expect("removed");
        assert_eq!(there(Some("bb22")).as_deref(), Some("aa11"));
        fs::remove_dir_all(first.folder()).expect("removed");
        assert_eq!(there(Some("bb22")), None);
    }
}
