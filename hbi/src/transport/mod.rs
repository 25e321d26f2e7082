//! Byte streams between peers: TCP, TLS, Unix sockets, and memory; and QUIC.

mod address;
mod dial;
#[cfg(feature = "quic")]
mod early;
mod fingerprint;
mod listener;
mod mem;
#[cfg(feature = "quic")]
mod quic;
mod secure;
mod stream;
#[cfg(feature = "tls")]
pub mod tls;

pub use address::{Address, Scheme, Secured};
pub(crate) use dial::dial;
#[cfg(feature = "quic")]
pub(crate) use early::{Memory, Remembered};
pub use fingerprint::Fingerprint;
pub(crate) use listener::{Arrived, Listener, Source};
#[cfg(feature = "quic")]
pub use quic::Congestion;
#[cfg(feature = "quic")]
pub(crate) use quic::{FIRST_STREAMS, Quic, explained, is_handshake, known};
pub(crate) use secure::{Insecure, TlsOptions};
pub(crate) use stream::{ByteStream, Stream};

/// What is missing for a `quic://` address.
#[cfg(not(feature = "quic"))]
fn without_quic(address: &Address) -> crate::Error {
    let text = format!("{address}: build hbi with its feature `quic` to use this address");
    crate::Error::new(crate::Kind::Misuse, text)
}
