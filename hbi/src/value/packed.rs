//! A value packed for the way, and the two directions of packing.

use std::{
    any::{Any, TypeId},
    fmt, io,
};

use bytes::Bytes;
use serde::{Serialize, Serializer, de::DeserializeOwned};

use super::{Handles, MAX_DEPTH, Short, integer, skip};

/// The MessagePack of "nothing".
const NIL: &[u8] = &[0xc0];

/// A value as it travels: its MessagePack, and the handles in it.
///
/// Structs travel as maps, so that a field added with a default stays readable; a `Vec<u8>` that is
/// a whole argument or answer travels as binary.
///
/// ```
/// let packed = hbi::value::Packed::pack(&("tea", 3)).unwrap();
/// let (name, n): (String, u8) = packed.unpack().unwrap();
/// assert_eq!((name.as_str(), n), ("tea", 3));
/// ```
#[derive(Default)]
pub struct Packed {
    pub(super) bytes: Bytes,
    pub(super) handles: Handles,
}

impl Packed {
    /// Packs a value.
    ///
    /// # Errors
    /// When the value's own `Serialize` fails, or it nests deeper than [`MAX_DEPTH`].
    pub fn pack<T: Serialize + ?Sized>(value: &T) -> Result<Self, ValueError> {
        let (mut bytes, mut handles) = (Vec::new(), Handles::new());
        handles.scope(|| encode(&mut bytes, value))?;
        Ok(Self {
            bytes: bytes.into(),
            handles,
        })
    }

    /// The value that stands for "nothing": `()`, `None`.
    pub fn nil() -> Self {
        Self {
            bytes: Bytes::from_static(NIL),
            handles: Handles::new(),
        }
    }

    /// Puts MessagePack and handles together again.
    pub fn from_parts(bytes: Bytes, handles: Handles) -> Self {
        Self { bytes, handles }
    }

    /// The MessagePack and the handles.
    pub fn into_parts(self) -> (Bytes, Handles) {
        (self.bytes, self.handles)
    }

    /// The MessagePack.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The handles in it.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Unpacks the value. Large [`Bytes`] share what they lie in.
    ///
    /// # Errors
    /// When the bytes are not one whole `T`, or a handle in it was taken before.
    pub fn unpack<T: DeserializeOwned + 'static>(mut self) -> Result<T, ValueError> {
        if self.bytes.len() >= SHARED
            && TypeId::of::<T>() == TypeId::of::<Bytes>()
            && let Some(part) = shared_bytes(&self.bytes)
        {
            return same(part);
        }
        unpack_whole(&self.bytes, &mut self.handles)
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Packed({} bytes, {} handles)",
            self.bytes.len(),
            self.handles.len()
        )
    }
}

/// Appends a value's MessagePack to `out`, its handles to `handles`.
///
/// # Errors
/// As [`Packed::pack`]; `out` then holds a part of the value.
#[inline]
pub(crate) fn pack_into<T: Serialize + 'static>(
    out: &mut Vec<u8>,
    handles: &mut Handles,
    value: &T,
) -> Result<(), ValueError> {
    if integer::pack(out, value) {
        return Ok(());
    }
    // serde shows a vector of bytes as a list of numbers; sending it as binary is five times faster
    if let Some(bytes) = (value as &dyn Any).downcast_ref::<Vec<u8>>() {
        return pack_bytes(out, bytes);
    }
    if is_plain::<T>() {
        return encode(out, value);
    }
    handles.scope(|| encode(out, value))
}

/// Whether no handle can be in a value of this type, so that nothing has to be made ready for one.
fn is_plain<T: 'static>() -> bool {
    macro_rules! any_of {
        ($($plain:ty)*) => { false $(|| TypeId::of::<T>() == TypeId::of::<$plain>())* };
    }
    any_of!(() bool char f32 f64 String)
}

/// Appends bytes as MessagePack binary to `out`.
///
/// # Errors
/// When there are 4 GiB of them or more, or `out` refuses them.
pub fn pack_bytes<W: io::Write>(out: &mut W, bytes: &[u8]) -> Result<(), ValueError> {
    let mut serializer = rmp_serde::Serializer::new(out);
    (&mut serializer)
        .serialize_bytes(bytes)
        .map_err(|e| ValueError::new(e.to_string()))
}

/// Takes one value off the front of `input`.
///
/// # Errors
/// When the front is not a whole `T`, or a handle in it was taken before.
#[inline]
pub fn unpack_from<T: DeserializeOwned + 'static>(
    input: &mut &[u8],
    handles: &mut Handles,
) -> Result<T, ValueError> {
    if let Some(integer) = integer::unpack(input) {
        return Ok(integer);
    }
    unpack_any(input, handles)
}

/// From this many bytes on a value shares the buffer that it lies in. A smaller one may lie in one that is
/// much larger, which it would keep alive.
pub(crate) const SHARED: usize = 16 << 10;

/// Unpacks one whole value.
///
/// # Errors
/// When the bytes are not one whole `T`, or a handle in it was taken before.
#[inline]
fn unpack_whole<T: DeserializeOwned + 'static>(
    mut rest: &[u8],
    handles: &mut Handles,
) -> Result<T, ValueError> {
    let value = unpack_from(&mut rest, handles)?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(ValueError::new(format!(
        "{} bytes left over after the value",
        rest.len()
    )))
}

