//! What operators do, as Python has it.

use std::{cmp::Ordering, collections::HashMap};

use crate::{
    Failure, Kind,
    script::python::Operator,
    value::{Content, Packed, Value, content, literal},
};

pub(super) fn fail(message: impl Into<String>) -> Failure {
    Failure::new(Kind::Script, message)
}

/// What a value is, for errors.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "None",
        Value::Bool(_) => "a bool",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Text(_) => "a string",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
        Value::Map(_) => "a dict",
        Value::Packed(_) => "a stream or object",
    }
}

/// Whether a condition holds of a value.
pub(super) fn holds(value: &Value) -> bool {
    match value {
        Value::Nil => false,
        Value::Bool(b) => *b,
        Value::Int(n) => *n != 0,
        Value::Float(x) => *x != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::Bytes(bytes) => !bytes.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
        Value::Packed(_) => true,
    }
}

/// A value as text: a string as it stands, anything else as it is written.
pub(super) fn shown(value: &Value, out: &mut String) {
    match value {
        Value::Text(text) => out.push_str(text),
        other => written(other, out),
    }
}

fn written(value: &Value, out: &mut String) {
    let plain = |out: &mut String, value: &dyn std::fmt::Display| out.push_str(&value.to_string());
    match value {
        Value::Nil => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(n) => plain(out, n),
        Value::Float(x) if x.is_nan() => out.push_str("nan"),
        Value::Float(x) => out.push_str(&format!("{x:?}")),
        Value::Text(text) => match literal(text, Default::default()) {
            Ok(text) => out.push_str(&text),
            Err(_) => out.push_str(&format!("{text:?}")),
        },
        Value::Bytes(bytes) => out.push_str(&format!("b\"{}\"", bytes.escape_ascii())),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                written(item, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                written(key, out);
                out.push_str(": ");
                written(value, out);
            }
            out.push('}');
        }
        Value::Packed(_) => out.push_str("<a stream or object>"),
    }
}

/// How often something is there that is multiplied.
pub(super) fn times(n: i128) -> usize {
    usize::try_from(n).unwrap_or(if n < 0 { 0 } else { usize::MAX })
}

/// How many bytes or elements the result of an operator will have at most: looked at first.
pub(super) fn size_of_result(operator: Operator, left: &Value, right: &Value) -> usize {
    match (operator, left, right) {
        (Operator::Add, Value::Text(a), Value::Text(b)) => a.len().saturating_add(b.len()),
        (Operator::Add, Value::List(a), Value::List(b)) => a.len().saturating_add(b.len()),
        (Operator::Multiply, Value::Text(a), Value::Int(n))
        | (Operator::Multiply, Value::Int(n), Value::Text(a)) => a.len().saturating_mul(times(*n)),
        (Operator::Multiply, Value::List(a), Value::Int(n))
        | (Operator::Multiply, Value::Int(n), Value::List(a)) => a.len().saturating_mul(times(*n)),
        _ => 0,
    }
}

/// How many bytes a value takes, with all that is in it.
pub(super) fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Packed(packed) => packed.bytes().len(),
            Value::List(items) => items.iter().map(weight).sum(),
            Value::Map(entries) => {
                let entries = entries.iter();
                entries
                    .map(|(key, value)| weight(key) + weight(value))
                    .sum()
            }
            _ => 0,
        }
}

/// How many bytes a packed value takes once it is taken apart.
pub(super) fn taken_apart(packed: &Packed) -> usize {
    let Content {
        text,
        binary,
        elements,
        entries,
        ..
    } = content(packed.bytes());
    text + binary + size_of::<Value>() * (1 + elements + 2 * entries)
}

/// How many operations an operator takes that compares: dicts are compared each entry with each.
pub(super) fn effort(operator: Operator, left: &Value, right: &Value) -> u64 {
    use Operator as O;
    let plain = |value: &Value| !matches!(value, Value::List(_) | Value::Map(_) | Value::Packed(_));
    let compares = matches!(operator, O::Equal | O::NotEqual | O::In | O::NotIn);
    if !compares || (plain(left) && plain(right)) {
        return 0;
    }
    let size = |value: &Value| (weight(value) / size_of::<Value>()) as u64;
    match (plain(left), plain(right)) {
        (true, _) => size(right) / 16,
        (_, true) => size(left) / 16,
        _ => size(left).saturating_mul(size(right)) / 256,
    }
}

