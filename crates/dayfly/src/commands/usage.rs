//! `dayfly usage`: what machines have used, how long jobs have waited, and which sizes would fit better.

use dayfly_fleet::fact::Moment;
use dayfly_fleet::history::{Advice, MachineSize, RunQuestion, Usage, usage_of};
use dayfly_host::quantity::quantity;
use serde::Serialize;

use super::runs;
use crate::cli::{UsageArgs, UsageWord};
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, Column};
use crate::settings::Places;
use crate::units::{plain, short_span};

/// Most runs that are added up.
const RUNS_MAX: u32 = 1_000_000;
/// Milliseconds of a minute.
const MINUTE_MS: f64 = 60_000.0;

/// A line of the answer, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    usage: &'a Usage,
    /// The price that hosted runners of the same sizes would have, by `--rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<f64>,
}

impl<'a> Row<'a> {
    fn of(usage: &'a Usage, rate: Option<f64>) -> Self {
        Self { usage, price: rate.map(|rate| rate * usage.vcpu_ms as f64 / MINUTE_MS) }
    }
}

/// Runs the command.
pub(crate) fn run(places: &Places, args: &UsageArgs) -> Result<Outcome> {
    let since_ms = u64::try_from(args.since.0.as_millis()).unwrap_or(u64::MAX);
    let question = RunQuestion {
        pool: args.pool.clone(),
        since_ms: Some(Moment::now().ms().saturating_sub(since_ms)),
        limit: RUNS_MAX,
        ..RunQuestion::default()
    };
    let records = runs::open(places)?.runs(&question).map_err(Failure::cannot)?;
    let all = usage_of(&records, args.by.by());
    let rows: Vec<Row<'_>> = all.iter().map(|usage| Row::of(usage, args.rate)).collect();
    if args.json {
        rows.iter().for_each(printer::json);
    } else if args.csv {
        csv(&rows).into_iter().for_each(printer::line);
    } else if rows.is_empty() {
        printer::note(format_args!("no run has ended in this time (state in {})", places.state.display()));
    } else {
        table(&rows, args.by, printer::columns()).into_iter().for_each(printer::line);
        advice(&all).into_iter().for_each(printer::hint);
    }
    Ok(Outcome::Success)
}

