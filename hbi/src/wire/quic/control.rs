//! The control stream: settings, texts and their acknowledgements, objects, and goodbye.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    StreamKind,
    frame::{HEAD, Reader, conversation, read_names, text, write, write_names},
};
use crate::{
    Kind,
    wire::mux::{
        Preface, Settings, Violation,
        frame::{Fields, kind},
        preface, read_preface,
    },
};

/// Kinds of messages that only this wire has.
const DEFINED: u8 = 0x10;
const SEEN: u8 = 0x11;
const DONE: u8 = 0x12;

/// The largest message beside a script's text.
const LARGEST: usize = 64 << 10;

/// A message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control<'a> {
    /// What the sender takes, and by what it wants to be known; the first message, written once.
    Preface {
        /// What it takes.
        settings: Box<Settings>,
        /// By what it wants to be known; may be empty.
        token: Cow<'a, [u8]>,
    },
    /// Gives a number, which had none, its text.
    Define {
        /// The number, from 1.
        number: u32,
        /// Names of the parameters.
        parameters: Vec<Cow<'a, str>>,
        /// The source.
        source: Cow<'a, str>,
    },
    /// The text of this number is known: it may be used.
    Defined(u32),
    /// Objects of the receiver are held that many times less.
    Release {
        /// The object.
        object: u32,
        /// How many times.
        count: u32,
    },
    /// The sender is done with what came to it in one direction: it saw this many handles. Those
    /// behind, it never will. Sent where there were any, and where it stopped before the end.
    Seen {
        /// The receiver of this message opened the conversation.
        receivers: bool,
        /// The conversation.
        number: u64,
        /// The channel.
        channel: u16,
        /// Handles seen.
        handles: u32,
    },
    /// Conversations of the receiver with a number beyond this one do not land, but for those nested
    /// in ones that do.
    Goodbye(u64),
    /// The sender has nothing left to do, and has opened this many conversations in all.
    Done(u64),
    /// The sender ends the connection; the last message.
    Close {
        /// What kind of thing went wrong.
        kind: Kind,
        /// Why, in words.
        reason: Cow<'a, str>,
    },
}

impl Control<'_> {
    /// Appends the message.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Control::Preface { settings, token } => {
                out.push(StreamKind::Control.to_byte());
                preface::write(out, settings, token);
            }
            Control::Define {
                number,
                parameters,
                source,
            } => write(out, kind::DEFINE, |out| {
                out.extend_from_slice(&number.to_le_bytes());
                write_names(out, parameters);
                out.extend_from_slice(source.as_bytes());
            }),
            Control::Defined(number) => write(out, DEFINED, |out| {
                out.extend_from_slice(&number.to_le_bytes());
            }),
            Control::Release { object, count } => write(out, kind::RELEASE, |out| {
                out.extend_from_slice(&object.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
            }),
            Control::Seen {
                receivers,
                number,
                channel,
                handles,
            } => write(out, SEEN, |out| {
                out.push(*receivers as u8);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&channel.to_le_bytes());
                out.extend_from_slice(&handles.to_le_bytes());
            }),
            Control::Goodbye(last) => write(out, kind::GOODBYE, |out| {
                out.extend_from_slice(&last.to_le_bytes());
            }),
            Control::Done(opened) => write(out, DONE, |out| {
                out.extend_from_slice(&opened.to_le_bytes());
            }),
            Control::Close { kind, reason } => write(out, kind::CLOSE, |out| {
                out.push((*kind).into());
                out.extend_from_slice(reason.as_bytes());
            }),
        }
    }
}

/// Takes messages out of the bytes of a control stream, whose first byte was read before.
#[derive(Debug)]
pub struct ControlReader {
    reader: Reader,
    /// The preface, as far as it is there.
    preface: Option<Vec<u8>>,
    largest: usize,
    scripts: u32,
}

impl ControlReader {
    /// A reader within the limits of this side.
    pub fn new(settings: &Settings) -> Self {
        Self {
            reader: Reader::new(settings),
            preface: Some(Vec::new()),
            largest: settings.frame as usize + LARGEST,
            scripts: settings.scripts,
        }
    }

    /// Adds what came. Only after [`Self::take_message`] found none.
    pub fn push(&mut self, chunk: Bytes) {
        match &mut self.preface {
            Some(preface) => preface.extend_from_slice(&chunk),
            None => self.reader.push(chunk),
        }
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// A violation of the protocol.
    pub fn take_message(&mut self) -> Result<Option<Control<'static>>, Violation> {
        if let Some(preface) = &mut self.preface {
            let Some(Preface {
                settings,
                token,
                length,
            }) = read_preface(preface)?
            else {
                return Ok(None);
            };
            let message = Control::Preface {
                settings: Box::new(settings),
                token: token.to_vec().into(),
            };
            let rest = Bytes::from(preface.split_off(length));
            self.preface = None;
            self.reader.push(rest);
            return Ok(Some(message));
        }
        loop {
            let Some((kind, len)) = self.reader.head() else {
                return Ok(None);
            };
            if len > self.largest {
                return Err(Violation::new(format!(
                    "a control message of {len} bytes, at most {} are taken",
                    self.largest
                )));
            }
            let Some(message) = self.reader.take(HEAD + len) else {
                return Ok(None);
            };
            if kind < kind::OPTIONAL {
                return self.message(kind, &message[HEAD..]).map(Some);
            }
        }
    }

    fn message(&self, kind: u8, body: &[u8]) -> Result<Control<'static>, Violation> {
        let mut fields = Fields { rest: body, kind };
        let message = match kind {
            kind::DEFINE => {
                let number = fields.u32()?;
                if number == 0 || number >= self.scripts {
                    return Err(Violation::new(format!(
                        "script number {number} defined where 1 to {} are kept \
                         (`Settings::scripts`)",
                        self.scripts.saturating_sub(1)
                    )));
                }
                let parameters = read_names(&mut fields)?;
                let source = text(fields.rest)?.to_owned().into();
                fields.rest = &[];
                Control::Define {
                    number,
                    parameters,
                    source,
                }
            }
            DEFINED => Control::Defined(fields.u32()?),
            kind::RELEASE => Control::Release {
                object: fields.u32()?,
                count: fields.u32()?,
            },
            SEEN => Control::Seen {
                receivers: fields.u8()? != 0,
                number: conversation(&mut fields)?,
                channel: fields.u16()?,
                handles: fields.u32()?,
            },
            kind::GOODBYE => Control::Goodbye(fields.u64()?),
            DONE => Control::Done(fields.u64()?),
            kind::CLOSE => {
                let kind = Kind::from(fields.u8()?);
                let reason = text(fields.rest)?.to_owned().into();
                fields.rest = &[];
                Control::Close { kind, reason }
            }
            other => {
                return Err(Violation::new(format!(
                    "a control message of unknown kind {other:#04x}"
                )));
            }
        };
        fields.end()?;
        Ok(message)
    }
}
