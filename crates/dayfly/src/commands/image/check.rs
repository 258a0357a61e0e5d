//! `dayfly image check`: boots an image and reports what it lacks.

use dayfly_guest::finding::{Finding, FindingState, Part};
use dayfly_image::{Image, is_tool};
use dayfly_vm::check::Report;
use dayfly_vm::{Driver, Machine, QemuSettings};

use super::summary;
use crate::cli::ImageCheckArgs;
use crate::commands::machine;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, Task, paint, style};
use crate::settings::Places;

/// Scratch disk of the machine, MiB; sparse.
const DISK_MIB: u64 = 32 * 1024;

pub(crate) async fn run(places: &Places, args: ImageCheckArgs) -> Result<Outcome> {
    let (image, report) = look(places, &args).await?;
    // dayfly's own images come from their package lists.
    let tools = if image.manifest().origin.is_some() { missing_tools(&report) } else { Vec::new() };
    if args.json {
        let mut value = serde_json::json!(report);
        value["usable"] = report.why_not().is_none().into();
        value["missing_tools"] = tools.into();
        printer::json(&value);
    } else {
        printer::line(summary(&image));
        lines(&report).iter().for_each(printer::line);
        if !tools.is_empty() {
            printer::note(format_args!("{} {}", super::TOOLS_ADD, tools.join(", ")));
        }
    }
    match report.why_not() {
        None => Ok(Outcome::Success),
        Some(_) if args.json => Ok(Outcome::NotSucceeded),
        Some(why) => {
            printer::error(format_args!("no job can run in it: {why}"), None);
            Ok(Outcome::NotSucceeded)
        }
    }
}

async fn look(places: &Places, args: &ImageCheckArgs) -> Result<(Image, Report)> {
    let host = machine::host(places)?;
    let chosen =
        super::choose(places, args.image.as_deref(), args.fetch.spec(), args.json, &|_| Ok(())).await?;
    let image = chosen.image;
    let checked = image.clone();
    let (accel, guest_binary) = (args.accel.choice(), places.guest_binary()?);
    let driver = Driver::Qemu(QemuSettings {
        disk_mib: DISK_MIB,
        image,
        source: None,
        accel,
        cpu_model: None,
        template: None,
    });
    let machine = Machine { cpus: 2, memory_mib: args.memory, boot_limit: None, guest_binary, driver };
    let task = Task::begin("booting and checking the image", args.json);
    let report = dayfly_vm::check::check(&host, &machine, &args.user).await.map_err(Failure::cannot)?;
    task.done("done");
    Ok((checked, report))
}

/// Returns the things that the image lacks and that dayfly has as tools.
fn missing_tools(report: &Report) -> Vec<&str> {
    let is_missing = |finding: &&Finding| finding.state != FindingState::Ok && is_tool(&finding.name);
    report.findings.iter().filter(is_missing).map(|finding| finding.name.as_str()).collect()
}

/// Formats the report for people.
fn lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    if let Some(ms) = report.hello_ms {
        let docker = report.docker_ms.map(|ms| format!(", Docker answered after {}", seconds(ms)));
        lines.push(format!("up after {}{}", seconds(ms), docker.unwrap_or_default()));
    }
    let width = report.findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or_default();
    for (part, title) in [(Part::Jobs, "jobs"), (Part::Docker, "Docker"), (Part::RunnerApp, "runner app")] {
        let of_part: Vec<&Finding> = report.findings.iter().filter(|finding| finding.part == part).collect();
        if !of_part.is_empty() {
            lines.push(paint(style::HEAD, title));
        }
        lines.extend(of_part.into_iter().map(|finding| line(finding, width)));
    }
    lines
}

fn line(finding: &Finding, width: usize) -> String {
    let (style, word) = match finding.state {
        FindingState::Ok => (style::GOOD, "ok     "),
        FindingState::Wanted => (style::WARN, "wanted "),
        FindingState::Missing => (style::BAD, "missing"),
    };
    format!("  {} {:width$}  {}", paint(style, word), finding.name, finding.seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            image: "aa11".to_owned(),
            guest: "0".to_owned(),
            checked_s: 7,
            hello_ms: Some(2400),
            docker_ms: Some(9870),
            failure: None,
            is_certain: true,
            findings,
        }
    }

    #[test]
    fn what_is_missing_and_a_tool_is_told_with_the_remedy() {
        let finding = |name, state| Finding::new(Part::Docker, name, state, "x");
        let report = report(vec![
            finding("iptables", FindingState::Wanted),
            finding("runc", FindingState::Ok),
            finding("kernel, needed", FindingState::Missing),
        ]);
        assert_eq!(missing_tools(&report), ["iptables"]);
    }

    #[test]
    fn a_report_tells_part_by_part_what_was_seen() {
        let finding = |part, name: &str, state, seen: &str| Finding::new(part, name, state, seen);
        let report = report(vec![
            finding(Part::Jobs, "bash", FindingState::Ok, "/usr/bin/bash"),
            finding(
                Part::Jobs,
                "git",
                FindingState::Wanted,
                "not there: actions/checkout fetches an archive",
            ),
            finding(Part::Docker, "kernel, needed", FindingState::Missing, "without VETH"),
            finding(Part::RunnerApp, "version", FindingState::Ok, "0.13.0"),
        ]);
        insta::assert_snapshot!(anstream::adapter::strip_str(&lines(&report).join("\n")), @r"
        up after 2.4 s, Docker answered after 9.9 s
        jobs
          ok      bash            /usr/bin/bash
          wanted  git             not there: actions/checkout fetches an archive
        Docker
          missing kernel, needed  without VETH
        runner app
          ok      version         0.13.0
        ");
    }
}
