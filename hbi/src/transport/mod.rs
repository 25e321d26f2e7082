//! Byte streams between peers: TCP, TLS, Unix sockets, and memory.

mod address;
mod dial;
mod fingerprint;
mod listener;
mod mem;
mod secure;
mod stream;
#[cfg(feature = "tls")]
pub mod tls;

pub use address::{Address, Scheme, Secured};
pub(crate) use dial::dial;
pub use fingerprint::Fingerprint;
pub(crate) use listener::{Arrived, Listener, Source};
pub(crate) use secure::{Insecure, TlsOptions};
pub(crate) use stream::{ByteStream, Stream};
