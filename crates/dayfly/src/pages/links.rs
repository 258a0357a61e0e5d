//! The links of all pages: each leads to a file of the repository, and to a heading if it names one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::repository;

/// Addresses of the repository's files. A page of the site uses them for files that are not below `docs/`.
const BLOB: &str = "https://github.com/dayfly-ci/dayfly/blob/main/";

/// Returns the pages: those at the root of the repository, and all below `docs/`.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(repository("."), false), (repository("docs"), true)];
    while let Some((folder, is_deep)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && is_deep {
                folders.push((path, true));
            } else if path.extension().is_some_and(|end| end == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns the text of a page without its code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let keep = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence && !line.starts_with("    ")
    };
    let lines = text.lines().filter(keep).collect::<Vec<_>>().join("\n");
    lines.split('`').step_by(2).collect::<Vec<_>>().join("`x`")
}

/// Returns the targets of the links of a page.
fn targets(text: &str) -> Vec<String> {
    let prose = prose(text);
    let parts = prose.split("](").skip(1);
    parts.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// Returns the anchors of the headings of a page, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let mut is_code = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        let Some(title) = line.strip_prefix('#').filter(|_| !is_code) else { continue };
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let seen = count.entry(anchor.clone()).or_default();
        anchors.insert(if *seen == 0 { anchor } else { format!("{anchor}-{seen}") });
        *seen += 1;
    }
    anchors
}

/// Returns a path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Returns the problem of a link on a page; none if it is good.
fn problem(page: &Path, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = match file.strip_prefix(BLOB) {
        Some(file) => repository(file),
        None if file.contains("://") || file.starts_with("mailto:") => return None,
        None if file.is_empty() => page.to_owned(),
        None => page.parent().expect("a folder").join(file),
    };
    let docs = plain(&repository("docs"));
    if plain(page).starts_with(&docs) && !file.starts_with(BLOB) && !plain(&path).starts_with(&docs) {
        return Some(format!("is outside of the site; use {BLOB}"));
    }
    if !path.exists() {
        return Some("leads to no file".to_owned());
    }
    let anchor = anchor.filter(|_| path.extension().is_some_and(|end| end == "md"))?;
    let text = std::fs::read_to_string(&path).expect("a page");
    (!anchors(&text).contains(anchor)).then(|| format!("leads to no heading of {}", path.display()))
}

#[test]
fn each_link_of_each_page_leads_somewhere() {
    let mut problems = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page");
        for target in targets(&text) {
            count += 1;
            let problem = problem(&page, &target);
            problems.extend(problem.map(|why| format!("{}: {target} {why}", page.display())));
        }
    }
    assert!(count > 100, "the pages have many links: {count}");
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn each_page_of_the_site_is_in_its_summary() {
    let summary = std::fs::read_to_string(repository("docs/SUMMARY.md")).expect("the summary");
    let listed: BTreeSet<PathBuf> =
        targets(&summary).iter().map(|page| plain(&repository("docs").join(page))).collect();
    let docs = plain(&repository("docs"));
    let pages = pages().into_iter().map(|page| plain(&page)).filter(|page| page.starts_with(&docs));
    let missing: Vec<PathBuf> =
        pages.filter(|page| !page.ends_with("SUMMARY.md") && !listed.contains(page)).collect();
    assert_eq!(missing, Vec::<PathBuf>::new());
}

#[test]
fn a_link_to_a_missing_file_or_heading_or_out_of_the_site_is_a_problem() {
    let page = repository("docs/pools.md");
    let check = |target: &str| problem(&page, target);
    assert_eq!(check("images.md"), None);
    assert_eq!(check("#a-first-file"), None);
    assert_eq!(check("https://example.com/x"), None);
    assert_eq!(check(&format!("{BLOB}ARCHITECTURE.md#terms")), None);
    assert!(check("imagse.md").is_some_and(|why| why == "leads to no file"));
    assert!(check("#a-frist-file").is_some_and(|why| why.starts_with("leads to no heading")));
    assert!(check("../README.md").is_some_and(|why| why.starts_with("is outside of the site")));
    assert_eq!(
        targets("[a](b.md) `[c](d.md)`\n\n    [e](f.md)\n```\n[g](h)\n```\n[i](j#k)"),
        ["b.md", "j#k"]
    );
}
