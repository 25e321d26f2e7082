//! Parts of packed values, and values put together from parts, with the handles that stand in them.

use bytes::Bytes;

use super::{Handles, Packed, ValueError, handle::PLACEHOLDER, skip};

/// The two bytes a placeholder begins with: an extension of four bytes, of the placeholders' type.
const FIXEXT4: u8 = 0xd6;

impl Packed {
    /// A copy of this value, to which its handles move: each can be taken once.
    ///
    /// # Errors
    /// When a handle in it was taken before.
    pub fn take(&mut self) -> Result<Packed, ValueError> {
        let bytes = self.bytes.clone();
        self.part(bytes)
    }

    /// The value of a field, where this is a map with string keys. Its handles move to it.
    ///
    /// # Errors
    /// When this is no map, has no such field, or a handle in it was taken before.
    pub fn field(&mut self, name: &str) -> Result<Packed, ValueError> {
        self.find_field(name).map(|(field, _)| field)
    }

    /// The same, and how many bytes were looked through.
    pub(crate) fn find_field(&mut self, name: &str) -> Result<(Packed, usize), ValueError> {
        let bytes = self.bytes.clone();
        let (count, mut rest) = map_head(&bytes).ok_or_else(|| {
            ValueError::new(format!("field `{name}` of a value that has no fields"))
        })?;
        for _ in 0..count {
            let key = skip(&mut rest)?;
            let value = skip(&mut rest)?;
            if string(key) == Some(name.as_bytes()) {
                let seen = bytes.len() - rest.len();
                return Ok((self.part(bytes.slice_ref(value))?, seen));
            }
        }
        Err(ValueError::new(format!("a value without a field `{name}`")))
    }

    /// Whether this is a map.
    #[cfg_attr(
        not(feature = "script"),
        allow(dead_code, reason = "only Rhai knows more")
    )]
    pub(crate) fn is_map(&self) -> bool {
        map_head(&self.bytes).is_some()
    }

    /// How many elements there are, where this is an array.
    pub fn count(&self) -> Option<usize> {
        array_parts(&self.bytes).map(|(count, _)| count)
    }

    /// The elements, where this is an array. Each handle moves to its element.
    ///
    /// # Errors
    /// When this is no whole array and nothing else, or a handle in it was taken before.
    pub fn elements(mut self) -> Result<Vec<Packed>, ValueError> {
        let bytes = self.bytes.clone();
        let (count, mut rest) = array_parts(&bytes)
            .ok_or_else(|| ValueError::new("expected a list, found another value".into()))?;
        let mut elements = Vec::with_capacity(count.min(rest.len()));
        for _ in 0..count {
            let element = skip(&mut rest)?;
            elements.push(self.part(bytes.slice_ref(element))?);
        }
        match rest.len() {
            0 => Ok(elements),
            over => Err(ValueError::new(format!(
                "{over} bytes left over after the list"
            ))),
        }
    }

    /// The value that is one handle.
    pub fn of_handle(handle: Box<dyn super::Handle>) -> Packed {
        let mut handles = Handles::new();
        handles.push(handle);
        let bytes = Bytes::from_static(&[FIXEXT4, PLACEHOLDER as u8, 0, 0, 0, 0]);
        Packed { bytes, handles }
    }

    /// Takes the handle, where the whole value is one; the value itself elsewhere.
    pub fn into_handle(mut self) -> Result<Box<dyn super::Handle>, Packed> {
        let index = match (&self.bytes[..], self.handles.is_empty()) {
            ([FIXEXT4, tag, a, b, c, d], false) if *tag == PLACEHOLDER as u8 => {
                u32::from_be_bytes([*a, *b, *c, *d])
            }
            _ => return Err(self),
        };
        match self.handles.take(index) {
            Some(handle) => Ok(handle),
            None => Err(self),
        }
    }

    /// An array of values.
    pub fn array(values: impl IntoIterator<Item = Packed, IntoIter: ExactSizeIterator>) -> Packed {
        let values = values.into_iter();
        let mut bytes = Vec::with_capacity(16 * values.len() + 5);
        array_head(&mut bytes, values.len());
        let mut handles = Handles::new();
        for value in values {
            value.append(&mut bytes, &mut handles);
        }
        Packed {
            bytes: bytes.into(),
            handles,
        }
    }

    /// Appends this value to others that are being put together.
    pub fn append(self, bytes: &mut Vec<u8>, handles: &mut Handles) {
        let at = bytes.len();
        bytes.extend_from_slice(&self.bytes);
        if !self.handles.is_empty() {
            let first = handles.len() as u32;
            for place in placeholders(&bytes[at..]) {
                let index = &mut bytes[at + place..at + place + 4];
                let old = u32::from_be_bytes([index[0], index[1], index[2], index[3]]);
                index.copy_from_slice(&old.saturating_add(first).to_be_bytes());
            }
            handles.append(self.handles);
        }
    }

    /// The value of `bytes`, a part of this one's, with the handles that stand in it.
    fn part(&mut self, bytes: Bytes) -> Result<Packed, ValueError> {
        if self.handles.is_empty() {
            return Ok(Packed {
                bytes,
                handles: Handles::new(),
            });
        }
        let mut own = bytes.to_vec();
        let mut handles = Handles::new();
        for place in placeholders(&bytes) {
            let index = &mut own[place..place + 4];
            let old = u32::from_be_bytes([index[0], index[1], index[2], index[3]]);
            let handle = self.handles.take(old).ok_or_else(|| {
                ValueError::new(
                    "this stream or reactor was taken before: each can be taken once".into(),
                )
            })?;
            index.copy_from_slice(&handles.push(handle).to_be_bytes());
        }
        Ok(Packed {
            bytes: own.into(),
            handles,
        })
    }
}

