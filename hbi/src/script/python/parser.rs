//! From tokens to the tree: recursive descent, with a limit on how deep it goes.

use std::rc::Rc;

use super::{
    lexer::{Lexer, Places, Token, VALUES_MOST, fail, too_many_values},
    syntax::{Expression, Kind, Operator, Part, Program, Statement, Target},
};
use crate::{Failure, Place};

/// No limit may be higher: each level takes stack.
const DEPTH_MOST: usize = 64;

/// Boxed, since each frame of the descent has room for several.
type Refused = Box<Failure>;

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

pub(super) fn parse(source: &str, depth: usize) -> Result<Program, Refused> {
    let places = Rc::new(Places::of(source));
    let mut parser = Parser::new(source, places, 0, source.len(), depth.min(DEPTH_MOST))?;
    let statements = parser.statements(&Token::End)?;
    Ok(Program { statements })
}

struct Parser<'a> {
    source: &'a str,
    places: Rc<Places>,
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
    /// Values that stand in it, so far, and what is around them.
    values: usize,
}

impl<'a> Parser<'a> {
    fn new(
        source: &'a str,
        places: Rc<Places>,
        from: usize,
        to: usize,
        depth: usize,
    ) -> Result<Self, Refused> {
        let mut parser = Self {
            source,
            places,
            lexer: Lexer::new(source, from, to),
            token: Token::End,
            at: from,
            brackets: 0,
            depth,
            most: depth,
            no_map: false,
            loops: 0,
            values: 0,
        };
        parser.advance()?;
        Ok(parser)
    }

