//! The converters of a build, each with its bounds: far above the needs of any real image, and below those that would harm
//! the host. [`dayfly_host::confine`] has the walls around them.

use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dayfly_host::confine::{Bounds, Lent, converter, take_back_tree};

use super::ImageError;
use super::error::failed;
use crate::oci::layer::Attributes;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// Bounds of a program that works on one file of a package or an image.
const OF_FILE: Bounds =
    Bounds { memory: 2 * GIB, file: GIB, processor: Duration::from_secs(600), descriptors: 256, threads: 1 };
/// Longest output of a filter, bytes.
pub(super) const FILTERED_LENGTH_MAX: u64 = 64 * MIB;
/// Threads of `zstd`, which has some for its input and output.
const ZSTD_THREADS: u64 = 16;

/// Returns the command of `mksquashfs` with the options of every image, and its output, which is to be taken back after the
/// run. It reads a stream of tar from its standard input, whose headers hold the owners and modes of the files. So it needs
/// no tree on the disk, no right to read one, and no privilege. The mode of the `root` is an option, because mksquashfs ignores
/// an archive's entry for it. Its owner is one as well, but mksquashfs 4.5.1 ignores that too for an archive, and gives the root
/// to its own user. No machine sees this owner, because the root of its overlay is a folder of its scratch disk.
pub(super) fn mksquashfs(to: &Path, memory: &str, root: &Attributes) -> Result<(Command, Lent), ImageError> {
    let output = Lent::file(to).map_err(failed("make", to))?;
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let bounds = Bounds {
        // Lists of 1.5 million files, and what each thread reserves: its stack, and an arena of its allocator.
        memory: 4 * GIB + processors * 256 * MIB,
        file: 128 * GIB,
        processor: Duration::from_secs(4 * 3600),
        descriptors: 256,
        threads: 32 + 4 * processors,
    };
    let mut command = converter("mksquashfs", bounds, &[&output]);
    command.arg("-").arg(output.path());
    // Under emulation, LZ4 is unpacked several times faster than Zstandard, for a third more space.
    command.args(["-tar", "-comp", "lz4", "-mem", memory, "-noappend", "-no-progress", "-quiet"]);
    command.arg("-root-mode").arg(format!("{:o}", root.mode));
    command.arg("-root-uid").arg(root.uid.to_string()).arg("-root-gid").arg(root.gid.to_string());
    Ok((command, output))
}

/// Runs `depmod` for the modules of a kernel, which are in `lib/modules/<release>` below `base`. It writes its lists there, so
/// it gets the kernel's folder. It reads the modules as a user who owns nothing else, so they are made readable for all; the
/// folder that `base` is in stays closed.
pub(super) fn depmod(program: &Path, base: &Path, release: &str) -> Result<Output, ImageError> {
    let folder = base.join("lib/modules").join(release);
    make_readable(base).map_err(failed("make readable", base))?;
    let of_base = Lent::folder_to_read(base).map_err(failed("open", base))?;
    let of_kernel = Lent::folder(&folder).map_err(failed("open", &folder))?;
    let output = converter(program, OF_FILE, &[&of_base, &of_kernel])
        .arg("-b")
        .arg(of_base.path())
        .arg(release)
        .output();
    of_kernel.take_back().and_then(|()| take_back_tree(&folder)).map_err(failed("take back", &folder))?;
    output.map_err(failed("run", program))
}

/// Makes a folder and everything in it readable for all.
fn make_readable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => make_readable(&entry.path())?,
            kind if kind.is_file() => fs::set_permissions(entry.path(), Permissions::from_mode(0o644))?,
            _ => {}
        }
    }
    Ok(())
}

/// Runs `patchelf`, on a file if one is given, which it may change.
pub(super) fn patchelf(arguments: &[&str], file: Option<&Path>) -> io::Result<Output> {
    let file = file.map(Lent::file).transpose()?;
    let mut command = converter("patchelf", OF_FILE, &file.iter().collect::<Vec<_>>());
    command.args(arguments).args(file.as_ref().map(Lent::path));
    let output = command.output();
    file.map_or(Ok(()), |file| file.take_back())?;
    output
}

