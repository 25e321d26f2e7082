//! Frames: the kinds, their heads and flags, and how each is written.

use super::{CoId, Violation, WireId};

/// Conversations that one side can have open at once: what the number has room for.
pub const MAX_CONVERSATIONS: u32 = 1 << 23;

/// Bytes of a side's first message in a conversation that need no credit, so that openings, answers
/// and ends pass however full the windows are.
pub const ALLOWANCE: usize = 4 << 10;

/// What every queued message costs of the credit beside its bytes.
pub(super) const MESSAGE_COST: u32 = 32;

/// What an OPEN frame may hold before its arguments, handles apart.
pub(super) const MAX_OPENING: usize = 64;

/// Length (3 bytes), kind, conversation (4 bytes).
pub(super) const HEAD: usize = 8;

pub(in crate::wire) mod kind {
    pub(in crate::wire) const DEFINE: u8 = 0x01;
    pub(in crate::wire) const OPEN: u8 = 0x02;
    pub(in crate::wire) const SCRIPT: u8 = 0x03;
    pub(in crate::wire) const ITEM: u8 = 0x04;
    pub(in crate::wire) const DATA: u8 = 0x05;
    pub(in crate::wire) const END: u8 = 0x06;
    pub(in crate::wire) const ERROR: u8 = 0x07;
    pub(in crate::wire) const CREDIT: u8 = 0x08;
    pub(in crate::wire) const STOP: u8 = 0x09;
    pub(in crate::wire) const PING: u8 = 0x0a;
    pub(in crate::wire) const PONG: u8 = 0x0b;
    pub(in crate::wire) const GOODBYE: u8 = 0x0c;
    pub(in crate::wire) const RELEASE: u8 = 0x0d;
    pub(in crate::wire) const CLOSE: u8 = 0x0e;
    pub(in crate::wire) const CONNECTION_CREDIT: u8 = 0x0f;
    /// Kinds from here on may be skipped by those who do not know them.
    pub(in crate::wire) const OPTIONAL: u8 = 0x80;
}

pub(in crate::wire) mod flag {
    /// The script's value is asked for.
    pub(in crate::wire) const VALUE: u8 = 0x01;
    /// Nothing follows on this channel.
    pub(in crate::wire) const LAST: u8 = 0x02;
    /// The message goes on in ITEM frames of the same channel.
    pub(in crate::wire) const MORE: u8 = 0x04;
    /// A list of handles stands before the body.
    pub(in crate::wire) const HANDLES: u8 = 0x08;
    /// OPEN: milliseconds that remain (4 bytes).
    pub(in crate::wire) const DEADLINE: u8 = 0x10;
    /// OPEN: nesting depth (1 byte).
    pub(in crate::wire) const NESTED: u8 = 0x20;
    /// OPEN: a W3C trace context (25 bytes: trace, span, flags).
    pub(in crate::wire) const TRACE: u8 = 0x40;
}

/// Flags of an opening that is one call and nothing beside.
pub(super) const CALL: u8 = flag::VALUE | flag::LAST;

/// What a handle in a payload stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleKind {
    /// A stream: a channel of the same conversation, in the payload's direction.
    Stream,
    /// An object that the sender of the payload owns.
    Object,
    /// An object that the receiver of the payload owns, given back.
    Returned,
}

/// A handle as it stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireHandle {
    /// What it stands for.
    pub kind: HandleKind,
    /// The channel, or the object's number at its owner.
    pub number: u32,
}

/// Handles one payload may hold.
const MAX_HANDLES: usize = 1024;

/// Appends a frame with what `body` writes.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, kind: u8, co: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&head(0, kind, co));
    body(out);
    let len = (out.len() - at - HEAD) as u32;
    out[at..at + 3].copy_from_slice(&len.to_le_bytes()[..3]);
}

/// The head of a frame.
#[inline]
pub(super) fn head(len: usize, kind: u8, co: u32) -> [u8; HEAD] {
    (len as u64 | (kind as u64) << 24 | (co as u64) << 32).to_le_bytes()
}

/// What stands before the value that answers a call: a head, flags and channel.
pub const ANSWER_HEAD: usize = HEAD + 3;

/// Appends what stands before the value that answers a call; the value is appended next.
#[inline]
pub fn begin_answer(out: &mut Vec<u8>, id: CoId) {
    let mut bytes = [0; ANSWER_HEAD];
    bytes[..HEAD].copy_from_slice(&head(0, kind::ITEM, id.to_wire()));
    bytes[HEAD] = flag::LAST;
    out.extend_from_slice(&bytes);
}

