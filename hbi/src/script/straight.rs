//! Straight lines: a script that is one call, or lets of calls one after the other. Composition
//! emits nothing else, and such a script needs no interpreter.
//!
//! ```text
//! script   = { [ "let" name "=" ] operand ";" } [ operand ]
//! operand  = ( literal | name | list | call ) { "." name | "." name "(" operands ")" }
//! call     = path "(" operands ")"
//! list     = "[" operands "]"
//! operands = [ operand { "," operand } [ "," ] ]
//! ```

use std::collections::{HashMap, HashSet};

use crate::{Place, value::Packed};

/// What a step calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callee {
    /// Something exposed: a path such as `calc::add`.
    Path(String),
    /// A method of the first operand, an object by reference.
    Method(String),
}

/// One value that a step uses.
#[derive(Debug, Clone)]
pub enum Operand {
    /// A parameter of the script.
    Parameter(usize),
    /// The answer of an earlier step.
    Step(usize),
    /// A value written in the script, as MessagePack.
    Literal(Vec<u8>),
    /// A name the script does not define: an exposed value.
    Name(String),
    /// A field of a value.
    Field(Box<Operand>, String),
    /// A list of values.
    List(Vec<Operand>),
}

/// One call.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is called.
    pub callee: Callee,
    /// With what; a method's object is the first.
    pub operands: Vec<Operand>,
    /// Where it stands.
    pub place: Place,
}

/// A script that is a straight line.
#[derive(Debug, Clone)]
pub struct Straight {
    /// Its calls, in order.
    pub steps: Vec<Step>,
    /// Its value; `None` for a script that ends in a statement.
    pub value: Option<Operand>,
}

impl Straight {
    /// Recognises a straight line; `None` for any other script, right or wrong.
    pub fn recognise(source: &str, parameters: &[impl AsRef<str>]) -> Option<Self> {
        let names = parameters.iter().enumerate();
        let names = names
            .map(|(i, name)| (name.as_ref(), Operand::Parameter(i)))
            .collect();
        let mut parser = Parser {
            source,
            at: 0,
            names,
            steps: Vec::new(),
            depth: 0,
            made: 0,
            unused: HashSet::new(),
        };
        let value = parser.script()?;
        if !parser.unused.is_empty() {
            return None;
        }
        Some(Self {
            steps: parser.steps,
            value,
        })
    }

    /// What it takes, in bytes, or somewhat more.
    pub(crate) fn size(&self) -> usize {
        let value = self.value.iter();
        let operands = self.steps.iter().flat_map(|step| &step.operands);
        let all = operands.chain(value).map(Operand::bytes).sum::<usize>();
        all + self.steps.len() * (size_of::<Step>() + ALLOCATED)
    }

    /// The path, where the script is one call of an exposed name with its parameters in order.
    pub fn as_call(&self, parameters: usize) -> Option<&str> {
        let [
            Step {
                callee: Callee::Path(path),
                operands,
                ..
            },
        ] = &self.steps[..]
        else {
            return None;
        };
        let in_order = operands
            .iter()
            .enumerate()
            .all(|(i, operand)| matches!(operand, Operand::Parameter(p) if *p == i));
        (in_order && operands.len() == parameters && matches!(self.value, Some(Operand::Step(0))))
            .then_some(path)
    }
}

/// Operands nested in each other.
const MAX_DEPTH: usize = 32;

/// Words that begin something else than a straight line.
const RESERVED: &[&str] = &[
    "if",
    "else",
    "while",
    "loop",
    "for",
    "in",
    "do",
    "until",
    "break",
    "continue",
    "return",
    "throw",
    "try",
    "catch",
    "fn",
    "private",
    "import",
    "export",
    "as",
    "switch",
    "const",
    "let",
    "this",
    "is",
    "global",
    "Fn",
    "call",
    "curry",
    "eval",
    "env",
    "static",
    "var",
    "new",
    "type_of",
    "is_def_fn",
    "is_def_var",
    "is_shared",
];

struct Parser<'a> {
    source: &'a str,
    at: usize,
    names: HashMap<&'a str, Operand>,
    steps: Vec<Step>,
    depth: usize,
    /// Operands made so far.
    made: usize,
    /// Names of what is looked up where it is used, and was not used yet: what is not there would
    /// never be missed.
    unused: HashSet<&'a str>,
}

/// Operands of one script, at most.
const MOST_OPERANDS: usize = 10_000;

/// What an allocation takes beside what is in it, in bytes.
const ALLOCATED: usize = 24;

impl Operand {
    /// The operands that it consists of, and those that its bytes weigh.
    fn size(&self) -> usize {
        match self {
            Operand::List(operands) => 1 + operands.iter().map(Operand::size).sum::<usize>(),
            Operand::Field(operand, name) => 1 + operand.size() + name.len() / 64,
            Operand::Literal(bytes) => 1 + bytes.len() / 64,
            _ => 1,
        }
    }

