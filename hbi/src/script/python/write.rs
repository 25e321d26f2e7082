//! Scripts of this side as the existing peers read them: calls in each other, values as literals.

use crate::{
    Failure, Kind,
    script::{Callee, Operand, Straight, Text},
    value::{Dialect, Packed, array_parts, transcode},
};

/// Writes a script with its arguments, a MessagePack array, as literals.
///
/// A text without parameters goes as it stands. One with parameters has to be a straight line of
/// calls, as stubs and compositions make them.
///
/// # Errors
/// When it is anything else, or a value has no spelling.
pub(crate) fn write_script(
    text: &Text<'_>,
    arguments: &[u8],
    dialect: Dialect,
) -> Result<String, Failure> {
    let parameters = text.parameters();
    if let (Text::Free { source, .. }, true) = (text, parameters.is_empty()) {
        return Ok((*source).to_owned());
    }
    let (count, mut rest) = array_parts(arguments)
        .filter(|(count, _)| *count == parameters.len())
        .ok_or_else(|| Failure::new(Kind::Arguments, "as many values as parameters are needed"))?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let mut value = String::new();
        transcode(&mut rest, &mut value, dialect)?;
        values.push(value);
    }
    let Some(straight) = Straight::recognise(text.source(), &parameters) else {
        return Err(Failure::new(
            Kind::Misuse,
            "on the text wire values can be bound to calls only: write the script as the peer reads \
             it, its values in the text",
        ));
    };
    let writer = Writer {
        straight: &straight,
        values: &values,
        dialect,
        nested: nests(&straight),
    };
    writer.write()
}

/// Calls, lists and fields that stand in each other at most: half of what a host reads by default, so
/// that values have the rest.
const MOST_NESTED: usize = 16;

/// Whether each call's value is used once, and in the order in which the calls run: then they can
/// stand in each other, unless that is too deep.
fn nests(straight: &Straight) -> bool {
    fn walk(operand: &Operand, straight: &Straight, next: &mut usize, deeper: usize) -> bool {
        let Some(deeper) = deeper.checked_sub(1) else {
            return false;
        };
        let walk = |operand: &Operand, next: &mut usize| walk(operand, straight, next, deeper);
        match operand {
            Operand::Step(index) => {
                let operands = &straight.steps[*index].operands;
                let inner = operands.iter().all(|operand| walk(operand, next));
                *next += 1;
                inner && *next == *index + 1
            }
            Operand::Field(of, _) => walk(of, next),
            Operand::List(items) => items.iter().all(|item| walk(item, next)),
            Operand::Parameter(_) | Operand::Literal(_) | Operand::Name(_) => true,
        }
    }
    let mut next = 0;
    match &straight.value {
        Some(value) => {
            walk(value, straight, &mut next, MOST_NESTED) && next == straight.steps.len()
        }
        None => false,
    }
}

/// What a call's value is named where calls stand one after the other: a name that is no peer's own,
/// since hosts of other languages keep it, and that a host like this one keeps for the script alone.
fn local_name(index: usize) -> String {
    format!("_{}", index + 1)
}

/// Whether a name is of its script alone: an underscore and digits.
pub(crate) fn is_local(name: &str) -> bool {
    name.strip_prefix('_').is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

struct Writer<'a> {
    straight: &'a Straight,
    values: &'a [String],
    dialect: Dialect,
    nested: bool,
}

