//! The remains of processes that have died: a table of its own below that of the loops.

use std::time::Duration;

use dayfly_fleet::remains::{Place, Remains};
use dayfly_forge::Url;

use crate::printer::{self, paint, style};

/// The columns of the table.
const HEAD: [&str; 7] = ["INSTANCE", "SINCE", "RUNS", "ALIVE", "PREFIX", "SCOPE", "FORGE"];

/// Prints the table, and what becomes of its rows.
pub(super) fn show(all: &[Remains], now_ms: u64) {
    printer::line(paint(
        style::WARN,
        "left by processes that have died; a start for the same prefix, scope and forge takes it over:",
    ));
    printer::table(HEAD, rows(all, now_ms).into_iter());
    printer::hint("dayfly clear INSTANCE removes what no start will take over");
}

/// Returns the rows: one for each place of each instance.
fn rows(all: &[Remains], now_ms: u64) -> Vec<[String; 7]> {
    all.iter().flat_map(|remains| rows_of(remains, now_ms)).collect()
}

fn rows_of(remains: &Remains, now_ms: u64) -> Vec<[String; 7]> {
    let since = Duration::from_millis(now_ms.saturating_sub(remains.since_ms)).as_secs();
    let counts = [
        name_of(remains),
        crate::units::short_span(since),
        remains.runs.len().to_string(),
        remains.machines().to_string(),
    ];
    // The instance and its counts are in its first row only.
    let heads = std::iter::once(counts).chain(std::iter::repeat_with(Default::default));
    let row = |[instance, since, runs, alive]: [String; 4], [prefix, scope, forge]: [String; 3]| {
        [instance, since, runs, alive, prefix, scope, forge]
    };
    match remains.places.is_empty() {
        true => heads.take(1).map(|head| row(head, ["-", "-", "-"].map(str::to_owned))).collect(),
        false => heads.zip(&remains.places).map(|(head, place)| row(head, place_cells(place))).collect(),
    }
}

fn place_cells(Place { prefix, scope, forge }: &Place) -> [String; 3] {
    [prefix.clone(), scope.clone(), host_of(forge)]
}

/// Returns the name of an instance.
pub(in crate::commands) fn name_of(remains: &Remains) -> String {
    remains.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the host and the port of a URL, which tell forges apart.
pub(in crate::commands) fn host_of(url: &str) -> String {
    let parsed = Url::parse(url).ok();
    let host = parsed.as_ref().and_then(|url| {
        let host = url.host_str()?;
        Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    });
    host.unwrap_or_else(|| url.to_owned())
}

#[cfg(test)]
pub(in crate::commands) mod tests {
    use dayfly_fleet::remains::RunRemains;

    use super::*;

    fn place(prefix: &str, scope: &str, forge: &str) -> Place {
        Place { prefix: prefix.to_owned(), scope: scope.to_owned(), forge: forge.to_owned() }
    }

    fn run(machine_lives: bool) -> RunRemains {
        RunRemains {
            runner: "1-bbbbbbb".to_owned(),
            name: Some("GH-runner-1-bbbbbbb".to_owned()),
            is_registered: true,
            scope: Some("o/r".to_owned()),
            forge: Some("https://api.github.com/".to_owned()),
            job: machine_lives.then(|| "build".to_owned()),
            machine_lives,
            problem: None,
        }
    }

    /// Returns what two processes have left, one of them an orchestrator of two pools, and what a third one of which only the folder
    /// can be read.
    pub(in crate::commands) fn three(now_ms: u64) -> [Remains; 3] {
        let github = "https://api.github.com/";
        let of = |name: &str, age_s: u64, places: &[Place], runs: &[RunRemains]| Remains {
            folder: format!("/var/lib/dayfly/instances/{name}").into(),
            since_ms: now_ms - age_s * 1000,
            places: places.to_vec(),
            runs: runs.to_vec(),
            spares: 0,
        };
        [
            of("Qm3vT8xA", 40, &[place("GH-runner", "o/r", github)], &[run(true)]),
            of(
                "k3V9x0q1",
                3 * 86_400,
                &[
                    place("build-host-7", "an-organisation", "https://ghes.example.com/api/v3/"),
                    place("small", "o/r", "http://127.0.0.1:8080/api/v3/"),
                ],
                &[run(true), run(false)],
            ),
            of("z0z0z0z0", 400 * 86_400, &[], &[run(false)]),
        ]
    }

    #[test]
    fn what_is_left_fits_into_eighty_columns() {
        let now_ms = 1_800_000_000_000;
        let lines = printer::table_lines(HEAD, rows(&three(now_ms), now_ms).into_iter());
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        insta::assert_snapshot!(lines.join("\n"), @r"
        INSTANCE  SINCE  RUNS  ALIVE  PREFIX        SCOPE            FORGE
        Qm3vT8xA  40s    1     1      GH-runner     o/r              api.github.com
        k3V9x0q1  3d     2     1      build-host-7  an-organisation  ghes.example.com
                                      small         o/r              127.0.0.1:8080
        z0z0z0z0  400d   1     0      -             -                -
        ");
    }
}
