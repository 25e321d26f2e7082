//! What can be told of a script from its tokens, without parsing it: the names that it uses, which
//! of their values it looks into, and how much it could have the interpreter hold at once.
//!
//! A value is only passed on where its name, or the call that answers it, is a whole argument of an
//! exposed function, the value of a `let` whose name is only passed on, a statement of its own, or
//! what the script answers. Whatever else stands around it may look into it.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
};

use super::library::is_built_in;

/// Functions that a script may call, each with another number of arguments counted: the interpreter has
/// to be told of each.
pub(super) const CALLED: usize = 256;

/// What a script's text calls and mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Called on their own or by a path, `f(..)`, `calc::add(..)`, with how many arguments.
    pub(super) calls: Vec<(String, usize)>,
    /// Called as methods, `.say(..)`, with how many arguments beside the object.
    pub(super) methods: Vec<(String, usize)>,
    /// Mentioned without a call.
    pub(super) mentioned: BTreeSet<String>,
    /// The most values that one function's expressions can hold at once: those of open argument
    /// lists, and one for each open bracket.
    pub(super) pending: usize,
    /// The most members that follow each other, as in `a.b.c`, or namespaces in each other.
    pub(super) chain: usize,
    /// How many tokens there are.
    pub(super) tokens: usize,
    /// Where functions are called that have the name of one of the interpreter's own.
    built_in: Vec<(usize, String)>,
    /// Functions that the script has.
    defined: HashSet<String>,
    /// Variables, and functions by what they answer, that the script may look into.
    looked_into: HashSet<String>,
}

/// A bracket that is open.
struct Open {
    kind: Kind,
    /// Values that it holds so far.
    values: usize,
    /// The members before it, which go on behind it.
    chain: usize,
    /// What it is the argument list of.
    call: Option<Called>,
    /// Its values go to an exposed function as they are.
    passes: bool,
}

/// What stands before the next token.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    /// A statement begins.
    Statement,
    /// An argument of an exposed function begins.
    Argument,
    /// A member's name, behind its dot.
    Member,
    Let,
    /// `let` and a name.
    Defined(String),
    /// `let`, a name and `=`.
    ValueOf(String),
    Fn,
    Other,
}

/// What is called: a function, and where the call stands, or a method.
enum Called {
    Function(String, Place),
    Method(String),
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Round,
    Other,
    /// `${` in a text with backticks.
    InText,
}

struct Scanner<'a, P> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
    /// The values of all that is open.
    held: usize,
    /// What the token before begins with.
    before: u8,
    chain: usize,
    names: Names,
    place: Place,
    /// What was just named, and is called.
    called: Option<Called>,
    /// Whether a function hands its arguments to the host as they are.
    passes: P,
    /// Who looks into the second looks into the first.
    same: Vec<(String, String)>,
    /// The script has a function that stands before an exposed one.
    hides: bool,
}

impl Names {
    /// Looks at a text. One that the interpreter cannot parse gives any result. `passes` tells
    /// which functions hand their arguments to the host as they are.
    pub(super) fn of(source: &str, passes: impl Fn(&str) -> bool) -> Self {
        let mut scanner = Scanner {
            source,
            bytes: source.as_bytes(),
            at: 0,
            open: Vec::new(),
            held: 0,
            before: 0,
            chain: 0,
            names: Names::default(),
            place: Place::Statement,
            called: None,
            passes,
            same: Vec::new(),
            hides: false,
        };
        scanner.scan();
        scanner.finish()
    }

