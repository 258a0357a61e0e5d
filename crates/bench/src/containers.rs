//! Measures what the same root file system costs as a container: podman, with a Docker daemon started inside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;
use crate::figures::{Figure, milliseconds};

/// Longest time until the Docker in a container answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs podman in a separate mount namespace, where `/sys/fs/cgroup` is as podman needs it. Its Docker creates no networks
/// and no rules, and copies files, so it has less to do than the Docker of a machine.
const RUN: &str = r#"
set -eu
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
exec podman run --rm --privileged --cgroups disabled --network none --tmpfs /var/lib/docker:rw -v "$2":/sock --rootfs "$1" \
  dockerd --host unix:///sock/docker.sock --storage-driver vfs --bridge none --iptables=false --log-level=error
"#;

const SETTINGS: &str = "[containers]\ncgroups = \"disabled\"\n\
    default_ulimits = [\"nofile=20000:20000\", \"nproc=30000:30000\"]\n[network]\nnetwork_backend = \"netavark\"\n\
    [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

/// An unpacked root file system, and podman's own folders.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    fn new(squashfs: &Path) -> Result<Self, Error> {
        let podman = Self { folder: tempfile::tempdir()? };
        for name in ["sock", "home"] {
            fs::create_dir(podman.path(name))?;
        }
        let tmp = podman.path("tmp");
        fs::write(podman.path("containers.conf"), format!("{SETTINGS}tmp_dir = \"{}\"\n", tmp.display()))?;
        let (root, run) = (podman.path("storage"), podman.path("run"));
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {root:?}\nrunroot = {run:?}\n");
        fs::write(podman.path("storage.conf"), storage)?;
        let mut unpack = Command::new("unsquashfs");
        unpack.args(["-quiet", "-no-progress", "-dest"]).arg(podman.path("root")).arg(squashfs);
        match unpack.stdout(Stdio::null()).status()?.success() {
            true => Ok(podman),
            false => Err("the image cannot be unpacked".into()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> Result<Running, Error> {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", RUN, "sh"]).arg(self.path("root")).arg(self.path("sock"));
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf")).env("HOME", self.path("home"));
        Ok(Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

/// A podman process, which stops its container on SIGTERM.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Measures the milliseconds from the exec of podman to the first answer of the Docker inside. Returns `None` if there is no
/// podman or the user is not root.
pub(crate) fn measure(squashfs: &Path, samples: u32) -> Result<Option<Figure>, Error> {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/podman").exists() {
        eprintln!("bench: no podman here, or not root: its figure is left out");
        return Ok(None);
    }
    let podman = Podman::new(squashfs)?;
    // The first sample fills the page cache, and is removed.
    let mut all = (0..=samples).map(|_| until_docker_answers(&podman)).collect::<Result<Vec<_>, _>>()?;
    all.remove(0);
    let name = "podman run of the same root -> Docker started inside answers";
    Ok(Some(Figure::of(name, "ms", "-", all)))
}

fn until_docker_answers(podman: &Podman) -> Result<f64, Error> {
    let socket = podman.path("sock").join("docker.sock");
    let _ = fs::remove_file(&socket);
    let begin = Instant::now();
    let mut running = podman.start()?;
    while begin.elapsed() < PATIENCE {
        if ping(&socket).is_ok() {
            return Ok(milliseconds(begin));
        }
        if let Some(status) = running.0.try_wait()? {
            return Err(format!("podman ended ({status})").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err("Docker in a container did not answer".into())
}

fn ping(socket: &Path) -> Result<(), Error> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
    let mut answer = [0; 64];
    let count = stream.read(&mut answer)?;
    if String::from_utf8_lossy(&answer[..count]).contains(" 200 ") { Ok(()) } else { Err("no answer".into()) }
}
