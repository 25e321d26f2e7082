//! The QUIC wire: what stands in the streams of a QUIC connection.
//!
//! Each peer opens one unidirectional *control* stream first: the byte `01`, the preface of the mux
//! wire (with the same settings), then control messages ([`Control`]). A conversation is one
//! bidirectional stream that its poster opens; each direction is a sequence of frames ([`Frame`]),
//! its first is the opening. A stream inside of a conversation is a unidirectional QUIC stream: the
//! byte `02`, whose conversation it belongs to, its channel ([`ChannelHead`]), then frames.
//!
//! A frame is a kind (one byte), the length of its body (four bytes, little-endian as all numbers
//! are), and the body. Kinds from `80` on may be skipped. Credit is QUIC's own.

mod control;
mod frame;

#[cfg(test)]
mod tests;

pub use control::{Control, ControlReader};
pub use frame::{
    ChannelHead, Frame, Open, Opening, Reader, ScriptText, StreamKind, write_data, write_end,
    write_error, write_item, write_opening, write_script,
};

/// What a QUIC connection negotiates as its application's protocol.
pub const ALPN: &[u8] = b"hbi/1";

/// Why a stream is stopped: its bytes are wanted no more, in good order.
pub const STOP_DONE: u32 = 0;

/// Why a stream is stopped: whoever waited for it gave up.
pub const STOP_CANCELLED: u32 = 1;

/// Why a stream is reset: the connection ends, which is told on the control stream.
pub const RESET_CLOSING: u32 = 2;

/// A connection that ends after both sides said goodbye is closed with this.
pub const CLOSE_GOODBYE: u32 = 0;

/// Any other end has this plus the number of its kind.
pub const CLOSE_KIND: u32 = 0x100;
