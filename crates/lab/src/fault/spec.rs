//! The order for a fault, and its text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::kind::{Fault, FaultValue};
use super::operation::{Call, Operation};
use crate::nearest::nearest;

/// Longest time of a rule, in seconds.
const FOR_SECONDS_MAX: u64 = 7 * 24 * 3600;
const KEYS: [&str; 5] = ["on", "probability", "count", "for", "value"];

/// An order for a fault: pure data. Its text is `NAME[,on=OPERATION][,probability=P|,count=N][,for=TIME][,value=N]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// The fault.
    pub fault: Fault,
    /// The operation that it is for. Without one it is for every operation that the fault can happen to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Operation>,
    /// The occasions that it takes.
    #[serde(default)]
    pub trigger: Trigger,
    /// The time after which it ends, in seconds by the lab's clock. Without one it stays until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
    /// The fault's number ([`Fault::value`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
}

/// The occasions that a fault takes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Each one.
    #[default]
    Always,
    /// The next ones, as many as the number says.
    Count(u32),
    /// Each one with this probability, above 0 and at most 1.
    Probability(f64),
}

/// Reasons why an order for a fault is refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FaultError {
    /// There is no such fault.
    #[error("there is no fault \"{name}\"{}; docs/lab.md lists them", meant(.nearest))]
    UnknownFault {
        /// The given name.
        name: String,
        /// The nearest one.
        nearest: Option<&'static str>,
    },
    /// There is no such operation.
    #[error("there is no operation \"{name}\"{}; docs/lab.md lists them", meant(.nearest))]
    UnknownOperation {
        /// The given name.
        name: String,
        /// The nearest one.
        nearest: Option<&'static str>,
    },
    /// The text of an order has a key that it cannot have.
    #[error("\"{key}\" is no key of a fault{}; its keys are {}", meant(.nearest), KEYS.join(", "))]
    UnknownKey {
        /// The given key.
        key: String,
        /// The nearest one.
        nearest: Option<&'static str>,
    },
    /// A number or a time cannot be read or is out of its bounds.
    #[error("{key} must be {expected}, not \"{value}\"")]
    BadNumber {
        /// The name of the number.
        key: &'static str,
        /// The numbers that it can be.
        expected: String,
        /// The given text.
        value: String,
    },
    /// Both a probability and a count are given.
    #[error("a fault has either a probability or a count, not both")]
    TwoTriggers,
    /// A number is given for a fault that takes none.
    #[error("the fault \"{}\" takes no value", .fault.name())]
    NoValue {
        /// The fault.
        fault: Fault,
    },
    /// The fault cannot happen at the operation.
    #[error("the fault \"{}\" cannot happen on \"{}\"; it can happen on {}", .fault.name(), .on.name(), places(*.fault))]
    WrongPlace {
        /// The fault.
        fault: Fault,
        /// The operation.
        on: Operation,
    },
}

fn meant(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!(" (did you mean \"{name}\"?)")).unwrap_or_default()
}

