//! Handles inside values: how one is put into a value while it is encoded, and taken out while it
//! is decoded.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
    ser,
};

/// The MessagePack extension type of a placeholder; its body is the handle's index, a `u32` in
/// big-endian.
pub(super) const PLACEHOLDER: i8 = 72;

/// Something that travels by reference inside a value: a stream, or an object of a connection.
pub trait Handle: Any + Send + fmt::Debug {
    /// The handle as [`Any`], so that the room that made it can take it back.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;

    /// Another handle of the same thing, where there can be several: a stream has one only.
    fn share(&self) -> Option<Box<dyn Handle>> {
        None
    }
}

/// The handles of one value, in the order of their placeholders' indices.
#[derive(Debug, Default)]
pub struct Handles(Option<Box<List>>);

/// Most values hold none: what has none is one word, since it is handed on many times.
#[derive(Debug, Default)]
struct List(Vec<Option<Box<dyn Handle>>>);

impl Handles {
    /// No handles; does not allocate.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|list| list.0.is_empty())
    }

    /// How many there are, those already taken included.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |list| list.0.len())
    }

    fn list(&mut self) -> &mut Vec<Option<Box<dyn Handle>>> {
        &mut self.0.get_or_insert_default().0
    }

    /// Adds a handle; returns its index.
    pub fn push(&mut self, handle: Box<dyn Handle>) -> u32 {
        let list = self.list();
        list.push(Some(handle));
        (list.len() - 1) as u32
    }

    /// Takes the handle of an index, if it is there and not yet taken. One that can be shared stays.
    pub fn take(&mut self, index: u32) -> Option<Box<dyn Handle>> {
        let slot = self.0.as_mut()?.0.get_mut(index as usize)?;
        match slot.as_ref()?.share() {
            Some(shared) => Some(shared),
            None => slot.take(),
        }
    }

    /// Adds the handles of another value behind these.
    pub fn append(&mut self, mut other: Handles) {
        if !other.is_empty() {
            self.list().append(other.list());
        }
    }

    /// Runs `f`, in which values may put handles here ([`serialize_handle`]) or take them from
    /// here ([`deserialize_handle`]).
    pub(super) fn scope<R>(&mut self, f: impl FnOnce() -> R) -> R {
        /// Puts the outer list back, whatever `f` does.
        struct Outer<'a> {
            inner: &'a mut Handles,
            outer: Option<Handles>,
            scope: Scope,
        }
        impl Drop for Outer<'_> {
            fn drop(&mut self) {
                let held = replace_scope(self.scope).held;
                if held || self.outer.is_some() {
                    *self.inner = replace_current(self.outer.take().unwrap_or_default());
                }
            }
        }
        let held = !self.is_empty();
        let scope = replace_scope(Scope { active: true, held });
        let outer = (held || scope.held).then(|| replace_current(std::mem::take(self)));
        let _outer = Outer {
            inner: self,
            outer,
            scope,
        };
        f()
    }
}

/// What is known of the value that is being encoded or decoded. Most hold no handles: for them the
/// list is not touched.
#[derive(Clone, Copy)]
struct Scope {
    active: bool,
    /// Whether there are handles in the list.
    held: bool,
}

thread_local! {
    static SCOPE: Cell<Scope> = const { Cell::new(Scope { active: false, held: false }) };
    static CURRENT: RefCell<Handles> = const { RefCell::new(Handles::new()) };
}

// values are encoded and decoded on stacks of fibers, too, which go on on other threads: what reaches the
// thread's own is never inlined, so that its address is not kept there
#[inline(never)]
fn replace_scope(scope: Scope) -> Scope {
    SCOPE.replace(scope)
}

#[inline(never)]
fn replace_current(handles: Handles) -> Handles {
    CURRENT.with_borrow_mut(|current| std::mem::replace(current, handles))
}

/// Keeps a handle beside the value that is being encoded, if one is; returns its index.
#[inline(never)]
fn keep(handle: Box<dyn Handle>) -> Option<u32> {
    let scope = SCOPE.get();
    if !scope.active {
        return None;
    }
    SCOPE.set(Scope {
        held: true,
        ..scope
    });
    Some(CURRENT.with_borrow_mut(|handles| handles.push(handle)))
}

#[inline(never)]
fn take(index: u32) -> Option<Box<dyn Handle>> {
    CURRENT.with_borrow_mut(|handles| handles.take(index))
}

/// Writes a placeholder and keeps the handle beside the value being encoded.
///
/// # Errors
/// When the value is encoded by anything but hbi: a handle means nothing elsewhere.
pub fn serialize_handle<S: Serializer>(
    handle: Box<dyn Handle>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let index = keep(handle).ok_or_else(|| {
        ser::Error::custom("a stream or reactor travels only inside a value that hbi sends")
    })?;
    struct Index([u8; 4]);
    impl Serialize for Index {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }
    serializer.serialize_newtype_struct(
        rmp_serde::MSGPACK_EXT_STRUCT_NAME,
        &(PLACEHOLDER, Index(index.to_be_bytes())),
    )
}

/// Reads a placeholder and takes its handle.
///
/// # Errors
/// When there is no placeholder here, when its handle was taken before (each can be taken once), or
/// when the value is decoded by anything but hbi.
pub fn deserialize_handle<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Box<dyn Handle>, D::Error> {
    struct Placeholder;
    impl<'de> Visitor<'de> for Placeholder {
        type Value = Box<dyn Handle>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a stream or reactor")
        }
        fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
            take_placeholder(d)
        }
    }
    deserializer.deserialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, Placeholder)
}

/// Takes the handle of a placeholder from the inside of a MessagePack extension.
///
/// # Errors
/// As [`deserialize_handle`].
pub fn take_placeholder<'de, D: Deserializer<'de>>(
    extension: D,
) -> Result<Box<dyn Handle>, D::Error> {
    struct Index(u32);
    impl<'de> Deserialize<'de> for Index {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Bytes;
            impl Visitor<'_> for Bytes {
                type Value = Index;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("four bytes")
                }
                fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Index, E> {
                    let index = v
                        .try_into()
                        .map_err(|_| E::invalid_length(v.len(), &self))?;
                    Ok(Index(u32::from_be_bytes(index)))
                }
            }
            d.deserialize_bytes(Bytes)
        }
    }
    let (tag, Index(index)) = <(i8, Index)>::deserialize(extension)?;
    if tag != PLACEHOLDER {
        return Err(de::Error::custom(format_args!(
            "expected a stream or reactor, found MessagePack extension {tag}"
        )));
    }
    take(index).ok_or_else(|| {
        de::Error::custom(
            "this stream or reactor was taken before, or never came: each can be taken once",
        )
    })
}
