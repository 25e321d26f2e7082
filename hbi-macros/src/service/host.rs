//! The hosting side that is emitted for a service: how each method lands, and the table of them.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{ItemTrait, Type, spanned::Spanned};

use super::{
    expand::{Emitted, beside, docs},
    parse::{Method, Role},
};
use crate::{types::text, words};

pub(super) fn host(of: &Emitted<'_>) -> TokenStream {
    let (root, it, allowed) = (&of.service.root, &of.it, &of.allowed);
    let ItemTrait { ident, vis, .. } = &of.service.item;
    let host = beside(of.service, "Host");
    let text = host.to_string();
    let doc = match of.service.namespace() {
        flat if flat.is_empty() => format!(
            "Hosts a [`{ident}`]: its methods stand in a hosting environment by their names."
        ),
        name => format!("Hosts a [`{ident}`], which scripts of the peer know as `{name}`."),
    };
    let (marker_field, marker) = of.marker().unzip();
    let params = of.generics.params.iter();
    let struct_wheres = &of.generics.where_clause;
    let mut bare = of.generics.clone();
    bare.params.insert(0, syn::parse_quote!(#it));
    let (bare_impl, host_generics, bare_wheres) = bare.split_for_impl();
    let (impl_generics, _, wheres) = of.host_generics.split_for_impl();
    let land = of.methods.iter().map(|method| {
        let (cfgs, name) = (method.attrs("cfg"), land_name(method));
        quote!(#(#cfgs)* Self::#name)
    });
    let lands = of.methods.iter().map(|method| land_method(of, method));
    let table = table(of);
    quote! {
        #[doc = #doc]
        #[allow(dead_code)]
        #(#allowed)*
        #vis struct #host<#it, #(#params),*> #struct_wheres {
            it: ::std::sync::Arc<#it>,
            #marker_field
        }

        #[allow(dead_code, deprecated, unreachable_pub, clippy::all)]
        #(#allowed)*
        impl #impl_generics #host #host_generics #wheres {
            /// Hosts `it`; an `Arc` of a service is one, too.
            #vis fn new(it: #it) -> Self {
                Self { it: ::std::sync::Arc::new(it), #marker }
            }

            const LAND: &'static [#root::service::Land<Self>] = &[#(#land),*];

            #(#lands)*
        }

        #[automatically_derived]
        impl #bare_impl ::core::clone::Clone for #host #host_generics #bare_wheres {
            fn clone(&self) -> Self {
                Self { it: ::core::clone::Clone::clone(&self.it), #marker }
            }
        }

        #[automatically_derived]
        impl #bare_impl ::core::fmt::Debug for #host #host_generics #bare_wheres {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(#text)
            }
        }

        #[automatically_derived]
        #[allow(deprecated)]
        impl #impl_generics #root::service::Service for #host #host_generics #wheres {
            fn table(&self) -> &'static #root::service::Table {
                static TABLE: #root::service::Table = #table;
                &TABLE
            }

            fn land(
                &self,
                method: usize,
                call: #root::service::Incoming<'_>,
            ) -> #root::service::Landed {
                (Self::LAND[method])(self, call)
            }
        }
    }
}

fn land_name(method: &Method) -> Ident {
    format_ident!("land_{}", words::plain(&method.item.sig.ident))
}

