//! The page in a real browser: a headless Chromium opens each page at the width of a phone and of a large screen, light and dark.
//!
//! `make test-full` runs it. By hand: `cargo test -p dayfly-web --test browser -- --ignored`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod chromium;
#[path = "../../examples/page/made_up.rs"]
mod made_up;

use std::collections::BTreeSet;

use chromium::Chromium;
use made_up::{HOSTILE, MadeUp, ended_run, live_run};
use serde_json::{Value, json};

const RUNS: u64 = 150;
const TAB: u32 = 9;
/// Most elements that a page has, for the walk by keyboard.
const STOPS_MAX: usize = 1000;
/// Least contrast of text (WCAG 2, level AA).
const CONTRAST_MIN: f64 = 4.5;

/// The elements that a person can use, in the order of the page.
const INTERACTIVE: &str = r#"[...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled)"#;

/// The contrast between text and background of the page (WCAG 2.2, "contrast ratio").
const CONTRAST: &str = r#"(() => {
    const light = (css) => {
        const [r, g, b] = css.match(/[\d.]+/g).map(Number).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(document.body);
    const [a, b] = [light(style.color), light(getComputedStyle(document.documentElement).backgroundColor === "rgba(0, 0, 0, 0)"
        ? style.backgroundColor : getComputedStyle(document.documentElement).backgroundColor)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
})()"#;

