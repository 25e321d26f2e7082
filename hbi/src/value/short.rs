//! Short values, kept where they stand: most answers are.

use std::{fmt, ops::Deref};

/// So many bytes are short: a UUID as text is.
pub(crate) const LONGEST: usize = 38;

/// The MessagePack of a value without handles, if it is short.
#[derive(Clone, Copy)]
pub struct Short {
    len: u8,
    /// Behind the value stands whatever stood there.
    bytes: [u8; LONGEST],
}

impl fmt::Debug for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Short({:?})", &**self)
    }
}

impl Short {
    /// No value.
    #[inline]
    pub(crate) const fn none() -> Self {
        Self {
            len: 0,
            bytes: [0; LONGEST],
        }
    }

    /// A value, if it is short.
    pub fn new(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        let len = value.len() as u8;
        Some(Self { len, bytes })
    }

    /// Makes it the first `len` of `bytes`, which are at least so many that all can be copied: that is
    /// cheaper than as many as there are.
    #[inline]
    pub(crate) fn set_front(&mut self, bytes: &[u8; LONGEST], len: usize) {
        self.len = len.min(LONGEST) as u8;
        self.bytes = *bytes;
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
    fn a_short_value_is_what_it_was() {
        let input: Vec<u8> = (0..100).collect();
        for len in 0..=LONGEST {
            let mut front = Short::new(&[7; LONGEST]).unwrap();
            front.set_front(input.first_chunk().unwrap(), len);
            assert_eq!(*front, input[..len]);
            assert_eq!(format!("{front:?}"), format!("Short({:?})", &input[..len]));
            assert_eq!(*Short::new(&input[..len]).unwrap(), input[..len]);
        }
        assert!(Short::new(&input[..LONGEST + 1]).is_none());
    }
}
