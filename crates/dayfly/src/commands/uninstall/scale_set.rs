//! The scale sets of the configuration file's pools, at their forge.

use dayfly_forge::scale_set::ScaleSetClient;

use super::trace::Trace;
use crate::commands::subject::{Owner, Subject};

/// Looks up the scale set of each pool. Those that do not exist are left out.
pub(super) async fn look_up(subjects: &[Subject], is_wanted: bool) -> Vec<Trace> {
    let mut traces = Vec::new();
    for subject in subjects {
        let Ok(forge) = &subject.forge else { continue };
        for owner in &subject.owners {
            let client = ScaleSetClient::new(forge.clone(), owner.scope.clone());
            for (group, name) in &owner.scale_sets {
                let trace = |id, problem| Trace::ScaleSet {
                    name: name.clone(),
                    group: group.clone(),
                    scope: owner.scope.to_string(),
                    forge: forge.base().url().to_string(),
                    id,
                    problem,
                    is_wanted,
                };
                traces.extend(match find(&client, group, name).await {
                    Ok(id) => id.map(|id| trace(Some(id), None)),
                    Err(problem) => Some(trace(None, Some(problem))),
                });
            }
        }
    }
    traces
}

async fn find(client: &ScaleSetClient, group: &str, name: &str) -> Result<Option<u64>, String> {
    let group = client.group_id(group).await.map_err(|error| error.to_string())?;
    let found = client.find_scale_set(group, name).await.map_err(|error| error.to_string())?;
    Ok(found.map(|found| found.id))
}

/// Deletes a scale set that was looked up.
pub(super) async fn delete(subjects: &[Subject], trace: &Trace) -> Result<(), String> {
    let Trace::ScaleSet { scope, forge, id: Some(id), .. } = trace else { return Ok(()) };
    let is_its = |of: &Owner| of.scope.to_string() == *scope;
    for subject in subjects {
        let Ok(client) = &subject.forge else { continue };
        if client.base().url().as_str() != forge {
            continue;
        }
        if let Some(owner) = subject.owners.iter().find(|owner| is_its(owner)) {
            let client = ScaleSetClient::new(client.clone(), owner.scope.clone());
            return client.delete_scale_set(*id).await.map(drop).map_err(|error| error.to_string());
        }
    }
    Err("its forge is not in the configuration".to_owned())
}

#[cfg(test)]
mod tests {
    use dayfly_forge::scale_set::NewScaleSet;
    use dayfly_forge::{ApiBase, Forge, RunnerScope};

    use super::*;
    use crate::commands::uninstall::trace::Fate;
    use crate::exit::Failure;
    use crate::test_forge::TestLab;

    #[tokio::test]
    async fn the_scale_sets_of_pools_are_found_and_only_those_that_are_wanted_are_deleted() {
        let lab = TestLab::start().await;
        let scope = RunnerScope::parse("repo", "o/r").expect("a scope");
        let base = ApiBase::from_host_or_url(&lab.url).expect("an address");
        let forge = Forge::new(base, lab.token.as_str()).expect("a client");
        let client = ScaleSetClient::new(forge.clone(), scope.clone());
        let new = NewScaleSet { name: "build".to_owned(), group_id: 1, labels: Vec::new() };
        client.create_scale_set(&new).await.expect("created");
        let names = ["build", "never-made"].map(|name| ("Default".to_owned(), name.to_owned()));
        let owner = Owner { scale_sets: names.to_vec(), ..Owner::new(scope) };
        let subjects = [Subject { prefix: String::new(), forge: Ok(forge), owners: vec![owner] }];

        let found = look_up(&subjects, false).await;
        let [build] = &found[..] else { panic!("one of two exists: {found:?}") };
        assert!(matches!(build.fate(), Fate::Stays(why) if why.contains("--scale-sets")), "{build:?}");
        let wanted = look_up(&subjects, true).await;
        assert_eq!(wanted[0].fate(), Fate::Removed);
        delete(&subjects, &wanted[0]).await.expect("deleted");
        assert_eq!(look_up(&subjects, true).await, []);
    }

    #[tokio::test]
    async fn a_scale_set_that_cannot_be_looked_up_stays_with_the_reason() {
        let scope = RunnerScope::parse("repo", "o/r").expect("a scope");
        let scale_sets = vec![("Default".to_owned(), "build".to_owned())];
        let owners = vec![Owner { scale_sets, ..Owner::new(scope) }];
        let forge = Err(Failure::usage("no token"));
        let unread = [Subject { prefix: String::new(), forge, owners: owners.clone() }];
        assert_eq!(look_up(&unread, true).await, [], "the reason is a warning of its own");
        let base = ApiBase::from_host_or_url("http://127.0.0.1:1").expect("an address");
        let forge = Forge::new(base, "x").map_err(Failure::cannot);
        let silent = look_up(&[Subject { prefix: String::new(), forge, owners }], true).await;
        let [only] = &silent[..] else { panic!("{silent:?}") };
        assert!(
            matches!(only.fate(), Fate::Stays(why) if why.starts_with("it could not be looked up: ")),
            "{only:?}"
        );
    }
}
