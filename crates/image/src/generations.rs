//! The generations of an image: those that were built anew from the same inputs, because the packages of Debian change.
//!
//! The first one has the id of its inputs alone, and each later one also of its number. So two processes that find the same
//! image too old build the next one under the same lock, and nothing has to record which one is the newest.

use std::fs;
use std::time::{Duration, SystemTime};

use super::{Image, ImageError, Store};
use dayfly_host::digest::digest_of;

/// Returns the digest of all inputs of one generation of images or bundles, of which `recipe` is the digest of the inputs
/// that all generations share.
pub(super) fn inputs_of(recipe: &str, generation: u32) -> String {
    match generation {
        0 => recipe.to_owned(),
        _ => digest_of(&[recipe, "generation", &generation.to_string()]),
    }
}

/// Number of generations of an image that always stay: the newest, and the one before, in case that the newest is unusable.
const GENERATIONS_KEPT: usize = 2;
/// Time without use after which an older generation is removed. A process that was given an image by its id uses it for each
/// machine, and has seconds between two of them.
const GENERATION_UNUSED: Duration = Duration::from_secs(3600);

/// Returns the generations that nothing needs any more. `last_used` has the number and the time of the last use of each. A
/// use in the future, as after the clock was set back, counts as one just now.
fn outlived(last_used: &[(u32, SystemTime)], now: SystemTime) -> Vec<u32> {
    let mut all = last_used.to_vec();
    all.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let is_unused =
        |time: &SystemTime| now.duration_since(*time).is_ok_and(|since| since > GENERATION_UNUSED);
    all.iter().skip(GENERATIONS_KEPT).filter(|(_, time)| is_unused(time)).map(|(number, _)| *number).collect()
}

impl Store {
    /// Returns the generations of the image of a recipe, the newest first. Images that cannot be read are left out, because
    /// another image's fault must not keep a machine from its own.
    pub(super) fn generations(&self, recipe: &str) -> Vec<Image> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let opened = entries.filter_map(|entry| Self::open(&entry.path()).ok().flatten());
        let mut images: Vec<Image> = opened.filter(|image| image.manifest().recipe() == recipe).collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.manifest().generation));
        images
    }

    /// Removes the generations of an image that were not used for an hour, except the newest two and those that machines use.
    /// Images that are built anew every week would fill the disk otherwise.
    pub(super) fn remove_outlived_or_warn(&self, recipe: &str) {
        if let Err(error) = self.remove_outlived(recipe) {
            tracing::warn!("the predecessors of an image are not removed: {error}");
        }
    }

    fn remove_outlived(&self, recipe: &str) -> Result<(), ImageError> {
        let images = self.generations(recipe);
        let used = |image: &Image| fs::metadata(image.root()).and_then(|root| root.modified()).ok();
        let last_used: Vec<(u32, SystemTime)> =
            images.iter().filter_map(|image| Some((image.manifest().generation, used(image)?))).collect();
        let outlived = outlived(&last_used, SystemTime::now());
        for image in images.iter().filter(|image| outlived.contains(&image.manifest().generation)) {
            match self.remove(image) {
                Ok(()) => tracing::info!("removed the image {}, which has successors", image.id()),
                Err(ImageError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;

    use super::super::manifest::Manifest;
    use super::super::store::tests::{manifest, put};
    use super::super::store::{MANIFEST, ROOT};
    use super::*;

    /// Puts a generation of the recipe `aa11` into the store, last used this long ago.
    pub(crate) fn put_generation(store: &Store, generation: u32, created_s: i64, unused: Duration) -> Image {
        let id = format!("aa11{generation}");
        let folder = store.folder().join(&id);
        fs::create_dir_all(&folder).expect("folder");
        let manifest = Manifest { generation, recipe: "aa11".to_owned(), ..manifest(&id, created_s) };
        fs::write(folder.join(ROOT), "x").expect("root");
        fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).expect("json")).expect("write");
        let root = File::open(folder.join(ROOT)).expect("root");
        root.set_modified(SystemTime::now() - unused).expect("time");
        store.find(&id).expect("there")
    }

    #[test]
    fn generations_are_found_by_their_recipe_and_the_newest_is_the_last_built() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        put(&store, "bb22", 5);
        // The first generation has no recipe of its own: the digest of its inputs is the recipe.
        put(&store, "aa11", 900);
        put_generation(&store, 2, 100, Duration::ZERO);
        fs::create_dir_all(store.folder().join("damaged")).expect("folder");
        fs::write(store.folder().join("damaged").join(MANIFEST), "{").expect("write");
        let ids: Vec<String> = store.generations("aa11").iter().map(|image| image.id().to_owned()).collect();
        assert_eq!(ids, ["aa112", "aa11"]);
    }

    #[test]
    fn generations_that_nothing_needs_go_and_those_of_machines_stay() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::new(state.path());
        let day = Duration::from_secs(86400);
        for generation in 1..=5 {
            put_generation(&store, generation, 1, day);
        }
        let used = store.find("aa111").expect("there").open_root().expect("in use");
        store.remove_outlived("aa11").expect("removed");
        let left = || -> Vec<u32> {
            store.generations("aa11").iter().map(|image| image.manifest().generation).collect()
        };
        assert_eq!(left(), [5, 4, 1]);
        drop(used);
        store.remove_outlived("aa11").expect("removed");
        assert_eq!(left(), [5, 4]);
    }

    #[test]
    fn an_older_generation_is_outlived_after_an_hour_without_use_by_any_clock() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ago = |seconds| now - Duration::from_secs(seconds);
        let later = now + Duration::from_secs(86400);
        assert_eq!(outlived(&[(0, ago(9000)), (1, ago(9000))], now), [] as [u32; 0]);
        assert_eq!(outlived(&[(0, ago(9000)), (2, ago(1)), (1, ago(3601)), (3, ago(1))], now), [1, 0]);
        assert_eq!(outlived(&[(0, ago(3600)), (1, later), (2, now), (3, now)], now), [] as [u32; 0]);
    }
}
