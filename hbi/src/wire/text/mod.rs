//! The text wire: packets `[len#directive]payload`, one conversation at a time in each direction.
//!
//! This is how the existing Python and Go peers talk. Each direction of the stream is a row of spans,
//! none inside another:
//!
//! ```text
//! stream       = { posting span | ack span } [ err ]
//! posting span = co_begin(seq)      { code | co_recv | co_send | raw data }  co_end(seq)
//! ack span     = co_ack_begin(seq)  { code | co_recv | raw data }            co_ack_end(seq)
//! ```
//!
//! Raw data has no framing: only the application knows how many bytes come, so that [`Receiver`]
//! takes a packet or raw data, as it is told, and never runs ahead.

mod numbers;
mod outbox;
mod packet;
mod receive;
mod send;

#[cfg(test)]
mod tests;

pub use numbers::Numbers;
pub use outbox::Outbox;
pub use packet::Directive;
pub use receive::{Event, Receiver};
pub use send::{Span, one_line, write_code, write_error, write_object};

/// A violation of the protocol: it ends the connection, its text sent to the peer first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);
