//! The only part of dayfly that prints.
//!
//! The result of a command goes to standard output. Progress, warnings and errors go to standard error. Colours are used
//! only on a terminal, and never with `NO_COLOR`.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Styles, named by the meaning of the text.
pub(crate) mod style {
    use super::{AnsiColor, Style};

    /// Success.
    pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
    /// Failure.
    pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
    /// Warning.
    pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
    /// Name of a thing.
    pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();
    /// Less important text.
    pub(crate) const DIM: Style = Style::new().dimmed();
    /// Heading.
    pub(crate) const HEAD: Style = Style::new().bold();
}

/// Returns text in a style. The stream removes the style if it shows no colours.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints a line to standard output. Ignores errors, so that dayfly continues if its reader exits (`| head`).
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

/// Writes bytes of another program to standard output, unchanged.
///
/// # Errors
/// They cannot be written, e.g. because their reader has exited.
pub(crate) fn output(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes bytes of another program to standard error, unchanged.
///
/// # Errors
/// As for [`output`].
pub(crate) fn error_output(bytes: &[u8]) -> std::io::Result<()> {
    std::io::stderr().lock().write_all(bytes)
}

/// Prints rows below a heading, in columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    for (number, text) in table_lines(head, rows).into_iter().enumerate() {
        if number == 0 { line(paint(style::HEAD, text)) } else { line(text) }
    }
}

/// Returns the lines of a table; the first one is the heading.
pub(crate) fn table_lines<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Vec<String> {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let padded = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(padded).collect()
}

/// A column of a table that fits a width.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    head: &'static str,
    /// True if its cells may be cut.
    is_cut: bool,
}

impl Column {
    /// Returns a column whose cells are always whole.
    pub(crate) const fn whole(head: &'static str) -> Self {
        Self { head, is_cut: false }
    }

    /// Returns a column whose cells are cut if the table is too wide.
    pub(crate) const fn cut(head: &'static str) -> Self {
        Self { head, is_cut: true }
    }
}

/// Fewest characters of a cell that is cut.
const CELL_MIN: usize = 4;
/// Columns between two cells.
const GAP: usize = 2;

/// Returns the lines of a table below its heading. If it is wider than `columns`, the widest cells are cut. Leaves out columns in
/// which no row has anything.
pub(crate) fn fitted<const N: usize>(
    head: &[Column; N],
    rows: &[[String; N]],
    columns: Option<usize>,
) -> Vec<String> {
    let is_used =
        |at: &usize| !head[*at].is_cut || rows.iter().any(|row| !["", "-"].contains(&row[*at].as_str()));
    let used: Vec<usize> = (0..N).filter(is_used).collect();
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([head[at].head.len()]).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = used.iter().map(|&at| width(at)).collect();
    let most = columns.unwrap_or(usize::MAX);
    while widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1) > most {
        let may_be_cut = |number: &usize| head[used[*number]].is_cut && widths[*number] > CELL_MIN;
        let Some(widest) = (0..used.len()).filter(may_be_cut).max_by_key(|&number| widths[number]) else {
            break;
        };
        widths[widest] -= 1;
    }
    let line = |cells: &dyn Fn(usize) -> String| {
        let cells =
            used.iter().zip(&widths).map(|(&at, &width)| format!("{:width$}", cut(&cells(at), width)));
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let first = paint(style::HEAD, line(&|at| head[at].head.to_owned()));
    std::iter::once(first).chain(rows.iter().map(|row| line(&|at| row[at].clone()))).collect()
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Prints a line about the progress to standard error.
pub(crate) fn note(text: impl Display) {
    anstream::eprintln!("{text}");
}

/// Prints a warning.
pub(crate) fn warning(text: impl Display) {
    anstream::eprintln!("{}: {text}", paint(style::WARN, "warning"));
}

/// Prints an error, and the hint if there is one.
pub(crate) fn error(text: impl Display, hint: Option<&str>) {
    anstream::eprintln!("{}: {text}", paint(style::BAD, "error"));
    if let Some(text) = hint {
        self::hint(text);
    }
}

/// Prints what to do about a problem.
pub(crate) fn hint(text: impl Display) {
    anstream::eprintln!("{}: {text}", paint(style::NAME, "hint"));
}

/// Returns the columns of the terminal on standard output; none if it is no terminal.
pub(crate) fn columns() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|&columns| columns > 0)
}

/// The progress of a long task: on a terminal a line with a spinner, else a line at its start, at each phase and at its end,
/// and at most one every ten seconds between them.
pub(crate) struct Task {
    title: String,
    began: Instant,
    bar: Option<ProgressBar>,
    last_sign: Instant,
    quiet: bool,
}

/// Shortest time between two lines about the details of a task that is not shown on a terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

impl Task {
    /// Begins a task. A `quiet` task (`--json`) prints nothing.
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

    /// Shows the current phase.
    pub(crate) fn phase(&mut self, name: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        } else if !self.quiet {
            self.last_sign = Instant::now();
            note(format_args!("{} ... {name} ({} s)", self.title, self.began.elapsed().as_secs()));
        }
    }

    /// Shows a detail of the current phase.
    pub(crate) fn at(&mut self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
        } else if !self.quiet && self.last_sign.elapsed() >= SIGN_OF_LIFE {
            self.last_sign = Instant::now();
            note(format_args!("{} ... {message} ({} s)", self.title, self.began.elapsed().as_secs()));
        }
    }

    /// Ends the task and prints its result.
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
