//! The ends of a connection: the peer as it is talked to, and the owner of the connection.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use super::wire::Wire;
use crate::{Error, Kind, PostingEnd, Result, endpoint::Link};

/// How long a dropped connection may take to finish what is under way.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);

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

    /// Who the peer is, as [`Options::authenticate`](crate::Options::authenticate) found; without such a
    /// check, and at a client, it is the certificate (`hbi::tls::Certificate`) that the peer has shown.
    /// `None` where nothing is known, as where the server was not waited for (`Options::zero_rtt`), and
    /// where it is of another type.
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
    wire: Wire,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer.address())
    }
}

impl Connection {
    pub(super) fn new(wire: Wire) -> Self {
        Self {
            peer: Peer::new(wire.link()),
            wire,
        }
    }

    /// Waits until both sides know each other.
    pub(super) async fn ready(&self, within: Duration) -> Result<()> {
        match tokio::time::timeout(within, self.wire.ready()).await {
            Ok(ready) => ready,
            Err(_) => {
                let text = format!(
                    "the peer at {} did not introduce itself within {within:?}: is it an hbi server of \
                     this scheme, and has it room (its `Defences::connections`)?",
                    self.peer.address()
                );
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
        self.wire.conversations()
    }

    /// How many objects of this side the peer holds by reference.
    pub fn objects(&self) -> usize {
        self.wire.objects()
    }

    /// Says goodbye, and waits until what is under way has come to its end, at most this long.
    ///
    /// # Errors
    /// The reason, where the connection ended otherwise than by a goodbye.
    pub async fn close(self, within: Duration) -> Result<()> {
        self.wire.link().goodbye(within);
        let reason = self.po.wait_closed().await;
        if self.wire.ended_well() {
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
        self.wire.link().goodbye(GOODBYE);
    }
}
