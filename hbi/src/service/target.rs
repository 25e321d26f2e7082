//! Where a stub's calls go: to a peer, to an object by reference, or to one that a pending call
//! will answer.

use std::fmt;

use super::{
    Arg, Arguments, Call, Exchange, IntoArg, Notify, Opened,
    post::{PostText, StubMethod, Unsent},
};
use crate::{
    Error, Kind, PostingEnd, Result,
    endpoint::{Carried, RemoteObject},
    value::Packed,
};

/// Where a stub's calls go.
#[derive(Clone)]
pub struct Target(Kinds);

#[derive(Clone)]
enum Kinds {
    Peer(PostingEnd),
    Object(PostingEnd, RemoteObject),
    Pending(PostingEnd, Arg),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kinds::Peer(po) => po.fmt(f),
            Kinds::Object(_, object) => object.fmt(f),
            Kinds::Pending(_, arg) => arg.fmt(f),
        }
    }
}

/// A stub of a service; generated code implements it.
pub trait Stub: Clone + Send + Sync + 'static {
    /// A stub whose calls go there.
    fn over(target: Target) -> Self;

    /// Where its calls go.
    fn target(&self) -> &Target;
}

impl Target {
    /// A peer.
    pub fn peer(po: &PostingEnd) -> Self {
        Self(Kinds::Peer(po.clone()))
    }

    pub(super) fn object(object: RemoteObject) -> Self {
        let po = PostingEnd::new(object.link().clone());
        Self(Kinds::Object(po, object))
    }

    pub(super) fn pending(po: PostingEnd, arg: Arg) -> Self {
        Self(Kinds::Pending(po, arg))
    }

    /// The object itself, as an argument.
    pub(super) fn as_arg(&self) -> Result<Arg> {
        match &self.0 {
            Kinds::Peer(_) => Err(Error::new(
                Kind::Misuse,
                "a stub of a peer's own service is no object that can be passed on",
            )),
            Kinds::Object(_, object) => Ok(Arg::value(Packed::of_handle(Box::new(
                Carried::Remote(object.clone()),
            )))),
            Kinds::Pending(_, arg) => Ok(arg.clone()),
        }
    }

    /// A call of a method.
    #[inline]
    pub fn call<T, E, B>(
        &self,
        method: &'static StubMethod,
        arguments: impl FnOnce(&mut Arguments),
    ) -> Call<T, E, B> {
        let (po, mut unsent) = match &self.0 {
            Kinds::Peer(po) => {
                let text = PostText::Path(method);
                (po, Unsent::method(text, method.parameters, po))
            }
            Kinds::Object(po, object) => {
                let it = |arguments: &mut Arguments| arguments.add(ObjectItself(object));
                (po, post_to_object(po, method, it))
            }
            Kinds::Pending(po, arg) => {
                let it = |arguments: &mut Arguments| arguments.pending(arg.clone());
                (po, post_to_object(po, method, it))
            }
        };
        let post = unsent.post();
        arguments(&mut post.arguments);
        match post.arguments.is_apart() {
            false => Call::method(po, unsent, method),
            true => Call::shared(po, unsent, method),
        }
    }

    /// A notification.
    pub fn notify(
        &self,
        method: &'static StubMethod,
        arguments: impl FnOnce(&mut Arguments),
    ) -> Notify {
        Notify::new(self.call(method, arguments))
    }

    /// A call of a method that takes the conversation.
    pub fn exchange(
        &self,
        method: &'static StubMethod,
        arguments: impl FnOnce(&mut Arguments),
    ) -> Exchange {
        Exchange::new(self.call(method, arguments))
    }

    /// A call of a method that answers an object by reference.
    pub fn open<S: Stub, E>(
        &self,
        method: &'static StubMethod,
        arguments: impl FnOnce(&mut Arguments),
    ) -> Opened<S, E> {
        Opened::new(self.call(method, arguments))
    }
}

/// A call of an object's method, with the object as its only argument yet.
#[cold]
fn post_to_object(
    po: &PostingEnd,
    method: &'static StubMethod,
    it: impl FnOnce(&mut Arguments),
) -> Box<Unsent> {
    let mut unsent = Unsent::method(PostText::Method(method), 1 + method.parameters, po);
    it(&mut unsent.post().arguments);
    unsent
}

/// An object by reference, as the argument that its methods are called of.
struct ObjectItself<'a>(&'a RemoteObject);

impl IntoArg<RemoteObject> for ObjectItself<'_> {
    fn put(self, arguments: &mut Arguments) {
        arguments.handle(Box::new(Carried::Remote(self.0.clone())));
    }
}
