//! From tokens to the tree: recursive descent, with a limit on how deep it goes.

use super::{
    lexer::{Lexer, Token, fail, place},
    syntax::{Expression, Kind, Operator, Part, Program, Statement, Target},
};
use crate::{Failure, Place};

/// No limit may be higher: each level takes stack.
const DEPTH_MOST: usize = 64;

/// Words of Python that have no meaning here.
const FOREIGN: [&str; 20] = [
    "def", "class", "import", "from", "while", "lambda", "try", "except", "finally", "raise",
    "with", "async", "await", "yield", "global", "nonlocal", "del", "assert", "is", "as",
];

/// Words that begin statements of Go's scripts, and are names like any other here.
const FOREIGN_NAMES: [&str; 6] = ["func", "var", "go", "switch", "module", "throw"];

/// Words that are no names.
const WORDS: [&str; 12] = [
    "and", "or", "not", "in", "if", "else", "elif", "for", "return", "pass", "break", "continue",
];

pub(super) fn parse(source: &str, depth: usize) -> Result<Program, Failure> {
    let mut parser = Parser::new(source, 0, source.len(), depth.min(DEPTH_MOST))?;
    let statements = parser.statements(&Token::End)?;
    Ok(Program { statements })
}

struct Parser<'a> {
    source: &'a str,
    lexer: Lexer<'a>,
    token: Token<'a>,
    at: usize,
    /// How many brackets are open in which lines do not end.
    brackets: usize,
    /// How much deeper it may go.
    depth: usize,
    most: usize,
    /// A `{` here begins a block, not a map.
    no_map: bool,
    loops: usize,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str, from: usize, to: usize, depth: usize) -> Result<Self, Failure> {
        let mut parser = Self {
            source,
            lexer: Lexer::new(source, from, to),
            token: Token::End,
            at: from,
            brackets: 0,
            depth,
            most: depth,
            no_map: false,
            loops: 0,
        };
        parser.advance()?;
        Ok(parser)
    }

    fn advance(&mut self) -> Result<Token<'a>, Failure> {
        let (token, at) = self.lexer.next()?;
        self.at = at;
        let before = std::mem::replace(&mut self.token, token);
        self.settle()?;
        Ok(before)
    }

    /// Within brackets ends of lines mean nothing.
    fn settle(&mut self) -> Result<(), Failure> {
        while self.brackets > 0 && self.token == Token::Line {
            if self.source[self.at..].starts_with(';') {
                return Err(self.unexpected("a value"));
            }
            let (token, at) = self.lexer.next()?;
            (self.token, self.at) = (token, at);
        }
        Ok(())
    }

    /// Opens a bracket that was not taken yet.
    fn open(&mut self) -> Result<(), Failure> {
        self.brackets += 1;
        self.advance().map(|_| ())
    }

    fn close(&mut self, symbol: &'static str) -> Result<(), Failure> {
        if self.token != Token::Symbol(symbol) {
            return Err(self.unexpected(&format!("`{symbol}` or `,`")));
        }
        self.brackets -= 1;
        self.advance().map(|_| ())
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.token, Token::Symbol(other) if other == symbol)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.token, Token::Name(other) if other == word)
    }

    fn take(&mut self, symbol: &str) -> Result<bool, Failure> {
        let there = self.is(symbol);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn take_word(&mut self, word: &str) -> Result<bool, Failure> {
        let there = self.is_word(word);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn place(&self) -> Place {
        place(self.source, self.at)
    }

    fn fail(&self, at: usize, message: impl Into<String>) -> Failure {
        fail(self.source, at, message.into())
    }

    fn unexpected(&self, expected: &str) -> Failure {
        if let Token::Name(word) = self.token
            && FOREIGN.contains(&word)
        {
            return self.foreign(word);
        }
        self.fail(
            self.at,
            format!("expected {expected}, found {}", self.token.shown()),
        )
    }

    fn foreign(&self, word: &str) -> Failure {
        self.fail(
            self.at,
            format!("`{word}` does not land here: scripts are calls, values and assignments"),
        )
    }

    fn statements(&mut self, end: &Token<'static>) -> Result<Vec<Statement>, Failure> {
        let mut statements = Vec::new();
        loop {
            while self.token == Token::Line {
                self.advance()?;
            }
            if self.token == *end {
                return Ok(statements);
            }
            let block = self.statement(&mut statements)?;
            let over = self.token == Token::Line || self.token == *end || block;
            if over {
                continue;
            }
            if let Some(Statement::Expression(first)) = statements.last() {
                match &first.kind {
                    Kind::Name(word) if FOREIGN_NAMES.contains(&&**word) => {
                        return Err(self.foreign(word));
                    }
                    _ => {}
                }
            }
            return Err(self.unexpected("the end of the statement"));
        }
    }

    /// One statement; whether it ends in a block.
    fn statement(&mut self, out: &mut Vec<Statement>) -> Result<bool, Failure> {
        if let Token::Name(word) = self.token {
            match word {
                "if" => {
                    let statement = self.condition()?;
                    out.push(statement);
                    return Ok(true);
                }
                "for" => {
                    let statement = self.each()?;
                    out.push(statement);
                    return Ok(true);
                }
                "pass" => {
                    self.advance()?;
                    return Ok(false);
                }
                "return" => {
                    self.advance()?;
                    let over = matches!(self.token, Token::Line | Token::End) || self.is("}");
                    let value = if over { None } else { Some(self.values()?) };
                    out.push(Statement::Return(value));
                    return Ok(false);
                }
                "break" | "continue" if self.loops > 0 => {
                    out.push(match word {
                        "break" => Statement::Break,
                        _ => Statement::Continue,
                    });
                    self.advance()?;
                    return Ok(false);
                }
                word if FOREIGN.contains(&word) => return Err(self.foreign(word)),
                _ => {}
            }
        }
        let first_at = self.at;
        let first = self.values()?;
        if let Token::Symbol(symbol) = self.token {
            let operator = match symbol {
                "=" => return self.assign(first, first_at, out).map(|()| false),
                "+=" => Some(Operator::Add),
                "-=" => Some(Operator::Subtract),
                "*=" => Some(Operator::Multiply),
                "/=" => Some(Operator::Divide),
                "//=" => Some(Operator::FloorDivide),
                "%=" => Some(Operator::Remainder),
                "**=" => Some(Operator::Power),
                _ => None,
            };
            if let Some(operator) = operator {
                let target = self.target(first, first_at)?;
                if let Target::List(..) = target {
                    return Err(self.fail(first_at, "several names cannot be changed at once"));
                }
                self.advance()?;
                let value = self.values()?;
                out.push(Statement::Change(target, operator, value));
                return Ok(false);
            }
        }
        out.push(Statement::Expression(first));
        Ok(false)
    }

    fn assign(
        &mut self,
        first: Expression,
        first_at: usize,
        out: &mut Vec<Statement>,
    ) -> Result<(), Failure> {
        let (mut targets, mut value, mut at) = (Vec::new(), first, first_at);
        while self.take("=")? {
            targets.push(self.target(value, at)?);
            at = self.at;
            value = self.values()?;
        }
        out.push(Statement::Assign(targets, value));
        Ok(())
    }

    /// An expression as what is assigned to.
    fn target(&self, expression: Expression, at: usize) -> Result<Target, Failure> {
        let place = expression.place;
        match expression.kind {
            Kind::Name(name) => Ok(Target::Name(name, place)),
            // `env.name`, as scripts of other peers write it
            Kind::Field(of, name) if of.kind == Kind::Name("env".into()) => {
                Ok(Target::Name(name, place))
            }
            Kind::List(items) if !items.is_empty() => {
                let targets: Result<_, _> = items
                    .into_iter()
                    .map(|item| self.target(item, at))
                    .collect();
                Ok(Target::List(targets?, place))
            }
            Kind::Element(of, key) => match self.target(*of, at)? {
                Target::Name(name, place) => Ok(Target::Element(name, vec![*key], place)),
                Target::Element(name, mut keys, place) => {
                    keys.push(*key);
                    Ok(Target::Element(name, keys, place))
                }
                Target::List(..) => Err(self.fail(at, "this cannot be assigned to")),
            },
            _ => Err(self.fail(at, "this cannot be assigned to")),
        }
    }

    /// `if c { } else if d { } else { }`.
    fn condition(&mut self) -> Result<Statement, Failure> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            self.advance()?;
            let condition = self.before_block()?;
            branches.push((condition, self.block()?));
            if self.is_word("elif") {
                continue;
            }
            if !self.take_word("else")? {
                break;
            }
            if self.is_word("if") {
                continue;
            }
            otherwise = self.block()?;
            break;
        }
        Ok(Statement::If(branches, otherwise))
    }

    /// `for name in over { }`.
    fn each(&mut self) -> Result<Statement, Failure> {
        self.advance()?;
        let name = match self.token {
            Token::Name(name) if is_name(name) => name.to_owned(),
            _ => return Err(self.unexpected("a name")),
        };
        self.advance()?;
        if !self.take_word("in")? {
            return Err(self.unexpected("`in`"));
        }
        let over = self.before_block()?;
        self.loops += 1;
        let body = self.block()?;
        self.loops -= 1;
        Ok(Statement::For(name, over, body))
    }

    fn before_block(&mut self) -> Result<Expression, Failure> {
        let outer = std::mem::replace(&mut self.no_map, true);
        let expression = self.expression();
        self.no_map = outer;
        expression
    }

    fn block(&mut self) -> Result<Vec<Statement>, Failure> {
        if self.is(":") {
            return Err(self.fail(
                self.at,
                "blocks by indentation do not land here: write `{ ... }`",
            ));
        }
        if !self.is("{") {
            return Err(self.unexpected("`{`"));
        }
        self.deeper()?;
        let outer = std::mem::replace(&mut self.no_map, false);
        self.advance()?;
        let statements = self.statements(&Token::Symbol("}"))?;
        self.advance()?;
        self.no_map = outer;
        self.depth += 1;
        Ok(statements)
    }

    fn deeper(&mut self) -> Result<(), Failure> {
        match self.depth.checked_sub(1) {
            Some(left) => {
                self.depth = left;
                Ok(())
            }
            None => Err(crate::Failure::limit(
                "expression_depth",
                self.most,
                "nest less, or raise `Bounds::expression_depth` at the host",
            )
            .in_script(self.place())),
        }
    }

    /// One expression, or several as a list: `1, 2`.
    fn values(&mut self) -> Result<Expression, Failure> {
        let place = self.place();
        let first = self.expression()?;
        if !self.is(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take(",")? {
            if matches!(self.token, Token::Line | Token::End) || self.is("=") {
                break;
            }
            items.push(self.expression()?);
        }
        let kind = Kind::List(items);
        Ok(Expression { kind, place })
    }

    fn expression(&mut self) -> Result<Expression, Failure> {
        self.deeper()?;
        let place = self.place();
        let then = self.or()?;
        let expression = if self.is_word("if") {
            self.advance()?;
            let condition = Box::new(self.or()?);
            if !self.take_word("else")? {
                return Err(self.unexpected("`else`"));
            }
            let otherwise = Box::new(self.expression()?);
            let kind = Kind::If {
                condition,
                then: Box::new(then),
                otherwise,
            };
            Expression { kind, place }
        } else {
            then
        };
        self.depth += 1;
        Ok(expression)
    }

    fn or(&mut self) -> Result<Expression, Failure> {
        let first = self.and()?;
        let mut all = vec![first];
        while self.is_word("or") || self.is("||") {
            self.advance()?;
            all.push(self.and()?);
        }
        Ok(several(all, Kind::Or))
    }

    fn and(&mut self) -> Result<Expression, Failure> {
        let first = self.not()?;
        let mut all = vec![first];
        while self.is_word("and") || self.is("&&") {
            self.advance()?;
            all.push(self.not()?);
        }
        Ok(several(all, Kind::And))
    }

    fn not(&mut self) -> Result<Expression, Failure> {
        if !self.is_word("not") {
            return self.comparison();
        }
        let place = self.place();
        self.advance()?;
        self.deeper()?;
        let kind = Kind::Not(Box::new(self.not()?));
        self.depth += 1;
        Ok(Expression { kind, place })
    }

    fn comparison(&mut self) -> Result<Expression, Failure> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let operator = match self.token {
                Token::Symbol("==") => Operator::Equal,
                Token::Symbol("!=") => Operator::NotEqual,
                Token::Symbol("<") => Operator::Less,
                Token::Symbol("<=") => Operator::LessEqual,
                Token::Symbol(">") => Operator::Greater,
                Token::Symbol(">=") => Operator::GreaterEqual,
                Token::Name("in") => Operator::In,
                Token::Name("not") => {
                    self.advance()?;
                    if !self.is_word("in") {
                        return Err(self.unexpected("`in`"));
                    }
                    Operator::NotIn
                }
                _ => return Ok(chain(first, rest, Kind::Compare)),
            };
            self.advance()?;
            rest.push((operator, self.sum()?));
        }
    }

    fn sum(&mut self) -> Result<Expression, Failure> {
        let first = self.product()?;
        let mut rest = Vec::new();
        loop {
            let operator = match self.token {
                Token::Symbol("+") => Operator::Add,
                Token::Symbol("-") => Operator::Subtract,
                _ => return Ok(chain(first, rest, Kind::Chain)),
            };
            self.advance()?;
            rest.push((operator, self.product()?));
        }
    }

    fn product(&mut self) -> Result<Expression, Failure> {
        let first = self.signed()?;
        let mut rest = Vec::new();
        loop {
            let operator = match self.token {
                Token::Symbol("*") => Operator::Multiply,
                Token::Symbol("/") => Operator::Divide,
                Token::Symbol("//") => Operator::FloorDivide,
                Token::Symbol("%") => Operator::Remainder,
                _ => return Ok(chain(first, rest, Kind::Chain)),
            };
            self.advance()?;
            rest.push((operator, self.signed()?));
        }
    }

    fn signed(&mut self) -> Result<Expression, Failure> {
        let place = self.place();
        let make: fn(Box<Expression>) -> Kind = match self.token {
            Token::Symbol("-") => Kind::Minus,
            Token::Symbol("+") => Kind::Plus,
            Token::Symbol("!") => Kind::Not,
            _ => return self.power(),
        };
        self.advance()?;
        self.deeper()?;
        let kind = make(Box::new(self.signed()?));
        self.depth += 1;
        Ok(Expression { kind, place })
    }

    fn power(&mut self) -> Result<Expression, Failure> {
        let base = self.trailed()?;
        if !self.take("**")? {
            return Ok(base);
        }
        self.deeper()?;
        let rest = vec![(Operator::Power, self.signed()?)];
        self.depth += 1;
        Ok(chain(base, rest, Kind::Chain))
    }

    /// What has calls, elements and fields behind it.
    fn trailed(&mut self) -> Result<Expression, Failure> {
        let (place, depth) = (self.place(), self.depth);
        let mut expression = self.atom()?;
        loop {
            let kind = match self.token {
                Token::Symbol("(") => {
                    let callable = matches!(expression.kind, Kind::Name(_) | Kind::Field(..));
                    if !callable {
                        return Err(self.fail(self.at, "only what has a name can be called"));
                    }
                    self.call(expression)?
                }
                Token::Symbol("[") => self.element(expression)?,
                Token::Symbol(".") => {
                    self.advance()?;
                    let Token::Name(name) = self.token else {
                        return Err(self.unexpected("a name"));
                    };
                    self.advance()?;
                    Kind::Field(Box::new(expression), name.to_owned())
                }
                _ => break,
            };
            // each is one level of the tree
            self.deeper()?;
            expression = Expression { kind, place };
        }
        self.depth = depth;
        Ok(expression)
    }

    fn call(&mut self, callee: Expression) -> Result<Kind, Failure> {
        self.open()?;
        let (mut arguments, mut spread) = (Vec::new(), false);
        while !self.is(")") {
            if self.is("*") && !spread {
                self.advance()?;
                spread = true;
            } else if self.is("**") {
                return Err(self.fail(self.at, "arguments by name do not land here"));
            }
            arguments.push(self.expression()?);
            if self.is("=") {
                return Err(self.fail(
                    self.at,
                    "arguments by name do not land here: give them in order",
                ));
            }
            if self.take("...")? {
                spread = true;
            }
            if spread && !self.is(")") && !self.is(",") {
                return Err(self.unexpected("`)`"));
            }
            if !self.take(",")? {
                break;
            }
            if spread && !self.is(")") {
                return Err(self.fail(self.at, "only the last argument can be spread"));
            }
        }
        self.close(")")?;
        Ok(Kind::Call {
            callee: Box::new(callee),
            arguments,
            spread,
        })
    }

    fn element(&mut self, of: Expression) -> Result<Kind, Failure> {
        self.open()?;
        let of = Box::new(of);
        let from = match self.is(":") {
            true => None,
            false => Some(Box::new(self.expression()?)),
        };
        let kind = if self.take(":")? {
            let to = match self.is("]") || self.is(":") {
                true => None,
                false => Some(Box::new(self.expression()?)),
            };
            if self.is(":") {
                return Err(self.fail(self.at, "slices with a step do not land here"));
            }
            Kind::Slice(of, from, to)
        } else {
            match from {
                Some(key) => Kind::Element(of, key),
                None => return Err(self.unexpected("a value")),
            }
        };
        self.close("]")?;
        Ok(kind)
    }

    fn atom(&mut self) -> Result<Expression, Failure> {
        let place = self.place();
        let kind = match &self.token {
            Token::Int(_)
            | Token::Float(_)
            | Token::Text(_)
            | Token::Bytes(_)
            | Token::Format(_) => return self.literal(),
            Token::Name(name) => {
                let name = *name;
                let kind = match name {
                    "None" | "nil" | "null" => Kind::Nil,
                    "True" | "true" => Kind::Bool(true),
                    "False" | "false" => Kind::Bool(false),
                    "NaN" | "nan" => Kind::Float(f64::NAN),
                    name if is_name(name) => Kind::Name(name.to_owned()),
                    _ => return Err(self.unexpected("a value")),
                };
                self.advance()?;
                kind
            }
            Token::Symbol("(") => {
                self.open()?;
                let mut items = Vec::new();
                let mut comma = false;
                while !self.is(")") {
                    items.push(self.expression()?);
                    comma = self.take(",")?;
                    if !comma {
                        break;
                    }
                }
                self.close(")")?;
                match items.pop() {
                    Some(only) if items.is_empty() && !comma => return Ok(only),
                    Some(last) => {
                        items.push(last);
                        Kind::List(items)
                    }
                    None => Kind::List(items),
                }
            }
            Token::Symbol("[") => {
                self.open()?;
                let mut items = Vec::new();
                while !self.is("]") {
                    items.push(self.expression()?);
                    if !self.take(",")? {
                        break;
                    }
                }
                self.close("]")?;
                Kind::List(items)
            }
            Token::Symbol("{") if !self.no_map || self.brackets > 0 => {
                self.open()?;
                let mut entries = Vec::new();
                while !self.is("}") {
                    let key = self.expression()?;
                    if !self.take(":")? {
                        return Err(self.unexpected("`:`"));
                    }
                    entries.push((key, self.expression()?));
                    if !self.take(",")? {
                        break;
                    }
                }
                self.close("}")?;
                Kind::Map(entries)
            }
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Expression { kind, place })
    }

    /// A literal; strings that stand side by side are one.
    fn literal(&mut self) -> Result<Expression, Failure> {
        let (place, at) = (self.place(), self.at);
        let kind = match self.advance()? {
            Token::Int(n) => Kind::Int(n),
            Token::Float(x) => Kind::Float(x),
            Token::Bytes(bytes) => Kind::Bytes(bytes),
            Token::Text(mut text) => {
                while let Token::Text(_) = self.token {
                    if let Token::Text(more) = self.advance()? {
                        text.push_str(&more);
                    }
                }
                Kind::Text(text)
            }
            Token::Format(found) => {
                let mut parts = Vec::new();
                for (text, range) in found {
                    if !text.is_empty() {
                        parts.push(Part::Text(text));
                    }
                    if let Some((from, to)) = range {
                        let mut inner = Parser::new(self.source, from, to, self.depth)?;
                        inner.brackets = 1;
                        inner.most = self.most;
                        let value = inner.expression()?;
                        if inner.token != Token::End {
                            return Err(inner.fail(
                                inner.at,
                                "only a plain value can stand in `{}` of a string",
                            ));
                        }
                        parts.push(Part::Value(value));
                    }
                }
                Kind::Format(parts)
            }
            other => {
                return Err(self.fail(at, format!("expected a value, found {}", other.shown())));
            }
        };
        Ok(Expression { kind, place })
    }
}

/// Whether a word can be a name.
fn is_name(word: &str) -> bool {
    !WORDS.contains(&word)
        && !FOREIGN.contains(&word)
        && !matches!(
            word,
            "None" | "nil" | "null" | "True" | "true" | "False" | "false" | "NaN" | "nan"
        )
}

fn several(mut all: Vec<Expression>, kind: fn(Vec<Expression>) -> Kind) -> Expression {
    match all.pop() {
        Some(only) if all.is_empty() => only,
        Some(last) => {
            let place = all[0].place;
            all.push(last);
            let kind = kind(all);
            Expression { kind, place }
        }
        None => unreachable!("one was parsed before this is called"),
    }
}

fn chain(
    first: Expression,
    rest: Vec<(Operator, Expression)>,
    kind: fn(Box<Expression>, Vec<(Operator, Expression)>) -> Kind,
) -> Expression {
    if rest.is_empty() {
        return first;
    }
    let place = first.place;
    let kind = kind(Box::new(first), rest);
    Expression { kind, place }
}
