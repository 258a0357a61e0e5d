//! Resolves an image name anew for each machine, because the tag may have moved since the last one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::background::in_background;
use super::{Image, ImageError, ImportSettings, Imported, Progress, Store, import};
use crate::oci::ImageName;

/// Time without a lookup after one that failed, because otherwise each machine would wait for a registry that is down.
const REST: Duration = Duration::from_secs(30);

/// An image name and the image that it last resolved to. Clones share one state.
#[derive(Debug, Clone)]
pub struct ImageResolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: ImageName,
    settings: ImportSettings,
    last: Mutex<Last>,
}

/// The images that a name resolved to last.
#[derive(Debug, Default)]
struct Last {
    image: Option<Image>,
    /// The image before `image`.
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

impl ImageResolver {
    /// Creates a resolver of this name. `settings` say how to look it up; their `cancel` is ignored.
    pub fn new(name: ImageName, settings: ImportSettings) -> Self {
        let last = Mutex::default();
        Self(Arc::new(Inner { name, settings, last }))
    }

    /// Returns the name.
    pub fn name(&self) -> &ImageName {
        &self.0.name
    }

    /// Returns the id of the image that the name last resolved to.
    pub fn last_id(&self) -> Option<String> {
        self.lock().image.as_ref().map(|image| image.id().to_owned())
    }

    /// Goes back to the image before this one, because no machine can use it.
    pub fn refuse(&self, id: &str) {
        self.lock().refuse(id);
    }

    /// Resolves the name and imports the image if it is new. If that fails or `accept` refuses the image, returns the last
    /// image with a warning, and makes no other lookup for half a minute. Dropping the future cancels the work.
    ///
    /// # Errors
    /// The lookup failed and there is no last image; see [`ImageError`].
    pub async fn resolve(
        &self,
        tell: &mut (dyn FnMut(Progress) + Send),
        accept: &(dyn Fn(&Image) -> Result<(), ImageError> + Sync),
    ) -> Result<Imported, ImageError> {
        if let Some(image) = self.last_while_resting() {
            return Ok(Imported { image, warnings: Vec::new() });
        }
        let (name, settings) = (self.0.name.clone(), self.0.settings.clone());
        let imported = in_background(self.0.settings.build.clone(), tell, move |build, progress| {
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

    /// Returns the last image, if the store still has it.
    fn last_one(&self) -> Option<Image> {
        let last = self.lock().image.clone()?;
        self.store().get(last.id()).ok().flatten()
    }

    fn last_while_resting(&self) -> Option<Image> {
        let rests = self.lock().asked_again.is_some_and(|at| Instant::now() < at);
        if rests { self.last_one() } else { None }
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
