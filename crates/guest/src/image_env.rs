//! The environment variables that the image of this machine sets for its programs.

use dayfly_guest::envfile::{self, LENGTH_MAX, Variables};
use dayfly_guest::environment::IMAGE_ENV;
use dayfly_guest::runner_app::Launch;
use std::fs::File;
use std::io::Read as _;
use std::sync::OnceLock;

/// Sets the variables of the image for a program. Does nothing if the image sets none, or if its file cannot be parsed.
///
/// The file is read once, so an entrypoint on standby already has the variables when its machine is forked.
pub(crate) fn apply(launch: &mut Launch) {
    static OF_IMAGE: OnceLock<Option<Variables>> = OnceLock::new();
    if let Some(variables) = OF_IMAGE.get_or_init(read) {
        launch.set_of_image(variables.iter());
    }
}

fn read() -> Option<Variables> {
    let mut text = String::new();
    let file = File::open(IMAGE_ENV).ok()?;
    let understood =
        file.take(LENGTH_MAX as u64 + 1).read_to_string(&mut text).map_err(|error| error.to_string());
    match understood.and_then(|_| envfile::parse(&text).map_err(|error| error.to_string())) {
        Ok(variables) => Some(variables),
        Err(why) => {
            crate::console::say(&format!("{IMAGE_ENV} is ignored: {why}"));
            None
        }
    }
}
