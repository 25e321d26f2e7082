//! Which types cannot stand in the signature of an exposed method, and what to write instead. That
//! a type has serde's traits is left to the compiler.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{
    AssocType, Lifetime, Type, TypeImplTrait, TypeParamBound, TypePath, TypeReference, visit::Visit,
};

use super::parse::Method;
use crate::types::{is_named, text};

type Refuse<'a> = dyn FnMut(&dyn ToTokens, String) + 'a;

pub(super) fn check_argument(ty: &Type, stub: &str, refuse: &mut Refuse<'_>) {
    if is_named(ty, "Caller") {
        refuse(
            ty,
            "who calls is lent to the method: `cx: &Caller`".to_owned(),
        );
        return;
    }
    let mut visitor = Visitor {
        answer: None,
        stub,
        refuse,
    };
    visitor.visit_type(ty);
}

pub(super) fn check_answer(method: &Method, stub: &str, refuse: &mut Refuse<'_>) {
    let mut visitor = Visitor {
        answer: Some(method),
        stub,
        refuse,
    };
    visitor.visit_type(&method.answer.written);
}

/// Looks through a type, at any depth.
struct Visitor<'a, 'b> {
    /// The method whose answer this is; `None` for an argument.
    answer: Option<&'a Method>,
    stub: &'a str,
    refuse: &'a mut Refuse<'b>,
}

impl<'ast> Visit<'ast> for Visitor<'_, '_> {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let owned = owned(&reference.elem);
        let message = match self.answer {
            Some(_) => format!("an answer travels, so it is owned: `{owned}`"),
            None => format!("arguments come from the wire, take them owned: `{owned}`"),
        };
        (self.refuse)(reference, message);
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
        let message = match self.answer {
            Some(method) => match future_output(ty) {
                Some(output) => format!(
                    "write `async fn {}(..) -> {}`: the macro makes the future of it",
                    method.item.sig.ident,
                    text(&output)
                ),
                None => "`impl Trait` has no name for the peer to receive: return the type, \
                         `hbi::Items<T>` for a stream of items or `hbi::Data` for bytes"
                    .to_owned(),
            },
            None => "`impl Trait` has no name for the peer to send: write the type, \
                     `hbi::Items<T>` for a stream of items or `hbi::Data` for bytes"
                .to_owned(),
        };
        (self.refuse)(ty, message);
    }

    fn visit_type_path(&mut self, path: &'ast TypePath) {
        if path
            .path
            .segments
            .first()
            .is_some_and(|first| first.ident == "Self")
        {
            let message = if path.path.segments.len() > 1 {
                "a service has no associated types: write the type".to_owned()
            } else {
                format!(
                    "a service object does not travel; pass it by reference: `hbi::Reactor<{}>`",
                    self.stub
                )
            };
            (self.refuse)(path, message);
            return;
        }
        syn::visit::visit_type_path(self, path);
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if lifetime.ident != "static" {
            (self.refuse)(
                lifetime,
                "what travels has no lifetimes: write the owned type, or `'static`".to_owned(),
            );
        }
    }
}

/// What to take in place of a reference.
fn owned(referenced: &Type) -> String {
    match referenced {
        Type::Slice(slice) => format!("Vec<{}>", text(&slice.elem)),
        ty if is_named(ty, "str") => "String".to_owned(),
        ty if is_named(ty, "Path") => "PathBuf".to_owned(),
        ty => text(ty),
    }
}

/// `T` of `impl Future<Output = T>`.
fn future_output(ty: &TypeImplTrait) -> Option<TokenStream> {
    struct Output(Option<TokenStream>);
    impl<'ast> Visit<'ast> for Output {
        fn visit_assoc_type(&mut self, assoc: &'ast AssocType) {
            if assoc.ident == "Output" && self.0.is_none() {
                self.0 = Some(assoc.ty.to_token_stream());
            }
        }
    }
    let mut output = Output(None);
    ty.bounds
        .iter()
        .filter(|bound| is_future(bound))
        .for_each(|b| output.visit_type_param_bound(b));
    output.0
}

fn is_future(bound: &TypeParamBound) -> bool {
    matches!(bound, TypeParamBound::Trait(bound)
        if bound.path.segments.last().is_some_and(|last| last.ident == "Future"))
}
