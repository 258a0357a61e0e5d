//! The error that the lab's calls return.

use serde_json::Value;

/// A refused call, with the HTTP status and the message for the caller.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
    /// GitHub's `errors`: strings or objects.
    pub(crate) errors: Vec<Value>,
    /// The broker's `errorKind`, or the exception of the Actions Service; empty elsewhere.
    pub(crate) kind: &'static str,
}

impl Refusal {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), errors: Vec::new(), kind: "" }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "Not Found")
    }

    /// Returns a 422 with the reasons.
    pub(crate) fn invalid(errors: impl IntoIterator<Item = impl Into<Value>>) -> Self {
        let errors = errors.into_iter().map(Into::into).collect();
        Self { errors, ..Self::new(422, "Validation Failed") }
    }

    /// Returns an error of the broker or of the Actions Service. Their clients decide by `kind`.
    pub(crate) fn named(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, ..Self::new(status, message) }
    }
}
