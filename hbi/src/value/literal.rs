//! Values as scripts write them: `Msg("Nick", {"a": [1, 2.5]}, None)`.

use std::{
    fmt::{self, Write as _},
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser,
};

use super::{Handles, Packed, ValueError, handle::PLACEHOLDER, skip};
use crate::Failure;

/// What `#[derive(hbi::Value)]` tells serde of the newtype around a value that has a constructor.
const CONSTRUCTED: &str = "$hbi::Value";

/// The MessagePack extension type of a value that was written as a literal already.
const LITERAL: i8 = 76;

/// What the body of that begins with. Nobody else knows it, so no value of a peer's that was passed on is
/// taken for a text of this process, which goes into a script as it is.
static SEAL: LazyLock<[u8; 16]> = LazyLock::new(|| {
    let halves = [(); 2].map(|()| RandomState::new().hash_one(()));
    let mut seal = [0; 16];
    for (part, half) in seal.chunks_exact_mut(8).zip(halves) {
        part.copy_from_slice(&half.to_ne_bytes());
    }
    seal
});

/// Stands around the index of a handle in a literal; no string can hold it.
pub(crate) const HANDLE_MARK: char = '\0';

/// How literals are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// As scripts of the mux wire have it: `()`, `#{ "a": 1 }`. It is for people to read: what such scripts
    /// have no spelling for is shown as well (`inf`, `NaN`, integers above `i64::MAX`, keys that are no
    /// strings). Bind values to scripts instead.
    Rhai,
    /// For Python peers, and for Go peers that know Python's names for values: `None`, `True`.
    #[default]
    Python,
    /// For Go peers: `nil`, `true`.
    Go,
}

/// Writes a value as a literal of peer-script of the mux wire. Types that derive `hbi::Value` are
/// calls of their constructors, other structs are maps; nothing is `()`, bytes are a list of numbers,
/// enums stand as serde shows them.
///
/// # Errors
/// When the formatter fails, or the value's own `Serialize`.
pub fn write_literal<T: Serialize + ?Sized>(f: &mut fmt::Formatter<'_>, value: &T) -> fmt::Result {
    let text = literal(value, Dialect::Rhai).map_err(|_| fmt::Error)?;
    f.write_str(&text)
}

/// A value as a literal. Types that derive `hbi::Value` are calls of their constructors, other
/// structs are maps, tuples are lists, bytes are a list of numbers; enums stand as serde shows them.
///
/// ```
/// use hbi::value::{Dialect, literal};
/// let value = (Some("say \"hi\"\n"), None::<u8>, [1.0, 2.5], true);
/// assert_eq!(
///     literal(&value, Dialect::Python).unwrap(),
///     r#"["say \"hi\"\n", None, [1.0, 2.5], True]"#
/// );
/// assert!(literal(&f64::INFINITY, Dialect::Python).is_err());
/// ```
///
/// # Errors
/// When a value has no spelling that the peers of a dialect land: for Python and Go an infinite float and a
/// string with a NUL character, for Go an integer above `i64::MAX`, for all an integer of more than 64 bits,
/// a stream, an object. Or when its own `Serialize` fails.
pub fn literal<T: Serialize + ?Sized>(value: &T, dialect: Dialect) -> Result<String, ValueError> {
    let mut out = String::new();
    value.serialize(Writer::new(&mut out, dialect))?;
    Ok(out)
}

/// Whether a value is of a type that derives `hbi::Value`: then it has a constructor's call as its
/// literal.
pub(crate) fn is_constructed<T: Serialize + ?Sized>(value: &T) -> bool {
    let mut out = String::new();
    let mut writer = Writer::new(&mut out, Dialect::Python);
    writer.probe = true;
    matches!(value.serialize(writer), Err(Unwritable::Constructed))
}

impl Packed {
    /// Packs a value as its literal, for a connection that writes values so.
    ///
    /// # Errors
    /// As [`literal`].
    pub fn pack_literal<T: Serialize + ?Sized>(
        value: &T,
        dialect: Dialect,
    ) -> Result<Self, ValueError> {
        let (mut bytes, mut handles) = (Vec::new(), Handles::new());
        pack_literal_into(&mut bytes, &mut handles, value, dialect)?;
        Ok(Self::from_parts(bytes.into(), handles))
    }

