//! Images that tools keep: fetched before anything of a machine exists.

use std::time::Duration;

use super::tool::{self, Invocation};
use super::{krunvm, podman};
use crate::machine::{Driver, Machine, StartError, VmHost};

/// How long looking for an image may take.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// Fetches the image of a machine, where its driver has images of its own; at once where it has none. An image that cannot
/// be fetched and is there already is good enough, which is logged: registries fail, and some images are of no registry.
///
/// # Errors
/// The tool is missing, fails or takes longer than `limit`, and the image is not there.
pub async fn pull(host: &VmHost, machine: &Machine, limit: Duration) -> Result<(), StartError> {
    match &machine.driver {
        Driver::Qemu(_) | Driver::Process(_) => Ok(()),
        Driver::PodmanKrun(krun) => {
            let podman = podman::podman(host)?;
            fetch(&podman::pull(&podman, &krun.image), &podman::image_exists(&podman, &krun.image), limit)
                .await
        }
        Driver::Krunvm(krun) => {
            let buildah = krunvm::buildah(host)?;
            fetch(&krunvm::pull(&buildah, &krun.image), &krunvm::image_exists(&buildah, &krun.image), limit)
                .await
        }
    }
}

async fn fetch(pull: &Invocation, exists: &Invocation, limit: Duration) -> Result<(), StartError> {
    let Err(error) = tool::run(pull, limit).await else { return Ok(()) };
    if tool::run(exists, LOOK_LIMIT).await.is_ok() {
        tracing::warn!("the image that is there is taken as it is: {error}");
        return Ok(());
    }
    Err(error.into())
}