impl Writer<'_> {
    fn write(&self) -> Result<String, Failure> {
        let mut out = String::new();
        let last = self.straight.steps.len().wrapping_sub(1);
        if !self.nested {
            for index in 0..self.straight.steps.len() {
                // the last one is the value, or lands for its effect
                let is_value = matches!(self.straight.value, Some(Operand::Step(n)) if n == index);
                if index == last && (is_value || self.straight.value.is_none()) {
                    self.step(index, &mut out)?;
                    return Ok(out);
                }
                out.push_str(&format!("{} = ", local_name(index)));
                self.step(index, &mut out)?;
                out.push('\n');
            }
        }
        if let Some(value) = &self.straight.value {
            self.operand(value, &mut out)?;
        }
        Ok(out)
    }

    fn step(&self, index: usize, out: &mut String) -> Result<(), Failure> {
        let step = &self.straight.steps[index];
        let operands = match &step.callee {
            Callee::Path(path) => {
                out.push_str(&path.replace("::", "."));
                &step.operands[..]
            }
            Callee::Method(name) => {
                let Some((object, operands)) = step.operands.split_first() else {
                    return Err(Failure::new(Kind::Script, "a method of nothing"));
                };
                self.operand(object, out)?;
                out.push('.');
                out.push_str(name);
                operands
            }
        };
        out.push('(');
        self.list(operands, out)?;
        out.push(')');
        Ok(())
    }

    fn list(&self, operands: &[Operand], out: &mut String) -> Result<(), Failure> {
        for (index, operand) in operands.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            self.operand(operand, out)?;
        }
        Ok(())
    }

    fn operand(&self, operand: &Operand, out: &mut String) -> Result<(), Failure> {
        match operand {
            Operand::Parameter(index) => out.push_str(&self.values[*index]),
            Operand::Step(index) if self.nested => self.step(*index, out)?,
            Operand::Step(index) => out.push_str(&local_name(*index)),
            Operand::Literal(bytes) => {
                let packed = Packed::from_parts(bytes.clone().into(), Default::default());
                out.push_str(&packed.to_literal(self.dialect)?);
            }
            Operand::Name(name) => out.push_str(name),
            Operand::Field(of, name) => {
                self.operand(of, out)?;
                out.push_str(&format!("[\"{name}\"]"));
            }
            Operand::List(items) => {
                out.push('[');
                self.list(items, out)?;
                out.push(']');
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn write(
        source: &str,
        parameters: &[&'static str],
        arguments: Packed,
    ) -> Result<String, Failure> {
        let parameters: Vec<_> = parameters.iter().map(|&name| Cow::Borrowed(name)).collect();
        let text = Text::Free {
            source,
            parameters: &parameters,
            again: false,
        };
        write_script(&text, arguments.bytes(), Dialect::Python)
    }

    #[test]
    fn calls_stand_in_each_other_where_that_keeps_their_order() {
        let pack = |value: (i64, &str)| Packed::pack(&value).expect("packs");
        for (source, written) in [
            ("calc::add(a, b)", "calc.add(1, \"x\\n\")"),
            (
                "let v1 = f(a);\nlet v2 = g(v1, [b, v1.name]);\nv2",
                "_1 = f(1)\ng(_1, [\"x\\n\", _1[\"name\"]])",
            ),
            ("let v1 = f(a); let v2 = g(v1, b); v2", "g(f(1), \"x\\n\")"),
            (
                "let v1 = f(a); let v2 = g(b); h(v2, v1)",
                "_1 = f(1)\n_2 = g(\"x\\n\")\nh(_2, _1)",
            ),
            ("f(a); g(b);", "_1 = f(1)\ng(\"x\\n\")"),
            (
                "let v1 = f(a); let v2 = g(b); v1",
                "_1 = f(1)\n_2 = g(\"x\\n\")\n_1",
            ),
            (
                "room.say(a, b, -1.5, true)",
                "room.say(1, \"x\\n\", -1.5, True)",
            ),
        ] {
            let found = write(source, &["a", "b"], pack((1, "x\n")));
            assert_eq!(found.as_deref(), Ok(written), "{source}");
        }
    }

    #[test]
    fn calls_that_would_nest_deep_stand_one_after_the_other() {
        let chain = |calls: usize| {
            let mut source = "let v0 = f(a);\n".to_owned();
            for n in 1..calls {
                source.push_str(&format!("let v{n} = f(v{});\n", n - 1));
            }
            source.push_str(&format!("v{}", calls - 1));
            let arguments = Packed::pack(&(1,)).expect("packs");
            write(&source, &["a"], arguments).expect("it is a straight line")
        };
        assert_eq!(chain(3), "f(f(f(1)))");
        let long = chain(100);
        assert!(long.starts_with("_1 = f(1)\n_2 = f(_1)\n"), "{long}");
        assert!(long.ends_with("\nf(_99)"), "{long}");
        for calls in 1..40 {
            let read = super::super::Program::parse(&chain(calls), MOST_NESTED + 2);
            assert!(read.is_ok(), "{calls}: {read:?}");
        }
    }

    #[test]
    fn texts_of_the_application_go_as_they_stand() {
        let source = "my_name = 'Nick'\nhello()\t\n";
        let none = Packed::array([]);
        assert_eq!(write(source, &[], none).as_deref(), Ok(source));
        let bound = write("a + 1", &["a"], Packed::pack(&(1,)).expect("packs"));
        assert_eq!(bound.unwrap_err().kind, Kind::Misuse);
        let nul = write("f(a)", &["a"], Packed::pack(&("\0",)).expect("packs"));
        assert!(nul.unwrap_err().message.contains("NUL"));
    }
}