    /// A value that was written as a literal already.
    ///
    /// # Errors
    /// When it is longer than MessagePack allows.
    pub(crate) fn written(text: &str) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        pack_written(&mut bytes, text)?;
        Ok(Self::from_parts(bytes.into(), Handles::new()))
    }

    /// The value as a literal, whatever type it had when it was packed: structs are maps. Handles in
    /// it are marked by their indices.
    ///
    /// # Errors
    /// As [`literal`], or when it is not one whole value.
    pub(crate) fn to_literal(&self, dialect: Dialect) -> Result<String, ValueError> {
        let mut input = self.bytes();
        let mut out = String::new();
        transcode(&mut input, &mut out, dialect)?;
        Ok(out)
    }
}

/// Appends a value, packed as its literal.
pub(crate) fn pack_literal_into<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    handles: &mut Handles,
    value: &T,
    dialect: Dialect,
) -> Result<(), ValueError> {
    pack_written(out, &handles.scope(|| literal(value, dialect))?)
}

/// Appends a literal, packed as a value.
pub(crate) fn pack_written(out: &mut Vec<u8>, text: &str) -> Result<(), ValueError> {
    let len = u32::try_from(SEAL.len() + text.len())
        .map_err(|_| ValueError::new("a literal of 4 GiB or more".into()))?;
    out.push(0xc9);
    out.extend_from_slice(&len.to_be_bytes());
    out.push(LITERAL as u8);
    out.extend_from_slice(&*SEAL);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Takes one value off the front of `input` as a literal.
pub(crate) fn transcode(
    input: &mut &[u8],
    out: &mut String,
    dialect: Dialect,
) -> Result<(), ValueError> {
    let value = skip(input)?;
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(value);
    let found = (&mut deserializer).deserialize_any(Transcode(Writer::new(out, dialect)));
    found.map_err(|error| match error {
        rmp_serde::decode::Error::Syntax(message) => ValueError::new(message),
        other => ValueError::new(other.to_string()),
    })
}

/// The bytes of an extension.
struct Body(Vec<u8>);

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Body;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Body, E> {
                Ok(Body(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Writes one value.
struct Writer<'a> {
    out: &'a mut String,
    dialect: Dialect,
    /// The value is a struct that scripts construct by its name.
    constructed: bool,
    /// Nothing is wanted but whether it is one.
    probe: bool,
}

/// Writes the elements of a list, a map or a call, and what closes it.
struct Elements<'a> {
    out: &'a mut String,
    dialect: Dialect,
    first: bool,
    /// Without names: arguments of a constructor.
    constructed: bool,
    close: &'static str,
}

/// Why a value was not written.
#[derive(Debug)]
enum Unwritable {
    Because(ValueError),
    /// It is a constructor's call, and only that was asked.
    Constructed,
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unwritable::Because(error) => error.fmt(f),
            Unwritable::Constructed => f.write_str("it is constructed by name"),
        }
    }
}

impl std::error::Error for Unwritable {}

impl ser::Error for Unwritable {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Unwritable::Because(ValueError::new(message.to_string()))
    }
}