/// Completes the frame of [`begin_answer`], which the value made as long as it is.
#[inline]
pub fn end_answer(frame: &mut [u8]) {
    let len = (frame.len() - HEAD) as u32;
    frame[..3].copy_from_slice(&len.to_le_bytes()[..3]);
}

/// Whose answer the frame of [`begin_answer`] at the front is, and how long it is.
#[inline]
pub fn answer_at(frames: &[u8]) -> (WireId, usize) {
    let (len, _, co) = read_head(frames).unwrap_or_default();
    (WireId::sent(co), HEAD + len)
}

/// Reads a head: length of the body, kind, conversation.
#[inline]
pub(super) fn read_head(input: &[u8]) -> Option<(usize, u8, u32)> {
    let head = u64::from_le_bytes(*input.first_chunk::<HEAD>()?);
    Some((
        (head & 0xff_ffff) as usize,
        (head >> 24) as u8,
        (head >> 32) as u32,
    ))
}

pub(in crate::wire) fn write_handles(out: &mut Vec<u8>, handles: &[WireHandle]) {
    if handles.is_empty() {
        return;
    }
    out.extend_from_slice(&(handles.len() as u16).to_le_bytes());
    for handle in handles {
        out.push(match handle.kind {
            HandleKind::Stream => 1,
            HandleKind::Object => 2,
            HandleKind::Returned => 3,
        });
        out.extend_from_slice(&handle.number.to_le_bytes());
    }
}

/// Handles that a payload may hold at most, as an error for the one who packed it.
pub(super) fn too_many_handles(handles: usize) -> bool {
    handles > MAX_HANDLES
}

pub(super) fn text_frame(out: &mut Vec<u8>, kind: u8, co: CoId, channel: u16, text: &[u8]) {
    write(out, kind, co.to_wire(), |out| {
        out.extend_from_slice(&channel.to_le_bytes());
        out.extend_from_slice(text);
    });
}

/// Reads the fields of a frame's body, front to back.
#[derive(Debug)]
pub(in crate::wire) struct Fields<'a> {
    pub(in crate::wire) rest: &'a [u8],
    pub(in crate::wire) kind: u8,
}

impl<'a> Fields<'a> {
    #[inline]
    pub(in crate::wire) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(Violation::new(format!(
                "a frame of kind {:#04x} that ends within its fields",
                self.kind
            ))),
        }
    }

    pub(in crate::wire) fn slice(&mut self, n: usize) -> Result<&'a [u8], Violation> {
        match self.rest.split_at_checked(n) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(Violation::new(format!(
                "a frame of kind {:#04x} that ends within its fields",
                self.kind
            ))),
        }
    }

    #[inline]
    pub(in crate::wire) fn u8(&mut self) -> Result<u8, Violation> {
        Ok(self.bytes::<1>()?[0])
    }

    #[inline]
    pub(in crate::wire) fn u16(&mut self) -> Result<u16, Violation> {
        Ok(u16::from_le_bytes(self.bytes()?))
    }

    #[inline]
    pub(in crate::wire) fn u32(&mut self) -> Result<u32, Violation> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(in crate::wire) fn u64(&mut self) -> Result<u64, Violation> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// The flags, of which only those in `known` may be set.
    #[inline]
    pub(in crate::wire) fn flags(&mut self, known: u8) -> Result<u8, Violation> {
        let flags = self.u8()?;
        if flags & !known != 0 {
            return Err(Violation::new(format!(
                "a frame of kind {:#04x} with reserved flags {:#04x}",
                self.kind,
                flags & !known
            )));
        }
        Ok(flags)
    }

    pub(in crate::wire) fn handles(&mut self) -> Result<Vec<WireHandle>, Violation> {
        let count = self.u16()? as usize;
        if count > MAX_HANDLES {
            return Err(Violation::new(format!(
                "a payload with {count} handles, at most {MAX_HANDLES} are taken"
            )));
        }
        let mut handles = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = match self.u8()? {
                1 => HandleKind::Stream,
                2 => HandleKind::Object,
                3 => HandleKind::Returned,
                other => return Err(Violation::new(format!("a handle of unknown kind {other}"))),
            };
            handles.push(WireHandle {
                kind,
                number: self.u32()?,
            });
        }
        Ok(handles)
    }

    pub(in crate::wire) fn end(&self) -> Result<(), Violation> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Violation::new(format!(
            "a frame of kind {:#04x} with {} bytes after its fields",
            self.kind,
            self.rest.len()
        )))
    }
}
