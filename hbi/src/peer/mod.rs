//! Peers: connecting, serving, and the ends of connections.

mod admission;
#[cfg(feature = "balance")]
pub mod balance;
mod connection;
mod defences;
mod identity;
mod options;
mod reconnect;
mod server;
mod wire;

pub use connection::{Connection, Peer};
pub use defences::Defences;
pub use identity::Credentials;
pub use options::{Options, connect, serve};
pub use reconnect::{Backoff, Reconnect, ReconnectState};
pub use server::Server;
