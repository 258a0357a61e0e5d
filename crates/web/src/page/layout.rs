//! The frame of each page.

use maud::{DOCTYPE, Markup, html};

/// The entry of the navigation that a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Runs,
    History,
    Images,
    Other,
}

const ENTRIES: [(Place, &str, &str); 4] = [
    (Place::Overview, "/", "Overview"),
    (Place::Runs, "/runs", "Runs"),
    (Place::History, "/history", "History"),
    (Place::Images, "/images", "Images"),
];

/// Returns a whole page.
pub(super) fn page(title: &str, place: Place, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - dayfly" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/style.css";
                script src="/page.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    span.brand { "dayfly" }
                    nav aria-label="Pages" {
                        @for (entry, href, word) in ENTRIES {
                            a href=(href) aria-current=[(entry == place).then_some("page")] { (word) }
                        }
                    }
                    span #connection role="status" {}
                }
                main #main tabindex="-1" { (main) }
            }
        }
    }
}

/// Returns a table that scrolls by itself on a narrow screen, also by keyboard.
pub(super) fn table(caption: &str, head: &[&str], rows: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for cell in head { th scope="col" { (cell) } } } }
                tbody { (rows) }
            }
        }
    }
}
