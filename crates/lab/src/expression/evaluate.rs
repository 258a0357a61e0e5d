//! Evaluates expressions.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

use super::error::{ExpressionError, Problem};
use super::function::{self, Function};
use super::limits::EVALUATION_BYTES_MAX;
use super::scope::Scope;
use super::syntax::{Comparison, Expr, Node};
use super::value::Value;

impl Expr {
    /// Evaluates the expression in a scope.
    ///
    /// # Errors
    /// Fails on a context that the scope lacks, a function that the scope refuses, bad arguments, or a result beyond the
    /// limits.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        let evaluator = Evaluator { expr: self, scope, bytes: Cell::new(0) };
        Ok(evaluator.node(&self.node)?.into_value().into_owned())
    }
}

/// An intermediate value. The result of `.*` is not an array yet, because further indexing applies to each of its items.
enum Found<'a> {
    One(Cow<'a, Value>),
    Many(Vec<Cow<'a, Value>>),
}

impl<'a> Found<'a> {
    fn owned(value: impl Into<Value>) -> Self {
        Self::One(Cow::Owned(value.into()))
    }

    fn into_value(self) -> Cow<'a, Value> {
        match self {
            Self::One(value) => value,
            Self::Many(items) => Cow::Owned(Value::Array(items.into_iter().map(Cow::into_owned).collect())),
        }
    }
}

struct Evaluator<'a> {
    expr: &'a Expr,
    scope: &'a Scope<'a>,
    bytes: Cell<usize>,
}

type Outcome<T> = Result<T, ExpressionError>;

impl<'a> Evaluator<'a> {
    fn node(&self, node: &'a Node) -> Outcome<Found<'a>> {
        match node {
            Node::Literal(value) => Ok(Found::One(Cow::Borrowed(value))),
            Node::Context { name, at } => match self.scope.get(name) {
                Some(value) => Ok(Found::One(Cow::Borrowed(value))),
                None => {
                    let problem = Problem::UnknownContext { name: name.clone(), known: self.scope.names() };
                    Err(self.expr.error(problem, *at))
                }
            },
            Node::Index { base, index } => self.index(base, index),
            Node::Wildcard { base } => self.wildcard(base),
            Node::Call { function, arguments, at } => self.call(*function, arguments, *at),
            Node::Not(inner) => Ok(Found::owned(!self.value(inner)?.is_truthy())),
            Node::Compare { operator, left, right } => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                Ok(Found::owned(compare(*operator, &left, &right)))
            }
            Node::And(parts) => self.first(parts, |value| !value.is_truthy()),
            Node::Or(parts) => self.first(parts, Value::is_truthy),
        }
    }

