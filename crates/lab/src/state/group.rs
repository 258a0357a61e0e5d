//! Runner groups. The lab has one set of groups for all its organisations and enterprises. Group 1 is `Default`; other
//! groups are created by a call or when a job requests them.

use serde::{Deserialize, Serialize};

use super::LabState;
use super::scope::Scope;
use crate::journal::Record;
use crate::refusal::Refusal;
use crate::workflow::run::{GROUP_CHARACTERS_MAX, RunsOn};

/// The id of the group that every scope has.
pub(crate) const DEFAULT_GROUP: u64 = 1;
/// The id that stands for a group that does not exist. No runner has it.
pub(super) const NO_GROUP: u64 = 0;
/// Most groups, including the default one.
pub(crate) const GROUPS_MAX: usize = 1000;

/// A runner group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// True if public repositories may use its runners; GitHub's default is false.
    #[serde(default)]
    pub(crate) allows_public: bool,
}

impl Group {
    pub(super) fn default_group() -> Self {
        Self { id: DEFAULT_GROUP, name: "Default".to_owned(), allows_public: false }
    }
}

impl LabState {
    /// Returns the groups that a scope can see. A repository sees only the default one.
    pub(crate) fn groups_of(&self, scope: &Scope) -> Vec<Group> {
        let seen = |group: &&Group| !matches!(scope, Scope::Repository(_)) || group.id == DEFAULT_GROUP;
        self.groups.iter().filter(seen).cloned().collect()
    }

    /// Creates a group. Returns an error if the name is taken.
    pub(crate) fn make_group(&mut self, name: &str, allows_public: bool) -> Result<Group, Refusal> {
        if !RunsOn::is_group_name(name) {
            return Err(Refusal::invalid([format!("name must have 1 to {GROUP_CHARACTERS_MAX} characters")]));
        }
        if self.group_named(name).is_some() {
            let message = format!("Already exists - A group with the name {name} already exists.");
            return Err(Refusal::new(409, message));
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(Refusal::new(422, format!("The lab holds {GROUPS_MAX} runner groups at most")));
        }
        let group = Group { id: self.new_id(), name: name.to_owned(), allows_public };
        self.record(&Record::Group(group.clone()));
        self.groups.push(group.clone());
        Ok(group)
    }

    /// Returns the id of a runner group that a job requests. Creates the group if it does not exist yet.
    pub(super) fn requested_group(&mut self, name: &str) -> Result<u64, Refusal> {
        match self.group_named(name) {
            Some(group) => Ok(group.id),
            None => self.make_group(name, false).map(|group| group.id),
        }
    }

    pub(crate) fn group(&self, id: u64) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }

    pub(super) fn group_named(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name.eq_ignore_ascii_case(name))
    }
}