/// Appends the head of an array.
#[inline]
pub fn array_head(out: &mut Vec<u8>, len: usize) {
    match len {
        0..=15 => out.push(0x90 | len as u8),
        16..=0xffff => {
            out.push(0xdc);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdd);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

/// The number of elements and what follows the head, where `value` is an array.
#[inline]
pub fn array_parts(value: &[u8]) -> Option<(usize, &[u8])> {
    match value {
        [n @ 0x90..=0x9f, rest @ ..] => Some(((n & 0x0f) as usize, rest)),
        [0xdc, a, b, rest @ ..] => Some((u16::from_be_bytes([*a, *b]) as usize, rest)),
        [0xdd, a, b, c, d, rest @ ..] => {
            Some((u32::from_be_bytes([*a, *b, *c, *d]) as usize, rest))
        }
        _ => None,
    }
}

fn map_head(value: &[u8]) -> Option<(usize, &[u8])> {
    match value {
        [n @ 0x80..=0x8f, rest @ ..] => Some(((n & 0x0f) as usize, rest)),
        [0xde, a, b, rest @ ..] => Some((u16::from_be_bytes([*a, *b]) as usize, rest)),
        [0xdf, a, b, c, d, rest @ ..] => {
            Some((u32::from_be_bytes([*a, *b, *c, *d]) as usize, rest))
        }
        _ => None,
    }
}

fn string(value: &[u8]) -> Option<&[u8]> {
    match value {
        [0xa0..=0xbf, text @ ..] | [0xd9, _, text @ ..] | [0xda, _, _, text @ ..] => Some(text),
        _ => None,
    }
}

/// Where the indices of placeholders stand in a value that is known to be whole.
fn placeholders(value: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 0;
    while at < value.len() {
        let Some((head, body, _)) = super::scan::head(&value[at..]) else {
            break;
        };
        if value[at] == FIXEXT4 && value.get(at + 1) == Some(&(PLACEHOLDER as u8)) {
            places.push(at + head);
        }
        // what stands inside of arrays and maps follows their heads
        at += head + body;
    }
    places.retain(|place| place + 4 <= value.len());
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Handle;

    #[derive(Debug)]
    struct Stream(u8);
    impl Handle for Stream {
        fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
            self
        }
    }

    /// A value `{"n": n, "data": <handle>}`.
    fn file(n: u8) -> Packed {
        let mut bytes = vec![0x82, 0xa1, b'n', n, 0xa4];
        bytes.extend_from_slice(b"data");
        bytes.extend_from_slice(&[FIXEXT4, PLACEHOLDER as u8, 0, 0, 0, 0]);
        let mut handles = Handles::new();
        handles.push(Box::new(Stream(n)));
        Packed::from_parts(bytes.into(), handles)
    }

    fn stream(packed: &mut Packed, index: u32) -> u8 {
        let handle = packed.handles.take(index).expect("the handle is there");
        handle
            .into_any()
            .downcast::<Stream>()
            .expect("handles of this test are streams")
            .0
    }

    #[test]
    fn handles_keep_their_places_when_values_are_put_together() {
        let mut both = Packed::array([file(1), file(2)]);
        let (_, rest) = array_parts(both.bytes()).expect("an array");
        assert_eq!(placeholders(rest).len(), 2);
        assert_eq!((stream(&mut both, 1), stream(&mut both, 0)), (2, 1));
    }

    #[test]
    fn a_list_is_taken_apart_as_a_whole() {
        let elements = |bytes: &'static [u8]| {
            let packed = Packed::from_parts(Bytes::from_static(bytes), Handles::new());
            packed.elements().map(|elements| elements.len())
        };
        assert_eq!(elements(&[0x92, 1, 2]), Ok(2));
        let error = elements(&[0x92, 1, 2, 3]).unwrap_err().to_string();
        assert!(error.contains("1 bytes left over"), "{error}");
    }

    #[test]
    fn a_field_takes_its_handle_along() {
        let mut whole = file(7);
        let n: u8 = whole
            .field("n")
            .expect("a field")
            .unpack()
            .expect("a number");
        assert_eq!(n, 7);
        let mut data = whole.field("data").expect("a field");
        assert_eq!(stream(&mut data, 0), 7);
        assert!(
            whole
                .field("data")
                .unwrap_err()
                .to_string()
                .contains("taken before")
        );
        assert!(
            whole
                .field("x")
                .unwrap_err()
                .to_string()
                .contains("without a field `x`")
        );
    }
}