/// Every page: those without a run, and the pages of a run that has ended and of one that goes on.
fn pages() -> Vec<String> {
    let fixed = ["/", "/runs", "/history", "/images", "/runs?conclusion=failure"].map(str::to_owned);
    fixed.into_iter().chain([ended_run(3), live_run(4)].map(|run| format!("/runs/{run}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium; make test-full runs it"]
async fn every_page_fits_a_phone_and_a_large_screen_and_has_no_error_in_light_and_in_dark() {
    let (made_up, mut browser) = (MadeUp::start(RUNS, 0), Chromium::start());
    let empty = MadeUp::start(0, 0);
    let of_empty = ["/", "/runs", "/history", "/images"]
        .map(|page| format!("{}{page}", empty.url.trim_end_matches('/')));
    let urls = pages().into_iter().map(|page| format!("{}{page}", made_up.url.trim_end_matches('/')));
    for url in urls.chain(of_empty) {
        let mut backgrounds = BTreeSet::new();
        for (width, scheme) in [(400, "light"), (400, "dark"), (1600, "light"), (1600, "dark")] {
            browser.look(width, scheme);
            browser.open(&url);
            let what = format!("{url} at {width}, {scheme}");
            assert_eq!(browser.value("document.readyState"), "complete", "{what}");
            assert_eq!(browser.value("document.querySelectorAll('main h1').length"), 1, "{what}");
            let wide = browser.value("document.documentElement.scrollWidth - innerWidth").as_i64().unwrap();
            assert!(wide <= 0, "{what}: {wide} pixels are beyond its right edge");
            let contrast = browser.value(CONTRAST).as_f64().unwrap();
            assert!(contrast >= CONTRAST_MIN, "{what}: a contrast of {contrast:.1}");
            backgrounds.insert(browser.value("getComputedStyle(document.body).backgroundColor").to_string());
            assert_eq!(browser.errors(), Vec::<String>::new(), "{what}");
        }
        assert_eq!(backgrounds.len(), 2, "{url}: light and dark differ: {backgrounds:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium; make test-full runs it"]
async fn hostile_names_and_lines_are_shown_as_text_and_run_nothing() {
    let (mut made_up, mut browser) = (MadeUp::start(RUNS, 0), Chromium::start());
    browser.look(1600, "light");
    let live = live_run(4);
    made_up.line(4, HOSTILE);
    let mut shown = 0;
    for page in pages() {
        browser.open(&format!("{}{page}", made_up.url.trim_end_matches('/')));
        assert_eq!(
            browser.value("document.querySelectorAll('main script, main img, main b').length"),
            0,
            "{page}"
        );
        assert_eq!(browser.value("window.hostile === undefined"), true, "{page}: a name has run as a script");
        // A blocked script would be an error of the policy.
        assert_eq!(browser.errors(), Vec::<String>::new(), "{page}");
        let has_it =
            browser.value(&format!("document.querySelector('main').innerText.includes({})", json!(HOSTILE)));
        assert!(has_it == true || !page.ends_with(&live), "{page}: the line is not shown");
        shown += u32::from(has_it == true);
    }
    assert!(shown >= 3, "the name is on {shown} pages");
    // A line that comes later takes another way into the page.
    browser.open(&format!("{}/runs/{live}", made_up.url.trim_end_matches('/')));
    made_up.line(4, "<img src=x onerror=\"window.hostile=1\"> came later");
    browser.wait_until("document.querySelector('#log').innerText.includes('> came later')");
    assert_eq!(browser.value("window.hostile === undefined"), true);
    assert_eq!(browser.value("document.querySelectorAll('#log img').length"), 0);
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium; make test-full runs it"]
async fn a_change_reaches_an_open_page_and_the_reader_keeps_the_focus() {
    let (mut made_up, mut browser) = (MadeUp::start(RUNS, 0), Chromium::start());
    browser.look(400, "light");
    browser.open(&made_up.url);
    browser.wait_until("document.querySelector('#connection').textContent === 'live'");
    browser.value("window.opened = 1");
    made_up.tick();
    for (count, element) in [(4711, "a[href]"), (4712, "[role=region]")] {
        browser.value(&format!("document.querySelector('#live {element}').focus()"));
        let focused = browser.value("document.activeElement.outerHTML.slice(0, 60)");
        made_up.jobs_wait(count);
        browser.wait_until(&format!("document.querySelector('#live').innerText.includes('{count}')"));
        assert_eq!(browser.value("document.activeElement.outerHTML.slice(0, 60)"), focused);
    }
    assert_eq!(browser.value("window.opened"), 1, "the page was not loaded again");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium; make test-full runs it"]
async fn everything_that_can_be_used_has_a_name_and_is_reached_by_keyboard_in_the_order_of_the_page() {
    let (made_up, mut browser) = (MadeUp::start(RUNS, 0), Chromium::start());
    browser.look(400, "light");
    for page in pages() {
        browser.open(&format!("{}{page}", made_up.url.trim_end_matches('/')));
        let elements = browser.value(&format!("{INTERACTIVE}.map((one) => one.outerHTML.slice(0, 120))"));
        let elements = elements.as_array().unwrap();
        assert!((5..STOPS_MAX).contains(&elements.len()), "{page}: {} elements", elements.len());
        assert_eq!(without_name(&mut browser), Vec::<String>::new(), "{page}");
        let reached = walk(&mut browser, elements.len());
        let expected: Vec<usize> = (0..elements.len()).collect();
        let missing: Vec<&Value> =
            expected.iter().filter(|at| !reached.contains(at)).map(|at| &elements[*at]).collect();
        assert!(missing.is_empty(), "{page}: Tab does not reach {missing:#?}");
        assert_eq!(reached, expected, "{page}: in another order");
        assert_eq!(browser.errors(), Vec::<String>::new(), "{page}");
    }
}

/// Returns the elements that a screen reader would announce without a name.
fn without_name(browser: &mut Chromium) -> Vec<String> {
    const ROLES: [&str; 8] = [
        "link",
        "button",
        "textbox",
        "searchbox",
        "combobox",
        "checkbox",
        "spinbutton",
        "DisclosureTriangle",
    ];
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false);
    let interactive = nodes.filter(|node| ROLES.iter().any(|role| node["role"]["value"] == *role));
    let nameless =
        interactive.filter(|node| node["name"]["value"].as_str().is_none_or(|name| name.trim().is_empty()));
    nameless.map(Value::to_string).collect()
}

/// Presses Tab from the top of the page until the focus leaves it. Returns the elements that had the focus, each of which must
/// show that it has it.
fn walk(browser: &mut Chromium, most: usize) -> Vec<usize> {
    let mut reached = Vec::new();
    browser.value("document.activeElement.blur(); scrollTo(0, 0)");
    for _ in 0..most + 10 {
        browser.press("Tab", TAB);
        let focused = browser.value(&format!(
            "(() => {{ const one = document.activeElement; const style = getComputedStyle(one); \
             return [{INTERACTIVE}.indexOf(one), style.outlineStyle !== 'none' && style.outlineWidth !== '0px']; }})()"
        ));
        let Some(at) = focused[0].as_u64().and_then(|at| usize::try_from(at).ok()) else { break };
        assert_eq!(focused[1], true, "the element {at} does not show that it has the focus");
        if reached.contains(&at) {
            break;
        }
        reached.push(at);
    }
    reached
}
