//! Keeps the history within its bounds and its index up to date, while a process runs loops. So a question finds little that is not in
//! the index yet.

use std::convert::Infallible;
use std::time::Duration;

use super::{History, Index};

/// Time between two looks.
const PACE: Duration = Duration::from_secs(60);

/// Looks after the history until it is dropped. `tell` gets each new trouble; everything else works without the index.
pub async fn keep_up(history: History, mut tell: impl FnMut(&str)) -> Infallible {
    let mut told = None;
    loop {
        let own = history.clone();
        // Reading a segment takes a tenth of a second, and the disk can block.
        let looked = tokio::task::spawn_blocking(move || look(&own)).await;
        let trouble =
            looked.unwrap_or_else(|error| Some(format!("the upkeep of the history has failed: {error}")));
        if trouble != told {
            trouble.iter().for_each(|trouble| tell(trouble));
            told = trouble;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Looks once. Returns a word about what is wrong.
fn look(history: &History) -> Option<String> {
    if let Err(error) = history.prune() {
        return Some(format!(
            "the history {} cannot be kept within its bounds: {error}",
            history.folder().display()
        ));
    }
    match Index::open(history) {
        Ok(index) => index.rebuilt().map(str::to_owned),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Fact;
    use crate::fact::tests::record;

    #[tokio::test(start_paused = true)]
    async fn what_is_new_is_in_the_index_at_the_next_look_and_each_trouble_is_told_once() {
        let state = tempfile::tempdir().expect("folder");
        let history = History::of(state.path());
        history.keep(&[record(Fact::Registering)]).expect("kept");
        let index = history.folder().join("index.sqlite");
        std::fs::create_dir(&index).expect("in the way");
        let mut told = Vec::new();
        let upkeep = keep_up(history.clone(), |trouble| told.push(trouble.to_owned()));
        let _ = tokio::time::timeout(3 * PACE + PACE / 2, upkeep).await;
        assert_eq!(told.len(), 1, "{told:?}");
        std::fs::remove_dir(&index).expect("removed");
        let upkeep = keep_up(history.clone(), |trouble| panic!("{trouble}"));
        let _ = tokio::time::timeout(PACE / 2, upkeep).await;
        assert!(index.is_file());
    }
}