fn places(fault: Fault) -> String {
    let mut names: Vec<&str> =
        Call::ALL.iter().filter(|call| fault.fits(**call)).map(|call| call.operation.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

impl FaultSpec {
    /// Returns the order for a fault that takes every occasion until it is cleared.
    pub fn new(fault: Fault) -> Self {
        Self { fault, on: None, trigger: Trigger::Always, for_s: None, value: None }
    }

    /// Checks the bounds of the numbers, and that the fault can happen at the operation.
    ///
    /// # Errors
    /// See [`FaultError`].
    pub fn check(&self) -> Result<(), FaultError> {
        match self.trigger {
            Trigger::Always => {}
            Trigger::Count(count) if count > 0 => {}
            Trigger::Count(count) => return Err(bad("count", "a number from 1 on", &count.to_string())),
            Trigger::Probability(chance) if chance > 0.0 && chance <= 1.0 => {}
            Trigger::Probability(chance) => return Err(bad_probability(&chance.to_string())),
        }
        if let Some(seconds) = self.for_s.filter(|seconds| !(1..=FOR_SECONDS_MAX).contains(seconds)) {
            return Err(bad_time(&seconds.to_string()));
        }
        match (self.value, self.fault.value()) {
            (None, _) => {}
            (Some(_), None) => return Err(FaultError::NoValue { fault: self.fault }),
            (Some(value), Some(FaultValue { meaning, min, max, .. })) => {
                if !(min..=max).contains(&value) {
                    let expected = format!("{min} to {max} ({meaning})");
                    return Err(bad("value", &expected, &value.to_string()));
                }
            }
        }
        match self.on {
            Some(on) if !Call::ALL.iter().any(|call| on.covers(*call) && self.fault.fits(*call)) => {
                Err(FaultError::WrongPlace { fault: self.fault, on })
            }
            _ => Ok(()),
        }
    }

    /// Returns true if the order is for this occasion.
    pub(super) fn is_for(&self, call: Call) -> bool {
        self.fault.fits(call) && self.on.is_none_or(|on| on.covers(call))
    }

    /// Returns the fault's number.
    pub(super) fn number(&self) -> u64 {
        self.value.or_else(|| Some(self.fault.value()?.default)).unwrap_or(0)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), FaultError> {
        if matches!(key, "probability" | "count") && self.trigger != Trigger::Always {
            return Err(FaultError::TwoTriggers);
        }
        match key {
            "on" => self.on = Some(Operation::parse(value)?),
            "probability" => {
                self.trigger = Trigger::Probability(value.parse().map_err(|_| bad_probability(value))?);
            }
            "count" => {
                let count = value.parse().map_err(|_| bad("count", "a number from 1 on", value))?;
                self.trigger = Trigger::Count(count);
            }
            "for" => self.for_s = Some(parse_seconds(value)?),
            "value" => {
                self.value = Some(value.parse().map_err(|_| bad("value", "a number", value))?);
            }
            other => {
                let nearest = nearest(other, KEYS);
                return Err(FaultError::UnknownKey { key: other.chars().take(60).collect(), nearest });
            }
        }
        Ok(())
    }
}

impl FromStr for FaultSpec {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut parts = text.split(',');
        let mut spec = Self::new(Fault::parse(parts.next().unwrap_or_default().trim())?);
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            spec.set(key.trim(), value.trim())?;
        }
        spec.check()?;
        Ok(spec)
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.name())?;
        if let Some(on) = self.on {
            write!(f, ",on={}", on.name())?;
        }
        match self.trigger {
            Trigger::Always => {}
            Trigger::Count(count) => write!(f, ",count={count}")?,
            Trigger::Probability(chance) => write!(f, ",probability={chance}")?,
        }
        if let Some(seconds) = self.for_s {
            write!(f, ",for={seconds}s")?;
        }
        if let Some(value) = self.value {
            write!(f, ",value={value}")?;
        }
        Ok(())
    }
}

/// Parses a time such as `90`, `90s`, `5m` or `2h` and returns its seconds.
///
/// # Errors
/// [`FaultError::BadNumber`].
pub fn parse_seconds(text: &str) -> Result<u64, FaultError> {
    let (digits, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(bad_time(text)),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let seconds = seconds.filter(|seconds| (1..=FOR_SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| bad_time(text))
}

fn bad(key: &'static str, expected: &str, value: &str) -> FaultError {
    FaultError::BadNumber { key, expected: expected.to_owned(), value: value.chars().take(40).collect() }
}

fn bad_probability(value: &str) -> FaultError {
    bad("probability", "above 0 and at most 1", value)
}

fn bad_time(value: &str) -> FaultError {
    bad("for", "a time from 1s to 168h, such as 90s, 5m or 2h", value)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_text_and_json() {
        for text in [
            "drop-reply",
            "drop-reply,on=generate-jitconfig,count=1",
            "server-error,on=rest,probability=0.25,for=90s,value=502",
            "session-conflict,for=7200s",
        ] {
            let spec: FaultSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<FaultSpec>(&json).unwrap(), spec, "{json}");
        }
        assert_eq!(["90", "90s", "5m", "2h"].map(|text| parse_seconds(text).unwrap()), [90, 90, 300, 7200]);
    }

    #[test]
    fn an_order_that_cannot_be_says_why() {
        let texts = [
            "drop-relpy",
            "banana",
            "drop-reply,on=generate-jitconfg",
            "drop-reply,cout=1",
            "drop-reply,count=0",
            "drop-reply,count=1,probability=0.5",
            "drop-reply,probability=1.5",
            "drop-reply,probability=x",
            "drop-reply,for=5d",
            "drop-reply,for=169h",
            "drop-reply,value=1",
            "server-error,value=200",
            "busy-delete,on=session",
            "webhook-loss,on=rest",
        ];
        let errors = texts.map(|text| format!("{text}: {}", text.parse::<FaultSpec>().unwrap_err()));
        insta::assert_snapshot!(errors.join("\n"));
    }
}
