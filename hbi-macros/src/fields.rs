//! `#[derive(hbi::Fields)]`: the fields of a struct that a call will answer.
//!
//! ```text
//! Input:
//!     #[derive(hbi::Fields, serde::Serialize, serde::Deserialize)]
//!     pub struct Msg {
//!         /// What was said.
//!         pub text: String,
//!     }
//!
//! Output:
//!     /// The fields of a [`Msg`] that a call will answer.
//!     pub trait MsgFields {
//!         /// What was said.
//!         fn text(&self) -> Call<String>;
//!     }
//!     impl<__HbiE, __HbiB> MsgFields for Call<Msg, __HbiE, __HbiB> {
//!         fn text(&self) -> Call<String> { self.field::<String>("text") }
//!     }
//! ```

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Fields, Ident, Meta, Path, Type, parse_quote};

use crate::{
    errors::Errors,
    options::{self, metas},
    serde_attrs::FieldNames,
    words,
};

/// Methods of each call, which a trait's of the same names would stand behind.
const OF_CALLS: [&str; 4] = ["field", "is_idempotent", "send", "within"];

/// A field that a pending value can be asked for.
struct Pending {
    docs: Vec<Attribute>,
    ident: Ident,
    ty: Type,
    /// Its name in scripts and on the wire.
    name: String,
}

pub(crate) fn fields(input: DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let root = root(&input, &mut errors);
    let fields = parse(&input, &mut errors);
    match errors.is_empty() {
        true => expand(&root, &input, &fields),
        false => errors.into_compile_error(),
    }
}

fn root(input: &DeriveInput, errors: &mut Errors) -> Path {
    let mut root = parse_quote!(::hbi);
    for meta in metas(&input.attrs, "hbi", errors) {
        match &meta {
            Meta::NameValue(pair) if pair.path.is_ident("crate") => {
                root = options::path(&pair.value, errors).unwrap_or(root);
            }
            // of `#[derive(hbi::Value)]`
            Meta::NameValue(pair) if pair.path.is_ident("name") => {}
            _ => errors.on(&meta, "expected `crate = path`"),
        }
    }
    root
}

fn parse(input: &DeriveInput, errors: &mut Errors) -> Vec<Pending> {
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => &fields.named,
            _ => {
                errors.on(&input.ident, "this struct has no named fields");
                return Vec::new();
            }
        },
        _ => {
            errors.on(&input.ident, "only a struct has fields");
            return Vec::new();
        }
    };
    if let Some(lifetime) = input.generics.lifetimes().next() {
        errors.on(
            lifetime,
            "what a call answers has no lifetimes: own what it holds",
        );
    }
    let names = FieldNames::new(&input.attrs, errors);
    let mut pending = Vec::new();
    for field in fields {
        let serde = metas(&field.attrs, "serde", errors);
        let hidden = ["flatten", "skip", "skip_serializing"];
        if serde
            .iter()
            .any(|meta| hidden.iter().any(|name| meta.path().is_ident(name)))
        {
            continue;
        }
        let (Some(ident), Some(name)) = (&field.ident, names.of(field)) else {
            continue;
        };
        if let Some(why) = words::refuse(&name) {
            let message =
                format!("{why}: give the field another with `#[serde(rename = \"...\")]`");
            errors.on(ident, message);
        }
        let plain = words::plain(ident);
        if OF_CALLS.contains(&&*plain) {
            let message = format!(
                "a call has a method `{plain}` of its own: name the field otherwise, and give it \
                 `#[serde(rename = \"{name}\")]`"
            );
            errors.on(ident, message);
        }
        let docs = field
            .attrs
            .iter()
            .filter(|attr| attr.path().is_ident("doc"))
            .cloned();
        let (ident, ty) = (ident.clone(), field.ty.clone());
        pending.push(Pending {
            docs: docs.collect(),
            ident,
            ty,
            name,
        });
    }
    pending
}

fn expand(root: &Path, input: &DeriveInput, fields: &[Pending]) -> TokenStream {
    let (ident, vis) = (&input.ident, &input.vis);
    let name = format_ident!("{ident}Fields");
    let doc =
        format!("The fields of a [`{ident}`] that a call will answer, in the same round trip.");
    let (impl_generics, generics, wheres) = input.generics.split_for_impl();
    let mut with_error = input.generics.clone();
    with_error.params.push(parse_quote!(__HbiE));
    with_error.params.push(parse_quote!(__HbiB));
    let (impl_with_error, ..) = with_error.split_for_impl();
    let declared = fields.iter().map(
        |Pending {
             docs, ident, ty, ..
         }| {
            let doc = match docs.is_empty() {
                true => {
                    let doc = format!("The field `{}`.", words::plain(ident));
                    quote!(#[doc = #doc])
                }
                false => quote!(#(#docs)*),
            };
            quote!(#doc fn #ident(&self) -> #root::service::Call<#ty>;)
        },
    );
    let implemented = fields.iter().map(
        |Pending {
             ident, ty, name, ..
         }| {
            quote! {
                fn #ident(&self) -> #root::service::Call<#ty> {
                    #root::service::Call::field::<#ty>(self, #name)
                }
            }
        },
    );
    quote! {
        #[doc = #doc]
        #[allow(dead_code, private_interfaces)]
        #vis trait #name #impl_generics #wheres { #(#declared)* }

        #[automatically_derived]
        impl #impl_with_error #name #generics
            for #root::service::Call<#ident #generics, __HbiE, __HbiB> #wheres
        {
            #(#implemented)*
        }
    }
}
