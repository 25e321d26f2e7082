//! Values as peer-script writes them: `Msg("Nick", #{ a: [1, 2.5] }, ())`.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer, ser};

/// What `#[derive(hbi::Value)]` tells serde of the newtype around a value that has a constructor.
const CONSTRUCTED: &str = "$hbi::Value";

/// Writes a value as a literal of peer-script. Types that derive `hbi::Value` are calls of their
/// constructors, other structs are maps; nothing is `()`, bytes are a list of numbers, enums stand
/// as serde shows them.
///
/// # Errors
/// When the formatter fails, or the value's own `Serialize`.
pub fn write_literal<T: Serialize + ?Sized>(f: &mut fmt::Formatter<'_>, value: &T) -> fmt::Result {
    let writer = Writer {
        f,
        constructed: false,
    };
    value.serialize(writer).map_err(|Failed| fmt::Error)
}

/// Writes one value.
struct Writer<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    /// The value is a struct that scripts construct by its name.
    constructed: bool,
}

/// Writes the elements of a list, a map or a call, and what closes it.
struct Elements<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    first: bool,
    /// Without names: arguments of a constructor.
    constructed: bool,
    close: &'static str,
}

/// A formatter has no reasons.
#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value cannot be written")
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Failed
    }
}

impl From<fmt::Error> for Failed {
    fn from(_: fmt::Error) -> Self {
        Failed
    }
}

impl<'a, 'f> Writer<'a, 'f> {
    fn show(self, shown: impl fmt::Display) -> Result<(), Failed> {
        Ok(write!(self.f, "{shown}")?)
    }

    fn float(self, number: f64) -> Result<(), Failed> {
        // `{:?}` keeps the point of whole numbers
        Ok(write!(self.f, "{number:?}")?)
    }

    fn elements(self, open: &str, close: &'static str) -> Result<Elements<'a, 'f>, Failed> {
        self.f.write_str(open)?;
        Ok(Elements {
            f: self.f,
            first: true,
            constructed: self.constructed,
            close,
        })
    }

    /// The arguments of a constructor.
    fn call(self, name: &str) -> Result<Elements<'a, 'f>, Failed> {
        self.f.write_str(name)?;
        self.elements("(", ")")
    }

    /// A map with one entry, whose value follows.
    fn variant(
        self,
        variant: &str,
        open: &str,
        close: &'static str,
    ) -> Result<Elements<'a, 'f>, Failed> {
        self.f.write_str("#{ ")?;
        key(self.f, variant)?;
        self.elements(open, close)
    }
}

impl Elements<'_, '_> {
    fn next(&mut self) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.f.write_str(", ")?;
        }
        Ok(())
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.next()?;
        value.serialize(plain(self.f))
    }

    fn entry<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Failed> {
        self.next()?;
        if !self.constructed {
            key(self.f, name)?;
        }
        value.serialize(plain(self.f))
    }

    fn close(self) -> Result<(), Failed> {
        Ok(self.f.write_str(self.close)?)
    }
}

fn plain<'a, 'f>(f: &'a mut fmt::Formatter<'f>) -> Writer<'a, 'f> {
    Writer {
        f,
        constructed: false,
    }
}

fn key(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    quoted(f, name, '"')?;
    f.write_str(": ")
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str, quote: char) -> fmt::Result {
    f.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\\' => f.write_str("\\\\")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if c.is_ascii_control() => write!(f, "\\x{:02x}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char(quote)
}

macro_rules! shown {
    ($($function:ident: $ty:ty),*) => {$(
        fn $function(self, value: $ty) -> Result<(), Failed> {
            self.show(value)
        }
    )*};
}

impl<'a, 'f> Serializer for Writer<'a, 'f> {
    type Ok = ();
    type Error = Failed;
    type SerializeSeq = Elements<'a, 'f>;
    type SerializeTuple = Elements<'a, 'f>;
    type SerializeTupleStruct = Elements<'a, 'f>;
    type SerializeTupleVariant = Elements<'a, 'f>;
    type SerializeMap = Elements<'a, 'f>;
    type SerializeStruct = Elements<'a, 'f>;
    type SerializeStructVariant = Elements<'a, 'f>;

