//! Tests of whole files: messages, conversion, pages, and hostile input.

mod conversion;
mod hostile;
mod messages;
mod pages;

use super::{HostSize, Reading, Surroundings, parse};

/// A file with a value for every kind of key.
const WHOLE: &str = include_str!("tests/whole.toml");

/// A host of four processors and 16 GiB, on which no file is looked for.
fn around() -> Surroundings {
    let size = Some(HostSize { cpus: 4, memory_mib: 16 * 1024 });
    Surroundings { is_this_host: false, size, guest_folder: "/opt/dayfly".into() }
}

fn read(text: &str) -> Reading {
    parse("f.toml", text.as_bytes(), &around())
}

/// Returns all problems as they are shown.
fn problems(text: &str) -> String {
    let shown = read(text).findings.into_iter().map(|finding| {
        let hint = finding.hint.as_deref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("{:?}: {finding}{hint}\n", finding.severity)
    });
    shown.collect()
}

/// Returns a file with a forge and a pool, and more keys of the pool.
fn pool(keys: &str) -> String {
    format!(
        "[forges.main]\ntoken_env = \"T\"\n[pools.p]\nforge = \"main\"\nprincipal = \"acme/app\"\n{keys}\n"
    )
}

/// Returns the messages about a pool with more keys, without places.
fn messages(keys: &str) -> Vec<String> {
    read(&pool(keys))
        .findings
        .into_iter()
        .map(|finding| format!("{}: {}", finding.key, finding.message))
        .collect()
}
