//! Builds images with buildah that have every oddity that a layer may have.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// buildah with its own storage.
pub(crate) struct Buildah {
    folder: PathBuf,
}

impl Buildah {
    pub(crate) fn new(folder: &Path) -> Self {
        let buildah = Self { folder: folder.to_owned() };
        fs::write(folder.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
            .expect("policy");
        buildah
    }

    fn run(&self, arguments: &[&str]) -> String {
        let store = |name: &str| self.folder.join(name).display().to_string();
        let output = Command::new("buildah")
            .args(["--root", &store("store"), "--runroot", &store("run"), "--storage-driver", "vfs"])
            .args(arguments)
            .env("TMPDIR", &self.folder)
            .output()
            .expect("buildah");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Pushes an image to an archive or a registry.
    pub(crate) fn push(&self, image: &str, to: &str, more: &[String]) {
        let policy = self.folder.join("policy.json").display().to_string();
        let mut arguments = vec!["push", "-q", "--signature-policy", &policy];
        arguments.extend(more.iter().map(String::as_str));
        arguments.extend([image, to]);
        self.run(&arguments);
    }

    /// Pushes an image `localhost/NAME:1` to an archive, and returns the archive's name.
    pub(crate) fn archive(&self, image: &str) -> String {
        let name = image.trim_start_matches("localhost/").trim_end_matches(":1");
        let archive = format!("oci-archive:{}", self.folder.join(name).display());
        self.push(image, &archive, &[]);
        archive
    }

    /// Builds an image of one layer in which a job could run, after `change` was applied to its files.
    pub(crate) fn make_with(&self, name: &str, change: impl Fn(&Path)) {
        self.make_configured(name, &[], change);
    }

    /// Builds an image that has a shell and a few programs, and nothing else, not even a C library.
    pub(crate) fn make_bare(&self, name: &str) {
        let container = self.run(&["from", "-q", "--pull-never", "scratch"]);
        let root = self.run(&["mount", &container]);
        busybox(Path::new(&root), &["sh", "cat", "id", "sleep", "mkdir", "ls", "head"]);
        self.run(&["commit", "-q", &container, name]);
    }

    /// Builds an image as the steps of GitHub's Dockerfile (actions/runner, `images/Dockerfile`) do: the app is in the home
    /// of its user, who is in the group `docker`, and Docker's own programs are in `/usr/bin`. There is no `iptables`, no
    /// `kmod` and no tool cache. `engine` is a folder with Docker's programs in `bin` and their libraries in `lib`.
    /// github-act-runner is used instead of the official app.
    pub(crate) fn make_like_github(&self, name: &str, engine: &Path, app: &Path) {
        let config = ["--user", "runner", "--env", "ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT=1"];
        self.make_configured(name, &config, |root| {
            write(
                &root.join("etc/passwd"),
                "root:x:0:0::/root:/bin/sh\nrunner:x:1001:1001::/home/runner:/bin/bash\n",
            );
            write(&root.join("etc/group"), "root:x:0:\ndocker:x:123:runner\nrunner:x:1001:\n");
            fs::create_dir_all(root.join("home/runner")).expect("a home");
            fs::copy(app, root.join("home/runner/github-act-runner")).expect("the app");
            fs::create_dir_all(root.join("usr/bin")).expect("a folder");
            for program in [
                "dockerd",
                "docker",
                "docker-init",
                "docker-proxy",
                "containerd",
                "containerd-shim-runc-v2",
                "runc",
            ] {
                fs::copy(engine.join("bin").join(program), root.join("usr/bin").join(program))
                    .expect(program);
            }
            let libraries = root.join("opt/dayfly");
            fs::create_dir_all(&libraries).expect("a folder");
            let copied = Command::new("cp").arg("-a").arg(engine.join("lib")).arg(&libraries).status();
            assert!(copied.expect("cp").success());
            // The host's tools are closed to other users.
            let opened =
                Command::new("chmod").args(["-R", "a+rX"]).args([root.join("usr/bin"), libraries]).status();
            assert!(opened.expect("chmod").success());
            for owned in ["home/runner", "home/runner/github-act-runner"] {
                chown(root.join(owned), Some(1001), Some(1001)).expect("an owner");
            }
        });
    }

    fn make_configured(&self, name: &str, config: &[&str], change: impl Fn(&Path)) {
        let container = self.run(&["from", "-q", "--pull-never", "scratch"]);
        let root = self.run(&["mount", &container]);
        programs(Path::new(&root));
        change(Path::new(&root));
        self.run(&[&["config"], config, &[container.as_str()]].concat());
        self.run(&["commit", "-q", &container, name]);
    }

    /// Builds an image of one layer in which a job can run, with its version in `ENV`.
    pub(crate) fn make_version(&self, name: &str, version: &str) {
        let path = "PATH=/of/the/image:/usr/bin:/bin";
        let version = format!("VERSION={version}");
        let config = ["--env", &version, "--env", path, "--env", "HOME=/of/the/image"];
        self.make_configured(name, &config, |_| ());
    }

    /// Builds an image of three layers, and returns the folder into which buildah unpacks it.
    pub(crate) fn make_oddities(&self, name: &str) -> PathBuf {
        let changes: [fn(&Path); 3] = [first, second, third];
        for (index, change) in changes.into_iter().enumerate() {
            let from = if index == 0 { "scratch".to_owned() } else { format!("localhost/step:{index}") };
            let container = self.run(&["from", "-q", "--pull-never", &from]);
            change(Path::new(&self.run(&["mount", &container])));
            self.run(&["config", "--env", "COLOUR=blue", "--workingdir", "/data", &container]);
            let step = format!("localhost/step:{}", index + 1);
            let to = if index == 2 { name } else { &step };
            self.run(&["commit", "-q", &container, to]);
        }
        let container = self.run(&["from", "-q", "--pull-never", name]);
        self.run(&["mount", &container]).into()
    }
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    fs::write(path, text).expect("a file");
}

fn set_attribute(path: &Path, name: &str, value: &str) {
    let status = Command::new("setfattr").args(["-h", "-n", name, "-v", value]).arg(path).status();
    assert!(status.expect("setfattr").success(), "{name}");
}

/// Adds busybox, which needs no library, under these names, and the folders that programs and users need.
fn busybox(root: &Path, names: &[&str]) {
    for folder in ["bin", "etc", "tmp", "root", "usr/lib"] {
        fs::create_dir_all(root.join(folder)).expect("folders");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("mode");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    for name in names {
        symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
}

/// Adds the programs that a job is run with.
fn programs(root: &Path) {
    busybox(root, &["cat", "id", "sleep"]);
    for program in ["/bin/sh", "/bin/bash"] {
        copy_with_libraries(program, root);
    }
    write(&root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n");
    write(&root.join("etc/group"), "root:x:0:\n");
}

/// Creates everything that the layers above change.
fn first(root: &Path) {
    programs(root);
    let data = root.join("data");
    fs::create_dir(&data).expect("a folder");
    for file in ["gone", "folder/inside", "will-be-a-folder", "kept/first", "links/a", "removed/deep/er/file"]
    {
        write(&data.join(file), "first");
    }
    fs::hard_link(data.join("links/a"), data.join("links/b")).expect("a hard link");
    fs::hard_link(data.join("links/a"), data.join("c, elsewhere")).expect("a hard link");
    symlink("kept", data.join("link-to-folder")).expect("a link");
    symlink("/nowhere/at/all", data.join("dangling")).expect("a link");
    write(&data.join("d".repeat(200)).join("n".repeat(220)), "a long name");
    symlink("t".repeat(300), data.join("link with a long target")).expect("a link");
    strange(&data);
}

/// Creates files that are odd in themselves.
fn strange(data: &Path) {
    write(&data.join("set-user-id"), "#!/bin/sh\n");
    chown(data.join("set-user-id"), Some(3_000_000_000), Some(70_000)).expect("an owner");
    fs::set_permissions(data.join("set-user-id"), fs::Permissions::from_mode(0o6755)).expect("mode");
    write(&data.join("with capability"), "x");
    // cap_net_raw+ep, as `setcap` writes it.
    set_attribute(
        &data.join("with capability"),
        "security.capability",
        "0x0100000200200000000000000000000000000000",
    );
    set_attribute(&data.join("with capability"), "user.note", "one\ttwo");
    let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"line\nbreak \xff".to_vec());
    write(&data.join(name), "a strange name");
    let holes = fs::File::create(data.join("holes")).expect("a file");
    holes.write_all_at(b"here", 3_000_000).expect("data");
    holes.set_len(9_000_000).expect("length");
    for (program, file) in [("mkfifo", "pipe"), ("mknod", "device")] {
        let more: &[&str] = if program == "mknod" { &["c", "1", "3"] } else { &[] };
        let status = Command::new(program).arg(data.join(file)).args(more).status();
        assert!(status.expect(program).success());
    }
    lchown(data.join("pipe"), Some(7), Some(8)).expect("an owner");
}

/// Removes files, changes their kind, or removes one of their names.
fn second(root: &Path) {
    let data = root.join("data");
    fs::remove_file(data.join("gone")).expect("removed");
    fs::remove_dir_all(data.join("removed")).expect("removed");
    fs::remove_dir_all(data.join("folder")).expect("removed");
    write(&data.join("folder"), "a file where a folder was");
    fs::remove_file(data.join("will-be-a-folder")).expect("removed");
    write(&data.join("will-be-a-folder/inside"), "second");
    write(&data.join("kept/second"), "second");
    fs::remove_file(data.join("links/a")).expect("removed");
    write(&data.join("again/x"), "second");
}

/// Does so once more, and creates a removed folder again, empty.
fn third(root: &Path) {
    let data = root.join("data");
    fs::remove_dir_all(data.join("again")).expect("removed");
    write(&data.join("again/y"), "third");
    fs::create_dir(data.join("removed")).expect("a folder");
    fs::set_permissions(data.join("kept"), fs::Permissions::from_mode(0o751)).expect("mode");
    write(&data.join("links/a"), "another file of the same name");
}

fn copy_with_libraries(program: &str, root: &Path) {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries = text.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let to = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a parent")).expect("folders");
        fs::copy(file, to).expect(file);
    }
}
