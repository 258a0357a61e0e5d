//! podman with the `krun` runtime: each container is a machine of its own, whose root is the container's file system.
//!
//! The options are those of podman-create(1) and podman-start(1) of podman 4.0 to 5; the annotations are those of crun's
//! krun(1).
//!
//! Create, attached start and remove are three calls rather than one `run --rm`:
//! - a container that cannot be made is told apart from one whose command failed, and nothing has run then;
//! - the client that is attached gets the output from its first byte, since it attaches before the command starts;
//! - when dayfly dies, the client dies of its closed pipe and nothing else does: conmon keeps the container, and its
//!   bounded log, until somebody finds it by its label. `--rm` would take away how it ended.

use std::time::Duration;

use super::mounted::{GUEST_DIR, Needs, Plan};
use crate::machine::{StartError, VmHost};
use dayfly_guest::environment;
use dayfly_host::tool::{self, Invocation};

/// The runtime's name.
pub(crate) const RUNTIME: &str = "krun";
/// How podman comes to a host.
pub(crate) const MEND: &str = "apt-get install podman";
/// How its runtime does.
pub(crate) const RUNTIME_MEND: &str =
    "dnf install crun-krun (elsewhere: crun built with libkrun, as /usr/bin/krun)";
/// Most virtual CPUs that it gives (krun(1)).
pub(crate) const CPUS_MAX: u32 = 16;
/// Holds the run folder: the container is found by it, and nothing else is.
const RUN_LABEL: &str = "dayfly.run";
/// Bytes of the log that conmon keeps for those who come after a crash.
const LOG_BYTES_MAX: &str = "10mb";
/// How long it may take to say what it has.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// What the VMM needs on the host to act for the machine's own root on files. What a job may do is decided by the
/// kernel in the machine, where it has all capabilities there are.
const CAPABILITIES: &str = "CHOWN,DAC_OVERRIDE,FOWNER,FSETID,KILL,SETFCAP,SETGID,SETUID";

/// podman on this host.
pub(crate) fn podman(host: &VmHost) -> Result<Invocation, StartError> {
    host.tool("podman", MEND)
}

/// Whether podman and its runtime are there; where the runtime is.
pub(crate) async fn probe(host: &VmHost) -> Result<String, StartError> {
    let info = podman(host)?.with(["--runtime", RUNTIME, "info", "--format", "{{.Host.OCIRuntime.Path}}"]);
    Ok(tool::run(&info, PROBE_LIMIT).await?.trim().to_owned())
}

/// The command lines of a machine.
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
        // An image can carry its own size (/.krun_vm.json); annotations win.
        ("--annotation", format!("krun.cpus={}", needs.cpus)),
        ("--annotation", format!("krun.ram_mib={}", needs.memory_mib)),
        ("--dns", needs.dns.to_string()),
        // The entrypoint changes to the runner's user itself; an image may name another one, or a place to start in.
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
    // Whatever containers.conf says: nothing of this process's environment, no init of podman's, no health checks.
    options.extend(
        ["--env-host=false", "--init=false", "--systemd=false", "--no-healthcheck"].map(str::to_owned),
    );
    if needs.reaches_host {
        // krun opens the machine's sockets in the network namespace of its VMM, so this is the host's loopback, and all else.
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

/// Ids of the containers of a run folder, one a line.
pub(crate) fn list(podman: &Invocation, run_dir: &str) -> Invocation {
    let filter = format!("label={RUN_LABEL}={run_dir}");
    podman.with(["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter])
}

/// Kills and removes containers by their ids; one that is gone already is fine.
pub(crate) fn remove<'a>(podman: &Invocation, ids: impl IntoIterator<Item = &'a str>) -> Invocation {
    podman.with(["rm", "--force", "--ignore", "--time", "0", "--volumes"]).with(ids)
}

/// Gets an image.
pub(crate) fn pull(podman: &Invocation, image: &str) -> Invocation {
    podman.with(["pull", "--quiet", image])
}

/// Succeeds where an image is there.
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
