//! Parses symbols into an expression.
//!
//! ```text
//! or      = and ("||" and)*
//! and     = equal ("&&" equal)*
//! equal   = order (("==" | "!=") order)*
//! order   = unary (("<" | "<=" | ">" | ">=") unary)*
//! unary   = "!" unary | postfix
//! postfix = primary ("." name | "." "*" | "[" or "]" | "[" "*" "]")*
//! primary = number | string | "null" | "true" | "false" | "NaN" | "Infinity" | name "(" or, ... ")" | name | "(" or ")"
//! ```

use super::error::{ExpressionError, Problem};
use super::function::Function;
use super::lexer::{self, Placed, Symbol};
use super::limits::{DEPTH_MAX, LENGTH_MAX};
use super::syntax::{Comparison, Expr, Node};
use super::value::Value;

/// Parses an expression, without `${{` and `}}` around it.
///
/// # Errors
/// Returns the first error and its position.
pub fn parse(text: &str) -> Result<Expr, ExpressionError> {
    let source = text.trim();
    let fail = |(problem, position)| ExpressionError { problem, position, expression: source.to_owned() };
    if source.is_empty() {
        return Err(fail((Problem::Empty, 1)));
    }
    if source.chars().count() > LENGTH_MAX {
        return Err(fail((Problem::TooLong { max: LENGTH_MAX }, LENGTH_MAX)));
    }
    let symbols = lexer::symbols(source).map_err(fail)?;
    let mut parser = Parser { symbols, next: 0, depth: 0, end: source.chars().count() };
    let node = parser.or().map_err(fail)?;
    match parser.peek() {
        None => Ok(Expr { source: source.to_owned(), node }),
        Some(placed) => Err(fail((unexpected(&placed.symbol), placed.at))),
    }
}

type Failure = (Problem, usize);

struct Parser {
    symbols: Vec<Placed>,
    next: usize,
    depth: usize,
    end: usize,
}

impl Parser {
    fn or(&mut self) -> Result<Node, Failure> {
        self.enter()?;
        let mut parts = vec![self.and()?];
        while self.take("||") {
            parts.push(self.and()?);
        }
        self.depth -= 1;
        Ok(single_or(parts, Node::Or))
    }

    fn and(&mut self) -> Result<Node, Failure> {
        let mut parts = vec![self.equal()?];
        while self.take("&&") {
            parts.push(self.equal()?);
        }
        Ok(single_or(parts, Node::And))
    }

    fn equal(&mut self) -> Result<Node, Failure> {
        self.chain(&[("==", Comparison::Equal), ("!=", Comparison::NotEqual)], Self::order)
    }

