//! Compares a changed file with the pools that run. Pure, but for the contents of the files that belong to a pool.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use dayfly_fleet::demand::Demand;
use dayfly_fleet::pool::PoolSpec;

use crate::config::{DemandWord, PoolConfig, Schedule, Timeouts};
use crate::control::PoolChanges;

/// Most bytes of a warm-up script that are compared. A longer script is refused.
const WARM_UP_MAX: u64 = 256 * 1024;

/// A pool as the file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct PoolText {
    pub(in super::super) config: PoolConfig,
    /// The content of its warm-up script, because templates are built from it.
    warm_up: Option<Vec<u8>>,
}

impl PoolText {
    /// Reads the files that belong to a pool. A file that cannot be read is reported when the pool is prepared.
    pub(in super::super) fn read(config: PoolConfig) -> Self {
        let content = |path: &Path| {
            let mut content = Vec::new();
            File::open(path).ok()?.take(WARM_UP_MAX).read_to_end(&mut content).ok()?;
            Some(content)
        };
        let warm_up = config.spec.machine.warm_up.as_deref().and_then(content);
        Self { config, warm_up }
    }

    /// Returns true if only numbers differ that a pool can change while it runs.
    fn differs_in_numbers_only(&self, other: &Self) -> bool {
        self.warm_up == other.warm_up && without_numbers(&self.config) == without_numbers(&other.config)
    }
}

/// Returns a pool without the numbers that it can change while it runs: how many runners it has and when, and their
/// space.
fn without_numbers(pool: &PoolConfig) -> PoolConfig {
    // The sources say whether the demand is static.
    let spec =
        PoolSpec { demand: Demand::Jobs { max: 0 }, weight: 0, scratch_mib: None, ..pool.spec.clone() };
    // The places of a static pool have it from their start on.
    let idle = pool.timeouts.idle.filter(|_| pool.sources == [DemandWord::Static]);
    let timeouts = Timeouts { idle, ..pool.timeouts };
    let schedule = Schedule::default();
    PoolConfig { spec, timeouts, schedule, min_idle: 0, max: 0, weight: 0, ..pool.clone() }
}

