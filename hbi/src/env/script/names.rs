//! What can be told of a script from its tokens, without parsing it: the names that it uses, and how
//! much it could have the interpreter hold at once.

/// What a script's text calls and mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Called on their own or by a path: `f(`, `calc::add(`.
    pub(super) calls: Vec<String>,
    /// Called as methods: `.say(`.
    pub(super) methods: Vec<String>,
    /// Mentioned without a call.
    pub(super) mentioned: Vec<String>,
    /// The most values that one function's expressions can hold at once: those of open argument
    /// lists, and one for each open bracket.
    pub(super) pending: usize,
    /// The most members that follow each other, as in `a.b.c`.
    pub(super) chain: usize,
}

/// A bracket that is open.
#[derive(Clone, Copy)]
struct Open {
    kind: Kind,
    /// Values that it holds so far.
    values: usize,
    /// The members before it, which go on behind it.
    chain: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Round,
    Other,
    /// `${` in a text with backticks.
    InText,
}

struct Scanner<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
    chain: usize,
    names: Names,
}

impl Names {
    /// Looks at a text. One that the interpreter cannot parse gives any result.
    pub(super) fn of(source: &str) -> Self {
        let mut scanner = Scanner {
            source,
            bytes: source.as_bytes(),
            at: 0,
            open: Vec::new(),
            chain: 0,
            names: Names::default(),
        };
        scanner.scan();
        scanner.names
    }
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn scan(&mut self) {
        while self.at < self.bytes.len() {
            match self.peek(0) {
                byte if is_start(byte) => self.name(),
                b'0'..=b'9' => self.skip(is_part),
                b'"' => self.quoted(b'"'),
                b'\'' => self.quoted(b'\''),
                b'`' => {
                    self.at += 1;
                    self.in_text();
                }
                b'#' if matches!(self.peek(1), b'"' | b'#') => self.raw(),
                b'/' if self.peek(1) == b'/' => self.skip(|byte| byte != b'\n'),
                b'/' if self.peek(1) == b'*' => self.comment(),
                b'(' => self.opens(Kind::Round),
                b'[' | b'{' => self.opens(Kind::Other),
                b')' | b']' | b'}' => self.closes(),
                byte => {
                    self.at += 1;
                    self.punctuation(byte);
                }
            }
        }
    }

    fn punctuation(&mut self, byte: u8) {
        match byte {
            b'.' if self.peek(0) == b'.' => {
                self.at += 1;
                self.chain = 0;
            }
            b'.' => {
                self.chain += 1;
                self.names.chain = self.names.chain.max(self.chain);
            }
            b',' => {
                self.chain = 0;
                if let Some(open) = self.open.last_mut()
                    && open.kind == Kind::Round
                {
                    open.values += 1;
                }
                self.count();
            }
            // `a?.b` goes on
            b'?' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.chain = 0,
        }
    }

    fn opens(&mut self, kind: Kind) {
        let chain = std::mem::take(&mut self.chain);
        let values = 1;
        self.open.push(Open {
            kind,
            values,
            chain,
        });
        self.at += 1;
        self.count();
    }

    fn closes(&mut self) {
        self.at += 1;
        let Some(open) = self.open.pop() else {
            return;
        };
        self.chain = open.chain;
        if open.kind == Kind::InText {
            self.in_text();
        }
    }

    fn count(&mut self) {
        let values = self.open.iter().map(|open| open.values).sum();
        self.names.pending = self.names.pending.max(values);
    }

    fn skip(&mut self, goes_on: impl Fn(u8) -> bool) {
        while self.at < self.bytes.len() && goes_on(self.bytes[self.at]) {
            self.at += 1;
        }
    }

    /// A text or character in quotes, where a backslash takes the next along.
    fn quoted(&mut self, quote: u8) {
        self.at += 1;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\\' => self.at += 2,
                byte if byte == quote => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
    }

    /// A text in backticks: to its end, or to code in it.
    fn in_text(&mut self) {
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'`', b'`') => self.at += 2,
                (b'`', _) => {
                    self.at += 1;
                    return;
                }
                (b'\\', b'$') if self.peek(2) == b'{' => self.at += 3,
                (b'$', b'{') => {
                    self.at += 1;
                    return self.opens(Kind::InText);
                }
                _ => self.at += 1,
            }
        }
    }

    /// `#"..."#`, with any number of `#`.
    fn raw(&mut self) {
        let start = self.at;
        self.skip(|byte| byte == b'#');
        let hashes = self.at - start;
        if self.peek(0) != b'"' {
            return;
        }
        self.at += 1;
        let end = format!("\"{}", "#".repeat(hashes));
        let found = self.source[self.at..].find(&end);
        self.at = found.map_or(self.bytes.len(), |found| self.at + found + end.len());
    }

    /// A comment, with comments in it.
    fn comment(&mut self) {
        let mut depth = 0;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn name(&mut self) {
        let start = self.at;
        while self.at < self.bytes.len() && (is_part(self.peek(0)) || self.is_separator()) {
            self.at += if self.peek(0) == b':' { 2 } else { 1 };
        }
        let name = &self.source[start..self.at];
        let before = self.source[..start].trim_end();
        let called = self.source[self.at..].trim_start().starts_with('(');
        let member = before.ends_with('.') && !before.ends_with("..");
        if !member {
            self.chain = 0;
        }
        let list = match (member, called) {
            (true, true) => &mut self.names.methods,
            (true, false) => return,
            (false, true) => &mut self.names.calls,
            (false, false) => &mut self.names.mentioned,
        };
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
    }

    fn is_separator(&self) -> bool {
        self.peek(0) == b':' && self.peek(1) == b':' && is_start(self.peek(2))
    }
}

fn is_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_methods_and_mentions() {
        let names =
            Names::of("let t = a; for i in 0..n { t += calc::add (i, f(1)) } room.say(t); x.y");
        assert_eq!(names.calls, ["calc::add", "f"]);
        assert_eq!(names.methods, ["say"]);
        for name in ["a", "n", "t", "room", "x"] {
            assert!(names.mentioned.contains(&name.to_owned()), "{name}");
        }
        assert!(!names.mentioned.contains(&"y".to_owned()));
    }

    #[test]
    fn names_in_code_only() {
        let names =
            Names::of(r##"'"'; "a\"(b"; `c ${d(`e ${f}`)} g`; #"h"("#; /* i /* j */ k */ l // m"##);
        assert_eq!(names.calls, ["d"]);
        assert_eq!(names.mentioned, ["f", "l"]);
    }

    #[test]
    fn values_held_at_once() {
        for (source, pending) in [
            ("1", 0),
            ("f(a, b, c)", 3),
            ("f(a, g(b, c), d)", 4),
            ("f(g(a, b), c)", 3),
            ("[a, b, c]", 1),
            ("f(a, `,(${g(b, c)},`)", 5),
            (r#"f(")", ',', "(")"#, 3),
            ("f(/* ) */ a, b)", 2),
            (r##"f(#")"#, b)"##, 2),
        ] {
            assert_eq!(Names::of(source).pending, pending, "{source}");
        }
    }

    #[test]
    fn members_in_a_row() {
        for (source, chain) in [
            ("a.b.c", 2),
            ("a.b + c.d", 1),
            ("a.b(c.d.e.f).g", 3),
            ("a?.b?.c", 2),
            ("a . b\n . c", 2),
            ("0..3", 0),
            ("1.5", 1),
        ] {
            assert_eq!(Names::of(source).chain, chain, "{source}");
        }
    }
}
