//! Parses values of single keys: text, names, numbers, conditions and templates.

use super::super::diagnostic::Position;
use super::super::model::Condition;
use super::super::token::{Token, TokenKind};
use super::super::yaml::{Node, NodeKind, Scalar};
use super::Reader;
use super::fields::join;
use super::place::Availability;
use crate::expression::{self, Template};

/// The shells that runners know by name. Any other value must be a command line with `{0}` in it.
const SHELLS: [&str; 6] = ["bash", "sh", "pwsh", "python", "cmd", "powershell"];

impl Reader {
    /// Reads a scalar as literal text.
    pub(super) fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.kind {
            NodeKind::Scalar(scalar) => Some(scalar.to_text()),
            _ => {
                self.remark(node.at, path, format!("must be text, but is {}", node.describe()));
                None
            }
        }
    }

    /// Reads a scalar as text that may contain expressions.
    pub(super) fn template(&mut self, node: &Node, path: &str, place: &Availability) -> Option<Token> {
        let text = self.text(node, path)?;
        self.text_template(&text, node.at, path, place)
    }

    /// Reads a scalar like [`Self::template`], but refuses an empty one.
    pub(super) fn filled_template(&mut self, node: &Node, path: &str, place: &Availability) -> Option<Token> {
        if node.is_null()
            || matches!(&node.kind, NodeKind::Scalar(Scalar::String(text)) if text.trim().is_empty())
        {
            self.remark(node.at, path, "must not be empty");
            return None;
        }
        self.template(node, path, place)
    }

    /// Reads any value, which may contain expressions anywhere.
    pub(super) fn any_template(&mut self, node: &Node, path: &str, place: &Availability) -> Option<Token> {
        let kind = match &node.kind {
            NodeKind::Scalar(Scalar::Null) => TokenKind::Null,
            NodeKind::Scalar(Scalar::Bool(flag)) => TokenKind::Bool(*flag),
            NodeKind::Scalar(Scalar::Number(number)) => TokenKind::Number(*number),
            NodeKind::Scalar(Scalar::String(text)) => return self.text_template(text, node.at, path, place),
            NodeKind::Sequence(items) => {
                let tokens = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.any_template(item, &format!("{path}[{i}]"), place));
                TokenKind::Sequence(tokens.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?)
            }
            NodeKind::Mapping(_) => {
                return self
                    .mapping(node, path, |reader, value, path| reader.any_template(value, path, place));
            }
        };
        Some(Token { at: node.at, kind })
    }

    /// Reads a mapping of literal keys to text, such as `env`.
    pub(super) fn text_mapping(&mut self, node: &Node, path: &str, place: &Availability) -> Option<Token> {
        if node.is_null() {
            return Some(Token { at: node.at, kind: TokenKind::Mapping(Vec::new()) });
        }
        if matches!(&node.kind, NodeKind::Scalar(Scalar::String(text)) if text.contains("${{")) {
            self.remark(
                node.at,
                path,
                "an expression for the whole mapping is not yet supported; write its keys out",
            );
            return None;
        }
        self.mapping(node, path, |reader, value, path| reader.template(value, path, place))
    }

    fn mapping(
        &mut self,
        node: &Node,
        path: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<Token>,
    ) -> Option<Token> {
        let NodeKind::Mapping(entries) = &node.kind else {
            self.remark(node.at, path, format!("must be a mapping, but is {}", node.describe()));
            return None;
        };
        let mut tokens = Vec::new();
        let mut complete = true;
        for entry in entries {
            let inner = join(path, &entry.key);
            if entry.key.is_empty() {
                self.remark(entry.key_at, path, "a key must not be empty");
                complete = false;
            } else if entry.key.contains("${{") {
                self.remark(
                    entry.key_at,
                    path,
                    format!("the key {:?}: an expression as a key is not yet supported", entry.key),
                );
                complete = false;
            } else if let Some(value) = read(self, &entry.value, &inner) {
                tokens.push((Token { at: entry.key_at, kind: TokenKind::String(entry.key.clone()) }, value));
            } else {
                complete = false;
            }
        }
        complete.then_some(Token { at: node.at, kind: TokenKind::Mapping(tokens) })
    }

    /// Reads `true`, `false` or an expression.
    pub(super) fn boolean(&mut self, node: &Node, path: &str, place: &Availability) -> Option<Token> {
        match &node.kind {
            NodeKind::Scalar(Scalar::Bool(flag)) => Some(Token { at: node.at, kind: TokenKind::Bool(*flag) }),
            NodeKind::Scalar(Scalar::String(text)) if text.contains("${{") => {
                self.template(node, path, place)
            }
            _ => {
                self.remark(node.at, path, format!("must be true or false, but is {}", node.describe()));
                None
            }
        }
    }

    /// Reads a number above zero or an expression.
    pub(super) fn positive(&mut self, node: &Node, path: &str, place: &Availability) -> Option<Token> {
        match &node.kind {
            NodeKind::Scalar(Scalar::Number(number)) if *number > 0.0 && number.is_finite() => {
                Some(Token { at: node.at, kind: TokenKind::Number(*number) })
            }
            NodeKind::Scalar(Scalar::String(text)) if text.contains("${{") => {
                self.template(node, path, place)
            }
            _ => {
                self.remark(node.at, path, format!("must be a number above 0, but is {}", node.describe()));
                None
            }
        }
    }

    /// Reads `shell:` and checks it as runners do.
    pub(super) fn shell(&mut self, node: &Node, path: &str, place: &Availability) -> Option<Token> {
        let NodeKind::Scalar(Scalar::String(text)) = &node.kind else {
            self.remark(node.at, path, format!("must be the name of a shell, but is {}", node.describe()));
            return None;
        };
        let token = self.text_template(text, node.at, path, place)?;
        if let TokenKind::String(text) = &token.kind
            && !SHELLS.contains(&text.as_str())
            && !text.contains("{0}")
        {
            let message = format!(
                "unknown shell {text:?}: use one of {} or a command with {{0}} for the script",
                SHELLS.join(", ")
            );
            self.remark(node.at, path, message);
            return None;
        }
        Some(token)
    }

    /// Reads `if:`, with or without `${{ }}`. If it is absent, the condition is `success()`.
    pub(super) fn condition(
        &mut self,
        node: Option<&Node>,
        at: Position,
        path: &str,
        place: &Availability,
    ) -> Option<Condition> {
        let (text, at) = match node {
            Some(node) => (self.text(node, path)?, node.at),
            None => (String::new(), at),
        };
        let expr = if text.trim().is_empty() {
            expression::parse("success()")
        } else if text.contains("${{") {
            Template::parse(text.trim()).and_then(|template| template.to_expression())
        } else {
            expression::parse(&text)
        };
        // The expression is checked before it is completed, so that positions are those of the file.
        let checked = expr.and_then(|expr| expr.check(place.contexts, place.functions).map(|()| expr));
        match checked {
            Ok(expr) => Some(Condition { at, expr: expr.with_default_status() }),
            Err(error) => {
                self.remark(at, path, error.to_string());
                None
            }
        }
    }

    /// Checks the id of a job, a step or an input.
    pub(super) fn check_id(&mut self, id: &str, at: Position, path: &str) -> bool {
        const LENGTH_MAX: usize = 100;
        let valid = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
            && id.len() <= LENGTH_MAX;
        if !valid {
            let message = format!(
                "bad id {id:?}: an id begins with a letter or _, goes on with letters, digits, - and _, and has at most {LENGTH_MAX} characters"
            );
            self.remark(at, path, message);
        }
        valid
    }

    fn text_template(&mut self, text: &str, at: Position, path: &str, place: &Availability) -> Option<Token> {
        if !text.contains("${{") {
            return Some(Token { at, kind: TokenKind::String(text.to_owned()) });
        }
        if !place.expressions {
            self.remark(at, path, "expressions cannot be used here");
            return None;
        }
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(error) => {
                self.remark(at, path, error.to_string());
                return None;
            }
        };
        let mut complete = true;
        for piece in template.pieces() {
            if let expression::Piece::Expression(expr) = piece
                && let Err(error) = expr.check(place.contexts, place.functions)
            {
                self.remark(at, path, error.to_string());
                complete = false;
            }
        }
        match template.to_expression() {
            Ok(expr) if complete => Some(Token { at, kind: TokenKind::Expression(expr) }),
            Ok(_) => None,
            Err(error) => {
                self.remark(at, path, error.to_string());
                None
            }
        }
    }
}
