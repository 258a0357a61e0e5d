//! The keys that end a session from here: `~` and `.` after Enter, as in ssh. They work if the machine hangs too.

/// The key that begins a command, after Enter.
const ESCAPE: u8 = b'~';
/// The key after it that ends the session.
const END: u8 = b'.';

/// Looks for the keys in what a person types. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Escape {
    /// The last key was Enter, or there was none.
    #[default]
    LineStart,
    /// The first key has come, and is held back.
    Begun,
    /// In the middle of a line.
    Within,
}

impl Escape {
    /// Takes typed bytes. Returns those for the machine, and true if the session ends.
    pub(super) fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &key in typed {
            match (*self, key) {
                (Self::LineStart, ESCAPE) => {
                    *self = Self::Begun;
                    continue;
                }
                (Self::Begun, END) => return (passed, true),
                // Twice is once for the machine.
                (Self::Begun, ESCAPE) => {}
                (Self::Begun, _) => passed.push(ESCAPE),
                _ => {}
            }
            passed.push(key);
            *self = if matches!(key, b'\r' | b'\n') { Self::LineStart } else { Self::Within };
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_after_enter_end_a_session_and_nothing_else_that_is_typed_is_lost() {
        for (typed, passed, ends) in [
            ("~.", "", true),
            ("ls\r~.", "ls\r", true),
            ("ls ~.\r", "ls ~.\r", false),
            ("~/x\r", "~/x\r", false),
            ("~~.\r", "~.\r", false),
            ("a\r~\r~.", "a\r~\r", true),
            ("", "", false),
        ] {
            let expected = (passed.as_bytes().to_vec(), ends);
            assert_eq!(Escape::default().take(typed.as_bytes()), expected, "{typed:?}");
            let (mut escape, mut one_by_one) = (Escape::default(), (Vec::new(), false));
            for key in typed.bytes() {
                if !one_by_one.1 {
                    let (bytes, end) = escape.take(&[key]);
                    one_by_one.0.extend(bytes);
                    one_by_one.1 = end;
                }
            }
            assert_eq!(one_by_one, expected, "{typed:?}, key by key");
        }
    }
}
