//! A registry of one repository, on loopback and without encryption. The test decides what happens before a blob is sent.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

/// A function that is called before a blob is sent, with the blob's digest.
pub(crate) type Before = dyn FnMut(&str) + Send;

/// A registry that answers until the process exits.
pub(crate) struct Plain {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// Manifests and blobs, by URL path.
    documents: BTreeMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
    before: Mutex<Box<Before>>,
}

/// Returns a digest in OCI's notation.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let digits: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

/// Returns a layer with one file that cannot be compressed.
pub(crate) fn layer(name: &str, length: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    std::fs::write(folder.path().join(name), noise.take(length).collect::<Vec<u8>>()).expect("a file");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder.path()).args(["--mtime=@7", "--owner=0", "--group=0", "-cf", "-", name]);
    let output = tar.stderr(Stdio::inherit()).output().expect("tar");
    assert!(output.status.success());
    output.stdout
}

impl Plain {
    /// Starts a registry with images of these tags and layers.
    pub(crate) fn start(images: &[(&str, &[&[u8]])]) -> Self {
        let mut documents = BTreeMap::new();
        for (tag, layers) in images {
            let config = serde_json::json!({ "architecture": "amd64", "os": "linux",
                "rootfs": { "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>() } });
            let config = config.to_string().into_bytes();
            let of = |bytes: &[u8]| serde_json::json!({ "digest": digest(bytes), "size": bytes.len() });
            let described: Vec<_> = layers.iter().map(|layer| of(layer)).collect();
            let manifest =
                serde_json::json!({ "schemaVersion": 2, "config": of(&config), "layers": described });
            let manifest = manifest.to_string().into_bytes();
            for blob in layers.iter().copied().chain([config.as_slice()]) {
                documents.insert(format!("/v2/team/app/blobs/{}", digest(blob)), blob.to_vec());
            }
            for reference in [(*tag).to_owned(), digest(&manifest)] {
                documents.insert(format!("/v2/team/app/manifests/{reference}"), manifest.clone());
            }
        }
        let shared =
            Shared { documents, asked: Mutex::default(), before: Mutex::new(Box::new(|_: &str| {})) };
        let shared = Arc::new(shared);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let registry = Self { port, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.answer(stream));
            }
        });
        registry
    }

    /// Returns the name of an image.
    pub(crate) fn name(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/team/app:{tag}", self.port)
    }

    /// Sets the function that is called before a blob is sent.
    pub(crate) fn before_blobs(&self, before: impl FnMut(&str) + Send + 'static) {
        *self.shared.before.lock().expect("not poisoned") = Box::new(before);
    }

    /// Returns the number of requests whose path ends with `end`.
    pub(crate) fn asked(&self, end: &str) -> usize {
        let asked = self.shared.asked.lock().expect("not poisoned");
        asked.iter().filter(|path| path.ends_with(end)).count()
    }
}

impl Shared {
    /// Answers one request for each connection. A TLS client gets the answer of a server without TLS.
    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        if reader.fill_buf().ok()?.first() == Some(&0x16) {
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").ok()?;
            let _ = reader.read(&mut [0; 4096]);
            return None;
        }
        let mut lines = reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let first = lines.next()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        lines.for_each(drop);
        self.asked.lock().expect("not poisoned").push(format!("{method} {path}"));
        let Some(document) = self.documents.get(path) else {
            return stream
                .write_all(b"HTTP/1.1 404 X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .ok();
        };
        if let Some(digest) = path.strip_prefix("/v2/team/app/blobs/") {
            (self.before.lock().expect("not poisoned"))(digest);
        }
        let length = document.len();
        let head = format!(
            "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {length}\r\nDocker-Content-Digest: {}\r\n\r\n",
            digest(document)
        );
        stream.write_all(head.as_bytes()).ok()?;
        if method == "HEAD" { Some(()) } else { stream.write_all(document).ok() }
    }
}
