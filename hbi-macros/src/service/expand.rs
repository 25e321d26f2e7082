//! What a service's trait becomes.
//!
//! ```text
//! Input:
//!     #[hbi::service]
//!     /// Adds.
//!     pub trait Calc {
//!         /// Adds two numbers.
//!         async fn add(&self, a: i64, b: i64) -> i64;
//!     }
//!
//! Output:
//!     /// Adds.
//!     pub trait Calc: Send + Sync + 'static {
//!         /// Adds two numbers.
//!         fn add(&self, a: i64, b: i64) -> impl Future<Output = i64> + Send;
//!     }
//!     impl<S: Calc> Calc for Arc<S> {
//!         fn add(&self, a: i64, b: i64) -> impl Future<Output = i64> + Send {
//!             <S as Calc>::add(&**self, a, b)
//!         }
//!     }
//!
//!     /// Hosts a [`Calc`] ...
//!     pub struct CalcHost<S> { it: Arc<S> }
//!     impl<S: Calc> CalcHost<S> {
//!         pub fn new(it: S) -> Self { Self { it: Arc::new(it) } }
//!         const LAND: &'static [Land<Self>] = &[Self::land_add];
//!         fn land_add(&self, call: Incoming<'_>) -> Landed {
//!             travels::<i64>(); ..
//!             let it = Arc::clone(&self.it);
//!             call.value::<_, i64, _>(
//!                 |args| Ok((args.next::<i64>()?, args.next::<i64>()?)),
//!                 move |(a0, a1)| async move { <S as Calc>::add(&it, a0, a1).await },
//!             )
//!         }
//!     }
//!     impl<S: Calc> Service for CalcHost<S> {
//!         fn table(&self) -> &'static Table {
//!             static TABLE: Table = Table::new("calc", "Adds.", &[
//!                 Method { name: "add", docs: "Adds two numbers.", returns: "i64", .. },
//!             ]);
//!             &TABLE
//!         }
//!         fn land(&self, method: usize, call: Incoming<'_>) -> Landed {
//!             Self::LAND[method](self, call)
//!         }
//!     }
//!
//!     /// Calls a peer's [`Calc`] ...
//!     pub struct CalcStub { target: Target }
//!     impl CalcStub {
//!         pub fn new(peer: &impl AsRef<PostingEnd>) -> Self { .. }
//!         /// Adds two numbers.
//!         pub fn add(&self, a: impl IntoArg<i64>, b: impl IntoArg<i64>) -> Call<i64> {
//!             static METHOD: StubMethod =
//!                 StubMethod::new("calc::add", "calc::add(a0, a1)", "a0.add(a1, a2)", 2);
//!             self.target.call(&METHOD, |args| { args.add::<i64>(a); args.add::<i64>(b); })
//!         }
//!     }
//!     impl Stub for CalcStub { .. }
//! ```
//!
//! `Clone` and `Debug` of host and stub are written out: derived ones would ask the same of the
//! service and of the trait's parameters.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::{
    Attribute, Expr, ExprLit, Generics, ItemTrait, Lit, Meta, Pat, TraitItem, Type, parse_quote,
    parse_quote_spanned, spanned::Spanned,
};

use super::{
    host,
    parse::{Method, Service},
    stub,
};

/// What is emitted for a service. `whole`: no error stands on it.
pub(super) fn expand(service: &Service, whole: bool) -> TokenStream {
    let the_trait = the_trait(service);
    if service.item.generics.lifetimes().next().is_some() {
        return the_trait;
    }
    let of = Emitted::new(service);
    // with a method left out it would not be an implementation
    let shared = whole.then(|| shared(&of));
    let host = host::host(&of);
    let stub = stub::stub(&of);
    quote!(#the_trait #shared #host #stub)
}

/// What all that is emitted needs.
pub(super) struct Emitted<'a> {
    pub(super) service: &'a Service,
    pub(super) methods: Vec<&'a Method>,
    /// The service's type, a parameter of the host: `S`, or what collides with nothing.
    pub(super) it: Ident,
    /// The trait's parameters.
    pub(super) generics: &'a Generics,
    /// The same after that of the service's type.
    pub(super) host_generics: Generics,
    /// Lints that are turned off for the trait.
    pub(super) allowed: Vec<Attribute>,
}

