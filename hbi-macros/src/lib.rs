//! The macros of `hbi`.

mod errors;
mod service;
mod types;
mod words;

use proc_macro::TokenStream;

/// Service.
#[proc_macro_attribute]
pub fn service(options: TokenStream, item: TokenStream) -> TokenStream {
    service::service(options.into(), item.into()).into()
}
