//! What attributes say: lists of options, and the values of those.

use syn::{Attribute, Expr, ExprLit, Lit, LitStr, Meta, Path, Token, punctuated::Punctuated};

use crate::errors::Errors;

/// What stands in the attributes of a name: `a` and `b = "c"` of `#[serde(a, b = "c")]`.
pub(crate) fn metas(attrs: &[Attribute], name: &str, errors: &mut Errors) -> Vec<Meta> {
    let mut metas = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident(name)) {
        match attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) {
            Ok(list) => metas.extend(list),
            Err(error) => errors.add(error),
        }
    }
    metas
}

/// The string of `name = "..."`.
pub(crate) fn string(value: &Expr, errors: &mut Errors) -> Option<LitStr> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text.clone()),
        other => {
            errors.on(other, "expected a string: `\"...\"`");
            None
        }
    }
}

/// The path of `crate = path`.
pub(crate) fn path(value: &Expr, errors: &mut Errors) -> Option<Path> {
    match value {
        Expr::Path(path) => Some(path.path.clone()),
        other => {
            errors.on(other, "expected a path: `crate = path`");
            None
        }
    }
}
