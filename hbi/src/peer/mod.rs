//! Peers: connecting, serving, and the ends of connections.

mod admission;
mod connection;
mod defences;
mod identity;
mod options;
mod server;
mod wire;

pub use connection::{Connection, Peer};
pub use defences::Defences;
pub use identity::Credentials;
pub use options::{Options, connect, serve};
pub use server::Server;
