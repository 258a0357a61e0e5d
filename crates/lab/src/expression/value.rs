//! Values of expressions, and GitHub's rules for turning one kind into another.

use std::cmp::Ordering;

use indexmap::IndexMap;

/// A value of the expression language.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing.
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
    /// Keys and values.
    Object(Object),
}

/// Keys and values in the order in which they came; keys are found whatever their case.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    entries: IndexMap<String, (String, Value)>,
}

impl Object {
    /// An object without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key; an equal one (whatever its case) keeps its place and its spelling.
    pub fn insert(&mut self, key: String, value: Value) {
        match self.entries.entry(fold(&key)) {
            indexmap::map::Entry::Occupied(mut occupied) => occupied.get_mut().1 = value,
            indexmap::map::Entry::Vacant(vacant) => {
                vacant.insert((key, value));
            }
        }
    }

    /// The value of a key, whatever its case.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(&fold(key)).map(|(_, value)| value)
    }

    /// The entries in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.values().map(|(key, value)| (key.as_str(), value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without entries.
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
    /// What `if` makes of it: null, false, 0, NaN and the empty string are false.
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(flag) => *flag,
            Self::Number(number) => *number != 0.0 && !number.is_nan(),
            Self::String(text) => !text.is_empty(),
            Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// The number it stands for: null is 0, false 0, true 1, the empty string 0, other text what it spells or NaN.
    pub fn to_number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(flag) => f64::from(u8::from(*flag)),
            Self::Number(number) => *number,
            Self::String(text) => parse_number(text),
            Self::Array(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// The text it stands for; `Array` and `Object` for what has none.
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

    /// True for everything but arrays and objects.
    pub fn is_primitive(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    /// `==`: text whatever its case, different kinds as numbers, arrays and objects only with themselves.
    pub fn loosely_equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => compare_text(a, b) == Ordering::Equal,
            // GitHub compares these by identity. Two evaluations of one context give one address here too.
            (Self::Array(a), Self::Array(b)) => std::ptr::eq(a, b),
            (Self::Object(a), Self::Object(b)) => std::ptr::eq(a, b),
            (a, b) if a.is_primitive() && b.is_primitive() => a.to_number() == b.to_number(),
            _ => false,
        }
    }

    /// `>` when `Greater`, `<` when `Less`; `None` where no order exists, which makes every comparison false.
    pub fn loosely_compares(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::String(a), Self::String(b)) => Some(compare_text(a, b)),
            (a, b) if a.is_primitive() && b.is_primitive() => a.to_number().partial_cmp(&b.to_number()),
            _ => None,
        }
    }

    /// A member of an object or an item of an array; null where there is none.
    pub fn index(&self, index: &Self) -> Option<&Self> {
        match self {
            Self::Object(object) if index.is_primitive() => object.get(&index.to_text()),
            Self::Array(items) => {
                let number = index.to_number();
                // NaN fails the comparison; a fraction is cut off, as GitHub does.
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

    /// From JSON.
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

    /// To JSON. NaN and the infinities, which JSON lacks, become their words.
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

    /// Roughly the bytes it takes as text, for the bound on evaluations.
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

/// A JSON number without `.0` where it is whole.
pub(crate) fn json_number(number: f64) -> serde_json::Value {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        return serde_json::Value::from(number as i64);
    }
    serde_json::Number::from_f64(number)
        .map_or_else(|| format_number(number).into(), serde_json::Value::Number)
}

/// Upper case, character by character, so that lengths in characters stay: .NET's `OrdinalIgnoreCase`.
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

/// Reads a number as the expression language spells it: decimal with fraction and exponent, `0x`, `0o`, `Infinity`.
/// Empty text is 0, anything else NaN.
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
            // GitHub reads these as 32 bits, with a sign: 0xffffffff is -1.
            let bits = if digits.starts_with('+') { None } else { u32::from_str_radix(digits, radix).ok() };
            return bits.map_or(f64::NAN, |bits| f64::from(bits.cast_signed()));
        }
    }
    // Rust also reads "inf" and "nan", which mean nothing here.
    if text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E')) {
        return text.parse().unwrap_or(f64::NAN);
    }
    f64::NAN
}

/// Writes a number with at most 15 digits, as .NET's `G15` does: `3`, `0.5`, `1E+15`, `1E-05`.
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
        // Rounded to 15 digits first, then written out without trailing zeros.
        let rounded: f64 = scientific.parse().unwrap_or(number);
        return format!("{rounded}");
    }
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}E{sign}{:02}", exponent.abs())
}
