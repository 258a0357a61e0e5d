//! The only part of dayfly that prints.
//!
//! What a command is for goes to standard output; everything about how it goes, and all errors, to standard error.
//! Colours only on a terminal, and never with `NO_COLOR`.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Meaning of a piece of text, and so its colour.
pub(crate) mod style {
    use super::{AnsiColor, Style};

    /// It went well.
    pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
    /// It did not.
    pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
    /// Worth a look.
    pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
    /// A name of something.
    pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();
    /// Beside the point.
    pub(crate) const DIM: Style = Style::new().dimmed();
    /// A heading.
    pub(crate) const HEAD: Style = Style::new().bold();
}

/// Text in a style; plain where the stream shows no colours.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints a line to standard output. A reader that went away (`| head`) ends dayfly's output, not dayfly.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(anstream::stdout().lock(), "{text}");
}

/// Prints one JSON value as a line to standard output.
pub(crate) fn json(value: &impl serde::Serialize) {
    let mut out = std::io::stdout().lock();
    if serde_json::to_writer(&mut out, value).is_ok() {
        let _ = writeln!(out);
        let _ = out.flush();
    }
}

/// Prints a line about how things go to standard error.
pub(crate) fn note(text: impl Display) {
    anstream::eprintln!("{text}");
}

/// Prints a warning.
pub(crate) fn warning(text: impl Display) {
    anstream::eprintln!("{}: {text}", paint(style::WARN, "warning"));
}

/// Prints an error, and what to do about it where that is known.
pub(crate) fn error(text: impl Display, hint: Option<&str>) {
    anstream::eprintln!("{}: {text}", paint(style::BAD, "error"));
    if let Some(hint) = hint {
        anstream::eprintln!("{}: {hint}", paint(style::NAME, "hint"));
    }
}

/// Columns of the terminal on standard output; none where it is no terminal.
pub(crate) fn columns() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|&columns| columns > 0)
}

/// Something that takes a while: a line that moves on a terminal; elsewhere a line at its start, one every ten
/// seconds, and one at its end.
pub(crate) struct Task {
    title: String,
    began: Instant,
    bar: Option<ProgressBar>,
    last_sign: Instant,
    quiet: bool,
}

/// How often a task that is not on a terminal says that it is still alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

impl Task {
    /// Begins a task; `quiet` ones print nothing at all (`--json`).
    pub(crate) fn begin(title: &str, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() && !quiet {
            note(format_args!("{title} ..."));
        }
        Self { title: title.to_owned(), began: Instant::now(), bar, last_sign: Instant::now(), quiet }
    }

    /// Tells what it does now.
    pub(crate) fn phase(&mut self, name: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        } else if !self.quiet {
            self.last_sign = Instant::now();
            note(format_args!("{} ... {name} ({} s)", self.title, self.began.elapsed().as_secs()));
        }
    }

    /// Tells a detail of it.
    pub(crate) fn at(&mut self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
        } else if !self.quiet && self.last_sign.elapsed() >= SIGN_OF_LIFE {
            self.last_sign = Instant::now();
            note(format_args!("{} ... {message} ({} s)", self.title, self.began.elapsed().as_secs()));
        }
    }

    /// Ends it with what came of it.
    pub(crate) fn done(self, result: impl Display) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.quiet {
            note(format_args!(
                "{} {result} {}",
                self.title,
                paint(style::DIM, format_args!("({:.1} s)", self.began.elapsed().as_secs_f64()))
            ));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