/// What an operator makes of two values that are taken apart.
pub(super) fn operate(operator: Operator, left: Value, right: Value) -> Result<Value, Failure> {
    use Operator as O;
    match operator {
        O::Equal => return Ok(Value::Bool(equal(&left, &right))),
        O::NotEqual => return Ok(Value::Bool(!equal(&left, &right))),
        O::Less | O::LessEqual | O::Greater | O::GreaterEqual => {
            return compare(operator, &left, &right).map(Value::Bool);
        }
        O::In => return contains(&right, &left).map(Value::Bool),
        O::NotIn => return contains(&right, &left).map(|b| Value::Bool(!b)),
        _ => {}
    }
    match (operator, left, right) {
        (O::Add, Value::Text(mut a), Value::Text(b)) => {
            a.push_str(&b);
            Ok(Value::Text(a))
        }
        (O::Add, Value::List(mut a), Value::List(b)) => {
            a.extend(b);
            Ok(Value::List(a))
        }
        (O::Multiply, Value::Text(a), Value::Int(n))
        | (O::Multiply, Value::Int(n), Value::Text(a)) => {
            // nothing stays nothing, however often
            let n = if a.is_empty() { 0 } else { times(n) };
            Ok(Value::Text(a.repeat(n)))
        }
        (O::Multiply, Value::List(mut a), Value::Int(n))
        | (O::Multiply, Value::Int(n), Value::List(mut a)) => {
            let mut items = Vec::new();
            let n = if a.is_empty() { 0 } else { times(n) };
            for _ in 0..n {
                for item in &mut a {
                    items.push(copy(item)?);
                }
            }
            Ok(Value::List(items))
        }
        (operator, left, right) => match (number(&left), number(&right)) {
            (Some(Number::Int(a)), Some(Number::Int(b))) => integers(operator, a, b),
            (Some(a), Some(b)) => floats(operator, a.float(), b.float()),
            _ => Err(unfit(operator, &left, &right)),
        },
    }
}

fn unfit(operator: Operator, left: &Value, right: &Value) -> Failure {
    fail(format!(
        "`{}` does not fit {} and {}",
        operator.sign(),
        kind_of(left),
        kind_of(right)
    ))
}

#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn float(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Float(x) => x,
        }
    }

    /// How two numbers compare, exactly; not at all where one is no number.
    fn order(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
            (Number::Int(a), Number::Float(b)) => order(a, b),
            (Number::Float(a), Number::Int(b)) => order(b, a).map(Ordering::reverse),
        }
    }
}

/// How an integer and a float compare.
fn order(a: i128, b: f64) -> Option<Ordering> {
    match (a as f64).partial_cmp(&b)? {
        // the integer may have been rounded to it
        Ordering::Equal => Some(a.cmp(&(b as i128))),
        other => Some(other),
    }
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Int(n) => Some(Number::Int(*n)),
        Value::Bool(b) => Some(Number::Int((*b).into())),
        Value::Float(x) => Some(Number::Float(*x)),
        _ => None,
    }
}

fn integers(operator: Operator, a: i128, b: i128) -> Result<Value, Failure> {
    use Operator as O;
    let result = match operator {
        O::Add => a.checked_add(b),
        O::Subtract => a.checked_sub(b),
        O::Multiply => a.checked_mul(b),
        O::Divide | O::FloorDivide | O::Remainder if b == 0 => {
            return Err(fail("division by zero"));
        }
        O::Divide => return Ok(Value::Float(a as f64 / b as f64)),
        O::FloorDivide => a.checked_div_euclid(b).map(|q| {
            // Euclid rounds up where the divisor is negative
            if b < 0 && a.rem_euclid(b) != 0 {
                q - 1
            } else {
                q
            }
        }),
        O::Remainder => a
            .checked_rem_euclid(b)
            .map(|r| if b < 0 && r != 0 { r + b } else { r }),
        O::Power => match u32::try_from(b) {
            Ok(b) => a.checked_pow(b),
            Err(_) if b < 0 => return floats(operator, a as f64, b as f64),
            Err(_) => match a {
                0 | 1 => Some(a),
                -1 => Some(if b % 2 == 0 { 1 } else { -1 }),
                _ => None,
            },
        },
        _ => unreachable!("comparisons were taken before"),
    };
    result
        .map(Value::Int)
        .ok_or_else(|| fail("the result is an integer of more than 127 bits"))
}

