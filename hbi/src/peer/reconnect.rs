//! A client that connects again when its connection is gone.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    time::Duration,
};

use futures_util::FutureExt;
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Connection, Options, Peer, connection::GOODBYE};
use crate::{Address, Call, Error, HostingEnv, Kind, Result, service::Outcome};

/// How often a call is sent at most: one that breaks the connection each time is not sent for ever.
const ATTEMPTS: u32 = 3;

/// How long a client waits before it connects again.
///
/// The first wait is [`first`](Self::first), each further one twice as long, up to
/// [`most`](Self::most). Of each a random part between the half and the whole is waited, so that the
/// clients of a server that is gone do not come back at one time. A connection that stood for at
/// least [`most`](Self::most) begins anew with the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait. By default 100 ms.
    pub first: Duration,
    /// The longest. By default 30 s.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            most: Duration::from_secs(30),
        }
    }
}

/// What a [`Reconnect`] is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReconnectState {
    /// It tries to connect, the how many-th time since it was connected last (from 1).
    Connecting {
        /// The how many-th time.
        attempt: u32,
    },
    /// It is connected, to this peer. Whoever keeps the peer longer than the connection lasts gets
    /// errors from it.
    Connected(Peer),
    /// It waits, before it tries again.
    Waiting {
        /// How often it has tried since it was connected last; 0 where that has just ended.
        attempts: u32,
        /// For how long it waits.
        time: Duration,
        /// Why the connection is gone, or was not made.
        reason: Error,
    },
    /// It connects no more: it was closed, or another attempt would meet the same again. Then the error is
    /// [`Kind::Refused`] where the peer refuses this side (a wrong token, a certificate that it does not
    /// take), or its certificate is not taken here (a wrong pin, an unknown authority, a wrong name, an
    /// expired one); [`Kind::Protocol`] where it speaks another protocol; [`Kind::Misuse`] where this side
    /// asks for what cannot be, as for a name that is exposed twice; [`Kind::Panic`] where making the
    /// environment panicked. All calls fail with it.
    Closed(Error),
}

/// A client that connects again when its connection is gone, until it is dropped or closed; made by
/// [`Options::reconnect`].
///
/// - Each connection has an environment of its own, made by the factory: `on_connect` runs on each,
///   and what the peer knew of this side (objects, `env`, streams, conversations) is gone with the
///   one before.
/// - A peer that went silent is found out by the connection's own pings ([`Settings::keep_alive`]).
/// - The application is told by a state to be watched ([`Self::state`]).
/// - A call that was pending when the connection ended fails, and
///   [`Error::was_sent`] says whether the peer may have acted on it. Nothing is sent again, with one
///   exception: a call made by [`Self::call`] of methods that are all marked `#[hbi(idempotent)]`. (Such
///   calls can go again on one connection, too: see `Options::zero_rtt`.)
/// - A server that cannot be reached, says goodbye, is full, or fails while it looks at the peer, may be
///   well later: it tries on, ever more seldom. A refusal, a wrong certificate or another protocol would
///   be met again: it ends, and says why ([`ReconnectState::Closed`]).
///
/// [`Settings::keep_alive`]: crate::Settings::keep_alive
///
/// ```
/// use hbi::{Backoff, HostingEnv, Options, ReconnectState};
///
/// #[hbi::service]
/// trait Store {
///     #[hbi(idempotent)]
///     async fn get(&self, key: String) -> Option<String>;
/// }
///
/// struct Nothing;
///
/// impl Store for Nothing {
///     async fn get(&self, key: String) -> Option<String> {
///         (key == "tea").then(|| "green".to_owned())
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = Options::new()
///     .reconnect("mem://doc-reconnect", Backoff::default(), HostingEnv::new)?;
/// let mut state = client.state();
///
/// // the server comes later
/// let server = hbi::serve("mem://doc-reconnect", |_peer| async {
///     Ok(HostingEnv::new().service(StoreHost::new(Nothing)))
/// }).await?;
/// state.wait_for(|state| matches!(state, ReconnectState::Connected(_))).await.unwrap();
///
/// // waits for a connection where there is none, and is sent again where one breaks
/// let tea = client.call(|peer| StoreStub::new(peer).get("tea")).await?;
/// assert_eq!(tea.as_deref(), Some("green"));
/// # Ok::<(), hbi::Error>(()) }).unwrap();
/// ```
pub struct Reconnect {
    address: Address,
    state: watch::Receiver<ReconnectState>,
    /// Within which time to say goodbye, once that is to be.
    closing: watch::Sender<Option<Duration>>,
}

