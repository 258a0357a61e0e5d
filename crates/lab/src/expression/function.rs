//! The functions of the expression language.

use super::error::Problem;
use super::value::{Value, fold, format_number};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Contains,
    StartsWith,
    EndsWith,
    Format,
    Join,
    ToJson,
    FromJson,
    Case,
    HashFiles,
    Success,
    Failure,
    Cancelled,
    Always,
}

const ANY: usize = 255;

/// Function, name, least and greatest number of arguments.
const FUNCTIONS: [(Function, &str, usize, usize); 13] = [
    (Function::Contains, "contains", 2, 2),
    (Function::StartsWith, "startsWith", 2, 2),
    (Function::EndsWith, "endsWith", 2, 2),
    (Function::Format, "format", 1, ANY),
    (Function::Join, "join", 1, 2),
    (Function::ToJson, "toJSON", 1, 1),
    (Function::FromJson, "fromJSON", 1, 1),
    (Function::Case, "case", 3, ANY),
    (Function::HashFiles, "hashFiles", 1, ANY),
    (Function::Success, "success", 0, 0),
    (Function::Failure, "failure", 0, 0),
    (Function::Cancelled, "cancelled", 0, 0),
    (Function::Always, "always", 0, 0),
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        FUNCTIONS.iter().find(|entry| entry.1.eq_ignore_ascii_case(name)).map(|entry| entry.0)
    }

    pub(super) fn names() -> String {
        FUNCTIONS.iter().map(|entry| entry.1).collect::<Vec<_>>().join(", ")
    }

    /// Returns true for the functions that only some places of a workflow allow.
    pub(super) fn is_special(name: &str) -> bool {
        matches!(name, "hashFiles" | "success" | "failure" | "cancelled" | "always")
    }

    pub(super) fn name(self) -> &'static str {
        self.entry().1
    }

    pub(super) fn check_count(self, given: usize) -> Result<(), Problem> {
        let (_, name, least, most) = *self.entry();
        // Conditions and values come in pairs, and the default is one more (actions/runner, `Sdk/Functions/Case.cs`).
        let must_be_odd = self == Self::Case;
        if (least..=most).contains(&given) && (!must_be_odd || given % 2 == 1) {
            return Ok(());
        }
        let expected = match (least, most) {
            _ if must_be_odd => {
                format!(
                    "an odd number of arguments from {least} to {most} (conditions with their values, then a default)"
                )
            }
            (0, 0) => "no arguments".to_owned(),
            (1, 1) => "1 argument".to_owned(),
            (least, ANY) => format!("{least} or more arguments (at most {ANY})"),
            (least, most) if least == most => format!("{least} arguments"),
            (least, most) => format!("{least} to {most} arguments"),
        };
        Err(Problem::ArgumentCount { name, expected, given })
    }

    fn entry(self) -> &'static (Self, &'static str, usize, usize) {
        FUNCTIONS.iter().find(|entry| entry.0 == self).expect("every function is in the table")
    }
}

/// `contains`: searches for a part of a text or an item of an array.
pub(super) fn contains(search: &Value, item: &Value) -> bool {
    match search {
        Value::Array(items) => items.iter().any(|candidate| candidate.loosely_equals(item)),
        Value::Object(_) => false,
        text => item.is_primitive() && fold(&text.to_text()).contains(&fold(&item.to_text())),
    }
}

/// `startsWith`, ignoring case.
pub(super) fn starts_with(text: &Value, start: &Value) -> bool {
    text.is_primitive() && start.is_primitive() && fold(&text.to_text()).starts_with(&fold(&start.to_text()))
}

/// `endsWith`, ignoring case.
pub(super) fn ends_with(text: &Value, end: &Value) -> bool {
    text.is_primitive() && end.is_primitive() && fold(&text.to_text()).ends_with(&fold(&end.to_text()))
}

/// `join`: puts a separator between the items of an array; returns a single value as text.
pub(super) fn join(items: &Value, separator: Option<&Value>) -> String {
    let separator = separator.map_or_else(
        || ",".to_owned(),
        |value| if value.is_primitive() { value.to_text() } else { ",".to_owned() },
    );
    match items {
        Value::Array(items) => items.iter().map(Value::to_text).collect::<Vec<_>>().join(&separator),
        Value::Object(_) => String::new(),
        single => single.to_text(),
    }
}

/// `format`: replaces `{0}` with the first argument after the pattern; `{{` and `}}` are braces.
pub(super) fn format<'v>(
    pattern: &str,
    argument: impl Fn(usize) -> Option<&'v Value>,
    bytes_max: usize,
) -> Result<String, Problem> {
    let bad = |message: String| Problem::Format { message };
    let mut text = String::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '{' if characters.next_if_eq(&'{').is_some() => text.push('{'),
            '}' if characters.next_if_eq(&'}').is_some() => text.push('}'),
            '{' => {
                let mut digits = String::new();
                while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                let index: u8 = digits.parse().map_err(|_| {
                    bad(format!(
                        "\"{{\" without an argument's number in '{pattern}' (write {{{{ for a brace)"
                    ))
                })?;
                if characters.next() != Some('}') {
                    return Err(bad(format!("\"{{{digits}\" has no closing \"}}\" in '{pattern}'")));
                }
                let value = argument(usize::from(index)).ok_or_else(|| {
                    bad(format!("'{pattern}' refers to argument {index}, which was not given"))
                })?;
                text.push_str(&value.to_text());
            }
            '}' => {
                return Err(bad(format!(
                    "\"}}\" without its \"{{\" in '{pattern}' (write }}}} for a brace)"
                )));
            }
            other => text.push(other),
        }
        if text.len() > bytes_max {
            return Err(Problem::TooLarge { max: bytes_max });
        }
    }
    Ok(text)
}

/// `toJSON`: indents by two spaces and writes numbers with at most 15 digits.
pub(super) fn to_json(value: &Value) -> String {
    let mut text = String::new();
    write_json(value, 0, &mut text);
    text
}

fn write_json(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&format_number(*number)),
        Value::String(string) => text.push_str(&serde_json::Value::from(string.as_str()).to_string()),
        Value::Array(items) => {
            write_nested(text, indent, ['[', ']'], items.iter(), |item, inner, text| {
                write_json(item, inner, text)
            });
        }
        Value::Object(object) => {
            write_nested(text, indent, ['{', '}'], object.iter(), |(key, item), inner, text| {
                text.push_str(&serde_json::Value::from(key).to_string());
                text.push_str(": ");
                write_json(item, inner, text);
            });
        }
    }
}

fn write_nested<T>(
    text: &mut String,
    indent: usize,
    [open, close]: [char; 2],
    items: impl Iterator<Item = T>,
    write: impl Fn(T, usize, &mut String),
) {
    text.push(open);
    let mut empty = true;
    for item in items {
        text.push_str(if empty { "\n" } else { ",\n" });
        empty = false;
        text.extend(std::iter::repeat_n(' ', indent + 2));
        write(item, indent + 2, text);
    }
    if !empty {
        text.push('\n');
        text.extend(std::iter::repeat_n(' ', indent));
    }
    text.push(close);
}
