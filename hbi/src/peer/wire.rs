//! The wires that a connection may speak, as the ends of a connection see them.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::{Options, identity::Identity};
#[cfg(feature = "quic")]
use crate::connection::{QuicDriver, QuicLink};
use crate::{
    Kind, Result,
    connection::{Driver, MuxLink, TextDriver, TextLink},
    endpoint::{Encoding, Link, LinkInfo},
    env::{EnvLanding, Environment, Hooks},
    transport::Stream,
};

/// A link of any wire.
#[derive(Clone)]
pub(super) enum Wire {
    Mux(Arc<MuxLink>),
    Text(Arc<TextLink>),
    #[cfg(feature = "quic")]
    Quic(Arc<QuicLink>),
}

impl Wire {
    pub(super) fn link(&self) -> Arc<dyn Link> {
        match self {
            Wire::Mux(link) => Arc::clone(link) as Arc<dyn Link>,
            Wire::Text(link) => Arc::clone(link) as Arc<dyn Link>,
            #[cfg(feature = "quic")]
            Wire::Quic(link) => Arc::clone(link) as Arc<dyn Link>,
        }
    }

    /// Ready once both sides know each other. Peers of the text wire never introduce themselves.
    pub(super) async fn ready(&self) -> Result<()> {
        let (this, mut place) = (self.link(), None);
        poll_fn(|cx| match self {
            Wire::Mux(link) => link.poll_ready(&this, &mut place, cx),
            Wire::Text(link) => link.poll_ready(&this, &mut place, cx),
            #[cfg(feature = "quic")]
            Wire::Quic(link) => link.poll_ready(&this, &mut place, cx),
        })
        .await
    }

    pub(super) fn conversations(&self) -> (usize, usize) {
        match self {
            Wire::Mux(link) => link.conversations(),
            Wire::Text(link) => link.conversations(),
            #[cfg(feature = "quic")]
            Wire::Quic(link) => link.conversations(),
        }
    }

    /// How many objects of this side the peer holds; the text wire carries none.
    pub(super) fn objects(&self) -> usize {
        match self {
            Wire::Mux(link) => link.objects(),
            Wire::Text(_) => 0,
            #[cfg(feature = "quic")]
            Wire::Quic(link) => link.objects(),
        }
    }

    pub(super) fn ended_well(&self) -> bool {
        match self {
            Wire::Mux(link) => link.ended_well(),
            Wire::Text(link) => link.ended_well(),
            #[cfg(feature = "quic")]
            Wire::Quic(link) => link.ended_well(),
        }
    }
}

/// A connection whose driver does not run yet.
pub(super) struct Started {
    pub(super) wire: Wire,
    pub(super) driver: Starter,
}

/// A connection's task, with what is to live as long.
struct Keeping<F, K> {
    task: F,
    _kept: K,
}

impl<F: Future<Output = ()> + Unpin, K: Unpin> Future for Keeping<F, K> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.task).poll(cx)
    }
}

/// Bytes that are read of a peer before its environment is there.
const EARLY: usize = 64 << 10;

/// What is needed to run the driver.
pub(super) struct Starter {
    wire: Wire,
    stream: Stream,
    /// What was read of the peer so far.
    input: BytesMut,
    /// The largest packet of a text wire, and how long it may take.
    packet: (usize, Duration),
    /// How many conversations the peer may open in a second.
    pace: Option<u32>,
    /// How long a server may take that is not waited for.
    #[cfg(feature = "quic")]
    handshake: Duration,
}

/// What the two sides show of themselves.
#[derive(Default)]
pub(super) struct Introduction<'a> {
    /// By what this side is known; the text wire carries none.
    pub(super) token: &'a [u8],
    /// Who the peer is.
    pub(super) identity: Option<Identity>,
    /// What was read of the peer so far.
    pub(super) input: BytesMut,
}

