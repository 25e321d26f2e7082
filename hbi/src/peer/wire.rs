//! The wires that a connection may speak, as the ends of a connection see them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;

use super::{Options, identity::Identity};
#[cfg(feature = "quic")]
use crate::connection::{QuicDriver, QuicLink};
use crate::{
    Kind, Result,
    connection::{Driver, MuxLink},
    endpoint::{Encoding, Link, LinkInfo},
    env::{EnvLanding, Environment, Hooks},
    transport::Stream,
};

/// A link of any wire.
#[derive(Clone)]
pub(super) enum Wire {
    Mux(Arc<MuxLink>),
    #[cfg(feature = "quic")]
    Quic(Arc<QuicLink>),
}

macro_rules! each {
    ($wire:expr, $link:ident => $do:expr) => {
        match $wire {
            Wire::Mux($link) => $do,
            #[cfg(feature = "quic")]
            Wire::Quic($link) => $do,
        }
    };
}

impl Wire {
    pub(super) fn link(&self) -> Arc<dyn Link> {
        each!(self, link => Arc::clone(link) as Arc<dyn Link>)
    }

    /// Ready once both sides know each other.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, link => link.poll_ready(cx))
    }

    pub(super) fn conversations(&self) -> (usize, usize) {
        each!(self, link => link.conversations())
    }

    /// How many objects of this side the peer holds.
    pub(super) fn objects(&self) -> usize {
        each!(self, link => link.objects())
    }

    pub(super) fn ended_well(&self) -> bool {
        each!(self, link => link.ended_well())
    }
}

/// A connection whose driver does not run yet.
pub(super) struct Started {
    pub(super) wire: Wire,
    pub(super) driver: Starter,
}

/// What is needed to run the driver.
pub(super) struct Starter {
    transport: Transport,
    /// What was read of the peer already.
    input: BytesMut,
}

/// A link and what its driver drives.
enum Transport {
    Mux(Arc<MuxLink>, Stream),
    #[cfg(feature = "quic")]
    Quic(Arc<QuicLink>, Box<crate::transport::Quic>),
}

/// Makes the two ends of a connection over a stream.
pub(super) fn start(
    options: &Options,
    stream: Stream,
    token: &[u8],
    identity: Option<Identity>,
    input: BytesMut,
) -> Started {
    let (peer_address, local_address) = stream.addresses();
    let info = LinkInfo {
        peer_address,
        local_address,
        encoding: Encoding::Bound,
        deadline: options.deadline,
        trace: options.trace,
        identity,
    };
    let settings = options.settings.clone();
    let (wire, transport) = match stream {
        #[cfg(feature = "quic")]
        Stream::Quic(quic) => {
            let link = QuicLink::new(info, quic.conn.clone(), settings, token);
            (Wire::Quic(Arc::clone(&link)), Transport::Quic(link, quic))
        }
        stream => {
            let link = Arc::new(MuxLink::new(info, settings, token));
            (Wire::Mux(Arc::clone(&link)), Transport::Mux(link, stream))
        }
    };
    Started {
        wire,
        driver: Starter { transport, input },
    }
}

impl Starter {
    /// Runs the driver in a task of its own.
    pub(super) fn spawn(self, env: Arc<Environment>, hooks: Hooks) {
        tokio::spawn(self.run(env, hooks));
    }

    /// Runs the driver.
    pub(super) async fn run(self, env: Arc<Environment>, hooks: Hooks) {
        let Self { transport, input } = self;
        match transport {
            Transport::Mux(link, stream) => {
                let this = Arc::clone(&link) as Arc<dyn Link>;
                let landing = Box::new(EnvLanding::new(env, hooks, &this));
                let driver = Driver::new(link, stream, landing);
                driver.with_input(input).run().await;
            }
            #[cfg(feature = "quic")]
            Transport::Quic(link, quic) => {
                let this = Arc::clone(&link) as Arc<dyn Link>;
                let landing = Box::new(EnvLanding::new(env, hooks, &this));
                let driver = QuicDriver::new(link, *quic, landing);
                driver.with_input(input).run().await;
            }
        }
    }

    /// Tells the peer why it is refused, and hangs up.
    pub(super) async fn refuse(self, kind: Kind, reason: &str) {
        match self.transport {
            Transport::Mux(link, stream) => {
                Driver::<Stream>::refuse(link, stream, kind, reason).await;
            }
            #[cfg(feature = "quic")]
            Transport::Quic(link, _) => QuicDriver::refuse(&link, kind, reason),
        }
    }
}
