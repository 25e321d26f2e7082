//! What arrived, and how parts of it are kept.

use bytes::Bytes;

use crate::value;

/// Bytes that arrived. They are read where they lie; large parts that are kept share the buffer.
#[derive(Debug, Clone, Copy)]
pub struct Input<'b> {
    bytes: &'b [u8],
    shared: Option<&'b Bytes>,
}

impl<'b> Input<'b> {
    /// From this size on a part is shared, not copied, unless the buffer that it keeps alive is more
    /// than 16 times as large.
    pub const SHARED: usize = value::SHARED;

    const LARGEST: usize = 16;

    /// Input of which every part that is kept is copied.
    pub fn copied(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            shared: None,
        }
    }

    /// Input of which large parts are shared.
    pub fn shared(bytes: &'b Bytes) -> Self {
        Self {
            bytes,
            shared: Some(bytes),
        }
    }

    /// All of it.
    #[inline]
    pub fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// A part of it as bytes of its own.
    pub(super) fn part(&self, part: &[u8]) -> Bytes {
        self.shared_from(Self::SHARED, part)
    }

    /// The same for an answer, whose caller usually waits for it: smaller ones are shared, too.
    pub(super) fn answer(&self, part: &[u8]) -> Bytes {
        self.shared_from(Self::SHARED / 8, part)
    }

    fn shared_from(&self, len: usize, part: &[u8]) -> Bytes {
        match self.shared {
            Some(whole) if part.len() >= len.max(whole.len() / Self::LARGEST) => {
                whole.slice_ref(part)
            }
            _ => Bytes::copy_from_slice(part),
        }
    }
}
