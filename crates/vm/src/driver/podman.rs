//! podman with the `krun` runtime: each container is a machine of its own, whose root is the container's file system.
//!
//! The options are those of podman-create(1) and podman-start(1) of podman 4.0 to 5; the annotations are those of crun's
//! krun(1).
//!
//! Create, attached start and remove are three calls rather than one `run --rm`, for these reasons:
//! - A container that cannot be created is distinguished from one whose command failed, and then nothing has run.
//! - The attached client gets the output from its first byte, because it attaches before the command starts.
//! - If dayfly dies, only the client dies, of its closed pipe. conmon keeps the container and its bounded log until a later
//!   process finds the container by its label. `--rm` would lose the exit status.

use std::time::Duration;

use super::mounted::{GUEST_DIR, Needs, Plan};
use crate::machine::StartError;
use crate::vm_host::VmHost;
use dayfly_guest::environment;
use dayfly_host::tool::{self, Invocation};

/// Name of the runtime.
pub(crate) const RUNTIME: &str = "krun";
/// Command that installs podman.
pub(crate) const MEND: &str = "apt-get install podman";
/// Command that installs the runtime.
pub(crate) const RUNTIME_MEND: &str =
    "dnf install crun-krun (elsewhere: crun built with libkrun, as /usr/bin/krun)";
/// Most virtual CPUs of a machine (krun(1)).
pub(crate) const CPUS_MAX: u32 = 16;
/// Label that holds the run folder, by which exactly this run's container is found.
const RUN_LABEL: &str = "dayfly.run";
/// Bytes of the log that conmon keeps for a look after a crash.
const LOG_BYTES_MAX: &str = "10mb";
/// Longest time that `podman info` may take.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// Capabilities that the VMM needs on the host to access files for the machine's root. They do not limit a job: the
/// machine's own kernel decides what the job may do, and there the job has all capabilities.
const CAPABILITIES: &str = "CHOWN,DAC_OVERRIDE,FOWNER,FSETID,KILL,SETFCAP,SETGID,SETUID";

/// Returns this host's podman.
pub(crate) fn podman(host: &VmHost) -> Result<Invocation, StartError> {
    host.tool("podman", MEND)
}

/// Checks that podman and its runtime are installed. Returns the runtime's path.
pub(crate) async fn probe(host: &VmHost) -> Result<String, StartError> {
    let info = podman(host)?.with(["--runtime", RUNTIME, "info", "--format", "{{.Host.OCIRuntime.Path}}"]);
    Ok(tool::run(&info, PROBE_LIMIT).await?.trim().to_owned())
}

/// Returns the command lines of a machine.
pub(crate) fn plan(podman: &Invocation, needs: &Needs<'_>) -> Plan {
    let mut create = podman.with(["--runtime", RUNTIME, "create", "--pull", "never", "--name", needs.name]);
    create.args.extend(options(needs));
    create.args.extend(volumes(needs).into_iter().flat_map(|volume| ["--volume".to_owned(), volume]));
    create.args.extend(["--entrypoint".to_owned(), needs.program().to_string_lossy().into_owned()]);
    create.args.push(needs.image.to_owned());
    create.args.extend(needs.command_args());
    Plan {
        create,
        start: podman.with(["start", "--attach", "--sig-proxy=false", needs.name]),
        stop: Some(podman.with(["kill", "--signal", "TERM", needs.name])),
    }
}

