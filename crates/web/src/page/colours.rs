//! The colours that programs give to the lines of a log (ECMA-48, section 8.3.117, "Select Graphic Rendition"). Pure.

use maud::{Markup, html};

use super::text::visible;

/// Begins a control sequence.
const BEGIN: &str = "\u{1b}[";
/// Most characters between the begin and the end of a sequence that is read.
const PARAMETERS_MAX: usize = 40;
/// Most parts of a line. A hostile line cannot make the page many times as long as itself: the rest of it has one colour.
const PARTS_MAX: usize = 64;

/// The look of a part of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    /// One of the eight colours.
    ink: Option<u8>,
    is_bold: bool,
}

/// Returns a line with its colours. Everything else that could steer a terminal is made visible.
pub(super) fn coloured(line: &str) -> Markup {
    html! {
        @for (look, part) in parts(line) {
            @match look.classes() {
                Some(classes) => span class=(classes) { (visible(part)) },
                None => (visible(part)),
            }
        }
    }
}

/// Returns the parts of a line, without the sequences of colours.
fn parts(line: &str) -> Vec<(Look, &str)> {
    let (mut parts, mut look, mut rest) = (Vec::new(), Look::default(), line);
    // The search for the next sequence goes on from here.
    let mut searched = 0;
    while let Some(at) = rest[searched..].find(BEGIN).map(|at| at + searched) {
        let after = &rest[at + BEGIN.len()..];
        match parameters(after).filter(|_| parts.len() < PARTS_MAX) {
            Some(parameters) => {
                parts.extend((at > 0).then(|| (look, &rest[..at])));
                look = look.changed(parameters);
                (rest, searched) = (&after[parameters.len() + 1..], 0);
            }
            None => searched = at + BEGIN.len(),
        }
    }
    parts.extend((!rest.is_empty()).then_some((look, rest)));
    parts
}

/// Returns the parameters of the sequence that goes on here, if it sets colours.
fn parameters(after: &str) -> Option<&str> {
    let is_parameter = |byte: &u8| byte.is_ascii_digit() || b";:".contains(byte);
    let end = after.bytes().take(PARAMETERS_MAX + 1).position(|byte| !is_parameter(&byte))?;
    (after.as_bytes()[end] == b'm').then(|| &after[..end])
}

impl Look {
    fn changed(mut self, parameters: &str) -> Self {
        let mut codes = parameters.split([';', ':']).map(|code| code.parse::<u8>().unwrap_or_default());
        while let Some(code) = codes.next() {
            match code {
                0 => self = Self::default(),
                1 => self.is_bold = true,
                22 => self.is_bold = false,
                30..=37 => self.ink = Some(code - 30),
                39 => self.ink = None,
                90..=97 => self.ink = Some(code - 90),
                // One of many colours, in two or four more parameters; the page has only eight.
                38 | 48 => match codes.next() {
                    Some(5) => drop(codes.next()),
                    Some(2) => drop(codes.nth(2)),
                    _ => {}
                },
                _ => {}
            }
        }
        self
    }

    /// Returns its classes in the style sheet; none for a plain part.
    fn classes(self) -> Option<String> {
        let ink = self.ink.map(|ink| format!("ink-{ink}"));
        let bold = self.is_bold.then(|| "bold".to_owned());
        let classes: Vec<String> = ink.into_iter().chain(bold).collect();
        (!classes.is_empty()).then(|| classes.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        coloured(line).into_string()
    }

    #[test]
    fn a_line_has_the_colours_of_its_program() {
        assert_eq!(
            shown("a \u{1b}[32mgood\u{1b}[0m and \u{1b}[1;91mbad\u{1b}[22m thing\u{1b}[m."),
            "a <span class=\"ink-2\">good</span> and <span class=\"ink-1 bold\">bad</span><span class=\"ink-1\"> thing</span>."
        );
        assert_eq!(shown("\u{1b}[38;5;196mone of\u{1b}[48;2;1;31;35m many"), "one of many");
        assert_eq!(shown("plain <b>"), "plain &lt;b&gt;");
    }

    #[test]
    fn other_sequences_are_shown_as_text() {
        assert_eq!(shown("\u{1b}[2Jm\u{1b}]0;x\u{7}"), "␛[2Jm␛]0;x␇");
        assert_eq!(shown("\u{1b}[\u{1b}[31mred"), "␛[<span class=\"ink-1\">red</span>");
        assert_eq!(shown(&format!("\u{1b}[{}m", "1;".repeat(PARAMETERS_MAX))).matches('␛').count(), 1);
    }

    #[test]
    fn a_hostile_line_has_a_bounded_number_of_parts() {
        let hostile = "\u{1b}[31mx\u{1b}[32my".repeat(10_000);
        assert_eq!(parts(&hostile).len(), PARTS_MAX + 1);
        assert!(parts("\u{1b}[".repeat(10_000).as_str()).len() == 1);
    }

    proptest::proptest! {
        #[test]
        fn every_line_is_shown_whole_but_for_its_colours(line in "(\u{1b}|\\[|m|[0-9;]|é|x){0,80}") {
            let joined: String = parts(&line).into_iter().map(|(_, part)| part).collect();
            let mut rest = line.as_str();
            for c in joined.chars() {
                let at = rest.find(c).expect("a part of the line");
                rest = &rest[at + c.len_utf8()..];
            }
        }
    }
}
