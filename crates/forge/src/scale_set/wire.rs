//! Objects of the Actions Service as it writes them, and how lenient dayfly is with them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A scale set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSet {
    /// Its id. A scale set that was deleted and created again has another one.
    pub id: u64,
    /// Its name, unique in its runner group. Workflows use it like a label.
    pub name: String,
    /// The id of its runner group.
    pub runner_group_id: u64,
    /// The labels that jobs may ask for.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: Vec<ScaleSetLabel>,
    /// The other members, because an update sends the whole object back.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// A label of a scale set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleSetLabel {
    /// The label.
    pub name: String,
    /// `System` or `Customer`. The official client sends `System`.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
}

impl ScaleSet {
    /// Returns those of `labels` that the scale set does not have, ignoring case as GitHub does.
    pub fn missing_labels(&self, labels: &[String]) -> Vec<String> {
        let has = |label: &&String| self.labels.iter().any(|own| own.name.eq_ignore_ascii_case(label));
        labels.iter().filter(|label| !has(label)).cloned().collect()
    }

    /// Returns true if the scale set has exactly `labels`, in any order.
    pub(super) fn has_exactly(&self, labels: &[String]) -> bool {
        let wanted = |own: &ScaleSetLabel| labels.iter().any(|label| own.name.eq_ignore_ascii_case(label));
        self.missing_labels(labels).is_empty() && self.labels.iter().all(wanted)
    }
}

/// Returns labels as the official client sends them.
pub(super) fn system_labels(labels: &[String]) -> Vec<ScaleSetLabel> {
    labels.iter().map(|name| ScaleSetLabel { name: name.clone(), kind: "System".to_owned() }).collect()
}

/// A list of the service: `{"count":1,"value":[...]}`.
#[derive(Deserialize)]
pub(super) struct List<T> {
    #[serde(default = "Vec::new")]
    pub(super) value: Vec<T>,
}

/// Reads a member that may be null as its default.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a member that may be missing or have another form as `None`.
pub(super) fn if_readable<T: DeserializeOwned>(value: Option<Value>) -> Option<T> {
    value.filter(|value| !value.is_null()).and_then(|value| serde_json::from_value(value).ok())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn scale_set() -> ScaleSet {
        serde_json::from_value(json!({
            "id": 7, "name": "vm", "runnerGroupId": 1, "labels": [{"type": "System", "name": "Linux-Build"}],
            "RunnerSetting": {"disableUpdate": true, "isElastic": true}, "createdOn": "2026-01-02T03:04:05.678Z",
        }))
        .unwrap()
    }

    #[test]
    fn an_update_sends_back_members_that_dayfly_does_not_know() {
        let sent = serde_json::to_value(scale_set()).unwrap();
        assert_eq!(sent["RunnerSetting"], json!({"disableUpdate": true, "isElastic": true}));
        assert_eq!((&sent["runnerGroupId"], &sent["labels"][0]["type"]), (&json!(1), &json!("System")));
    }

    #[test]
    fn labels_are_compared_as_a_set_that_ignores_case() {
        let labels = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(scale_set().has_exactly(&labels(&["linux-build"])));
        assert!(!scale_set().has_exactly(&labels(&["linux-build", "gpu"])) && !scale_set().has_exactly(&[]));
        assert_eq!(scale_set().missing_labels(&labels(&["LINUX-build", "gpu"])), labels(&["gpu"]));
    }

    #[test]
    fn labels_may_be_null_or_missing() {
        for labels in [json!({"labels": null}), json!({})] {
            let mut value = json!({"id": 7, "name": "vm", "runnerGroupId": 1});
            value.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
            assert_eq!(serde_json::from_value::<ScaleSet>(value).unwrap().labels, []);
        }
    }
}
