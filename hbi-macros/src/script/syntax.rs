//! The check of a script's syntax while the program compiles, by the interpreter's own parser; with
//! the feature `checked`.

use syn::LitStr;

use super::layout::Layout;
use crate::errors::Errors;

/// Checks a script of tokens: the error stands on the token.
#[cfg(feature = "checked")]
pub(crate) fn check_tokens(layout: &Layout, errors: &mut Errors) {
    let Some((message, line, column)) = parse(&layout.text) else {
        return;
    };
    let before = |&&(l, c, _): &&(usize, usize, _)| (l, c) <= (line, column);
    match layout.places.iter().take_while(before).last() {
        Some((.., span)) => errors.at(*span, message),
        None => errors.at(proc_macro2::Span::call_site(), message),
    }
}

/// Checks a script of text: the error stands on the text, and says where in it.
#[cfg(feature = "checked")]
pub(crate) fn check_text(source: &LitStr, text: &str, errors: &mut Errors) {
    let Some((message, line, column)) = parse(text) else {
        return;
    };
    let shown = text.lines().nth(line - 1).unwrap_or_default();
    let mark = " ".repeat(column - 1) + "^";
    let message = format!("{message} (line {line}, column {column})\n{shown}\n{mark}");
    errors.on(source, message);
}

/// What is wrong with a script, and where: line and column, counted from 1.
#[cfg(feature = "checked")]
fn parse(text: &str) -> Option<(String, usize, usize)> {
    let mut engine = rhai::Engine::new_raw();
    engine.set_optimization_level(rhai::OptimizationLevel::None);
    // how deep a script may nest is for the peer to say
    engine.set_max_expr_depths(0, 0);
    let error = engine.compile(text).err()?;
    let end = || {
        let last = text.lines().last().unwrap_or_default();
        (text.lines().count().max(1), last.chars().count() + 1)
    };
    let (line, column) = match (error.1.line(), error.1.position()) {
        (Some(line), column) => (line, column.unwrap_or(1).max(1)),
        (None, _) => end(),
    };
    Some((format!("peer-script: {}", error.0), line, column))
}

#[cfg(not(feature = "checked"))]
pub(crate) fn check_tokens(_layout: &Layout, _errors: &mut Errors) {}

#[cfg(not(feature = "checked"))]
pub(crate) fn check_text(_source: &LitStr, _text: &str, _errors: &mut Errors) {}

#[cfg(all(test, feature = "checked"))]
mod tests {
    use super::*;
    use crate::script::layout::lay_out;

    /// Where the error of a script of tokens stands in the source: line, and column from 0.
    fn place(source: &str) -> (usize, usize) {
        let mut errors = Errors::default();
        let layout = lay_out(source.parse().expect("tokens"), &mut errors);
        let (_, line, column) = parse(&layout.text).expect("an error");
        check_tokens(&layout, &mut errors);
        assert!(!errors.is_empty());
        let before = |&&(l, c, _): &&(usize, usize, _)| (l, c) <= (line, column);
        let at = layout
            .places
            .iter()
            .take_while(before)
            .last()
            .expect("a token")
            .2
            .start();
        (at.line, at.column)
    }

    #[test]
    fn the_error_stands_on_its_token() {
        assert_eq!(place("let t = 0;\n  for i on 0..3 { }"), (2, 8));
        assert_eq!(place("calc::add(1, $n) 2"), (1, 17));
        assert_eq!(place("\n\n    let match = 1;"), (3, 8));
    }

    #[test]
    fn good_scripts_pass() {
        for source in [
            "let t = 0; for i in 0..n { t += calc::add(i, step); } t",
            "#{ a: [1, 2], b: `x${y}` }",
            "env.name = 1; try { a() } catch (e) { throw e }",
        ] {
            assert_eq!(parse(source), None);
        }
        assert!(parse("let = 1").is_some_and(|(text, ..)| text.starts_with("peer-script: ")));
        assert_eq!(parse("f(1").map(|(_, line, _)| line), Some(1));
    }
}
