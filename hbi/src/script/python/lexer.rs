//! From characters to tokens.

use crate::{Failure, Kind, Place};

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    /// The end of a statement: a newline or `;`.
    Line,
    /// The end of the script.
    End,
    Name(&'a str),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// A string with expressions in it: text, and where the source of an expression stands.
    Format(Vec<(String, Option<(usize, usize)>)>),
    Symbol(&'static str),
}

impl Token<'_> {
    /// For errors.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Line => "the end of the line".into(),
            Token::End => "the end of the script".into(),
            Token::Name(name) => format!("`{name}`"),
            Token::Int(_) | Token::Float(_) => "a number".into(),
            Token::Text(_) | Token::Format(_) => "a string".into(),
            Token::Bytes(_) => "bytes".into(),
            Token::Symbol(symbol) => format!("`{symbol}`"),
        }
    }
}

/// Longer ones first.
const SYMBOLS: [&str; 41] = [
    "...", "**=", "//=", "**", "//", "==", "!=", "<=", ">=", "+=", "-=", "*=", "/=", "%=", "&&",
    "||", "->", ":=", "<<", ">>", "(", ")", "[", "]", "{", "}", ",", ":", ".", "=", "+", "-", "*",
    "/", "%", "<", ">", "!", "&", "|", "@",
];

/// Values that stand in one script or object, at most, with the statements and operators around them:
/// what is read takes many times the memory of its text.
pub(super) const VALUES_MOST: usize = 1 << 18;

