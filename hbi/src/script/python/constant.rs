//! Values that are written down: what a peer answers, in a text that lands nowhere.

use super::syntax::{Expression, Kind, Operator, Program, Statement};
use crate::{
    Failure, Kind as FailureKind, Place,
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
    value_of(&Program::parse(source, MAX_DEPTH)?, &|_| false)
}

/// The value that a text is; none where it calls what is `exposed`.
pub(crate) fn value_of(program: &Program, exposed: Exposed<'_>) -> Result<Packed, Failure> {
    let value = match &program.statements[..] {
        [] => Value::Nil,
        [Statement::Expression(expression)] => {
            read(expression, exposed).map_err(|failure| *failure)?
        }
        _ => {
            return Err(Failure::new(
                FailureKind::Script,
                "expected one value, found statements",
            ));
        }
    };
    Ok(value.pack()?)
}

/// Whether something of a name can be called.
type Exposed<'a> = &'a dyn Fn(&str) -> bool;

/// Boxed, since each frame of the descent has room for several.
type Refused = Box<Failure>;

fn read(expression: &Expression, exposed: Exposed<'_>) -> Result<Value, Refused> {
    let place = expression.place;
    Ok(match &expression.kind {
        Kind::Nil => Value::Nil,
        Kind::Bool(b) => Value::Bool(*b),
        Kind::Int(n) => Value::Int(*n),
        Kind::Float(x) => Value::Float(*x),
        Kind::Text(text) => Value::Text(text.clone()),
        Kind::Bytes(bytes) => Value::Bytes(bytes.clone()),
        Kind::List(items) => return list(items, exposed),
        Kind::Call {
            callee,
            arguments,
            spread: false,
        } => match callee.path() {
            Some(path) if !exposed(&path.join("::")) => return list(arguments, exposed),
            _ => return Err(no_value(place)),
        },
        Kind::Map(entries) => return map(entries, exposed),
        Kind::Plus(of) => return read(of, exposed),
        Kind::Minus(of) => return minus(of, place, exposed),
        Kind::Chain(first, rest) => return lowest(first, rest, place),
        _ => return Err(no_value(place)),
    })
}

fn list(items: &[Expression], exposed: Exposed<'_>) -> Result<Value, Refused> {
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        values.push(read(item, exposed)?);
    }
    Ok(Value::List(values))
}

fn map(entries: &[(Expression, Expression)], exposed: Exposed<'_>) -> Result<Value, Refused> {
    let mut map = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let key = read(key, exposed)?;
        map.push((key, read(value, exposed)?));
    }
    Ok(Value::Map(map))
}

fn minus(of: &Expression, place: Place, exposed: Exposed<'_>) -> Result<Value, Refused> {
    match read(of, exposed)? {
        Value::Int(n) => Ok(Value::Int(n.checked_neg().ok_or_else(|| no_value(place))?)),
        Value::Float(x) => Ok(Value::Float(-x)),
        _ => Err(no_value(place)),
    }
}

/// The lowest integer, as it is written for peers that take it for two.
fn lowest(
    first: &Expression,
    rest: &[(Operator, Expression)],
    place: Place,
) -> Result<Value, Refused> {
    match (&first.kind, rest) {
        (Kind::Minus(a), [(Operator::Subtract, b)]) => match (&a.kind, &b.kind) {
            (Kind::Int(a), Kind::Int(b)) => Ok(Value::Int((-a).saturating_sub(*b))),
            _ => Err(no_value(place)),
        },
        _ => Err(no_value(place)),
    }
}

fn no_value(place: Place) -> Refused {
    let text = "expected a value that is written down";
    Box::new(Failure::new(FailureKind::Script, text).in_script(place))
}
