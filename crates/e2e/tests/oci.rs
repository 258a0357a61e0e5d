//! Tests of `-i` with images that real tools built: from a real registry, with TLS and a password, and from archives. The
//! result is compared file by file with what the tool itself unpacks. One of the images is booted and runs a job.
//!
//! The tests require root, because the files of the images have many owners. All network traffic is on loopback.

#[path = "oci/buildah.rs"]
mod buildah;
#[path = "oci/compare.rs"]
mod compare;
#[path = "oci/plain.rs"]
mod plain;
#[path = "oci/registry.rs"]
mod registry;
#[path = "oci/room.rs"]
mod room;
#[path = "oci/tools.rs"]
mod tools;

use std::path::Path;
use std::process::Command;

use buildah::Buildah;
use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Ended, OwnState};
use dayfly_host::left_out::root_may;
use registry::Registry;

const WORKFLOW: &str = r#"
on: workflow_dispatch
jobs:
  look:
    runs-on: ubuntu-latest
    steps:
      - run: |
          echo "I am $(id -un), and the file says $(cat /data/kept/second)"
          test ! -e /data/gone && echo "what was removed is not there"
          echo "it is $COLOUR"
"#;

/// A state folder, and the registry that images are pulled from.
struct Puller {
    state: OwnState,
    registry: Registry,
}

impl Puller {
    fn dayfly(&self, arguments: &[&str]) -> Dayfly {
        let dayfly = Dayfly::new(arguments.iter().copied()).env("DAYFLY_STATE", self.state.path());
        self.with_registry(dayfly).env("RUNNER_IMAGE_TOOLS", "none")
    }

    fn with_registry(&self, dayfly: Dayfly) -> Dayfly {
        dayfly
            .env("DAYFLY_REGISTRIES", self.registry.settings())
            .env("REGISTRY_AUTH_FILE", self.registry.credentials())
    }

    fn pull(&self, name: &str, more: &[&str]) -> Ended {
        let mut arguments = vec!["image", "pull", "--json", name];
        arguments.extend(more);
        self.dayfly(&arguments).run()
    }

    fn pulled(&self, name: &str) -> serde_json::Value {
        let ended = self.pull(name, &[]);
        ended.assert_status(0);
        ended.events()[0].clone()
    }

    fn refused(&self, name: &str, more: &[&str], status: i32) -> String {
        let ended = self.pull(name, more);
        ended.assert_status(status);
        ended.stderr
    }
}

fn unpack(image: &serde_json::Value, to: &Path) {
    let root = Path::new(image["folder"].as_str().expect("a folder")).join("root.squashfs");
    let status = Command::new("unsquashfs").args(["-quiet", "-no-progress", "-d"]).arg(to).arg(root).status();
    assert!(status.expect("unsquashfs").success());
}

#[test]
fn images_of_real_tools_come_to_what_the_tools_unpack_and_boot() {
    if !root_may("make images with buildah without a user namespace") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let buildah = Buildah::new(folder.path());
    let expected = buildah.make_oddities("localhost/odd:v1");
    let puller = Puller { state: OwnState::without_images(), registry: Registry::start(folder.path()) };

    // Each form holds the same layers, so only the first one is converted.
    let archive = folder.path().join("odd.oci");
    buildah.push("localhost/odd:v1", &format!("oci-archive:{}:v1", archive.display()), &[]);
    let image = puller.pulled(&format!("oci-archive:{}", archive.display()));
    let unpacked = folder.path().join("unpacked");
    unpack(&image, &unpacked);
    compare::check(&expected, &unpacked);
    let forms = [
        format!("docker-archive:{}", folder.path().join("odd.docker").display()),
        format!("oci:{}:v1", folder.path().join("odd.layout").display()),
    ];
    for form in &forms {
        buildah.push("localhost/odd:v1", form, &[]);
        let again = puller.pulled(form.strip_suffix(":v1").unwrap_or(form));
        assert_eq!(again["id"], image["id"], "{form}");
    }

    let name = format!("localhost:{}/team/odd:v1", puller.registry.port());
    buildah.push("localhost/odd:v1", &format!("docker://{name}"), &puller.registry.login());
    assert_eq!(puller.pulled(&name)["id"], image["id"]);
    made_again_of_pulled_layers(&puller, &name, &expected);
    from_a_registry(&puller, &name, &image);
    boots(&puller, &name);
    puller.registry.stop();
    without_its_registry(&puller, &name, &image);
}

