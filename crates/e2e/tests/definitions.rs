//! Tests of our image definitions, and of the make targets and workflows that publish them, as far as that is possible
//! without a registry. `scripts/test-images` builds the Debian image for real.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use dayfly_e2e::Dayfly;

fn repository_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(repository_file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a make target so that it only prints its command lines, with fake programs in place of all three builders.
fn make(target: &str, env: &[(&str, &str)]) -> Output {
    let programs = tempfile::tempdir().expect("a temporary folder");
    for builder in ["docker", "podman", "buildah"] {
        let path = programs.path().join(builder);
        fs::write(&path, "#!/bin/sh\nexit 1\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let path = std::env::var("PATH").expect("PATH");
    let mut command = Command::new("make");
    command.args(["--silent", "--no-print-directory", target]).current_dir(repository_file("."));
    // These variables are set if make runs the tests, or by a user who builds images.
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PLATFORMS", "BASE_DOCKER"] {
        command.env_remove(variable);
    }
    for variable in ["DISTRO", "VERSION", "PLATFORM", "NAMESPACE", "BUILDER", "PUBLISH", "INSTALL_TOKEN"] {
        command.env_remove(variable);
    }
    command.env("PATH", format!("{}:{path}", programs.path().display())).env("PRINT", "1");
    command.env("PLATFORM", "linux/arm64").envs(env.iter().copied()).output().expect("make")
}

/// Returns the command line that builds the image.
fn build(target: &str, env: &[(&str, &str)]) -> String {
    let output = make(target, env);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("scripts/build guest arm64\n"), "{text}");
    text.lines()
        .find(|line| line.contains(" build ") && !line.starts_with("scripts/"))
        .expect("a build")
        .to_owned()
}

#[test]
fn make_builds_a_step_for_a_platform_with_whatever_builder_there_is() {
    let ubuntu = [("DISTRO", "ubuntu"), ("VERSION", "feature/x"), ("UBUNTU_VERSION", "22.04")];
    assert_eq!(
        build("image-base", &ubuntu),
        "docker buildx build --load --tag ghcr.io/dayfly-ci/dayfly/base-ubuntu:feature-x --platform linux/arm64 \
         --file images/ubuntu/Dockerfile --build-arg UBUNTU_VERSION=22.04 target/images/base-arm64"
    );
    let fedora = [
        ("DISTRO", "fedora"),
        ("BUILDER", "buildah"),
        ("NAMESPACE", "localhost/x"),
        ("INSTALL_VERSION", "2.336.0"),
    ];
    assert_eq!(
        build("image-runner", &fedora),
        "buildah build --tag localhost/x/runner-fedora:main --platform linux/arm64 --file images/runner/Dockerfile \
         --build-arg DISTRO=fedora --build-arg VERSION=main --build-arg INSTALL_NAMESPACE=localhost/x \
         --build-arg INSTALL_VERSION=2.336.0 target/images/runner-arm64"
    );
    let podman = build("image-base", &[("BUILDER", "podman")]);
    assert!(podman.starts_with("podman build --tag ghcr.io/dayfly-ci/dayfly/base-debian:main "), "{podman}");
}

#[test]
fn make_publishes_by_digest_with_provenance_and_sbom_and_never_shows_the_token() {
    let env = [("PUBLISH", "1"), ("DISTRO", "ubuntu"), ("INSTALL_TOKEN", "s3cret")];
    let line = build("image-runner", &env);
    for part in [
        "docker buildx build ",
        " --provenance mode=max ",
        " --sbom true ",
        " --output type=image,name=ghcr.io/dayfly-ci/dayfly/runner-ubuntu,push-by-digest=true,name-canonical=true,push=true ",
        " --secret id=install_token,src=",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    assert!(!line.contains("s3cret"), "{line}");
}

#[test]
fn make_refuses_what_it_cannot_build() {
    for (env, error) in [
        (("DISTRO", "arch"), "DISTRO is arch, and can be one of: ubuntu fedora debian"),
        (("PLATFORM", "linux/riscv64"), "PLATFORM is linux/riscv64, and can be"),
        (("VERSION", "a b"), "VERSION is a b, which is no tag"),
        (("BUILDER", "no-such-builder"), "none of no-such-builder is installed"),
    ] {
        let output = make("image-base", &[env]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(error), "{env:?}: {said}");
    }
    let output = make("image-base", &[("PUBLISH", "1"), ("BUILDER", "podman")]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("PUBLISH=1 needs docker with buildx"));
}

#[test]
fn a_workflow_builds_every_distribution_on_every_platform() {
    let output = make("image-matrix", &[("PLATFORMS", "linux/amd64 linux/arm64")]);
    let matrix: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON in one line");
    let include = matrix["include"].as_array().expect("a list");
    assert_eq!(include.len(), 6, "{matrix}");
    for one in include {
        let arm = one["platform"] == "linux/arm64";
        assert_eq!(one["machine"], if arm { "ubuntu-24.04-arm" } else { "ubuntu-24.04" }, "{one}");
        assert!(
            repository_file(&format!("images/{}/Dockerfile", one["distro"].as_str().expect("text")))
                .is_file()
        );
    }
}

/// Returns the instructions of a Dockerfile, with continued lines joined.
fn instructions(name: &str) -> Vec<(String, String)> {
    let text = read(name).replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{name}: {line}"));
        (word.to_owned(), rest.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
    };
    lines.map(split).collect()
}

#[test]
fn every_definition_takes_its_arguments_and_mounts_the_guest_binary() {
    let step = |step: &str| format!("/_dayfly/dayfly-guest {step} -v");
    for (name, from, arguments, run) in [
        ("images/ubuntu", "docker.io/library/ubuntu:${UBUNTU_VERSION}", "UBUNTU_VERSION=24.04", step("base")),
        (
            "images/fedora",
            "registry.fedoraproject.org/fedora:${FEDORA_VERSION}",
            "FEDORA_VERSION=42",
            step("base"),
        ),
        ("images/debian", "docker.io/library/debian:${DEBIAN_VERSION}", "DEBIAN_VERSION=13", step("base")),
        (
            "images/runner",
            "${INSTALL_NAMESPACE}/base-${DISTRO}:${VERSION}",
            "INSTALL_NAMESPACE=ghcr.io/dayfly-ci/dayfly DISTRO=ubuntu VERSION=main INSTALL_VERSION=latest",
            step("install"),
        ),
    ] {
        let instructions = instructions(&format!("{name}/Dockerfile"));
        let of = |word: &str| -> Vec<&str> {
            instructions.iter().filter(|(found, _)| found == word).map(|(_, rest)| rest.as_str()).collect()
        };
        assert_eq!(of("FROM"), [from], "{name}");
        for argument in arguments.split(' ') {
            assert!(of("ARG").contains(&argument), "{name}: {argument}");
        }
        let runs = of("RUN");
        assert_eq!(runs.len(), 1, "{name}");
        assert!(
            runs[0].starts_with("--mount=type=bind,target=/_dayfly ") && runs[0].ends_with(&run),
            "{runs:?}"
        );
        // Nothing is copied, because a copy would stay in the image and become older than the host.
        let known = ["FROM", "ARG", "RUN"];
        assert!(
            instructions.iter().all(|(word, _)| known.contains(&word.as_str())),
            "{name}: {instructions:?}"
        );
    }
}

#[test]
fn workflows_call_only_make_targets_that_there_are() {
    let makefile = read("Makefile");
    let mut calls = BTreeSet::new();
    for name in ["_build.yml", "ci.yml", "dev.yml"] {
        let text = read(&format!(".github/workflows/{name}"));
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        for words in text.split("make ").skip(1).map(|rest| rest.trim_start_matches("--silent ")) {
            let target = words.split([' ', '\n', ')']).next().unwrap_or_default().trim_matches('"');
            calls.insert(target.to_owned());
        }
        // The work itself is done by scripts.
        for tool in ["buildx", "imagetools", "docker build", "cargo "] {
            assert!(!text.contains(tool), "{name} has {tool}");
        }
    }
    assert_eq!(
        calls.into_iter().collect::<Vec<_>>(),
        ["image-$STEP", "image-inspect", "image-matrix", "image-merge"]
    );
    for target in ["image-base", "image-runner", "image-inspect", "image-matrix", "image-merge"] {
        assert!(makefile.contains(&format!("\n{target}:")), "{target}");
    }
}

#[test]
fn the_smoke_job_runs_on_our_own_runners() {
    let workflow = repository_file(".github/workflows/test.yml");
    let ended = Dayfly::new(["demo", "--json", "--workflow", workflow.to_str().expect("text")]).run();
    ended.assert_status(0).assert_nothing_left();
    let log = ended.log_of("smoke");
    for text in ["dayfly-guest 0.", "dockerd", "RUNNER_", "hello from a container"] {
        assert!(log.contains(text), "{text:?} is not in {log}");
    }
}