    /// The text, where exposed functions have the names they are registered with. All places stay as
    /// they are.
    pub(super) fn aliased<'a>(
        &self,
        source: &'a str,
        exposed: impl Fn(&str) -> bool,
    ) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(source);
        for (at, name) in &self.built_in {
            if exposed(name) {
                let place = *at..at + name.len();
                text.to_mut().replace_range(place, &self.alias(name));
            }
        }
        text
    }

    /// What an exposed function is called in the interpreter: where this has one of that name, it would
    /// find its own for arguments of the types that this takes.
    pub(super) fn alias(&self, name: &str) -> String {
        let mut alias = name.to_owned();
        if is_built_in(name)
            && !self.defined.contains(name)
            && let Some(at) = name.rfind(|c: char| c.is_ascii_alphabetic())
        {
            let letter = name.as_bytes()[at] ^ b' ';
            alias.replace_range(at..=at, (letter as char).encode_utf8(&mut [0]));
        }
        alias
    }

    /// The numbers of arguments with which a function is called, as functions and as methods are.
    pub(super) fn arguments(&self, name: &str) -> BTreeSet<usize> {
        let of = |calls: &[(String, usize)], more: usize| {
            let calls = calls.iter().filter(|(other, _)| other == name);
            calls.map(|(_, count)| count + more).collect::<Vec<_>>()
        };
        let as_functions = of(&self.calls, 0);
        let as_methods = of(&self.methods, 1);
        as_functions.into_iter().chain(as_methods).collect()
    }

    /// A call of something exposed with more than so many arguments.
    pub(super) fn call_beyond(
        &self,
        most: usize,
        exposed: impl Fn(&str) -> bool,
    ) -> Option<(&str, usize)> {
        let is_exposed =
            |name: &str| name.contains("::") || exposed(name) && !self.defined.contains(name);
        let calls = self.calls.iter().filter(|(name, _)| is_exposed(name));
        let beyond = |(_, count): &&(String, usize)| *count > most;
        let mut all = calls.chain(&self.methods);
        all.find(beyond).map(|(name, count)| (&**name, *count))
    }

    /// Whether the script looks into what a variable stands for, or a function answers.
    pub(super) fn looks_into(&self, name: &str) -> bool {
        self.looked_into.contains(name)
    }
}

