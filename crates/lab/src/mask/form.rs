//! The forms in which a secret may be printed, as actions/runner masks them (`ValueEncoders.cs`).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// Shortest secret whose base64 is masked inside of longer base64, in bytes. A shorter one gives a few characters only, which
/// occur everywhere.
const INNER_BASE64_MIN: usize = 5;
/// Shortest part of a secret beside an ampersand that is masked, in characters; actions/runner's figure.
const AMPERSAND_PART_MIN: usize = 6;

/// Returns a secret of one line in all its forms.
pub(super) fn all(secret: &str) -> Vec<String> {
    let mut forms = in_one_line(secret);
    forms.extend([
        secret.to_owned(),
        // As an argument of a command line, and as a string of an expression.
        secret.replace('"', "\\\""),
        secret.replace('\'', "''"),
        xml(secret),
    ]);
    let unquoted = secret.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    forms.extend(unquoted.filter(|_| secret.chars().count() > 8).map(str::to_owned));
    forms.extend(beside_ampersand(secret).into_iter().map(str::to_owned));
    forms
}

/// Returns the forms in which even a secret of several lines is one line: base64, JSON and URL.
pub(super) fn in_one_line(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    // As the end of a longer text, the secret may begin at any byte of a group of three.
    let mut forms: Vec<String> = (0..3)
        .filter_map(|skipped| bytes.get(skipped..).filter(|rest| !rest.is_empty()))
        .map(|rest| STANDARD.encode(rest))
        .collect();
    if bytes.len() >= INNER_BASE64_MIN {
        forms.extend(base64_forms(secret));
    }
    let json = serde_json::Value::from(secret).to_string();
    forms.push(json[1..json.len() - 1].to_owned());
    forms.push(url(secret));
    forms
}

/// Returns the base64 characters that the secret produces in any longer text, for each of the three possible offsets.
pub(crate) fn base64_forms(secret: &str) -> impl Iterator<Item = String> {
    (0..3_usize).filter_map(move |offset| {
        let mut bytes = vec![0; offset];
        bytes.extend(secret.as_bytes());
        let encoded = STANDARD_NO_PAD.encode(&bytes);
        // The first characters also depend on the text before the secret, and the last one on the text after it.
        let start = (offset * 8).div_ceil(6);
        let end = bytes.len() * 8 / 6;
        (start < end).then(|| encoded[start..end].to_owned())
    })
}

fn url(secret: &str) -> String {
    let mut text = String::new();
    for byte in secret.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte))
            }
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
    }
    text
}

fn xml(secret: &str) -> String {
    let escapes = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&apos;")];
    escapes.into_iter().fold(secret.to_owned(), |text, (character, escape)| text.replace(character, escape))
}

/// Returns the parts before and after an ampersand, because PowerShell colours a part of a command that fails. A colour
/// after `&+` hides one letter of the second part.
fn beside_ampersand(secret: &str) -> Vec<&str> {
    let (before, after) = match (secret.find("&+"), secret.rfind('&')) {
        (Some(at), _) => {
            let mut after = secret[at + 2..].chars();
            after.next();
            (&secret[..at + 2], after.as_str())
        }
        (None, Some(at)) => (&secret[..=at], &secret[at + 1..]),
        (None, None) => return Vec::new(),
    };
    [before, after].into_iter().filter(|part| part.chars().count() >= AMPERSAND_PART_MIN).collect()
}
