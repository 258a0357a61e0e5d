//! The templates that one process uses. They are opened once, and discarded if their forks fail.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::blueprint::Blueprint;
use super::key::TemplateId;
use super::store::Opened;
use super::{Preparing, make};
use crate::check;
use crate::machine::StartError;
use crate::mount::Mount;
use crate::network;
use crate::spec::{Driver, Machine, Network};
use crate::vm_host::VmHost;
use crate::vmm::probe;
use dayfly_host::retry;
use dayfly_image::ImageError;

/// Time without use after which a template is closed that may have lost its last user.
const UNWANTED: Duration = Duration::from_secs(600);

/// The templates that a process has opened. Copies share the same templates.
#[derive(Debug, Clone, Default)]
pub struct Templates {
    slots: Arc<Mutex<HashMap<TemplateId, TemplateSlot>>>,
    /// True if the reason why machines are booted was reported.
    told_cold: Arc<AtomicBool>,
}

/// The state of one template in this process.
#[derive(Debug, Default)]
struct TemplateSlot {
    state: TemplateState,
    /// Held while the template is opened or built.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
enum TemplateState {
    /// The template was not looked for yet, or was closed.
    #[default]
    Unknown,
    /// The template can be forked.
    Opened {
        template: Arc<Opened>,
        /// Number of forks that failed in a row.
        failures: u32,
        /// Time at which the template was last wanted.
        wanted: Instant,
        /// True if the name of its image now leads to another image.
        is_superseded: bool,
        /// True if a user is gone, and no machine has wanted the template since.
        is_in_doubt: bool,
    },
    /// The template could not be built.
    Failed {
        at: Instant,
        reason: String,
        /// True if this host had run out of something.
        is_of_host: bool,
    },
    /// Forks of the template failed, and it is built again in the background.
    Rebuilding,
}

impl TemplateState {
    fn opened(template: Arc<Opened>) -> Self {
        Self::Opened {
            template,
            failures: 0,
            wanted: Instant::now(),
            is_superseded: false,
            is_in_doubt: false,
        }
    }

    fn failed(error: &make::MakeError) -> Self {
        Self::Failed { at: Instant::now(), reason: error.to_string(), is_of_host: error.is_of_host() }
    }
}

/// Whether a template can be forked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// It could not be built, so something may be wrong with its image.
    Failed,
    /// This host has run out of something that it needs.
    OfHost,
}

impl Templates {
    fn lock(&self) -> MutexGuard<'_, HashMap<TemplateId, TemplateSlot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the first of these templates that can be forked. The error is the reason why there is none.
    pub(crate) fn first_of(&self, blueprints: &[Blueprint]) -> Result<Arc<Opened>, String> {
        let mut slots = self.lock();
        let mut why = None;
        for blueprint in blueprints {
            let id = &blueprint.id;
            let reason = match slots.get_mut(id).map(|slot| &mut slot.state) {
                Some(TemplateState::Opened { template, wanted, is_in_doubt, .. }) => {
                    (*wanted, *is_in_doubt) = (Instant::now(), false);
                    return Ok(Arc::clone(template));
                }
                Some(TemplateState::Failed { reason, .. }) => {
                    format!("template {id} could not be built: {reason}")
                }
                Some(TemplateState::Rebuilding) => {
                    format!("template {id} is built again, since its forks failed")
                }
                Some(TemplateState::Unknown) | None => format!("there is no template {id} yet"),
            };
            why.get_or_insert(reason);
        }
        Err(why.unwrap_or_default())
    }

    /// Records that a fork is up.
    pub(crate) fn succeeded(&self, fork_of: &Arc<Opened>) {
        let counted = Arc::clone(fork_of);
        drop(tokio::task::spawn_blocking(move || counted.count(|counts| counts.forks += 1)));
        if let Some(TemplateState::Opened { failures, .. }) =
            self.lock().get_mut(fork_of.id()).map(|slot| &mut slot.state)
        {
            *failures = 0;
        }
    }

