//! The settings of .NET, on which the official app runs.

use serde_json::{Value, json};

/// Programs of the official app in its `bin`, each with a file `<name>.runtimeconfig.json`.
pub const DOTNET_PROGRAMS: [&str; 2] = ["Runner.Listener", "Runner.Worker"];

/// Names of the variable that overrides the property which [`without_tiered_pgo`] sets. .NET also knows the older prefix.
pub const TIERED_PGO_VARIABLES: [&str; 2] = ["DOTNET_TieredPGO", "COMPlus_TieredPGO"];

/// The property in a `runtimeconfig.json`
/// (<https://learn.microsoft.com/dotnet/core/runtime-config/compilation#profile-guided-optimization>).
const TIERED_PGO: &str = "System.Runtime.TieredPGO";

/// Returns a `runtimeconfig.json` that turns profile-guided optimization off; `None` if the text already has a value for
/// it, or is not of the known form.
///
/// The optimization instruments code before it compiles the code again, which pays only in processes that run for long.
/// Listener and worker run for one job. Without it, an emulated machine takes 5 to 15 % less time from the start of the
/// listener to the end of a small job (seen with 2.336.0).
#[must_use]
pub fn without_tiered_pgo(config: &str) -> Option<String> {
    let mut config: Value = serde_json::from_str(config.strip_prefix('\u{feff}').unwrap_or(config)).ok()?;
    let options = config.get_mut("runtimeOptions")?.as_object_mut()?;
    let properties = options.entry("configProperties").or_insert_with(|| json!({})).as_object_mut()?;
    if properties.keys().any(|name| name.eq_ignore_ascii_case(TIERED_PGO)) {
        return None;
    }
    properties.insert(TIERED_PGO.to_owned(), false.into());
    Some(format!("{config:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_property_is_added_and_all_else_stays() {
        let config = r#"{"runtimeOptions": {"tfm": "net8.0", "includedFrameworks": [{"name": "Microsoft.NETCore.App"}],
            "configProperties": {"System.Globalization.PredefinedCulturesOnly": false}}, "more": 1}"#;
        let tuned = without_tiered_pgo(config).expect("changed");
        let mut wanted: Value = serde_json::from_str(config).expect("JSON");
        wanted["runtimeOptions"]["configProperties"]["System.Runtime.TieredPGO"] = false.into();
        assert_eq!(serde_json::from_str::<Value>(&tuned).expect("JSON"), wanted);
        assert_eq!(without_tiered_pgo(&tuned), None, "the second time changes nothing");
    }

    #[test]
    fn a_config_without_properties_gets_some() {
        let tuned = without_tiered_pgo("\u{feff}{\"runtimeOptions\":{}}").expect("changed");
        let tuned: Value = serde_json::from_str(&tuned).expect("JSON");
        assert_eq!(tuned, json!({"runtimeOptions": {"configProperties": {TIERED_PGO: false}}}));
    }

    #[test]
    fn an_own_value_and_unknown_content_stay_as_they_are() {
        for config in [
            r#"{"runtimeOptions":{"configProperties":{"System.Runtime.TieredPGO":true}}}"#,
            r#"{"runtimeOptions":{"configProperties":{"system.runtime.tieredpgo":"1"}}}"#,
            r#"{"runtimeOptions":{"configProperties":[]}}"#,
            r#"{"runtimeOptions":7}"#,
            "{}",
            "[]",
            "// a comment\n{\"runtimeOptions\":{}}",
            "",
        ] {
            assert_eq!(without_tiered_pgo(config), None, "{config}");
        }
    }
}
