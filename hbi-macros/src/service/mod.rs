//! `#[hbi::service]`: parse -> check -> expand.

mod check;
mod expand;
mod host;
mod parse;
mod stub;
mod travel;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Item, ItemTrait};

use self::parse::Service;
use crate::errors::Errors;

pub(crate) fn service(options: TokenStream, input: TokenStream) -> TokenStream {
    let item = match syn::parse2::<ItemTrait>(input.clone()) {
        Ok(item) => item,
        Err(error) => return not_a_trait(input, error),
    };
    let mut errors = Errors::default();
    let mut service = Service::parse(options, item, &mut errors);
    check::check(&mut service, &mut errors);
    // With errors, what can be expanded still is: one mistake is not followed by "cannot find".
    let expanded = expand::expand(&service, errors.is_empty());
    let errors = errors.into_compile_error();
    quote!(#errors #expanded)
}

/// Something else than a trait, or a trait with broken syntax: it stays as it is.
fn not_a_trait(input: TokenStream, error: Error) -> TokenStream {
    let error = match syn::parse2::<Item>(input.clone()) {
        Ok(Item::Trait(_)) | Err(_) => error,
        Ok(item) => Error::new_spanned(
            item,
            "`#[hbi::service]` stands on a trait: its methods are what peers call",
        ),
    };
    let error = error.into_compile_error();
    quote!(#error #input)
}
