//! The two notes that hold the loop's secret: `.trm` from the loop, `.brk` to the loop.

use super::log::Log;
use super::settings::Settings;
use super::stop::Order;
use super::supervisor::Event;
use crate::folder::{Folder, FolderError};
use dayfly_guest::environment::{Suffix, file_name, is_secret};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// Sends an event when the loop writes `<id>.trm` with the secret in it. A wrong note is logged and ignored.
pub(super) fn watch(
    folder: &Arc<Folder>,
    settings: &Settings,
    log: &Arc<Log>,
    events: &SyncSender<Event>,
) -> Result<(), FolderError> {
    let watch = folder.watch()?;
    let (folder, log, events) = (Arc::clone(folder), Arc::clone(log), events.clone());
    let (name, secret) = (file_name(&settings.runner_id, Suffix::Trm), settings.secret.clone());
    let look = move || match folder.read_note(&name) {
        Ok(note) if is_secret(&note, &secret) => {
            log.say(&format!("{name}: the loop requests a stop"));
            // A full queue already holds an order to stop.
            let _ = events.try_send(Event::Order(Order::Loop));
        }
        Ok(_) => log.say(&format!("{name} is ignored: it does not hold this runner's secret")),
        Err(error) if error.is_absent() => {}
        Err(error) => log.say(&format!("{name} is ignored: {error}")),
    };
    let wanted = file_name(&settings.runner_id, Suffix::Trm);
    std::thread::spawn(move || {
        // The note may have been written before the watch began.
        look();
        watch.for_each(|written| {
            if written.is_empty() || written == wanted {
                look();
            }
        });
    });
    Ok(())
}

/// Returns a function that writes `<id>.brk`, upon which the loop exits instead of creating another runner.
pub(super) fn brk(folder: &Arc<Folder>, settings: &Settings, log: &Arc<Log>) -> impl Fn() + 'static {
    let (folder, log) = (Arc::clone(folder), Arc::clone(log));
    let (name, secret) = (file_name(&settings.runner_id, Suffix::Brk), settings.secret.clone());
    move || match folder.write(&name, &secret) {
        Ok(()) => log.say(&format!("termination signal: {name} written")),
        Err(error) => log.say(&format!("termination signal: {error}")),
    }
}
