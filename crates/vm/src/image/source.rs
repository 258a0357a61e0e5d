//! Images that are looked for again before each machine: their names may lead elsewhere by then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{BuildSettings, Cancel, Image, ImageError, ImportSettings, Imported, Progress, Store, import};
use crate::oci::ImageName;

/// How much progress may wait to be told; what is more is left out.
const PROGRESS_QUEUE: usize = 256;
/// How long nobody asks again where the last answer was none: each machine would wait for a registry that is gone.
const REST: Duration = Duration::from_secs(30);

/// Where an image comes from, and what it was last. Cheap to clone: all copies are one.
#[derive(Debug, Clone)]
pub struct ImageSource(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: ImageName,
    settings: ImportSettings,
    last: Mutex<Last>,
}

/// What a source led to last.
#[derive(Debug, Default)]
struct Last {
    image: Option<Image>,
    /// The one that it was before that.
    before: Option<Image>,
    asked_again: Option<Instant>,
}

impl Last {
    fn take(&mut self, image: &Image, asked_again: Option<Instant>) {
        if self.image.as_ref().is_some_and(|last| last.id() != image.id()) {
            self.before = self.image.take();
        }
        self.image = Some(image.clone());
        self.asked_again = asked_again;
    }

    fn refuse(&mut self, id: &str) {
        if self.image.as_ref().is_some_and(|image| image.id() == id) {
            self.image = self.before.take();
            self.asked_again = None;
        }
    }
}

impl ImageSource {
    /// The source of this name. `settings` say how it is looked for; their own `cancel` counts for nothing.
    pub fn new(name: ImageName, settings: ImportSettings) -> Self {
        let last = Mutex::default();
        Self(Arc::new(Inner { name, settings, last }))
    }

    /// The name.
    pub fn name(&self) -> &ImageName {
        &self.0.name
    }

    /// Id of the image that it led to last, if it has led to any.
    pub fn last_id(&self) -> Option<String> {
        self.lock().image.as_ref().map(|image| image.id().to_owned())
    }

    /// The image that it led to last is of no use after all: the one before it takes its place.
    pub(crate) fn refuse(&self, id: &str) {
        self.lock().refuse(id);
    }

    /// The image that the name leads to now. Where it leads to none, or to one that cannot be made into a machine or is not
    /// accepted, the last one that it led to is taken, with a warning, and for a while nobody asks again. Dropping this stops
    /// the work.
    ///
    /// # Errors
    /// There was none before; see [`ImageError`].
    pub async fn image(
        &self,
        tell: &mut (dyn FnMut(Progress) + Send),
        accept: &(dyn Fn(&Image) -> Result<(), ImageError> + Sync),
    ) -> Result<Imported, ImageError> {
        if let Some(image) = self.last_while_resting() {
            return Ok(Imported { image, warnings: Vec::new() });
        }
        let (name, settings) = (self.0.name.clone(), self.0.settings.clone());
        let imported = beside(self.0.settings.build.clone(), tell, move |build, progress| {
            import(&ImportSettings { build: build.clone(), ..settings }, &name, progress)
        });
        let imported = imported.await.and_then(|imported| accept(&imported.image).map(|()| imported));
        match (imported, self.last_one()) {
            (Ok(imported), _) => {
                let rest = (!imported.warnings.is_empty()).then(|| Instant::now() + REST);
                self.lock().take(&imported.image, rest);
                self.store().touch(&imported.image);
                Ok(imported)
            }
            (Err(ImageError::Cancelled), _) => Err(ImageError::Cancelled),
            (Err(error), Some(image)) => {
                self.lock().asked_again = Some(Instant::now() + REST);
                let warning = format!("{error}; the image {} that it was before is taken", image.id());
                Ok(Imported { image, warnings: vec![warning] })
            }
            (Err(error), None) => Err(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Store {
        Store::new(&self.0.settings.build.state)
    }

    /// The last one, if it is still there.
    fn last_one(&self) -> Option<Image> {
        let last = self.lock().image.clone()?;
        self.store().get(last.id()).ok().flatten()
    }

    fn last_while_resting(&self) -> Option<Image> {
        let rests = self.lock().asked_again.is_some_and(|at| Instant::now() < at);
        if rests { self.last_one() } else { None }
    }
}

/// Does what takes its time and blocks on a thread of its own, and tells how it goes. Dropping this stops it, as far as it
/// looks at its settings' `cancel`.
///
/// # Errors
/// Those of `work`.
pub async fn beside<T: Send + 'static>(
    settings: BuildSettings,
    tell: &mut (dyn FnMut(Progress) + Send),
    work: impl FnOnce(&BuildSettings, &mut dyn FnMut(Progress)) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let cancel = Cancel::default();
    let _stop = CancelOnDrop(cancel.clone());
    let settings = BuildSettings { cancel, ..settings };
    let (sender, mut progress) = mpsc::channel(PROGRESS_QUEUE);
    let working = tokio::task::spawn_blocking(move || {
        work(&settings, &mut |step| {
            let _ = sender.try_send(step);
        })
    });
    while let Some(step) = progress.recv().await {
        tell(step);
    }
    match working.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that ends cancels what blocks, and then nobody waits for this.
            Err(_) => Err(ImageError::Cancelled),
        },
    }
}

/// Stops the work when whoever waits for it is gone.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::put;
    use super::*;

    #[test]
    fn an_image_of_no_use_gives_way_to_the_one_before_it() {
        let state = tempfile::tempdir().expect("a folder");
        let store = Store::new(state.path());
        let [good, bad] = ["aa11", "bb22"].map(|id| {
            put(&store, id, 1);
            store.find(id).expect("there")
        });
        let mut last = Last::default();
        let id = |last: &Last| last.image.as_ref().map(|image| image.id().to_owned());
        last.take(&good, None);
        last.take(&bad, None);
        last.take(&bad, Some(Instant::now() + REST));
        last.refuse("aa11");
        assert_eq!(id(&last).as_deref(), Some("bb22"), "another one is meant");
        last.refuse("bb22");
        assert_eq!((id(&last).as_deref(), last.asked_again), (Some("aa11"), None));
        last.refuse("aa11");
        assert_eq!(id(&last), None, "there is none before it");
    }
}