    shown! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_i128: i128, serialize_u8: u8, serialize_u16: u16,
        serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    }

    fn serialize_f32(self, value: f32) -> Result<(), Failed> {
        self.float(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Failed> {
        self.float(value)
    }

    fn serialize_char(self, value: char) -> Result<(), Failed> {
        Ok(quoted(self.f, value.encode_utf8(&mut [0; 4]), '\'')?)
    }

    fn serialize_str(self, value: &str) -> Result<(), Failed> {
        Ok(quoted(self.f, value, '"')?)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Failed> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Failed> {
        self.show("()")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Failed> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Failed> {
        self.show("()")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), Failed> {
        if self.constructed {
            return self.call(name)?.close();
        }
        self.show("()")
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Failed> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        if name == CONSTRUCTED {
            let constructed = true;
            return value.serialize(Writer {
                f: self.f,
                constructed,
            });
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
    ) -> Result<(), Failed> {
        let mut map = self.variant(variant, "", " }")?;
        map.element(value)?;
        map.close()
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Elements<'a, 'f>, Failed> {
        self.elements("[", "]")
    }

    fn serialize_tuple(self, _len: usize) -> Result<Elements<'a, 'f>, Failed> {
        self.elements("[", "]")
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _len: usize,
    ) -> Result<Elements<'a, 'f>, Failed> {
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
    ) -> Result<Elements<'a, 'f>, Failed> {
        self.variant(variant, "[", "] }")
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Elements<'a, 'f>, Failed> {
        self.elements("#{ ", " }")
    }

    fn serialize_struct(self, name: &'static str, _len: usize) -> Result<Elements<'a, 'f>, Failed> {
        match self.constructed {
            true => self.call(name),
            false => self.elements("#{ ", " }"),
        }
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Elements<'a, 'f>, Failed> {
        self.variant(variant, "#{ ", " } }")
    }
}

macro_rules! elements {
    ($($Trait:ident: $function:ident),*) => {$(
        impl ser::$Trait for Elements<'_, '_> {
            type Ok = ();
            type Error = Failed;

            fn $function<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
                self.element(value)
            }

            fn end(self) -> Result<(), Failed> {
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
        impl ser::$Trait for Elements<'_, '_> {
            type Ok = ();
            type Error = Failed;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Failed> {
                self.entry(name, value)
            }

            fn end(self) -> Result<(), Failed> {
                self.close()
            }
        }
    )*};
}
entries!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Elements<'_, '_> {
    type Ok = ();
    type Error = Failed;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), Failed> {
        self.element(name)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.f.write_str(": ")?;
        value.serialize(plain(self.f))
    }

    fn end(self) -> Result<(), Failed> {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Shown<T>(T);
    impl<T: Serialize> fmt::Display for Shown<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_literal(f, &self.0)
        }
    }

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

    #[test]
    fn values_are_written_as_scripts_read_them() {
        let map = BTreeMap::from([("a\"b", 1)]);
        for (written, expected) in [
            (
                Shown((1, -2.0, true, 'c')).to_string(),
                "[1, -2.0, true, 'c']",
            ),
            (Shown("a\"\\\n\u{1}é").to_string(), r#""a\"\\\n\x01é""#),
            (Shown((None::<u8>, Some(1), ())).to_string(), "[(), 1, ()]"),
            (
                Shown(Point { x: 1, y: 2.5 }).to_string(),
                r#"#{ "x": 1, "y": 2.5 }"#,
            ),
            (Shown(map).to_string(), r#"#{ "a\"b": 1 }"#),
            (Shown(Kind::Plain).to_string(), r#""Plain""#),
            (Shown(Kind::Of(1)).to_string(), r#"#{ "Of": 1 }"#),
            (
                Shown(Kind::Pair(1, 2)).to_string(),
                r#"#{ "Pair": [1, 2] }"#,
            ),
            (
                Shown(Kind::Named { a: 1 }).to_string(),
                r##"#{ "Named": #{ "a": 1 } }"##,
            ),
        ] {
            assert_eq!(written, expected);
        }
    }
}
