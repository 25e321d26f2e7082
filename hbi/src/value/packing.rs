//! Bytes of a value that is being packed. Most are few: those stand in place.

use std::{io, ops::Deref};

/// So many bytes need no allocation.
const SHORT: usize = 46;

/// What values are packed into: MessagePack.
#[derive(Debug, Clone)]
pub struct Packing(Place);

#[derive(Debug, Clone)]
enum Place {
    Short(u8, [u8; SHORT]),
    Long(Vec<u8>),
}

/// Where packed values go: the end of other bytes.
pub(crate) trait Pack: io::Write {
    /// Appends the first `len` of nine bytes: eight in little-endian, and the last.
    fn pack_short(&mut self, first: u64, last: u8, len: usize);
}

impl Packing {
    /// Nothing yet.
    #[inline]
    pub(crate) const fn new() -> Self {
        Self(Place::Short(0, [0; SHORT]))
    }

    /// Appends bytes.
    #[inline]
    pub(crate) fn extend_from_slice(&mut self, more: &[u8]) {
        if let Place::Short(len, bytes) = &mut self.0
            && let Some(room) = bytes[*len as usize..].get_mut(..more.len())
        {
            room.copy_from_slice(more);
            *len += more.len() as u8;
            return;
        }
        if let Place::Short(len, bytes) = &self.0 {
            self.0 = Place::Long(long(&bytes[..*len as usize], more.len()));
        }
        if let Place::Long(bytes) = &mut self.0 {
            bytes.extend_from_slice(more);
        }
    }

    /// Appends it to others.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Place::Short(len, bytes) => {
                // to copy them all is cheaper than as many as there are
                let end = out.len() + *len as usize;
                out.extend_from_slice(bytes);
                out.truncate(end);
            }
            Place::Long(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// What stood in place, with room for more.
#[cold]
fn long(short: &[u8], more: usize) -> Vec<u8> {
    let mut long = Vec::with_capacity((short.len() + more).max(2 * SHORT));
    long.extend_from_slice(short);
    long
}

impl From<&[u8]> for Packing {
    fn from(bytes: &[u8]) -> Self {
        let mut packing = Self::new();
        packing.extend_from_slice(bytes);
        packing
    }
}

impl Deref for Packing {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Short(len, bytes) => &bytes[..*len as usize],
            Place::Long(bytes) => bytes,
        }
    }
}

impl io::Write for Packing {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// all nine bytes are copied, which is cheaper than as many as there are
impl Pack for Packing {
    #[inline]
    fn pack_short(&mut self, first: u64, last: u8, len: usize) {
        if let Place::Short(at, bytes) = &mut self.0
            && let Some(room) = bytes[*at as usize..].first_chunk_mut::<9>()
        {
            room[..8].copy_from_slice(&first.to_le_bytes());
            room[8] = last;
            *at += len as u8;
            return;
        }
        self.extend_from_slice(&nine(first, last)[..len]);
    }
}

impl Pack for Vec<u8> {
    #[inline]
    fn pack_short(&mut self, first: u64, last: u8, len: usize) {
        let end = self.len() + len;
        self.extend_from_slice(&first.to_le_bytes());
        self.push(last);
        self.truncate(end);
    }
}

fn nine(first: u64, last: u8) -> [u8; 9] {
    let mut bytes = [last; 9];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn bytes_stand_in_order_wherever_they_fit() {
        for first in 0..140 {
            for len in 1..=9 {
                let mut packing = Packing::from(&vec![7; first][..]);
                let mut expected = vec![7; first];
                for n in 0..4 {
                    packing.pack_short(u64::from_le_bytes([n; 8]), n, len);
                    expected.extend_from_slice(&[n; 9][..len]);
                    packing.write_all(&[9, n]).unwrap();
                    expected.extend_from_slice(&[9, n]);
                    assert_eq!(&packing[..], expected, "{first} bytes, then {len}");
                }
                let mut vec = vec![7; first];
                vec.pack_short(u64::from_le_bytes([1; 8]), 1, len);
                assert_eq!(vec[first..], [1; 9][..len]);
                packing.append_to(&mut vec);
                assert_eq!(vec[first + len..], expected);
            }
        }
    }
}