fn floats(operator: Operator, a: f64, b: f64) -> Result<Value, Failure> {
    use Operator as O;
    Ok(Value::Float(match operator {
        O::Add => a + b,
        O::Subtract => a - b,
        O::Multiply => a * b,
        O::Divide | O::FloorDivide | O::Remainder if b == 0.0 => {
            return Err(fail("division by zero"));
        }
        O::Divide => a / b,
        O::FloorDivide => divide(a, b).0,
        O::Remainder => divide(a, b).1,
        O::Power if a == 0.0 && b < 0.0 => return Err(fail("division by zero")),
        O::Power => {
            let power = a.powf(b);
            if power.is_nan() && !a.is_nan() && !b.is_nan() {
                return Err(fail(
                    "a negative number to the power of a fraction is complex, and no value here",
                ));
            }
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err(fail("the result is too large for a float"));
            }
            power
        }
        _ => unreachable!("comparisons were taken before"),
    }))
}

/// The quotient rounded down, and the rest, whose sign is the divisor's: what is lost where floats are
/// rounded is lost as in Python.
fn divide(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0f64.copysign(b);
    } else if (rest < 0.0) != (b < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    let down = quotient.floor();
    let quotient = if quotient == 0.0 {
        0f64.copysign(a / b)
    } else if quotient - down > 0.5 {
        // a whole number but for what was rounded
        down + 1.0
    } else {
        down
    };
    (quotient, rest)
}

/// Whether two values are the same: of numbers what they count, whatever their types.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let there = |(key, value): &(Value, Value)| {
                let mut all = b.iter();
                all.any(|(other, of)| equal(key, other) && equal(value, of))
            };
            a.len() == b.len() && a.iter().all(there)
        }
        _ => match (number(left), number(right)) {
            (Some(a), Some(b)) => a.order(b) == Some(Ordering::Equal),
            _ => left == right,
        },
    }
}

fn compare(operator: Operator, left: &Value, right: &Value) -> Result<bool, Failure> {
    let ordering = match (left, right) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => match (number(left), number(right)) {
            // one that is no number at all compares as false
            (Some(a), Some(b)) => a.order(b),
            _ => return Err(unfit(operator, left, right)),
        },
    };
    Ok(ordering.is_some_and(|is| match operator {
        Operator::Less => is.is_lt(),
        Operator::LessEqual => is.is_le(),
        Operator::Greater => is.is_gt(),
        _ => is.is_ge(),
    }))
}

fn contains(all: &Value, one: &Value) -> Result<bool, Failure> {
    match (all, one) {
        (Value::List(items), one) => Ok(items.iter().any(|item| equal(item, one))),
        (Value::Map(entries), one) => Ok(entries.iter().any(|(key, _)| equal(key, one))),
        (Value::Text(all), Value::Text(one)) => Ok(all.contains(&**one)),
        (all, one) => Err(unfit(Operator::In, one, all)),
    }
}

/// A key of a dict as it is looked up: those that are equal are one, whatever their types.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Nil,
    Int(i128),
    Float(u64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

fn key(value: &Value) -> Result<Key<'_>, Failure> {
    Ok(match value {
        Value::Nil => Key::Nil,
        Value::Text(text) => Key::Text(text),
        Value::Bytes(bytes) => Key::Bytes(bytes),
        other => match number(other) {
            Some(Number::Int(n)) => Key::Int(n),
            Some(Number::Float(x)) if x as i128 as f64 == x => Key::Int(x as i128),
            Some(Number::Float(x)) => Key::Float(x.to_bits()),
            None => return Err(fail(format!("{} cannot be a key", kind_of(other)))),
        },
    })
}

/// The entries of a dict: of equal keys there is the first, with the value of the last.
pub(super) fn entries(all: Vec<(Value, Value)>) -> Result<Vec<(Value, Value)>, Failure> {
    let mut known = HashMap::with_capacity(all.len());
    let mut places = Vec::with_capacity(all.len());
    for (one, _) in &all {
        let next = known.len();
        places.push(*known.entry(key(one)?).or_insert(next));
    }
    let mut entries: Vec<(Value, Value)> = Vec::with_capacity(known.len());
    for ((key, value), place) in all.into_iter().zip(places) {
        match entries.get_mut(place) {
            Some(entry) => entry.1 = value,
            None => entries.push((key, value)),
        }
    }
    Ok(entries)
}