impl<P: Fn(&str) -> bool> Scanner<'_, P> {
    fn finish(mut self) -> Names {
        let all = &mut self.names.looked_into;
        if self.hides {
            all.extend(self.names.calls.iter().map(|(name, _)| name.clone()));
            all.extend(self.names.mentioned.iter().cloned());
        }
        // from the end, since a name is defined before it is used
        for (one, other) in self.same.into_iter().rev() {
            if all.contains(&other) {
                all.insert(one);
            }
        }
        self.names
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn scan(&mut self) {
        loop {
            self.at = self.after_blank(self.at.min(self.bytes.len()));
            let Some(c) = self.source[self.at..].chars().next() else {
                return;
            };
            let first = self.peek(0);
            match first {
                byte if is_start(byte) => self.name(),
                b'0'..=b'9' => {
                    self.place = Place::Other;
                    self.skip(is_part);
                }
                b'"' => self.quoted(b'"'),
                b'\'' => self.quoted(b'\''),
                b'`' => {
                    self.at += 1;
                    self.in_text();
                }
                b'#' if matches!(self.peek(1), b'"' | b'#') => self.raw(),
                b'(' => self.opens(Kind::Round),
                b'[' | b'{' => self.opens(Kind::Other),
                b')' | b']' | b'}' => self.closes(),
                byte => {
                    self.at += c.len_utf8();
                    self.punctuation(byte);
                }
            }
            self.before = first;
            self.names.tokens += 1;
        }
    }

    fn punctuation(&mut self, byte: u8) {
        self.place = match (byte, std::mem::replace(&mut self.place, Place::Other)) {
            (b';', _) => Place::Statement,
            (b'.', _) if self.peek(0) != b'.' => Place::Member,
            (b',', _) if self.open.last().is_some_and(|open| open.passes) => Place::Argument,
            (b'=', Place::Defined(name)) if self.peek(0) != b'=' => Place::ValueOf(name),
            _ => Place::Other,
        };
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
                    self.holds_one_more();
                }
            }
            // `a?.b` goes on
            b'?' => {}
            _ => self.chain = 0,
        }
    }

    fn opens(&mut self, kind: Kind) {
        let chain = std::mem::take(&mut self.chain);
        let call = self.called.take().filter(|_| kind == Kind::Round);
        let passes = match &call {
            Some(Called::Function(name, _)) => (self.passes)(name),
            _ => false,
        };
        self.place = match kind {
            Kind::Round if passes => Place::Argument,
            Kind::Other if self.bytes[self.at] == b'{' => Place::Statement,
            _ => Place::Other,
        };
        self.open.push(Open {
            kind,
            values: 1,
            chain,
            call,
            passes,
        });
        self.at += 1;
        self.holds_one_more();
    }

    fn closes(&mut self) {
        self.at += 1;
        let closed = self.bytes[self.at - 1];
        self.place = match closed {
            b'}' => Place::Statement,
            _ => Place::Other,
        };
        let Some(open) = self.open.pop() else {
            return;
        };
        self.held -= open.values;
        self.chain = open.chain;
        let arguments = open.values - usize::from(matches!(self.before, b'(' | b','));
        match open.call {
            Some(Called::Function(name, place)) => {
                add(&mut self.names.calls, (&name, arguments));
                self.stands(name, place);
            }
            Some(Called::Method(name)) => add(&mut self.names.methods, (&name, arguments)),
            None => {}
        }
        if open.kind == Kind::InText {
            self.in_text();
        }
    }

    /// A name or a call stands in a place, and ends here.
    fn stands(&mut self, name: String, place: Place) {
        let next = self.bytes.get(self.after_blank(self.at)).copied();
        let last = self.open.is_empty() && next.is_none();
        match (place, next) {
            (Place::Argument, Some(b',' | b')')) | (Place::Statement, Some(b';')) => {}
            (Place::Statement, None) if last => {}
            (Place::ValueOf(other), Some(b';')) => self.same.push((name, other)),
            _ => {
                self.names.looked_into.insert(name);
            }
        }
    }

    fn holds_one_more(&mut self) {
        self.held += 1;
        self.names.pending = self.names.pending.max(self.held);
    }

    fn skip(&mut self, goes_on: impl Fn(u8) -> bool) {
        while self.at < self.bytes.len() && goes_on(self.bytes[self.at]) {
            self.at += 1;
        }
    }

    /// A text or character in quotes, where a backslash takes the next along.
    fn quoted(&mut self, quote: u8) {
        self.place = Place::Other;
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
        self.place = Place::Other;
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
        self.place = Place::Other;
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

    /// Where the next token begins: behind blanks, and comments, which may have comments in them.
    fn after_blank(&self, mut at: usize) -> usize {
        let mut depth = 0;
        loop {
            match &self.bytes[at..] {
                [] => return at,
                [b'/', b'*', ..] => {
                    depth += 1;
                    at += 2;
                }
                [b'*', b'/', ..] if depth > 0 => {
                    depth -= 1;
                    at += 2;
                }
                _ if depth > 0 => at += 1,
                [b'/', b'/', rest @ ..] => {
                    let line = rest.iter().take_while(|&&byte| byte != b'\n').count();
                    at += 2 + line;
                }
                _ => match self.source[at..].chars().next() {
                    Some(c) if c.is_whitespace() => at += c.len_utf8(),
                    _ => return at,
                },
            }
        }
    }

    /// A name, or a path of names, with blanks around its separators or none.
    fn path(&mut self) -> String {
        let mut path = String::new();
        let mut namespaces = 0;
        loop {
            let start = self.at;
            self.skip(is_part);
            path.push_str(&self.source[start..self.at]);
            let separator = self.after_blank(self.at);
            if !self.source[separator..].starts_with("::") {
                return path;
            }
            let next = self.after_blank(separator + 2);
            if !self.bytes.get(next).copied().is_some_and(is_start) {
                return path;
            }
            path.push_str("::");
            self.at = next;
            namespaces += 1;
            self.names.chain = self.names.chain.max(namespaces);
        }
    }

    fn name(&mut self) {
        let start = self.at;
        let name = self.path();
        let called = self.bytes.get(self.after_blank(self.at)) == Some(&b'(');
        let place = std::mem::replace(&mut self.place, Place::Other);
        let member = place == Place::Member;
        if !member {
            self.chain = 0;
        }
        match (&*name, place) {
            ("let", _) => self.place = Place::Let,
            ("fn", _) => self.place = Place::Fn,
            (name, Place::Let) => self.place = Place::Defined(name.to_owned()),
            (name, Place::Fn) => {
                self.hides |= (self.passes)(name);
                self.names.defined.insert(name.to_owned());
            }
            _ if member => {
                if called {
                    self.called = Some(Called::Method(name));
                }
                return;
            }
            (_, place) if called => {
                if is_built_in(&name) {
                    self.names.built_in.push((start, name.clone()));
                }
                self.called = Some(Called::Function(name, place));
                return;
            }
            (name, place) => self.stands(name.to_owned(), place),
        }
        self.names.mentioned.insert(name);
    }
}

