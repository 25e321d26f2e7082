//! Drives one connection: moves bytes between a transport and a wire, and joins the endpoints to
//! the environment.

mod handles;
mod mux;
mod mux_driver;
mod mux_landing;
mod mux_scratch;
mod objects;
mod pace;
#[cfg(feature = "quic")]
mod quic;
mod refused;
mod text;

pub(crate) use mux::MuxLink;
pub(crate) use mux_driver::Driver;
#[cfg(feature = "quic")]
pub(crate) use quic::{QuicDriver, QuicLink};
pub(crate) use text::{TextDriver, TextLink};
