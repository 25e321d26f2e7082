//! Byte streams between peers: TCP, TLS, Unix sockets, and memory.

mod address;
mod fingerprint;
mod listener;
mod mem;
mod stream;
#[cfg(feature = "tls")]
pub mod tls;

pub use address::{Address, Scheme, Secured};
pub use fingerprint::Fingerprint;
pub(crate) use listener::Listener;
pub(crate) use stream::{ByteStream, Stream, dial};