    /// Records that a fork failed. Returns true if its template must be discarded now.
    fn failed(&self, fork_of: &Arc<Opened>) -> bool {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(fork_of.id()) else { return false };
        match &mut slot.state {
            // A failure does not count against a template that was opened since the fork started.
            TemplateState::Opened { template, failures, .. } if Arc::ptr_eq(template, fork_of) => {
                *failures += 1;
                let is_bad = retry::FORK.pause_after(*failures).is_none();
                if is_bad {
                    slot.state = TemplateState::Rebuilding;
                }
                is_bad
            }
            _ => false,
        }
    }

    pub(super) fn opened(&self, id: &TemplateId) -> Option<Arc<Opened>> {
        match self.lock().get(id).map(|slot| &slot.state) {
            Some(TemplateState::Opened { template, .. }) => Some(Arc::clone(template)),
            _ => None,
        }
    }

    /// Records that an image has a successor.
    pub(crate) fn supersede(&self, image: &str) {
        for slot in self.lock().values_mut() {
            if let TemplateState::Opened { template, is_superseded, .. } = &mut slot.state {
                *is_superseded |= template.image() == image;
            }
        }
    }

    /// Has the templates closed that no machine wants any more, and their spares removed, because a pool is gone that may have
    /// been their only user. One that is wanted later is opened again.
    pub fn user_is_gone(&self) {
        for slot in self.lock().values_mut() {
            if let TemplateState::Opened { is_in_doubt, .. } = &mut slot.state {
                *is_in_doubt = true;
            }
        }
    }

    fn want(&self, id: &TemplateId) {
        if let Some(TemplateState::Opened { wanted, is_in_doubt, .. }) =
            self.lock().get_mut(id).map(|slot| &mut slot.state)
        {
            (*wanted, *is_in_doubt) = (Instant::now(), false);
        }
    }

    /// Closes the templates that may have lost their last user, if they were not wanted for a while, because they occupy memory
    /// of this host. A template that is wanted later is opened again.
    fn close_unwanted(&self, now: Instant) -> Vec<TemplateId> {
        let mut slots = self.lock();
        let is_unwanted = |slot: &TemplateSlot| match slot.state {
            TemplateState::Opened { wanted, is_superseded, is_in_doubt, .. } => {
                (is_superseded || is_in_doubt) && now.saturating_duration_since(wanted) > UNWANTED
            }
            _ => false,
        };
        let unwanted: Vec<TemplateId> =
            slots.iter().filter(|(_, slot)| is_unwanted(slot)).map(|(id, _)| id.clone()).collect();
        for id in &unwanted {
            if let Some(slot) = slots.get_mut(id) {
                slot.state = TemplateState::Unknown;
            }
        }
        unwanted
    }

    fn set(&self, id: &TemplateId, state: TemplateState) {
        self.lock().entry(id.clone()).or_default().state = state;
    }

    fn turn(&self, id: &TemplateId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.lock().entry(id.clone()).or_default().turn)
    }

    /// Returns the result of the last attempt if a template is not opened or built now.
    fn at_rest(&self, id: &TemplateId) -> Option<Readiness> {
        match self.lock().get(id).map(|slot| &slot.state) {
            Some(TemplateState::Failed { at, is_of_host, .. }) if rests(at.elapsed(), *is_of_host) => {
                Some(if *is_of_host { Readiness::OfHost } else { Readiness::Failed })
            }
            Some(TemplateState::Rebuilding) => Some(Readiness::Failed),
            _ => None,
        }
    }
}

/// Returns true if a template that could not be built so long ago is not built again yet.
fn rests(since: Duration, is_of_host: bool) -> bool {
    let rule = if is_of_host { retry::SCARCE } else { retry::TEMPLATE };
    rule.pause_after(1).is_none_or(|pause| since < pause)
}

/// Records that a fork failed. After two failures in a row the template is discarded and built again in the background.
pub(crate) fn fork_failed(host: &VmHost, blueprint: &Blueprint, fork_of: &Arc<Opened>) {
    fork_of.count(|counts| counts.failures += 1);
    if !host.templates.failed(fork_of) {
        return;
    }
    let (host, blueprint) = (host.clone(), blueprint.clone());
    tokio::spawn(async move {
        tracing::warn!("template {}: two forks in a row failed; it is built again", blueprint.id);
        let turn = host.templates.turn(&blueprint.id);
        let _turn = turn.lock().await;
        let state = match make::anew(&host, &blueprint, &mut |_| {}).await {
            Ok(template) => TemplateState::opened(template),
            Err(error) => TemplateState::failed(&error),
        };
        host.templates.set(&blueprint.id, state);
    });
}