/// A private name of the expansion, which no name of the user's can be mistaken for.
fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// How a call of one method lands: arguments decoded, the method called, its answer packed.
fn land_method(of: &Emitted<'_>, method: &Method) -> TokenStream {
    let (root, it) = (&of.service.root, &of.it);
    let (ident, (_, trait_generics, _)) = (&of.service.item.ident, of.generics.split_for_impl());
    let (cfgs, land, name) = (
        method.attrs("cfg"),
        land_name(method),
        &method.item.sig.ident,
    );
    let [object, call, cx, co, args] = ["it", "call", "cx", "co", "args"].map(local);

    let decoded: Vec<_> = (0..method.arguments().count())
        .map(|n| local(&format!("a{n}")))
        .collect();
    let mut rest = decoded.iter();
    let passed = method.params.iter().map(|param| match param.role {
        Role::Caller => quote!(&#cx),
        Role::Conversation => quote!(#co),
        Role::Argument => {
            let argument = rest.next();
            quote!(#argument)
        }
    });
    let run = quote!(<#it as #ident #trait_generics>::#name(&#object, #(#passed),*));
    let run = if method.is_async() {
        quote!(async move { #run.await })
    } else {
        run
    };
    let types = method.arguments().map(|param| &param.ty);
    // the tokens of a type stand where the user wrote it, so that errors about it do, too
    let next = types.map(|ty| quote_spanned!(ty.span()=> #args.next::<#ty>()?));
    let (decode, pattern) = match decoded.is_empty() {
        true => (quote!(|_| ::core::result::Result::Ok(())), quote!(())),
        false => (
            quote!(|#args| ::core::result::Result::Ok((#(#next,)*))),
            quote!((#(#decoded,)*)),
        ),
    };
    let shape = shape(method);
    let run = match method.options.converse {
        Some(_) => quote!(move |#co, #pattern| #run),
        None => quote!(move |#pattern| #run),
    };
    let caller = method.params.iter().any(|param| param.role == Role::Caller);
    let (mutable, caller) = match caller {
        true => (Some(quote!(mut)), Some(quote!(let #cx = #call.caller();))),
        false => (None, None),
    };
    // said first and where the type stands, it is the one error about a type without serde
    let answer = &method.answer;
    let types = method
        .arguments()
        .map(|param| &param.ty)
        .chain([&answer.value])
        .chain(&answer.error);
    let travels = types.map(|ty| quote_spanned!(ty.span()=> #root::service::travels::<#ty>();));
    quote! {
        #(#cfgs)*
        fn #land(&self, #mutable #call: #root::service::Incoming<'_>) -> #root::service::Landed {
            #(#travels)*
            let #object = ::core::clone::Clone::clone(&self.it);
            #caller
            #call.#shape(#decode, #run)
        }
    }
}

/// Which way of landing the method has: the name of a function of `Incoming`, with the type that
/// answers where there is one.
fn shape(method: &Method) -> TokenStream {
    let (options, answer) = (&method.options, &method.answer);
    let ty: &Type = &answer.value;
    let future = method.is_async().then(|| quote!(, _));
    let now = if method.is_async() { "" } else { "_now" };
    let function = |name: &str| Ident::new(&format!("{name}{now}"), ty.span());
    if options.converse.is_some() {
        quote!(converse)
    } else if options.notify.is_some() {
        let effect = function("effect");
        quote!(#effect)
    } else if answer.fallible {
        let result = function("result");
        let inferred = quote_spanned!(answer.written.span()=> _);
        let error = answer
            .error
            .as_ref()
            .map_or(inferred, |error| quote!(#error));
        quote_spanned!(ty.span()=> #result::<_, #ty, #error #future>)
    } else {
        let value = function("value");
        quote_spanned!(ty.span()=> #value::<_, #ty #future>)
    }
}

fn table(of: &Emitted<'_>) -> TokenStream {
    let root = &of.service.root;
    let (name, docs) = (of.service.namespace(), docs(of.service.item.attrs.iter()));
    let methods = of.methods.iter().map(|method| table_row(of, method));
    quote!(#root::service::Table::new(#name, #docs, &[#(#methods),*]))
}

fn table_row(of: &Emitted<'_>, method: &Method) -> TokenStream {
    let (root, options) = (&of.service.root, &method.options);
    let (cfgs, name) = (method.attrs("cfg"), method.name());
    let docs = docs(method.item.attrs.iter());
    let params = method.arguments().filter_map(|param| {
        let (name, ty) = (words::plain(param.ident()?), text(&param.ty));
        Some(quote!(#root::service::Param { name: #name, ty: #ty }))
    });
    let returns = text(&method.answer.written);
    let shape = match (&options.notify, &options.converse) {
        (Some(_), _) => quote!(Notify),
        (_, Some(_)) => quote!(Converse),
        _ => quote!(Value),
    };
    let (cancel, parallel) = (options.no_cancel.is_none(), options.parallel.is_some());
    let idempotent = options.idempotent.is_some();
    quote! {
        #(#cfgs)*
        #root::service::Method {
            name: #name,
            docs: #docs,
            params: &[#(#params),*],
            returns: #returns,
            shape: #root::service::Shape::#shape,
            cancel: #cancel,
            parallel: #parallel,
            idempotent: #idempotent,
        }
    }
}
