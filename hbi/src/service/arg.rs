//! Arguments of calls: values, and calls that are still pending.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{Call, Opened, Reactor, Stub, compose::Node, scope::Scope};
use crate::{
    Data, Error, Items, PostingEnd,
    value::{Dialect, Handles, Packed, Packing, integer, pack_bytes, pack_into, pack_literal_into},
};

/// The arguments of a call, as its stub collects them.
#[derive(Debug)]
pub struct Arguments {
    /// A MessagePack array.
    pub(super) bytes: Packing,
    rest: Option<Box<Rest>>,
    /// How values are written, where the connection takes literals.
    literal: Option<Dialect>,
    /// Whether there is no rest, and values are no literals: they go right into the array.
    bare: bool,
}

/// What few arguments have. Those that have not take a word for it, since calls are handed on.
#[derive(Debug, Default)]
struct Rest {
    handles: Handles,
    /// Once one of them is pending: all of them, apart.
    parts: Option<Vec<Arg>>,
    /// Why they cannot be sent.
    error: Option<Error>,
}

/// One argument.
#[derive(Debug, Clone)]
pub struct Arg {
    pub(super) node: Arc<Node>,
    /// The closure of a `map` that it was made in.
    pub(super) scope: u64,
}

impl Arguments {
    /// No arguments yet, of so many.
    #[inline]
    pub(super) fn new(count: usize, po: &PostingEnd) -> Self {
        let mut bytes = Packing::new();
        match count {
            0..=15 => bytes.extend_from_slice(&[0x90 | count as u8]),
            _ => {
                bytes.extend_from_slice(&[0xdc]);
                bytes.extend_from_slice(&(count as u16).to_be_bytes());
            }
        }
        Self {
            bytes,
            rest: None,
            literal: po.literal(),
            bare: po.literal().is_none(),
        }
    }

    /// Those of a list that is packed already.
    pub(super) fn whole(list: Packed) -> Self {
        let (bytes, handles) = list.into_parts();
        let mut whole = Self {
            bytes: Packing::from(&bytes[..]),
            rest: None,
            literal: None,
            bare: true,
        };
        if !handles.is_empty() {
            whole.rest().handles = handles;
        }
        whole
    }

    /// Such as cannot be sent.
    pub(super) fn failed(error: Error) -> Self {
        let mut failed = Self::whole(Packed::array([]));
        failed.fail(error);
        failed
    }

    fn rest(&mut self) -> &mut Rest {
        self.bare = false;
        self.rest.get_or_insert_default()
    }

    /// Whether they are values and nothing beside, and can be sent.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.rest.is_none()
    }

    /// They cannot be sent, for this reason if none was found before.
    pub(super) fn fail(&mut self, error: Error) {
        self.rest().error.get_or_insert(error);
    }

    /// Takes the reason why they cannot be sent.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        self.rest.as_mut()?.error.take()
    }

    /// Whether a stream or an object is among them.
    #[cfg(feature = "balance")]
    pub(super) fn carries(&self) -> bool {
        let rest = self.rest.as_ref();
        rest.is_some_and(|rest| !rest.handles.is_empty())
    }

    /// The array, and the handles in it or, where there were never any, those `none`.
    pub(super) fn with_handles<'a>(
        &'a mut self,
        none: &'a mut Handles,
    ) -> (&'a [u8], &'a mut Handles) {
        match &mut self.rest {
            Some(rest) => (&self.bytes, &mut rest.handles),
            None => (&self.bytes, none),
        }
    }

    /// The handles in them, taken.
    pub(super) fn take_handles(&mut self) -> Handles {
        let rest = self.rest.as_mut();
        rest.map_or_else(Handles::new, |rest| std::mem::take(&mut rest.handles))
    }

    /// Adds the next argument.
    #[inline]
    pub fn add<T>(&mut self, arg: impl IntoArg<T>) {
        arg.put(self);
    }

    /// Adds a value.
    #[inline]
    pub(super) fn value<T: Serialize + 'static>(&mut self, value: &T) {
        if self.bare && integer::pack(&mut self.bytes, value) {
            return;
        }
        match self.literal {
            None => self.packed(|bytes, handles| pack_into(bytes, handles, value)),
            Some(dialect) => {
                self.packed(|bytes, handles| pack_literal_into(bytes, handles, value, dialect));
            }
        }
    }

    fn packed(
        &mut self,
        pack: impl Fn(&mut Packing, &mut Handles) -> Result<(), crate::value::ValueError>,
    ) {
        let packed = match self.parts() {
            None => {
                let mut handles = self.take_handles();
                let packed = pack(&mut self.bytes, &mut handles);
                if !handles.is_empty() {
                    self.rest().handles = handles;
                }
                packed
            }
            Some(parts) => {
                let (mut bytes, mut handles) = (Packing::new(), Handles::new());
                pack(&mut bytes, &mut handles).map(|()| {
                    let packed = Packed::from_parts(Bytes::copy_from_slice(&bytes), handles);
                    parts.push(Arg::value(packed));
                })
            }
        };
        if let Err(error) = packed {
            self.fail(error.into());
        }
    }

    /// Adds what travels by reference.
    pub(super) fn handle(&mut self, handle: Box<dyn crate::value::Handle>) {
        let packed = Packed::of_handle(handle);
        if let Some(parts) = self.parts() {
            return parts.push(Arg::value(packed));
        }
        let mut bytes = Vec::with_capacity(6);
        packed.append(&mut bytes, &mut self.rest().handles);
        self.bytes.extend_from_slice(&bytes);
    }

    fn parts(&mut self) -> Option<&mut Vec<Arg>> {
        self.rest.as_mut()?.parts.as_mut()
    }

    /// Adds a pending call.
    pub(super) fn pending(&mut self, arg: Arg) {
        let parts = self.apart();
        parts.push(arg);
    }

    /// Whether one of them is pending, so that they are apart.
    #[inline]
    pub(super) fn is_apart(&self) -> bool {
        let rest = self.rest.as_ref();
        !self.bare && rest.is_some_and(|rest| rest.parts.is_some())
    }

    /// The arguments apart, as a composition needs them.
    pub(super) fn apart(&mut self) -> &mut Vec<Arg> {
        self.rest();
        let bytes = &self.bytes;
        let Rest { handles, parts, .. } = &mut **self.rest.get_or_insert_default();
        parts.get_or_insert_with(|| {
            // the count at the front is of all that shall come: here are those so far
            let mut rest = &bytes[if bytes[0] == 0xdc { 3 } else { 1 }..];
            let mut body = Vec::with_capacity(bytes.len() + 8);
            let mut count = 0;
            while crate::value::skip(&mut rest).is_ok() {
                count += 1;
            }
            crate::value::array_head(&mut body, count);
            body.extend_from_slice(&bytes[if bytes[0] == 0xdc { 3 } else { 1 }..]);
            let whole = Packed::from_parts(body.into(), std::mem::take(handles));
            let parts = whole.elements().unwrap_or_default();
            parts.into_iter().map(Arg::value).collect()
        })
    }
}

