//! The files that define how images are built, compiled into this program.

/// Version of the builder. It is raised if a change to the builder gives another image for the same inputs.
pub(super) const BUILDER_VERSION: &str = "2";
/// Packages of an image: the lists that `dayfly-guest base` installs into other images, and the packages that only a machine
/// needs.
pub(super) const PACKAGES: &str = concat!(
    include_str!("../../../images/debian/machine.txt"),
    include_str!("../../../images/debian/docker.txt"),
    include_str!("../../../images/debian/packages.txt"),
);
/// Languages that are added on request.
pub(super) const EXTRA_PACKAGES: &str = include_str!("../../../images/debian/extra.txt");
/// Script that runs before packages are installed.
pub(super) const ESSENTIAL: &str = include_str!("../../../images/debian/essential.sh");
/// Script that runs after packages are installed.
pub(super) const CUSTOMIZE: &str = include_str!("../../../images/debian/customize.sh");
/// Script that runs last.
pub(super) const FINISH: &str = include_str!("../../../images/debian/finish.sh");
/// The Go module that builds the runner app.
pub(super) const GO_MOD: &str = include_str!("../../../runner-app/go.mod");
/// Source of the module's program that stands in for the runner app while its runner is not known yet.
pub(super) const STANDBY: &str = include_str!("../../../runner-app/standby/main.go");
/// Checksums of the Go module's dependencies.
pub(super) const GO_SUM: &str = include_str!("../../../runner-app/go.sum");
