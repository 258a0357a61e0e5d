//! Parses `strategy:`.

use super::super::matrix;
use super::super::model::Strategy;
use super::super::token::{Token, TokenKind};
use super::super::yaml::{Entry, Node, NodeKind, Scalar};
use super::fields::{Key, Support};
use super::{Reader, place};
use crate::expression::Scope;

const STRATEGY_KEYS: &[Key] = &[
    Key::new("matrix", Support::Read),
    Key::new("fail-fast", Support::Read),
    Key::new("max-parallel", Support::Read),
];

impl Reader {
    pub(super) fn strategy(&mut self, node: &Node, path: &str) -> Option<Strategy> {
        let fields = self.fields(node, path, STRATEGY_KEYS)?;
        let matrix = fields.get("matrix").map(|node| self.matrix(node, &format!("{path}.matrix")));
        let fail_fast = fields.get("fail-fast");
        let fail_fast =
            fail_fast.map(|node| self.boolean(node, &format!("{path}.fail-fast"), &place::STRATEGY));
        let parallel = fields.get("max-parallel");
        let parallel =
            parallel.map(|node| self.positive(node, &format!("{path}.max-parallel"), &place::STRATEGY));
        // `Some(None)` is a key with a refused value. It is checked here so that all three keys are parsed before.
        let present = |value: Option<Option<Token>>| value.map_or(Some(None), |token| token.map(Some));
        Some(Strategy {
            matrix: present(matrix)?,
            fail_fast: present(fail_fast)?,
            max_parallel: present(parallel)?,
        })
    }

    fn matrix(&mut self, node: &Node, path: &str) -> Option<Token> {
        let is_expression =
            matches!(&node.kind, NodeKind::Scalar(Scalar::String(text)) if text.contains("${{"));
        if !is_expression && !matches!(&node.kind, NodeKind::Mapping(_)) {
            self.remark(
                node.at,
                path,
                format!("must be a mapping or an expression, but is {}", node.describe()),
            );
            return None;
        }
        if let NodeKind::Mapping(entries) = &node.kind {
            self.notice_misspelt_filters(entries, path);
        }
        let token = self.any_template(node, path, &place::STRATEGY)?;
        // A matrix without expressions can be checked now, with its position, instead of when the job starts.
        if !has_expression(&token) {
            let value = token.evaluate(&Scope::new()).ok()?;
            if let Err(error) = matrix::expand(&value) {
                self.remark(node.at, path, error.to_string());
                return None;
            }
        }
        Some(token)
    }

    /// Adds a notice about each vector that is probably a filter. A matrix from an expression is noticed when its job is
    /// planned.
    fn notice_misspelt_filters(&mut self, entries: &[Entry], path: &str) {
        for Entry { key, key_at, .. } in entries {
            if let Some(message) = matrix::misspelt_filter(key) {
                let notice = self.diagnostic(*key_at, path, message);
                self.notices.push(notice);
            }
        }
    }
}

fn has_expression(token: &Token) -> bool {
    match &token.kind {
        TokenKind::Expression(_) => true,
        TokenKind::Sequence(items) => items.iter().any(has_expression),
        TokenKind::Mapping(entries) => entries.iter().any(|(_, value)| has_expression(value)),
        _ => false,
    }
}