    fn advance(&mut self) -> Result<Token<'a>, Refused> {
        let (token, at) = self.lexer.next()?;
        self.at = at;
        let before = std::mem::replace(&mut self.token, token);
        self.settle()?;
        Ok(before)
    }

    /// Within brackets ends of lines mean nothing.
    fn settle(&mut self) -> Result<(), Refused> {
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
    fn open(&mut self) -> Result<(), Refused> {
        self.brackets += 1;
        self.advance().map(|_| ())
    }

    fn close(&mut self, symbol: &'static str) -> Result<(), Refused> {
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

    fn take(&mut self, symbol: &str) -> Result<bool, Refused> {
        let there = self.is(symbol);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn take_word(&mut self, word: &str) -> Result<bool, Refused> {
        let there = self.is_word(word);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn place(&self) -> Place {
        self.places.at(self.source, self.at)
    }

    fn fail(&self, at: usize, message: impl Into<String>) -> Refused {
        Box::new(fail(self.source, at, message.into()))
    }

    fn unexpected(&self, expected: &str) -> Refused {
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

    fn foreign(&self, word: &str) -> Refused {
        self.fail(
            self.at,
            format!("`{word}` does not land here: scripts are calls, values and assignments"),
        )
    }

    fn statements(&mut self, end: &Token<'static>) -> Result<Vec<Statement>, Refused> {
        let mut statements = Vec::new();
        loop {
            while self.token == Token::Line {
                self.advance()?;
            }
            if self.token == *end {
                return Ok(statements);
            }
            // it takes the memory of two
            self.count(2)?;
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
    fn statement(&mut self, out: &mut Vec<Statement>) -> Result<bool, Refused> {
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
    ) -> Result<(), Refused> {
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
    fn target(&self, expression: Expression, at: usize) -> Result<Target, Refused> {
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
    fn condition(&mut self) -> Result<Statement, Refused> {
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
    fn each(&mut self) -> Result<Statement, Refused> {
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

    fn before_block(&mut self) -> Result<Expression, Refused> {
        let outer = std::mem::replace(&mut self.no_map, true);
        let expression = self.expression();
        self.no_map = outer;
        expression
    }

    fn block(&mut self) -> Result<Vec<Statement>, Refused> {
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

    fn deeper(&mut self) -> Result<(), Refused> {
        match self.depth.checked_sub(1) {
            Some(left) => {
                self.depth = left;
                Ok(())
            }
            None => Err(self.too_deep()),
        }
    }

    fn too_deep(&self) -> Refused {
        let hint = match self.most {
            DEPTH_MOST => "nest less",
            _ => "nest less, or raise `Bounds::expression_depth` at the host",
        };
        let failure = Failure::limit("expression_depth", self.most, hint);
        Box::new(failure.in_script(self.place()))
    }

    /// One expression, or several as a list: `1, 2`.
    fn values(&mut self) -> Result<Expression, Refused> {
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
        self.node(Kind::List(items), place)
    }

    fn expression(&mut self) -> Result<Expression, Refused> {
        self.deeper()?;
        let place = self.place();
        let then = self.operations()?;
        let expression = match self.is_word("if") {
            true => self.ternary(then, place)?,
            false => then,
        };
        self.depth += 1;
        Ok(expression)
    }

    /// `then if condition else otherwise`.
    fn ternary(&mut self, then: Expression, place: Place) -> Result<Expression, Refused> {
        self.advance()?;
        let condition = Box::new(self.operations()?);
        if !self.take_word("else")? {
            return Err(self.unexpected("`else`"));
        }
        let otherwise = Box::new(self.expression()?);
        let then = Box::new(then);
        let kind = Kind::If {
            condition,
            then,
            otherwise,
        };
        self.node(kind, place)
    }

    /// Operands with operators between and before them. What is open is kept in a list, not on the
    /// stack, whatever its precedence.
    fn operations(&mut self) -> Result<Expression, Refused> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            self.prefixes(&mut open)?;
            let operand = self.trailed()?;
            let next = self.infix();
            if let Some(whole) = self.settle_operators(&mut open, operand, next)? {
                return Ok(whole);
            }
        }
    }

    /// Puts an operand where it belongs, by the operator behind it; the whole where there is none.
    fn settle_operators(
        &mut self,
        open: &mut Vec<Open>,
        mut operand: Expression,
        next: Option<(u8, Option<Operator>)>,
    ) -> Result<Option<Expression>, Refused> {
        while let Some(top) = open.pop() {
            if next.is_some_and(|(level, _)| top.takes(level)) {
                open.push(top);
                break;
            }
            operand = self.finish(top, operand)?;
        }
        let Some((level, operator)) = next else {
            return Ok(Some(operand));
        };
        self.advance()?;
        if operator == Some(Operator::NotIn) && !self.take_word("in")? {
            return Err(self.unexpected("`in`"));
        }
        match open.last_mut() {
            Some(top) if top.level == level && level < POWER => top.operands.push(operand),
            _ => {
                self.deeper()?;
                open.push(Open {
                    level,
                    place: operand.place,
                    prefix: None,
                    operands: vec![operand],
                    operators: Vec::new(),
                });
            }
        }
        if let Some(top) = open.last_mut() {
            top.operators.extend(operator);
        }
        Ok(None)
    }

    /// Operators before an operand.
    fn prefixes(&mut self, open: &mut Vec<Open>) -> Result<(), Refused> {
        while let Some(prefix) = self.prefix(open.last()) {
            self.advance()?;
            self.deeper()?;
            open.push(prefix);
        }
        Ok(())
    }

    /// The operator that stands before an operand.
    fn prefix(&self, within: Option<&Open>) -> Option<Open> {
        let (level, prefix): (u8, fn(Box<Expression>) -> Kind) = match self.token {
            // `not` binds less than a comparison, and cannot be an operand of one
            Token::Name("not") if within.is_none_or(|top| top.level <= NOT) => (NOT, Kind::Not),
            Token::Symbol("-") => (SIGN, Kind::Minus),
            Token::Symbol("+") => (SIGN, Kind::Plus),
            Token::Symbol("!") => (SIGN, Kind::Not),
            _ => return None,
        };
        Some(Open {
            level,
            place: self.place(),
            prefix: Some(prefix),
            operands: Vec::new(),
            operators: Vec::new(),
        })
    }

    /// The operator behind an operand, with its level.
    fn infix(&self) -> Option<(u8, Option<Operator>)> {
        let operator = match self.token {
            Token::Name("or") | Token::Symbol("||") => return Some((OR, None)),
            Token::Name("and") | Token::Symbol("&&") => return Some((AND, None)),
            Token::Symbol("==") => Operator::Equal,
            Token::Symbol("!=") => Operator::NotEqual,
            Token::Symbol("<") => Operator::Less,
            Token::Symbol("<=") => Operator::LessEqual,
            Token::Symbol(">") => Operator::Greater,
            Token::Symbol(">=") => Operator::GreaterEqual,
            Token::Name("in") => Operator::In,
            Token::Name("not") => Operator::NotIn,
            Token::Symbol("+") => Operator::Add,
            Token::Symbol("-") => Operator::Subtract,
            Token::Symbol("*") => Operator::Multiply,
            Token::Symbol("/") => Operator::Divide,
            Token::Symbol("//") => Operator::FloorDivide,
            Token::Symbol("%") => Operator::Remainder,
            Token::Symbol("**") => Operator::Power,
            _ => return None,
        };
        let level = match operator {
            Operator::Add | Operator::Subtract => SUM,
            Operator::Multiply | Operator::Divide | Operator::FloorDivide | Operator::Remainder => {
                PRODUCT
            }
            Operator::Power => POWER,
            _ => COMPARISON,
        };
        Some((level, Some(operator)))
    }

    /// What is complete with its last operand.
    fn finish(&mut self, open: Open, last: Expression) -> Result<Expression, Refused> {
        self.depth += 1;
        let Open {
            level,
            place,
            prefix,
            mut operands,
            operators,
        } = open;
        let kind = match prefix {
            Some(prefix) => prefix(Box::new(last)),
            None => {
                operands.push(last);
                match level {
                    OR => Kind::Or(operands),
                    AND => Kind::And(operands),
                    level => {
                        let mut operands = operands.into_iter();
                        let Some(first) = operands.next() else {
                            unreachable!("the last one was put in");
                        };
                        let rest = operators.into_iter().zip(operands).collect();
                        match level {
                            COMPARISON => Kind::Compare(Box::new(first), rest),
                            _ => Kind::Chain(Box::new(first), rest),
                        }
                    }
                }
            }
        };
        self.node(kind, place)
    }

    /// Counts what takes memory of its own.
    fn count(&mut self, values: usize) -> Result<(), Refused> {
        self.values += values;
        match self.values > VALUES_MOST {
            true => Err(Box::new(too_many_values(self.place()))),
            false => Ok(()),
        }
    }

    /// A part of the tree, which must not be higher than the limit either: what lies behind an
    /// operand raises the tree without nesting in the text.
    fn node(&mut self, kind: Kind, place: Place) -> Result<Expression, Refused> {
        // a number counts with its sign, a call with its name
        let counted = match &kind {
            Kind::Minus(of) => matches!(of.kind, Kind::Int(_) | Kind::Float(_)),
            Kind::Call { .. } => true,
            _ => false,
        };
        if !counted {
            self.count(1)?;
        }
        let height = 1 + kind.height();
        if height > self.most {
            return Err(self.too_deep());
        }
        Ok(Expression {
            kind,
            place,
            height,
        })
    }

    /// What has calls, elements and fields behind it.
    fn trailed(&mut self) -> Result<Expression, Refused> {
        let place = self.place();
        let mut expression = self.atom()?;
        while matches!(self.token, Token::Symbol("(" | "[" | ".")) {
            expression = self.behind(expression, place)?;
        }
        Ok(expression)
    }

    /// A value with the call, element or field behind it.
    fn behind(&mut self, expression: Expression, place: Place) -> Result<Expression, Refused> {
        let kind = match self.token {
            Token::Symbol("(") => {
                let callable = matches!(expression.kind, Kind::Name(_) | Kind::Field(..));
                if !callable {
                    return Err(self.fail(self.at, "only what has a name can be called"));
                }
                self.call(expression)?
            }
            Token::Symbol("[") => self.element(expression)?,
            _ => {
                self.advance()?;
                let Token::Name(name) = self.token else {
                    return Err(self.unexpected("a name"));
                };
                self.advance()?;
                Kind::Field(Box::new(expression), name.to_owned())
            }
        };
        self.node(kind, place)
    }

    fn call(&mut self, callee: Expression) -> Result<Kind, Refused> {
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

    fn element(&mut self, of: Expression) -> Result<Kind, Refused> {
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

    fn atom(&mut self) -> Result<Expression, Refused> {
        let place = self.place();
        let kind = match self.token {
            Token::Int(_)
            | Token::Float(_)
            | Token::Text(_)
            | Token::Bytes(_)
            | Token::Format(_) => return self.literal(),
            Token::Name(name) => self.named(name)?,
            Token::Symbol("(") => return self.parenthesised(place),
            Token::Symbol("[") => {
                self.open()?;
                Kind::List(self.items("]")?.0)
            }
            Token::Symbol("{") if !self.no_map || self.brackets > 0 => self.map()?,
            _ => return Err(self.unexpected("a value")),
        };
        self.node(kind, place)
    }

    fn named(&mut self, name: &str) -> Result<Kind, Refused> {
        let kind = match name {
            "None" | "nil" | "null" => Kind::Nil,
            "True" | "true" => Kind::Bool(true),
            "False" | "false" => Kind::Bool(false),
            "NaN" | "nan" => Kind::Float(f64::NAN),
            name if is_name(name) => Kind::Name(name.to_owned()),
            _ => return Err(self.unexpected("a value")),
        };
        self.advance()?;
        Ok(kind)
    }

    /// Values up to the bracket that closes them, and whether the last has a comma behind it.
    fn items(&mut self, end: &'static str) -> Result<(Vec<Expression>, bool), Refused> {
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.is(end) {
            items.push(self.expression()?);
            comma = self.take(",")?;
            if !comma {
                break;
            }
        }
        self.close(end)?;
        Ok((items, comma))
    }

    /// A value in parentheses, or a tuple.
    fn parenthesised(&mut self, place: Place) -> Result<Expression, Refused> {
        self.open()?;
        let (mut items, comma) = self.items(")")?;
        match items.pop() {
            Some(only) if items.is_empty() && !comma => Ok(only),
            last => {
                items.extend(last);
                self.node(Kind::List(items), place)
            }
        }
    }

    fn map(&mut self) -> Result<Kind, Refused> {
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
        Ok(Kind::Map(entries))
    }

    /// The parts of a string with values in it.
    fn format(&mut self, found: Vec<(String, Option<(usize, usize)>)>) -> Result<Kind, Refused> {
        let mut parts = Vec::new();
        for (text, range) in found {
            if !text.is_empty() {
                self.count(1)?;
                parts.push(Part::Text(text));
            }
            if let Some((from, to)) = range {
                let mut inner =
                    Parser::new(self.source, Rc::clone(&self.places), from, to, self.depth)?;
                inner.brackets = 1;
                inner.most = self.most;
                inner.values = self.values;
                let value = inner.expression()?;
                self.values = inner.values;
                if inner.token != Token::End {
                    return Err(
                        inner.fail(inner.at, "only a plain value can stand in `{}` of a string")
                    );
                }
                parts.push(Part::Value(value));
            }
        }
        Ok(Kind::Format(parts))
    }

    /// A literal; strings that stand side by side are one.
    fn literal(&mut self) -> Result<Expression, Refused> {
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
            Token::Format(found) => self.format(found)?,
            other => {
                return Err(self.fail(at, format!("expected a value, found {}", other.shown())));
            }
        };
        self.node(kind, place)
    }
}

/// Operators that wait for their last operand.
struct Open {
    level: u8,
    place: Place,
    /// What is made of the operand, where the operator stands before it.
    prefix: Option<fn(Box<Expression>) -> Kind>,
    operands: Vec<Expression>,
    operators: Vec<Operator>,
}

impl Open {
    /// Whether it goes on where an operator of some level stands behind its operand.
    fn takes(&self, level: u8) -> bool {
        match self.prefix {
            // what binds more takes the operand, and `2 ** 3 ** 2` begins at its end
            Some(_) => level > self.level,
            None => level >= self.level,
        }
    }
}

/// Levels of operators, by how much they bind.
const OR: u8 = 0;
const AND: u8 = 1;
const NOT: u8 = 2;
const COMPARISON: u8 = 3;
const SUM: u8 = 4;
const PRODUCT: u8 = 5;
const SIGN: u8 = 6;
const POWER: u8 = 7;

/// Whether a word can be a name.
fn is_name(word: &str) -> bool {
    !WORDS.contains(&word)
        && !FOREIGN.contains(&word)
        && !matches!(
            word,
            "None" | "nil" | "null" | "True" | "true" | "False" | "false" | "NaN" | "nan"
        )
}
