//! Images, fetched before anything of a machine exists.

use std::path::Path;
use std::time::Duration;

use super::{krunvm, podman};
use crate::check;
use crate::machine::{Driver, Machine, QemuSettings, StartError, VmHost};
use dayfly_host::tool::{self, Invocation};
use dayfly_image::{Image, ImageError, ImageResolver, Imported, Progress};

/// How long looking for an image may take.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// What is told while an image is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulling {
    /// What takes more than a moment has begun, in words.
    Phase(String),
    /// The name leads to another image than before.
    Changed {
        /// The name.
        name: String,
        /// Id of the image.
        image: String,
    },
    /// Something did not go as it should, in words.
    Warning(String),
}

/// Fetches the image of a machine, and returns the machine with what its name leads to now. An image that cannot be fetched
/// and is there already is good enough, with a warning: registries fail, and some images are of no registry.
///
/// # Errors
/// The registry or the tool is missing, fails or takes longer than `limit`, and no image is there.
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
    let Some(source) = &settings.source else { return Ok(()) };
    let before = source.last_id();
    let accept = |image: &Image| check::refuse_broken(image, guest_binary);
    let imported = tokio::time::timeout(limit, follow(source, tell, &accept)).await;
    let Imported { image, warnings } = imported
        .map_err(|_| ImageError::TooLong { name: source.name().to_string(), limit_s: limit.as_secs() })??;
    for warning in warnings {
        tell(Pulling::Warning(warning));
    }
    if let Some(before) = before.filter(|before| before != image.id()) {
        host.templates.supersede(&before);
        tell(Pulling::Changed { name: source.name().to_string(), image: image.id().to_owned() });
    }
    settings.image = image;
    Ok(())
}

async fn follow(
    source: &ImageResolver,
    tell: &mut (dyn FnMut(Pulling) + Send),
    accept: &(dyn Fn(&Image) -> Result<(), ImageError> + Sync),
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
        tell(Pulling::Warning(format!("the image that is there is taken as it is: {error}")));
        return Ok(());
    }
    Err(error.into())
}
