//! `#[derive(hbi::Value)]`: a type that scripts construct by its name.
//!
//! ```text
//! Input:
//!     #[derive(hbi::Value)]
//!     pub struct Msg { nick: String, #[serde(default)] stars: u8 }
//!
//! Output:
//!     const _: () = {
//!         #[derive(Serialize, Deserialize)]
//!         #[serde(remote = "Msg", rename = "Msg")]
//!         struct Mirror { nick: String, #[serde(default)] stars: u8 }
//!
//!         impl Serialize for Msg { .. }          // a newtype struct "$hbi::Value" around the mirror
//!         impl<'de> Deserialize<'de> for Msg { .. }
//!         impl Display for Msg { .. }            // Msg("Nick", 3)
//!         impl Constructor for Msg {
//!             const NAME: &'static str = "Msg";
//!             const FIELDS: &'static [&'static str] = &["nick", "stars"];
//!             fn construct(args: &mut Args<'_>) -> Result<Self, Failure> {
//!                 Ok(Self { nick: args.next::<String>()?, stars: args.next::<u8>()? })
//!             }
//!         }
//!     };
//! ```

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Attribute, Data, DeriveInput, Field, Fields, Ident, LitStr, Member, Path, parse_quote,
    punctuated::Punctuated, spanned::Spanned,
};

use crate::{
    errors::Errors,
    options::{self, metas},
    serde_attrs::FieldNames,
    words,
};

/// What serde is told of the newtype around a value: the mark by which hbi knows a constructor.
const MARK: &str = "$hbi::Value";

/// A type under `#[derive(hbi::Value)]`.
struct Value {
    root: Path,
    ident: Ident,
    /// The name in scripts.
    name: String,
    /// Attributes of serde that hold for the whole type.
    serde: Vec<Attribute>,
    fields: Fields,
    /// The fields' names in scripts and on the wire.
    names: Vec<String>,
}

pub(crate) fn value(input: DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let value = Value::parse(&input, &mut errors);
    match value.filter(|_| errors.is_empty()) {
        Some(value) => expand(&value),
        None => errors.into_compile_error(),
    }
}

impl Value {
    fn parse(input: &DeriveInput, errors: &mut Errors) -> Option<Self> {
        let Data::Struct(data) = &input.data else {
            errors.on(
                &input.ident,
                "a value that scripts construct is a struct: derive serde's traits for this, it \
                 travels without a constructor",
            );
            return None;
        };
        if !input.generics.params.is_empty() {
            errors.on(
                &input.generics,
                "a value that scripts construct by its name cannot be generic: write the types",
            );
        }
        let mut value = Self {
            root: parse_quote!(::hbi),
            name: words::plain(&input.ident),
            ident: input.ident.clone(),
            serde: Vec::new(),
            fields: data.fields.clone(),
            names: Vec::new(),
        };
        let mut named: Option<LitStr> = None;
        for meta in metas(&input.attrs, "hbi", errors) {
            match (
                &meta,
                meta.path().get_ident().map(Ident::to_string).as_deref(),
            ) {
                (syn::Meta::NameValue(pair), Some("name")) => {
                    named = options::string(&pair.value, errors);
                }
                (syn::Meta::NameValue(pair), Some("crate")) => {
                    value.root = options::path(&pair.value, errors).unwrap_or(value.root);
                }
                _ => errors.on(&meta, "expected `name = \"...\"` or `crate = path`"),
            }
        }
        if let Some(name) = &named {
            value.name = name.value();
        }
        if let Some(why) = words::refuse(&value.name) {
            match &named {
                Some(name) => errors.on(name, format!("{why}: choose another")),
                None => errors.on(
                    &input.ident,
                    format!("{why}: give scripts another with `#[hbi(name = \"...\")]`"),
                ),
            }
        }
        value.serde(&input.attrs, errors);
        Some(value)
    }

