//! Frames of conversations and of their streams: how each is written and read.

use std::{borrow::Cow, time::Duration};

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    Failure,
    value::Packed,
    wire::mux::{
        Payload, Settings, Violation, WireHandle,
        connection::{pack_failure, unpack_failure},
        frame::{Fields, flag, kind, write_handles},
    },
};

/// Kind (1 byte), length of the body (4 bytes).
pub(super) const HEAD: usize = 5;

/// The script's text stands in the frame, in place of its number.
const INLINE: u8 = flag::MORE;

/// No script.
const NONE: u32 = u32::MAX;

/// What a unidirectional stream is, its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The control stream.
    Control,
    /// A stream of a conversation.
    Channel,
}

impl StreamKind {
    /// As it stands on the wire.
    pub fn to_byte(self) -> u8 {
        match self {
            StreamKind::Control => 1,
            StreamKind::Channel => 2,
        }
    }

    /// From the wire.
    ///
    /// # Errors
    /// When nothing of that number is known.
    pub fn from_byte(byte: u8) -> Result<Self, Violation> {
        match byte {
            1 => Ok(StreamKind::Control),
            2 => Ok(StreamKind::Channel),
            other => Err(Violation::new(format!(
                "a unidirectional stream of unknown kind {other:#04x}"
            ))),
        }
    }
}

/// Which stream of which conversation a unidirectional stream is; follows its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelHead {
    /// The receiver of the stream opened the conversation.
    pub receivers: bool,
    /// The conversation's number.
    pub number: u64,
    /// The channel.
    pub channel: u16,
}

/// The number of a conversation; the highest bit is free for whose it is.
pub(super) fn conversation(fields: &mut Fields<'_>) -> Result<u64, Violation> {
    const LAST: u64 = u64::MAX >> 1;
    match fields.u64()? {
        number if number <= LAST => Ok(number),
        number => Err(Violation::new(format!(
            "conversation {number}, where {LAST} is the last"
        ))),
    }
}

impl ChannelHead {
    /// Bytes that it takes.
    pub const LEN: usize = 11;

    /// As it stands on the wire.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = self.receivers as u8;
        bytes[1..9].copy_from_slice(&self.number.to_le_bytes());
        bytes[9..].copy_from_slice(&self.channel.to_le_bytes());
        bytes
    }

    /// From the wire.
    ///
    /// # Errors
    /// When it does not say whose conversation it is.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Result<Self, Violation> {
        let mut fields = Fields {
            rest: &bytes,
            kind: StreamKind::Channel.to_byte(),
        };
        let receivers = match fields.u8()? {
            0 => false,
            1 => true,
            other => {
                return Err(Violation::new(format!(
                    "a stream of a conversation of neither side ({other})"
                )));
            }
        };
        Ok(Self {
            receivers,
            number: conversation(&mut fields)?,
            channel: fields.u16()?,
        })
    }
}

/// A script as it stands in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptText<'a> {
    /// The number that its text was given, and that was acknowledged.
    Number(u32),
    /// The text itself.
    Inline {
        /// Names of its parameters.
        parameters: Vec<Cow<'a, str>>,
        /// Its source.
        source: Cow<'a, str>,
    },
}

impl ScriptText<'_> {
    fn flag(&self) -> u8 {
        match self {
            ScriptText::Number(_) => 0,
            ScriptText::Inline { .. } => INLINE,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            ScriptText::Number(number) => out.extend_from_slice(&number.to_le_bytes()),
            ScriptText::Inline { parameters, source } => {
                write_names(out, parameters);
                out.extend_from_slice(&(source.len() as u32).to_le_bytes());
                out.extend_from_slice(source.as_bytes());
            }
        }
    }

    fn read(
        flags: u8,
        fields: &mut Fields<'_>,
        scripts: u32,
    ) -> Result<Option<ScriptText<'static>>, Violation> {
        if flags & INLINE != 0 {
            let parameters = read_names(fields)?;
            let len = fields.u32()? as usize;
            let source = text(fields.slice(len)?)?.to_owned().into();
            return Ok(Some(ScriptText::Inline { parameters, source }));
        }
        match fields.u32()? {
            NONE => Ok(None),
            0 => Err(Violation::new(
                "script number 0, which no text is given on this wire",
            )),
            number if number < scripts => Ok(Some(ScriptText::Number(number))),
            number => Err(Violation::new(format!(
                "script number {number} used where {scripts} are kept (`Settings::scripts`)"
            ))),
        }
    }
}

