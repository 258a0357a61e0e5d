//! The files that say how images are made, as they were when this program was built.

/// Version of the builder: grows when a change here would make another image of the same inputs.
pub(super) const BUILDER_VERSION: &str = "1";
/// Packages of an image: the lists that `dayfly-guest base` installs elsewhere, and what only a machine needs.
pub(super) const PACKAGES: &str = concat!(
    include_str!("../../../images/debian/machine.txt"),
    include_str!("../../../images/debian/docker.txt"),
    include_str!("../../../images/debian/packages.txt"),
);
/// Runs before packages are installed.
pub(super) const ESSENTIAL: &str = include_str!("../../../images/debian/essential.sh");
/// Runs once they are.
pub(super) const CUSTOMIZE: &str = include_str!("../../../images/debian/customize.sh");
/// Runs last.
pub(super) const FINISH: &str = include_str!("../../../images/debian/finish.sh");
/// The Go module that builds the runner app.
pub(super) const GO_MOD: &str = include_str!("../../../runner-app/go.mod");
/// The program in it that does what the runner app does, for a runner that is not known yet.
pub(super) const STANDBY: &str = include_str!("../../../runner-app/standby/main.go");
/// Its checksums.
pub(super) const GO_SUM: &str = include_str!("../../../runner-app/go.sum");