    /// Takes over what serde is told, as far as it leaves a field to each argument.
    fn serde(&mut self, attrs: &[Attribute], errors: &mut Errors) {
        for meta in metas(attrs, "serde", errors) {
            if meta.path().is_ident("deny_unknown_fields") {
                self.serde.push(parse_quote!(#[serde(#meta)]));
            } else {
                errors.on(
                    &meta,
                    "a value that scripts construct takes `deny_unknown_fields` only: `default` \
                     stands on fields, and the name is set with `#[hbi(name = \"...\")]`",
                );
            }
        }
        let names = FieldNames::default();
        for (at, field) in self.fields.iter_mut().enumerate() {
            for meta in metas(&field.attrs, "serde", errors) {
                if !["default", "rename", "alias"]
                    .iter()
                    .any(|known| meta.path().is_ident(known))
                {
                    errors.on(
                        &meta,
                        "a field of a value that scripts construct takes `default`, `rename` and \
                         `alias` only: each argument of the constructor is a field",
                    );
                }
            }
            self.names
                .push(names.of(field).unwrap_or_else(|| at.to_string()));
            field.attrs.retain(|attr| attr.path().is_ident("serde"));
        }
    }
}

fn expand(value: &Value) -> TokenStream {
    let mirror = mirror(value);
    let serialize = serialize(value);
    let deserialize = deserialize(value);
    let display = display(value);
    let constructor = constructor(value);
    quote! {
        const _: () = { #mirror #serialize #deserialize #display #constructor };
    }
}

/// The same fields again, for serde's own derives: it makes and reads the type itself.
fn mirror(value: &Value) -> TokenStream {
    let Value {
        root,
        ident,
        name,
        serde,
        fields,
        ..
    } = value;
    let (remote, krate) = (ident.to_string(), quote!(#root::service::serde).to_string());
    let list = fields.iter().map(
        |Field {
             attrs, ident, ty, ..
         }| match ident {
            Some(ident) => quote!(#(#attrs)* #ident: #ty),
            None => quote!(#(#attrs)* #ty),
        },
    );
    let body = match fields {
        Fields::Named(_) => quote!({ #(#list),* }),
        Fields::Unnamed(_) => quote!((#(#list),*);),
        Fields::Unit => quote!(;),
    };
    quote! {
        #[derive(#root::service::serde::Serialize, #root::service::serde::Deserialize)]
        #[serde(crate = #krate, remote = #remote, rename = #name)]
        #(#serde)*
        #[allow(dead_code)]
        struct __HbiMirror #body
    }
}

fn serialize(Value { root, ident, .. }: &Value) -> TokenStream {
    let serde = quote!(#root::service::serde);
    quote! {
        struct __HbiMirrored<'a>(&'a #ident);

        #[automatically_derived]
        impl #serde::Serialize for __HbiMirrored<'_> {
            fn serialize<__S: #serde::Serializer>(
                &self,
                serializer: __S,
            ) -> ::core::result::Result<__S::Ok, __S::Error> {
                __HbiMirror::serialize(self.0, serializer)
            }
        }

        #[automatically_derived]
        impl #serde::Serialize for #ident {
            fn serialize<__S: #serde::Serializer>(
                &self,
                serializer: __S,
            ) -> ::core::result::Result<__S::Ok, __S::Error> {
                serializer.serialize_newtype_struct(#MARK, &__HbiMirrored(self))
            }
        }
    }
}

fn deserialize(
    Value {
        root, ident, name, ..
    }: &Value,
) -> TokenStream {
    let serde = quote!(#root::service::serde);
    // formats that know no newtype structs show what is in them
    let shown = [("visit_map", "MapAccess"), ("visit_seq", "SeqAccess")].map(|(visit, access)| {
        let (visit, deserializer) = (
            format_ident!("{visit}"),
            format_ident!("{access}Deserializer"),
        );
        let access = format_ident!("{access}");
        quote! {
            fn #visit<__A: #serde::de::#access<'de>>(
                self,
                access: __A,
            ) -> ::core::result::Result<#ident, __A::Error> {
                __HbiMirror::deserialize(#serde::de::value::#deserializer::new(access))
            }
        }
    });
    quote! {
        struct __HbiVisitor;

        #[automatically_derived]
        impl<'de> #serde::de::Visitor<'de> for __HbiVisitor {
            type Value = #ident;

            fn expecting(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(#name)
            }

            fn visit_newtype_struct<__D: #serde::Deserializer<'de>>(
                self,
                deserializer: __D,
            ) -> ::core::result::Result<#ident, __D::Error> {
                __HbiMirror::deserialize(deserializer)
            }

            #(#shown)*
        }

        #[automatically_derived]
        impl<'de> #serde::Deserialize<'de> for #ident {
            fn deserialize<__D: #serde::Deserializer<'de>>(
                deserializer: __D,
            ) -> ::core::result::Result<Self, __D::Error> {
                deserializer.deserialize_newtype_struct(#MARK, __HbiVisitor)
            }
        }
    }
}

fn display(Value { root, ident, .. }: &Value) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::core::fmt::Display for #ident {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                #root::service::write_literal(f, self)
            }
        }
    }
}

fn constructor(value: &Value) -> TokenStream {
    let Value {
        root,
        ident,
        name,
        names,
        fields,
        ..
    } = value;
    let args = Ident::new("args", proc_macro2::Span::mixed_site());
    let made: Punctuated<TokenStream, syn::Token![,]> = fields
        .iter()
        .enumerate()
        .map(|(at, Field { ident, ty, .. })| {
            let member = ident.clone().map_or(Member::from(at), Member::from);
            quote_spanned!(ty.span()=> #member: #args.next::<#ty>()?)
        })
        .collect();
    quote! {
        #[automatically_derived]
        impl #root::service::Constructor for #ident {
            const NAME: &'static str = #name;
            const FIELDS: &'static [&'static str] = &[#(#names),*];

            fn construct(
                #args: &mut #root::service::Args<'_>,
            ) -> ::core::result::Result<Self, #root::Failure> {
                let _ = &#args;
                ::core::result::Result::Ok(Self { #made })
            }
        }
    }
}