    fn value(&self, node: &'a Node) -> Outcome<Cow<'a, Value>> {
        let value = match self.node(node)? {
            Found::One(value) => value,
            many @ Found::Many(_) => {
                let value = many.into_value();
                self.charge(value.weight(), 1)?;
                value
            }
        };
        Ok(value)
    }

    /// Returns the value of the first part that `ends` accepts, or of the last part: `&&` and `||` give values, not just
    /// true and false.
    fn first(&self, parts: &'a [Node], ends: impl Fn(&Value) -> bool) -> Outcome<Found<'a>> {
        let mut last = Cow::Owned(Value::Null);
        for part in parts {
            last = self.value(part)?;
            if ends(&last) {
                break;
            }
        }
        Ok(Found::One(last))
    }

    fn index(&self, base: &'a Node, index: &'a Node) -> Outcome<Found<'a>> {
        let base = self.node(base)?;
        let index = self.value(index)?;
        Ok(match base {
            Found::One(value) => Found::One(member(value, &index).unwrap_or(Cow::Owned(Value::Null))),
            Found::Many(items) => {
                Found::Many(items.into_iter().filter_map(|item| member(item, &index)).collect())
            }
        })
    }

    fn wildcard(&self, base: &'a Node) -> Outcome<Found<'a>> {
        let items = match self.node(base)? {
            Found::One(value) => children(value),
            Found::Many(items) => items.into_iter().flat_map(children).collect(),
        };
        Ok(Found::Many(items))
    }

    fn call(&self, function: Function, arguments: &'a [Node], at: usize) -> Outcome<Found<'a>> {
        if function == Function::Case {
            return self.case(arguments, at);
        }
        if let Some(answer) = self.status(function, at)? {
            return Ok(Found::owned(answer));
        }
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.value(argument)?);
        }
        let (first, second) = (&values[0], values.get(1).map(AsRef::as_ref));
        let null = Value::Null;
        let other = second.unwrap_or(&null);
        let result: Value = match function {
            Function::Contains => function::contains(first, other).into(),
            Function::StartsWith => function::starts_with(first, other).into(),
            Function::EndsWith => function::ends_with(first, other).into(),
            Function::Join => {
                self.bound_join(first, second, at)?;
                function::join(first, second).into()
            }
            Function::Format => {
                let argument = |index: usize| values.get(index + 1).map(AsRef::as_ref);
                let text = function::format(&first.to_text(), argument, EVALUATION_BYTES_MAX);
                text.map_err(|problem| self.expr.error(problem, at))?.into()
            }
            Function::ToJson => {
                self.bound_json(first, at)?;
                function::to_json(first).into()
            }
            Function::FromJson => {
                let json = serde_json::from_str(&first.to_text())
                    .map_err(|error| self.expr.error(Problem::Json { message: error.to_string() }, at))?;
                Value::from_json(&json)
            }
            Function::HashFiles => return Err(self.expr.error(Problem::NeedsWorkspace, at)),
            Function::Case
            | Function::Success
            | Function::Failure
            | Function::Cancelled
            | Function::Always => Value::Null,
        };
        self.charge(result.weight(), at)?;
        Ok(Found::owned(result))
    }

    /// Returns the value behind the first true condition, or the last argument, which is the default. As on GitHub, the
    /// arguments that do not decide are not evaluated.
    fn case(&self, arguments: &'a [Node], at: usize) -> Outcome<Found<'a>> {
        let (pairs, default) = arguments.as_chunks::<2>();
        for (place, [condition, value]) in pairs.iter().enumerate() {
            match self.value(condition)?.as_ref() {
                Value::Bool(true) => return Ok(Found::One(self.value(value)?)),
                Value::Bool(false) => {}
                other => {
                    let problem = Problem::CaseCondition { number: place + 1, found: other.describe() };
                    return Err(self.expr.error(problem, at));
                }
            }
        }
        Ok(Found::One(self.value(&default[0])?))
    }

    /// Returns the answer of a status function, or `None` for any other function.
    fn status(&self, function: Function, at: usize) -> Outcome<Option<bool>> {
        let pick: fn(super::Status) -> bool = match function {
            Function::Success => |status| status.success,
            Function::Failure => |status| status.failure,
            Function::Cancelled => |status| status.cancelled,
            Function::Always => |_| true,
            _ => return Ok(None),
        };
        match self.scope.status() {
            Some(status) => Ok(Some(pick(status))),
            None => Err(self.expr.error(Problem::FunctionNotHere { name: function.name().to_owned() }, at)),
        }
    }

    /// Refuses a too large result of `join` before it is built, because a long separator between many items makes it far
    /// larger than its arguments.
    fn bound_join(&self, items: &Value, separator: Option<&Value>, at: usize) -> Outcome<()> {
        let count = if let Value::Array(items) = items { items.len() } else { 1 };
        let separator = separator.map_or(1, |value| value.to_text().len());
        self.within(items.weight().saturating_add(count.saturating_mul(separator)), at)
    }

    /// Refuses a too large result of `toJSON` before it is built. Indentation makes JSON larger than its content, by at most
    /// two bytes for each level of each item.
    fn bound_json(&self, value: &Value, at: usize) -> Outcome<()> {
        self.within(indented_weight(value, 1), at)
    }

    fn within(&self, bytes: usize, at: usize) -> Outcome<()> {
        if self.bytes.get().saturating_add(bytes) <= EVALUATION_BYTES_MAX {
            return Ok(());
        }
        Err(self.expr.error(Problem::TooLarge { max: EVALUATION_BYTES_MAX }, at))
    }

    fn charge(&self, bytes: usize, at: usize) -> Outcome<()> {
        self.within(bytes, at)?;
        self.bytes.set(self.bytes.get() + bytes);
        Ok(())
    }
}

fn indented_weight(value: &Value, depth: usize) -> usize {
    let children: usize = match value {
        Value::Array(items) => items.iter().map(|item| indented_weight(item, depth + 1)).sum(),
        Value::Object(object) => {
            object.iter().map(|(key, item)| key.len() + indented_weight(item, depth + 1)).sum()
        }
        Value::String(text) => text.len(),
        _ => 0,
    };
    children.saturating_add(16 + 2 * depth)
}

fn member<'a>(base: Cow<'a, Value>, index: &Value) -> Option<Cow<'a, Value>> {
    match base {
        Cow::Borrowed(value) => value.index(index).map(Cow::Borrowed),
        Cow::Owned(value) => value.index(index).cloned().map(Cow::Owned),
    }
}

fn children(value: Cow<'_, Value>) -> Vec<Cow<'_, Value>> {
    match value {
        Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::Object(object)) => object.iter().map(|(_, item)| Cow::Borrowed(item)).collect(),
        Cow::Owned(Value::Array(items)) => items.into_iter().map(Cow::Owned).collect(),
        Cow::Owned(Value::Object(object)) => {
            object.iter().map(|(_, item)| Cow::Owned(item.clone())).collect()
        }
        _ => Vec::new(),
    }
}

fn compare(operator: Comparison, left: &Value, right: &Value) -> bool {
    let order = || left.loosely_compares(right);
    match operator {
        Comparison::Equal => left.loosely_equals(right),
        Comparison::NotEqual => !left.loosely_equals(right),
        Comparison::Less => order() == Some(Ordering::Less),
        Comparison::Greater => order() == Some(Ordering::Greater),
        Comparison::LessOrEqual => left.loosely_equals(right) || order() == Some(Ordering::Less),
        Comparison::GreaterOrEqual => left.loosely_equals(right) || order() == Some(Ordering::Greater),
    }
}
