//! Tests of the tools that are added to an image with nothing but a shell: what jobs use works there.

use std::path::Path;

use dayfly_e2e::{Dayfly, Ended, OwnState, prepared};
use dayfly_host::left_out::root_may;

use super::buildah::Buildah;

const WORKFLOW: &str = r#"
on: workflow_dispatch
jobs:
  use:
    runs-on: ubuntu-latest
    steps:
      - run: |
          echo "bash ${BASH_VERSION%%.*} for $(id -un)"
          echo "root is $(sudo -n id -un), and $(sudo -n -u runner id -un) is not"
          curl --version | head -n 1
          head -n 1 /etc/ssl/certs/ca-certificates.crt
      - run: |
          git init -q one
          git -C one -c user.name=a -c user.email=b@c commit -q --allow-empty -m 'kept in git'
          git clone -q "file://$PWD/one" two
          git -C two log --format=%s
      - run: |
          tar -C /bin -c busybox | docker import - box
          docker run --rm box /busybox echo 'in a container'
          docker run --rm box /busybox ip address show eth0
"#;

/// Pulls an image, asserts that it lacks nothing, and returns what was added to it.
fn added_so_that_nothing_is_lacking(archive: &str, state: &OwnState) -> String {
    let pulled = Dayfly::new(["image", "pull", "--json", archive]).env("DAYFLY_STATE", state.path()).run();
    pulled.assert_status(0);
    let origin = pulled.events()[0]["origin"].clone();
    assert_eq!(origin["lacks"], serde_json::json!([]), "{origin}");
    origin["added"].to_string()
}

/// Asserts that one machine was started, from a template in which Docker already ran.
fn assert_one_fork(ended: &Ended) {
    let runner = ended.events_of("runner");
    let started: Vec<_> = runner.iter().filter(|event| event["what"] == "vmm_started").collect();
    assert!(started.len() == 1 && started[0]["details"]["from"] == "fork", "with its Docker: {started:?}");
}

#[test]
fn an_image_with_nothing_but_a_shell_is_given_docker_git_and_sudo() {
    if !root_may("make images with buildah without a user namespace") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let buildah = Buildah::new(folder.path());
    buildah.make_bare("localhost/bare:1");
    let (archive, state) = (buildah.archive("localhost/bare:1"), OwnState::without_images());
    let added = added_so_that_nothing_is_lacking(&archive, &state);
    assert!(added.contains("git, sudo, certificate authorities, modprobe, Docker (of Debian "), "{added}");

    let ended = Dayfly::demo(WORKFLOW, ["-i", &archive]).env("DAYFLY_STATE", state.path()).run();
    ended.assert_status(0).assert_nothing_left();
    let log = ended.log_of("use");
    for said in [
        "bash 5 for runner",
        "root is root, and runner is not",
        "curl ",
        "kept in git",
        "in a container",
        "inet 172.17.",
    ] {
        assert!(log.contains(said), "no {said:?} in {log}");
    }
    assert!(log.contains("BEGIN CERTIFICATE"), "{log}");
    assert_one_fork(&ended);
}

const LIKE_GITHUB: &str = r#"
on: workflow_dispatch
jobs:
  use:
    runs-on: ubuntu-latest
    steps:
      - run: |
          echo "$(id -un) of $(id -gn), Docker of $(command -v docker)"
          # github-act-runner has a variable of its own.
          echo x >/opt/hostedtoolcache/mine && echo "the tool cache is mine"
          tar -C /bin -c busybox | docker import - box
          docker run --rm box /busybox ip address show eth0
"#;

/// The first name that a user gives to `-i` is `ghcr.io/actions/actions-runner`, so an image of that form must work.
#[test]
fn an_image_as_githubs_dockerfile_makes_it_runs_a_job_with_its_own_docker() {
    if !root_may("make images with buildah without a user namespace") {
        return;
    }
    let tools = Dayfly::new(["image", "tools", "--json"]).run();
    tools.assert_status(0);
    let engine = Path::new(tools.events()[0]["folder"].as_str().expect("a folder")).join("tree");
    let folder = tempfile::tempdir().expect("a folder");
    let buildah = Buildah::new(folder.path());
    buildah.make_like_github("localhost/like-github:1", &engine, &prepared("DAYFLY_TEST_RUNNER_APP"));
    let (archive, state) = (buildah.archive("localhost/like-github:1"), OwnState::without_images());
    let added = added_so_that_nothing_is_lacking(&archive, &state);
    assert!(
        added.contains("iptables") && !added.contains("Docker") && !added.contains("runner app"),
        "{added}"
    );

    let without = ["image", "pull", "--json", "--image-tools", "none", &archive];
    let without = Dayfly::new(without).env("DAYFLY_STATE", state.path()).run();
    let lacks = without.events()[0]["origin"]["lacks"].to_string();
    assert!(lacks.contains("iptables") && !lacks.contains("runc"), "reported before a job fails: {lacks}");

    let ended = Dayfly::demo(LIKE_GITHUB, ["-i", &archive]).env("DAYFLY_STATE", state.path()).run();
    ended.assert_status(0).assert_nothing_left();
    let log = ended.log_of("use");
    for said in ["runner of runner, Docker of /usr/bin/docker", "the tool cache is mine", "inet 172.17."] {
        assert!(log.contains(said), "no {said:?} in {log}");
    }
    assert_one_fork(&ended);
}
