//! Drives a QUIC connection: conversations on streams of their own, so that a lost packet holds up
//! only its own conversation.
//!
//! There is no state machine between the endpoints and quinn as there is for the mux wire: what
//! arrives is read from its stream when the application asks for it, so that credit is QUIC's own;
//! what is sent is written at once where there is room, else by a task per blocked stream.

mod arriving;
mod driver;
mod early;
mod hosting;
mod known;
mod ledger;
mod link;
mod posting;
mod receive;
mod send;
mod state;
mod streams;
mod texts;

pub(crate) use driver::QuicDriver;
pub(crate) use link::QuicLink;
