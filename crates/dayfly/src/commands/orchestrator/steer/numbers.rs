//! The numbers of a pool that an administrator changes. Pure.

use dayfly_fleet::demand::{Demand, Scale};
use dayfly_fleet::pool::PoolSpec;
use dayfly_host::quantity::quantity;

use crate::config::{DemandWord, PoolConfig};
use crate::exit::{Failure, Result};
use crate::{defaults, rules};

/// Returns a pool, or a size of it, with other numbers. A size keeps no idle runners.
///
/// # Errors
/// They have no meaning for it, or do not fit each other.
pub(super) fn scaled(pool: &PoolConfig, max: Option<u32>, min_idle: Option<u32>) -> Result<PoolConfig> {
    let new_max = max.unwrap_or(pool.max);
    if !(1..=defaults::RUNNERS_MAX).contains(&new_max) {
        let bound = defaults::RUNNERS_MAX;
        return Err(Failure::usage(format!("a pool has 1 to {bound} runners at most, not {new_max}")));
    }
    let is_static = pool.sources == [DemandWord::Static];
    if is_static && min_idle.is_some() {
        let why =
            format!("{} has the demand static: it always keeps max runners, and has no min_idle", pool.name);
        return Err(Failure::usage(why).hint("give --max, the number of its runners"));
    }
    let is_size = pool.spec.size_of.is_some();
    let new_min_idle = min_idle.filter(|_| !is_size).unwrap_or(pool.min_idle);
    rules::min_idle_fits(new_min_idle, new_max).map_err(|why| match min_idle {
        Some(_) => Failure::usage(why),
        None => Failure::usage(why).hint("lower it too, with --min-idle"),
    })?;
    for entry in &pool.schedule.entries {
        rules::min_idle_fits(entry.min_idle, new_max)
            .map_err(|why| Failure::usage(why).at("an entry of its schedule"))?;
    }
    let demand = match pool.spec.demand {
        Demand::Static { start, .. } => Demand::Static { runners: new_max, start },
        Demand::Scaled(scale) => Demand::Scaled(Scale { min_idle: new_min_idle, max: new_max, ..scale }),
        Demand::Jobs { .. } => Demand::Jobs { max: new_max },
    };
    let spec = PoolSpec { demand, ..pool.spec.clone() };
    Ok(PoolConfig { spec, max: new_max, min_idle: new_min_idle, ..pool.clone() })
}

