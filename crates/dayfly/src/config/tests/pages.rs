//! The examples of the pages are good files.

use super::{around, parse};

const POOLS: &str = include_str!("../../../../../docs/pools.md");
const SCALE_SETS: &str = include_str!("../../../../../docs/scale-sets.md");
const README: &str = include_str!("../../../../../README.md");

/// Returns the code blocks of a language, with the lines at which they begin.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut is_inside = false;
    for (number, line) in page.lines().enumerate() {
        match (is_inside, line.trim_start().strip_prefix("```")) {
            (false, Some(word)) if word == language => {
                blocks.push((number + 2, String::new()));
                is_inside = true;
            }
            (true, Some(_)) => is_inside = false,
            (true, None) => {
                let (_, block) = blocks.last_mut().expect("it has begun");
                block.push_str(line);
                block.push('\n');
            }
            (false, _) => {}
        }
    }
    blocks
}

#[test]
fn every_example_of_the_pages_is_good() {
    let examples: Vec<_> = [POOLS, SCALE_SETS, README].iter().flat_map(|page| blocks(page, "toml")).collect();
    assert!(examples.len() >= 6, "{}", examples.len());
    let mut forge = String::new();
    for (line, example) in examples {
        // The first example defines the forge that the others use.
        if forge.is_empty() {
            let end = example.find("[pools.").expect("a pool");
            forge = example[..end].to_owned();
        }
        let text = if example.contains("[forges.") { example.clone() } else { format!("{forge}{example}") };
        let text = if text.contains("[pools.") {
            text
        } else {
            format!("{text}[pools.p]\nforge = \"main\"\nprincipal = \"a/b\"\n")
        };
        let reading = parse("docs/pools.md", text.as_bytes(), &around());
        assert!(reading.findings.is_empty(), "the example at line {line}: {:#?}", reading.findings);
    }
}

#[test]
fn every_key_of_a_pool_is_on_the_page() {
    use super::super::schema::Known;
    let tables = [
        vec!["forges", "x"],
        vec!["pools", "x"],
        vec!["pools", "x", "timeouts"],
        vec!["pools", "x", "start"],
        vec!["host"],
        vec!["webhook"],
        vec!["web"],
        vec!["traces"],
    ];
    for table in tables {
        let known = table.iter().try_fold(Known::file(), |known, key| known.key(key)).expect("a table");
        for key in known.keys() {
            assert!(POOLS.contains(&format!("`{key}`")), "{table:?} {key}");
        }
    }
}
