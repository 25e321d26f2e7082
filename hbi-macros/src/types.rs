//! Looking at types as they are written.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericArgument, PathArguments, PathSegment, Type, TypePath, visit::Visit};

/// The last segment of a type that is a path: `Items<T>` of `hbi::Items<T>`.
pub(crate) fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last(),
        Type::Paren(inner) => last_segment(&inner.elem),
        Type::Group(inner) => last_segment(&inner.elem),
        _ => None,
    }
}

/// Whether the last segment of a type is this.
pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == name)
}

/// Whether a type with this last segment stands in it, at any depth.
pub(crate) fn mentions(ty: &Type, name: &str) -> bool {
    struct Mentions<'a>(&'a str, bool);
    impl<'ast> Visit<'ast> for Mentions<'_> {
        fn visit_type_path(&mut self, path: &'ast TypePath) {
            let last = path.path.segments.last();
            self.1 |= last.is_some_and(|last| last.ident == self.0);
            syn::visit::visit_type_path(self, path);
        }
    }
    let mut mentions = Mentions(name, false);
    mentions.visit_type(ty);
    mentions.1
}

/// The type arguments of the last segment: `T` and `E` of `Result<T, E>`.
pub(crate) fn type_arguments(ty: &Type) -> Vec<&Type> {
    match last_segment(ty).map(|segment| &segment.arguments) {
        Some(PathArguments::AngleBracketed(arguments)) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether this is `()`.
pub(crate) fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// A type as one would write it, for people: `Result<Vec<i64>, E>`.
pub(crate) fn text(ty: &impl ToTokens) -> String {
    let mut text = String::new();
    write(ty.to_token_stream(), &mut text);
    text
}

fn write(tokens: TokenStream, text: &mut String) {
    let mut word = false;
    let mut joint = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                write(group.stream(), text);
                text.push_str(close);
                word = false;
            }
            TokenTree::Punct(punct) => {
                let c = punct.as_char();
                let spaced =
                    matches!(c, '+' | '=') || (c == '-' && punct.spacing() == Spacing::Joint);
                if spaced && !joint {
                    text.push(' ');
                }
                text.push(c);
                let arrow = c == '>' && text.ends_with("->");
                if matches!(c, ',' | ';' | '+' | '=') || arrow {
                    text.push(' ');
                }
                joint = punct.spacing() == Spacing::Joint;
                word = false;
                continue;
            }
            other => {
                if word {
                    text.push(' ');
                }
                text.push_str(&other.to_string());
                word = true;
            }
        }
        joint = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_they_are_written() {
        for written in [
            "i64",
            "()",
            "hbi::Items<Vec<i64>>",
            "Result<(FileMeta, hbi::Data), FileError>",
            "[u8; 4]",
            "Box<dyn Fn(i64) -> i64 + Send>",
            "<T as Kind>::Key",
            "Cow<'static, str>",
        ] {
            let ty: Type = syn::parse_str(written).expect("a type");
            assert_eq!(text(&ty), written);
        }
    }
}