/// Removes an image and pulls it again: layers that are already stored give the same files.
fn made_again_of_pulled_layers(puller: &Puller, name: &str, expected: &Path) {
    let image = puller.pulled(name);
    puller.dayfly(&["image", "rm", image["id"].as_str().expect("an id")]).run().assert_status(0);
    let unpacked = tempfile::tempdir().expect("a folder");
    let to = unpacked.path().join("tree");
    unpack(&puller.pulled(name), &to);
    compare::check(expected, &to);
}

/// Tests requests to a registry that is running.
fn from_a_registry(puller: &Puller, name: &str, image: &serde_json::Value) {
    let digest = image_digest(puller, name);
    let by_digest = format!("{}@{digest}", name.trim_end_matches(":v1"));
    assert_eq!(puller.pulled(&by_digest)["id"], image["id"]);
    let no_tag = puller.refused(&name.replace(":v1", ":v2"), &[], 3);
    assert!(no_tag.contains(":v2 is not there; there is v1"), "{no_tag}");
    let nothing = puller.refused(&name.replace("odd", "nothing"), &[], 3);
    assert!(nothing.contains("team/nothing:v1 is not there"), "{nothing}");
    assert!(puller.refused("localhost:1/x", &[], 3).contains("localhost:1 cannot be reached"));
    assert!(puller.refused("Odd", &[], 2).contains("must be in lower case"));
    assert!(puller.refused("localhost:1/x", &["--pull", "never"], 3).contains("was never pulled here"));
    let stranger = Dayfly::new(["image", "pull", name])
        .env("DAYFLY_STATE", OwnState::without_images().path())
        .env("DAYFLY_REGISTRIES", puller.registry.settings())
        .env("REGISTRY_AUTH_FILE", "/nonexistent")
        .run();
    stranger.assert_status(3);
    assert!(stranger.stderr.contains("refuses access, and nobody is logged in"), "{stranger:?}");
    let wrong = puller.with_registry(Dayfly::new(["image", "pull", name]));
    let wrong = wrong.env("DAYFLY_REGISTRIES", "/dev/null").run();
    wrong.assert_status(2);
}

fn image_digest(puller: &Puller, name: &str) -> String {
    let shown = puller.dayfly(&["image", "inspect", "--json", name]).run();
    shown.assert_status(0);
    let shown = shown.events()[0].clone();
    assert!(shown["names"].as_array().expect("names").iter().any(|known| known == name), "{shown}");
    // The manifest of an archive differs from the registry's, because the layers are compressed anew for each.
    puller.registry.digest_of("team/odd", "v1")
}

/// Boots a machine from the image, and runs a job in it.
fn boots(puller: &Puller, name: &str) {
    let demo = Dayfly::demo(WORKFLOW, ["-i", name, "--memory", "512", "--cold"])
        .env("DAYFLY_STATE", puller.state.path())
        .env("RUNNER_IMAGE_TOOLS", "none");
    let ended = puller.with_registry(demo).run();
    ended.assert_status(0).assert_nothing_left();
    let log = ended.log_of("look");
    assert!(log.contains("I am runner, and the file says second"), "{log}");
    assert!(log.contains("what was removed is not there"), "{log}");
    assert!(log.contains("it is blue"), "as the image's ENV says: {log}");
}