/// Reads tokens off a part of a script.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    source: &'a str,
    at: usize,
    end: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str, from: usize, to: usize) -> Self {
        Self {
            source,
            at: from,
            end: to,
        }
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..self.end]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The next token, and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize), Failure> {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\x0c']).len();
            if self.peek() != Some('#') {
                break;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
        let from = self.at;
        let Some(first) = self.peek() else {
            return Ok((Token::End, from));
        };
        if first == '\n' || first == ';' {
            self.at += 1;
            return Ok((Token::Line, from));
        }
        let digit_next = self.rest()[first.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || first == '.' && digit_next {
            return Ok((self.number()?, from));
        }
        if matches!(first, '"' | '\'' | '`') {
            return Ok((self.string("")?, from));
        }
        if first.is_alphabetic() || first == '_' {
            let rest = self.rest();
            let len = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            let name = &rest[..len];
            self.at += len;
            // a word right before a string is a word: `x or'y'`
            let prefix = len <= 2 && name.bytes().all(|b| b"rbfuRBFU".contains(&b));
            if prefix && matches!(self.peek(), Some('"' | '\'')) {
                return Ok((self.string(name)?, from));
            }
            return Ok((Token::Name(name), from));
        }
        let rest = self.rest();
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.at += symbol.len();
                Ok((Token::Symbol(symbol), from))
            }
            None => Err(self.fail(
                from,
                format!("`{}` means nothing here", first.escape_debug()),
            )),
        }
    }

    fn number(&mut self) -> Result<Token<'a>, Failure> {
        let from = self.at;
        let rest = self.rest();
        let len = number_len(rest);
        let text: String = rest[..len].chars().filter(|c| *c != '_').collect();
        self.at += len;
        if self.peek().is_some_and(|c| c.is_alphanumeric()) {
            return Err(self.fail(
                from,
                "a number that runs into a word: separate the two".into(),
            ));
        }
        let lower = text.to_ascii_lowercase();
        let radix = match lower.get(..2) {
            Some("0x") => 16,
            Some("0b") => 2,
            Some("0o") => 8,
            _ => 10,
        };
        if radix == 10 && lower.contains(['.', 'e']) {
            let float = lower.parse();
            return float
                .map(Token::Float)
                .map_err(|_| self.fail(from, "not a number".into()));
        }
        let digits = if radix == 10 { &*lower } else { &lower[2..] };
        i128::from_str_radix(digits, radix)
            .map(Token::Int)
            .map_err(|_| {
                self.fail(
                    from,
                    "not an integer, or one of more than 127 bits".to_owned(),
                )
            })
    }

    /// A string, whose prefix was read.
    fn string(&mut self, prefix: &str) -> Result<Token<'a>, Failure> {
        let start = self.at;
        let (raw, bytes, format) = match &*prefix.to_ascii_lowercase() {
            "" | "u" => (false, false, false),
            "r" => (true, false, false),
            "b" => (false, true, false),
            "f" => (false, false, true),
            "rb" | "br" => (true, true, false),
            "rf" | "fr" => (true, false, true),
            _ => return Err(self.fail(start, format!("a string cannot begin with `{prefix}`"))),
        };
        let rest = self.rest();
        let (open, long) = match rest.get(..3) {
            Some(triple @ ("\"\"\"" | "'''")) => (triple, true),
            _ => (&rest[..1], false),
        };
        let back = open == "`";
        self.at += open.len();
        let mut out = Decoded::default();
        let mut parts = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(open) {
                self.at += open.len();
                break;
            }
            let Some(c) = rest.chars().next() else {
                return Err(self.fail(start, "a string without its end".into()));
            };
            if c == '\n' && !long && !back {
                return Err(self.fail(start, "a string without its end on the line".into()));
            }
            match c {
                '\\' if !raw && !back => self.escape(&mut out, bytes)?,
                '\\' => {
                    out.push(c);
                    self.at += 1;
                    // the quote behind it does not end a raw string
                    if let Some(next) = self.peek().filter(|_| !back) {
                        out.push(next);
                        self.at += next.len_utf8();
                    }
                }
                '{' | '}' if format && rest[1..].starts_with(c) => {
                    out.push(c);
                    self.at += 2;
                }
                '{' if format => {
                    let from = self.at + 1;
                    let len = rest[1..].find(['}', '\n']);
                    let Some(len) = len.filter(|len| rest[1 + len..].starts_with('}')) else {
                        let text = "`{` without its `}` on the line";
                        return Err(self.fail(self.at, text.into()));
                    };
                    if parts.len() == VALUES_MOST {
                        return Err(too_many_values(place(self.source, self.at)));
                    }
                    let text = std::mem::take(&mut out).finish(self, start)?;
                    parts.push((text, Some((from, from + len))));
                    self.at = from + len + 1;
                }
                '}' if format => return Err(self.fail(self.at, "`}` without its `{`".into())),
                c => {
                    out.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        if bytes {
            let odd = self.source[start..self.at].find(|c: char| !c.is_ascii());
            return match odd {
                Some(odd) => {
                    Err(self.fail(start + odd, "bytes hold ASCII and escapes only".into()))
                }
                None => Ok(Token::Bytes(out.bytes)),
            };
        }
        let text = out.finish(self, start)?;
        if format {
            parts.push((text, None));
            return Ok(Token::Format(parts));
        }
        Ok(Token::Text(text))
    }

    /// One escape. Those that Python does not know keep their backslash.
    fn escape(&mut self, out: &mut Decoded, bytes: bool) -> Result<(), Failure> {
        let from = self.at;
        self.at += 1;
        let Some(c) = self.peek() else {
            return Err(self.fail(from, "a string without its end".into()));
        };
        self.at += c.len_utf8();
        let plain = match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\x08',
            'f' => '\x0c',
            'a' => '\x07',
            'v' => '\x0b',
            '\\' | '\'' | '"' => c,
            '\n' => return Ok(()),
            '0'..='7' => {
                let rest = &self.source[from + 1..self.end];
                let len = rest
                    .bytes()
                    .take(3)
                    .take_while(|b| (b'0'..=b'7').contains(b))
                    .count();
                self.at = from + 1 + len;
                let code = u32::from_str_radix(&rest[..len], 8).unwrap_or(0);
                return self.code(out, code, bytes, from);
            }
            'x' => return self.hex(out, 2, bytes, from),
            'u' if !bytes => return self.hex(out, 4, bytes, from),
            'U' if !bytes => return self.hex(out, 8, bytes, from),
            'N' if !bytes => {
                let text = "characters by name do not land here: write the character itself";
                return Err(self.fail(from, text.into()));
            }
            c => {
                out.push('\\');
                c
            }
        };
        out.push(plain);
        Ok(())
    }

    fn hex(
        &mut self,
        out: &mut Decoded,
        digits: usize,
        bytes: bool,
        from: usize,
    ) -> Result<(), Failure> {
        let text = self.rest().get(..digits);
        let code = text
            .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|text| u32::from_str_radix(text, 16).ok());
        let Some(code) = code else {
            return Err(self.fail(from, format!("an escape of {digits} hexadecimal digits")));
        };
        self.at += digits;
        self.code(out, code, bytes, from)
    }

    fn code(&self, out: &mut Decoded, code: u32, bytes: bool, from: usize) -> Result<(), Failure> {
        if bytes {
            out.bytes.push(code as u8);
            return Ok(());
        }
        out.code(code)
            .map_err(|text| self.fail(from, text.to_owned()))
    }

    pub(super) fn fail(&self, at: usize, message: String) -> Failure {
        fail(self.source, at, message)
    }
}

