//! The scope of an evaluation.

use std::borrow::Cow;

use super::value::{Object, Value};

/// The contexts and the status that an expression is evaluated with.
#[derive(Debug, Clone, Default)]
pub struct Scope<'a> {
    contexts: Vec<(&'static str, Cow<'a, Value>)>,
    status: Option<Status>,
}

/// The answers of the status functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The answer of `success()`.
    pub success: bool,
    /// The answer of `failure()`.
    pub failure: bool,
    /// The answer of `cancelled()`.
    pub cancelled: bool,
}

impl<'a> Scope<'a> {
    /// Creates a scope that has no contexts and refuses the status functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a context.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.put(name, Cow::Owned(value));
        self
    }

    /// Adds or replaces a context without copying its value.
    #[must_use]
    pub fn with_ref(mut self, name: &'static str, value: &'a Value) -> Self {
        self.put(name, Cow::Borrowed(value));
        self
    }

    /// Allows the status functions and sets their answers.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Returns a context, ignoring the case of its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = self.contexts.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_ref())
    }

    /// Returns the answers of the status functions, or `None` if the scope refuses them.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Returns the names of the contexts, for messages.
    pub fn names(&self) -> String {
        if self.contexts.is_empty() {
            return "none".to_owned();
        }
        self.contexts.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn put(&mut self, name: &'static str, value: Cow<'a, Value>) {
        self.contexts.retain(|(known, _)| *known != name);
        self.contexts.push((name, value));
    }
}

/// Builds an object with text values, such as the `vars` context.
impl FromIterator<(String, String)> for Object {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        entries.into_iter().map(|(key, text)| (key, Value::String(text))).collect()
    }
}
