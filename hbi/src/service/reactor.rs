//! Objects by reference, typed.

use std::{
    any::Any,
    fmt,
    future::{Future, IntoFuture},
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Arg, Call, OfConnection, Outcome, Stub, Target};
use crate::{
    Error, Kind, Result,
    endpoint::{Carried, RemoteObject},
    env::{Reactive, Service},
    value::{deserialize_handle, serialize_handle},
};

/// An object by reference, which travels in arguments, answers and anywhere in values. `S` is the
/// stub its holder calls it with.
///
/// The owner makes one of a host (`Reactor::new(RoomHost::new(room))`); the peer gets a stub of it
/// ([`Reactor::stub`]). Given back to its owner it is the object itself ([`Reactor::local`]). The
/// object is released when the last handle to it is dropped, or the connection ends.
pub struct Reactor<S>(Held, PhantomData<fn() -> S>);

enum Held {
    Local(Arc<Reactive>),
    Remote(RemoteObject),
}

impl<S> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Held::Local(object) => object.fmt(f),
            Held::Remote(object) => object.fmt(f),
        }
    }
}

impl<S> Clone for Reactor<S> {
    fn clone(&self) -> Self {
        let held = match &self.0 {
            Held::Local(object) => Held::Local(Arc::clone(object)),
            Held::Remote(object) => Held::Remote(object.clone()),
        };
        Self(held, PhantomData)
    }
}

impl<S: Stub> Reactor<S> {
    /// An object of this side, to be given to a peer.
    pub fn new<H: Service>(host: H) -> Self {
        Self(
            Held::Local(Arc::new(Reactive::new(Arc::new(host)))),
            PhantomData,
        )
    }

    /// The stub of an object of the peer.
    ///
    /// # Errors
    /// When it is an object of this side, that came back: call it directly ([`Self::local`]).
    pub fn stub(&self) -> Result<S> {
        match &self.0 {
            Held::Remote(object) => Ok(S::over(Target::object(object.clone()))),
            Held::Local(_) => Err(Error::new(
                Kind::Misuse,
                "the object is of this side: take it with `Reactor::local`",
            )),
        }
    }

    /// The host itself, where the object is of this side and an `H`.
    pub fn local<H: Service>(&self) -> Option<Arc<H>> {
        match &self.0 {
            Held::Local(object) => {
                let own: Arc<dyn Any + Send + Sync> = Arc::clone(&object.own);
                own.downcast().ok()
            }
            Held::Remote(_) => None,
        }
    }
}

impl<S> Serialize for Reactor<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let carried = match &self.0 {
            Held::Local(object) => Carried::Object(Arc::clone(object) as _),
            Held::Remote(object) => Carried::Remote(object.clone()),
        };
        serialize_handle(Box::new(carried), serializer)
    }
}

impl<'de, S> Deserialize<'de> for Reactor<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let held = match Carried::from_handle(deserialize_handle(deserializer)?) {
            Some(Carried::Remote(object)) => Held::Remote(object),
            Some(Carried::Object(object)) => match object.into_any().downcast() {
                Ok(object) => Held::Local(object),
                Err(_) => {
                    return Err(de::Error::custom(
                        "expected a reactor, found another object",
                    ));
                }
            },
            Some(Carried::Missing(number)) => {
                return Err(de::Error::custom(format_args!(
                    "object {number} was not given out, or was released"
                )));
            }
            _ => return Err(de::Error::custom("expected a reactor, found a stream")),
        };
        Ok(Self(held, PhantomData))
    }
}

/// A call that answers an object by reference: it is the object's stub already, whose calls go in
/// the same round trip. Awaiting it gives the stub of the object once it is there.
#[must_use = "it does nothing until it is awaited, or a method of the object is called"]
pub struct Opened<S, E = Error> {
    stub: S,
    call: Call<Reactor<S>, E, OfConnection>,
}

impl<S, E> fmt::Debug for Opened<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opened").field(&self.call).finish()
    }
}

impl<S: Stub, E> Opened<S, E> {
    pub(super) fn new(call: Call<Reactor<S>, E, OfConnection>) -> Self {
        let pending = Target::pending(call.po().clone(), call.share());
        Self {
            stub: S::over(pending),
            call,
        }
    }

    pub(super) fn share(&self) -> Arg {
        self.call.share()
    }

    /// Gives the call this long, from when it is awaited or sent, and with it calls of the object in the
    /// same round trip.
    pub fn within(self, time: Duration) -> Self {
        Self::new(self.call.within(time))
    }
}

impl<S, E> Deref for Opened<S, E> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.stub
    }
}

impl<S: Stub, E: Outcome + 'static> IntoFuture for Opened<S, E>
where
    E::Error: From<Error>,
{
    type Output = Result<S, E::Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let call = self.call;
        Box::pin(async move { Ok(call.await?.stub()?) })
    }
}
