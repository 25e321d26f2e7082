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

use std::task::{Context, Waker};

pub(crate) use mux::{Driver, MuxLink};
#[cfg(feature = "quic")]
pub(crate) use quic::{QuicDriver, QuicLink};
pub(crate) use text::{TextDriver, TextLink};

use crate::endpoint::Landing;

/// Runs the application's hook, once both sides know each other: it starts before anything lands; once
/// it waits the rest may start.
#[cold]
fn connected(landing: &mut dyn Landing) {
    if let Some(mut hook) = landing.connected() {
        let mut cx = Context::from_waker(Waker::noop());
        if hook.as_mut().poll(&mut cx).is_pending() {
            // its task polls it again, with a waker
            tokio::spawn(hook);
        }
    }
}

/// The time, which stands still where tests stop it.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