/// Returns the lines of the table, cut to so many columns; none: not cut.
fn table(rows: &[Row<'_>], by: UsageWord, columns: Option<usize>) -> Vec<String> {
    let name = match by {
        UsageWord::Repository => "REPOSITORY",
        UsageWord::Workflow => "WORKFLOW",
        UsageWord::Pool => "POOL",
    };
    let head = [
        Column::cut(name),
        Column::whole("JOBS"),
        Column::whole("MINUTES"),
        Column::cut("PRICE"),
        Column::cut("WAIT P50/P95"),
        Column::cut("CPUS P95"),
        Column::cut("MEMORY P95"),
    ];
    let cells: Vec<[String; 7]> = rows.iter().map(cells).collect();
    printer::fitted(&head, &cells, columns)
}

fn cells(row: &Row<'_>) -> [String; 7] {
    let usage = row.usage;
    let of = |used: Option<String>, size: Option<String>| match (used, size) {
        (Some(used), Some(size)) => format!("{used} of {size}"),
        _ => "-".to_owned(),
    };
    let size = |part: fn(MachineSize) -> u32| usage.largest.map(|size| part(size).to_string());
    [
        usage.name.as_deref().map_or_else(|| "(unknown)".to_owned(), plain),
        usage.jobs.to_string(),
        minutes(usage.machine_ms),
        row.price.map_or_else(|| "-".to_owned(), |price| format!("{price:.2}")),
        usage.wait_ms.map_or_else(
            || "-".to_owned(),
            |wait| format!("{} {}", short_span(wait.p50 / 1000), short_span(wait.p95 / 1000)),
        ),
        of(usage.cpu_percent.map(|used| hundredths(used.p95)), size(|size| size.cpus)),
        of(
            usage.memory_peak_mib.map(|used| used.p95.to_string()),
            size(|size| size.memory_mib).map(|mib| format!("{mib} MiB")),
        ),
    ]
}

fn minutes(ms: u64) -> String {
    format!("{:.1}", ms as f64 / MINUTE_MS)
}

fn hundredths(number: u64) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

/// Returns the advice about sizes, a sentence for each.
fn advice(all: &[Usage]) -> Vec<String> {
    let about = |usage: &Usage| {
        let name = usage.name.as_deref().map_or_else(|| "unknown".to_owned(), plain);
        let size = usage.largest;
        let sentence = move |advice: &Advice| {
            let words = match *advice {
                Advice::LessMemory { memory_mib } => {
                    let size = size.map(|size| size.memory_mib).unwrap_or_default();
                    format!("{memory_mib} MiB of memory would do in place of {size}")
                }
                Advice::MoreMemory { runs: 1 } => {
                    "1 run was out of memory; give its machines more".to_owned()
                }
                Advice::MoreMemory { runs } => {
                    format!("{runs} runs were out of memory; give their machines more")
                }
                Advice::FewerCpus { cpus } => {
                    let size = size.map(|size| size.cpus).unwrap_or_default();
                    let cpus = quantity(cpus, "virtual CPU", "virtual CPUs");
                    format!("{cpus} would do in place of {size}")
                }
                Advice::MoreCpus => {
                    "the virtual CPUs are always busy; more of them may end jobs earlier".to_owned()
                }
            };
            format!("{name}: {words}")
        };
        usage.advice.iter().map(sentence).collect::<Vec<_>>()
    };
    all.iter().flat_map(about).collect()
}

/// Returns comma-separated values (RFC 4180) with their names in the first line. Unknown ones are empty.
fn csv(rows: &[Row<'_>]) -> Vec<String> {
    const HEAD: &str = "name,runs,jobs,machine_minutes,vcpu_minutes,cpu_minutes,wait_p50_s,wait_p95_s,cpus_p50,cpus_p95,\
                        memory_p50_mib,memory_p95_mib,cpus,memory_mib,price";
    let line = |row: &Row<'_>| {
        let Usage { name, runs, jobs, machine_ms, vcpu_ms, cpu_ms, wait_ms, .. } = row.usage;
        let Usage { cpu_percent, memory_peak_mib, largest, .. } = row.usage;
        let known = |value: Option<String>| value.unwrap_or_default();
        [
            quoted(name.as_deref().unwrap_or_default()),
            runs.to_string(),
            jobs.to_string(),
            minutes(*machine_ms),
            minutes(*vcpu_ms),
            known(cpu_ms.map(minutes)),
            known(wait_ms.map(|wait| (wait.p50 / 1000).to_string())),
            known(wait_ms.map(|wait| (wait.p95 / 1000).to_string())),
            known(cpu_percent.map(|used| hundredths(used.p50))),
            known(cpu_percent.map(|used| hundredths(used.p95))),
            known(memory_peak_mib.map(|used| used.p50.to_string())),
            known(memory_peak_mib.map(|used| used.p95.to_string())),
            known(largest.map(|size| size.cpus.to_string())),
            known(largest.map(|size| size.memory_mib.to_string())),
            known(row.price.map(|price| format!("{price:.2}"))),
        ]
        .join(",")
    };
    std::iter::once(HEAD.to_owned()).chain(rows.iter().map(line)).collect()
}

/// Returns a text of a job for a file of values. A spreadsheet would run one that begins like a formula.
fn quoted(text: &str) -> String {
    let text = plain(text).replace('\t', " ");
    let begins_a_formula = text.starts_with(['=', '+', '-', '@']);
    let text = if begins_a_formula { format!("'{text}") } else { text };
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::runs::tests::record;

    fn usage(by: UsageWord) -> Vec<Usage> {
        let run = |repository: &str, peak: u64| {
            record(json!({
                "repository": repository, "workflow": "ci",
                "times": { "queued_ms": 1000, "started_ms": 3000, "acquired_ms": 8000, "gone_ms": 603_000 },
                "used": { "cpus": 4, "memory_mib": 4096, "cpu_ms": 300_000, "memory_peak_mib": peak },
            }))
        };
        let mut runs: Vec<_> = (0..25).map(|number| run("acme/app", 600 + number)).collect();
        runs.push(record(json!({ "repository": "acme/=HYPERLINK(\"x\")", "times": { "slot_ms": 1 } })));
        runs.push(record(json!({ "repository": "acme/tool", "out_of_memory": "cc1",
            "used": { "cpus": 2, "memory_mib": 1024 },
            "times": { "started_ms": 0, "gone_ms": 90_000 } })));
        usage_of(&runs, by.by())
    }

    fn rows(all: &[Usage]) -> Vec<Row<'_>> {
        all.iter().map(|usage| Row::of(usage, Some(0.004))).collect()
    }

    #[test]
    fn the_table_has_times_prices_and_what_95_of_100_runs_use_in_80_columns_and_in_200() {
        let all = usage(UsageWord::Repository);
        let shown = |columns| {
            let lines = table(&rows(&all), UsageWord::Repository, Some(columns));
            let lines: Vec<_> =
                lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{lines:#?}");
            lines.join("\n")
        };
        insta::assert_snapshot!(format!("{}\n\n{}\n\n{}", shown(80), shown(200), advice(&all).join("\n")));
    }

    #[test]
    fn the_values_can_be_read_by_a_spreadsheet_which_runs_none_of_them() {
        let all = usage(UsageWord::Repository);
        let lines = csv(&rows(&all));
        let columns = lines[0].split(',').count();
        assert_eq!(lines[1].split(',').count(), columns, "{lines:#?}");
        insta::assert_snapshot!(lines.join("\n"));
        assert_eq!(quoted("=1+2\n,\"x\""), "\"'=1+2,\"\"x\"\"\"");
    }

    #[test]
    fn the_json_has_the_sums_the_spreads_and_the_advice() {
        let all = usage(UsageWord::Workflow);
        insta::assert_snapshot!(serde_json::to_string_pretty(&rows(&all)).expect("json"));
    }
}
