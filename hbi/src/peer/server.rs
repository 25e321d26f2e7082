//! Serving: accepting peers, each with an environment of its own.

use std::{
    fmt, io,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    Options, Peer,
    admission::{Admitted, admit, not_let_in, turn_away},
    defences::Door,
    wire::{Introduction, Started, Wire, start},
};
use crate::{Address, HostingEnv, Kind, Result, endpoint::Link, transport::Listener};

/// How long a dropped server's connections may take to finish what is under way.
const GOODBYE: Duration = Duration::from_secs(5);

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
    links: Mutex<Vec<Weak<dyn Link>>>,
    connections: watch::Sender<usize>,
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
            links: Mutex::default(),
            connections: watch::Sender::new(0),
            closing: watch::Sender::new(false),
        });
        let (listener, text) = (listener, address.is_text());
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
        *self.shared.connections.borrow()
    }

    /// Stops accepting, says goodbye to all peers, and waits until what is under way has come to its
    /// end, at most this long. The address is free then, but for QUIC, which keeps it until its connections
    /// have heard of their end.
    pub async fn shutdown(mut self, within: Duration) {
        self.goodbye(within);
        // the listener is gone with the task
        let _ = (&mut self.accepting).await;
        let mut connections = self.shared.connections.subscribe();
        // the sender lives as long as `self`
        let _ = connections.wait_for(|count| *count == 0).await;
    }

    fn goodbye(&self, within: Duration) {
        self.accepting.abort();
        self.shared.closing.send_replace(true);
        for link in self.shared.links().iter().filter_map(Weak::upgrade) {
            link.goodbye(within);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.goodbye(GOODBYE);
    }
}

impl Shared {
    fn links(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Link>>> {
        self.links.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// One connected peer, counted as long as this lives.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>, wire: &Wire) -> Self {
        let mut links = shared.links();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&wire.link()));
        drop(links);
        shared.connections.send_modify(|count| *count += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count -= 1);
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
    let counted = Counted::new(shared, &wire);
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
            driver.spawn(env, hooks, (counted, kept));
        }
        Err((kind, reason)) => {
            tracing::info!(target: "hbi", %reason, "a peer was refused");
            Box::pin(driver.refuse(kind, &reason)).await;
        }
    }
}