/// Sends bytes through `xz` or `zstd`, and returns its output.
pub(super) fn filter(program: &str, args: &[&str], input: &[u8]) -> io::Result<Vec<u8>> {
    let threads = if program == "zstd" { ZSTD_THREADS } else { 1 };
    let mut child = converter(program, Bounds { file: 0, threads, ..OF_FILE }, &[])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut output = Vec::new();
    let read = std::thread::scope(|scope| {
        scope.spawn(move || {
            // Write errors are ignored, because a program that exits early reports the reason by its status.
            stdin.map(|mut stdin| stdin.write_all(input))
        });
        // Dropped at the limit, so that a program with more output fails and exits.
        stdout.map_or(Ok(0), |stdout| stdout.take(FILTERED_LENGTH_MAX).read_to_end(&mut output))
    });
    let status = child.wait()?;
    read?;
    if status.success() { Ok(output) } else { Err(io::Error::other(format!("{program}: {status}"))) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};

    use super::*;

    /// A folder that is closed to all other users, as the state folder is.
    fn closed() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("mode");
        folder
    }

    fn is_ours(path: &Path) -> bool {
        fs::metadata(path).expect("there").uid() == rustix::process::geteuid().as_raw()
    }

    #[test]
    fn mksquashfs_packs_a_tar_stream_into_a_closed_folder_with_the_owners_of_the_headers() {
        let (folder, tree) = (closed(), tempfile::tempdir().expect("folder"));
        fs::create_dir(tree.path().join("sub")).expect("folder");
        fs::write(tree.path().join("sub/file"), "text").expect("written");
        let mut tar = Command::new("tar");
        tar.args(["-c", "--owner=1234", "--group=5678", "-C"]).arg(tree.path()).arg("sub");
        let mut tar = tar.stdout(Stdio::piped()).spawn().expect("tar");
        let path = folder.path().join("root.squashfs");
        let root = Attributes { mode: 0o751, uid: 7, gid: 8, ..Attributes::default() };
        let (mut command, output) = mksquashfs(&path, "48M", &root).expect("made");
        let status = command.stdin(tar.stdout.take().expect("a stream")).status().expect("it runs");
        assert!(status.success() && tar.wait().expect("tar").success());
        output.take_back().expect("taken back");
        assert!(is_ours(&path));
        let list = Command::new("unsquashfs").args(["-lln"]).arg(&path).output().expect("unsquashfs");
        let list = String::from_utf8(list.stdout).expect("text");
        let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
        let of =
            |name: &str| lines.iter().find(|line| line.last() == Some(&name)).map(|line| line[..2].to_vec());
        assert_eq!(of("squashfs-root").expect("a root")[0], "drwxr-x--x", "{list}");
        assert_eq!(of("squashfs-root/sub/file"), Some(vec!["-rw-r--r--", "1234/5678"]), "{list}");
    }

    #[test]
    fn depmod_writes_its_lists_into_the_kernels_folder_alone() {
        let Some(program) = super::super::kernel::depmod() else { return };
        let folder = closed();
        let base = folder.path().join("modules");
        let kernel = base.join("lib/modules/6.1-x");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&kernel).expect("folders");
        for list in ["modules.order", "modules.builtin"] {
            fs::write(kernel.join(list), "").expect("written");
        }
        let output = depmod(program, &base, "6.1-x").expect("it runs");
        assert!(output.status.success(), "{output:?}");
        assert!(is_ours(&kernel.join("modules.dep")) && is_ours(&kernel));
    }

    #[test]
    fn patchelf_changes_a_program_in_a_closed_folder() {
        let folder = closed();
        let program = folder.path().join("true");
        fs::copy("/bin/true", &program).expect("copied");
        let said = |arguments: &[&str]| {
            let output = patchelf(arguments, Some(&program)).expect("it runs");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).expect("text")
        };
        said(&["--force-rpath", "--set-rpath", "/opt/x"]);
        assert_eq!(said(&["--print-rpath"]), "/opt/x\n");
        assert!(is_ours(&program));
    }

    #[test]
    fn filters_unpack_what_they_have_packed() {
        let input = vec![b'x'; 300_000];
        for program in ["xz", "zstd"] {
            let packed = filter(program, &["-c"], &input).expect("packed");
            assert!(packed.len() < 10_000 && filter(program, &["-dc"], &packed).expect("unpacked") == input);
        }
    }
}