/// How long the number at the front is.
fn number_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let run = |from: usize, digit: fn(&u8) -> bool| {
        bytes[from..]
            .iter()
            .take_while(|b| digit(b) || **b == b'_')
            .count()
    };
    let decimal: fn(&u8) -> bool = u8::is_ascii_digit;
    match bytes.get(1).map(u8::to_ascii_lowercase) {
        Some(b'x' | b'b' | b'o') if bytes[0] == b'0' => {
            return 2 + run(2, u8::is_ascii_hexdigit);
        }
        _ => {}
    }
    let mut len = run(0, decimal);
    if bytes.get(len) == Some(&b'.') {
        len += 1 + run(len + 1, decimal);
    }
    if matches!(bytes.get(len), Some(b'e' | b'E')) {
        let sign = matches!(bytes.get(len + 1), Some(b'+' | b'-')) as usize;
        let digits = run(len + 1 + sign, decimal);
        if digits > 0 {
            len += 1 + sign + digits;
        }
    }
    len
}

/// A string while it is decoded.
#[derive(Debug, Default)]
struct Decoded {
    bytes: Vec<u8>,
    /// The first half of a character that was written as two escapes.
    high: Option<u32>,
    /// Halves that found no other half.
    lone: bool,
}

impl Decoded {
    fn push(&mut self, c: char) {
        self.lone |= self.high.take().is_some();
        self.bytes
            .extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn code(&mut self, code: u32) -> Result<(), &'static str> {
        match (code, self.high) {
            (0xd800..=0xdbff, _) => {
                self.lone |= self.high.replace(code).is_some();
                Ok(())
            }
            (0xdc00..=0xdfff, Some(high)) => {
                self.high = None;
                let code = 0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00);
                // two halves always make a character
                char::from_u32(code)
                    .map(|c| self.push(c))
                    .ok_or("no character")
            }
            (0xdc00..=0xdfff, None) => Err("half of a surrogate pair"),
            _ => {
                let c = char::from_u32(code).ok_or("an escape beyond the last character")?;
                self.push(c);
                Ok(())
            }
        }
    }

    fn finish(self, lexer: &Lexer<'_>, at: usize) -> Result<String, Failure> {
        if self.lone || self.high.is_some() {
            return Err(lexer.fail(at, "a string with half of a surrogate pair".into()));
        }
        // whole characters only were pushed
        String::from_utf8(self.bytes).map_err(|_| lexer.fail(at, "not UTF-8".into()))
    }
}

/// A failure at a place of a script, which shows what stands there.
pub(super) fn fail(source: &str, at: usize, message: String) -> Failure {
    let place = place(source, at);
    let from = source[..at].rfind('\n').map_or(0, |n| n + 1);
    let line = source[from..].lines().next().unwrap_or_default();
    // a long line is shown from a little before the place
    let from = source[from..at].chars().count().saturating_sub(20);
    let shown: String = line.chars().skip(from).take(60).collect();
    let shown = shown.trim();
    let message = match shown.is_empty() {
        true => message,
        false => format!("{message}, in `{shown}`"),
    };
    Failure::new(Kind::Script, message).in_script(place)
}

/// More stands in a text than [`VALUES_MOST`].
pub(super) fn too_many_values(place: Place) -> Failure {
    let hint = "send data as raw data, or in several values";
    Failure::limit("values", VALUES_MOST, hint).in_script(place)
}

/// The line and column of a place.
pub(super) fn place(source: &str, at: usize) -> Place {
    on_from(source, 0, Place { line: 1, column: 1 }, at)
}

/// The place at `at`, counted on from an earlier one.
fn on_from(source: &str, from: usize, place: Place, at: usize) -> Place {
    let passed = &source[from..at];
    let lines = passed.matches('\n').count() as u32;
    let last = passed.rsplit('\n').next().unwrap_or("").chars().count() as u32;
    Place {
        line: place.line + lines,
        column: if lines > 0 {
            last + 1
        } else {
            place.column + last
        },
    }
}

/// Places of a source, found without counting from its beginning each time.
#[derive(Debug)]
pub(super) struct Places(Vec<(usize, Place)>);

/// Bytes between places that are known.
const STEP: usize = 256;

impl Places {
    pub(super) fn of(source: &str) -> Self {
        let mut known = vec![(0, Place { line: 1, column: 1 })];
        let mut at = 0;
        while source.len() - at > STEP {
            let next = (at + STEP..source.len())
                .find(|&next| source.is_char_boundary(next))
                .unwrap_or(source.len());
            let (_, place) = known[known.len() - 1];
            known.push((next, on_from(source, at, place, next)));
            at = next;
        }
        Self(known)
    }

    pub(super) fn at(&self, source: &str, at: usize) -> Place {
        let next = self.0.partition_point(|(from, _)| *from <= at);
        let (from, place) = self.0[next - 1];
        on_from(source, from, place, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_as_if_counted_from_the_beginning() {
        let source = "ä = 1\nxyz\n\n".repeat(200) + "é".repeat(700).as_str();
        let places = Places::of(&source);
        for (at, _) in source.char_indices() {
            assert_eq!(places.at(&source, at), place(&source, at));
        }
    }
}
