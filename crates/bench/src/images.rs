//! Measures what a foreign image costs until it can be booted, compared with `tar` and `mksquashfs` alone.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use dayfly_host::digest::hexadecimal;
use dayfly_image::{Image, Store};
use dayfly_vm::Driver;

use crate::Error;
use crate::figures::Figure;
use crate::machines::{Stage, Times, What};

const LAYERS: u64 = 5;
/// Interval at which memory is sampled.
const LOOK: Duration = Duration::from_millis(50);
/// Names of the figures of an image that is packed with LZ4; the next constant has those for Zstandard.
const OF_LZ4: [&str; 4] = [
    "built-in image, LZ4: root file system",
    "built-in image, LZ4: mksquashfs",
    "built-in image, LZ4: exec of the VMM -> the agent answers, booted",
    "built-in image, LZ4: exec of the VMM -> Docker answers, booted",
];
const OF_ZSTANDARD: [&str; 4] = [
    "built-in image, Zstandard: root file system",
    "built-in image, Zstandard: mksquashfs",
    "built-in image, Zstandard: exec of the VMM -> the agent answers, booted",
    "built-in image, Zstandard: exec of the VMM -> Docker answers, booted",
];
/// Unpacked size of the layers, in percent of their compressed size.
const UNPACKED_PERCENT: u64 = 150;

/// A folder for generated layers, with its own state folder, so that each conversion is a first one.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

/// A layer in an OCI layout.
pub(crate) struct Layer {
    diff_id: String,
    blob: Blob,
}

/// A file in an OCI layout, by its SHA-256.
struct Blob {
    digest: String,
    bytes: u64,
}

/// Measures the conversion of an archive, the same pull again, and an archive that shares all but its last layer.
pub(crate) fn measure(state: &Path, binary: &Path, mib: u64, samples: u32) -> Result<Vec<Figure>, Error> {
    let scratch = Scratch::new(state, binary)?;
    let mut layers =
        (0..LAYERS).map(|number| scratch.layer(number, number, mib)).collect::<Result<Vec<_>, _>>()?;
    let archive = scratch.archive("first", &layers, &[])?;
    let compressed = layers.iter().map(|layer| layer.blob.bytes).sum::<u64>();
    let (seconds, peak_mib) = scratch.pull(&archive)?;
    let by_hand = scratch.by_hand(&layers)?;
    let again =
        (0..samples).map(|_| Ok(scratch.pull(&archive)?.0 * 1000.0)).collect::<Result<Vec<_>, Error>>()?;
    layers.pop();
    layers.push(scratch.layer(LAYERS - 1, LAYERS, mib)?);
    let (next, _) = scratch.pull(&scratch.archive("second", &layers, &[])?)?;
    let one = |name, unit, goal, value| Figure::of(name, unit, goal, vec![value]);
    Ok(vec![
        one("image: layers of the archive, gzip", "MiB", "-", compressed as f64 / f64::from(1 << 20)),
        one("image: archive -> bootable : tar x and mksquashfs", ":1", "0.7", seconds / by_hand),
        one("image: archive -> bootable", "s", "-", seconds),
        one("image: tar x of each layer and mksquashfs, LZ4", "s", "-", by_hand),
        one("image: most memory (PSS) of the conversion and its programs", "MiB", "256 MiB", peak_mib),
        Figure::of("image: the same asked for again, exec -> exit", "ms", "20 ms", again),
        one("image: another one that shares all but its last layer", "s", "-", next),
    ])
}

