//! The meaning of the keys of a file for the fleet.

use clap::Parser as _;
use dayfly_fleet::pool::{MachineSpec, PoolSpec};
use dayfly_forge::{ApiBase, RunnerScope};

use super::super::reader::Positions;
use super::super::schema::Known;
use super::{WHOLE, pool, read};
use crate::cli::{Cli, Command, LoopOptions};
use crate::defaults;

#[test]
fn a_pool_without_keys_is_what_a_loop_without_options_is() {
    let config = read(&pool("")).config.expect("good");
    let spec = &config.pools[0].spec;
    let cli = Cli::try_parse_from(["dayfly", "runner", "-p", "acme/app"]).expect("options");
    let Command::Runner(args) = cli.command else { panic!("not a runner") };
    assert_eq!(spec.machine, MachineSpec { max_age: args.max_age.0, ..args.machine.spec() });
    assert_eq!(spec.prefix, args.looping.prefix);
    assert_eq!(spec.network, args.guest.network.policy(Vec::new()));
    assert_eq!((spec.dns, &spec.user, spec.update), (args.guest.dns, &args.guest.user, args.guest.update));
    assert_eq!(
        (&spec.group, spec.forge.clone()),
        (&args.forge.access.group, ApiBase::from_host_or_url(&args.forge.forge).expect("a forge"))
    );
    assert_eq!(spec.verbose, LoopOptions::new(*args, 0, &clap::ArgMatches::default()).verbosity());
    let scope = RunnerScope::Repository { owner: "acme".into(), name: "app".into() };
    let fleets = PoolSpec::new(spec.forge.clone(), scope, spec.machine.clone());
    assert_eq!(*spec, PoolSpec { name: spec.name.clone(), demand: spec.demand, ..fleets });
    assert_eq!(config.pools[0].max, defaults::RUNNERS);
}

#[test]
fn every_key_reaches_its_place() {
    let config = read(WHOLE).config.expect("good");
    insta::assert_json_snapshot!(config);
}

#[test]
fn the_file_of_the_tests_has_every_key() {
    let (_, positions, problems) = super::super::reader::read(WHOLE);
    assert!(problems.is_empty(), "{problems:?}");
    let tables =
        ["forges.main", "forges.lab", "pools.build", "pools.old", "host", "webhook", "web", "traces"];
    let of_keys = ["pools.build.timeouts", "pools.build.hooks", "pools.old.start"];
    for table in
        tables.into_iter().filter(|table| !["forges.lab", "pools.old"].contains(table)).chain(of_keys)
    {
        for key in keys_of(table) {
            let kind = table.split('.').next().expect("one");
            let rest: Vec<&str> = table.split('.').skip(2).collect();
            let of_kind = tables.iter().filter(|table| table.starts_with(kind));
            let mut places = of_kind.map(|table| [&[*table], &rest[..], &[key]].concat().join("."));
            // A pause excludes the other keys of the start order, and there is one credential and one secret.
            let is_elsewhere =
                ["pause", "token_file", "token_env", "secret_env", "secret_credential"].contains(&key);
            assert!(is_elsewhere || places.any(|place| has(&positions, &place)), "{table}.{key}");
        }
    }
}

fn has(positions: &Positions, key: &str) -> bool {
    positions.has(key)
}

fn keys_of(table: &str) -> Vec<&'static str> {
    let known = table.split('.').try_fold(Known::file(), |known, key| known.key(key));
    known.expect("a table").keys().collect()
}

#[test]
fn the_start_order_of_a_static_pool_is_that_of_an_orchestrator() {
    use dayfly_fleet::demand::{Demand, Scale, StartOrder};
    use dayfly_fleet::orchestrator::UP_LIMIT;
    use std::time::Duration;
    let demand = |keys: &str| read(&pool(keys)).config.expect(keys).pools[0].spec.demand;
    let isolated = StartOrder::Isolated { parallel: 1, limit: UP_LIMIT };
    assert_eq!(demand("max = 3"), Demand::Static { runners: 3, start: isolated });
    let paused = StartOrder::Paused(Duration::from_secs(30));
    assert_eq!(demand("start = { pause = \"30s\" }"), Demand::Static { runners: 1, start: paused });
    assert_eq!(
        demand("demand = \"poll\"\nmax = 3"),
        Demand::Scaled(Scale { min_idle: 0, max: 3, idle_timeout: defaults::IDLE })
    );
}

#[test]
fn each_size_of_a_pool_is_a_pool_with_another_machine_and_no_label_but_its_own() {
    use dayfly_fleet::demand::Demand;
    let keys = "demand = \"scale-set\"\nmax = 3\nmin_idle = 2\nspares = 1\nlabels = [\"fast\"]\n\
                schedule = [{ from = \"08:00\", to = \"09:00\", min_idle = 1 }]\n\
                sizes = [\"dayfly-4cpu-8gb\"]";
    let pools = read(&pool(keys)).config.expect(keys).pools[0].by_size();
    let [own, of_size] = &pools[..] else { panic!("{} pools", pools.len()) };
    assert_eq!((own.name.as_str(), own.scale_set.as_deref()), ("p", Some("p")));
    assert_eq!((own.min_idle, own.spec.size_of.as_deref(), own.sizes.len()), (2, None, 0));
    assert_eq!(of_size.name, "p (dayfly-4cpu-8gb)");
    assert_eq!(of_size.scale_set.as_deref(), Some("p-dayfly-4cpu-8gb"));
    let spec = &of_size.spec;
    assert_eq!((spec.name.as_ref(), spec.size_of.as_deref()), (Some(&of_size.name), Some("p")));
    assert_eq!(spec.labels.as_deref().unwrap_or_default(), ["p-dayfly-4cpu-8gb", "dayfly-4cpu-8gb"]);
    assert_eq!((spec.machine.cpus, spec.machine.memory_mib, spec.machine.spares), (4, 8192, 0));
    let Demand::Scaled(scale) = spec.demand else { panic!("{:?}", spec.demand) };
    assert_eq!((scale.min_idle, scale.max, of_size.min_idle, of_size.max), (0, 3, 0, 3));
    assert!(of_size.schedule.entries.is_empty());
    let polled = read(&pool("demand = \"poll\"\nsizes = [\"dayfly-1cpu-1gb\"]")).config.expect("good");
    assert_eq!(polled.pools[0].by_size()[1].scale_set, None);
}

#[test]
fn the_scale_set_has_the_name_of_the_pool_unless_the_file_says_otherwise() {
    let name = |keys: &str| read(&pool(keys)).config.expect(keys).pools[0].scale_set.clone();
    assert_eq!(name("demand = \"scale-set\"").as_deref(), Some("p"));
    assert_eq!(name("demand = \"scale-set\"\nscale_set = \"x\"").as_deref(), Some("x"));
    assert_eq!(name("demand = \"poll\""), None);
}