pub(super) fn write_names(out: &mut Vec<u8>, names: &[Cow<'_, str>]) {
    out.push(names.len() as u8);
    for name in names {
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
    }
}

pub(super) fn read_names(fields: &mut Fields<'_>) -> Result<Vec<Cow<'static, str>>, Violation> {
    let count = fields.u8()?;
    let mut names = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let len = fields.u8()?;
        names.push(text(fields.slice(len as usize)?)?.to_owned().into());
    }
    Ok(names)
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(bytes).map_err(|_| Violation::new("a text that is no UTF-8"))
}

/// What a conversation is opened with, to be written.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Its number: conversations of one side are counted from 1.
    pub number: u64,
    /// Its place in the order of landings, counted from 1; 0 for one that lands when it is there.
    pub landing: u64,
    /// The script, if it begins with one.
    pub script: Option<ScriptText<'a>>,
    /// Whether the script's value is asked for.
    pub value: bool,
    /// Whether nothing follows on the main sequence.
    pub last: bool,
    /// How long the poster waits from now.
    pub remaining: Option<Duration>,
    /// How many hosted conversations it is nested in.
    pub depth: u8,
    /// A W3C trace context.
    pub trace: Option<&'a [u8; 25]>,
    /// Arguments, a MessagePack array.
    pub arguments: &'a [u8],
    /// The handles in them.
    pub handles: &'a [WireHandle],
}

/// A conversation that the peer opened, as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// Its number.
    pub number: u64,
    /// Its place in the order of landings; 0 for one that lands when it is there.
    pub landing: u64,
    /// The script, if it begins with one.
    pub script: Option<ScriptText<'static>>,
    /// Whether the script's value is asked for.
    pub value: bool,
    /// Whether nothing follows on the main sequence.
    pub last: bool,
    /// How long the poster waits.
    pub remaining: Option<Duration>,
    /// How many hosted conversations it is nested in.
    pub depth: u8,
    /// A W3C trace context.
    pub trace: Option<[u8; 25]>,
    /// Arguments, a MessagePack array.
    pub arguments: Bytes,
    /// The handles in them.
    pub handles: Vec<WireHandle>,
}

/// Appends a frame with what `body` writes.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    body(out);
    let len = (out.len() - at - HEAD) as u32;
    out[at + 1..at + HEAD].copy_from_slice(&len.to_le_bytes());
}

/// The opening of a conversation.
pub fn write_opening(out: &mut Vec<u8>, opening: &Opening<'_>) {
    let mut flags = opening.script.as_ref().map_or(0, ScriptText::flag);
    for (fact, flag) in [
        (opening.value, flag::VALUE),
        (opening.last, flag::LAST),
        (opening.remaining.is_some(), flag::DEADLINE),
        (opening.depth > 0, flag::NESTED),
        (opening.trace.is_some(), flag::TRACE),
        (!opening.handles.is_empty(), flag::HANDLES),
    ] {
        if fact {
            flags |= flag;
        }
    }
    write(out, kind::OPEN, |out| {
        out.push(flags);
        out.extend_from_slice(&opening.number.to_le_bytes());
        out.extend_from_slice(&opening.landing.to_le_bytes());
        match &opening.script {
            Some(script) => script.write(out),
            None => out.extend_from_slice(&NONE.to_le_bytes()),
        }
        if let Some(remaining) = opening.remaining {
            // rounded up, so that a short deadline is not none at all
            let millis = remaining.as_nanos().div_ceil(1_000_000);
            out.extend_from_slice(&(millis.min(u32::MAX as u128) as u32).to_le_bytes());
        }
        if opening.depth > 0 {
            out.push(opening.depth);
        }
        if let Some(trace) = opening.trace {
            out.extend_from_slice(trace);
        }
        write_handles(out, opening.handles);
        out.extend_from_slice(opening.arguments);
    });
}

/// A script in an open conversation.
pub fn write_script(
    out: &mut Vec<u8>,
    script: &ScriptText<'_>,
    value: bool,
    arguments: &[u8],
    handles: &[WireHandle],
) {
    let mut flags = script.flag() | if value { flag::VALUE } else { 0 };
    if !handles.is_empty() {
        flags |= flag::HANDLES;
    }
    write(out, kind::SCRIPT, |out| {
        out.push(flags);
        script.write(out);
        write_handles(out, handles);
        out.extend_from_slice(arguments);
    });
}

