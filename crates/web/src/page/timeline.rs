//! The parts of a run as bars. Pure.

use dayfly_fleet::history::RunPart;
use maud::{Markup, html};

use super::text::span;

/// Width of the drawing, in its own units.
const WIDTH: f64 = 1000.0;
/// Least width of a bar, so that it can be seen.
const WIDTH_MIN: f64 = 6.0;

/// Returns the length of a bar. A fork takes milliseconds.
fn length(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { span(ms) }
}

/// Returns the bars as a table, which a screen reader reads as such.
pub(super) fn chart(parts: &[RunPart]) -> Markup {
    let (from, to) = (parts.iter().map(|bar| bar.from_ms).min(), parts.iter().map(|bar| bar.to_ms).max());
    let (Some(from), Some(to)) = (from, to) else {
        return html! { p.none { "No time of it is known yet." } };
    };
    let scale = |ms: u64| ms as f64 / (to - from).max(1) as f64 * WIDTH;
    html! {
        table.timeline {
            caption { "Timeline: " (span(to - from)) " in all" }
            thead.hidden { tr { th scope="col" { "Part" } th scope="col" { "Time" } th scope="col" { "Begins after" } } }
            tbody {
                @for bar in parts {
                    @let width = scale(bar.to_ms - bar.from_ms).max(WIDTH_MIN);
                    @let x = scale(bar.from_ms - from).min(WIDTH - width);
                    tr {
                        th scope="row" { (bar.name) }
                        td.number { (length(bar.to_ms - bar.from_ms)) }
                        td.bar {
                            span.hidden { (span(bar.from_ms - from)) }
                            svg viewBox="0 0 1000 14" preserveAspectRatio="none" aria-hidden="true" {
                                rect class={ "of-" (bar.who) } x=(format!("{x:.1}")) y="1" height="12"
                                    width=(format!("{width:.1}")) {}
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_a_time_is_said_to_have_none_and_short_parts_have_milliseconds() {
        assert!(chart(&[]).into_string().contains("No time"));
        assert_eq!([length(90), length(1200)], ["90 ms", "1.2 s"]);
    }
}