    /// The bytes that it takes; a list has room for as many again.
    fn bytes(&self) -> usize {
        let within = match self {
            Operand::List(operands) => {
                ALLOCATED + operands.iter().map(Operand::bytes).sum::<usize>()
            }
            Operand::Field(of, name) => 2 * ALLOCATED + name.len() + of.bytes(),
            Operand::Literal(bytes) => ALLOCATED + bytes.len(),
            Operand::Name(name) => ALLOCATED + name.len(),
            Operand::Parameter(_) | Operand::Step(_) => 0,
        };
        2 * size_of::<Operand>() + within
    }

    /// Whether a name or field is looked up for it, which may not be there.
    fn looks_up(&self) -> bool {
        match self {
            Operand::List(operands) => operands.iter().any(Operand::looks_up),
            Operand::Field(..) | Operand::Name(_) => true,
            Operand::Parameter(_) | Operand::Step(_) | Operand::Literal(_) => false,
        }
    }
}

impl<'a> Parser<'a> {
    fn script(&mut self) -> Option<Option<Operand>> {
        loop {
            self.blank();
            if self.at == self.source.len() {
                return Some(None);
            }
            let start = self.at;
            if self.name() == Some("let") {
                self.blank();
                let name = self.name().filter(|name| !RESERVED.contains(name))?;
                self.expect('=')?;
                let value = self.operand()?;
                self.expect(';')?;
                if self.unused.contains(name) {
                    return None;
                }
                if value.looks_up() {
                    self.unused.insert(name);
                }
                self.names.insert(name, value);
                continue;
            }
            self.at = start;
            let value = self.operand()?;
            self.blank();
            if self.at == self.source.len() {
                return Some(Some(value));
            }
            if value.looks_up() {
                return None;
            }
            self.expect(';')?;
        }
    }

