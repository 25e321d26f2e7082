//! `hbi::script!`: peer-script in Rust source, as tokens or as text.
//!
//! ```text
//! Input:
//!     hbi::script! { calc::add($a, $b) }
//!     hbi::script!("calc::add(a, b)", a, b = 2)
//!
//! Output:
//!     ::hbi::Script::new("calc::add( a,  b)").bind("a", a).bind("b", b)
//!     ::hbi::Script::new("calc::add(a, b)").bind("a", a).bind("b", 2)
//! ```

mod layout;
mod syntax;

use proc_macro2::{TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::{
    Expr, ExprLit, ExprPath, Ident, Lit, LitStr, Token,
    parse::{Parse, ParseStream},
    parse_quote,
    punctuated::Punctuated,
};

use crate::{errors::Errors, words};

pub(crate) fn script(input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let script = match is_text(&input) {
        true => match syn::parse2::<Text>(input) {
            Ok(text) => text.script(&mut errors),
            Err(error) => return error.into_compile_error(),
        },
        false => tokens(input, &mut errors),
    };
    if errors.is_empty() {
        return script;
    }
    // several errors are no expression, and what uses the script is no error of its own
    let errors = errors.into_compile_error();
    quote!({ #errors ::hbi::Script::new("") })
}

/// Whether this is the form with text: a string, alone or with bindings behind it.
fn is_text(input: &TokenStream) -> bool {
    let mut tokens = input.clone().into_iter();
    match (tokens.next(), tokens.next()) {
        (Some(TokenTree::Literal(text)), None) => is_string(&text),
        (Some(TokenTree::Literal(text)), Some(TokenTree::Punct(comma))) => {
            is_string(&text) && comma.as_char() == ','
        }
        _ => false,
    }
}

fn is_string(literal: &proc_macro2::Literal) -> bool {
    matches!(Lit::new(literal.clone()), Lit::Str(_))
}

/// A script of tokens: the variables after `$` are bound.
fn tokens(input: TokenStream, errors: &mut Errors) -> TokenStream {
    let layout = layout::lay_out(input, errors);
    if errors.is_empty() {
        syntax::check_tokens(&layout, errors);
    }
    let captures = layout.captures.iter();
    let bound = captures.map(|ident| (words::plain(ident), parse_quote!(#ident), ident.span()));
    emit(&layout.text, bound)
}

fn emit(text: &str, bound: impl Iterator<Item = (String, Expr, proc_macro2::Span)>) -> TokenStream {
    let bind = bound.map(|(name, value, span)| quote_spanned!(span=> .bind(#name, #value)));
    quote!(::hbi::Script::new(#text) #(#bind)*)
}

/// The form with text: `"...", a, b = 2`.
struct Text {
    source: LitStr,
    bindings: Punctuated<Binding, Token![,]>,
}

struct Binding {
    name: Ident,
    value: Expr,
}

impl Parse for Text {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let source = input.parse()?;
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
        Ok(Self {
            source,
            bindings: Punctuated::parse_terminated(input)?,
        })
    }
}

impl Parse for Binding {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name: Ident = input.parse()?;
        let value = match input.parse::<Option<Token![=]>>()? {
            Some(_) => input.parse()?,
            None => Expr::Path(ExprPath {
                attrs: Vec::new(),
                qself: None,
                path: name.clone().into(),
            }),
        };
        Ok(Self { name, value })
    }
}

impl Text {
    fn script(&self, errors: &mut Errors) -> TokenStream {
        let text = self.source.value();
        let mut names = Vec::new();
        for Binding { name, .. } in &self.bindings {
            let plain = words::plain(name);
            if let Some(why) = words::refuse(&plain) {
                errors.on(name, format!("{why}: bind it under another name"));
            } else if names.contains(&plain) {
                errors.on(name, format!("`{plain}` is bound twice"));
            } else if !mentions(&text, &plain) {
                errors.on(name, format!("the script does not use `{plain}`"));
            }
            names.push(plain);
        }
        syntax::check_text(&self.source, &text, errors);
        let bound = self.bindings.iter().map(|Binding { name, value }| {
            let span = match value {
                Expr::Lit(ExprLit { lit, .. }) => lit.span(),
                _ => name.span(),
            };
            (words::plain(name), value.clone(), span)
        });
        emit(&text, bound)
    }
}

/// Whether a text has this word in it.
fn mentions(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(input: &str) -> String {
        script(input.parse().expect("tokens"))
            .to_string()
            .replace(' ', "")
    }

    #[test]
    fn tokens_bind_each_variable_once() {
        assert_eq!(
            expanded("calc::add($a, $b) + $a"),
            "::hbi::Script::new(\"calc::add(a,b)+a\").bind(\"a\",a).bind(\"b\",b)"
        );
    }

    #[test]
    fn text_binds_what_stands_behind_it() {
        assert_eq!(
            expanded("\"add(a, `${b}`)\", a, b = x + 1,"),
            "::hbi::Script::new(\"add(a,`${b}`)\").bind(\"a\",a).bind(\"b\",x+1)"
        );
        assert_eq!(expanded("\"1 + 1\""), "::hbi::Script::new(\"1+1\")");
    }

    #[test]
    fn text_refuses_bindings_that_do_nothing() {
        for (input, why) in [
            ("\"a + b\", a, c = 2", "does not use `c`"),
            ("\"a\", a, a = 1", "bound twice"),
            ("\"new\", new", "reserved"),
        ] {
            assert!(
                script(input.parse().unwrap()).to_string().contains(why),
                "{input}"
            );
        }
    }
}