/// The beginning of a value of `len` bytes, which are to follow.
pub fn write_item(out: &mut Vec<u8>, len: usize, last: bool, handles: &[WireHandle]) {
    let mut flags = if last { flag::LAST } else { 0 };
    if !handles.is_empty() {
        flags |= flag::HANDLES;
    }
    let at = out.len();
    write(out, kind::ITEM, |out| {
        out.push(flags);
        write_handles(out, handles);
    });
    let all = (out.len() - at - HEAD + len) as u32;
    out[at + 1..at + HEAD].copy_from_slice(&all.to_le_bytes());
}

/// The beginning of a piece of raw data of `len` bytes, which are to follow. No bytes at all end a run
/// of data.
pub fn write_data(out: &mut Vec<u8>, len: usize) {
    out.push(kind::DATA);
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

/// The end in good order.
pub fn write_end(out: &mut Vec<u8>) {
    write(out, kind::END, |_| {});
}

/// The end with a failure.
pub fn write_error(out: &mut Vec<u8>, failure: &Failure) {
    let bytes = pack_failure(failure);
    write(out, kind::ERROR, |out| out.extend_from_slice(&bytes));
}

/// What stands in one direction of a conversation, or in a stream of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The opening; the first of the poster's direction.
    Open(Box<Open>),
    /// A script to land.
    Script {
        /// The script.
        script: ScriptText<'static>,
        /// Whether its value is asked for.
        value: bool,
        /// Its arguments, a MessagePack array.
        arguments: Payload,
    },
    /// A value.
    Item {
        /// The value.
        payload: Payload,
        /// Whether it is the end, too.
        last: bool,
    },
    /// Raw data, or the end of a run of it where there is none.
    Data(Bytes),
    /// The end in good order.
    End,
    /// The end with a failure.
    Failed(Box<Failure>),
}

impl Frame {
    /// Bytes of values and raw data in it.
    pub fn size(&self) -> usize {
        match self {
            Frame::Open(open) => open.arguments.len(),
            Frame::Script { arguments, .. } => arguments.bytes.len(),
            Frame::Item { payload, .. } => payload.bytes.len(),
            Frame::Data(bytes) => bytes.len(),
            Frame::End | Frame::Failed(_) => 0,
        }
    }
}

/// Takes frames out of the bytes of a stream.
#[derive(Debug)]
pub struct Reader {
    /// What came last.
    chunk: Bytes,
    /// The beginning of a frame that is not whole.
    partial: BytesMut,
    /// Bytes of raw data that are still to come.
    data_left: usize,
    /// The largest body of anything but raw data.
    largest: usize,
    message: usize,
    scripts: u32,
}

impl Reader {
    /// A reader within the limits of this side.
    pub fn new(settings: &Settings) -> Self {
        Self {
            chunk: Bytes::new(),
            partial: BytesMut::new(),
            data_left: 0,
            // beside the message there may be a script's text, and handles
            largest: settings.message as usize + settings.frame as usize,
            message: settings.message as usize,
            scripts: settings.scripts,
        }
    }