/// Adds a call, unless there are more than a script may have already.
fn add(calls: &mut Vec<(String, usize)>, (name, arguments): (&str, usize)) {
    let known = |(other, count): &(String, usize)| *count == arguments && other == name;
    if calls.len() <= CALLED && !calls.iter().any(known) {
        calls.push((name.to_owned(), arguments));
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

    /// Those whose names are `put` and `take` are exposed.
    fn of(source: &str) -> Names {
        Names::of(source, |name| matches!(name, "put" | "take"))
    }

    #[test]
    fn calls_methods_and_mentions() {
        let names = of("let t = a; for i in 0..n { t += calc::add (i, f(1)) } room.say(t); x.y");
        let call = |name: &str, values: usize| (name.to_owned(), values);
        assert_eq!(names.calls, [call("f", 1), call("calc::add", 2)]);
        assert_eq!(names.methods, [call("say", 1)]);
        for name in ["a", "n", "t", "room", "x"] {
            assert!(names.mentioned.contains(name), "{name}");
        }
        assert!(!names.mentioned.contains("y"));
    }

    #[test]
    fn blanks_and_comments_stand_anywhere() {
        let names = of(
            "f /* ( */ (1); a :: b /* ( */\n:: c // (\n(1, 2); x . /* y */ say(3); put(v /* , */)",
        );
        let call = |name: &str, values: usize| (name.to_owned(), values);
        assert_eq!(
            names.calls,
            [call("f", 1), call("a::b::c", 2), call("put", 1)]
        );
        assert_eq!(names.methods, [call("say", 1)]);
        assert!(!names.looks_into("v"));
    }

    #[test]
    fn exposed_functions_have_names_that_the_interpreter_does_not_know() {
        let exposed = |name: &str| name != "min";
        for (source, aliased) in [
            ("max(1, 2) + min(1, 2)", "maX(1, 2) + min(1, 2)"),
            ("m.get(1); get(2)", "m.get(1); geT(2)"),
            ("write_utf8 /* é */ (1)", "write_utF8 /* é */ (1)"),
            (
                "fn get(n) { n } get(1); set(1)",
                "fn get(n) { n } get(1); seT(1)",
            ),
            ("double(1); x::get(1); get", "double(1); x::get(1); get"),
        ] {
            assert_eq!(of(source).aliased(source, exposed), aliased);
        }
    }

    /// Each would take many minutes if it looked at all before again.
    #[test]
    fn long_texts_are_looked_through_once() {
        const MANY: usize = 400_000;
        assert_eq!(of(&"(".repeat(MANY)).pending, MANY);
        let names: String = (0..MANY).map(|n| format!("a{n} ")).collect();
        assert_eq!(of(&names).mentioned.len(), MANY);
    }

    #[test]
    fn names_in_code_only() {
        let names =
            of(r##"'"'; "a\"(b"; `c ${d(`e ${f}`)} g`; #"h"("#; /* i /* j */ k */ l // m"##);
        assert_eq!(names.calls, [("d".to_owned(), 1)]);
        assert_eq!(Vec::from_iter(names.mentioned), ["f", "l"]);
    }

    #[test]
    fn numbers_of_arguments() {
        for (source, counts) in [
            ("f()", &[0][..]),
            ("f( /* a */ )", &[0]),
            ("f(a)", &[1]),
            ("f(a, [b, c], g(d, e, f))", &[3]),
            ("f(a, /* b */)", &[1]),
            ("f(a, \",\")", &[2]),
            ("f(a, `${b}`)", &[2]),
            ("f(g())", &[1]),
            ("f(); f(a, b, c)", &[0, 3]),
            ("f(a, b); x.f(y)", &[2]),
            ("f(a, b); x.f(y, z)", &[2, 3]),
            ("f(`${g(a, b)}`, /* , */ \",\")", &[2]),
            ("f(#{ a: 1, b: 2 }, if c { d(e, f) } else { g })", &[2]),
            ("x::f(a, b, c); y", &[]),
        ] {
            let found = of(source).arguments("f");
            assert_eq!(Vec::from_iter(found), counts, "{source}");
        }
        let many: String = (0..2_000).map(|n| format!("f{n}();")).collect();
        assert_eq!(of(&many).calls.len(), CALLED + 1);
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
            assert_eq!(of(source).pending, pending, "{source}");
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
            ("a::b :: c::d()", 3),
        ] {
            assert_eq!(of(source).chain, chain, "{source}");
        }
    }

    #[test]
    fn values_that_are_only_passed_on() {
        for source in [
            "put(v)",
            "put(v);",
            "v",
            "let w = 1; put(w, v , 2); v",
            "for i in 0..9 { put(i, v); }",
            "let w = v; put(w)",
            "let w = v; let x = w; x",
            "if v_too { put(v); }",
            "put(`${1}`, put(v))",
            "put(a.b(c), [1], v)",
            "#{ a: 1 }; v",
        ] {
            assert!(!of(source).looks_into("v"), "{source}");
        }
        for source in [
            "v + 1",
            "put(v + 1)",
            "put(1 + v)",
            "put(-v)",
            "put(v.len)",
            "put(v[0])",
            "put([v])",
            "put((v))",
            "put(#{ a: v })",
            "put(`${v}`)",
            "put(1, // (\n 2 + v)",
            "put(/* , */ 2 + /* , */ v)",
            "other(v)",
            "x.put(v)",
            "x::put(v)",
            "let w = v; w.len",
            "let w = v; let x = w; put(x[0])",
            "let w = v + 1;",
            "let w == v;",
            "w = v;",
            "v = 1;",
            "v += 1;",
            "put(v); v.push(1)",
            "let v = 1; put(v); for x in v { }",
            "if v { }",
            "if true { v }",
            "return v;",
            "fn f(a) { v } f(1)",
            "fn put(a) { a.len } put(v)",
            "put(v); fn put(a) { a.len }",
            "switch v { 1 => 2 }",
            "while v { }",
            "throw v",
            "put(v ?? 1)",
            "env.v = v;",
        ] {
            assert!(of(source).looks_into("v"), "{source}");
        }
    }

    #[test]
    fn answers_that_are_only_passed_on() {
        for source in [
            "put(take())",
            "take()",
            "take();",
            "let v = take(1, [2]); put(v)",
            "for i in 0..9 { put(i, take()); take(); }",
        ] {
            assert!(!of(source).looks_into("take"), "{source}");
        }
        for source in [
            "take().len",
            "take()?.len",
            "take()[0]",
            "take() + 1",
            "1 + take()",
            "put(take() + 1)",
            "put([take()])",
            "let v = take(); v + 1",
            "let v = take(); put(v); let v = take(); v[0]",
            "for x in take() { }",
            "if take() { }",
            "if true { take() }",
            "`${take()}`",
            "put(take()); take() == 1",
        ] {
            assert!(of(source).looks_into("take"), "{source}");
        }
    }
}