impl fmt::Debug for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reconnect({}, {:?})", self.address, self.state.borrow())
    }
}

impl Reconnect {
    pub(super) fn start<F>(options: Options, address: Address, backoff: Backoff, env: F) -> Self
    where
        F: FnMut() -> HostingEnv + Send + 'static,
    {
        let (tell, state) = watch::channel(ReconnectState::Connecting { attempt: 1 });
        let (closing, closed) = watch::channel(None);
        let keeper = Keeper {
            options,
            address: address.clone(),
            backoff,
            env,
            tell,
            closing: closed,
        };
        tokio::spawn(keeper.run());
        Self {
            address,
            state,
            closing,
        }
    }

    /// What it is doing: to be looked at, or to be waited for changes of.
    pub fn state(&self) -> watch::Receiver<ReconnectState> {
        self.state.clone()
    }

    /// The peer, once it is connected.
    ///
    /// # Errors
    /// When it connects no more.
    pub async fn peer(&self) -> Result<Peer> {
        connected(&mut self.state(), None).await
    }

    /// Waits until it is connected, makes a call, and answers as awaiting the call does.
    ///
    /// Where the connection ends meanwhile, or the peer says goodbye, a call whose methods are all
    /// marked `#[hbi(idempotent)]` is made again on the next one, three times in all; any other fails
    /// with what has happened. How long that takes is up to the caller, as with
    /// `tokio::time::timeout`; `Call::within` is of one attempt.
    ///
    /// # Errors
    /// As the call; when the client connects no more; or when the call goes to another connection
    /// than that of the peer which is handed to `make`.
    pub async fn call<T, E, B, F>(&self, make: F) -> Result<T, E::Error>
    where
        T: DeserializeOwned + 'static,
        E: Outcome,
        F: Fn(&Peer) -> Call<T, E, B>,
    {
        let mut state = self.state();
        let mut last: Option<(Peer, Call<T, E, B>, Error)> = None;
        // by any of the attempts
        let mut sent = false;
        for attempt in 1.. {
            let before = last.as_ref().map(|(peer, ..)| peer);
            let peer = match (connected(&mut state, before).await, last) {
                (Ok(peer), _) => peer,
                // the call's own error says whether it was sent
                (Err(_), Some((_, call, error))) => return Err(call.failed_with(error)),
                (Err(error), None) => return Err(E::outcome(error, "")),
            };
            let mut call = make(&peer);
            if let Err(error) = call.check_peer(&peer) {
                return Err(call.failed_with(error));
            }
            let again = attempt < ATTEMPTS && call.is_idempotent();
            let answer = call.answer().await.map_err(|error| {
                sent |= error.was_sent();
                if sent { error.sent() } else { error }
            });
            match answer {
                Ok(answer) => return answer,
                Err(error) if again && (error.is_disconnected() || error.is_not_landed()) => {
                    last = Some((peer, call, error));
                }
                Err(error) => return Err(call.failed_with(error)),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Connects no more, says goodbye where it is connected, and waits until what is under way has
    /// come to its end, at most this long.
    pub async fn close(self, within: Duration) {
        self.closing.send_replace(Some(within));
        let mut state = self.state();
        // where the sender is gone, so is what it told of
        let _ = state
            .wait_for(|state| matches!(state, ReconnectState::Closed(_)))
            .await;
    }
}

impl Drop for Reconnect {
    fn drop(&mut self) {
        self.closing.send_modify(|within| {
            within.get_or_insert(GOODBYE);
        });
    }
}

/// The peer, once there is one other than the last.
pub(super) async fn connected(
    state: &mut watch::Receiver<ReconnectState>,
    last: Option<&Peer>,
) -> Result<Peer> {
    loop {
        match &*state.borrow_and_update() {
            ReconnectState::Connected(peer)
                if peer.closed().is_none() && last.is_none_or(|last| !peer.is_of(last)) =>
            {
                return Ok(peer.clone());
            }
            ReconnectState::Closed(error) => return Err(error.clone()),
            _ => {}
        }
        if state.changed().await.is_err() {
            return Err(Error::disconnected("the client is gone"));
        }
    }
}

/// Keeps a client connected.
struct Keeper<F> {
    options: Options,
    address: Address,
    backoff: Backoff,
    env: F,
    tell: watch::Sender<ReconnectState>,
    closing: watch::Receiver<Option<Duration>>,
}

impl<F: FnMut() -> HostingEnv> Keeper<F> {
    async fn run(mut self) {
        let kept = AssertUnwindSafe(self.keep()).catch_unwind().await;
        let error = kept.unwrap_or_else(|_| {
            let text = "making the environment panicked, so the client connects no more";
            Error::new(Kind::Panic, text)
        });
        self.tell.send_replace(ReconnectState::Closed(error));
    }

    /// Connects, again and again; returns why no more.
    async fn keep(&mut self) -> Error {
        let closed = || Error::disconnected("the client was closed");
        let Backoff { first, most } = self.backoff;
        let mut wait = first;
        let mut attempts = 0;
        loop {
            let attempt = attempts + 1;
            self.tell
                .send_replace(ReconnectState::Connecting { attempt });
            let env = (self.env)();
            let connecting = self.options.connect_to(&self.address, env);
            let reason = match or_closing(&mut self.closing, connecting).await {
                Err(_) => return closed(),
                Ok(Ok(connection)) => {
                    attempts = 0;
                    let since = Instant::now();
                    let peer = connection.peer();
                    self.tell.send_replace(ReconnectState::Connected(peer));
                    let gone = connection.wait_closed();
                    let reason = match or_closing(&mut self.closing, gone).await {
                        Ok(reason) => reason,
                        Err(within) => {
                            say_goodbye(connection, within).await;
                            return closed();
                        }
                    };
                    if since.elapsed() >= most {
                        wait = first;
                    }
                    reason
                }
                Ok(Err(error)) if is_lasting(&error) => return error,
                Ok(Err(error)) => {
                    attempts = attempt;
                    error
                }
            };
            let time = jittered(wait.min(most));
            wait = wait.saturating_mul(2).min(most);
            tracing::info!(target: "hbi", address = %self.address, %reason, ?time, "connecting again");
            self.tell.send_replace(ReconnectState::Waiting {
                attempts,
                time,
                reason,
            });
            if or_closing(&mut self.closing, sleep(time)).await.is_err() {
                return closed();
            }
        }
    }
}

/// Whether another attempt would meet it again.
fn is_lasting(error: &Error) -> bool {
    matches!(error.kind(), Kind::Refused | Kind::Protocol | Kind::Misuse)
}

/// Waits for something, or until the client is to be closed: then within which time.
async fn or_closing<T>(
    closing: &mut watch::Receiver<Option<Duration>>,
    future: impl Future<Output = T>,
) -> Result<T, Duration> {
    tokio::select! {
        biased;
        within = closing.wait_for(Option::is_some) => {
            // without its owner it is closed, too
            Err(within.ok().and_then(|within| *within).unwrap_or(GOODBYE))
        }
        value = future => Ok(value),
    }
}

async fn say_goodbye(connection: Connection, within: Duration) {
    if let Err(error) = connection.close(within).await {
        tracing::info!(target: "hbi", %error, "the goodbye was not answered");
    }
}

/// A random time between the half and the whole of this.
fn jittered(time: Duration) -> Duration {
    // its keys are random, which is all that is needed here
    let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
    time.mul_f64(0.5 + random / 2.0)
}
