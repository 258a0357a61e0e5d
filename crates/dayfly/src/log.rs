//! Writes log lines for people. The user chooses the destination (`-l`) and the level (`-v`). A line of a loop names the loop
//! as `runner-<LOOP>`, or as `<POOL>/<LOOP>` if its pool is one of a file.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use anstyle::Style;
use dayfly_fleet::fact::FactRecord;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::exit::{Failure, Result};
use crate::printer::style;
use crate::settings;

/// Returns a span for a fact; log lines inside it name its loop, or its pool if it concerns the pool as a whole.
/// `names_pools` is true if there may be several pools.
pub(crate) fn span_of(record: &FactRecord, names_pools: bool) -> tracing::Span {
    let index = record.loop_index;
    let name = match &record.pool {
        Some(pool) if record.is_of_pool() => pool.clone(),
        Some(pool) if names_pools => format!("{pool}/{index}"),
        Some(_) | None => format!("runner-{index}"),
    };
    tracing::error_span!("loop", message = %name)
}

/// Starts the log. Level 0 logs warnings and errors; 1 adds info, 2 debug, 3 trace.
///
/// # Errors
/// The destination cannot be written to.
pub(crate) fn start(destination: &str, level: u8) -> Result<()> {
    let destination = Destination::open(destination)?;
    let level = match level {
        0 => Level::WARN,
        1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let ours = ["dayfly", "dayfly_fleet", "dayfly_forge", "dayfly_vm"];
    let filter =
        ours.iter().fold(tracing_subscriber::EnvFilter::new("warn"), |filter, target| {
            match format!("{target}={level}").parse() {
                Ok(directive) => filter.add_directive(directive),
                Err(_) => filter,
            }
        });
    let format = Format { colours: destination.colours };
    tracing_subscriber::fmt().with_env_filter(filter).event_format(format).with_writer(destination).init();
    Ok(())
}

/// The destination of log lines.
#[derive(Clone)]
struct Destination {
    writer: Arc<Mutex<Box<dyn Write + Send>>>,
    colours: bool,
}

impl Destination {
    fn open(text: &str) -> Result<Self> {
        let (writer, terminal): (Box<dyn Write + Send>, bool) = match text.parse::<u32>() {
            Ok(1) => (Box::new(io::stdout()), io::stdout().is_terminal()),
            Ok(2) => (Box::new(io::stderr()), io::stderr().is_terminal()),
            number => {
                let path = match number {
                    Ok(descriptor) => format!("/proc/self/fd/{descriptor}"),
                    Err(_) => text.to_owned(),
                };
                // Other users may not read the log, because its lines are about machines and runners.
                let new = OpenOptions::new().append(true).create(number.is_err()).mode(0o600).open(&path);
                let file = new.map_err(|error| {
                    let what = match number {
                        Ok(descriptor) => format!("descriptor {descriptor}, which must be open for writing"),
                        Err(_) => text.to_owned(),
                    };
                    Failure::usage(format!("the log cannot go to {what}: {error}"))
                })?;
                let terminal = file.is_terminal();
                (Box::new(file), terminal)
            }
        };
        let wanted = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
        let colours = terminal && (wanted || settings::wants_colour());
        Ok(Self { writer: Arc::new(Mutex::new(writer)), colours })
    }
}

impl MakeWriter<'_> for Destination {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Destination {
    /// Writes and ignores errors, because a full or closed destination must not stop dayfly. Only the lines are lost.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writer.write_all(bytes).and_then(|()| writer.flush());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `<time> <LEVEL> <loop> <message> <fields>`.
struct Format {
    colours: bool,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        let colour = match level {
            Level::ERROR => style::BAD,
            Level::WARN => style::WARN,
            _ => style::DIM,
        };
        let (colour, name) = if self.colours { (colour, style::NAME) } else { (Style::new(), Style::new()) };
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        write!(writer, "{now} {colour}{level:5}{colour:#} ")?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let Some(fields) = extensions.get::<FormattedFields<N>>() else { continue };
            if span.name() == "loop" {
                write!(writer, "{name}{fields}{name:#} ")?;
            }
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
