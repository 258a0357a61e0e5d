//! Tests of `dayfly-guest install` against a test forge on the loopback interface, with scripts in place of runner apps.
//! The real curl, tar and sha256sum do the work, as in an image.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

const VERSION: &str = "2.336.0";

/// A forge that serves files, and records the requests.
struct Forge {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Forge {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (requests, files) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<HashMap<_, _>>>::default());
        let forge = Self { address, requests: Arc::clone(&requests), files: Arc::clone(&files) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &requests, &files);
            }
        });
        forge
    }

    fn has(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.lock().unwrap().insert(path.to_owned(), content.into());
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, requests: &Mutex<Vec<String>>, files: &Mutex<HashMap<String, Vec<u8>>>) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let secret = lines.iter().find(|line| line.starts_with("Authorization: ")).map_or("", String::as_str);
    requests.lock().unwrap().push(format!("{path} {secret}").trim().to_owned());
    let file = files.lock().unwrap().get(path).cloned();
    let (status, body) = file.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.get_mut().write_all(&[head.as_bytes(), &body].concat());
}

/// A temporary folder to install into.
struct InstallFolder {
    folder: tempfile::TempDir,
}

/// Exit status and output of an installation.
struct Ended {
    code: Option<i32>,
    said: String,
}

impl InstallFolder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn dir(&self) -> PathBuf {
        self.path("dir")
    }

    /// Returns the names in the folder of apps.
    fn installed(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Returns a copy of the program, without the files that may be beside the original.
    fn program(&self) -> PathBuf {
        let program = self.path("bin/dayfly-guest");
        if !program.exists() {
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            // Another process makes the copy. If this process had the file open for writing while another test's thread
            // forked, the program would be busy until that thread's child has called exec.
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_dayfly-guest")).arg(&program).status();
            assert!(copied.unwrap().success());
        }
        program
    }

    fn install(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        let program = self.program();
        // Only root can install, and every user is root in a user namespace.
        let mut command = if rustix::process::geteuid().is_root() {
            Command::new(&program)
        } else {
            let mut command = Command::new("unshare");
            command.arg("--map-root-user").arg(&program);
            command
        };
        command.arg("install").args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("INSTALL_DIR", self.dir()).env("INSTALL_TOOL_CACHE", self.path("tools"));
        command.env("INSTALL_DIRECTORIES", self.path("work")).env("INSTALL_USER", "root");
        command.env("INSTALL_DEPENDENCIES", "0").env("INSTALL_ARCH", "x64").env("INSTALL_LOG", "1");
        let output = command.envs(env.iter().copied()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        Ended { code: output.status.code(), said }
    }

    /// Creates an archive of an app whose program is a script. Returns it with its sha256.
    fn archive(&self, program: &str, version: &str) -> (PathBuf, String) {
        let tree = self.path("made");
        let script = tree.join(program);
        fs::create_dir_all(script.parent().unwrap()).unwrap();
        fs::write(&script, format!("#!/bin/sh\necho {version}\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let archive = self.path(&format!("actions-runner-linux-x64-{VERSION}.tar.gz"));
        let tar = Command::new("tar").arg("-C").arg(&tree).arg("-czf").arg(&archive).arg(".").status();
        assert!(tar.unwrap().success());
        let digest = sha256(&archive);
        (archive, digest)
    }
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

impl Ended {
    fn expect(&self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        assert!(self.said.contains(text), "{text:?} is not in: {}", self.said);
    }
}

/// Adds a release of the official app to the forge, with a checksum and its archive.
fn release(forge: &Forge, archive: &Path, digest: &str) {
    let name = archive.file_name().unwrap().to_str().unwrap();
    let text = serde_json::json!({
        "tag_name": format!("v{VERSION}"),
        "body": format!("- {name} <!-- BEGIN SHA linux-x64 -->{digest}<!-- END SHA linux-x64 -->"),
        "assets": [{ "name": name, "browser_download_url": format!("{}/files/{name}", forge.address) }],
    });
    for which in ["latest".to_owned(), format!("tags/v{VERSION}")] {
        forge.has(&format!("/api/v3/repos/actions/runner/releases/{which}"), text.to_string());
    }
    forge.has(&format!("/files/{name}"), fs::read(archive).unwrap());
}

#[test]
fn the_latest_release_is_installed_whole_and_once() {
    let (forge, place) = (Forge::start(), InstallFolder::new());
    let (archive, digest) = place.archive("bin/Runner.Listener", VERSION);
    release(&forge, &archive, &digest);
    let env = [("INSTALL_GITHUB", forge.address.as_str()), ("INSTALL_TOKEN", "s3cret")];
    place.install(&["-v"], &env).expect(0, "install: done: ");
    assert_eq!(place.installed(), [format!("runner-{VERSION}")], "no stage is left");
    let program = place.dir().join(format!("runner-{VERSION}/bin/Runner.Listener"));
    assert_eq!(fs::metadata(program).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(place.path("work").is_dir() && place.path("tools").is_dir());
    let asked = forge.requests();
    assert_eq!(asked[0], "/api/v3/repos/actions/runner/releases/latest Authorization: Bearer s3cret");
    assert_eq!(
        asked[1],
        format!("/files/actions-runner-linux-x64-{VERSION}.tar.gz"),
        "the token stays with the API"
    );
    place.install(&[], &env).expect(0, " already");
    assert_eq!(forge.requests().len(), 3, "nothing is fetched twice");
}

#[test]
fn what_is_asked_for_and_cannot_be_had_is_an_error_that_says_so() {
    let (forge, place) = (Forge::start(), InstallFolder::new());
    let (archive, digest) = place.archive("bin/Runner.Listener", VERSION);
    release(&forge, &archive, &digest);
    let env = [("INSTALL_GITHUB", forge.address.as_str())];
    place.install(&["2.1.0"], &env).expect(1, "there is no version 2.1.0 of actions/runner");
    place
        .install(&["latest", "arm64"], &env)
        .expect(1, "has no actions-runner-linux-arm64-2.336.0.tar.gz; it has: ");
    let project = [env[0], ("INSTALL_PROJECT", "acme/runner")];
    place.install(&[], &project).expect(1, "answered 404: it does not exist");
    let nobody = [("INSTALL_GITHUB", "http://127.0.0.1:9"), ("INSTALL_PROJECT", "actions/runner")];
    place
        .install(&[], &nobody)
        .expect(1, "cannot reach http://127.0.0.1:9/api/v3/repos/actions/runner/releases/latest: (7) ");
    place.install(&["newest"], &env).expect(2, "INSTALL_VERSION is \"newest\", and must be ");
    assert!(place.installed().is_empty());
}

#[test]
fn an_archive_that_is_not_what_the_forge_says_is_refused() {
    let (forge, place) = (Forge::start(), InstallFolder::new());
    let (archive, _) = place.archive("bin/Runner.Listener", VERSION);
    release(&forge, &archive, &"0".repeat(64));
    let env = [("INSTALL_GITHUB", forge.address.as_str())];
    place.install(&[], &env).expect(1, "the file was changed, or is incomplete");
    assert!(place.installed().is_empty());
}

#[test]
fn an_app_that_does_not_start_or_is_another_one_is_refused() {
    let (forge, place) = (Forge::start(), InstallFolder::new());
    let env = [("INSTALL_GITHUB", forge.address.as_str())];
    for (program, version, error) in [
        ("bin/Runner.Listener", "2.335.0", "does not say that it is version 2.336.0, but \"2.335.0\""),
        ("bin/Runner.Listener", "; echo libicu is missing; exit 3", "libicu is missing"),
    ] {
        let (archive, digest) = place.archive(program, version);
        release(&forge, &archive, &digest);
        place.install(&[], &env).expect(1, error);
    }
    fs::remove_dir_all(place.path("made")).unwrap();
    let (archive, digest) = place.archive("bin/Runner.Worker", VERSION);
    release(&forge, &archive, &digest);
    place.install(&[], &env).expect(1, "the archive has no bin/Runner.Listener");
    assert!(place.installed().is_empty());
}

#[test]
fn a_forge_names_the_app_of_its_runners() {
    let (forge, place) = (Forge::start(), InstallFolder::new());
    let (archive, digest) = place.archive("bin/Runner.Listener", VERSION);
    let downloads = serde_json::json!([{
        "os": "linux", "architecture": "x64", "download_url": format!("{}/d", forge.address),
        "filename": archive.file_name().unwrap().to_str().unwrap(), "sha256_checksum": digest, "temp_download_token": "once",
    }]);
    forge.has("/api/v3/orgs/acme/actions/runners/downloads", downloads.to_string());
    forge.has("/d", fs::read(&archive).unwrap());
    let env = [
        ("INSTALL_GITHUB", forge.address.as_str()),
        ("INSTALL_PRINCIPAL", "acme"),
        ("INSTALL_TOKEN", "s3cret"),
    ];
    place.install(&[], &env).expect(0, "install: done: ");
    assert_eq!(forge.requests()[1], "/d Authorization: Bearer once");
    assert_eq!(place.installed(), [format!("runner-{VERSION}")]);
}

#[test]
fn a_file_is_installed_with_its_checksum_and_not_without() {
    let place = InstallFolder::new();
    let (archive, digest) = place.archive("bin/Runner.Listener", VERSION);
    let file = archive.to_str().unwrap();
    place.install(&[file], &[]).expect(1, "no checksum to check it against");
    fs::write(format!("{file}.sha256"), format!("{digest}  name\n")).unwrap();
    place.install(&[file], &[]).expect(0, "install: done: ");
    assert_eq!(place.installed(), [format!("runner-{VERSION}")]);
}

#[test]
fn where_the_official_app_cannot_be_reached_the_one_beside_takes_its_place_unless_it_was_asked_for() {
    let place = InstallFolder::new();
    let nobody = ("INSTALL_GITHUB", "http://127.0.0.1:9");
    place.install(&[], &[nobody]).expect(1, "and there is no github-act-runner beside this program");
    let beside = place.path("bin/runner-app");
    fs::create_dir(&beside).unwrap();
    let program = beside.join("github-act-runner");
    fs::write(&program, "#!/bin/sh\necho github-act-runner version dev\n").unwrap();
    let manifest = serde_json::json!({ "name": "x", "version": "v0.13.0", "sha256": sha256(&program) });
    fs::write(beside.join("manifest.json"), manifest.to_string()).unwrap();
    place.install(&["2.336.0"], &[nobody]).expect(1, "cannot reach http://127.0.0.1:9/");
    assert!(place.installed().is_empty());
    place.install(&[], &[nobody]).expect(0, "taking github-act-runner in place of the official runner app");
    assert_eq!(place.installed(), ["runner-0.13.0"]);
    let mut copy = String::new();
    let installed = place.dir().join("runner-0.13.0/github-act-runner");
    fs::File::open(&installed).unwrap().read_to_string(&mut copy).unwrap();
    assert!(copy.contains("version dev"));
    // If the app is requested by name, no forge is needed.
    fs::remove_dir_all(place.dir()).unwrap();
    let project = ("INSTALL_PROJECT", "ChristopherHX/github-act-runner");
    place.install(&[], &[nobody, project]).expect(0, "install: done: ");
    fs::write(&program, "changed").unwrap();
    fs::remove_dir_all(place.dir()).unwrap();
    place.install(&[], &[nobody]).expect(1, "the file was changed, or is incomplete");
}
