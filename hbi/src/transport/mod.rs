//! Byte streams between peers: TCP, Unix sockets, and memory.

mod address;
mod listener;
mod mem;
mod stream;

pub use address::{Address, Scheme};
pub(crate) use listener::Listener;
pub(crate) use stream::{ByteStream, Stream, dial};
