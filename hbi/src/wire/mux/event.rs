//! What comes of bytes that arrived: what the driver has to act upon.

use std::time::Instant;

use bytes::Bytes;

use super::{CoId, Payload, WireHandle, channel::Cost};
use crate::Kind;

/// What the driver has to act upon.
#[derive(Debug)]
pub enum Event<'a> {
    /// The peer's preface is here.
    Ready,
    /// A conversation was opened: land its script.
    Open(Open<'a>),
    /// A script came in an open conversation: prepare it and [push](super::Connection::push_script) it.
    Script(ScriptArrival),
    /// A message with a script has begun, and its rest is on its way: prepare the script and
    /// [keep](super::Connection::keep_begun) it, as its number may have another text by then.
    Begun {
        /// The conversation.
        id: CoId,
        /// The script's number.
        script: u32,
    },
    /// The peer gave a number its text.
    Define {
        /// The number.
        number: u32,
        /// Names of the parameters.
        parameters: Vec<&'a str>,
        /// The text.
        source: &'a str,
    },
    /// The peer wants no answer of this hosted conversation any more.
    Cancelled(CoId),
    /// The peer holds an object of this side no more.
    Released {
        /// The object.
        object: u32,
        /// How many times it was given out that are now given back.
        count: u32,
    },
    /// The peer said goodbye.
    Goodbye,
    /// The peer ends the connection.
    Close {
        /// What kind of thing went wrong.
        kind: Kind,
        /// Why, in words.
        reason: &'a str,
    },
}

/// A conversation that the peer opened for one call: its value is asked for, without a deadline, and
/// the peer's side is complete.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its number.
    pub id: CoId,
    /// The script's number.
    pub script: u32,
    /// Arguments, a MessagePack array.
    pub arguments: &'a [u8],
}

/// A conversation that the peer opened.
#[derive(Debug)]
pub struct Open<'a> {
    /// Its number.
    pub id: CoId,
    /// The script's number, if it begins with one.
    pub script: Option<u32>,
    /// Whether the script's value is asked for.
    pub value: bool,
    /// Whether the poster's side is complete with this.
    pub last: bool,
    /// When the poster gives up.
    pub deadline: Option<Instant>,
    /// How many hosted conversations it is nested in.
    pub depth: u8,
    /// A W3C trace context.
    pub trace: Option<[u8; 25]>,
    /// Arguments, a MessagePack array.
    pub arguments: Body<'a>,
    /// The handles in them.
    pub handles: Vec<WireHandle>,
    /// It came after this side's goodbye: it fails instead, since the peer takes it for one that did not
    /// land.
    pub refused: bool,
}

/// The bytes of an opening: those of the input, or put together from several frames.
#[derive(Debug)]
pub enum Body<'a> {
    /// In the input.
    Input(&'a [u8]),
    /// Put together.
    Joined(Box<Bytes>),
}

impl Body<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Body::Input(bytes) => bytes,
            Body::Joined(bytes) => bytes,
        }
    }
}

/// A script that came in an open conversation.
#[derive(Debug)]
pub struct ScriptArrival {
    /// The conversation.
    pub id: CoId,
    /// The script's number.
    pub script: u32,
    /// Whether its value is asked for.
    pub value: bool,
    /// Its arguments.
    pub arguments: Payload,
    pub(super) cost: Cost,
}
