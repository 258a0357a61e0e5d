//! The terminal while it shows a screen, and its restoration at any end.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{Event, read};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::prelude::CrosstermBackend;
use ratatui::{Frame, Terminal};
use tokio::sync::mpsc;

use super::keys::Key;

/// Most events that wait to be read. The thread that reads keys waits then.
const EVENTS_MAX: usize = 64;

/// True while the terminal shows the screen.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);

/// The terminal with the screen on it. Dropping it restores the terminal, also while a panic unwinds.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
}

impl Screen {
    /// Puts the terminal into raw mode, and shows an empty screen beside what it showed before.
    pub(super) fn enter() -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        restore_before_panics();
        // From here on, the value is dropped if a step fails.
        let screen = Self { terminal };
        IS_SHOWN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        Ok(screen)
    }

    /// Draws the next picture, of which only the changed cells are written.
    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal, once.
fn restore() {
    if IS_SHOWN.swap(false, Ordering::SeqCst) {
        // The terminal may be gone.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Restores the terminal before the message of a panic, which would be lost with the screen.
fn restore_before_panics() {
    let message = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        message(info);
    }));
}

/// An event of the terminal.
#[derive(Debug)]
pub(super) enum Typed {
    Key(Key),
    Resized,
    /// The terminal cannot be read any more.
    Gone(io::Error),
}

/// Starts the thread that reads keys. It is left behind at the end of the process, because a read of a terminal cannot
/// be cancelled.
pub(super) fn typed() -> mpsc::Receiver<Typed> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    std::thread::spawn(move || {
        loop {
            let event = match read() {
                Ok(Event::Key(event)) => Key::of(event).map(Typed::Key),
                Ok(Event::Resize(..)) => Some(Typed::Resized),
                Ok(_) => None,
                Err(error) => Some(Typed::Gone(error)),
            };
            let Some(event) = event else { continue };
            let is_last = matches!(event, Typed::Gone(_));
            if sender.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    });
    events
}

/// Returns the reason why a terminal cannot show the screen; none if it can.
pub(super) fn unfit(is_terminal: bool, kind: Option<&str>) -> Option<String> {
    match kind {
        _ if !is_terminal => {
            Some("standard input and output are no terminal, which this command needs".to_owned())
        }
        None => Some("the terminal has no name (TERM is not set), so it cannot be drawn on".to_owned()),
        Some("dumb") => Some("the terminal cannot move its cursor (TERM=dumb)".to_owned()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;
