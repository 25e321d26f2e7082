//! Values that are written down: what a peer answers, in a text that lands nowhere.

use super::syntax::{Expression, Kind, Operator, Program, Statement};
use crate::{
    Failure, Kind as FailureKind,
    value::{MAX_DEPTH, Packed, Value},
};

/// Reads a text that is one value, such as `[5000, 'last modified: ...']`. Calls of constructors are
/// lists of their arguments, which read as structs.
///
/// ```
/// use hbi::script::python::read_value;
/// let packed = read_value("Msg('Nick', 0x10, None)").unwrap();
/// let (from, n, nothing): (String, u8, Option<u8>) = packed.unpack().unwrap();
/// assert_eq!((&*from, n, nothing), ("Nick", 16, None));
/// ```
///
/// # Errors
/// When it is not a value, with the place.
pub fn read_value(source: &str) -> Result<Packed, Failure> {
    let mut program = Program::parse(source, MAX_DEPTH)?;
    let value = match (program.statements.pop(), program.statements.is_empty()) {
        (None, _) => Value::Nil,
        (Some(Statement::Expression(expression)), true) => read(expression)?,
        _ => {
            return Err(Failure::new(
                FailureKind::Script,
                "expected one value, found statements",
            ));
        }
    };
    Ok(value.pack()?)
}

fn read(expression: Expression) -> Result<Value, Failure> {
    let place = expression.place;
    let all = |items: Vec<Expression>| items.into_iter().map(read).collect::<Result<Vec<_>, _>>();
    Ok(match expression.kind {
        Kind::Nil => Value::Nil,
        Kind::Bool(b) => Value::Bool(b),
        Kind::Int(n) => Value::Int(n),
        Kind::Float(x) => Value::Float(x),
        Kind::Text(text) => Value::Text(text),
        Kind::Bytes(bytes) => Value::Bytes(bytes),
        Kind::List(items) => Value::List(all(items)?),
        Kind::Call {
            arguments,
            spread: false,
            ..
        } => Value::List(all(arguments)?),
        Kind::Map(entries) => {
            let mut map = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                map.push((read(key)?, read(value)?));
            }
            Value::Map(map)
        }
        Kind::Plus(of) => read(*of)?,
        Kind::Minus(of) => match read(*of)? {
            Value::Int(n) => Value::Int(-n),
            Value::Float(x) => Value::Float(-x),
            _ => return Err(no_value(place)),
        },
        // the lowest integer, as it is written for peers that take it for two
        Kind::Chain(first, rest) if matches!(rest[..], [(Operator::Subtract, _)]) => {
            let second = rest.into_iter().next().map(|(_, second)| read(second));
            match (read(*first)?, second.transpose()?) {
                (Value::Int(a), Some(Value::Int(b))) => Value::Int(a.saturating_sub(b)),
                _ => return Err(no_value(place)),
            }
        }
        _ => return Err(no_value(place)),
    })
}

fn no_value(place: crate::Place) -> Failure {
    Failure::new(FailureKind::Script, "expected a value that is written down").in_script(place)
}
