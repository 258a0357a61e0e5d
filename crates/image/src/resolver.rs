//! Resolves an image name anew for each machine, because the tag may have moved since the last one, or the built-in image may
//! have been built anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::background::in_background;
use super::{BuildSettings, Image, ImageError, ImportSettings, Imported, Progress, Store, build, import};
use crate::oci::ImageName;

/// Time without a lookup after one that failed, because otherwise each machine would wait for a registry that is down.
const REST: Duration = Duration::from_secs(30);

/// Accepts an image, or says why it cannot be used.
pub type Accept<'a> = &'a (dyn Fn(&Image) -> Result<(), ImageError> + Sync);

/// An image name, or the built-in image, and the image that it last resolved to. Clones share one state.
#[derive(Debug, Clone)]
pub struct ImageResolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wanted: Wanted,
    last: Mutex<Last>,
}

/// The image that is resolved.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The image of a name.
    Named { name: ImageName, settings: Box<ImportSettings> },
    /// The image that these settings build.
    BuiltIn(BuildSettings),
}

/// The images that a name resolved to last.
#[derive(Debug, Default)]
struct Last {
    image: Option<Image>,
    /// The image before `image`.
    before: Option<Image>,
    asked_again: Option<Instant>,
    /// The recipe of the built-in image, as this host last built it.
    recipe: Option<String>,
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
        Self::of(Wanted::Named { name, settings: Box::new(settings) })
    }

    /// Creates a resolver of the built-in image: the newest one of these settings, whatever its age. If there is none, it is
    /// built. The `cancel` of the settings is ignored.
    pub fn built_in(settings: BuildSettings) -> Self {
        Self::of(Wanted::BuiltIn(BuildSettings { max_age: None, ..settings }))
    }

    fn of(wanted: Wanted) -> Self {
        Self(Arc::new(Inner { wanted, last: Mutex::default() }))
    }

    /// Returns the name, as shown to users.
    pub fn name(&self) -> String {
        match &self.0.wanted {
            Wanted::Named { name, .. } => name.to_string(),
            Wanted::BuiltIn(_) => "the built-in image".to_owned(),
        }
    }

    /// Returns the image that is resolved.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.0.wanted
    }

    /// Returns the settings of builds.
    pub(super) fn build_settings(&self) -> &BuildSettings {
        match &self.0.wanted {
            Wanted::Named { settings, .. } => &settings.build,
            Wanted::BuiltIn(settings) => settings,
        }
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
    /// image with a warning, and makes no other lookup for half a minute. If `accept` refuses the built-in image, returns the
    /// one that it was before. Dropping the future cancels the work.
    ///
    /// # Errors
    /// The lookup failed and there is no last image; see [`ImageError`].
    pub async fn resolve(
        &self,
        tell: &mut (dyn FnMut(Progress) + Send),
        accept: Accept<'_>,
    ) -> Result<Imported, ImageError> {
        if let Some(image) = self.last_while_resting() {
            return Ok(Imported { image, warnings: Vec::new() });
        }
        let imported = match &self.0.wanted {
            Wanted::Named { name, settings } => {
                let (name, settings) = (name.clone(), ImportSettings::clone(settings));
                let imported = in_background(settings.build.clone(), tell, move |build, progress| {
                    import(&ImportSettings { build: build.clone(), ..settings }, &name, progress)
                });
                imported.await.and_then(|imported| accept(&imported.image).map(|()| imported))
            }
            Wanted::BuiltIn(settings) => self.newest_built_in(settings, tell, accept).await,
        };
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

    /// Returns the newest acceptable generation of the built-in image. Builds one if there is none.
    async fn newest_built_in(
        &self,
        settings: &BuildSettings,
        tell: &mut (dyn FnMut(Progress) + Send),
        accept: Accept<'_>,
    ) -> Result<Imported, ImageError> {
        let mut images = self.built_in_generations();
        if images.is_empty() {
            let built =
                in_background(settings.clone(), tell, |settings, progress| build(settings, progress)).await?;
            self.adopt(&built);
            images = self.built_in_generations();
        }
        first_accepted(images, accept)
    }

    /// Follows the recipe of this image from now on, because it is what this host builds now.
    pub(super) fn adopt(&self, built: &Image) {
        self.lock().recipe = Some(built.manifest().recipe().to_owned());
    }

    /// Returns the generations of the built-in image in the store, the newest first; none if it was never resolved.
    pub(super) fn built_in_generations(&self) -> Vec<Image> {
        let recipe = self.lock().recipe.clone();
        recipe.map(|recipe| self.store().generations(&recipe)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Store {
        Store::new(&self.build_settings().state)
    }

    /// Returns the last image, if the store still has it.
    pub(super) fn last_one(&self) -> Option<Image> {
        let last = self.lock().image.clone()?;
        self.store().get(last.id()).ok().flatten()
    }

    fn last_while_resting(&self) -> Option<Image> {
        let rests = self.lock().asked_again.is_some_and(|at| Instant::now() < at);
        if rests { self.last_one() } else { None }
    }
}

/// Returns the first image that is accepted, with a warning for each one that was refused before it.
fn first_accepted(images: Vec<Image>, accept: Accept<'_>) -> Result<Imported, ImageError> {
    let mut refused = Vec::new();
    for image in images {
        match accept(&image) {
            Ok(()) => {
                let warn =
                    |error: &ImageError| format!("{error}; the image {} before it is taken", image.id());
                let warnings = refused.iter().map(warn).collect();
                return Ok(Imported { image, warnings });
            }
            Err(error) => refused.push(error),
        }
    }
    let gone = || ImageError::Unusable { what: "another process removed it".to_owned() };
    Err(refused.into_iter().next().unwrap_or_else(gone))
}

#[cfg(test)]
mod tests {
    use super::super::Cancel;
    use super::super::generations::tests::put_generation;
    use super::super::store::tests::put;
    use super::*;

    fn built_in(state: &std::path::Path) -> ImageResolver {
        ImageResolver::built_in(BuildSettings {
            state: state.to_owned(),
            suite: None,
            packages: None,
            extra: false,
            go_folders: Vec::new(),
            max_age: None,
            gently: false,
            cancel: Cancel::default(),
        })
    }

    #[tokio::test]
    async fn each_machine_gets_the_newest_built_in_image_and_an_unusable_one_gives_way_to_the_one_before() {
        let state = tempfile::tempdir().expect("a folder");
        let store = Store::new(state.path());
        let resolver = built_in(state.path());
        resolver.adopt(&put_generation(&store, 1, 100, Duration::ZERO));
        let resolve = async |refused: &str| {
            let refused = refused.to_owned();
            let accept = move |image: &Image| match image.id() == refused {
                true => Err(ImageError::Broken { id: image.id().to_owned(), why: "no shell".to_owned() }),
                false => Ok(()),
            };
            resolver.resolve(&mut |_| {}, &accept).await
        };
        assert_eq!(resolve("").await.expect("the first").image.id(), "aa111");
        put_generation(&store, 2, 200, Duration::ZERO);
        assert_eq!(resolve("").await.expect("the second").image.id(), "aa112");
        assert_eq!(resolver.last_id().as_deref(), Some("aa112"));
        let before = resolve("aa112").await.expect("the first again");
        assert_eq!((before.image.id(), before.warnings.len()), ("aa111", 1));
        assert!(
            before.warnings[0].ends_with("no shell; the image aa111 before it is taken"),
            "{:?}",
            before.warnings
        );
    }

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