impl Scratch {
    pub(crate) fn new(state: &Path, binary: &Path) -> Result<Self, Error> {
        let state = fs::canonicalize(state)?;
        let scratch = Self { folder: tempfile::tempdir_in(&state)?, binary: binary.to_owned() };
        fs::create_dir_all(scratch.path("state"))?;
        fs::create_dir_all(scratch.path("layout/blobs/sha256"))?;
        // Kernels and runner apps are prepared before, because they are not part of what is measured.
        for name in ["kernels", "runner-apps"] {
            fs::create_dir_all(state.join(name))?;
            std::os::unix::fs::symlink(state.join(name), scratch.path("state").join(name))?;
        }
        run(Command::new(&scratch.binary)
            .args(["image", "kernel"])
            .env("DAYFLY_STATE", scratch.path("state")))?;
        Ok(scratch)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.path("layout/blobs/sha256").join(digest)
    }

    /// Generates the layer of this number. Its contents follow from the seed.
    fn layer(&self, number: u64, seed: u64, mib: u64) -> Result<Layer, Error> {
        let tree = self.path("tree");
        files(&tree, number, seed, (mib << 20) * UNPACKED_PERCENT / 100 / LAYERS)?;
        self.pack(&tree)
    }

    /// Turns a folder into a layer.
    pub(crate) fn pack(&self, tree: &Path) -> Result<Layer, Error> {
        let tar = self.path("layer.tar");
        run(Command::new("tar").arg("-cf").arg(&tar).args(["--sort=name", "-C"]).arg(tree).arg("."))?;
        fs::remove_dir_all(tree)?;
        let diff_id = digest_of(&tar)?;
        run(Command::new("gzip").args(["-1", "-f"]).arg(&tar))?;
        let packed = self.path("layer.tar.gz");
        let blob = Blob { digest: digest_of(&packed)?, bytes: packed.metadata()?.len() };
        fs::rename(packed, self.blob_path(&blob.digest))?;
        Ok(Layer { diff_id, blob })
    }

    fn put(&self, value: &Value) -> Result<Blob, Error> {
        let text = value.to_string();
        let digest = hexadecimal(&Sha256::digest(&text));
        fs::write(self.blob_path(&digest), &text)?;
        Ok(Blob { digest, bytes: text.len() as u64 })
    }

    /// Creates the archive of an image with these layers and these variables (`NAME=value`).
    pub(crate) fn archive(&self, name: &str, layers: &[Layer], env: &[&str]) -> Result<PathBuf, Error> {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs, "config": { "Env": env } });
        let config = self.put(&config)?;
        let kind = "application/vnd.oci.image.";
        let of_layer = |layer: &Layer| described(&layer.blob, &format!("{kind}layer.v1.tar+gzip"));
        let manifest = self.put(&json!({
            "schemaVersion": 2,
            "config": described(&config, &format!("{kind}config.v1+json")),
            "layers": layers.iter().map(of_layer).collect::<Vec<_>>(),
        }))?;
        let manifests = [described(&manifest, &format!("{kind}manifest.v1+json"))];
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.path("layout/index.json"), index.to_string())?;
        fs::write(self.path("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let archive = self.path(name).with_extension("tar");
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(self.path("layout")).arg("."))?;
        Ok(archive)
    }

    /// Pulls an archive, and returns the time in seconds and the peak memory in MiB.
    fn pull(&self, archive: &Path) -> Result<(f64, f64), Error> {
        let mut command = Command::new(&self.binary);
        // The tools that dayfly adds are not part of the comparison.
        command
            .args(["image", "pull", "--image-tools", "none"])
            .arg(format!("oci-archive:{}", archive.display()));
        command.env("DAYFLY_STATE", self.path("state"));
        let errors = File::create(self.path("pull.log"))?;
        let begin = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn()?;
        // A thread waits for the process, so that the time ends with the process and not with the next sample.
        let (pid, (tell, told)) = (child.id(), std::sync::mpsc::channel());
        std::thread::spawn(move || tell.send(ended(child, begin)));
        let mut peak_mib: f64 = 0.0;
        loop {
            match told.recv_timeout(LOOK) {
                Ok(Ok(seconds)) => return Ok((seconds, peak_mib)),
                Ok(Err(error)) => {
                    return Err(format!("{error}: {}", fs::read_to_string(self.path("pull.log"))?).into());
                }
                Err(_) => peak_mib = peak_mib.max(pss_of_tree_mib(pid)),
            }
        }
    }

    /// Does the work without dayfly, with `tar` and `mksquashfs`, and returns the time in seconds.
    fn by_hand(&self, layers: &[Layer]) -> Result<f64, Error> {
        let tree = self.path("by-hand");
        fs::create_dir(&tree)?;
        let begin = Instant::now();
        for layer in layers {
            run(Command::new("tar")
                .arg("-xzf")
                .arg(self.blob_path(&layer.blob.digest))
                .arg("-C")
                .arg(&tree))?;
        }
        squash(&tree, &self.path("by-hand.squashfs"), "lz4")?;
        let seconds = begin.elapsed().as_secs_f64();
        fs::remove_dir_all(tree)?;
        Ok(seconds)
    }
}