/// Unpacks a short value.
///
/// # Errors
/// When it is not one whole `T`.
#[inline(always)]
pub(crate) fn unpack_short<T: DeserializeOwned + 'static>(value: &Short) -> Result<T, ValueError> {
    let mut rest = &value[..];
    match integer::unpack(&mut rest) {
        Some(integer) if rest.is_empty() => Ok(integer),
        _ => unpack_whole(value, &mut Handles::new()),
    }
}

/// The bytes that a whole value is, without a copy.
fn shared_bytes(value: &Bytes) -> Option<Bytes> {
    let mut rest = &value[..];
    let body = bin_body(skip(&mut rest).ok()?)?;
    rest.is_empty().then(|| value.slice_ref(body))
}

/// A value as its own type, where that is known by other means.
fn same<T: 'static, U: 'static>(value: U) -> Result<T, ValueError> {
    let mut value = Some(value);
    let any: &mut dyn Any = &mut value;
    let same = any.downcast_mut::<Option<T>>().and_then(Option::take);
    same.ok_or_else(|| ValueError::new("expected bytes".into()))
}

fn unpack_any<T: DeserializeOwned + 'static>(
    input: &mut &[u8],
    handles: &mut Handles,
) -> Result<T, ValueError> {
    let value = skip(input)?;
    if TypeId::of::<T>() == TypeId::of::<Vec<u8>>()
        && let Some(bytes) = bin_body(value)
    {
        return same(bytes.to_vec());
    }
    if handles.is_empty() || is_plain::<T>() {
        decode(value)
    } else {
        handles.scope(|| decode(value))
    }
}

/// Types that have a form for people (addresses, UUIDs) are packed as that: so the text wire writes them, and
/// so serde reads what it takes apart by itself (enums with tags, flattened structs).
fn encode<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), ValueError> {
    let from = out.len();
    let mut serializer = rmp_serde::Serializer::new(&mut *out)
        .with_struct_map()
        .with_human_readable();
    value
        .serialize(&mut serializer)
        .map_err(|e| ValueError::new(e.to_string()))?;
    // a level takes a byte at least, so what is shorter does not nest too deep
    if out.len() - from > MAX_DEPTH {
        skip(&mut &out[from..])?;
    }
    Ok(())
}

/// Decodes the one value that `input` is, as [`skip`] has found.
fn decode<T: DeserializeOwned>(input: &[u8]) -> Result<T, ValueError> {
    let mut de = rmp_serde::Deserializer::from_read_ref(input).with_human_readable();
    T::deserialize(&mut de).map_err(ValueError::decode)
}

/// The body of a value that is a MessagePack binary.
fn bin_body(value: &[u8]) -> Option<&[u8]> {
    match value {
        [0xc4, _, body @ ..] | [0xc5, _, _, body @ ..] | [0xc6, _, _, _, _, body @ ..] => {
            Some(body)
        }
        _ => None,
    }
}

/// A value that could not be packed or unpacked: what was seen, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    message: String,
}

impl ValueError {
    /// An error with its text.
    pub fn new(message: String) -> Self {
        Self { message }
    }

    fn decode(error: rmp_serde::decode::Error) -> Self {
        use rmp_serde::decode::Error as E;
        Self::new(match error {
            E::Syntax(message) => message,
            E::InvalidMarkerRead(_) | E::InvalidDataRead(_) => "the value is cut short".into(),
            E::TypeMismatch(marker) => format!("found MessagePack {marker:?}, of another type"),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_nest_up_to_the_limit_and_no_deeper() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Node {
            next: Option<Box<Node>>,
            list: Vec<u8>,
        }
        let chain = |len: usize| {
            (1..len).fold(None, |next, _| {
                let list = Vec::new();
                Some(Box::new(Node { next, list }))
            })
        };
        let nodes = |len| Node {
            next: chain(len),
            list: Vec::new(),
        };
        let deepest = Packed::pack(&nodes(MAX_DEPTH)).expect("it is not too deep");
        assert_eq!(deepest.unpack(), Ok(nodes(MAX_DEPTH)));
        let error = Packed::pack(&nodes(MAX_DEPTH + 1)).unwrap_err().to_string();
        assert!(error.contains("deeper than 64 levels"), "{error}");
    }

    #[test]
    fn a_short_value_is_one_whole_value_of_its_type() {
        fn unpacked<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, String> {
            let short = Short::new(bytes).expect("it is short");
            unpack_short(&short).map_err(|error| error.to_string())
        }
        assert_eq!(unpacked::<u8>(&[7]), Ok(7));
        assert_eq!(unpacked::<i64>(&[0xd0, 0x80]), Ok(-128));
        assert_eq!(unpacked::<String>(b"\xa3tea"), Ok("tea".to_owned()));
        assert_eq!(unpacked::<()>(NIL), Ok(()));
        let over = unpacked::<u8>(&[7, 8]).unwrap_err();
        assert_eq!(over, "1 bytes left over after the value");
        assert!(unpacked::<String>(b"\xa3tea\x00").is_err());
        // what is no such number, or none at all
        for bytes in [&[0xcd, 1, 0][..], &[0xff], b"\xa3tea", &[]] {
            assert!(unpacked::<u8>(bytes).is_err(), "{bytes:x?}");
        }
    }
}
