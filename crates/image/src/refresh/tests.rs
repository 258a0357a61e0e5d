use proptest::prelude::*;

use super::super::Cancel;
use super::super::generations::tests::put_generation;
use super::super::{ImportSettings, PullPolicy};
use super::*;
use crate::oci::RegistryAccess;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const NOW_S: i64 = 100 * 24 * 3600;
const DAY_S: i64 = 24 * 3600;

fn part(part: Part, days_old: i64) -> AgingPart {
    AgingPart { part, created_s: NOW_S - days_old * DAY_S }
}

fn step(parts: &[AgingPart], attempts: &[(Part, u64)]) -> Step {
    let now = Instant::now();
    let rest = |(part, seconds): &(Part, u64)| {
        (*part, Attempts { failures: 1, not_before: now + Duration::from_secs(*seconds) })
    };
    next_step(parts, &attempts.iter().map(rest).collect(), WEEK, now, NOW_S)
}

#[test]
fn the_oldest_part_that_is_too_old_is_built_first() {
    let (kernel, tools) = (part(Part::Kernel, 8), part(Part::Tools, 9));
    assert_eq!(step(&[kernel, tools], &[]), Step::Build(tools));
    assert_eq!(step(&[kernel, tools], &[(Part::Tools, 30)]), Step::Build(kernel));
    assert_eq!(
        step(&[kernel, tools], &[(Part::Tools, 30), (Part::Kernel, 20)]),
        Step::Wait(Duration::from_secs(20))
    );
    assert_eq!(step(&[part(Part::BuiltInImage, 6)], &[]), Step::Wait(LOOK_AGAIN));
    let soon = AgingPart { part: Part::Kernel, created_s: NOW_S - 7 * DAY_S + 5 };
    assert_eq!(step(&[soon], &[]), Step::Wait(Duration::from_secs(5)));
    assert_eq!(step(&[], &[]), Step::Wait(LOOK_AGAIN));
}

#[test]
fn a_part_of_a_clock_that_was_set_back_is_not_built() {
    assert_eq!(step(&[part(Part::BuiltInImage, -3)], &[]), Step::Wait(LOOK_AGAIN));
    let tools = part(Part::Tools, 7);
    assert_eq!(step(&[part(Part::Kernel, -3), tools], &[]), Step::Build(tools));
}

proptest! {
    #[test]
    fn exactly_what_is_old_and_does_not_rest_is_built_and_no_wait_is_long(
        days in proptest::collection::vec(-20_i64..20, 0..=3),
        rests in proptest::collection::vec(proptest::option::of(0_u64..100_000), 3),
    ) {
        let kinds = [Part::BuiltInImage, Part::Kernel, Part::Tools];
        let parts: Vec<AgingPart> = kinds.into_iter().zip(days).map(|(kind, days)| part(kind, days)).collect();
        let attempts: Vec<(Part, u64)> =
            kinds.into_iter().zip(rests).filter_map(|(kind, rest)| Some((kind, rest?))).collect();
        let may_be_built = |part: &AgingPart| {
            let rests = attempts.iter().any(|(kind, rest)| *kind == part.part && *rest > 0);
            Age::at(NOW_S, part.created_s).reaches(WEEK) && !rests
        };
        match step(&parts, &attempts) {
            Step::Build(part) => prop_assert!(may_be_built(&part)),
            Step::Wait(pause) => {
                prop_assert!(!parts.iter().any(may_be_built));
                prop_assert!(!pause.is_zero() && pause <= LOOK_AGAIN, "{:?}", pause);
            }
        }
    }
}

fn settings(state: &std::path::Path) -> BuildSettings {
    BuildSettings {
        state: state.to_owned(),
        suite: None,
        packages: None,
        extra: false,
        go_folders: Vec::new(),
        max_age: None,
        gently: false,
        cancel: Cancel::default(),
    }
}

fn named(state: &std::path::Path, name: &str) -> ImageResolver {
    let settings = ImportSettings {
        build: settings(state),
        access: RegistryAccess::default(),
        policy: PullPolicy::Never,
        add_tools: true,
        tool_folders: Vec::new(),
        tool_env: Vec::new(),
    };
    ImageResolver::new(name.parse().expect("a name"), settings)
}

#[tokio::test]
async fn a_failure_is_told_once_with_its_reason_and_each_pause_is_twice_the_one_before() {
    let folder = tempfile::tempdir().expect("a folder");
    // A state folder in which nothing can be built, because it is a file.
    let state = folder.path().join("state");
    std::fs::write(&state, "").expect("written");
    let source = named(&state, "ubuntu:24.04");
    let due = AgingPart { part: Part::Kernel, created_s: now_s() - 9 * DAY_S };
    let mut told = Vec::new();
    let mut pauses = Vec::new();
    let mut failures = 0;
    for _ in 0..7 {
        let next = attempt(&source, due, failures, WEEK, &mut |message| told.push(message)).await;
        failures = next.failures;
        pauses.push(next.not_before.saturating_duration_since(Instant::now()).as_secs().div_ceil(60));
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 360]);
    assert_eq!(told.len(), 2, "{told:?}");
    let Refresh::Building { part: Part::Kernel, .. } = &told[0] else { panic!("{told:?}") };
    let Refresh::Failed { reason, age, .. } = &told[1] else { panic!("{told:?}") };
    assert!(reason.contains("cannot read") && reason.contains("kernels"), "{reason}");
    assert_eq!(age.as_secs() / 86400, 9);
}

#[tokio::test]
async fn only_the_parts_that_an_image_has_are_kept_fresh_and_none_of_an_image_given_by_its_id() {
    let state = tempfile::tempdir().expect("a folder");
    let store = Store::new(state.path());
    let image = put_generation(&store, 1, 77, Duration::ZERO);
    let built_in = ImageResolver::built_in(settings(state.path()));
    assert_eq!(built_in.aging(), []);
    built_in.adopt(&image);
    assert_eq!(built_in.aging(), [AgingPart { part: Part::BuiltInImage, created_s: 77 }]);
    let by_id = named(state.path(), &format!("dayfly:{}", image.id()));
    by_id.resolve(&mut |_| {}, &|_| Ok(())).await.expect("there");
    assert_eq!((by_id.last_id().as_deref(), by_id.aging()), (Some(image.id()), Vec::new()));
}

#[test]
fn a_check_of_the_host_sees_the_newest_built_image_and_the_bundles() {
    let state = tempfile::tempdir().expect("a folder");
    let settings = settings(state.path());
    assert_eq!(aging(&settings).expect("read"), []);
    let store = Store::new(state.path());
    put_generation(&store, 1, 77, Duration::ZERO);
    put_generation(&store, 2, 99, Duration::ZERO);
    let kernel = state.path().join("kernels").join(kernel::id(&settings));
    std::fs::create_dir_all(&kernel).expect("a folder");
    std::fs::write(kernel.join("manifest.json"), r#"{"created_s":55}"#).expect("written");
    let expected = [
        AgingPart { part: Part::BuiltInImage, created_s: 99 },
        AgingPart { part: Part::Kernel, created_s: 55 },
    ];
    assert_eq!(aging(&settings).expect("read"), expected);
}