    fn order(&mut self) -> Result<Node, Failure> {
        let operators = [
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        self.chain(&operators, Self::unary)
    }

    /// Parses operators of the same precedence, from left to right.
    fn chain(
        &mut self,
        operators: &[(&'static str, Comparison)],
        operand: fn(&mut Self) -> Result<Node, Failure>,
    ) -> Result<Node, Failure> {
        let depth = self.depth;
        let mut left = operand(self)?;
        while let Some((_, operator)) = operators.iter().find(|(mark, _)| self.take(mark)) {
            self.enter()?; // the tree grows to the left by one
            let right = Box::new(operand(self)?);
            left = Node::Compare { operator: *operator, left: Box::new(left), right };
        }
        self.depth = depth;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, Failure> {
        if !self.take("!") {
            return self.postfix();
        }
        self.enter()?;
        let negated = Node::Not(Box::new(self.unary()?));
        self.depth -= 1;
        Ok(negated)
    }

    fn postfix(&mut self) -> Result<Node, Failure> {
        let depth = self.depth;
        let mut base = self.primary()?;
        loop {
            let is_member = if self.take(".") {
                true
            } else if self.take("[") {
                false
            } else {
                break;
            };
            self.enter()?;
            base = if self.take("*") {
                Node::Wildcard { base: Box::new(base) }
            } else if is_member {
                let name = self.name()?;
                Node::Index { base: Box::new(base), index: Box::new(Node::Literal(Value::String(name))) }
            } else {
                Node::Index { base: Box::new(base), index: Box::new(self.or()?) }
            };
            if !is_member {
                self.expect("]")?;
            }
        }
        self.depth = depth;
        Ok(base)
    }

    fn primary(&mut self) -> Result<Node, Failure> {
        let Some(Placed { symbol, at }) = self.symbols.get(self.next).cloned() else {
            return Err((Problem::UnexpectedEnd { expected: "a value" }, self.end));
        };
        self.next += 1;
        match symbol {
            Symbol::Number(number) => Ok(Node::Literal(Value::Number(number))),
            Symbol::String(text) => Ok(Node::Literal(Value::String(text))),
            Symbol::Mark("(") => {
                let inner = self.or()?;
                self.expect(")")?;
                Ok(inner)
            }
            Symbol::Name(name) if self.take("(") => self.call(&name, at),
            Symbol::Name(name) => Ok(match name.as_str() {
                "null" => Node::Literal(Value::Null),
                "true" => Node::Literal(Value::Bool(true)),
                "false" => Node::Literal(Value::Bool(false)),
                "NaN" => Node::Literal(Value::Number(f64::NAN)),
                "Infinity" => Node::Literal(Value::Number(f64::INFINITY)),
                _ => Node::Context { name, at },
            }),
            mark @ Symbol::Mark(_) => Err((unexpected(&mark), at)),
        }
    }

    fn call(&mut self, name: &str, at: usize) -> Result<Node, Failure> {
        let Some(function) = Function::named(name) else {
            return Err((Problem::UnknownFunction { name: name.to_owned(), known: Function::names() }, at));
        };
        let mut arguments = Vec::new();
        if !self.take(")") {
            loop {
                arguments.push(self.or()?);
                if !self.take(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        function.check_count(arguments.len()).map_err(|problem| (problem, at))?;
        Ok(Node::Call { function, arguments, at })
    }

    fn name(&mut self) -> Result<String, Failure> {
        match self.symbols.get(self.next) {
            Some(Placed { symbol: Symbol::Name(name), .. }) => {
                self.next += 1;
                Ok(name.clone())
            }
            Some(placed) => Err((unexpected(&placed.symbol), placed.at)),
            None => Err((Problem::UnexpectedEnd { expected: "a name or *" }, self.end)),
        }
    }

    fn peek(&self) -> Option<&Placed> {
        self.symbols.get(self.next)
    }

    fn take(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Some(Placed { symbol: Symbol::Mark(found), .. }) if *found == mark);
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, mark: &'static str) -> Result<(), Failure> {
        if self.take(mark) {
            return Ok(());
        }
        match self.peek() {
            Some(placed) => Err((unexpected(&placed.symbol), placed.at)),
            None => Err((Problem::UnexpectedEnd { expected: mark }, self.end)),
        }
    }

    fn enter(&mut self) -> Result<(), Failure> {
        self.depth += 1;
        if self.depth <= DEPTH_MAX {
            return Ok(());
        }
        let at = self.peek().map_or(self.end, |placed| placed.at);
        Err((Problem::TooDeep { max: DEPTH_MAX }, at))
    }
}

fn single_or(mut parts: Vec<Node>, make: fn(Vec<Node>) -> Node) -> Node {
    if parts.len() == 1 { parts.remove(0) } else { make(parts) }
}

fn unexpected(symbol: &Symbol) -> Problem {
    let symbol = match symbol {
        Symbol::Number(number) => super::value::format_number(*number),
        Symbol::String(text) => format!("'{text}'"),
        Symbol::Name(name) => name.clone(),
        Symbol::Mark(mark) => (*mark).to_owned(),
    };
    Problem::UnexpectedSymbol { symbol }
}
