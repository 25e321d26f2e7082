//! The ends of a connection: the peer as it is talked to, and the owner of the connection.

use std::{fmt, future::poll_fn, ops::Deref, sync::Arc, time::Duration};

use super::{Options, identity::Identity};
use crate::{
    Error, Kind, PostingEnd, Result,
    connection::{Driver, MuxLink},
    endpoint::{Encoding, Link, LinkInfo},
    env::{EnvLanding, Environment, Hooks},
    transport::Stream,
};
use bytes::BytesMut;
use tokio::io::AsyncReadExt;

/// How long a dropped connection may take to finish what is under way.
const GOODBYE: Duration = Duration::from_secs(5);

/// The peer at the other end of a connection. A cheap handle, which does not keep it open.
#[derive(Clone)]
pub struct Peer {
    po: PostingEnd,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.po.info().peer_address)
    }
}

impl Peer {
    pub(super) fn new(link: Arc<dyn Link>) -> Self {
        Self {
            po: PostingEnd::new(link),
        }
    }

    /// Where conversations with the peer begin.
    pub fn po(&self) -> PostingEnd {
        self.po.clone()
    }

    /// The peer's address, as its transport knows it.
    pub fn address(&self) -> &str {
        &self.po.info().peer_address
    }

    /// Who the peer is, as [`Options::authenticate`] found; without such a check it is the
    /// certificate (`hbi::tls::Certificate`) that the peer has shown. `None` where nothing is known,
    /// and where it is of another type.
    pub fn identity<I: 'static>(&self) -> Option<&I> {
        self.po.info().identity()
    }

    /// This side's address, as its transport knows it.
    pub fn local_address(&self) -> &str {
        &self.po.info().local_address
    }
}

impl AsRef<PostingEnd> for Peer {
    fn as_ref(&self) -> &PostingEnd {
        &self.po
    }
}

impl Deref for Peer {
    type Target = PostingEnd;

    fn deref(&self) -> &PostingEnd {
        &self.po
    }
}

/// A connection, and its owner: dropping it says goodbye to the peer.
pub struct Connection {
    peer: Peer,
    link: Arc<MuxLink>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer.address())
    }
}

impl Connection {
    pub(super) fn new(link: Arc<MuxLink>) -> Self {
        Self {
            peer: Peer::new(Arc::clone(&link) as Arc<dyn Link>),
            link,
        }
    }

    /// Waits until both sides know each other.
    pub(super) async fn ready(&self, within: Duration) -> Result<()> {
        let ready = poll_fn(|cx| self.link.poll_ready(cx));
        match tokio::time::timeout(within, ready).await {
            Ok(ready) => ready,
            Err(_) => {
                let text = format!("the peer did not introduce itself within {within:?}");
                Err(Error::new(Kind::Disconnected, text))
            }
        }
    }

    /// The peer, to be kept where the connection is not.
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// How many conversations are open: those of this side, those of the peer.
    pub fn conversations(&self) -> (usize, usize) {
        self.link.conversations()
    }

    /// How many objects of this side the peer holds by reference.
    pub fn objects(&self) -> usize {
        self.link.objects()
    }

    /// Says goodbye, and waits until what is under way has come to its end, at most this long.
    ///
    /// # Errors
    /// The reason, where the connection ended otherwise than by a goodbye.
    pub async fn close(self, within: Duration) -> Result<()> {
        self.link.goodbye(within);
        let reason = self.po.wait_closed().await;
        if self.link.ended_well() {
            Ok(())
        } else {
            Err(reason)
        }
    }
}

impl Deref for Connection {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl AsRef<PostingEnd> for Connection {
    fn as_ref(&self) -> &PostingEnd {
        &self.peer.po
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.goodbye(GOODBYE);
    }
}

/// A connection whose driver does not run yet.
pub(super) struct Started {
    pub(super) link: Arc<MuxLink>,
    pub(super) driver: Starter,
}

/// Bytes that are read of a peer before its environment is there.
const EARLY: usize = 64 << 10;

/// What is needed to run the driver.
pub(super) struct Starter {
    pub(super) link: Arc<MuxLink>,
    pub(super) stream: Stream,
    input: BytesMut,
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
    let link = Arc::new(MuxLink::new(info, options.settings.clone(), token));
    Started {
        driver: Starter {
            link: Arc::clone(&link),
            stream,
            input,
        },
        link,
    }
}

impl Starter {
    /// Runs the driver in a task of its own.
    pub(super) fn spawn(self, env: Arc<Environment>, hooks: Hooks) {
        tokio::spawn(self.run(env, hooks));
    }

    /// Runs the driver.
    pub(super) async fn run(self, env: Arc<Environment>, hooks: Hooks) {
        let link = Arc::clone(&self.link) as Arc<dyn Link>;
        let landing = Box::new(EnvLanding::new(env, hooks, &link));
        let driver = Driver::new(self.link, self.stream, landing);
        driver.with_input(self.input).run().await;
    }

    /// Waits until the peer has hung up, and keeps what it sends meanwhile, up to a bound.
    pub(super) async fn gone(&mut self) {
        while self.input.len() < EARLY {
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Tells the peer why it is refused, and hangs up.
    pub(super) async fn refuse(self, kind: Kind, reason: &str) {
        Driver::<Stream>::refuse(self.link, self.stream, kind, reason).await;
    }
}