/// Tests which requests still succeed after the registry has stopped.
fn without_its_registry(puller: &Puller, name: &str, image: &serde_json::Value) {
    let ended = puller.pull(name, &[]);
    ended.assert_status(0);
    assert_eq!(ended.events()[0]["id"], image["id"]);
    assert!(ended.stderr.contains("of an earlier pull is taken"), "{}", ended.stderr);
    for policy in ["missing", "never"] {
        let ended = puller.pull(name, &["--pull", policy]);
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{policy}");
    }
    let ended = puller.dayfly(&["image", "gc", "--keep-bytes", "0", "--json"]).run();
    let collected = ended.assert_status(0).events()[0].clone();
    assert_eq!((&collected["left_bytes"], &collected["images"][0]["id"]), (&0.into(), &image["id"]));
    assert!(puller.refused(name, &["--pull", "never"], 3).contains("was never pulled here"));
}

/// Runs three runners of one loop. Before the second, the image's name is moved to another image; before the third, the
/// registry is stopped.
#[tokio::test]
async fn each_runner_gets_what_the_name_of_its_image_leads_to_by_then() {
    if !root_may("make images with buildah without a user namespace") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let buildah = Buildah::new(folder.path());
    let puller = Puller { state: OwnState::without_images(), registry: Registry::start(folder.path()) };
    let name = format!("localhost:{}/team/build:main", puller.registry.port());
    let push = |version: &str| {
        let image = format!("localhost/build:{version}");
        buildah.make_version(&image, version);
        buildah.push(&image, &format!("docker://{name}"), &puller.registry.login());
    };
    push("one");
    let lab = LabProcess::start();
    let words = ["runner", "--json", "-g", &lab.url, "-p", "o/r", "-L", "here", "-r", "3", "--memory", "512"];
    let loop_of_three = puller.dayfly(&[&words[..], &["-i", &name]].concat());
    let mut runners = loop_of_three.env("RUNNER_PAT", &lab.token).start();
    runners.wait_for_event("listening");
    push("two");
    assert_eq!(says_its_version(&lab).await, "version one, home /home/runner");
    runners.wait_for_event("listening");
    puller.registry.stop();
    assert_eq!(says_its_version(&lab).await, "version two, home /home/runner");
    assert_eq!(says_its_version(&lab).await, "version two, home /home/runner");
    let ended = runners.wait();
    ended.assert_status(0).assert_nothing_left();
    let changed = ended.events_of("image_changed");
    assert_eq!((changed.len(), changed[0]["image"].is_string()), (1, true), "{changed:?}");
    // Machines are forked although the image has no Docker, and each image has its own template.
    let started = ended.events_of("vmm_started");
    let from: Vec<_> = started.iter().map(|event| (&event["from"], &event["template"])).collect();
    assert!(from.iter().all(|(from, _)| *from == "fork"), "{from:?}");
    assert!(from[0].1 != from[1].1 && from[1].1 == from[2].1, "{from:?}");
    let warnings = ended.events_of("warning");
    let is_told = warnings.iter().any(|event| event.to_string().contains("of an earlier pull is taken"));
    assert!(is_told, "{warnings:?}");
    lab.stop();
}

async fn says_its_version(lab: &LabProcess) -> String {
    let say = r#"on: push
jobs: { a: { runs-on: here, steps: [{ run: 'echo "<version $VERSION, home $HOME>"; echo "path $PATH"' }] } }"#;
    let run = lab.dispatch(say).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    let (_, log) = lab.logs_of(run).await.into_iter().next().expect("a job");
    assert!(log.contains("path /of/the/image:/usr/bin:/bin"), "{log}");
    let said = log.lines().filter_map(|line| line.split_once('<')?.1.split_once('>'));
    said.map(|(said, _)| said).find(|said| !said.contains('$')).expect("its version").to_owned()
}