impl From<Unwritable> for ValueError {
    fn from(error: Unwritable) -> Self {
        ValueError::new(error.to_string())
    }
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut String, dialect: Dialect) -> Self {
        Self {
            out,
            dialect,
            constructed: false,
            probe: false,
        }
    }

    fn show(self, shown: impl fmt::Display) -> Result<(), Unwritable> {
        if self.probe {
            return Err(ser::Error::custom("a plain value"));
        }
        // a string takes all that is written to it
        let _ = write!(self.out, "{shown}");
        Ok(())
    }

    fn elements(self, open: &str, close: &'static str) -> Result<Elements<'a>, Unwritable> {
        if self.probe {
            return Err(ser::Error::custom("a plain value"));
        }
        self.out.push_str(open);
        Ok(Elements {
            out: self.out,
            dialect: self.dialect,
            first: true,
            constructed: self.constructed,
            close,
        })
    }

    /// The arguments of a constructor.
    fn call(self, name: &str) -> Result<Elements<'a>, Unwritable> {
        self.out.push_str(name);
        self.elements("(", ")")
    }

    fn map(self) -> Result<Elements<'a>, Unwritable> {
        match self.dialect {
            Dialect::Rhai => self.elements("#{ ", " }"),
            _ => self.elements("{", "}"),
        }
    }

    /// A map with one entry, whose value follows.
    fn variant(
        self,
        variant: &str,
        open: &str,
        close: [&'static str; 2],
    ) -> Result<Elements<'a>, Unwritable> {
        let rhai = self.dialect == Dialect::Rhai;
        self.out.push_str(if rhai { "#{ " } else { "{" });
        key(self.out, variant, self.dialect)?;
        self.elements(open, close[usize::from(!rhai)])
    }

    fn float(self, number: f64) -> Result<(), Unwritable> {
        if self.dialect != Dialect::Rhai {
            if number.is_nan() {
                return self.show("NaN");
            }
            if number.is_infinite() {
                return Err(ser::Error::custom(
                    "an infinite float has no spelling on the text wire",
                ));
            }
        }
        // `{:?}` keeps the point of whole numbers
        self.show(format_args!("{number:?}"))
    }

    fn extension(self, (tag, Body(body)): (i8, Body)) -> Result<(), Unwritable> {
        if tag == PLACEHOLDER {
            return handle(self.out, &body);
        }
        let text = body.strip_prefix(&*SEAL).filter(|_| tag == LITERAL);
        let Some(text) = text.and_then(|text| std::str::from_utf8(text).ok()) else {
            return Err(ser::Error::custom(format_args!(
                "MessagePack extension {tag} has no spelling in scripts"
            )));
        };
        self.out.push_str(text);
        Ok(())
    }

    fn nothing(self) -> Result<(), Unwritable> {
        let shown = match self.dialect {
            Dialect::Rhai => "()",
            Dialect::Python => "None",
            Dialect::Go => "nil",
        };
        self.show(shown)
    }
}

impl Elements<'_> {
    fn next(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push_str(", ");
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.next();
        value.serialize(Writer::new(self.out, self.dialect))
    }

    fn entry<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Unwritable> {
        self.next();
        if !self.constructed {
            key(self.out, name, self.dialect)?;
        }
        value.serialize(Writer::new(self.out, self.dialect))
    }

    fn close(self) -> Result<(), Unwritable> {
        self.out.push_str(self.close);
        Ok(())
    }
}

fn key(out: &mut String, name: &str, dialect: Dialect) -> Result<(), Unwritable> {
    quoted(out, name, '"', dialect)?;
    out.push_str(": ");
    Ok(())
}

fn quoted(out: &mut String, text: &str, quote: char, dialect: Dialect) -> Result<(), Unwritable> {
    let rhai = dialect == Dialect::Rhai;
    out.reserve(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if rhai && c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\0' => {
                return Err(ser::Error::custom(
                    "a string with a NUL character has no spelling on the text wire",
                ));
            }
            // every other character stands as it is: not all peers read an escape of it
            c => out.push(c),
        }
    }
    out.push(quote);
    Ok(())
}

