//! The errors of one macro call, collected: all are reported at once, each on its token.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::Error;

#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    /// Adds an error that stands on these tokens.
    pub(crate) fn on(&mut self, tokens: &dyn ToTokens, message: impl std::fmt::Display) {
        self.add(Error::new_spanned(tokens.to_token_stream(), message));
    }

    /// Adds an error that stands at this place.
    #[cfg(feature = "checked")]
    pub(crate) fn at(&mut self, span: proc_macro2::Span, message: impl std::fmt::Display) {
        self.add(Error::new(span, message));
    }

    /// Adds an error of syn.
    pub(crate) fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            none => *none = Some(error),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What the compiler shows them from; nothing where there is none.
    pub(crate) fn into_compile_error(self) -> TokenStream {
        self.0.map(Error::into_compile_error).unwrap_or_default()
    }
}
