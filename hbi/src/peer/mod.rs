//! Peers: connecting, serving, and the ends of connections.

mod connection;
mod options;
mod server;
mod wire;

pub use connection::{Connection, Peer};
pub use options::{Options, connect, serve};
pub use server::Server;
