//! krunvm 0.2: machines with libkrun, their root file systems from buildah.
//!
//! krunvm's configuration is one file. `create` and `delete` read and write it without a lock, so these calls are
//! serialised ([`LOCK`]). Volumes are folders without options and are stored by their host path, so a folder appears at one
//! path in the machine only. `start` becomes the VMM, and exits with the status of the machine's command.

use std::path::Path;
use std::time::Duration;

use super::mounted::{GUEST_DIR, Needs, Plan};
use crate::machine::StartError;
use crate::mount::Mount;
use crate::vm_host::VmHost;
use dayfly_guest::environment;
use dayfly_host::tool::{self, Invocation};

/// The file in the state folder that is locked while krunvm's configuration changes.
pub(crate) const LOCK: &str = "krunvm.lock";
/// Longest time that `krunvm --version` may take.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// Command that installs krunvm.
pub(crate) const MEND: &str =
    "dnf copr enable slp/krunvm && dnf install krunvm (or build it: github.com/containers/krunvm)";

/// Command that installs buildah.
pub(crate) const BUILDAH_MEND: &str = "apt-get install buildah";

/// Returns this host's krunvm. If the user is not root, buildah runs it in a user namespace, because krunvm refuses to run
/// without one.
pub(crate) fn krunvm(host: &VmHost) -> Result<Invocation, StartError> {
    let krunvm = host.tool("krunvm", MEND)?;
    let buildah = buildah(host)?;
    if rustix::process::geteuid().is_root() {
        return Ok(krunvm);
    }
    Ok(within(&buildah, &krunvm))
}

fn within(buildah: &Invocation, krunvm: &Invocation) -> Invocation {
    buildah.with(["unshare".to_owned(), krunvm.program.to_string_lossy().into_owned()])
}

/// Returns this host's buildah.
pub(crate) fn buildah(host: &VmHost) -> Result<Invocation, StartError> {
    host.tool("buildah", BUILDAH_MEND)
}

/// Checks that krunvm is installed. Returns its version.
pub(crate) async fn probe(host: &VmHost) -> Result<String, StartError> {
    Ok(tool::run(&krunvm(host)?.with(["--version"]), PROBE_LIMIT).await?.trim().to_owned())
}

/// Refuses mounts that krunvm cannot create as requested.
pub(crate) fn check(mounts: &[Mount]) -> Result<(), StartError> {
    for (index, mount) in mounts.iter().enumerate() {
        let refused = |reason: &str| StartError::Mount {
            host: mount.host.clone(),
            guest: mount.guest.clone(),
            reason: reason.to_owned(),
        };
        if mount.is_read_only() {
            return Err(refused("krunvm has no read-only volumes; podman-krun has"));
        }
        if mounts[..index].iter().any(|other| other.host == mount.host) {
            return Err(refused(
                "krunvm shows a folder of the host in one place only; podman-krun in several",
            ));
        }
    }
    Ok(())
}

/// Returns the command lines of a machine.
pub(crate) fn plan(krunvm: &Invocation, needs: &Needs<'_>) -> Plan {
    let mut create = krunvm.with(["create", needs.image, "--name", needs.name]);
    create = create.with(["--cpus".to_owned(), needs.cpus.to_string()]);
    create = create.with(["--mem".to_owned(), needs.memory_mib.to_string()]);
    create = create.with(["--dns".to_owned(), needs.dns.to_string(), "--workdir".to_owned(), "/".to_owned()]);
    let own = [
        volume(needs.environment, Path::new(environment::DIRECTORY)),
        volume(needs.guest_dir, Path::new(GUEST_DIR)),
    ];
    let further = needs.mounts.iter().map(|mount| volume(&mount.host, &mount.guest));
    create.args.extend(own.into_iter().chain(further).flatten());
    let start = krunvm.with(["start".to_owned(), needs.name.to_owned()]);
    let start = start.with([needs.program().to_string_lossy().into_owned(), "--".to_owned()]);
    Plan { create, start: start.with(needs.command_args()), stop: None }
}

fn volume(host: &Path, guest: &Path) -> [String; 2] {
    ["--volume".to_owned(), format!("{}:{}", host.display(), guest.display())]
}

/// Returns the call that lists all machines.
pub(crate) fn list(krunvm: &Invocation) -> Invocation {
    krunvm.with(["list"])
}

/// Returns true if the output of [`list`] contains a machine. Each name has a line of its own, and the machine's properties
/// are indented below it.
pub(crate) fn is_listed(list: &str, name: &str) -> bool {
    list.lines().any(|line| line == name)
}

/// Returns the call that removes a machine.
pub(crate) fn delete(krunvm: &Invocation, name: &str) -> Invocation {
    krunvm.with(["delete", name])
}

/// Returns the call that fetches an image into the store that krunvm reads.
pub(crate) fn pull(buildah: &Invocation, image: &str) -> Invocation {
    buildah.with(["pull", "--quiet", image])
}

/// Returns the call that succeeds if an image is present.
pub(crate) fn image_exists(buildah: &Invocation, image: &str) -> Invocation {
    buildah.with(["inspect", "--type", "image", "--format", "{{.FromImageID}}", image])
}

#[cfg(test)]
mod tests {
    use super::super::mounted::tests::{needs, shown};
    use super::*;

    fn tool(path: &str) -> Invocation {
        Invocation { program: path.into(), args: Vec::new(), env: Vec::new() }
    }

    #[test]
    fn the_life_of_a_machine_as_root_and_as_another_user() {
        let mounts = ["/a:/b:rw".parse().expect("mount")];
        let (root, buildah) = (tool("/usr/bin/krunvm"), tool("/usr/bin/buildah"));
        let plan = plan(&root, &needs(&mounts));
        assert_eq!(plan.stop, None);
        let user = within(&buildah, &root);
        let calls = [
            plan.create,
            plan.start,
            list(&root),
            delete(&user, "GH-runner-2-k3V9x0q"),
            pull(&buildah, "ghcr.io/a/b:main"),
            image_exists(&buildah, "ghcr.io/a/b:main"),
        ];
        insta::assert_snapshot!(calls.iter().map(shown).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_mount_that_would_be_writable_or_missing_is_refused() {
        let check = |mounts: &[&str]| {
            let mounts: Vec<Mount> = mounts.iter().map(|mount| mount.parse().expect("mount")).collect();
            check(&mounts).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["/a:/b", "/c:/d:rw,Z"]), Ok(()));
        insta::assert_snapshot!(
            check(&["/a:/b", "/c:/d:ro"]).expect_err("refused"),
            @"cannot mount /c at /d: krunvm has no read-only volumes; podman-krun has"
        );
        insta::assert_snapshot!(
            check(&["/a:/b", "/a:/c"]).expect_err("refused"),
            @"cannot mount /a at /c: krunvm shows a folder of the host in one place only; podman-krun in several"
        );
    }

    #[test]
    fn a_machine_is_found_by_its_whole_name() {
        let shown = "\nGH-runner-2-abc\n CPUs: 2\n RAM (MiB): 1024\n Mapped volumes: {}\n\nGH-runner-2-abcd\n CPUs: 2\n\n";
        assert!(is_listed(shown, "GH-runner-2-abc") && is_listed(shown, "GH-runner-2-abcd"));
        assert!(!is_listed(shown, "GH-runner-2-ab") && !is_listed("No microVMs found\n", "No"));
    }
}