    fn operand(&mut self) -> Option<Operand> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.makes(1)?;
        let mut members = 0;
        self.blank();
        let mut operand = match self.peek()? {
            '"' => Operand::Literal(self.string()?),
            '[' => {
                self.at += 1;
                Operand::List(self.operands(']')?)
            }
            '-' | '0'..='9' => Operand::Literal(self.number()?),
            _ => self.named()?,
        };
        loop {
            self.blank();
            if self.peek() != Some('.') || self.source[self.at..].starts_with("..") {
                break;
            }
            self.at += 1;
            members += 1;
            if members > MAX_DEPTH {
                return None;
            }
            let place = self.place(self.at);
            let name = self
                .name()
                .filter(|name| !RESERVED.contains(name))?
                .to_owned();
            operand = if self.peek() == Some('(') {
                self.at += 1;
                let mut operands = vec![operand];
                operands.extend(self.operands(')')?);
                self.step(Callee::Method(name), operands, place)
            } else {
                Operand::Field(Box::new(operand), name)
            };
        }
        self.depth -= 1;
        Some(operand)
    }

    /// A path that is called, a variable, or a word with a value.
    fn named(&mut self) -> Option<Operand> {
        let start = self.at;
        let first = self.name()?;
        let mut path = first.to_owned();
        while self.source[self.at..].starts_with("::") {
            self.at += 2;
            path.push_str("::");
            path.push_str(self.name()?);
        }
        if RESERVED.contains(&first) {
            return None;
        }
        self.blank();
        if self.peek() == Some('(') {
            let place = self.place(start);
            self.at += 1;
            let operands = self.operands(')')?;
            return Some(self.step(Callee::Path(path), operands, place));
        }
        match first {
            _ if path.len() != first.len() => None,
            "true" => Some(Operand::Literal(vec![0xc3])),
            "false" => Some(Operand::Literal(vec![0xc2])),
            _ => {
                let Some(operand) = self.names.get(first) else {
                    return Some(Operand::Name(path));
                };
                self.unused.remove(first);
                let size = operand.size();
                let operand = operand.clone();
                self.makes(size)?;
                Some(operand)
            }
        }
    }

    /// A list of lists of lists by name would become as large as one likes: that is for the
    /// interpreter, which has bounds.
    fn makes(&mut self, operands: usize) -> Option<()> {
        self.made += operands;
        (self.made <= MOST_OPERANDS).then_some(())
    }

    fn step(&mut self, callee: Callee, operands: Vec<Operand>, place: Place) -> Operand {
        self.steps.push(Step {
            callee,
            operands,
            place,
        });
        Operand::Step(self.steps.len() - 1)
    }

    fn operands(&mut self, close: char) -> Option<Vec<Operand>> {
        let mut operands = Vec::new();
        loop {
            self.blank();
            if self.peek()? == close {
                self.at += 1;
                return Some(operands);
            }
            operands.push(self.operand()?);
            self.blank();
            match self.peek()? {
                ',' => self.at += 1,
                c if c == close => {}
                _ => return None,
            }
        }
    }

    /// A string in double quotes, with the escapes that are the same in every dialect.
    fn string(&mut self) -> Option<Vec<u8>> {
        let mut text = String::new();
        let mut chars = self.source[self.at + 1..].char_indices();
        loop {
            let (i, c) = chars.next()?;
            match c {
                '"' => {
                    self.at += 1 + i + 1;
                    return pack(&text);
                }
                '\n' | '\r' => return None,
                '\\' => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' => '\\',
                    '"' => '"',
                    _ => return None,
                }),
                c => text.push(c),
            }
        }
    }

    fn number(&mut self) -> Option<Vec<u8>> {
        let rest = &self.source[self.at..];
        let sign = rest.starts_with('-') as usize;
        let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(sign);
        if whole == 0 {
            return None;
        }
        let mut end = sign + whole;
        let mut float = false;
        if rest[end..].starts_with('.') && digits(end + 1) > 0 {
            float = true;
            end += 1 + digits(end + 1);
        }
        // `1x`, `0b1`, `1_000`, `1.foo`, `1e5`: left to the interpreter
        if rest[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.') {
            return None;
        }
        self.at += end;
        if float {
            pack(&rest[..end].parse::<f64>().ok()?)
        } else {
            pack(&rest[..end].parse::<i64>().ok()?)
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = &self.source[self.at..];
        let len = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let name = &rest[..len];
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.at += len;
        Some(name)
    }

    fn expect(&mut self, c: char) -> Option<()> {
        self.blank();
        (self.peek()? == c).then(|| self.at += c.len_utf8())
    }

    fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    fn blank(&mut self) {
        let rest = &self.source[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn place(&self, at: usize) -> Place {
        let before = &self.source[..at];
        let line = before.matches('\n').count() as u32 + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() as u32 + 1;
        Place { line, column }
    }
}

fn pack<T: serde::Serialize + ?Sized>(value: &T) -> Option<Vec<u8>> {
    Some(Packed::pack(value).ok()?.bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognise(source: &str) -> Option<Straight> {
        Straight::recognise(source, &["a", "b"])
    }

    #[test]
    fn one_call_with_its_parameters_in_order() {
        let call = |source| recognise(source).and_then(|s| s.as_call(2).map(str::to_owned));
        assert_eq!(call("calc::add(a, b)").as_deref(), Some("calc::add"));
        assert_eq!(call(" add( a ,b ) ").as_deref(), Some("add"));
        for other in [
            "calc::add(b, a)",
            "calc::add(a)",
            "calc::add(a, b);",
            "add(a, 1)",
            "add(a, f(b))",
        ] {
            assert_eq!(call(other), None, "{other}");
        }
    }

    #[test]
    fn lets_and_nested_calls_are_steps_in_the_order_they_run() {
        let straight =
            recognise("let v1 = f(a); let v2 = g(h(v1), [b, v1.name]); v2.say(\"x\\n\")")
                .expect("a straight line");
        let callees: Vec<_> = straight.steps.iter().map(|s| s.callee.clone()).collect();
        let path = |p: &str| Callee::Path(p.into());
        assert_eq!(
            callees,
            [
                path("f"),
                path("h"),
                path("g"),
                Callee::Method("say".into())
            ]
        );
        assert!(matches!(straight.value, Some(Operand::Step(3))));
        assert_eq!(
            straight.steps[2].place,
            Place {
                line: 1,
                column: 25
            }
        );
    }

    #[test]
    fn a_script_that_ends_in_a_statement_has_no_value() {
        assert!(recognise("f(a);").is_some_and(|s| s.value.is_none() && s.steps.len() == 1));
        assert!(recognise("").is_some_and(|s| s.value.is_none()));
    }

    #[test]
    fn what_needs_an_interpreter_is_left_to_it() {
        for source in [
            "a + b",
            "if a { f() }",
            "f(a) + 1",
            "let x = 1",
            "f(|x| x)",
            "x = 5",
            "env.x = 1",
            "env.x",
            "f(`a`)",
            "f(1_000)",
            "f(0x10)",
            "f(a",
            "f(\"\\x41\")",
            "f(1..2)",
            "return f(a)",
            "f(a) f(b)",
            "// c\nf(a)",
            "eval(\"f()\")",
            "f(a)[0]",
            "!a",
            "#{}",
            "1e5",
            "type_of(a)",
            "a.type_of()",
            "is_def_var(a)",
            "nope; f(a)",
            "a.x;",
            "let x = nope; f(a)",
            "let x = [a.x]; f(a)",
            "let x = a.x; let x = f(a); x",
        ] {
            assert!(recognise(source).is_none(), "{source}");
        }
        assert!(recognise(&"f(".repeat(10_000)).is_none());
        assert!(recognise(&format!("a{}", ".a".repeat(10_000))).is_none());
        assert!(recognise(&format!("let a = b; {}a", "let a = a.b;".repeat(1_000))).is_none());
        let lists = "let a = [a, a, a, a, a, a, a, a, a, a];".repeat(20);
        assert!(recognise(&format!("let a = f(); {lists} a")).is_none());
    }
}