macro_rules! shown {
    ($($function:ident: $ty:ty),*) => {$(
        fn $function(self, value: $ty) -> Result<(), Unwritable> {
            self.show(value)
        }
    )*};
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Elements<'a>;
    type SerializeTupleStruct = Elements<'a>;
    type SerializeTupleVariant = Elements<'a>;
    type SerializeMap = Elements<'a>;
    type SerializeStruct = Elements<'a>;
    type SerializeStructVariant = Elements<'a>;

    shown! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32
    }

    fn serialize_u64(self, value: u64) -> Result<(), Unwritable> {
        if self.dialect == Dialect::Go && i64::try_from(value).is_err() {
            return Err(ser::Error::custom(format_args!(
                "{value} is an integer above `i64::MAX`, which Go peers do not read"
            )));
        }
        self.show(value)
    }

    fn serialize_i128(self, value: i128) -> Result<(), Unwritable> {
        match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => self.serialize_i64(value),
            (_, Ok(value)) => self.serialize_u64(value),
            _ => Err(ser::Error::custom(format_args!(
                "{value} is an integer of more than 64 bits"
            ))),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<(), Unwritable> {
        match i128::try_from(value) {
            Ok(value) => self.serialize_i128(value),
            Err(_) => Err(ser::Error::custom(format_args!(
                "{value} is an integer of more than 64 bits"
            ))),
        }
    }

    fn serialize_bool(self, value: bool) -> Result<(), Unwritable> {
        match (self.dialect, value) {
            (Dialect::Python, true) => self.show("True"),
            (Dialect::Python, false) => self.show("False"),
            _ => self.show(value),
        }
    }

    fn serialize_i64(self, value: i64) -> Result<(), Unwritable> {
        if value == i64::MIN && self.dialect != Dialect::Rhai {
            // the sign is an operator of its own, and what stands behind it would not fit
            return self.show("(-9223372036854775807 - 1)");
        }
        self.show(value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), Unwritable> {
        self.float(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unwritable> {
        self.float(value)
    }

    fn serialize_char(self, value: char) -> Result<(), Unwritable> {
        let quote = match self.dialect {
            Dialect::Rhai => '\'',
            _ => '"',
        };
        quoted(
            self.out,
            value.encode_utf8(&mut [0; 4]),
            quote,
            self.dialect,
        )
    }

    fn serialize_str(self, value: &str) -> Result<(), Unwritable> {
        quoted(self.out, value, '"', self.dialect)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unwritable> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Unwritable> {
        self.nothing()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unwritable> {
        self.nothing()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), Unwritable> {
        if self.constructed {
            return self.call(name)?.close();
        }
        self.nothing()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Unwritable> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unwritable> {
        if name == CONSTRUCTED {
            if self.probe {
                return Err(Unwritable::Constructed);
            }
            let constructed = true;
            return value.serialize(Writer {
                constructed,
                ..self
            });
        }
        if name == rmp_serde::MSGPACK_EXT_STRUCT_NAME {
            // a stream or an object: its tag and its index
            let packed = Packed::pack(value).map_err(ser::Error::custom)?;
            let extension = packed.unpack().map_err(ser::Error::custom)?;
            return self.extension(extension);
        }
        if self.constructed {
            let mut call = self.call(name)?;
            call.element(value)?;
            return call.close();
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unwritable> {
        let mut map = self.variant(variant, "", [" }", "}"])?;
        map.element(value)?;
        map.close()
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Elements<'a>, Unwritable> {
        self.elements("[", "]")
    }

    fn serialize_tuple(self, _len: usize) -> Result<Elements<'a>, Unwritable> {
        self.elements("[", "]")
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _len: usize,
    ) -> Result<Elements<'a>, Unwritable> {
        match self.constructed {
            true => self.call(name),
            false => self.elements("[", "]"),
        }
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Elements<'a>, Unwritable> {
        self.variant(variant, "[", ["] }", "]}"])
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Elements<'a>, Unwritable> {
        self.map()
    }

    fn serialize_struct(self, name: &'static str, _len: usize) -> Result<Elements<'a>, Unwritable> {
        match self.constructed {
            true => self.call(name),
            false => self.map(),
        }
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Elements<'a>, Unwritable> {
        match self.dialect {
            Dialect::Rhai => self.variant(variant, "#{ ", [" } }", ""]),
            _ => self.variant(variant, "{", ["", "}}"]),
        }
    }
}

/// Marks where a handle stands.
fn handle(out: &mut String, index: &[u8]) -> Result<(), Unwritable> {
    let index: [u8; 4] = index
        .try_into()
        .map_err(|_| <Unwritable as ser::Error>::custom("no stream or object"))?;
    let _ = write!(
        out,
        "{HANDLE_MARK}{}{HANDLE_MARK}",
        u32::from_be_bytes(index)
    );
    Ok(())
}

macro_rules! elements {
    ($($Trait:ident: $function:ident),*) => {$(
        impl ser::$Trait for Elements<'_> {
            type Ok = ();
            type Error = Unwritable;

            fn $function<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
                self.element(value)
            }

            fn end(self) -> Result<(), Unwritable> {
                self.close()
            }
        }
    )*};
}
elements!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field
);

macro_rules! entries {
    ($($Trait:ident),*) => {$(
        impl ser::$Trait for Elements<'_> {
            type Ok = ();
            type Error = Unwritable;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Unwritable> {
                self.entry(name, value)
            }

            fn end(self) -> Result<(), Unwritable> {
                self.close()
            }
        }
    )*};
}
entries!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), Unwritable> {
        self.element(name)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        self.out.push_str(": ");
        value.serialize(Writer::new(self.out, self.dialect))
    }

    fn end(self) -> Result<(), Unwritable> {
        self.close()
    }
}

/// Writes what is decoded.
struct Transcode<'a>(Writer<'a>);

/// The same, as the seed of an element.
impl<'de> de::DeserializeSeed<'de> for Transcode<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn told<E: de::Error>(written: Result<(), Unwritable>) -> Result<(), E> {
    written.map_err(E::custom)
}

