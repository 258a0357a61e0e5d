//! Finds, fetches and builds the image, the kernel and the runner app that machines need.

use dayfly_image::oci::ImageName;
use dayfly_image::{
    Accept, BuildSettings, Cancel, Image, ImageError, ImageResolver, ImportSettings, Imported, RunnerApp,
    Store,
};

use super::progress::{ImageProgress, building};
use crate::exit::{Failure, Result};
use crate::printer;
use crate::settings::Places;
use dayfly_fleet::pool::FetchSpec;

/// An image, and the resolver that can find a newer one by the same name.
pub(crate) struct ChosenImage {
    pub(crate) image: Image,
    pub(crate) source: Option<ImageResolver>,
}

/// Returns the requested image, or the newest built-in one that is accepted if none is requested. Builds the built-in image if
/// it is missing.
pub(crate) async fn choose(
    places: &Places,
    wanted: Option<&str>,
    rules: FetchSpec,
    quiet: bool,
    accept: Accept<'_>,
) -> Result<ChosenImage> {
    let Some(wanted) = wanted else {
        let source = ImageResolver::built_in(build_settings(places));
        let image = fetch(&source, "image", quiet, accept).await?;
        return Ok(ChosenImage { image, source: Some(source) });
    };
    by_word(places, wanted, rules, quiet).await
}

/// Returns the image with this id, folder or name. An image that is given by name is fetched.
pub(super) async fn by_word(
    places: &Places,
    wanted: &str,
    rules: FetchSpec,
    quiet: bool,
) -> Result<ChosenImage> {
    let store = Store::new(&places.state);
    if let Some(image) = here(&store, wanted)? {
        store.touch(&image);
        return Ok(ChosenImage { image, source: None });
    }
    let name = wanted.parse().map_err(|error| Failure::usage(error).hint(NAMES_HINT))?;
    let source = source(places, name, rules)?;
    let title = format!("image {}", source.name());
    // The hint also helps with a mistyped id, which is parsed as the name of a repository.
    let image =
        fetch(&source, &title, quiet, &|_| Ok(())).await.map_err(|failure| failure.hint(NAMES_HINT))?;
    Ok(ChosenImage { image, source: Some(source) })
}

async fn fetch(source: &ImageResolver, title: &str, quiet: bool, accept: Accept<'_>) -> Result<Image> {
    let mut shown = ImageProgress::of(title, quiet);
    let imported = source.resolve(&mut |step| shown.take(step), accept).await;
    let Imported { image, warnings } = imported.map_err(Failure::cannot)?;
    shown.done();
    warnings.iter().for_each(printer::warning);
    Ok(image)
}

/// Hint for a name that leads to no image.
const NAMES_HINT: &str =
    "`dayfly image ls` lists the local images; docs/images.md describes the names of others";

/// Least length of the beginning of an id. Shorter words are parsed as the name of a repository.
const ID_LENGTH_MIN: usize = 4;

/// Returns an image of the store, if `wanted` is its folder or the beginning of its id.
fn here(store: &Store, wanted: &str) -> Result<Option<Image>> {
    if wanted.starts_with(['/', '.']) {
        return store.find(wanted).map(Some).map_err(Failure::cannot);
    }
    let is_id = wanted.len() >= ID_LENGTH_MIN && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    match store.find(wanted) {
        Ok(image) if is_id => Ok(Some(image)),
        Err(error @ ImageError::Ambiguous { .. }) if is_id => Err(Failure::cannot(error)),
        _ => Ok(None),
    }
}

/// Returns the resolver of an image name.
fn source(places: &Places, name: ImageName, rules: FetchSpec) -> Result<ImageResolver> {
    let FetchSpec { pull: policy, add_tools } = rules;
    let (tool_folders, tool_env) = (places.search_path.clone(), places.tool_env.clone());
    let (build, access) = (build_settings(places), places.registry_access()?);
    Ok(ImageResolver::new(name, ImportSettings { build, access, policy, add_tools, tool_folders, tool_env }))
}

/// Returns the runner app for processes of this host, and builds it if it is missing.
pub(crate) async fn host_runner_app(places: &Places, quiet: bool) -> Result<RunnerApp> {
    building(build_settings(places), "runner app", quiet, dayfly_image::runner_app).await
}

/// Returns the settings of builds for this host.
pub(crate) fn build_settings(places: &Places) -> BuildSettings {
    BuildSettings {
        state: places.state.clone(),
        suite: None,
        packages: None,
        extra: false,
        go_folders: places.search_path.clone(),
        max_age: None,
        gently: false,
        cancel: Cancel::default(),
    }
}
