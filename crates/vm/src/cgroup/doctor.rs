//! Checks which limits this host can enforce for machines.

use super::home::Survey;
use super::{Controller, Version};
use crate::host::Check;

/// Checks this host and changes nothing.
pub(crate) fn check() -> Check {
    const NAME: &str = "cgroups";
    let homes = Survey::of_this_process().homes;
    let (seen, mend) = describe(&homes);
    if homes.missing.is_empty() { Check::ok(NAME, seen) } else { Check::warn(NAME, seen, mend) }
}

/// Returns the resources that this host cannot limit for machines, each with the reason and the way to mend it.
pub(crate) fn missing() -> Vec<(Controller, String, Option<&'static str>)> {
    let missing = Survey::of_this_process().homes.missing;
    missing.into_iter().map(|(controller, refusal)| (controller, refusal.why, refusal.mend)).collect()
}

/// Describes the limits that machines get and lack, and returns how to get those that they lack.
fn describe(homes: &super::home::Homes) -> (String, Option<&'static str>) {
    let mut parts = Vec::new();
    for version in [Version::V2, Version::V1] {
        let of_version = homes.list.iter().filter(|home| home.version == version);
        let controllers: Vec<Controller> = of_version.flat_map(|home| home.controllers.clone()).collect();
        if !controllers.is_empty() {
            let number = if version == Version::V1 { 1 } else { 2 };
            parts.push(format!("each VMM is limited in {} (version {number})", resources(&controllers)));
        }
    }
    let mut mend = None;
    let mut told: Vec<&str> = Vec::new();
    for (_, refusal) in &homes.missing {
        if told.contains(&refusal.why.as_str()) {
            continue;
        }
        told.push(&refusal.why);
        let alike = homes.missing.iter().filter(|(_, other)| other.why == refusal.why);
        let controllers: Vec<Controller> = alike.map(|(controller, _)| *controller).collect();
        parts.push(format!("no limit of {}: {}", resources(&controllers), refusal.why));
        mend = mend.or(refusal.mend);
    }
    (parts.join("; "), mend)
}

/// Returns a list of resources, in words.
fn resources(controllers: &[Controller]) -> String {
    let mut controllers = controllers.to_vec();
    controllers.sort();
    let words: Vec<&str> = controllers.iter().map(|controller| controller.resource()).collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::home::{Home, Homes, Refusal};
    use super::*;

    fn home(version: Version, controllers: &[Controller]) -> Home {
        Home { version, folder: "/g".into(), controllers: controllers.to_vec() }
    }

    #[test]
    fn the_check_says_what_is_limited_what_is_not_and_how_to_mend_it() {
        use Controller::{Cpu, Io, Memory, Pids};
        let refusal = |why: &str, mend| Refusal { why: why.to_owned(), mend };
        let none = refusal("no hierarchy of this host has this controller", None);
        let user = refusal("dayfly is not root, and has no control groups of its own", Some("run as root"));
        let hosts = [
            Homes { list: vec![home(Version::V2, &Controller::ALL)], missing: Vec::new() },
            Homes {
                list: vec![home(Version::V1, &[Cpu]), home(Version::V1, &[Memory])],
                missing: vec![(Pids, none.clone()), (Io, none)],
            },
            Homes { list: Vec::new(), missing: Controller::ALL.map(|one| (one, user.clone())).to_vec() },
        ];
        let said: Vec<String> = hosts.iter().map(|homes| format!("{:?}", describe(homes))).collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        ("each VMM is limited in memory, processes, processor time and disk access (version 2)", None)
        ("each VMM is limited in memory and processor time (version 1); no limit of processes and disk access: no hierarchy of this host has this controller", None)
        ("no limit of memory, processes, processor time and disk access: dayfly is not root, and has no control groups of its own", Some("run as root"))
        "#);
    }
}