#[test]
fn an_image_is_looked_into_and_one_of_no_use_is_refused() {
    if !root_may("make images with buildah without a user namespace") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let buildah = Buildah::new(folder.path());
    let state = OwnState::without_images();
    let archive = |name: &str, change: fn(&Path)| {
        buildah.make_with(&format!("localhost/{name}:1"), change);
        let archive = format!("oci-archive:{}", folder.path().join(name).display());
        buildah.push(&format!("localhost/{name}:1"), &archive, &[]);
        archive
    };
    let check = |image: &str, status| {
        let words = ["image", "check", "--json", "--image-tools", "none", image];
        let checked = Dayfly::new(words).env("DAYFLY_STATE", state.path()).run();
        checked.assert_status(status).assert_nothing_left();
        let report = checked.events()[0].clone();
        assert_eq!(report["usable"], status == 0, "{report}");
        report
    };
    let seen = |report: &serde_json::Value, name: &str| {
        let findings = report["findings"].as_array().expect("findings");
        let found = findings.iter().find(|finding| finding["name"] == name);
        found.map(|found| found["state"].as_str().expect("a state").to_owned())
    };

    let plain = check(&archive("plain", |_| ()), 0);
    for (name, state) in
        [("bash", "ok"), ("home", "ok"), ("version", "ok"), ("git", "wanted"), ("dockerd", "wanted")]
    {
        assert_eq!(seen(&plain, name).as_deref(), Some(state), "{name}: {plain}");
    }

    let without_app = archive("without-app", |root| {
        buildah::write(&root.join("opt/runner/github-act-runner"), "#!/bin/sh\n");
    });
    let report = check(&without_app, 1);
    assert_eq!(seen(&report, "version").as_deref(), Some("missing"), "{report}");
    let refused = Dayfly::demo(WORKFLOW, ["-i", &without_app, "--image-tools", "none"]);
    let refused = refused.env("DAYFLY_STATE", state.path()).run();
    refused.assert_status(3);
    assert!(refused.stderr.contains("is refused, since `dayfly image check"), "{}", refused.stderr);

    let report = check(&archive("without-kernel", with_a_kernel_that_is_none), 1);
    let failure = report["failure"].as_str().expect("a failure");
    assert!(failure.contains("its machine does not come up"), "{failure}");

    // This image was not checked before: its template cannot be built, and no runner is registered for it.
    let panics = archive("panics", with_a_kernel_without_its_modules);
    let ended = Dayfly::demo(WORKFLOW, ["-i", &panics, "--image-tools", "none"]);
    let ended = ended.env("DAYFLY_STATE", state.path()).run();
    ended.assert_status(3).assert_nothing_left();
    let runner = ended.events_of("runner");
    let count = |what: &str| runner.iter().filter(|event| event["what"] == what).count();
    assert_eq!((count("template_failed"), count("registered")), (1, 0), "{}", ended.stdout);
    let why = "its machine does not come up: the machine powered off";
    assert!(ended.stderr.contains("is refused") && ended.stderr.contains(why), "{}", ended.stderr);
}

/// Adds a kernel that boots, but has none of the modules that are listed as built into it.
fn with_a_kernel_without_its_modules(root: &Path) {
    with_a_kernel_that_is_none(root);
    let kernels = dayfly_e2e::prepared("DAYFLY_STATE").join("kernels");
    let bundles = std::fs::read_dir(kernels).expect("kernels").flatten();
    let kernel = bundles.map(|bundle| bundle.path().join("kernel")).find(|path| path.is_file());
    std::fs::copy(kernel.expect("a kernel"), root.join("boot/vmlinuz-9.9.9")).expect("copied");
}

fn with_a_kernel_that_is_none(root: &Path) {
    buildah::write(&root.join("boot/vmlinuz-9.9.9"), "no kernel");
    let names = ["virtio", "virtio_ring", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console"];
    let more = ["virtio_rng", "squashfs", "overlay", "ext4"];
    let lines = names.iter().chain(&more).map(|name| format!("kernel/{name}.ko\n"));
    let folder = root.join("lib/modules/9.9.9");
    buildah::write(&folder.join("modules.builtin"), &lines.collect::<String>());
    buildah::write(&folder.join("modules.dep"), "");
}
