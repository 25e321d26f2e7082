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

/// Whether each call's value is used once, and in the order in which the calls run: then they can
/// stand in each other.
fn nests(straight: &Straight) -> bool {
    fn walk(operand: &Operand, straight: &Straight, next: &mut usize) -> bool {
        match operand {
            Operand::Step(index) => {
                let operands = &straight.steps[*index].operands;
                let inner = operands.iter().all(|operand| walk(operand, straight, next));
                *next += 1;
                inner && *next == *index + 1
            }
            Operand::Field(of, _) => walk(of, straight, next),
            Operand::List(items) => items.iter().all(|item| walk(item, straight, next)),
            Operand::Parameter(_) | Operand::Literal(_) | Operand::Name(_) => true,
        }
    }
    let mut next = 0;
    match &straight.value {
        Some(value) => walk(value, straight, &mut next) && next == straight.steps.len(),
        None => false,
    }
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
                out.push_str(&format!("v{} = ", index + 1));
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
            Operand::Step(index) => out.push_str(&format!("v{}", index + 1)),
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
                "v1 = f(1)\ng(v1, [\"x\\n\", v1[\"name\"]])",
            ),
            ("let v1 = f(a); let v2 = g(v1, b); v2", "g(f(1), \"x\\n\")"),
            (
                "let v1 = f(a); let v2 = g(b); h(v2, v1)",
                "v1 = f(1)\nv2 = g(\"x\\n\")\nh(v2, v1)",
            ),
            ("f(a); g(b);", "v1 = f(1)\ng(\"x\\n\")"),
            (
                "let v1 = f(a); let v2 = g(b); v1",
                "v1 = f(1)\nv2 = g(\"x\\n\")\nv1",
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