/// A copy of a value. Objects in it are shared; a stream goes with the first copy that is used.
pub(super) fn copy(value: &mut Value) -> Result<Value, Failure> {
    Ok(match value {
        Value::Nil => Value::Nil,
        Value::Bool(b) => Value::Bool(*b),
        Value::Int(n) => Value::Int(*n),
        Value::Float(x) => Value::Float(*x),
        Value::Text(text) => Value::Text(text.clone()),
        Value::Bytes(bytes) => Value::Bytes(bytes.clone()),
        Value::List(items) => {
            let mut copied = Vec::with_capacity(items.len());
            for item in items {
                copied.push(copy(item)?);
            }
            Value::List(copied)
        }
        Value::Map(entries) => {
            let mut copied = Vec::with_capacity(entries.len());
            for (key, value) in entries.iter_mut() {
                copied.push((copy(key)?, copy(value)?));
            }
            Value::Map(copied)
        }
        Value::Packed(packed) => Value::Packed(packed.take()?),
    })
}

/// The place of an element, counted from the end where it is negative.
fn place(index: &Value, len: usize) -> Result<usize, Failure> {
    let Some(Number::Int(index)) = number(index) else {
        return Err(fail(format!(
            "an element's place is an integer, found {}",
            kind_of(index)
        )));
    };
    let from_start = if index < 0 {
        index + len as i128
    } else {
        index
    };
    usize::try_from(from_start)
        .ok()
        .filter(|place| *place < len)
        .ok_or_else(|| fail(format!("no element {index} among {len}")))
}

/// `of[key]`.
pub(super) fn element(of: Value, key: &Value) -> Result<Value, Failure> {
    match of {
        Value::List(mut items) => {
            let place = place(key, items.len())?;
            Ok(items.swap_remove(place))
        }
        Value::Map(entries) => {
            let found = entries.into_iter().find(|(other, _)| equal(other, key));
            found.map(|(_, value)| value).ok_or_else(|| {
                let mut shown = String::new();
                written(key, &mut shown);
                fail(format!("no key {shown} in the dict"))
            })
        }
        Value::Text(text) => {
            let chars: Vec<char> = text.chars().collect();
            Ok(Value::Text(chars[place(key, chars.len())?].to_string()))
        }
        other => Err(fail(format!("{} has no elements", kind_of(&other)))),
    }
}

/// The place of an element that is to be changed.
pub(super) fn element_mut(of: &mut Value, by: Value, last: bool) -> Result<&mut Value, Failure> {
    match of {
        Value::List(items) => {
            let place = place(&by, items.len())?;
            Ok(&mut items[place])
        }
        Value::Map(entries) => {
            key(&by)?;
            let place = match entries.iter().position(|(other, _)| equal(other, &by)) {
                Some(place) => place,
                None if last => {
                    entries.push((by, Value::Nil));
                    entries.len() - 1
                }
                None => return Err(fail("no such key in the dict")),
            };
            Ok(&mut entries[place].1)
        }
        other => Err(fail(format!(
            "{} has no elements that can be set",
            kind_of(other)
        ))),
    }
}

/// `of[from:to]`.
pub(super) fn slice(of: Value, from: Option<Value>, to: Option<Value>) -> Result<Value, Failure> {
    let bounds = |len: usize| -> Result<std::ops::Range<usize>, Failure> {
        let bound = |value: &Option<Value>, absent: usize| match value {
            None | Some(Value::Nil) => Ok(absent),
            Some(value) => match number(value) {
                Some(Number::Int(n)) => {
                    let n = if n < 0 { n + len as i128 } else { n };
                    Ok(n.clamp(0, len as i128) as usize)
                }
                _ => Err(fail("the bounds of a slice are integers")),
            },
        };
        let (from, to) = (bound(&from, 0)?, bound(&to, len)?);
        Ok(from..to.max(from))
    };
    match of {
        Value::List(mut items) => {
            let range = bounds(items.len())?;
            items.truncate(range.end);
            items.drain(..range.start);
            Ok(Value::List(items))
        }
        Value::Text(text) => {
            let chars: Vec<char> = text.chars().collect();
            Ok(Value::Text(chars[bounds(chars.len())?].iter().collect()))
        }
        Value::Bytes(bytes) => Ok(Value::Bytes(bytes[bounds(bytes.len())?].to_vec())),
        other => Err(fail(format!("{} cannot be cut", kind_of(&other)))),
    }
}

/// `-value` and `+value`.
pub(super) fn sign(value: Value, minus: bool) -> Result<Value, Failure> {
    match number(&value) {
        Some(Number::Int(n)) if minus => n
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| fail("the result is an integer of more than 127 bits")),
        Some(Number::Int(n)) => Ok(Value::Int(n)),
        Some(Number::Float(x)) => Ok(Value::Float(if minus { -x } else { x })),
        None => Err(fail(format!("{} has no sign", kind_of(&value)))),
    }
}
