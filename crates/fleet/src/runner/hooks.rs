//! The hooks of a pool: the scripts that its machines get for the start and the end of a job.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use dayfly_guest::hooks::{Hooks, SCRIPT_MAX};

use super::RunnerError;
use crate::pool::PoolSpec;

/// Reads the hooks of a pool, for each runner anew, so that a changed script holds for the next one.
pub(super) fn read(spec: &PoolSpec) -> Result<Hooks, RunnerError> {
    let script = |path: &Path| {
        let failed = |source| RunnerError::State { what: "read the hook", path: path.to_owned(), source };
        read_script(path).map(|script| Hooks::encode(&script)).map_err(failed)
    };
    Ok(Hooks {
        job_started: spec.hooks.job_started.as_deref().map(script).transpose()?,
        job_completed: spec.hooks.job_completed.as_deref().map(script).transpose()?,
        allow_forks: spec.allow_forks,
    })
}

fn read_script(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // A FIFO would never end.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut script = Vec::new();
    file.take(SCRIPT_MAX as u64 + 1).read_to_end(&mut script)?;
    if script.len() > SCRIPT_MAX {
        return Err(io::Error::other(format!("it has more than {} KiB", SCRIPT_MAX / 1024)));
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hook.sh");
        std::fs::write(&path, "#!/bin/sh\necho hello\n").expect("written");
        assert_eq!(read_script(&path).expect("read"), b"#!/bin/sh\necho hello\n");
        std::fs::write(&path, vec![b'#'; SCRIPT_MAX + 1]).expect("written");
        assert_eq!(read_script(&path).expect_err("too long").to_string(), "it has more than 32 KiB");
        assert_eq!(read_script(folder.path()).expect_err("a folder").to_string(), "it is no file");
        assert!(read_script(&folder.path().join("none")).is_err());
    }
}
