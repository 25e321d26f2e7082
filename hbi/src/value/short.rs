//! Short values, kept where they stand: most answers are.

use std::ops::Deref;

/// So many bytes are short.
const LONGEST: usize = 38;

/// The MessagePack of a value without handles, if it is short.
#[derive(Debug, Clone, Copy)]
pub struct Short {
    len: u8,
    bytes: [u8; LONGEST],
}

impl Short {
    /// The first `len` bytes of `input`, if that is short and they are there.
    #[inline]
    pub fn front(input: &[u8], len: usize) -> Option<Self> {
        if len > LONGEST {
            return None;
        }
        let bytes = match input.first_chunk() {
            // to copy them all is cheaper than as many as there are
            Some(bytes) => *bytes,
            None => {
                let mut bytes = [0; LONGEST];
                bytes[..len].copy_from_slice(input.get(..len)?);
                bytes
            }
        };
        let len = len as u8;
        Some(Self { len, bytes })
    }
}

impl Deref for Short {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_it_was() {
        let input: Vec<u8> = (0..100).collect();
        for there in 0..input.len() {
            for len in 0..input.len() {
                let short = Short::front(&input[..there], len);
                match len <= LONGEST && len <= there {
                    true => assert_eq!(short.as_deref(), Some(&input[..len]), "{len} of {there}"),
                    false => assert!(short.is_none(), "{len} of {there}"),
                }
            }
        }
    }
}
