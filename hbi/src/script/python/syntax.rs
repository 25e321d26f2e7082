//! The tree that a script is parsed into.

use super::parser;
use crate::{Failure, Place};

/// A parsed script.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Its statements, in order.
    pub statements: Vec<Statement>,
}

impl Program {
    /// Parses a script whose expressions are nested at most `depth` deep in each other.
    ///
    /// ```
    /// let program = hbi::script::python::Program::parse("my_name = 'Nick'\nhello()\t\n", 32).unwrap();
    /// assert_eq!(program.statements.len(), 2);
    /// let failure = hbi::script::python::Program::parse("f(1\nimport os", 32).unwrap_err();
    /// assert_eq!(failure.place, Some(hbi::Place { line: 2, column: 1 }));
    /// ```
    ///
    /// # Errors
    /// What cannot be read, with its place and the text that stands there.
    pub fn parse(source: &str, depth: usize) -> Result<Self, Failure> {
        parser::parse(source, depth).map_err(|failure| *failure)
    }
}

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// An expression, for its effect, or as the script's value where it stands last.
    Expression(Expression),
    /// `a = b = value`.
    Assign(Vec<Target>, Expression),
    /// `target += value`.
    Change(Target, Operator, Expression),
    /// `if c { } else if d { } else { }`: conditions with what they guard, and what else.
    If(Vec<(Expression, Vec<Statement>)>, Vec<Statement>),
    /// `for name in over { }`.
    For(String, Expression, Vec<Statement>),
    /// Leaves the innermost loop.
    Break,
    /// Goes on with the innermost loop's next element.
    Continue,
    /// Ends the script, whose value it is.
    Return(Option<Expression>),
}

/// What is assigned to.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A name.
    Name(String, Place),
    /// An element of a list or a map that has a name: the name, and the keys to go down by.
    Element(String, Vec<Expression>, Place),
    /// Several, each of which takes one element.
    List(Vec<Target>, Place),
}

/// An expression and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub place: Place,
    /// How many expressions lie in each other here, this one counted.
    pub height: usize,
}

impl Expression {
    /// The names of `a.b.c`; `None` for anything else.
    pub(crate) fn path(&self) -> Option<Vec<&str>> {
        match &self.kind {
            Kind::Name(name) => Some(vec![name]),
            Kind::Field(of, name) => {
                let mut path = of.path()?;
                path.push(name);
                Some(path)
            }
            _ => None,
        }
    }
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `None`, `nil`, `null`.
    Nil,
    /// `True`, `true`, `False`, `false`.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A string with expressions in it.
    Format(Vec<Part>),
    /// A name.
    Name(String),
    /// `of.name`.
    Field(Box<Expression>, String),
    /// A list or a tuple.
    List(Vec<Expression>),
    /// Keys and values.
    Map(Vec<(Expression, Expression)>),
    /// A call; with `spread` the elements of the last argument are arguments.
    Call {
        /// What is called: a name or a field.
        callee: Box<Expression>,
        /// With what.
        arguments: Vec<Expression>,
        /// Whether the last argument is a list of arguments.
        spread: bool,
    },
    /// `of[key]`.
    Element(Box<Expression>, Box<Expression>),
    /// `of[from:to]`.
    Slice(
        Box<Expression>,
        Option<Box<Expression>>,
        Option<Box<Expression>>,
    ),
    /// `-a`.
    Minus(Box<Expression>),
    /// `+a`.
    Plus(Box<Expression>),
    /// `not a`.
    Not(Box<Expression>),
    /// `a + b - c`, from left to right.
    Chain(Box<Expression>, Vec<(Operator, Expression)>),
    /// `a < b <= c`: true where each neighbouring pair is.
    Compare(Box<Expression>, Vec<(Operator, Expression)>),
    /// `a and b`: the first that is false, or the last.
    And(Vec<Expression>),
    /// `a or b`: the first that is true, or the last.
    Or(Vec<Expression>),
    /// `then if condition else otherwise`.
    If {
        /// What is looked at first.
        condition: Box<Expression>,
        /// The value where that is true.
        then: Box<Expression>,
        /// The value where it is not.
        otherwise: Box<Expression>,
    },
}

impl Kind {
    /// The height of the highest expression in it; 0 where there is none.
    pub(super) fn height(&self) -> usize {
        fn highest<'a>(all: impl IntoIterator<Item = &'a Expression>) -> usize {
            all.into_iter().map(|one| one.height).max().unwrap_or(0)
        }
        match self {
            Kind::Nil
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::Bytes(_)
            | Kind::Name(_) => 0,
            Kind::Format(parts) => highest(parts.iter().filter_map(|part| match part {
                Part::Text(_) => None,
                Part::Value(value) => Some(value),
            })),
            Kind::Field(of, _) | Kind::Minus(of) | Kind::Plus(of) | Kind::Not(of) => of.height,
            Kind::List(all) | Kind::And(all) | Kind::Or(all) => highest(all),
            Kind::Map(entries) => highest(entries.iter().flat_map(|(key, value)| [key, value])),
            Kind::Call {
                callee, arguments, ..
            } => callee.height.max(highest(arguments)),
            Kind::Element(of, key) => of.height.max(key.height),
            Kind::Slice(of, from, to) => {
                let bounds = [from, to].into_iter().flatten().map(|bound| &**bound);
                of.height.max(highest(bounds))
            }
            Kind::Chain(first, rest) | Kind::Compare(first, rest) => {
                let rest = rest.iter().map(|(_, operand)| operand);
                first.height.max(highest(rest))
            }
            Kind::If {
                condition,
                then,
                otherwise,
            } => condition.height.max(then.height).max(otherwise.height),
        }
    }
}

/// A part of a string with expressions in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text as it stands.
    Text(String),
    /// A value, shown.
    Value(Expression),
}

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

impl Operator {
    /// As it is written.
    pub fn sign(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::FloorDivide => "//",
            Operator::Remainder => "%",
            Operator::Power => "**",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterEqual => ">=",
            Operator::In => "in",
            Operator::NotIn => "not in",
        }
    }
}
