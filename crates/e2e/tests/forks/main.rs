//! Tests of machines that are forked from a template: the identity of each fork, the fallback if something goes wrong, and
//! the content of the template.

mod fallback;
mod identity;
mod warm_up;

use std::path::Path;

use dayfly_e2e::machines::{Stage, enter_network_namespace};
use dayfly_e2e::{image, prepared};
use dayfly_vm::TemplateSettings;

/// Creates a stage for machines in a separate network namespace.
fn stage(state: &Path, template: TemplateSettings) -> Stage {
    enter_network_namespace();
    Stage::new(state, &prepared("DAYFLY_BINARY"), &image(), template).expect("a stage")
}
