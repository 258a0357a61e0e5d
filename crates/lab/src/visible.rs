//! Makes control characters visible, with which the text of a workflow could steer a terminal.

use std::fmt;

/// Writes text to `0`, in which control characters are escaped as in Rust: `\n`, `\u{1b}`.
pub(crate) struct Visible<'a, 'b>(pub(crate) &'a mut fmt::Formatter<'b>);

impl fmt::Write for Visible<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| {
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())
            } else {
                self.0.write_char(character)
            }
        })
    }
}
