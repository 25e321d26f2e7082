//! Tokens laid out as a script's text: each on its line and in its column, as far as the compiler
//! tells where it stood.

use proc_macro2::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};
use syn::{Lit, ext::IdentExt};

use crate::{errors::Errors, words};

/// More empty lines than this are no layout: the tokens come from different places.
const FARTHEST: usize = 100;

/// A script's text, and where its tokens stood in the Rust source.
#[derive(Default)]
pub(crate) struct Layout {
    pub(crate) text: String,
    /// The variables to bind, in the order of their first use.
    pub(crate) captures: Vec<Ident>,
    /// Where each token begins in the text, line and column counted from 1, in order.
    pub(crate) places: Vec<(usize, usize, Span)>,
}

pub(crate) fn lay_out(tokens: TokenStream, errors: &mut Errors) -> Layout {
    let (first, indent) = indentation(&tokens);
    let mut writer = Writer {
        layout: Layout::default(),
        errors,
        first,
        indent,
        line: 1,
        column: 1,
        glue: true,
        plain: Vec::new(),
    };
    writer.stream(tokens);
    let Writer {
        layout,
        plain,
        errors,
        ..
    } = writer;
    for ident in plain {
        if layout.captures.contains(&ident) {
            errors.on(
                &ident,
                format!(
                    "`{ident}` and `${ident}` would be the same variable of the script: call one \
                     of them otherwise"
                ),
            );
        }
    }
    layout
}

/// Where the first token stands, and how far the other lines are indented.
fn indentation(tokens: &TokenStream) -> ((usize, usize), usize) {
    fn starts(tokens: &TokenStream, starts: &mut Vec<(usize, usize)>) {
        for token in tokens.clone() {
            let at = token.span().start();
            starts.push((at.line, at.column));
            if let TokenTree::Group(group) = token {
                starts_of_group(&group, starts);
            }
        }
    }
    fn starts_of_group(group: &Group, all: &mut Vec<(usize, usize)>) {
        starts(&group.stream(), all);
        let at = group.span_close().start();
        all.push((at.line, at.column));
    }
    let mut all = Vec::new();
    starts(tokens, &mut all);
    let first = all.first().copied().unwrap_or((1, 0));
    let mut line = first.0;
    let mut indent = first.1;
    for (at, column) in all {
        if at > line {
            line = at;
            indent = indent.min(column);
        }
    }
    (first, indent)
}

struct Writer<'a> {
    layout: Layout,
    errors: &'a mut Errors,
    /// Where the first token stood.
    first: (usize, usize),
    /// By how much all lines after the first move to the left.
    indent: usize,
    /// Where the text ends.
    line: usize,
    column: usize,
    /// The next token follows without a space.
    glue: bool,
    /// The script's own variables.
    plain: Vec<Ident>,
}

impl Writer<'_> {
    fn stream(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Punct(dollar) if dollar.as_char() == '$' => match tokens.get(at) {
                    Some(TokenTree::Ident(ident)) => {
                        at += 1;
                        self.capture(ident);
                    }
                    _ => self
                        .errors
                        .on(dollar, "`$` stands before a variable of Rust: `$name`"),
                },
                TokenTree::Punct(punct) => self.punct(punct),
                TokenTree::Ident(ident) => {
                    if is_variable(&tokens[..at - 1], tokens.get(at)) {
                        self.plain.push(ident.clone());
                    }
                    self.ident(ident);
                }
                TokenTree::Literal(literal) => self.literal(literal),
                TokenTree::Group(group) => self.group(group),
            }
        }
    }

    fn capture(&mut self, ident: &Ident) {
        let name = words::plain(ident);
        if ["self", "Self", "super", "crate"].contains(&&*name) {
            self.errors.on(
                ident,
                format!("`{name}` is no variable: give it a name with `let`"),
            );
        } else if let Some(why) = words::refuse(&name) {
            self.errors
                .on(ident, format!("{why}: give it another name with `let`"));
        }
        if !self.layout.captures.contains(ident) {
            self.layout.captures.push(ident.clone());
        }
        // where the `$` was, there is a space
        self.glue = false;
        self.write(&name, ident.span());
    }

    fn ident(&mut self, ident: &Ident) {
        if ident.unraw() != *ident {
            self.errors.on(ident, "peer-script has no raw names");
        }
        self.write(&ident.to_string(), ident.span());
    }

    fn punct(&mut self, punct: &Punct) {
        let c = punct.as_char();
        self.write(c.encode_utf8(&mut [0; 4]), punct.span());
        self.glue = punct.spacing() == Spacing::Joint || matches!(c, '#' | '?');
    }

    fn group(&mut self, group: &Group) {
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => return self.stream(group.stream()),
        };
        self.write(open, group.span_open());
        self.stream(group.stream());
        self.write(close, group.span_close());
    }

    fn literal(&mut self, literal: &Literal) {
        let written = literal.to_string();
        let text = match Lit::new(literal.clone()) {
            Lit::Str(text) if is_same(&written) => text.token().to_string(),
            Lit::Str(text) => quoted(&text.value(), '"'),
            Lit::Char(_) if is_same(&written) => written,
            Lit::Char(c) => quoted(c.value().encode_utf8(&mut [0; 4]), '\''),
            Lit::Int(int) if int.suffix().is_empty() => written,
            Lit::Float(float) if float.suffix().is_empty() => written,
            Lit::Int(_) | Lit::Float(_) => {
                self.errors
                    .on(literal, "numbers of peer-script have no suffix: remove it");
                written
            }
            _ => {
                self.errors
                    .on(literal, "peer-script has no such literal: bind it, `$name`");
                written
            }
        };
        self.write(&text, literal.span());
    }

    /// Writes a token where it stood, or behind the last one.
    fn write(&mut self, text: &str, span: Span) {
        let at = span.start();
        let line = (at.line + 1).saturating_sub(self.first.0);
        let indent = if line == 1 { self.first.1 } else { self.indent };
        let column = (at.column + 1).saturating_sub(indent).max(1);
        let known = (line, column) >= (self.line, self.column) && line - self.line <= FARTHEST;
        if self.glue && !(known && line == self.line) {
            // it belongs to the last one, wherever it came from
        } else if known {
            while self.line < line {
                self.layout.text.push('\n');
                self.line += 1;
                self.column = 1;
            }
            while self.column < column {
                self.layout.text.push(' ');
                self.column += 1;
            }
        } else {
            self.layout.text.push(' ');
            self.column += 1;
        }
        self.layout.places.push((self.line, self.column, span));
        self.layout.text.push_str(text);
        self.column += text.chars().count();
        self.glue = false;
    }
}

