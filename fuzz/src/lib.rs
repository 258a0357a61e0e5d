//! libFuzzer's side of the modules `properties`: one program for each of their properties.

pub use dayfly_forge::properties as forge;
pub use dayfly_guest::protocol::properties as guest;
pub use dayfly_image::oci::properties as image;
pub use dayfly_lab::properties as lab;
use dayfly_property::Property;
pub use libfuzzer_sys;

/// The variable with the folder to which a program writes its seeds before libFuzzer reads them.
const SEEDS: &str = "DAYFLY_FUZZ_SEEDS";

/// Defines the program for one property.
#[macro_export]
macro_rules! target {
    ($crate_of:ident::$property:ident) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds(&$crate::$crate_of::$property),
            |data: &[u8]| ($crate::$crate_of::$property.check)(data)
        );
    };
}

/// Writes the seeds of a property into the folder that `DAYFLY_FUZZ_SEEDS` names, if it is set. Seeds are generated, so that
/// none can be older than the code.
///
/// # Panics
/// Panics if a seed cannot be written.
pub fn write_seeds(property: &Property) {
    let Some(folder) = std::env::var_os(SEEDS) else { return };
    for (index, seed) in (property.seeds)().into_iter().enumerate() {
        let path = std::path::Path::new(&folder).join(format!("seed-{index}"));
        std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
