//! The mux wire: binary frames, conversations interleaved, flow-controlled.
//!
//! [`Connection`] is a state machine: bytes in, events out; messages in, bytes out. The format is
//! written down in `docs/wire.md`.

mod arrive;
mod channel;
pub(in crate::wire) mod connection;
mod conversation;
mod deadlines;
mod event;
pub(in crate::wire) mod frame;
mod input;
mod numbers;
mod open;
mod output;
mod pieces;
pub(in crate::wire) mod preface;
mod receive;
mod send;
mod settings;

pub use channel::{Arrival, Payload};
pub use connection::Connection;
pub(crate) use connection::{not_landed, sooner};
pub use conversation::Reply;
pub use event::{Body, Call, Event, Open, ScriptArrival};
pub use frame::{
    ALLOWANCE, ANSWER_HEAD, HandleKind, MAX_CONVERSATIONS, WireHandle, answer_at, begin_answer,
    end_answer,
};
pub use input::Input;
pub use numbers::{CoId, WireId};
pub use open::{OpenRefused, Opening};
pub use output::Output;
pub use preface::{MAGIC, MAX_TOKEN, Preface, read_preface};
pub use send::{SendRefused, definition};
#[cfg(feature = "quic")]
pub(crate) use send::{stopped, too_large, too_many_streams};
pub use settings::Settings;

/// A violation of the protocol: it ends the connection, its text sent to the peer first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

impl Violation {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