/// Returns what becomes of each pool.
pub(super) fn between<'a>(
    running: impl Iterator<Item = &'a PoolText> + Clone,
    found: &[PoolText],
) -> PoolChanges {
    let mut changes = PoolChanges::default();
    for text in found {
        let before = running.clone().find(|before| before.config.name == text.config.name);
        let names = match before {
            None => &mut changes.added,
            Some(before) if before == text => &mut changes.unchanged,
            Some(before) if before.differs_in_numbers_only(text) => &mut changes.adjusted,
            Some(_) => &mut changes.replaced,
        };
        names.push(text.config.name.clone());
    }
    let is_gone = |before: &&PoolText| found.iter().all(|text| text.config.name != before.config.name);
    changes.removed.extend(running.filter(is_gone).map(|before| before.config.name.clone()));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Surroundings};

    const FORGES: &str = "[forges.main]\nurl = 'https://ghes.example'\ntoken_env = 'T'\n\
                          [forges.other]\nurl = 'https://other.example'\ntoken_env = 'T'\n";

    fn pools(text: &str) -> Vec<PoolText> {
        let around = Surroundings { is_this_host: false, size: None, guest_folder: "/".into() };
        let reading = config::parse("dayfly.toml", format!("{FORGES}{text}").as_bytes(), &around);
        let config = reading.config.unwrap_or_else(|| panic!("{:?}", reading.findings));
        config.pools.iter().flat_map(config::PoolConfig::by_size).map(PoolText::read).collect()
    }

    /// Returns what becomes of the pool `a` if these lines are added to it.
    fn fate(before: &str, after: &str) -> &'static str {
        let pool = |lines: &str| pools(&format!("[pools.a]\nforge = 'main'\nprincipal = 'o/r'\n{lines}\n"));
        let changes = between(pool(before).iter(), &pool(after));
        let fates = [
            (&changes.added, "added"),
            (&changes.replaced, "replaced"),
            (&changes.adjusted, "adjusted"),
            (&changes.removed, "removed"),
            (&changes.unchanged, "unchanged"),
        ];
        let mut fates = fates.into_iter().filter(|(names, _)| **names == ["a"]).map(|(_, fate)| fate);
        fates.next().expect("one fate")
    }

    #[test]
    fn numbers_of_runners_change_in_place() {
        let scaled = "demand = 'scale-set'";
        for (before, after) in [
            ("max = 2", "max = 3"),
            ("max = 2", "max = 2\nstart = { parallel = 2 }"),
            ("", "weight = 7"),
            ("", "scratch = '20GiB'"),
            (scaled, "demand = 'scale-set'\nmax = 5\nmin_idle = 2"),
            (scaled, "demand = 'scale-set'\ntimeouts = { idle = '1m' }"),
            (
                scaled,
                "demand = 'scale-set'\n[[pools.a.schedule]]\nfrom = '08:00'\nto = '10:00'\nmin_idle = 1",
            ),
        ] {
            assert_eq!(fate(before, after), "adjusted", "{after}");
            assert_eq!(fate(after, before), "adjusted", "{after}");
        }
    }

    #[test]
    fn everything_else_makes_another_pool() {
        for after in [
            "demand = 'scale-set'",
            "demand = ['scale-set', 'poll']",
            "demand = 'scale-set'\nscale_set = 'b'",
            "labels = ['b']",
            "memory = '2GiB'",
            "image = 'ubuntu:24.04'",
            "lifetime = '1h'",
            "repeat = 3",
            "timeouts = { job = '1h' }",
            "timeouts = { idle = '1h' }",
            "timeouts = { registration = '1m' }",
            "settings = { RUNNER_X = 'y' }",
            "hooks = { job_started = '/etc/dayfly/started.sh' }",
            "allow_forks = true",
            "show_host = false",
            "prefix = 'other'",
        ] {
            assert_eq!(fate("", after), "replaced", "{after}");
        }
        assert_eq!(fate("", "# a comment\n"), "unchanged");
    }

    #[test]
    fn a_changed_list_of_sizes_changes_only_those_that_come_and_go() {
        let pool = |lines: &str| {
            pools(&format!(
                "[pools.a]\nforge = 'main'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmax = 2\n{lines}\n"
            ))
        };
        let before = pool("sizes = ['dayfly-1cpu-1gb', 'dayfly-2cpu-2gb']");
        let changes = between(before.iter(), &pool("sizes = ['dayfly-4cpu-4gb', 'dayfly-2cpu-2gb']"));
        assert_eq!(changes.unchanged, ["a", "a (dayfly-2cpu-2gb)"]);
        assert_eq!(
            (&changes.added[..], &changes.removed[..]),
            (&["a (dayfly-4cpu-4gb)".to_owned()][..], &["a (dayfly-1cpu-1gb)".to_owned()][..],)
        );
        assert_eq!((changes.adjusted.len(), changes.replaced.len()), (0, 0));
        let larger = pool("sizes = ['dayfly-1cpu-1gb', 'dayfly-2cpu-2gb']\nweight = 2");
        assert_eq!(between(before.iter(), &larger).adjusted.len(), 3, "each has the new numbers");
    }

    #[test]
    fn a_pool_of_another_name_comes_and_one_of_the_old_name_goes() {
        let pool = |name: &str, forge: &str| {
            format!(
                "[pools.{name}]\nforge = '{forge}'\nprincipal = 'o/r'\ndemand = 'scale-set'\nscale_set = 's{name}'\n"
            )
        };
        let before = pools(&(pool("a", "main") + &pool("b", "main") + &pool("c", "main")));
        let after = pools(&(pool("d", "main") + &pool("c", "other") + &pool("b", "main")));
        let changes = between(before.iter(), &after);
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let expected = PoolChanges {
            added: names(&["d"]),
            replaced: names(&["c"]),
            adjusted: Vec::new(),
            removed: names(&["a"]),
            unchanged: names(&["b"]),
            ..PoolChanges::default()
        };
        assert_eq!(changes, expected);
    }

    #[test]
    fn another_warm_up_script_under_the_same_name_makes_another_pool() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("w.sh");
        let text = format!("[pools.a]\nforge = 'main'\nprincipal = 'o/r'\nwarm_up = {path:?}\n");
        std::fs::write(&path, "one").expect("written");
        let before = pools(&text);
        assert_eq!(between(before.iter(), &pools(&text)).unchanged, ["a"]);
        std::fs::write(&path, "two").expect("written");
        assert_eq!(between(before.iter(), &pools(&text)).replaced, ["a"]);
    }
}
