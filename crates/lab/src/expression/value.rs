//! Values of expressions, and GitHub's rules for converting one kind into another.

use std::cmp::Ordering;

use indexmap::IndexMap;

/// A value of the expression language.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number; there are no integers.
    Number(f64),
    /// Text.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// A mapping of keys to values.
    Object(Object),
}

/// Keys and values in the order of insertion. Lookups ignore the case of keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    entries: IndexMap<String, (String, Value)>,
}

impl Object {
    /// Creates an object without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of a key. A key that is present already (ignoring case) keeps its place and its spelling.
    pub fn insert(&mut self, key: String, value: Value) {
        match self.entries.entry(fold(&key)) {
            indexmap::map::Entry::Occupied(mut occupied) => occupied.get_mut().1 = value,
            indexmap::map::Entry::Vacant(vacant) => {
                vacant.insert((key, value));
            }
        }
    }

    /// Returns the value of a key, ignoring case.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(&fold(key)).map(|(_, value)| value)
    }

    /// Returns the entries in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.values().map(|(key, value)| (key.as_str(), value))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl FromIterator<(String, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(entries: I) -> Self {
        let mut object = Self::new();
        for (key, value) in entries {
            object.insert(key, value);
        }
        object
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl Value {
    /// Converts the value to a condition as `if` does: null, false, 0, NaN and the empty string are false.
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(flag) => *flag,
            Self::Number(number) => *number != 0.0 && !number.is_nan(),
            Self::String(text) => !text.is_empty(),
            Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// Converts the value to a number: null, false and the empty string are 0, true is 1, other text is the number that it
    /// spells or NaN, and arrays and objects are NaN.
    pub fn to_number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(flag) => f64::from(u8::from(*flag)),
            Self::Number(number) => *number,
            Self::String(text) => parse_number(text),
            Self::Array(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// Converts the value to text; arrays and objects become `Array` and `Object`.
    pub fn to_text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(flag) => flag.to_string(),
            Self::Number(number) => format_number(*number),
            Self::String(text) => text.clone(),
            Self::Array(_) => "Array".to_owned(),
            Self::Object(_) => "Object".to_owned(),
        }
    }

    /// Returns true unless the value is an array or an object.
    pub fn is_primitive(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    /// Names the kind of the value, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "text",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// Compares as `==` does: text ignoring case, different kinds as numbers; an array or an object equals only itself.
    pub fn loosely_equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => compare_text(a, b) == Ordering::Equal,
            // GitHub compares these by identity. Two evaluations of the same context return the same address here too.
            (Self::Array(a), Self::Array(b)) => std::ptr::eq(a, b),
            (Self::Object(a), Self::Object(b)) => std::ptr::eq(a, b),
            (a, b) if a.is_primitive() && b.is_primitive() => a.to_number() == b.to_number(),
            _ => false,
        }
    }

    /// Orders two values for `<` and `>`. Returns `None` if they have no order, which makes every comparison false.
    pub fn loosely_compares(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::String(a), Self::String(b)) => Some(compare_text(a, b)),
            (a, b) if a.is_primitive() && b.is_primitive() => a.to_number().partial_cmp(&b.to_number()),
            _ => None,
        }
    }

    /// Returns a member of an object or an item of an array, or `None` if there is none.
    pub fn index(&self, index: &Self) -> Option<&Self> {
        match self {
            Self::Object(object) if index.is_primitive() => object.get(&index.to_text()),
            Self::Array(items) => {
                let number = index.to_number();
                // NaN fails the comparison; the cast cuts a fraction off, as GitHub does.
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked to be in range"
                )]
                let position = (number >= 0.0 && number < items.len() as f64).then_some(number as usize)?;
                items.get(position)
            }
            _ => None,
        }
    }

    /// Converts JSON to a value.
    pub fn from_json(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(*flag),
            serde_json::Value::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Self::String(text.clone()),
            serde_json::Value::Array(items) => Self::Array(items.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(entries) => Self::Object(
                entries.iter().map(|(key, value)| (key.clone(), Self::from_json(value))).collect(),
            ),
        }
    }

    /// Converts the value to JSON. NaN and the infinities become text because JSON has no numbers for them.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(flag) => serde_json::Value::Bool(*flag),
            Self::Number(number) => json_number(*number),
            Self::String(text) => serde_json::Value::String(text.clone()),
            Self::Array(items) => serde_json::Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Object(object) => serde_json::Value::Object(
                object.iter().map(|(key, value)| (key.to_owned(), value.to_json())).collect(),
            ),
        }
    }

    /// Returns roughly the bytes that the value takes as text, for the limit on evaluations.
    pub(super) fn weight(&self) -> usize {
        const ITEM: usize = 16;
        ITEM + match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => text.len(),
            Self::Array(items) => items.iter().map(Self::weight).sum(),
            Self::Object(object) => object.iter().map(|(key, value)| key.len() + value.weight()).sum(),
        }
    }
}

/// Converts a number to JSON, without `.0` if it is whole.
pub(crate) fn json_number(number: f64) -> serde_json::Value {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        return serde_json::Value::from(number as i64);
    }
    serde_json::Number::from_f64(number)
        .map_or_else(|| format_number(number).into(), serde_json::Value::Number)
}

/// Converts text to upper case character by character, so that its length in characters stays the same, as .NET's
/// `OrdinalIgnoreCase` does.
pub(super) fn fold(text: &str) -> String {
    text.chars().map(fold_char).collect()
}

fn fold_char(character: char) -> char {
    let mut upper = character.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) => single,
        _ => character,
    }
}

fn compare_text(a: &str, b: &str) -> Ordering {
    a.chars().map(fold_char).cmp(b.chars().map(fold_char))
}

/// Parses a number as the expression language spells it: decimal with fraction and exponent, `0x`, `0o`, `Infinity`.
/// Empty text is 0; any other text is NaN.
pub(super) fn parse_number(text: &str) -> f64 {
    let text = text.trim();
    match text {
        "" => return 0.0,
        "Infinity" => return f64::INFINITY,
        "-Infinity" => return f64::NEG_INFINITY,
        _ => {}
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            // GitHub reads these as signed 32-bit numbers: 0xffffffff is -1.
            let bits = if digits.starts_with('+') { None } else { u32::from_str_radix(digits, radix).ok() };
            return bits.map_or(f64::NAN, |bits| f64::from(bits.cast_signed()));
        }
    }
    // Rust would also parse "inf" and "nan", which are not numbers in this language.
    if text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E')) {
        return text.parse().unwrap_or(f64::NAN);
    }
    f64::NAN
}

/// Formats a number with at most 15 digits, as .NET's `G15` does: `3`, `0.5`, `1E+15`, `1E-05`.
pub(crate) fn format_number(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if number == 0.0 {
        return "0".to_owned(); // also for -0
    }
    let scientific = format!("{number:.14e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..15).contains(&exponent) {
        // The number is rounded to 15 digits first, then written without trailing zeros.
        let rounded: f64 = scientific.parse().unwrap_or(number);
        return format!("{rounded}");
    }
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}E{sign}{:02}", exponent.abs())
}
