//! Drives one connection: moves bytes between a transport and a wire, and joins the endpoints to
//! the environment.

mod handles;
mod mux;
mod mux_driver;
mod objects;
mod pace;
mod text;

pub(crate) use mux::MuxLink;
pub(crate) use mux_driver::Driver;
pub(crate) use text::{TextDriver, TextLink};
