//! What the image of this machine says of its programs' environment.

use dayfly_guest::envfile::{self, LENGTH_MAX};
use dayfly_guest::environment::IMAGE_ENV;
use dayfly_guest::runner_app::Launch;
use std::fs::File;
use std::io::Read as _;

/// Gives a program the variables of its image. One that says nothing, or nothing that can be understood, changes nothing.
pub(crate) fn apply(launch: &mut Launch) {
    let mut text = String::new();
    let Ok(file) = File::open(IMAGE_ENV) else { return };
    if let Err(error) = file.take(LENGTH_MAX as u64 + 1).read_to_string(&mut text) {
        return crate::console::say(&format!("cannot read {IMAGE_ENV}: {error}"));
    }
    match envfile::parse(&text) {
        Ok(variables) => launch.set_of_image(variables.iter()),
        Err(error) => crate::console::say(&format!("{IMAGE_ENV} is passed over: {error}")),
    }
}