/// Makes the two ends of a connection over a stream.
pub(super) fn start(
    options: &Options,
    stream: Stream,
    text: bool,
    introduction: Introduction<'_>,
) -> Started {
    let (peer_address, local_address) = stream.addresses();
    let info = LinkInfo {
        peer_address,
        local_address,
        encoding: match text {
            false => Encoding::Bound,
            true => Encoding::Literal(options.dialect),
        },
        deadline: options.deadline,
        conversations: options.settings.conversations,
        trace: options.trace,
        identity: introduction.identity,
    };
    let settings = &options.settings;
    let wire = match (&stream, text) {
        #[cfg(feature = "quic")]
        (Stream::Quic(quic), _) => Wire::Quic(QuicLink::new(
            info,
            quic.conn.clone(),
            settings.clone(),
            introduction.token,
            quic.first.as_ref().map(|first| first.settings.clone()),
        )),
        (_, false) => Wire::Mux(Arc::new(MuxLink::new(
            info,
            settings.clone(),
            introduction.token,
        ))),
        (_, true) => {
            let limit = settings.conversations as usize;
            Wire::Text(Arc::new(TextLink::new(info, options.dialect, limit)))
        }
    };
    Started {
        driver: Starter {
            wire: wire.clone(),
            stream,
            input: introduction.input,
            packet: (settings.message as usize, settings.idle_timeout),
            pace: None,
            #[cfg(feature = "quic")]
            handshake: options.handshake,
        },
        wire,
    }
}

impl Starter {
    /// Reads a peer more slowly that opens more conversations in a second.
    pub(super) fn paced(mut self, per_second: u32) -> Self {
        self.pace = Some(per_second);
        self
    }

    /// Runs the driver in a task of its own; `kept` is dropped when the connection is over.
    pub(super) fn spawn<K: Send + Unpin + 'static>(
        self,
        env: Arc<Environment>,
        hooks: Hooks,
        kept: K,
    ) {
        let landing = Box::new(EnvLanding::new(env, hooks, &self.wire.link()));
        match self.wire {
            Wire::Mux(link) => {
                let driver = Driver::new(link, self.stream, landing);
                let task = driver.with_input(self.input).with_pace(self.pace);
                tokio::spawn(Keeping { task, _kept: kept });
            }
            Wire::Text(link) => {
                let (most, patience) = self.packet;
                let driver = TextDriver::new(link, self.stream, landing, most, patience);
                let task = Box::pin(driver.run());
                tokio::spawn(Keeping { task, _kept: kept });
            }
            #[cfg(feature = "quic")]
            Wire::Quic(link) => {
                if let Stream::Quic(quic) = self.stream {
                    let driver = QuicDriver::new(link, *quic, landing, self.handshake);
                    let driver = driver.with_input(self.input).with_pace(self.pace);
                    let task = Box::pin(driver.run());
                    tokio::spawn(Keeping { task, _kept: kept });
                }
            }
        }
    }

    /// Waits until the peer has hung up, and keeps what it sends meanwhile, up to a bound.
    pub(super) async fn gone(&mut self) {
        #[cfg(feature = "quic")]
        if let Wire::Quic(link) = &self.wire {
            return link.gone().await;
        }
        // what peers of the text wire sent before they hung up lands all the same
        if let Wire::Mux(_) = self.wire {
            while self.input.len() < EARLY {
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        }
        std::future::pending().await
    }

    /// Tells the peer why it is refused, and hangs up.
    pub(super) async fn refuse(self, kind: Kind, reason: &str) {
        match self.wire {
            Wire::Mux(link) => Driver::<Stream>::refuse(link, self.stream, kind, reason).await,
            Wire::Text(link) => TextDriver::refuse(link, self.stream, kind, reason).await,
            #[cfg(feature = "quic")]
            Wire::Quic(link) => {
                let shaken = match self.stream {
                    Stream::Quic(quic) => quic.shaken,
                    _ => None,
                };
                QuicDriver::refuse(&link, shaken, kind, reason).await;
            }
        }
    }
}