/// Returns what an administrator has to know about numbers that are not those of the file or of the options.
pub(super) fn notes_of_numbers(pool: &PoolConfig, has_file: bool) -> Vec<String> {
    let runners = quantity(pool.max, "runner", "runners");
    let numbers = match pool.spec.demand {
        Demand::Static { .. } => format!("{} has {runners}", pool.name),
        Demand::Scaled(_) | Demand::Jobs { .. } => {
            format!("{} has at most {runners}, and keeps {} idle", pool.name, pool.min_idle)
        }
    };
    let end = if has_file { "reload or restart" } else { "restart" };
    let mut notes = vec![format!("{numbers}, until the next {end}")];
    if !pool.schedule.entries.is_empty() {
        notes.push("its schedule still replaces the number of idle runners while an entry holds".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config, HostSize, Surroundings};

    fn around() -> Surroundings {
        let size = Some(HostSize { cpus: 4, memory_mib: 4096 });
        Surroundings { is_this_host: false, size, guest_folder: "/".into() }
    }

    /// Returns the configuration with one pool of these lines.
    fn config(lines: &str) -> Config {
        let text = format!(
            "[forges.main]\nurl = 'https://ghes.example'\ntoken_env = 'T'\n[pools.a]\nforge = 'main'\n\
             principal = 'o/r'\n{lines}\n"
        );
        let reading = config::parse("dayfly.toml", text.as_bytes(), &around());
        reading.config.unwrap_or_else(|| panic!("{:?}", reading.findings))
    }

    /// Returns the numbers after the order: the most and the idle runners, and the demand; or the refusal.
    fn after(
        lines: &str,
        max: Option<u32>,
        min_idle: Option<u32>,
    ) -> std::result::Result<(u32, u32, Demand), String> {
        let pool = scaled(&config(lines).pools[0], max, min_idle).map_err(|failure| failure.to_string())?;
        Ok((pool.max, pool.min_idle, pool.spec.demand))
    }

    #[test]
    fn numbers_that_are_not_given_stay() {
        let lines = "demand = 'scale-set'\nmax = 5\nmin_idle = 2";
        let Ok((max, min_idle, Demand::Scaled(scale))) = after(lines, Some(3), None) else {
            panic!("refused")
        };
        assert_eq!((max, min_idle, scale.max, scale.min_idle), (3, 2, 3, 2));
        let Ok((max, min_idle, Demand::Scaled(scale))) = after(lines, None, Some(0)) else {
            panic!("refused")
        };
        assert_eq!((max, min_idle, scale.max, scale.min_idle), (5, 0, 5, 0));
        let Ok((3, 0, Demand::Static { runners: 3, .. })) = after("max = 1", Some(3), None) else {
            panic!("refused")
        };
    }

    #[test]
    fn numbers_that_a_file_could_not_have_are_refused() {
        let scale_set = "demand = 'scale-set'\nmax = 5\nmin_idle = 2";
        let entry = "[[pools.a.schedule]]\nfrom = '08:00'\nto = '10:00'\nmin_idle = 4";
        let refusal = |lines: &str, max, min_idle| after(lines, max, min_idle).expect_err("refused");
        assert_eq!(refusal(scale_set, Some(1), None), "min_idle = 2 is more than max = 1");
        assert_eq!(refusal(scale_set, None, Some(6)), "min_idle = 6 is more than max = 5");
        assert_eq!(refusal(scale_set, Some(0), Some(0)), "a pool has 1 to 999 runners at most, not 0");
        assert_eq!(
            refusal(&format!("{scale_set}\n{entry}"), Some(3), None),
            "an entry of its schedule: min_idle = 4 is more than max = 3"
        );
        assert_eq!(
            refusal("", None, Some(1)),
            "a has the demand static: it always keeps max runners, and has no min_idle"
        );
    }

    #[test]
    fn all_sizes_of_a_pool_get_its_maximum_and_only_the_pool_itself_keeps_idle_runners() {
        let config = config("demand = 'scale-set'\nmax = 2\nsizes = ['dayfly-2cpu-2gb']");
        let pools = config.pools[0].by_size();
        let after: Vec<_> = pools.iter().map(|pool| scaled(pool, Some(3), Some(1)).expect("good")).collect();
        let numbers = |pool: &PoolConfig| (pool.max, pool.min_idle);
        assert_eq!(after.iter().map(numbers).collect::<Vec<_>>(), [(3, 1), (3, 0)]);
        let back: Vec<_> = after.iter().map(|pool| scaled(pool, Some(2), Some(0)).expect("good")).collect();
        assert_eq!(back, pools);
    }

    #[test]
    fn numbers_are_compared_with_the_host_as_those_of_a_file_are() {
        let config = config("demand = 'scale-set'\nmax = 2\nmemory = '1GiB'\n[host]\nmax_machines = 3");
        let errors = |max| {
            let pool = scaled(&config.pools[0], Some(max), None).expect("good");
            config::errors_of_numbers(&pool, &config.host, &around())
        };
        assert_eq!(errors(3), []);
        let [(why, Some(hint))] = &errors(4)[..] else { panic!("one error") };
        assert_eq!(why, "4 machines of this pool can never run at once: max_machines = 3 allows 3");
        assert!(hint.contains("host.max_machines"), "{hint}");
    }

    #[test]
    fn only_the_numbers_differ_so_that_a_reload_brings_those_of_the_file_back_in_place() {
        for lines in ["demand = 'scale-set'\nmax = 5\nmin_idle = 1", "max = 5\nstart = { pause = '3s' }"] {
            let pool = config(lines).pools.remove(0);
            let by_hand = scaled(&pool, Some(7), None).expect("good");
            assert_ne!(by_hand, pool);
            assert_eq!(scaled(&by_hand, Some(5), None).expect("good"), pool);
        }
    }
}