fn described(blob: &Blob, media_type: &str) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", blob.digest), "size": blob.bytes })
}

/// Creates many files, small and large, of which half can be compressed. One in ten is in a folder of the layer below, and
/// at least half of these replace a file of that layer.
fn files(tree: &Path, number: u64, seed: u64, bytes: u64) -> Result<(), Error> {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15 ^ (seed + 1));
    let (mut written, mut count) = (0, 0_u64);
    while written < bytes {
        let below = number.checked_sub(1).filter(|_| count.is_multiple_of(10));
        let owner = below.unwrap_or(number);
        // The layer below has the next file in this folder, but this file only in a folder of the layer below that.
        let name = if below.is_some() && count.is_multiple_of(20) { count + 1 } else { count };
        let folder = tree.join(format!("opt/layer{owner}/{}", count / 100));
        if count.is_multiple_of(100) || count % 100 == 1 {
            fs::create_dir_all(&folder)?;
        }
        let length = if count.is_multiple_of(50) { 1 << 20 } else { 1024 + chance.next() % 16_384 };
        let content = if (count / 2).is_multiple_of(2) { chance.noise(length) } else { chance.text(length) };
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("file{name}")), content)?;
        written += length;
        count += 1;
    }
    Ok(())
}

/// A generator of the same numbers in each run (xorshift64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn noise(&mut self, length: u64) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(length as usize).collect()
    }

    fn text(&mut self, length: u64) -> Vec<u8> {
        const WORDS: [&str; 8] =
            ["return", "static", "struct", "buffer", "length", "offset", "const", "error"];
        let mut text = String::new();
        while (text.len() as u64) < length {
            let number = self.next();
            let _ = writeln!(
                text,
                "{} {}({});",
                WORDS[number as usize % 8],
                WORDS[(number >> 8) as usize % 8],
                number >> 48
            );
        }
        text.truncate(length as usize);
        text.into_bytes()
    }
}

fn ended(mut child: Child, begin: Instant) -> Result<f64, String> {
    let status = child.wait().map_err(|error| error.to_string())?;
    let seconds = begin.elapsed().as_secs_f64();
    if status.success() { Ok(seconds) } else { Err(format!("dayfly image pull failed ({status})")) }
}

/// Returns the PSS of a process and all of its descendants, in MiB. A process that has exited meanwhile counts as 0.
fn pss_of_tree_mib(pid: u32) -> f64 {
    let mut sum = crate::measure::pss_mib(pid).unwrap_or_default();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        sum += children.split_ascii_whitespace().flat_map(str::parse).map(pss_of_tree_mib).sum::<f64>();
    }
    sum
}