    /// Adds what came. Only after [`Self::take_frame`] found none.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "bytes not looked at would be lost");
        self.chunk = chunk;
    }

    /// Takes `n` bytes from the front, once they are there; what is there is kept together until then.
    pub(super) fn take(&mut self, n: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.chunk.len() >= n {
            return Some(self.chunk.split_to(n));
        }
        let missing = n.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk[..missing]);
        self.chunk.advance(missing);
        (self.partial.len() >= n).then(|| self.partial.split_to(n).freeze())
    }

    /// The head of the next frame, which stays where it is: kind and length of the body.
    pub(super) fn head(&mut self) -> Option<(u8, usize)> {
        let parse = |b: &[u8]| {
            let (kind, len) = b.split_first()?;
            let len = u32::from_le_bytes(*len.first_chunk()?);
            Some((*kind, len as usize))
        };
        if self.partial.is_empty()
            && let Some(head) = parse(&self.chunk)
        {
            return Some(head);
        }
        let missing = HEAD
            .saturating_sub(self.partial.len())
            .min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk[..missing]);
        self.chunk.advance(missing);
        parse(&self.partial)
    }

    /// Drops what is there of a frame: nothing more of it comes.
    pub fn clear(&mut self) {
        self.chunk = Bytes::new();
        self.partial = BytesMut::new();
    }

    /// The length of the frame that is not whole yet, as far as that is known.
    pub fn needs(&mut self) -> usize {
        self.head().map_or(0, |(_, len)| len)
    }

    /// The next frame, if it is whole; raw data is given as it comes.
    ///
    /// # Errors
    /// A violation of the protocol.
    pub fn take_frame(&mut self) -> Result<Option<Frame>, Violation> {
        loop {
            if self.data_left > 0 {
                // nothing of it is ever kept in `partial`
                let n = self.data_left.min(self.chunk.len());
                if n == 0 {
                    return Ok(None);
                }
                self.data_left -= n;
                return Ok(Some(Frame::Data(self.chunk.split_to(n))));
            }
            let Some((kind, len)) = self.head() else {
                return Ok(None);
            };
            if kind == kind::DATA {
                self.take(HEAD);
                self.data_left = len;
                if len == 0 {
                    return Ok(Some(Frame::Data(Bytes::new())));
                }
                continue;
            }
            if len > self.largest {
                return Err(Violation::new(format!(
                    "a frame of {len} bytes, at most {} are taken (`Settings::message`)",
                    self.largest
                )));
            }
            let Some(frame) = self.take(HEAD + len) else {
                return Ok(None);
            };
            if kind >= kind::OPTIONAL {
                continue;
            }
            return self.frame(kind, frame.slice(HEAD..)).map(Some);
        }
    }

    fn frame(&self, kind: u8, body: Bytes) -> Result<Frame, Violation> {
        let mut fields = Fields { rest: &body, kind };
        match kind {
            kind::OPEN => {
                let flags = fields.flags(0x7f)?;
                let (number, landing) = (conversation(&mut fields)?, fields.u64()?);
                let script = ScriptText::read(flags, &mut fields, self.scripts)?;
                let remaining = match flags & flag::DEADLINE {
                    0 => None,
                    _ => Some(Duration::from_millis(fields.u32()? as u64)),
                };
                let depth = match flags & flag::NESTED {
                    0 => 0,
                    _ => fields.u8()?,
                };
                let trace = match flags & flag::TRACE {
                    0 => None,
                    _ => Some(fields.bytes()?),
                };
                let Payload { bytes, handles, .. } = self.payload(flags, fields, &body)?;
                Ok(Frame::Open(Box::new(Open {
                    number,
                    landing,
                    script,
                    value: flags & flag::VALUE != 0,
                    last: flags & flag::LAST != 0,
                    remaining,
                    depth,
                    trace,
                    arguments: bytes,
                    handles,
                })))
            }
            kind::SCRIPT => {
                let flags = fields.flags(flag::VALUE | INLINE | flag::HANDLES)?;
                let Some(script) = ScriptText::read(flags, &mut fields, self.scripts)? else {
                    return Err(Violation::new("a SCRIPT frame without a script"));
                };
                Ok(Frame::Script {
                    script,
                    value: flags & flag::VALUE != 0,
                    arguments: self.payload(flags, fields, &body)?,
                })
            }
            kind::ITEM => {
                let flags = fields.flags(flag::LAST | flag::HANDLES)?;
                Ok(Frame::Item {
                    payload: self.payload(flags, fields, &body)?,
                    last: flags & flag::LAST != 0,
                })
            }
            kind::END => {
                fields.end()?;
                Ok(Frame::End)
            }
            kind::ERROR => {
                let packed = Packed::from_parts(body, Default::default());
                Ok(Frame::Failed(Box::new(unpack_failure(packed)?)))
            }
            other => Err(Violation::new(format!(
                "a frame of unknown kind {other:#04x} in a conversation"
            ))),
        }
    }

    fn payload(
        &self,
        flags: u8,
        mut fields: Fields<'_>,
        body: &Bytes,
    ) -> Result<Payload, Violation> {
        let handles = match flags & flag::HANDLES {
            0 => Vec::new(),
            _ => fields.handles()?,
        };
        if fields.rest.len() > self.message {
            return Err(Violation::new(format!(
                "a message of more than {} bytes (`Settings::message`)",
                self.message
            )));
        }
        Ok(Payload {
            bytes: body.slice_ref(fields.rest),
            handles,
            ..Payload::default()
        })
    }
}
