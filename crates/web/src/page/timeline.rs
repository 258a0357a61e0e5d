//! The times of a run as bars. Pure.

use dayfly_fleet::history::Times;
use maud::{Markup, html};

use super::text::span;

/// A part of a run's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) name: &'static str,
    /// The party whose work it is: host, machine, forge or job.
    pub(super) who: &'static str,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
}

/// Returns the parts of a run's life in their order. A part whose end is not known lasts until now if the run goes on, and is
/// left out otherwise.
pub(super) fn bars(times: &Times, now_ms: Option<u64>) -> Vec<Bar> {
    let mut bars = Vec::new();
    let queued = times.seen.or(times.queued);
    let got = times.acquired.or(times.taken);
    if let (Some(from_ms), Some(to_ms)) = (queued, got.or(now_ms)) {
        bars.push(Bar { name: "job waits", who: "forge", from_ms, to_ms });
    }
    let steps = [
        (times.slot, "", ""),
        (times.registered, "registration", "forge"),
        (times.started, "machine is made", "host"),
        (times.hello, "machine starts", "machine"),
        (times.up, "identity, settings", "machine"),
        (times.listening, "runner app starts", "machine"),
        (times.acquired, "runner waits for its job", "forge"),
        (times.done, "job", "job"),
        (times.gone, "machine ends", "host"),
        (times.over, "clean-up", "host"),
    ];
    let mut before = None;
    let mut last = None;
    for (index, (at, name, who)) in steps.into_iter().enumerate() {
        let Some(at) = at else { continue };
        if let Some(from_ms) = before.filter(|_| index > 0) {
            bars.push(Bar { name, who, from_ms, to_ms: at.max(from_ms) });
        }
        before = Some(at.max(before.unwrap_or_default()));
        last = Some(index);
    }
    // The step that goes on is the one after the last that has ended.
    let next = last.and_then(|last| steps.get(last + 1));
    if let (Some(from_ms), Some(to_ms), Some((_, name, who))) = (before, now_ms, next) {
        bars.push(Bar { name, who, from_ms, to_ms: to_ms.max(from_ms) });
    }
    for bar in &mut bars {
        bar.to_ms = bar.to_ms.max(bar.from_ms);
    }
    bars
}

/// Width of the drawing, in its own units.
const WIDTH: f64 = 1000.0;
/// Least width of a bar, so that it can be seen.
const WIDTH_MIN: f64 = 6.0;

/// Returns the length of a bar. A fork takes milliseconds.
fn length(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { span(ms) }
}

/// Returns the bars as a table, which a screen reader reads as such.
pub(super) fn chart(bars: &[Bar]) -> Markup {
    let (from, to) = (bars.iter().map(|bar| bar.from_ms).min(), bars.iter().map(|bar| bar.to_ms).max());
    let (Some(from), Some(to)) = (from, to) else {
        return html! { p.none { "No time of it is known yet." } };
    };
    let scale = |ms: u64| ms as f64 / (to - from).max(1) as f64 * WIDTH;
    html! {
        table.timeline {
            caption { "Timeline: " (span(to - from)) " in all" }
            thead.hidden { tr { th scope="col" { "Part" } th scope="col" { "Time" } th scope="col" { "Begins after" } } }
            tbody {
                @for bar in bars {
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

    fn shown(times: &Times, now_ms: Option<u64>) -> String {
        let bars = bars(times, now_ms);
        let lines =
            bars.iter().map(|bar| format!("{} ({}) {}..{}", bar.name, bar.who, bar.from_ms, bar.to_ms));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_life_of_a_run_is_one_bar_after_the_other_beside_the_wait_of_its_job() {
        let times = Times {
            seen: Some(90),
            slot: Some(100),
            registered: Some(200),
            started: Some(250),
            hello: Some(600),
            up: Some(700),
            listening: Some(900),
            acquired: Some(1000),
            done: Some(5000),
            gone: Some(5200),
            over: Some(5300),
            ..Times::default()
        };
        insta::assert_snapshot!(shown(&times, None), @r"
        job waits (forge) 90..1000
        registration (forge) 100..200
        machine is made (host) 200..250
        machine starts (machine) 250..600
        identity, settings (machine) 600..700
        runner app starts (machine) 700..900
        runner waits for its job (forge) 900..1000
        job (job) 1000..5000
        machine ends (host) 5000..5200
        clean-up (host) 5200..5300
        ");
    }

    #[test]
    fn the_part_that_goes_on_lasts_until_now_and_clocks_that_jump_give_no_negative_time() {
        let times = Times { slot: Some(100), registered: Some(200), started: Some(150), ..Times::default() };
        insta::assert_snapshot!(shown(&times, Some(180)), @r"
        registration (forge) 100..200
        machine is made (host) 200..200
        machine starts (machine) 200..200
        ");
        assert_eq!(shown(&Times::default(), Some(5)), "");
        assert!(chart(&[]).into_string().contains("No time"));
        assert_eq!([length(90), length(1200)], ["90 ms", "1.2 s"]);
    }
}
