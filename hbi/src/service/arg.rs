//! Arguments of calls: values, and calls that are still pending.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{Call, Opened, Reactor, Stub, compose::Node, scope::Scope};
use crate::{
    Data, Error, Items, PostingEnd,
    value::{
        Dialect, Handles, Packed, ValueError, array_head, integer, pack_bytes, pack_into,
        pack_literal_into, skip,
    },
};

/// The arguments of a call, as its stub collects them.
#[derive(Debug, Default)]
pub struct Arguments {
    /// A MessagePack array.
    pub(super) bytes: Vec<u8>,
    handles: Handles,
    /// Once one of them is pending: all of them, apart.
    parts: Option<Vec<Arg>>,
    /// Why they cannot be sent.
    error: Option<Error>,
    /// How values are written, where the connection takes literals.
    literal: Option<Dialect>,
    /// Whether there is nothing but the array, and values are no literals: they go right into it.
    bare: bool,
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
    pub(super) fn new(count: usize, po: &PostingEnd) -> Self {
        let mut new = Self::default();
        new.begin(count, po);
        new
    }

    /// Makes of new ones, or of [bare](Self::is_bare) ones, such as have none yet, of so many.
    #[inline]
    pub(super) fn begin(&mut self, count: usize, po: &PostingEnd) {
        self.bytes.clear();
        match count {
            0..=15 => self.bytes.push(0x90 | count as u8),
            _ => array_head(&mut self.bytes, count),
        }
        self.literal = po.literal();
        self.bare = self.literal.is_none();
    }

    /// Those of a list that is packed already.
    pub(super) fn whole(list: Packed) -> Self {
        let (bytes, handles) = list.into_parts();
        Self {
            bytes: bytes.into(),
            bare: handles.is_empty(),
            handles,
            ..Self::default()
        }
    }

    /// Such as cannot be sent.
    pub(super) fn failed(error: Error) -> Self {
        let mut failed = Self::whole(Packed::array([]));
        failed.fail(error);
        failed
    }

    /// Whether they are an array and nothing beside, which values go right into.
    #[inline]
    pub(super) fn is_bare(&self) -> bool {
        self.bare
    }

    /// They cannot be sent, for this reason if none was found before.
    pub(super) fn fail(&mut self, error: Error) {
        self.bare = false;
        self.error.get_or_insert(error);
    }

    /// Takes the reason why they cannot be sent.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// Whether a stream or an object is among them.
    #[cfg(feature = "balance")]
    pub(super) fn carries(&self) -> bool {
        !self.handles.is_empty()
    }

    /// The array, and the handles in it.
    pub(super) fn with_handles(&mut self) -> (&[u8], &mut Handles) {
        (&self.bytes, &mut self.handles)
    }

    /// The array, with the handles in it, which are taken. Its room stays here: it may be larger.
    pub(super) fn take(&mut self) -> Packed {
        let bytes = Bytes::copy_from_slice(&self.bytes);
        Packed::from_parts(bytes, std::mem::take(&mut self.handles))
    }

    /// Adds the next argument.
    #[inline]
    pub fn add<T>(&mut self, arg: impl IntoArg<T>) {
        arg.put(self);
    }

    /// Adds a value.
    #[inline(always)]
    pub(super) fn value<T: Serialize + 'static>(&mut self, value: &T) {
        if self.bare && integer::pack(&mut self.bytes, value) {
            return;
        }
        self.any_value(value);
    }

    fn any_value<T: Serialize + 'static>(&mut self, value: &T) {
        match self.literal {
            None => self.packed(|bytes, handles| pack_into(bytes, handles, value)),
            Some(dialect) => {
                self.packed(|bytes, handles| pack_literal_into(bytes, handles, value, dialect));
            }
        }
    }

    fn packed(&mut self, pack: impl Fn(&mut Vec<u8>, &mut Handles) -> Result<(), ValueError>) {
        let packed = match &mut self.parts {
            None => {
                let packed = pack(&mut self.bytes, &mut self.handles);
                self.bare &= self.handles.is_empty();
                packed
            }
            Some(parts) => {
                let (mut bytes, mut handles) = (Vec::new(), Handles::new());
                pack(&mut bytes, &mut handles).map(|()| {
                    parts.push(Arg::value(Packed::from_parts(bytes.into(), handles)));
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
        if let Some(parts) = &mut self.parts {
            return parts.push(Arg::value(packed));
        }
        self.bare = false;
        packed.append(&mut self.bytes, &mut self.handles);
    }

    /// Adds a pending call.
    pub(super) fn pending(&mut self, arg: Arg) {
        let parts = self.apart();
        parts.push(arg);
    }

    /// Whether one of them is pending, so that they are apart.
    #[inline]
    pub(super) fn is_apart(&self) -> bool {
        !self.bare && self.parts.is_some()
    }

    /// The arguments apart, taken: none are left.
    pub(super) fn take_apart(&mut self) -> Vec<Arg> {
        let parts = std::mem::take(self.apart());
        (self.parts, self.bare) = (None, true);
        parts
    }

    /// The arguments apart, as a composition needs them.
    pub(super) fn apart(&mut self) -> &mut Vec<Arg> {
        self.bare = false;
        let (bytes, handles) = (&self.bytes, &mut self.handles);
        self.parts.get_or_insert_with(|| {
            // the count at the front is of all that shall come: here are those so far
            let mut rest = &bytes[if bytes[0] == 0xdc { 3 } else { 1 }..];
            let mut body = Vec::with_capacity(bytes.len() + 8);
            let mut count = 0;
            while skip(&mut rest).is_ok() {
                count += 1;
            }
            array_head(&mut body, count);
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
    #[inline(always)]
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
        arguments.value(&self.to_owned());
    }
}

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
