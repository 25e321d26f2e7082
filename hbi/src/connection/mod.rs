//! Drives one connection: moves bytes between a transport and a wire, and joins the endpoints to
//! the environment.

mod handles;
mod mux;
mod objects;
mod pace;
#[cfg(feature = "quic")]
mod quic;
mod refused;
mod running;
mod text;

pub(crate) use mux::{Driver, MuxLink};
#[cfg(feature = "quic")]
pub(crate) use quic::{QuicDriver, QuicLink};
pub(crate) use text::{TextDriver, TextLink};

/// The time, which stands still where tests stop it.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
