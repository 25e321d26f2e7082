//! Which calls stand by themselves, so that any of several peers can answer them, told by their types.

use serde::de::DeserializeOwned;

use super::{Call, Outcome};

/// Of a [`Call`]: it stands by itself.
#[derive(Debug)]
pub struct Alone(());

/// Of a [`Call`]: it belongs to one connection, since it is a script (which may use `env`), or a
/// stream or an object stands in the signature of its method.
#[derive(Debug)]
pub struct OfConnection(());

/// A call that stands by itself: what a stub over several peers makes
/// ([`Balanced::call`](crate::peer::balance::Balanced::call)).
///
/// A [`Call`] of a method with plain values is one. A notification, a script, a conversation, a call
/// that opens an object or has a stream in its signature is none: what they do depends on the
/// connection that they are made of.
#[diagnostic::on_unimplemented(
    message = "this does not stand by itself: it belongs to one connection",
    label = "a call with plain arguments and a plain answer is expected here",
    note = "notifications, scripts, conversations, streams and objects belong to one connection: \
            make them with a stub of one peer"
)]
pub trait StandsAlone: sealed::Sealed {
    /// What is answered.
    type Value: DeserializeOwned + 'static;
    /// What it fails with.
    type Error;
    /// The call.
    #[doc(hidden)]
    type Outcome: Outcome<Error = Self::Error>;

    #[doc(hidden)]
    fn into_call(self) -> Call<Self::Value, Self::Outcome>;
}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned + 'static, E: Outcome> StandsAlone for Call<T, E> {
    type Value = T;
    type Error = E::Error;
    type Outcome = E;

    fn into_call(self) -> Self {
        self
    }
}

mod sealed {
    pub trait Sealed {}

    impl<T, E> Sealed for super::Call<T, E> {}
}
