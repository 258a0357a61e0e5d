//! The pages below `docs/`: the reference, which is written from the code, and the links of all pages.
//!
//! Each page of the reference is compared with the file in the repository; with `INSTA_UPDATE=always` the file is written
//! instead, as for snapshots.

mod commands;
mod configuration;
mod events;
mod links;
mod source;

use std::path::PathBuf;

/// Returns the path of a file of the repository.
fn repository(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name)
}

/// Compares a page with its file, or writes the file.
fn assert_current(name: &str, text: &str) {
    let path = repository("docs/reference").join(name);
    if std::env::var_os("INSTA_UPDATE").is_some_and(|mode| mode == "always") {
        std::fs::write(&path, text).expect("written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/reference/{name} is old: INSTA_UPDATE=always cargo test -p dayfly pages");
}

/// Returns text for a page: pointed brackets would be tags of HTML outside of code.
fn escaped(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let part = |(number, part): (usize, &str)| match number % 2 {
        0 => part.replace('<', "&lt;").replace('>', "&gt;"),
        _ => part.to_owned(),
    };
    parts.map(part).collect::<Vec<_>>().join("`")
}

/// Returns text for a cell of a table.
fn cell(text: &str) -> String {
    escaped(&text.split_whitespace().collect::<Vec<_>>().join(" ")).replace('|', "\\|")
}

/// Returns text as code in a cell of a table; empty text stays empty.
fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) }
}

/// Returns a row of a table.
fn row<const N: usize>(cells: [String; N]) -> String {
    let cells = cells.map(|cell| format!(" {cell} ").replace("  ", " "));
    format!("|{}|\n", cells.join("|"))
}

/// Returns the heading of a table.
fn head<const N: usize>(names: [&str; N]) -> String {
    row(names.map(str::to_owned)) + &row(names.map(|_| "---".to_owned()))
}

#[test]
fn text_from_the_code_is_harmless_in_a_page() {
    assert_eq!(cell("a|b <c>\n  `<d>`"), "a\\|b &lt;c&gt; `<d>`");
    assert_eq!(head(["a", ""]), "| a | |\n| --- | --- |\n");
}
