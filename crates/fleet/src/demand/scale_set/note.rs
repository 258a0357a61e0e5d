//! The note of a scale set's session in the instance's folder.

use std::path::{Path, PathBuf};

use dayfly_forge::scale_set::SessionId;
use dayfly_host::{digest, file};

/// Names the session of a scale set, so that the process after one that died ends it and opens its own at once. Without the
/// note, the forge refuses a second session until the first one has expired, which takes minutes.
#[derive(Debug)]
pub struct SessionNote {
    path: PathBuf,
    written: Option<SessionId>,
}

impl SessionNote {
    /// Returns the note of a scale set in the folder of such notes. `place` tells its forge, scope and name.
    pub fn of(folder: &Path, place: &[&str]) -> Self {
        let name = digest::id_of(&digest::digest_of(place));
        Self { path: folder.join(format!("{name}.json")), written: None }
    }

    /// Returns the session that the note names; none without a note.
    ///
    /// # Errors
    /// The note is damaged, and removed. The error tells what follows.
    pub(super) fn read(&mut self) -> Result<Option<SessionId>, String> {
        let Ok(text) = std::fs::read(&self.path) else { return Ok(None) };
        match serde_json::from_slice(&text) {
            Ok(session) => self.written = Some(session),
            Err(error) => {
                let _ = std::fs::remove_file(&self.path);
                return Err(format!(
                    "the note of an earlier session in {} cannot be read, and is removed: {error}; the forge may keep that \
                     session for some minutes",
                    self.path.display()
                ));
            }
        }
        Ok(self.written.clone())
    }

    /// Writes or removes the note if the session is another one than before. If that fails, a later process only has to wait
    /// for the forge.
    pub(super) fn keep(&mut self, session: Option<SessionId>) {
        if session == self.written {
            return;
        }
        let _ = match session.as_ref().map(serde_json::to_vec) {
            Some(Ok(text)) => file::replace(&self.path, &text),
            Some(Err(_)) | None => std::fs::remove_file(&self.path),
        };
        self.written = session;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str) -> SessionId {
        serde_json::from_value(serde_json::json!({ "scale_set": 3, "session": id })).expect("a session")
    }

    #[test]
    fn a_note_outlives_its_process_and_not_its_session() {
        let folder = tempfile::tempdir().expect("folder");
        let note = |name| SessionNote::of(folder.path(), &["https://forge/", "o/r", name]);
        let mut first = note("set");
        assert_eq!(first.read(), Ok(None));
        first.keep(Some(session("a")));
        first.keep(Some(session("b")));
        assert_eq!(note("set").read(), Ok(Some(session("b"))));
        assert_eq!(note("other").read(), Ok(None));
        first.keep(None);
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
    }

    #[test]
    fn a_damaged_note_names_no_session_and_is_told_once() {
        let folder = tempfile::tempdir().expect("folder");
        let mut note = SessionNote::of(folder.path(), &["set"]);
        note.keep(Some(session("a")));
        std::fs::write(&note.path, "{\"sca").expect("damaged");
        let told = SessionNote::of(folder.path(), &["set"]).read().expect_err("told");
        assert!(told.contains(&note.path.display().to_string()) && told.contains("is removed"), "{told}");
        assert_eq!(SessionNote::of(folder.path(), &["set"]).read(), Ok(None));
        note.keep(Some(session("b")));
        assert_eq!(note.read(), Ok(Some(session("b"))));
    }
}