fn options(needs: &Needs<'_>) -> Vec<String> {
    let mut options: Vec<String> = [
        ("--hostname", needs.hostname.to_owned()),
        ("--label", format!("{RUN_LABEL}={}", needs.run_dir.display())),
        ("--label", format!("dayfly.runner={}", needs.runner_id)),
        // An image can contain its own size (/.krun_vm.json); annotations override it.
        ("--annotation", format!("krun.cpus={}", needs.cpus)),
        ("--annotation", format!("krun.ram_mib={}", needs.memory_mib)),
        ("--dns", needs.dns.to_string()),
        // The entrypoint switches to the runner's user itself. An image could set another user or working directory.
        ("--user", "0:0".to_owned()),
        ("--workdir", "/".to_owned()),
        ("--stop-signal", "TERM".to_owned()),
        ("--cap-drop", "all".to_owned()),
        ("--cap-add", CAPABILITIES.to_owned()),
        ("--security-opt", "no-new-privileges".to_owned()),
        ("--log-driver", "k8s-file".to_owned()),
        ("--log-opt", format!("max-size={LOG_BYTES_MAX}")),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect();
    // Override containers.conf: no environment of this process, no init by podman, no systemd mode, no health checks.
    options.extend(
        ["--env-host=false", "--init=false", "--systemd=false", "--no-healthcheck"].map(str::to_owned),
    );
    if needs.reaches_host {
        // krun opens the machine's sockets in the VMM's network namespace, so the machine reaches the host's loopback and
        // everything else that the host reaches.
        options.extend(["--network", "host"].map(str::to_owned));
    }
    options
}

fn volumes(needs: &Needs<'_>) -> Vec<String> {
    let mut volumes = vec![
        format!("{}:{}:Z,rw", needs.environment.display(), environment::DIRECTORY),
        format!("{}:{GUEST_DIR}:Z,ro", needs.guest_dir.display()),
    ];
    volumes.extend(needs.mounts.iter().map(|mount| {
        let options = if mount.options.is_empty() { "Z,rw".to_owned() } else { mount.options.join(",") };
        format!("{}:{}:{options}", mount.host.display(), mount.guest.display())
    }));
    volumes
}

/// Returns the call that lists the ids of a run folder's containers, one per line.
pub(crate) fn list(podman: &Invocation, run_dir: &str) -> Invocation {
    let filter = format!("label={RUN_LABEL}={run_dir}");
    podman.with(["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter])
}

/// Returns the call that kills and removes containers by their ids. Containers that are gone already are ignored.
pub(crate) fn remove<'a>(podman: &Invocation, ids: impl IntoIterator<Item = &'a str>) -> Invocation {
    podman.with(["rm", "--force", "--ignore", "--time", "0", "--volumes"]).with(ids)
}

/// Returns the call that fetches an image.
pub(crate) fn pull(podman: &Invocation, image: &str) -> Invocation {
    podman.with(["pull", "--quiet", image])
}

/// Returns the call that succeeds if an image is present.
pub(crate) fn image_exists(podman: &Invocation, image: &str) -> Invocation {
    podman.with(["image", "exists", image])
}

#[cfg(test)]
mod tests {
    use super::super::mounted::tests::{needs, shown};
    use super::*;
    use std::path::Path;

    fn podman() -> Invocation {
        Invocation { program: "/usr/bin/podman".into(), args: Vec::new(), env: Vec::new() }
    }

    #[test]
    fn a_machine_of_the_internet() {
        let mounts = ["/a:/b".parse().expect("mount"), "/usr/lib/dayfly:/local:ro".parse().expect("mount")];
        let mut needs = needs(&mounts);
        needs.program = Some(Path::new("/local/dayfly-guest"));
        let plan = plan(&podman(), &needs);
        insta::assert_snapshot!(shown(&plan.create));
        insta::assert_snapshot!(shown(&plan.start));
        insta::assert_snapshot!(shown(&plan.stop.expect("one")));
    }

    #[test]
    fn a_machine_that_reaches_the_hosts_loopback() {
        let mut needs = needs(&[]);
        needs.reaches_host = true;
        let args = ["-v".to_owned()];
        needs.args = &args;
        insta::assert_snapshot!(shown(&plan(&podman(), &needs).create));
    }

    #[test]
    fn images_and_what_is_left_of_a_run() {
        let calls = [
            pull(&podman(), "ghcr.io/a/b:main"),
            image_exists(&podman(), "ghcr.io/a/b:main"),
            list(&podman(), "/state/runs/2-k3V9x0q"),
            remove(&podman(), ["abc", "def"]),
        ];
        insta::assert_snapshot!(calls.iter().map(shown).collect::<Vec<_>>().join("\n"));
    }
}
