//! `docs/reference/events.md`: each fact that `--json` prints and logs hold, from its definition.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::source::{Member, Type, snake, types};
use super::{cell, code, head, row};

/// The files with the definitions of facts, and of the words in them.
const FILES: [&str; 6] = [
    include_str!("../../../fleet/src/fact.rs"),
    include_str!("../../../fleet/src/cause.rs"),
    include_str!("../../../fleet/src/state.rs"),
    include_str!("../../../fleet/src/job_end.rs"),
    include_str!("../../../fleet/src/orchestrator/wait.rs"),
    include_str!("../../../fleet/src/scratch.rs"),
];
/// The file with the words of guests.
const GUEST: &str = include_str!("../../../guest/src/protocol/message.rs");
/// The files with types that facts name, beside those.
const OTHERS: [&str; 3] = [
    include_str!("../../../guest/src/runner_app/output.rs"),
    include_str!("../../../fleet/src/orchestrator/budget.rs"),
    include_str!("../../../vm/src/network/used.rs"),
];

/// The beginning of the page.
const BEGIN: &str = "# Events

This page is written from the definitions in `fleet/src/fact.rs`. `dayfly orchestrator --json`, `dayfly runner --json` and `dayfly
logs RUNNER --json` print an object per line. The word of the event is in `event`, and its fields stand beside it. Events whose
description says so are in the journal of a runner only. A field that may be missing is marked; new fields and events may come with
any version, so ignore those that you do not know.

";

/// Names of plain types, and the words for them.
const PLAIN: [(&str, &str); 11] = [
    ("String", "text"),
    ("PathBuf", "path"),
    ("RunnerId", "text"),
    ("RunnerScope", "object with `scope` and `principal`"),
    ("Ipv4Addr", "text"),
    ("bool", "true or false"),
    ("u16", "number"),
    ("u32", "number"),
    ("u64", "number"),
    ("usize", "number"),
    ("i32", "number"),
];

fn page() -> String {
    let all: Vec<Type> = FILES.iter().chain([&GUEST]).chain(&OTHERS).flat_map(|text| types(text)).collect();
    let find = |name: &str| all.iter().find(|one| one.name == name);
    let mut used = BTreeSet::new();
    let mut text = BEGIN.to_owned() + "## Fields of every event\n\n" + &head(["field", "value", "meaning"]);
    text.push_str("| `at_ms`, `at_us` | number | Time of the event, since 1970-01-01 UTC, in milliseconds and in microseconds. |\n");
    let record = find("FactRecord").expect("the record");
    let runner = find("RunnerRef").expect("the runner");
    let plain = record.members.iter().filter(|field| !field.is_flat).chain(&runner.members);
    plain.for_each(|field| text.push_str(&field_row(field, &mut used)));
    text.push_str("\n## All events\n");
    for event in &find("Fact").expect("the facts").members {
        let _ = write!(text, "\n### {}\n\n{}\n", event.name, doc(&event.doc));
        if !event.fields.is_empty() {
            let _ = write!(text, "\n{}", head(["field", "value", "meaning"]));
            event.fields.iter().for_each(|field| text.push_str(&field_row(field, &mut used)));
        }
    }
    text.push_str("\n## Words and objects\n");
    let mut told = BTreeSet::new();
    // The types of the fields of these types follow too.
    while let Some(name) = used.difference(&told).next().cloned() {
        let one =
            find(&name).unwrap_or_else(|| panic!("the type {name} is in none of the files: add its file"));
        type_section(one, &mut used, &mut text);
        told.insert(name);
    }
    text
}

fn type_section(one: &Type, used: &mut BTreeSet<String>, text: &mut String) {
    let _ = write!(text, "\n### {}\n\n{}\n\n", one.name, doc(&one.doc));
    let is_words = one.members.iter().all(|member| member.kind.is_empty());
    if is_words {
        text.push_str(&head(["word", "meaning"]));
        for member in &one.members {
            let fields = member.fields.iter().map(|field| {
                format!(" {}: {} ({})", code(&field.name), cell(&doc(&field.doc)), kind(&field.kind, used))
            });
            let fields: String = fields.collect();
            text.push_str(&row([code(&member.name), cell(&doc(&member.doc)) + &fields]));
        }
    } else {
        text.push_str(&head(["field", "value", "meaning"]));
        one.members.iter().for_each(|field| text.push_str(&field_row(field, used)));
    }
}

fn field_row(field: &Member, used: &mut BTreeSet<String>) -> String {
    row([code(&field.name), kind(&field.kind, used), cell(&doc(&field.doc))])
}

/// Returns a type in words. Adds those that have a section of their own to `used`.
fn kind(name: &str, used: &mut BTreeSet<String>) -> String {
    let inside = |start: &str| name.strip_prefix(start).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inside) = inside("Option<") {
        return format!("{}, may be missing", kind(inside, used));
    }
    if let Some(inside) = inside("Vec<") {
        return format!("list of: {}", kind(inside, used));
    }
    if let Some(inside) = inside("Box<") {
        return kind(inside, used);
    }
    if let Some((_, words)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
        return (*words).to_owned();
    }
    used.insert(name.to_owned());
    format!("[{name}](#{})", name.to_lowercase())
}

/// Returns a description without the marks of links in Rust's documentation.
fn doc(text: &str) -> String {
    let text = text.replace("[`", "`").replace("`]", "`");
    let parts = text.split('`').map(|part| match part.strip_prefix("Fact::") {
        Some(variant) => snake(variant),
        None => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

#[test]
fn the_page_of_events_is_that_of_the_facts() {
    super::assert_current("events.md", &page());
}

#[test]
fn an_event_has_its_fields_and_their_words() {
    let page = page();
    for part in [
        "\n### job_taken\n",
        "| `seen_job` | [SeenJob](#seenjob) |",
        "\n### OverHow\n",
        "| `job_done` | Its runner app had a job, and has exited. |",
        "It comes before or after `job_finished`",
        "| `Succeeded` |",
    ] {
        assert!(page.contains(part), "{part}");
    }
}
