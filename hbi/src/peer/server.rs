//! Serving: accepting peers, each with an environment of its own.

use std::{
    fmt, io,
    sync::{Arc, Weak},
    time::Duration,
};

use slab::Slab;
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    Options, Peer,
    admission::{Admitted, admit, not_let_in, turn_away},
    connection::GOODBYE,
    defences::Door,
    wire::{Introduction, Started, Wire, start},
};
use crate::{Address, HostingEnv, Kind, Result, endpoint::Link, transport::Listener};

/// How long accepting rests after a failure that is not a single connection's.
const REST: Duration = Duration::from_millis(50);

/// Peers that are told at once why they are turned away; more are cut off, so that who comes over and over
/// takes no places from others.
const TOLD: usize = 64;

/// A server at work. Dropping it stops accepting and says goodbye to its peers.
pub struct Server {
    address: Address,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    /// Of the peers that are connected.
    links: watch::Sender<Slab<Weak<dyn Link>>>,
    /// Peers that are not let in yet are not let in any more.
    closing: watch::Sender<bool>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}

impl Server {
    pub(super) fn start<F, R>(
        options: Options,
        listener: Listener,
        address: Address,
        factory: Arc<F>,
    ) -> Self
    where
        F: Fn(Peer) -> R + Send + Sync + 'static,
        R: Future<Output = Result<HostingEnv>> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            links: watch::Sender::new(Slab::new()),
            closing: watch::Sender::new(false),
        });
        let text = address.is_text();
        let accepting = accept(options, (listener, text), factory, Arc::clone(&shared));
        let accepting = tokio::spawn(accepting);
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Where it is reached: with the port it was given, where it asked for any (0).
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How many peers are connected.
    pub fn connections(&self) -> usize {
        self.shared.links.borrow().len()
    }

    /// Stops accepting, says goodbye to all peers, and waits until what is under way has come to its
    /// end, at most this long, and up to 3 s more to tell those that have not come to it by then. The
    /// address is free then, but for QUIC, which keeps it until its connections have heard of their end.
    pub async fn shutdown(mut self, within: Duration) {
        self.goodbye(within);
        // the listener is gone with the task
        let _ = (&mut self.accepting).await;
        let mut links = self.shared.links.subscribe();
        // the sender lives as long as `self`
        let _ = links.wait_for(Slab::is_empty).await;
    }

    fn goodbye(&self, within: Duration) {
        self.accepting.abort();
        self.shared.closing.send_replace(true);
        let links = self.shared.links.borrow();
        let there: Vec<_> = links
            .iter()
            .filter_map(|(_, link)| link.upgrade())
            .collect();
        drop(links);
        for link in there {
            link.goodbye(within);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.goodbye(GOODBYE);
    }
}

/// One connected peer, known as long as this lives.
struct Known {
    shared: Arc<Shared>,
    key: usize,
}

impl Known {
    fn new(shared: &Arc<Shared>, wire: &Wire) -> Self {
        let (link, mut key) = (Arc::downgrade(&wire.link()), 0);
        shared.links.send_modify(|links| key = links.insert(link));
        Self {
            shared: Arc::clone(shared),
            key,
        }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.shared.links.send_modify(|links| {
            links.remove(self.key);
        });
    }
}

async fn accept<F, R>(
    options: Options,
    (mut listener, text): (Listener, bool),
    factory: Arc<F>,
    shared: Arc<Shared>,
) where
    F: Fn(Peer) -> R + Send + Sync + 'static,
    R: Future<Output = Result<HostingEnv>> + Send + 'static,
{
    let most = options
        .defences
        .connections
        .clamp(1, Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(most));
    let door = Arc::new(Door::new(options.defences.clone()));
    let told = Arc::new(Semaphore::new(TOLD));
    let options = Arc::new(options);
    loop {
        // the semaphore is never closed
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let arrived = match listener.accept().await {
            Ok(arrived) => arrived,
            // for good, as where the socket of QUIC failed
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                tracing::error!(target: "hbi", %error, "no more connections can be accepted");
                return;
            }
            Err(error) => {
                tracing::warn!(target: "hbi", %error, "accepting a connection failed");
                if !is_connections_own(&error) {
                    tokio::time::sleep(REST).await;
                }
                continue;
            }
        };
        let (options, factory) = (Arc::clone(&options), Arc::clone(&factory));
        let shared = Arc::clone(&shared);
        let entered = door.enter(arrived.source());
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            let mut closing = shared.closing.subscribe();
            let closed = async move {
                // the sender lives as long as `shared`
                let _ = closing.wait_for(|closing| *closing).await;
            };
            let admitted = async {
                match &entered {
                    Ok(entered) => Box::pin(admit(&options, arrived, text, entered)).await,
                    Err(reason) => {
                        if let Ok(_telling) = told.try_acquire() {
                            Box::pin(turn_away(&options, arrived, text, reason)).await;
                        }
                        None
                    }
                }
            };
            let admitted = tokio::select! {
                admitted = admitted => admitted,
                () = closed => None,
            };
            if let Some(admitted) = admitted {
                let kept = (entered, place);
                host(&options, admitted, text, factory, &shared, kept).await;
            }
        });
    }
}

/// Whether a failure to accept is one connection's, and says nothing of the next.
fn is_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused
    )
}

/// Hosts one peer; `kept` is dropped when it is gone.
async fn host<F, R, K>(
    options: &Options,
    admitted: Admitted,
    text: bool,
    factory: Arc<F>,
    shared: &Arc<Shared>,
    kept: K,
) where
    F: Fn(Peer) -> R + Send + Sync + 'static,
    R: Future<Output = Result<HostingEnv>> + Send + 'static,
    K: Send + Unpin + 'static,
{
    let introduction = Introduction {
        token: &[],
        identity: admitted.identity,
        input: admitted.input,
    };
    let Started { wire, mut driver } = start(options, admitted.stream, text, introduction);
    let known = Known::new(shared, &wire);
    let peer = Peer::new(wire.link());
    // in a task of its own, so that a panic in it is told to the peer, too
    let mut making = JoinSet::new();
    making.spawn(async move { factory(peer).await });
    let mut closing = shared.closing.subscribe();
    let made = tokio::select! {
        // `closing` first: goodbye may have been said to all links before this one was there
        biased;
        _ = closing.wait_for(|closing| *closing) => {
            Err((Kind::NotLanded, "the server says goodbye".to_owned()))
        }
        made = making.join_next() => match made {
            Some(Ok(Ok(env))) => env.build().map_err(|error| (Kind::Refused, error.to_string())),
            Some(Ok(Err(error))) => Err(not_let_in(&error)),
            Some(Err(_)) | None => Err((Kind::Panic, "making the environment failed".to_owned())),
        },
        // nobody is there any more for whom it would be made
        () = driver.gone() => Err((Kind::Disconnected, "the peer hung up".to_owned())),
    };
    drop((making, closing));
    match made {
        Ok((env, hooks)) => {
            let driver = driver.paced(options.defences.openings_per_second);
            driver.spawn(env, hooks, (known, kept));
        }
        Err((kind, reason)) => {
            tracing::info!(target: "hbi", %reason, "a peer was refused");
            Box::pin(driver.refuse(kind, &reason)).await;
        }
    }
}