/// Whether an identifier between these tokens is a variable of the script, rather than a field, a
/// function, a key or a part of a path.
fn is_variable(before: &[TokenTree], after: Option<&TokenTree>) -> bool {
    let punct = |token: Option<&TokenTree>| match token {
        Some(TokenTree::Punct(punct)) => Some(punct.as_char()),
        _ => None,
    };
    let range = punct(before.iter().nth_back(1)) == Some('.');
    let inner = match punct(before.last()) {
        Some('.') => !range,
        Some(':') => punct(before.iter().nth_back(1)) == Some(':'),
        _ => false,
    };
    let outer = match after {
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Parenthesis,
        after => punct(after) == Some(':'),
    };
    !inner && !outer
}

/// Whether a string or character reads the same in Rust and in peer-script.
fn is_same(written: &str) -> bool {
    if written.starts_with('r') || written.contains(['\n', '\r']) {
        return false;
    }
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && !matches!(chars.next(), Some('n' | 'r' | 't' | '\\' | '"' | 'x')) {
            return false;
        }
    }
    true
}

/// A string or character as peer-script writes it.
fn quoted(value: &str, quote: char) -> String {
    let mut text = String::from(quote);
    for c in value.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            c if c == quote => text.extend(['\\', c]),
            c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", c as u32)),
            c => text.push(c),
        }
    }
    text.push(quote);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        let mut errors = Errors::default();
        let layout = lay_out(source.parse().expect("tokens"), &mut errors);
        assert!(errors.is_empty(), "{}", errors.into_compile_error());
        layout.text
    }

    fn refused(source: &str) -> String {
        let mut errors = Errors::default();
        lay_out(source.parse().expect("tokens"), &mut errors);
        errors.into_compile_error().to_string()
    }

    #[test]
    fn lines_and_columns_hold() {
        let source =
            "let t = 0;\n\n    for i in 0..$n {\n        t += calc::add(i, $step);\n    }\n    t";
        let expected =
            "let t = 0;\n\n    for i in 0.. n {\n        t += calc::add(i,  step);\n    }\n    t";
        assert_eq!(text(source), expected);
    }

    #[test]
    fn indentation_is_taken_off() {
        let source =
            "\n        if $a {\n            x()\n        } else {\n            y()\n        }";
        assert_eq!(text(source), "if  a {\n    x()\n} else {\n    y()\n}");
    }

    #[test]
    fn operators_and_maps_stay_whole() {
        for source in [
            "#{ a: 1, b: #{} }",
            "a ?? b",
            "a?.b",
            "x ** 2 != 3 && !y || z <= 1",
            "for x in 0..=3 { }",
            "switch x { 1 => 2, _ => 3 }",
            "|x| x + 1",
            "-1 + 1_000 + 0xff + 1.5",
        ] {
            assert_eq!(text(source), source);
        }
    }

    #[test]
    fn literals_are_written_as_the_script_reads_them() {
        for (rust, script) in [
            (r#""a\n\"b\\""#, r#""a\n\"b\\""#),
            (r#""\u{e9}\0""#, r#""é\x00""#),
            (r##"r#"a"b\"#"##, r#""a\"b\\""#),
            ("\"a\\\n   b\"", r#""ab""#),
            ("\"a\nb\"", r#""a\nb""#),
            (r"'\''", r"'\''"),
            (r"'\u{41}'", "'A'"),
        ] {
            assert_eq!(text(rust), script);
        }
        for source in ["b\"a\"", "1u8", "1.5f32", "c\"a\"", "b'a'"] {
            assert!(refused(source).contains("peer-script"), "{source}");
        }
    }

    #[test]
    fn tokens_of_several_places_stay_apart() {
        // as macro_rules mixes tokens of its own and of its caller
        let mut tokens: TokenStream = "\n\n\n\n  let x = ".parse().unwrap();
        tokens.extend("#{ a: 1 }; x ".parse::<TokenStream>().unwrap());
        let text = text_of(tokens);
        assert_eq!(text, "let x = #{ a : 1 } ; x");
    }

    fn text_of(tokens: TokenStream) -> String {
        lay_out(tokens, &mut Errors::default()).text
    }

    #[test]
    fn one_name_is_one_variable() {
        assert!(refused("let n = 1; n + $n").contains("same variable"));
        assert!(refused("0..n + $n").contains("same variable"));
        assert_eq!(text("$n.n + n::f() + n(1)"), " n.n + n::f() + n(1)");
        assert_eq!(text("#{ n: $n }"), "#{ n:  n }");
        assert!(refused("$self").contains("no variable"));
        assert!(refused("$new").contains("reserved"));
        assert!(refused("$ + 1").contains("stands before"));
    }
}
