//! The posting side that is emitted for a service: a stub, whose methods make calls.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Attribute, ItemTrait, spanned::Spanned};

use super::{
    expand::{Emitted, allowed, beside},
    parse::Method,
};

pub(super) fn stub(of: &Emitted<'_>) -> TokenStream {
    let (root, allowed) = (&of.service.root, &of.allowed);
    let ItemTrait { ident, vis, .. } = &of.service.item;
    let stub = beside(of.service, "Stub");
    let text = stub.to_string();
    let doc = format!(
        "Calls a peer's [`{ident}`]. Nothing is sent before what a method returns is awaited, or \
         sent.\n\nCloning is cheap: all clones call the same object."
    );
    let (marker_field, marker) = of.marker().unzip();
    let params = of.generics.params.iter();
    let struct_wheres = &of.generics.where_clause;
    let (impl_generics, stub_generics, wheres) = of.generics.split_for_impl();
    let methods = of.methods.iter().map(|method| stub_method(of, method));
    quote! {
        #[doc = #doc]
        #[allow(dead_code)]
        #(#allowed)*
        #vis struct #stub<#(#params),*> #struct_wheres {
            target: #root::service::Target,
            #marker_field
        }

        #[allow(dead_code, unreachable_pub, clippy::all)]
        #(#allowed)*
        impl #impl_generics #stub #stub_generics #wheres {
            /// A stub of the service that a peer hosts.
            #vis fn new(peer: &impl ::core::convert::AsRef<#root::PostingEnd>) -> Self {
                Self { target: #root::service::Target::peer(peer.as_ref()), #marker }
            }

            #(#methods)*
        }

        #[automatically_derived]
        impl #impl_generics ::core::clone::Clone for #stub #stub_generics #wheres {
            fn clone(&self) -> Self {
                Self { target: ::core::clone::Clone::clone(&self.target), #marker }
            }
        }

        #[automatically_derived]
        impl #impl_generics ::core::fmt::Debug for #stub #stub_generics #wheres {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_tuple(#text).field(&self.target).finish()
            }
        }

        #[automatically_derived]
        impl #impl_generics #root::service::Stub for #stub #stub_generics #wheres {
            fn over(target: #root::service::Target) -> Self {
                Self { target, #marker }
            }

            fn target(&self) -> &#root::service::Target {
                &self.target
            }
        }
    }
}

fn stub_method(of: &Emitted<'_>, method: &Method) -> TokenStream {
    let root = &of.service.root;
    let (vis, name) = (&of.service.item.vis, &method.item.sig.ident);
    let attrs = method.item.attrs.iter().filter(|attr| is_carried(attr));
    let allowed = allowed(&method.item.attrs);
    let (idents, types): (Vec<_>, Vec<_>) = method
        .arguments()
        .filter_map(|param| Some((param.ident()?, &param.ty)))
        .unzip();
    let params = idents
        .iter()
        .zip(&types)
        .map(|(ident, ty)| quote_spanned!(ty.span()=> #ident: impl #root::service::IntoArg<#ty>));
    let (output, function) = answer(of, method);
    let (path, script, object_script) =
        scripts(&of.service.namespace(), &method.name(), idents.len());
    let count = idents.len();
    let idempotent = method
        .options
        .idempotent
        .iter()
        .map(|_| quote!(.idempotent()));
    let args = Ident::new("args", Span::mixed_site());
    let fill = match count {
        0 => quote!(|_| {}),
        _ => quote!(|#args| { #(#args.add::<#types>(#idents);)* }),
    };
    quote! {
        #(#attrs)*
        #(#allowed)*
        #vis fn #name(&self, #(#params),*) -> #output {
            static __METHOD: #root::service::StubMethod =
                #root::service::StubMethod::new(#path, #script, #object_script, #count) #(#idempotent)*;
            self.target.#function(&__METHOD, #fill)
        }
    }
}

/// The attributes of a trait's method that its stub has, too.
fn is_carried(attr: &Attribute) -> bool {
    ["doc", "cfg", "deprecated"]
        .iter()
        .any(|name| attr.path().is_ident(name))
}

/// What the stub's method returns, and the function of `Target` that makes it.
fn answer(of: &Emitted<'_>, method: &Method) -> (TokenStream, TokenStream) {
    let (root, answer) = (&of.service.root, &method.answer);
    let error = answer.error.iter();
    if method.options.notify.is_some() {
        (quote!(#root::service::Notify), quote!(notify))
    } else if method.options.converse.is_some() {
        (quote!(#root::service::Exchange), quote!(exchange))
    } else if let Some(object) = &answer.object {
        (
            quote!(#root::service::Opened<#object #(, #error)*>),
            quote!(open),
        )
    } else {
        let value = &answer.value;
        (
            match method.is_of_connection() {
                false => quote!(#root::service::Call<#value #(, #error)*>),
                true => {
                    let error = match &answer.error {
                        Some(error) => quote!(#error),
                        None => quote!(#root::Error),
                    };
                    quote!(#root::service::Call<#value, #error, #root::service::OfConnection>)
                }
            },
            quote!(call),
        )
    }
}

/// The method's path, and the scripts that call it at a peer and at an object by reference.
fn scripts(namespace: &str, name: &str, arguments: usize) -> (String, String, String) {
    let path = match namespace {
        "" => name.to_owned(),
        namespace => format!("{namespace}::{name}"),
    };
    let list = |from: usize| {
        let names: Vec<_> = (from..from + arguments).map(|n| format!("a{n}")).collect();
        names.join(", ")
    };
    let script = format!("{path}({})", list(0));
    let object_script = format!("a0.{name}({})", list(1));
    (path, script, object_script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_call_the_method_with_its_parameters() {
        let (path, script, object_script) = scripts("calc", "add", 2);
        assert_eq!(
            [&*path, &script, &object_script],
            ["calc::add", "calc::add(a0, a1)", "a0.add(a1, a2)"]
        );
        let (path, script, object_script) = scripts("", "say", 0);
        assert_eq!(
            [&*path, &script, &object_script],
            ["say", "say()", "a0.say()"]
        );
    }
}
