//! Options whose value is 1 or 0, each with a meaning of its own.

use std::ffi::OsStr;

use clap::builder::{FalseyValueParser, PossibleValue, TypedValueParser};
use clap::{Arg, Command, Error};

/// Parses a switch as clap's own parser of such variables does: `0`, `false`, `no`, `off` and `n` turn it off. `--help` shows
/// the meaning of both values.
#[derive(Debug, Clone)]
pub(super) struct Switch {
    /// Meaning of 1.
    pub(super) on: &'static str,
    /// Meaning of 0.
    pub(super) off: &'static str,
}

impl TypedValueParser for Switch {
    type Value = bool;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<bool, Error> {
        FalseyValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = [("1", self.on), ("0", self.off)];
        Some(Box::new(values.into_iter().map(|(value, meaning)| PossibleValue::new(value).help(meaning))))
    }
}
