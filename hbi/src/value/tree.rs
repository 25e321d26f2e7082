//! A value taken apart, for what computes with values it knows no Rust type of.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::{Handles, MAX_DEPTH, Packed, ValueError, array_head, skip};

/// A value taken apart.
///
/// ```
/// use hbi::value::{Packed, Value};
/// let value = Value::unpack(Packed::pack(&("tea", 3)).unwrap()).unwrap();
/// assert_eq!(value, Value::List(vec![Value::Text("tea".into()), Value::Int(3)]));
/// ```
#[derive(Debug)]
pub enum Value {
    /// Nothing.
    Nil,
    /// True or false.
    Bool(bool),
    /// An integer; those that do not fit 64 bits cannot be packed.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// Keys and values, in the order they were put in.
    Map(Vec<(Value, Value)>),
    /// A value left packed: nobody looked inside yet, or nobody can, where it holds a stream or an
    /// object.
    Packed(Packed),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Nil, Value::Nil) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len() && a.iter().all(|entry| b.contains(entry))
            }
            (Value::Packed(a), Value::Packed(b)) => {
                a.handles().is_empty() && b.handles().is_empty() && a.bytes() == b.bytes()
            }
            _ => false,
        }
    }
}

impl Value {
    /// Takes a value apart. One with a stream or an object in it stays packed.
    ///
    /// # Errors
    /// When it is not one whole value.
    pub fn unpack(packed: Packed) -> Result<Self, ValueError> {
        if !packed.handles().is_empty() {
            return Ok(Value::Packed(packed));
        }
        packed.unpack()
    }

    /// Packs the value.
    ///
    /// # Errors
    /// When it nests deeper than [`MAX_DEPTH`], or holds an integer that does not fit 64 bits.
    pub fn pack(self) -> Result<Packed, ValueError> {
        let packed = match self {
            Value::Packed(packed) => return Ok(packed),
            value => {
                let (mut bytes, mut handles) = (Vec::new(), Handles::new());
                value.write(&mut bytes, &mut handles, 0)?;
                Packed::from_parts(bytes.into(), handles)
            }
        };
        // what was left packed inside may nest, too
        skip(&mut packed.bytes())?;
        Ok(packed)
    }

    fn write(
        self,
        out: &mut Vec<u8>,
        handles: &mut Handles,
        depth: usize,
    ) -> Result<(), ValueError> {
        if depth > MAX_DEPTH {
            return Err(ValueError::new(format!(
                "the value nests deeper than {MAX_DEPTH} levels"
            )));
        }
        match self {
            Value::Nil => out.push(0xc0),
            Value::Bool(b) => out.push(0xc2 | b as u8),
            Value::Int(n) => {
                if let Ok(n) = i64::try_from(n) {
                    scalar(out, &n)?;
                } else if let Ok(n) = u64::try_from(n) {
                    scalar(out, &n)?;
                } else {
                    return Err(ValueError::new(format!(
                        "the integer {n} does not fit 64 bits"
                    )));
                }
            }
            Value::Float(x) => scalar(out, &x)?,
            Value::Text(text) => scalar(out, &text)?,
            Value::Bytes(bytes) => super::pack_bytes(out, &bytes)?,
            Value::List(items) => {
                array_head(out, items.len());
                for item in items {
                    item.write(out, handles, depth + 1)?;
                }
            }
            Value::Map(entries) => {
                map_head(out, entries.len());
                for (key, value) in entries {
                    key.write(out, handles, depth + 1)?;
                    value.write(out, handles, depth + 1)?;
                }
            }
            Value::Packed(packed) => packed.append(out, handles),
        }
        Ok(())
    }
}

fn scalar<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), ValueError> {
    rmp_serde::encode::write(out, value).map_err(|error| ValueError::new(error.to_string()))
}

fn map_head(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(0x80 | len as u8),
        16..=0xffff => {
            out.push(0xde);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdf);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

/// How many values to make room for: as many as are announced, but not more than a few kilobytes on
/// somebody's word.
fn announced(size: Option<usize>) -> usize {
    size.unwrap_or(0).min(1024)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Nil)
            }

            fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
                Ok(Value::Bool(b))
            }

            fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
                Ok(Value::Int(n.into()))
            }

            fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
                Ok(Value::Int(n.into()))
            }

            fn visit_f64<E>(self, x: f64) -> Result<Value, E> {
                Ok(Value::Float(x))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
                Ok(Value::Bytes(bytes.to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::with_capacity(announced(seq.size_hint()));
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::with_capacity(announced(map.size_hint()));
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Value::Map(entries))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_packing() {
        let long: Vec<_> = (0..70_000).map(Value::Int).collect();
        let wide: Vec<_> = (0..300)
            .map(|n| (Value::Int(n), Value::Text("x".repeat(n as usize))))
            .collect();
        let value = || {
            Value::List(vec![
                Value::Nil,
                Value::Bool(true),
                Value::Int(-1),
                Value::Int(u64::MAX.into()),
                Value::Float(-2.5),
                Value::Text("é".into()),
                Value::Bytes(vec![0, 255]),
            ])
        };
        assert_eq!(Value::unpack(value().pack().expect("packs")), Ok(value()));
        for value in [Value::List(long), Value::Map(wide)] {
            let bytes = match &value {
                Value::List(items) => items.len(),
                Value::Map(entries) => entries.len(),
                _ => 0,
            };
            let packed = value.pack().expect("packs");
            match Value::unpack(packed).expect("unpacks") {
                Value::List(items) => assert_eq!(items.len(), bytes),
                Value::Map(entries) => assert_eq!(entries.len(), bytes),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_cannot_travel_is_refused() {
        assert!(Value::Int(1 << 64).pack().is_err());
        let mut deep = Value::Nil;
        for _ in 0..=MAX_DEPTH {
            deep = Value::List(vec![deep]);
        }
        assert!(deep.pack().is_err());
        let mut packed = Packed::nil();
        for _ in 0..=MAX_DEPTH {
            packed = match Value::List(vec![Value::Packed(packed)]).pack() {
                Ok(packed) => packed,
                Err(_) => return,
            };
        }
        panic!("a value put together level by level nests as deep as it likes");
    }
}