/// Prepares the template of machines of this kind: opens it, builds it, or waits while another process builds it. Without a
/// template machines are booted, and an event gives the reason. If the template with the warm-up fails, the one without is
/// tried. If an image that was imported or built anew yields no template, the image is checked.
///
/// # Errors
/// The image is broken: no machine of it could run a job. Its source then returns to the previous image.
pub async fn prepare(
    host: &VmHost,
    machine: &Machine,
    network: &Network,
    mounts: &[Mount],
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<(), ImageError> {
    let mut has_failed = false;
    for blueprint in blueprints_or_told(host, machine, network, mounts, tell).await {
        match get_ready(host, &blueprint, false, tell).await {
            // The template without the warm-up needs no less of this host, and the image is not to blame.
            Readiness::Ready | Readiness::OfHost => return Ok(()),
            Readiness::Failed => has_failed = true,
        }
    }
    let Driver::Qemu(settings) = &machine.driver else { return Ok(()) };
    let (Some(template), image) = (&settings.template, &settings.image) else { return Ok(()) };
    let manifest = image.manifest();
    if !has_failed || (manifest.origin.is_none() && manifest.generation == 0) {
        return Ok(());
    }
    let looked = check::check_unasked(host, machine, &template.user).await;
    if let (Err(_), Some(source)) = (&looked, &settings.source) {
        source.refuse(image.id());
    }
    looked
}

/// Builds the template again, even if there is one. Machines use the old one until the new one is built.
pub async fn rebuild(
    host: &VmHost,
    machine: &Machine,
    network: &Network,
    mounts: &[Mount],
    tell: &mut (dyn FnMut(Preparing) + Send),
) {
    if let Some(blueprint) = blueprints_or_told(host, machine, network, mounts, tell).await.first() {
        get_ready(host, blueprint, true, tell).await;
    }
}

async fn blueprints_or_told(
    host: &VmHost,
    machine: &Machine,
    network: &Network,
    mounts: &[Mount],
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Vec<Blueprint> {
    match blueprints(host, machine, network, mounts).await {
        Ok(Forkable::From(blueprints)) => blueprints,
        Ok(Forkable::Never { reason: None }) => Vec::new(),
        Ok(Forkable::Never { reason: Some(reason) }) => {
            if !host.templates.told_cold.swap(true, Ordering::Relaxed) {
                tell(Preparing::Cold { reason: reason.to_owned() });
            }
            Vec::new()
        }
        // The start fails for the same reason, and returns this error.
        Err(error) => {
            tell(Preparing::Cold { reason: error.to_string() });
            Vec::new()
        }
    }
}

/// The templates of a kind of machine, if it can be forked.
pub(in crate::fork) enum Forkable {
    /// From templates of these blueprints, best first.
    From(Vec<Blueprint>),
    /// They are always booted, with the reason if it has to be reported.
    Never { reason: Option<&'static str> },
}

/// Returns the blueprints that machines of this kind are forked from.
pub(in crate::fork) async fn blueprints(
    host: &VmHost,
    machine: &Machine,
    network: &Network,
    mounts: &[Mount],
) -> Result<Forkable, StartError> {
    let never = Forkable::Never { reason: None };
    let Driver::Qemu(settings) = &machine.driver else { return Ok(never) };
    let Some(template) = &settings.template else { return Ok(never) };
    if !mounts.is_empty() {
        let reason =
            "machines with mounts are booted, because a template cannot contain the servers of mounts";
        return Ok(Forkable::Never { reason: Some(reason) });
    }
    let platform = probe::resolve(host, settings, &machine.guest_binary).await?;
    network::look_for_obstacles(&host.launcher).await;
    let with =
        |warm_up| Blueprint::of(host, machine, settings, &template.user, warm_up, platform.clone(), network);
    let mut all = vec![with(template.warm_up.clone())?];
    if template.warm_up.is_some() {
        all.push(with(None)?);
    }
    Ok(Forkable::From(all))
}

/// Closes the templates that have lost their last user, and removes their spares.
fn close_unwanted(host: &VmHost) {
    for id in host.templates.close_unwanted(Instant::now()) {
        tracing::debug!("template {id} is closed: its image has a successor, or its pool is gone");
        host.spares.forget(&id);
    }
}

/// Opens or builds the template.
async fn get_ready(
    host: &VmHost,
    blueprint: &Blueprint,
    anew: bool,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Readiness {
    let (templates, id) = (&host.templates, &blueprint.id);
    if let Some(result) = templates.at_rest(id).filter(|_| !anew) {
        return result;
    }
    let turn = templates.turn(id);
    let _turn = match turn.try_lock() {
        Ok(turn) => turn,
        Err(_) => {
            tell(Preparing::Waiting { template: id.to_string() });
            turn.lock().await
        }
    };
    if let Some(result) = templates.at_rest(id).filter(|_| !anew) {
        return result;
    }
    let made =
        if anew { make::anew(host, blueprint, tell).await } else { make::ready(host, blueprint, tell).await };
    match made {
        Ok(template) => {
            if templates.opened(id).is_none_or(|opened| !Arc::ptr_eq(&opened, &template)) {
                templates.set(id, TemplateState::opened(template));
            }
            templates.want(id);
            close_unwanted(host);
            Readiness::Ready
        }
        Err(error) => {
            let reason = error.to_string();
            tell(Preparing::Failed { template: id.to_string(), reason });
            if templates.opened(id).is_none() {
                templates.set(id, TemplateState::failed(&error));
            }
            if error.is_of_host() { Readiness::OfHost } else { Readiness::Failed }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::TemplateStore;
    use super::super::store::tests::{manifest, put};
    use super::*;

    #[test]
    fn a_template_that_the_host_had_no_room_for_is_tried_sooner_and_is_no_failure() {
        let id = manifest("aa11", 1).id;
        let templates = Templates::default();
        let error = |number| {
            let source = std::io::Error::from_raw_os_error(number);
            let start = StartError::Io { what: "make", path: "/x".into(), source };
            make::MakeError::Build(super::super::build::BuildError::Start(start))
        };
        templates.set(&id, TemplateState::failed(&error(libc::ENOMEM)));
        assert_eq!(templates.at_rest(&id), Some(Readiness::OfHost));
        templates.set(&id, TemplateState::failed(&error(libc::EIO)));
        assert_eq!(templates.at_rest(&id), Some(Readiness::Failed));
        let minute = Duration::from_secs(60);
        assert!(rests(minute, false) && !rests(minute, true));
    }

    #[test]
    fn the_template_of_an_image_with_a_successor_is_closed_once_nobody_has_wanted_it_for_a_while() {
        let state = tempfile::tempdir().expect("a folder");
        let store = TemplateStore::new(state.path());
        let templates = Templates::default();
        let [old, new] = ["aa11", "ab22"].map(|name| {
            let mut manifest = manifest(name, 1);
            manifest.image = format!("image of {name}");
            let template = Arc::new(Opened::open(&put(&store, &manifest)).expect("opened"));
            templates.set(&manifest.id, TemplateState::opened(template));
            manifest.id
        });
        let later = Instant::now() + UNWANTED + Duration::from_secs(1);
        assert!(templates.close_unwanted(later).is_empty());
        templates.supersede("image of aa11");
        assert!(templates.close_unwanted(Instant::now()).is_empty(), "somebody may want it still");
        assert_eq!(templates.close_unwanted(later).as_slice(), std::slice::from_ref(&old));
        assert!(templates.opened(&old).is_none() && templates.opened(&new).is_some());
        assert!(templates.close_unwanted(later).is_empty());
        templates.user_is_gone();
        templates.want(&new);
        assert!(templates.close_unwanted(later).is_empty(), "another user has wanted it");
        templates.user_is_gone();
        assert_eq!(templates.close_unwanted(later), [new]);
    }
}
