//! Splits the text of an expression into symbols.

use super::error::Problem;
use super::value::parse_number;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Symbol {
    Number(f64),
    String(String),
    Name(String),
    /// Brackets, operators, comma, dot and star.
    Mark(&'static str),
}

/// A symbol and the position of its first character, counting from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) symbol: Symbol,
    pub(super) at: usize,
}

/// The marks, longer ones first, so that `<=` is not read as `<` and `=`.
const MARKS: [&str; 16] =
    ["==", "!=", "<=", ">=", "&&", "||", "(", ")", "[", "]", ",", ".", "*", "!", "<", ">"];

pub(super) fn symbols(text: &str) -> Result<Vec<Placed>, (Problem, usize)> {
    let characters: Vec<char> = text.chars().collect();
    let mut symbols: Vec<Placed> = Vec::new();
    let mut position = 0;
    while let Some(&first) = characters.get(position) {
        if first.is_whitespace() {
            position += 1;
            continue;
        }
        let rest = &characters[position..];
        let (symbol, length) = if first == '\'' {
            string(rest).ok_or((Problem::UnclosedString, position + 1))?
        } else if starts_number(rest, symbols.last()) {
            number(rest).map_err(|problem| (problem, position + 1))?
        } else if first.is_ascii_alphabetic() || first == '_' {
            name(rest)
        } else {
            mark(rest)
                .ok_or_else(|| (Problem::UnexpectedSymbol { symbol: first.to_string() }, position + 1))?
        };
        symbols.push(Placed { symbol, at: position + 1 });
        position += length;
    }
    Ok(symbols)
}

fn string(rest: &[char]) -> Option<(Symbol, usize)> {
    let mut text = String::new();
    let mut position = 1;
    loop {
        match (rest.get(position)?, rest.get(position + 1)) {
            ('\'', Some('\'')) => {
                text.push('\'');
                position += 2;
            }
            ('\'', _) => return Some((Symbol::String(text), position + 1)),
            (character, _) => {
                text.push(*character);
                position += 1;
            }
        }
    }
}

/// Returns true if a number starts here. A dot after a value accesses a member; anywhere else `.5` is a number.
fn starts_number(rest: &[char], previous: Option<&Placed>) -> bool {
    let after_value = previous.is_some_and(
        |placed| !matches!(placed.symbol, Symbol::Mark(mark) if !matches!(mark, ")" | "]" | "*" | ".")),
    );
    match rest[0] {
        '0'..='9' => true,
        '+' | '-' => true,
        '.' => !after_value && rest.get(1).is_some_and(char::is_ascii_digit),
        _ => false,
    }
}

fn number(rest: &[char]) -> Result<(Symbol, usize), Problem> {
    let length =
        rest.iter().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_')).count();
    let text: String = rest[..length].iter().collect();
    let number = parse_number(&text);
    if number.is_nan() {
        Err(Problem::UnexpectedSymbol { symbol: text })
    } else {
        Ok((Symbol::Number(number), length))
    }
}

fn name(rest: &[char]) -> (Symbol, usize) {
    let length = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).count();
    (Symbol::Name(rest[..length].iter().collect()), length)
}

fn mark(rest: &[char]) -> Option<(Symbol, usize)> {
    let found = MARKS
        .iter()
        .find(|mark| mark.chars().zip(rest.iter()).filter(|(a, b)| a == *b).count() == mark.len())?;
    Some((Symbol::Mark(found), found.len()))
}
