//! The few functions that are there without being exposed, where the host exposes none of the name.

use super::operate::{fail, holds, kind_of, shown};
use crate::{Failure, env::Bounds, value::Value};

/// What a call of a builtin makes; `None` where there is none of the name.
pub(super) fn call(
    name: &str,
    arguments: &mut Vec<Value>,
    bounds: &Bounds,
    print: &dyn Fn(&str),
) -> Option<Result<Value, Failure>> {
    Some(match name {
        "print" => {
            let mut line = String::new();
            for (index, value) in arguments.iter().enumerate() {
                if index > 0 {
                    line.push(' ');
                }
                shown(value, &mut line);
                if line.len() > bounds.string {
                    return Some(Err(Failure::limit(
                        "string",
                        format_args!("{} bytes", bounds.string),
                        "print less, or raise `Bounds::string` at the host",
                    )));
                }
            }
            print(&line);
            Ok(Value::Nil)
        }
        "len" => one(name, arguments).and_then(|value| {
            let len = match &value {
                Value::Text(text) => text.chars().count(),
                Value::Bytes(bytes) => bytes.len(),
                Value::List(items) => items.len(),
                Value::Map(entries) => entries.len(),
                other => return Err(fail(format!("{} has no length", kind_of(other)))),
            };
            Ok(Value::Int(len as i128))
        }),
        "str" => one(name, arguments).map(|value| {
            let mut text = String::new();
            shown(&value, &mut text);
            Value::Text(text)
        }),
        "bool" => one(name, arguments).map(|value| Value::Bool(holds(&value))),
        "int" => one(name, arguments).and_then(|value| match value {
            Value::Int(n) => Ok(Value::Int(n)),
            Value::Bool(b) => Ok(Value::Int(b.into())),
            Value::Float(x) if x.is_finite() => Ok(Value::Int(x.trunc() as i128)),
            Value::Text(text) => match text.trim().parse() {
                Ok(n) => Ok(Value::Int(n)),
                Err(_) => Err(fail("the string is no integer")),
            },
            other => Err(fail(format!("{} is no integer", kind_of(&other)))),
        }),
        "float" => one(name, arguments).and_then(|value| match value {
            Value::Int(n) => Ok(Value::Float(n as f64)),
            Value::Float(x) => Ok(Value::Float(x)),
            Value::Text(text) => match text.trim().parse() {
                Ok(x) => Ok(Value::Float(x)),
                Err(_) => Err(fail("the string is no number")),
            },
            other => Err(fail(format!("{} is no number", kind_of(&other)))),
        }),
        "range" => range(arguments, bounds.array),
        // what Python peers call values that they write as JSON
        "JSONObj" | "JSONArray" | "JSONStr" => one(name, arguments),
        _ => return None,
    })
}

fn one(name: &str, arguments: &mut Vec<Value>) -> Result<Value, Failure> {
    match (arguments.pop(), arguments.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => Err(fail(format!("`{name}` takes one argument"))),
    }
}

fn range(arguments: &[Value], most: usize) -> Result<Value, Failure> {
    let (from, to) = match arguments {
        [Value::Int(to)] => (0, *to),
        [Value::Int(from), Value::Int(to)] => (*from, *to),
        _ => return Err(fail("`range` takes one or two integers")),
    };
    if to.saturating_sub(from) > most as i128 {
        return Err(Failure::limit(
            "array",
            format_args!("{most} elements"),
            "send less, or raise `Bounds::array` at the host",
        ));
    }
    Ok(Value::List((from..to).map(Value::Int).collect()))
}