impl<'a> Emitted<'a> {
    fn new(service: &'a Service) -> Self {
        let ItemTrait {
            ident, generics, ..
        } = &service.item;
        let it = fresh("S", &service.item);
        let (_, of, _) = generics.split_for_impl();
        let mut host_generics = generics.clone();
        host_generics
            .params
            .insert(0, parse_quote!(#it: #ident #of));
        let methods = service
            .methods
            .iter()
            .filter(|method| method.sound)
            .collect();
        Self {
            service,
            methods,
            it,
            generics,
            host_generics,
            allowed: allowed(&service.item.attrs).collect(),
        }
    }

    /// A field that stands for the trait's type parameters, where it has some.
    pub(super) fn marker(&self) -> Option<(TokenStream, TokenStream)> {
        let types: Vec<_> = self
            .generics
            .type_params()
            .map(|param| &param.ident)
            .collect();
        (!types.is_empty()).then(|| {
            let ty = quote!(of: ::core::marker::PhantomData<fn() -> (#(#types,)*)>);
            (ty, quote!(of: ::core::marker::PhantomData))
        })
    }
}

/// Attributes by which the user turns lints off, for what is made of an item with them, too. What one
/// expects in the item need not be met in that.
pub(super) fn allowed(attrs: &[Attribute]) -> impl Iterator<Item = Attribute> {
    attrs.iter().filter_map(|attr| match &attr.meta {
        Meta::List(list) if list.path.is_ident("allow") || list.path.is_ident("expect") => {
            let lints = &list.tokens;
            Some(parse_quote!(#[allow(#lints)]))
        }
        _ => None,
    })
}

/// A name that stands nowhere in the trait: the shortest of `name`, `name_`, ...
fn fresh(name: &str, item: &ItemTrait) -> Ident {
    fn has(tokens: TokenStream, name: &str) -> bool {
        tokens.into_iter().any(|token| match token {
            proc_macro2::TokenTree::Group(group) => has(group.stream(), name),
            proc_macro2::TokenTree::Ident(ident) => ident == name,
            _ => false,
        })
    }
    let tokens = quote!(#item);
    let mut name = name.to_owned();
    while has(tokens.clone(), &name) {
        name.push('_');
    }
    Ident::new(&name, Span::call_site())
}

/// The trait itself, its `async fn` as functions that return a `Send` future.
fn the_trait(service: &Service) -> TokenStream {
    let mut item = service.item.clone();
    item.supertraits.extend::<[syn::TypeParamBound; 3]>([
        parse_quote!(::core::marker::Send),
        parse_quote!(::core::marker::Sync),
        parse_quote!('static),
    ]);
    if item.colon_token.is_none() {
        item.colon_token = Some(Default::default());
    }
    for item in &mut item.items {
        let TraitItem::Fn(method) = item else {
            continue;
        };
        for input in &mut method.sig.inputs {
            // an error stands on a pattern already
            match input {
                syn::FnArg::Typed(typed) if !matches!(&*typed.pat, Pat::Ident(_)) => {
                    *typed.pat = parse_quote!(_);
                }
                _ => {}
            }
        }
        if method.sig.asyncness.take().is_none() {
            continue;
        }
        method.sig.output = future(&method.sig.output);
        if let Some(body) = &mut method.default {
            // as in an `async fn`: the future holds all arguments until it ends
            let held = method.sig.inputs.iter().filter_map(|input| match input {
                syn::FnArg::Typed(typed) => match &*typed.pat {
                    Pat::Ident(pat) => Some(&pat.ident),
                    _ => None,
                },
                syn::FnArg::Receiver(_) => None,
            });
            let stmts = &body.stmts;
            *body = parse_quote_spanned!(body.span()=> { async move { #(let _ = &#held;)* #(#stmts)* } });
            method
                .attrs
                .push(parse_quote!(#[allow(clippy::manual_async_fn)]));
        }
    }
    quote!(#item)
}

/// `-> impl Future<Output = T> + Send` for `-> T`.
fn future(output: &syn::ReturnType) -> syn::ReturnType {
    let (span, ty): (_, Type) = match output {
        syn::ReturnType::Default => (Span::call_site(), parse_quote!(())),
        syn::ReturnType::Type(_, ty) => (ty.span(), (**ty).clone()),
    };
    parse_quote_spanned!(span=> -> impl ::core::future::Future<Output = #ty> + ::core::marker::Send)
}

/// The trait for an `Arc` of what implements it: a service can be hosted and kept.
fn shared(of: &Emitted<'_>) -> TokenStream {
    let (
        ItemTrait {
            ident, supertraits, ..
        },
        it,
    ) = (&of.service.item, &of.it);
    let (_, trait_generics, _) = of.generics.split_for_impl();
    let (impl_generics, _, wheres) = of.host_generics.split_for_impl();
    // an `Arc` has the user's supertraits or it does not: where it has not, this is not there
    let wheres = match (wheres, supertraits.is_empty()) {
        (wheres, true) => quote!(#wheres),
        (None, false) => quote!(where ::std::sync::Arc<#it>: #supertraits),
        (Some(wheres), false) => {
            let predicates = wheres.predicates.iter();
            quote!(where #(#predicates,)* ::std::sync::Arc<#it>: #supertraits)
        }
    };
    let allowed = &of.allowed;
    let methods = of.methods.iter().map(|method| {
        let (sig, cfgs) = (&method.item.sig, method.attrs("cfg"));
        let (name, params) = (&sig.ident, &method.params);
        let idents: Vec<_> = params.iter().filter_map(|param| param.ident()).collect();
        let types = params.iter().map(|param| &param.ty);
        let output = if method.is_async() {
            future(&sig.output)
        } else {
            sig.output.clone()
        };
        quote! {
            #(#cfgs)*
            fn #name(&self, #(#idents: #types),*) #output {
                <#it as #ident #trait_generics>::#name(&**self, #(#idents),*)
            }
        }
    });
    quote! {
        #[automatically_derived]
        #[allow(deprecated, clippy::all)]
        #(#allowed)*
        impl #impl_generics #ident #trait_generics for ::std::sync::Arc<#it> #wheres {
            #(#methods)*
        }
    }
}

/// The text of documentation, as markdown.
pub(super) fn docs<'a>(attrs: impl Iterator<Item = &'a Attribute>) -> String {
    let lines: Vec<String> = attrs
        .filter(|attr| attr.path().is_ident("doc"))
        .filter_map(|attr| match &attr.meta {
            Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let lines = lines.iter().flat_map(|text| text.split('\n'));
    let lines: Vec<_> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    lines.join("\n").trim().to_owned()
}

/// The name of what is emitted beside the trait: `CalcHost`.
pub(super) fn beside(service: &Service, suffix: &str) -> Ident {
    format_ident!("{}{suffix}", service.item.ident)
}