impl Arg {
    /// One that is made here and now.
    pub(super) fn new(node: Arc<Node>) -> Self {
        let scope = Scope::current();
        Self { node, scope }
    }

    #[inline]
    pub(super) fn value(packed: Packed) -> Self {
        Self::new(Arc::new(Node::value(packed)))
    }
}

/// What can stand where a method takes a `T`: a `T`, a `&T`, a call that will make one, and what is
/// commonly meant by it (`&str` for `String`, arrays and slices for `Vec`, bytes for [`Data`]).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed where the service takes `{T}`",
    label = "expected `{T}`, `&{T}`, or a call that answers `{T}`",
    note = "calls compose: pass the call itself, without `.await`, to save a round trip"
)]
pub trait IntoArg<T> {
    /// Adds it to the arguments of a call.
    fn put(self, arguments: &mut Arguments);
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + 'static> IntoArg<T> for T {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.value(&self);
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + 'static> IntoArg<T> for &T {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.value(self);
    }
}

#[diagnostic::do_not_recommend]
impl<T, E, B> IntoArg<T> for Call<T, E, B> {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.pending(self.share());
    }
}

#[diagnostic::do_not_recommend]
impl<T, E, B> IntoArg<T> for &Call<T, E, B> {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.pending(self.share());
    }
}

#[diagnostic::do_not_recommend]
impl IntoArg<String> for &str {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        // the two pack alike
        arguments.packed(|bytes, handles| pack_into(bytes, handles, &AsText(self.to_owned())));
    }
}

/// A string that packs as one.
#[derive(Serialize)]
#[serde(transparent)]
struct AsText(String);

#[diagnostic::do_not_recommend]
impl<T: Serialize + Clone + 'static> IntoArg<Vec<T>> for &[T] {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.value(&self.to_vec());
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + 'static, const N: usize> IntoArg<Vec<T>> for [T; N] {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.value(&Vec::from(self));
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + Send + 'static> IntoArg<Items<T>> for Vec<T> {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.value(&Items::from(self));
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + Send + 'static, const N: usize> IntoArg<Items<T>> for [T; N] {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.value(&Items::iter(self));
    }
}

macro_rules! data {
    ($($from:ty),*) => {$(
        #[diagnostic::do_not_recommend]
        impl IntoArg<Data> for $from {
            #[inline]
            fn put(self, arguments: &mut Arguments) {
                arguments.value(&Data::from(self));
            }
        }
    )*};
}
data!(Vec<u8>, Bytes, &'static [u8], &'static str, tokio::fs::File);

#[diagnostic::do_not_recommend]
impl IntoArg<Bytes> for Vec<u8> {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.packed(|bytes, _| pack_bytes(bytes, &self));
    }
}

#[diagnostic::do_not_recommend]
impl IntoArg<Bytes> for &[u8] {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.packed(|bytes, _| pack_bytes(bytes, self));
    }
}

#[diagnostic::do_not_recommend]
impl<S: Stub, E> IntoArg<Reactor<S>> for Opened<S, E> {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        arguments.pending(self.share());
    }
}

#[diagnostic::do_not_recommend]
impl<S: Stub> IntoArg<Reactor<S>> for &S {
    #[inline]
    fn put(self, arguments: &mut Arguments) {
        match self.target().as_arg() {
            Ok(arg) => arguments.pending(arg),
            Err(error) => arguments.fail(error),
        }
    }
}
