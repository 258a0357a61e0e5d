//! What an expression can see when it is evaluated.

use std::borrow::Cow;

use super::value::{Object, Value};

/// The contexts and the status an expression is evaluated with.
#[derive(Debug, Clone, Default)]
pub struct Scope<'a> {
    contexts: Vec<(&'static str, Cow<'a, Value>)>,
    status: Option<Status>,
}

/// What the status functions answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// `success()`.
    pub success: bool,
    /// `failure()`.
    pub failure: bool,
    /// `cancelled()`.
    pub cancelled: bool,
}

impl<'a> Scope<'a> {
    /// A scope without contexts; status functions are refused in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a context, or replaces it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.put(name, Cow::Owned(value));
        self
    }

    /// Adds a context without copying it, or replaces it.
    #[must_use]
    pub fn with_ref(mut self, name: &'static str, value: &'a Value) -> Self {
        self.put(name, Cow::Borrowed(value));
        self
    }

    /// Lets the status functions answer.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// A context, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = self.contexts.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_ref())
    }

    /// What the status functions answer, where they may be used.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The names of the contexts, for messages.
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

/// An object with text values, such as the `vars` context.
impl FromIterator<(String, String)> for Object {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        entries.into_iter().map(|(key, text)| (key, Value::String(text))).collect()
    }
}
