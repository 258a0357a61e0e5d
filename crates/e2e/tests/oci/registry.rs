//! A registry: Debian's `docker-registry` on loopback, with TLS and a password.

use std::cell::RefCell;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USER: &str = "someone:secret";

/// A registry that runs until it is dropped.
pub(crate) struct Registry {
    folder: PathBuf,
    port: u16,
    child: RefCell<Child>,
}

impl Registry {
    pub(crate) fn start(folder: &Path) -> Self {
        let folder = folder.join("registry");
        fs::create_dir_all(folder.join("certificates")).expect("a folder");
        // The port is free now, and no other process in this network namespace takes it.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let path = |name: &str| folder.join(name).display().to_string();
        let (key, certificate) = (path("key.pem"), path("certificates/ca.crt"));
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        );
        let (user, password) = USER.split_once(':').expect("a colon");
        run("htpasswd", &["-cbB", &path("users"), user, password]);
        let settings = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}', tls: {{certificate: {certificate}, key: {key}}}}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            path("data"),
            path("users")
        );
        fs::write(folder.join("config.yml"), settings).expect("settings");
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, USER);
        let auths = serde_json::json!({ "auths": { format!("localhost:{port}"): { "auth": auth } } });
        fs::write(folder.join("auth.json"), auths.to_string()).expect("credentials");
        let registries =
            serde_json::json!({ format!("localhost:{port}"): { "authorities": "certificates/ca.crt" } });
        fs::write(folder.join("registries.json"), registries.to_string()).expect("registries");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        let registry = Self { folder, port, child: RefCell::new(child) };
        registry.wait();
        registry
    }

    fn wait(&self) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the file that names the certificate authority of the registry.
    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.join("registries.json")
    }

    /// Returns the file with the credentials for the registry.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.folder.join("auth.json")
    }

    /// Returns the options that buildah needs to push.
    pub(crate) fn login(&self) -> Vec<String> {
        let certificates = self.folder.join("certificates").display().to_string();
        ["--creds", USER, "--cert-dir", &certificates].map(str::to_owned).to_vec()
    }

    /// Returns the digest of a tag, as the registry stores it on its disk.
    pub(crate) fn digest_of(&self, repository: &str, tag: &str) -> String {
        let link =
            format!("data/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link");
        fs::read_to_string(self.folder.join(link)).expect("a link")
    }

    /// Stops the registry.
    pub(crate) fn stop(&self) {
        let mut child = self.child.borrow_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
