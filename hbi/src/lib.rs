//! Typed Hosting Based Interface.

mod connection;
pub mod endpoint;
pub mod env;
mod error;
pub mod peer;
pub mod script;
pub mod service;
pub mod testing;
mod transport;
pub mod value;
pub mod wire;

pub use endpoint::{
    Caller, Data, HoCo, Items, ItemsSender, PoCo, PostingEnd, Receiving, Sending, TraceContext,
    Working,
};
pub use env::{HostedCall, HostingEnv, Layer};
pub use error::{Blame, Error, Failure, Kind, Place, Result};
pub use hbi_macros::{Fields, Value, script, service};
pub use peer::{Connection, Options, Peer, Server, connect, serve};
pub use service::{
    Call, CallError, Exchange, Notify, Outbox, Policy, Reactor, Script, ScriptCall, all,
};
pub use transport::{Address, Scheme};
pub use wire::mux::Settings;

/// What most programs need.
pub mod prelude {
    pub use crate::{Call, CallError, HoCo, HostingEnv, Peer, PoCo, PostingEnd};
}
