//! The labels by which a job asks for a size: `dayfly-<N>cpu-<M>gb`.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::defaults;

/// A size that a label names. The label counts in GiB, although it says `gb`, as the labels of other providers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeLabel {
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory, MiB.
    pub(crate) memory_mib: u32,
}

impl FromStr for SizeLabel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no label of a size: dayfly-<N>cpu-<M>gb, such as dayfly-4cpu-8gb");
        // A number with a sign or with zeroes before it would be another label with the same meaning.
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| number.to_string() == text);
        let parts = text.strip_prefix("dayfly-").and_then(|rest| rest.strip_suffix("gb")?.split_once("cpu-"));
        let numbers = parts.and_then(|(cpus, gib)| Some((number(cpus)?, number(gib)?)));
        let (cpus, gib) = numbers.ok_or_else(wrong)?;
        let gib_max = defaults::MEMORY_MIB_MAX / 1024;
        if !(1..=defaults::CPUS_MAX).contains(&cpus) || !(1..=gib_max).contains(&gib) {
            let cpus_max = defaults::CPUS_MAX;
            return Err(format!(
                "{text:?} is no size of a machine: 1 to {cpus_max} CPUs and 1 to {gib_max} GiB"
            ));
        }
        Ok(Self { cpus, memory_mib: gib * 1024 })
    }
}

impl fmt::Display for SizeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dayfly-{}cpu-{}gb", self.cpus, self.memory_mib / 1024)
    }
}

impl Serialize for SizeLabel {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_one_size_in_one_way() {
        let size: SizeLabel = "dayfly-4cpu-8gb".parse().expect("a label");
        assert_eq!(size, SizeLabel { cpus: 4, memory_mib: 8192 });
        assert_eq!(size.to_string(), "dayfly-4cpu-8gb");
        for text in [
            "",
            "dayfly-4cpu",
            "dayfly-04cpu-8gb",
            "dayfly-+4cpu-8gb",
            "dayfly-4cpu-8GB",
            "Dayfly-4cpu-8gb",
            "dayfly-0cpu-8gb",
            "dayfly-65cpu-8gb",
            "dayfly-4cpu-0gb",
            "dayfly-4cpu-1025gb",
            "dayfly-4cpu-99999999999gb",
        ] {
            assert!(text.parse::<SizeLabel>().is_err(), "{text}");
        }
    }
}
