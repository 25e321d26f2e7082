//! What serde's attributes say of a struct's fields: their names on the wire.

use proc_macro2::TokenStream;
use syn::{
    Attribute, Expr, ExprLit, Field, Lit, Meta, Token, parse::Parser, punctuated::Punctuated,
};

use crate::{errors::Errors, options::metas, words};

/// How fields are named on the wire.
#[derive(Default)]
pub(crate) struct FieldNames {
    /// `rename_all`, as it serializes.
    rule: Option<String>,
}

impl FieldNames {
    /// The rule of a type with these attributes.
    pub(crate) fn new(attrs: &[Attribute], errors: &mut Errors) -> Self {
        Self {
            rule: renamed(&metas(attrs, "serde", errors), "rename_all"),
        }
    }

    /// The name of a field; `None` for one without, of a tuple struct.
    pub(crate) fn of(&self, field: &Field) -> Option<String> {
        let plain = words::plain(field.ident.as_ref()?);
        // what does not parse is reported by serde's own derive
        let metas = metas(&field.attrs, "serde", &mut Errors::default());
        Some(
            renamed(&metas, "rename").unwrap_or_else(|| match &self.rule {
                Some(rule) => words::rename_all(rule, &plain).unwrap_or(plain),
                None => plain,
            }),
        )
    }
}

/// The name that `rename = "..."` or `rename(serialize = "...")` gives.
fn renamed(metas: &[Meta], option: &str) -> Option<String> {
    metas.iter().find_map(|meta| match meta {
        Meta::NameValue(pair) if pair.path.is_ident(option) => text(&pair.value),
        Meta::List(list) if list.path.is_ident(option) => serialized(list.tokens.clone()),
        _ => None,
    })
}

fn serialized(tokens: TokenStream) -> Option<String> {
    let pairs = Punctuated::<syn::MetaNameValue, Token![,]>::parse_terminated
        .parse2(tokens)
        .ok()?;
    pairs
        .iter()
        .find(|pair| pair.path.is_ident("serialize"))
        .and_then(|pair| text(&pair.value))
}

fn text(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}