impl<'de> Visitor<'de> for Transcode<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        told(self.0.serialize_unit())
    }

    fn visit_bool<E: de::Error>(self, b: bool) -> Result<(), E> {
        told(self.0.serialize_bool(b))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<(), E> {
        told(self.0.serialize_i64(n))
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<(), E> {
        told(self.0.serialize_u64(n))
    }

    fn visit_f64<E: de::Error>(self, x: f64) -> Result<(), E> {
        told(self.0.serialize_f64(x))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        told(self.0.serialize_str(text))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<(), E> {
        told(self.0.serialize_bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Writer { out, dialect, .. } = self.0;
        out.push('[');
        let mut first = true;
        loop {
            let before = out.len();
            if !first {
                out.push_str(", ");
            }
            if seq
                .next_element_seed(Transcode(Writer::new(out, dialect)))?
                .is_none()
            {
                out.truncate(before);
                break;
            }
            first = false;
        }
        out.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Writer { out, dialect, .. } = self.0;
        let (open, close) = match dialect {
            Dialect::Rhai => ("#{ ", " }"),
            _ => ("{", "}"),
        };
        out.push_str(open);
        let mut first = true;
        loop {
            let before = out.len();
            if !first {
                out.push_str(", ");
            }
            if map
                .next_key_seed(Transcode(Writer::new(out, dialect)))?
                .is_none()
            {
                out.truncate(before);
                break;
            }
            out.push_str(": ");
            map.next_value_seed(Transcode(Writer::new(out, dialect)))?;
            first = false;
        }
        out.push_str(close);
        Ok(())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        told(self.0.extension(Deserialize::deserialize(deserializer)?))
    }
}

impl de::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        ValueError::new(message.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    enum Kind {
        Plain,
        Of(u8),
        Pair(u8, u8),
        Named { a: u8 },
    }

    #[derive(Serialize)]
    struct Point {
        x: i64,
        y: f64,
    }

    /// As what derives `hbi::Value` serializes itself.
    struct Msg(&'static str, f64);

    impl Serialize for Msg {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            #[derive(Serialize)]
            #[serde(rename = "Msg")]
            struct Fields {
                from: &'static str,
                time: f64,
            }
            let (from, time) = (self.0, self.1);
            serializer.serialize_newtype_struct(CONSTRUCTED, &Fields { from, time })
        }
    }

    fn cases() -> Vec<[String; 4]> {
        fn case<T: Serialize>(value: T, rhai: &str, python: &str, go: &str) -> [String; 4] {
            let packed = Packed::pack(&value).expect("packs");
            let again = packed.to_literal(Dialect::Python);
            for (dialect, expected) in [
                (Dialect::Rhai, rhai),
                (Dialect::Python, python),
                (Dialect::Go, go),
            ] {
                assert_eq!(literal(&value, dialect).as_deref(), Ok(expected));
            }
            let again = again.expect("what was packed can be written");
            [rhai.into(), python.into(), go.into(), again]
        }
        vec![
            case(
                (1, -2.0, true, 'c'),
                "[1, -2.0, true, 'c']",
                "[1, -2.0, True, \"c\"]",
                "[1, -2.0, true, \"c\"]",
            ),
            case(
                "a'\"\\\n\u{1}é",
                r#""a'\"\\\n\x01é""#,
                "\"a'\\\"\\\\\\n\u{1}é\"",
                "\"a'\\\"\\\\\\n\u{1}é\"",
            ),
            case(
                (None::<u8>, Some(1), ()),
                "[(), 1, ()]",
                "[None, 1, None]",
                "[nil, 1, nil]",
            ),
            case(
                Point { x: 1, y: 2.5 },
                r#"#{ "x": 1, "y": 2.5 }"#,
                r#"{"x": 1, "y": 2.5}"#,
                r#"{"x": 1, "y": 2.5}"#,
            ),
            case(
                BTreeMap::from([("a\"b", 1)]),
                r#"#{ "a\"b": 1 }"#,
                r#"{"a\"b": 1}"#,
                r#"{"a\"b": 1}"#,
            ),
            case(Kind::Plain, r#""Plain""#, r#""Plain""#, r#""Plain""#),
            case(
                Kind::Of(1),
                r#"#{ "Of": 1 }"#,
                r#"{"Of": 1}"#,
                r#"{"Of": 1}"#,
            ),
            case(
                Kind::Pair(1, 2),
                r#"#{ "Pair": [1, 2] }"#,
                r#"{"Pair": [1, 2]}"#,
                r#"{"Pair": [1, 2]}"#,
            ),
            case(
                Kind::Named { a: 1 },
                r##"#{ "Named": #{ "a": 1 } }"##,
                r#"{"Named": {"a": 1}}"#,
                r#"{"Named": {"a": 1}}"#,
            ),
            case(
                (i64::MAX, 1e21, 1e-7, Vec::<u8>::new()),
                "[9223372036854775807, 1e21, 1e-7, []]",
                "[9223372036854775807, 1e21, 1e-7, []]",
                "[9223372036854775807, 1e21, 1e-7, []]",
            ),
        ]
    }

    #[test]
    fn values_are_written_as_scripts_read_them_and_the_same_once_packed() {
        for [_, python, _, again] in cases() {
            assert_eq!(again, python);
        }
        assert_eq!(
            literal(&i64::MIN, Dialect::Go).as_deref(),
            Ok("(-9223372036854775807 - 1)")
        );
        assert_eq!(literal(&f64::NAN, Dialect::Python).as_deref(), Ok("NaN"));
    }

    #[test]
    fn constructors_are_calls_while_the_type_is_known() {
        let value = [Msg("Nick", 1.5)];
        let text = r#"[Msg("Nick", 1.5)]"#;
        assert_eq!(literal(&value, Dialect::Python).as_deref(), Ok(text));
        let kept = Packed::pack_literal(&value, Dialect::Python).expect("packs");
        assert_eq!(kept.to_literal(Dialect::Python).as_deref(), Ok(text));
        let packed = Packed::pack(&value).expect("packs");
        assert_eq!(
            packed.to_literal(Dialect::Go).as_deref(),
            Ok(r#"[{"from": "Nick", "time": 1.5}]"#)
        );
        assert!(is_constructed(&Msg("a", 0.0)));
        assert!(is_constructed(&Some(Msg("a", 0.0))));
        for plain in [
            is_constructed(&value),
            is_constructed(&1),
            is_constructed("a"),
        ] {
            assert!(!plain);
        }
    }

    #[test]
    fn what_has_no_spelling_is_refused() {
        for dialect in [Dialect::Python, Dialect::Go] {
            let nul = literal(&["a\0b"], dialect).unwrap_err().to_string();
            assert!(nul.contains("NUL"), "{nul}");
            for x in [f64::INFINITY, f64::NEG_INFINITY] {
                let infinite = literal(&x, dialect).unwrap_err().to_string();
                assert!(infinite.contains("infinite float"), "{infinite}");
            }
            let packed = Packed::pack(&f32::INFINITY).expect("packs");
            assert!(packed.to_literal(dialect).is_err());
        }
        let large = || (u64::MAX, 1_u128 << 63);
        let python = literal(&large(), Dialect::Python);
        assert_eq!(
            python.as_deref(),
            Ok("[18446744073709551615, 9223372036854775808]")
        );
        let packed = Packed::pack(&large().0).expect("packs");
        for refused in [
            literal(&large().0, Dialect::Go),
            literal(&large().1, Dialect::Go),
            packed.to_literal(Dialect::Go),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("above `i64::MAX`"), "{error}");
        }
    }

    #[test]
    fn only_what_was_written_here_stands_as_it_is() {
        /// As types do that take any extension and pass it on.
        struct Foreign(i8, &'static [u8]);
        impl Serialize for Foreign {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                struct Bytes(&'static [u8]);
                impl Serialize for Bytes {
                    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                        serializer.serialize_bytes(self.0)
                    }
                }
                let name = rmp_serde::MSGPACK_EXT_STRUCT_NAME;
                serializer.serialize_newtype_struct(name, &(self.0, Bytes(self.1)))
            }
        }
        for foreign in [
            Foreign(LITERAL, b"import os"),
            Foreign(LITERAL, b"sixteen bytes at the front"),
            Foreign(LITERAL, b""),
            Foreign(5, b"four"),
        ] {
            let packed = Packed::pack(&foreign).expect("packs");
            for refused in [
                packed.to_literal(Dialect::Python),
                literal(&foreign, Dialect::Python),
            ] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("has no spelling"), "{error}");
            }
        }
        let written = Packed::written("Msg(1)").expect("it is short");
        assert_eq!(written.to_literal(Dialect::Python).as_deref(), Ok("Msg(1)"));
    }
}
