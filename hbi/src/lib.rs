//! Typed Hosting Based Interface: two peers, each hosting an environment of named artifacts for the
//! other, and posting small scripts that land in the other's.
//!
//! A trait with [`#[hbi::service]`](macro@service) becomes a host, which is exposed in a
//! [`HostingEnv`], and a stub, whose methods call a peer's. Under a stub there is nothing but
//! peer-script, so typed calls, calls composed of calls, and scripts written by hand
//! ([`PostingEnd::script`]) mix freely. Everything goes over one pipelined connection, in both
//! directions: what serves can call back, what calls can host.
//!
//! ```
//! use hbi::prelude::*;
//!
//! #[hbi::service]
//! trait Calc {
//!     async fn add(&self, a: i64, b: i64) -> i64;
//! }
//!
//! struct MyCalc;
//!
//! impl Calc for MyCalc {
//!     async fn add(&self, a: i64, b: i64) -> i64 {
//!         a + b
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let server = hbi::serve("tcp://127.0.0.1:0", |_peer| async {
//!     Ok(HostingEnv::new().service(CalcHost::new(MyCalc)))
//! })
//! .await?;
//! let peer = hbi::connect(server.address().to_string(), HostingEnv::new()).await?;
//! let calc = CalcStub::new(&peer);
//! assert_eq!(calc.add(1, 2).await?, 3);
//! // dependent calls in one round trip
//! assert_eq!(calc.add(calc.add(1, 2), 27).await?, 30);
//! # Ok::<(), hbi::Error>(()) }).unwrap();
//! ```
//!
//! The [`guide`] has a chapter for each of these.
//!
//! # Where to look
//!
//! - services: [`service`](macro@service), [`HostingEnv`], [`Call`], [`CallError`]
//! - streams: [`Items`], [`Data`]
//! - conversations: [`PoCo`], [`HoCo`]
//! - objects by reference: [`Reactor`]
//! - peer-script: [`PostingEnd::script`], [`script!`](macro@script), [`env::Bounds`]
//! - limits, deadlines: [`Settings`], [`Options`], [`Call::within`], [`Caller`]
//! - connecting again: [`Options::reconnect`], [`Reconnect`]
//! - errors: [`Error`], [`Kind`]
//!
//! # The runtime
//!
//! Connections are tasks of the tokio runtime that they are made in, which needs its I/O and its timers
//! enabled. Times of a second and more are waited for by a thread of hbi's own, `hbi-far-times`, one in
//! the process: a timer that is always pending would cost the runtime something each time it sleeps.
//!
//! # Features
//!
//! - `script` (default): free peer-script, in Rhai on fibers. Without it this side still lands calls
//!   and straight lines of calls, which is all that stubs and compositions send.
//! - `checked`: [`script!`](macro@script) checks the syntax when the program compiles.
//! - `balance`: one stub over several peers, `hbi::peer::balance`.
//! - `tls`: `tls://` addresses; certificates are configured in `hbi::tls`.
//! - `quic`: `quic://` addresses, see the guide's chapter; includes `tls`.

mod connection;
pub mod endpoint;
pub mod env;
mod error;
pub mod guide;
pub mod peer;
pub mod script;
pub mod service;
pub mod testing;
mod transport;
pub mod value;
pub mod wire;

pub use endpoint::{
    Caller, Data, HoCo, Items, ItemsSender, PoCo, PostingEnd, Receiving, Script, Sending,
    TraceContext, Working,
};
pub use env::{HostedCall, HostingEnv, Layer};
pub use error::{Blame, Error, Failure, Kind, Place, Result};
pub use hbi_macros::{Fields, Value, script, service};
pub use peer::{
    Backoff, Connection, Credentials, Defences, Options, Peer, Reconnect, ReconnectState, Server,
    connect, serve,
};
pub use service::{Call, CallError, Exchange, Notify, Outbox, Policy, Reactor, ScriptCall, all};
#[cfg(feature = "quic")]
pub use transport::Congestion;
#[cfg(feature = "tls")]
pub use transport::tls;
pub use transport::{Address, Fingerprint, Scheme, Secured};
pub use value::Dialect;
pub use wire::mux::Settings;

/// What most programs need.
pub mod prelude {
    pub use crate::{Call, CallError, HoCo, HostingEnv, Peer, PoCo, PostingEnd};
}
