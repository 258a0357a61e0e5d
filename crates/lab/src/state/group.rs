//! Runner groups. The lab has one set of groups for all its organisations and enterprises. Group 1 is `Default`; other
//! groups are created by a call or when a job requests them.

use serde::{Deserialize, Serialize};

use super::State;
use super::scope::Scope;
use crate::journal::Record;
use crate::refusal::Refusal;

/// The id of the group that every scope has.
pub(crate) const DEFAULT_GROUP: u64 = 1;
const GROUPS_MAX: usize = 1000;
const NAME_LEN_MAX: usize = 100;

/// A runner group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) id: u64,
    pub(crate) name: String,
}

impl Group {
    pub(super) fn default_group() -> Self {
        Self { id: DEFAULT_GROUP, name: "Default".to_owned() }
    }
}

impl State {
    /// Returns the groups that a scope can see. A repository sees only the default one.
    pub(crate) fn groups_of(&self, scope: &Scope) -> Vec<Group> {
        let seen = |group: &&Group| !matches!(scope, Scope::Repository(_)) || group.id == DEFAULT_GROUP;
        self.groups.iter().filter(seen).cloned().collect()
    }

    /// Creates a group. Returns an error if the name is taken.
    pub(crate) fn make_group(&mut self, name: &str) -> Result<Group, Refusal> {
        if name.trim().is_empty() || name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
            return Err(Refusal::invalid([format!("name must have 1 to {NAME_LEN_MAX} characters")]));
        }
        if self.group_named(name).is_some() {
            let message = format!("Already exists - A group with the name {name} already exists.");
            return Err(Refusal::new(409, message));
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(Refusal::new(422, format!("The lab holds {GROUPS_MAX} runner groups at most")));
        }
        Ok(self.add_group(name))
    }

    /// Returns the id of a runner group. Creates the group if it does not exist yet.
    pub(crate) fn group_id(&mut self, name: &str) -> u64 {
        match self.group_named(name) {
            Some(group) => group.id,
            None => self.add_group(name).id,
        }
    }

    pub(crate) fn group(&self, id: u64) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }

    pub(super) fn group_named(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name.eq_ignore_ascii_case(name))
    }

    fn add_group(&mut self, name: &str) -> Group {
        let group = Group { id: self.new_id(), name: name.to_owned() };
        self.record(&Record::Group(group.clone()));
        self.groups.push(group.clone());
        group
    }
}
