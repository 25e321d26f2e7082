//! Framings: how messages of conversations stand in a stream of bytes. Pure: no I/O, no clock.

mod line;
pub mod mux;
#[cfg(feature = "quic")]
pub mod quic;
pub mod text;

pub use line::Line;