/// Packs the root file system of the machines' image with LZ4 and with Zstandard, and measures how long that takes, and how
/// long boots take with both in turns.
pub(crate) async fn compressions(stage: &Stage, state: &Path, samples: u32) -> Result<Vec<Figure>, Error> {
    let folder = tempfile::tempdir_in(state)?;
    let tree = folder.path().join("tree");
    run(Command::new("unsquashfs").args(["-quiet", "-no-progress", "-dest"]).arg(&tree).arg(stage.root()?))?;
    let mut packed = Vec::new();
    for (compression, names) in [("lz4", OF_LZ4), ("zstd", OF_ZSTANDARD)] {
        let to = folder.path().join(compression);
        packed.push((compression, names, Packed::make(stage, &tree, &to, compression)?));
    }
    for number in 0..samples {
        for (compression, _, packed) in &mut packed {
            packed.boot(stage, &format!("{compression}{number}")).await?;
        }
    }
    Ok(packed.into_iter().flat_map(|(_, names, packed)| packed.figures(names)).collect())
}

/// An image whose root file system was repacked.
struct Packed {
    image: Image,
    bytes: u64,
    seconds: f64,
    hello: Vec<f64>,
    docker: Vec<f64>,
}

impl Packed {
    fn make(stage: &Stage, tree: &Path, folder: &Path, compression: &str) -> Result<Self, Error> {
        fs::create_dir(folder)?;
        let from = stage.root()?;
        let from = from.parent().ok_or("an image without a folder")?;
        for name in ["kernel", "initramfs", "manifest.json"] {
            fs::copy(from.join(name), folder.join(name))?;
        }
        let (root, begin) = (folder.join("root.squashfs"), Instant::now());
        squash(tree, &root, compression)?;
        let seconds = begin.elapsed().as_secs_f64();
        let image = Store::new(folder).find(&folder.to_string_lossy())?;
        Ok(Self { image, bytes: root.metadata()?.len(), seconds, hello: Vec::new(), docker: Vec::new() })
    }

    async fn boot(&mut self, stage: &Stage, name: &str) -> Result<(), Error> {
        let mut machine = stage.machine(None);
        if let Driver::Qemu(settings) = &mut machine.driver {
            settings.image = self.image.clone();
        }
        let (mut vm, times) = stage.start(name, machine, What::Docker).await?;
        self.hello.push(Times::between(times.started, times.identified)? / 1000.0);
        self.docker.push(Times::between(times.started, times.docker)? / 1000.0);
        vm.kill().await;
        vm.destroy().await?;
        Ok(())
    }

    fn figures(self, [size, seconds, hello, docker]: [&'static str; 4]) -> [Figure; 4] {
        [
            Figure::of(size, "MiB", "-", vec![self.bytes as f64 / f64::from(1 << 20)]),
            Figure::of(seconds, "s", "-", vec![self.seconds]),
            Figure::of(hello, "s", "-", self.hello),
            Figure::of(docker, "s", "-", self.docker),
        ]
    }
}

fn squash(tree: &Path, to: &Path, compression: &str) -> Result<(), Error> {
    let mut command = Command::new("mksquashfs");
    command.arg(tree).arg(to).args(["-comp", compression, "-noappend", "-no-progress", "-quiet"]);
    run(&mut command)
}

pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} failed ({status})", command.get_program().display()).into())
    }
}

fn digest_of(path: &Path) -> Result<String, Error> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut Hashing(&mut hash))?;
    Ok(hexadecimal(&hash.finalize()))
}

struct Hashing<'a>(&'a mut Sha256);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Returns the files of a generated layer, with their paths from its root.
    fn layer(number: u64) -> Vec<PathBuf> {
        let tree = tempfile::tempdir().unwrap();
        files(tree.path(), number, number, 4 << 20).unwrap();
        let mut folders = vec![tree.path().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => files.push(entry.path().strip_prefix(tree.path()).unwrap().to_owned()),
                }
            }
        }
        files
    }

    #[test]
    fn some_files_of_each_layer_replace_files_of_the_layer_below() {
        let layers: Vec<_> = (0..4).map(layer).collect();
        for pair in layers.windows(2) {
            let replaced = pair[1].iter().filter(|file| pair[0].contains(file)).count();
            assert!(replaced * 50 > pair[1].len() && replaced * 5 < pair[1].len(), "{replaced}");
        }
    }
}
