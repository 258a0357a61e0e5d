//! Scalars of YAML's core schema, which GitHub follows: `on` and `yes` are text, `0o17` and `0x1f` are numbers.

use crate::expression::Value;

/// A single value of a file.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::workflow) enum Scalar {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
}

impl Scalar {
    /// Resolves unquoted text.
    pub(super) fn from_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" => Self::Bool(true),
            "false" | "False" | "FALSE" => Self::Bool(false),
            _ => number(text).map_or_else(|| Self::String(text.to_owned()), Self::Number),
        }
    }

    /// Converts the scalar to text, such as `true` or `1.5`; null becomes the empty string.
    pub(in crate::workflow) fn to_text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(flag) => flag.to_string(),
            Self::Number(number) => Value::Number(*number).to_text(),
            Self::String(text) => text.clone(),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(flag) => format!("the boolean {flag}"),
            Self::Number(_) => format!("the number {}", self.to_text()),
            Self::String(text) => {
                const SHOWN_MAX: usize = 40;
                let shown: String = text.chars().take(SHOWN_MAX).collect();
                let dots = if shown.len() < text.len() { "..." } else { "" };
                format!("the text {shown:?}{dots}")
            }
        }
    }
}

fn number(text: &str) -> Option<f64> {
    match text.trim_start_matches(['-', '+']) {
        ".inf" | ".Inf" | ".INF" => {
            return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            #[expect(clippy::cast_precision_loss, reason = "numbers of workflows are doubles")]
            return u64::from_str_radix(digits, radix)
                .ok()
                .filter(|_| !digits.starts_with('+'))
                .map(|bits| bits as f64);
        }
    }
    let starts = text.trim_start_matches(['-', '+']);
    let signs = text.len() - starts.len();
    let is_number = signs <= 1
        && starts.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && starts.contains(|c: char| c.is_ascii_digit())
        && starts.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if is_number { text.parse().ok() } else { None }
}
