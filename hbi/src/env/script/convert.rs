//! Values between MessagePack and the interpreter.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use rhai::{Array, Blob, Dynamic, ImmutableString, Map};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser,
};

use super::{
    account::{self, PassedOn},
    calls::Landing,
};
use crate::{
    Failure,
    value::{Handle, Handles, Packed, ValueError, serialize_handle, take_placeholder},
};

/// A stream or an object by reference, as a script holds it: it can be passed on, and methods of an
/// object can be called.
#[derive(Clone)]
pub(super) struct Held(Arc<Mutex<Option<Box<dyn Handle>>>>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream or reactor")
    }
}

impl Held {
    fn take(&self) -> Option<Box<dyn Handle>> {
        let mut held = self.0.lock().unwrap_or_else(|e| e.into_inner());
        match held.as_ref()?.share() {
            Some(shared) => Some(shared),
            None => held.take(),
        }
    }
}

/// A value that is packed still: a script can pass it on as a whole, but not look into it.
#[derive(Clone)]
pub(super) struct Opaque(Arc<Whole>);

struct Whole {
    packed: Mutex<Packed>,
    _counted: PassedOn,
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a packed value")
    }
}

impl Opaque {
    fn new(packed: Packed, landing: &Landing) -> Result<Self, Failure> {
        let _counted = landing.pass_on(packed.bytes().len())?;
        let packed = Mutex::new(packed);
        Ok(Self(Arc::new(Whole { packed, _counted })))
    }

    /// The value; streams in it can be taken once.
    fn packed(&self) -> Result<Packed, ValueError> {
        let mut packed = self.0.packed.lock().unwrap_or_else(|e| e.into_inner());
        packed.take()
    }
}

/// The value as the interpreter has it. One that the script does not look into stays packed, and so
/// does one that it could not look into.
pub(super) fn to_dynamic(
    packed: Packed,
    looked_into: bool,
    landing: &Landing,
) -> Result<Dynamic, Failure> {
    if !looked_into && packed.handles().is_empty() && is_compound(packed.bytes()) {
        return Ok(Dynamic::from(Opaque::new(packed, landing)?));
    }
    if let Err(bound) = account::check_packed(packed.bytes(), &landing.bounds) {
        landing.cannot_look(bound);
        return Ok(Dynamic::from(Opaque::new(packed, landing)?));
    }
    if !packed.handles().is_empty() {
        return Ok(unpacked(packed)?);
    }
    let (bytes, _) = packed.into_parts();
    match unpacked(Packed::from_parts(bytes.clone(), Handles::new())) {
        Ok(value) => Ok(value),
        Err(error) => {
            landing.cannot_look(error.into());
            let packed = Packed::from_parts(bytes, Handles::new());
            Ok(Dynamic::from(Opaque::new(packed, landing)?))
        }
    }
}

/// The value as the interpreter has it, however large it is.
pub(super) fn unpacked(packed: Packed) -> Result<Dynamic, ValueError> {
    packed.unpack::<Value>().map(|Value(value)| value)
}

/// Whether it is an array or a map: others are as quickly unpacked as kept.
fn is_compound(packed: &[u8]) -> bool {
    matches!(packed.first(), Some(0x80..=0x9f | 0xdc..=0xdf))
}

/// The interpreter's value, packed.
pub(super) fn to_packed(value: &Dynamic) -> Result<Packed, ValueError> {
    if let Some(opaque) = value.read_lock::<Opaque>() {
        return opaque.packed();
    }
    Packed::pack(&Borrowed(value))
}

struct Value(Dynamic);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values).map(Value)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Dynamic;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Dynamic, E> {
        Ok(Dynamic::UNIT)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Dynamic, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Dynamic, E> {
        Ok(v.into())
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Dynamic, E> {
        i64::try_from(v).map(Dynamic::from).map_err(|_| {
            E::custom(format_args!(
                "{v} is more than a script can reckon with (i64)"
            ))
        })
    }

    fn visit_f64<E>(self, v: f64) -> Result<Dynamic, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Dynamic, E> {
        Ok(v.into())
    }

    fn visit_bytes<E>(self, v: &[u8]) -> Result<Dynamic, E> {
        Ok(Dynamic::from_blob(v.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dynamic, A::Error> {
        let mut array = Array::new();
        while let Some(Value(value)) = seq.next_element()? {
            array.push(value);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dynamic, A::Error> {
        let mut values = Map::new();
        while let Some((Value(key), Value(value))) = map.next_entry()? {
            // a script's maps have strings for keys
            values.insert(key.to_string().into(), value);
        }
        Ok(values.into())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Dynamic, D::Error> {
        let handle = take_placeholder(d)?;
        Ok(Dynamic::from(Held(Arc::new(Mutex::new(Some(handle))))))
    }
}

struct Borrowed<'a>(&'a Dynamic);

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.0;
        if value.is_unit() {
            return serializer.serialize_unit();
        }
        if let Ok(v) = value.as_bool() {
            return serializer.serialize_bool(v);
        }
        if let Ok(v) = value.as_int() {
            return serializer.serialize_i64(v);
        }
        if let Ok(v) = value.as_float() {
            return serializer.serialize_f64(v);
        }
        if let Ok(v) = value.as_char() {
            return serializer.serialize_char(v);
        }
        if let Some(v) = value.read_lock::<ImmutableString>() {
            return serializer.serialize_str(&v);
        }
        if let Some(v) = value.read_lock::<Array>() {
            return serializer.collect_seq(v.iter().map(Borrowed));
        }
        if let Some(v) = value.read_lock::<Map>() {
            return serializer.collect_map(v.iter().map(|(key, v)| (key.as_str(), Borrowed(v))));
        }
        if let Some(v) = value.read_lock::<Blob>() {
            return serializer.serialize_bytes(&v);
        }
        if let Some(v) = value.read_lock::<Held>() {
            let taken = "this stream was taken before: each can be taken once";
            let handle = v.take().ok_or_else(|| ser::Error::custom(taken))?;
            return serialize_handle(handle, serializer);
        }
        if value.read_lock::<Opaque>().is_some() {
            return Err(ser::Error::custom(
                "a packed value can be passed on as a whole only",
            ));
        }
        Err(ser::Error::custom(format_args!(
            "a `{}` of a script cannot travel",
            value.type_name()
        )))
    }
}
