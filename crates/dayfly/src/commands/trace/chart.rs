//! A trace as bars.

use std::fmt::Write as _;

use super::phases::{Party, Phase, Trace};

/// Width if the output is no terminal.
pub(super) const COLUMNS: usize = 100;
/// Width of the columns before the bars: name, party, time.
const BEFORE: usize = 33 + 9 + 10;
/// Least width of the bars.
const BARS_MIN: usize = 12;

/// Returns a line for each phase, with a bar at its place in the runner's life.
pub(super) fn text(trace: &Trace, columns: usize) -> String {
    let mut text = String::new();
    let seen = if trace.ended { "" } else { ", not ended yet" };
    let whole = duration(trace.length_us());
    let _ = writeln!(text, "{}: {whole}, machine: {}{seen}\n", trace.name, trace.start);
    let bars = columns.saturating_sub(BEFORE + 1).max(BARS_MIN);
    for phase in &trace.phases {
        let line =
            format!("{:32} {:8} {:>9} ", phase.name, phase.who.word(), duration(phase.to_us - phase.from_us));
        let _ = writeln!(text, "{line} {}", bar(phase, trace.length_us(), bars));
    }
    let _ = writeln!(text);
    for who in Party::ALL {
        let of_it = trace.phases.iter().filter(|phase| phase.who == who);
        let sum: u64 = of_it.map(|phase| phase.to_us - phase.from_us).sum();
        let _ = writeln!(text, "{:32} {:8} {:>9}", "", who.word(), duration(sum));
    }
    text
}

/// Returns a bar of at least one character, so that each phase is seen.
fn bar(phase: &Phase, length_us: u64, width: usize) -> String {
    let place = |us: u64| {
        let whole = u128::from(length_us.max(1));
        usize::try_from(u128::from(us) * width as u128 / whole).unwrap_or(width).min(width)
    };
    let from = place(phase.from_us).min(width - 1);
    let to = place(phase.to_us).max(from + 1);
    format!("{}{}", " ".repeat(from), "\u{2588}".repeat(to - from))
}

/// Formats a duration with about three digits, in a unit that fits its size.
fn duration(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1000.0),
        10_000..1_000_000 => format!("{} ms", us / 1000),
        1_000_000..100_000_000 => format!("{:.2} s", us as f64 / 1e6),
        _ => format!("{} s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::super::phases::tests::LOG;
    use super::*;

    #[test]
    fn a_trace_at_80_columns() {
        insta::assert_snapshot!(text(&Trace::of_log(LOG), 80));
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        for columns in [80, 120, 200] {
            let text = text(&Trace::of_log(LOG), columns);
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}\n{text}");
        }
    }
}
