//! One stub over several peers: each call goes to the less busy of two that are picked at random.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, poll_fn, ready},
    hash::Hash,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{self, Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    sync::{Mutex, watch},
    task::AbortHandle,
    time::sleep,
};
use tower::{
    BoxError, Service,
    balance::p2c::Balance,
    discover::{Change, Discover},
    load::Load,
};

use super::{Connection, Peer, Reconnect, reconnect::connected};
use crate::{
    Error, Kind, Result,
    endpoint::{BoxFuture, Encoding},
    service::{Outcome, StandsAlone, Stub, Target},
};

/// How often a peer is pinged, and how long it has to answer.
const PING: Duration = Duration::from_secs(5);

/// A stub over several peers. Cheap to clone; all clones share the peers.
///
/// Each call goes to one of the peers that are well: of two picked at random, to that with fewer
/// calls in flight from here. Where none is well it waits until one is; how long is up to the
/// caller, as with `tokio::time::timeout`.
///
/// A peer is pinged every 5 s, by a script that does nothing. One that does not answer within 5 s,
/// that says goodbye or is disconnected gets no more calls until it answers again, or its
/// [`Reconnect`] is connected again; a [`Connection`] that is gone is let go of. On the text
/// wire nothing is pinged.
///
/// Only calls that stand by themselves go through it, one by one, each at any peer: what it takes
/// [`StandsAlone`]. A conversation, a stream, an object by reference, a notification (which has its
/// place in an order) and a script (which has `env`) belong to one connection, and do not compile
/// here. What no signature shows, as a stream in a field of a struct or in the midst of a
/// composition, is refused when the call is made ([`Kind::Misuse`]): before anything is sent, or, where
/// it is in the answer, when that is there. Calls are not sent again: what failed says whether it was
/// sent ([`Error::was_sent`]).
///
/// ```
/// use hbi::{HostingEnv, peer::balance::{Balanced, Member}};
///
/// #[hbi::service]
/// trait Calc {
///     async fn add(&self, a: i64, b: i64) -> i64;
/// }
///
/// struct MyCalc;
///
/// impl Calc for MyCalc {
///     async fn add(&self, a: i64, b: i64) -> i64 { a + b }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut servers = Vec::new();
/// let mut members = Vec::new();
/// for name in ["mem://doc-balance-1", "mem://doc-balance-2"] {
///     servers.push(hbi::serve(name, |_peer| async {
///         Ok(HostingEnv::new().service(CalcHost::new(MyCalc)))
///     }).await?);
///     members.push(Member::connection(hbi::connect(name, HostingEnv::new()).await?));
/// }
/// let calc = Balanced::<CalcStub>::over(members);
/// assert_eq!(calc.call(|calc| calc.add(1, 2)).await?, 3);
/// # Ok::<(), hbi::Error>(()) }).unwrap();
/// ```
///
/// A stream belongs to one connection:
///
/// ```compile_fail,E0277
/// # #[hbi::service]
/// # trait Rooms { async fn watch(&self, room: String) -> hbi::Items<String>; }
/// # async fn f(rooms: hbi::peer::balance::Balanced<RoomsStub>) {
/// let events = rooms.call(|rooms| rooms.watch("tea")).await;
/// # }
/// ```
pub struct Balanced<S> {
    picker: Arc<Mutex<Picker>>,
    stub: PhantomData<fn() -> S>,
}

impl<S> Clone for Balanced<S> {
    fn clone(&self) -> Self {
        Self {
            picker: Arc::clone(&self.picker),
            stub: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Balanced<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced").finish_non_exhaustive()
    }
}

impl<S: Stub> Balanced<S> {
    /// Over the peers that are discovered: by DNS, a registry, a file, whatever yields
    /// `Change::Insert` and `Change::Remove`. It is asked while a call looks for a peer. One that is
    /// removed is said goodbye to once its calls have been answered, within 5 s.
    pub fn new<D>(discover: D) -> Self
    where
        D: Discover<Service = Member> + Send + Unpin + 'static,
        D::Key: Hash + Clone + Send + 'static,
        D::Error: Into<BoxError>,
    {
        Self {
            picker: Arc::new(Mutex::new(picker(discover))),
            stub: PhantomData,
        }
    }

    /// Over these peers.
    pub fn over(members: impl IntoIterator<Item = Member>) -> Self {
        let members: Vec<_> = members.into_iter().enumerate().collect();
        let inserts = members
            .into_iter()
            .map(|(key, member)| Ok::<_, Infallible>(Change::Insert(key, member)));
        Self::new(stream::iter(inserts))
    }

    /// Makes a call of one of the peers, and answers as awaiting the call does.
    ///
    /// # Errors
    /// As the call; when there is no peer left and none to be discovered; when discovery fails; when
    /// the call carries a stream or an object, or goes to another peer than that of the stub which is
    /// handed to `make`.
    pub async fn call<C: StandsAlone>(
        &self,
        make: impl FnOnce(&S) -> C,
    ) -> Result<C::Value, C::Error> {
        let picked = self.pick().await;
        let picked = picked.map_err(|error| C::Outcome::outcome(error, ""))?;
        let mut call = make(&S::over(Target::peer(&picked.peer))).into_call();
        let answer = async {
            call.check_peer(&picked.peer)?;
            call.check_plain()?;
            call.answer().await
        }
        .await;
        answer.unwrap_or_else(|error: Error| {
            if error.is_disconnected() || error.is_not_landed() {
                picked.sick();
            }
            Err(call.failed_with(error))
        })
    }

    async fn pick(&self) -> Result<Picked> {
        // those that wait stand in line: only the first is told of changes
        let mut picker = self.picker.lock().await;
        poll_fn(|cx| picker(cx)).await
    }
}

/// Picks the peer of the next call.
type Picker = Box<dyn FnMut(&mut Context<'_>) -> Poll<Result<Picked>> + Send>;

fn picker<D>(discover: D) -> Picker
where
    D: Discover<Service = Member> + Send + Unpin + 'static,
    D::Key: Hash + Clone + Send + 'static,
    D::Error: Into<BoxError>,
{
    let unavailable = |text: String| Poll::Ready(Err(Error::new(Kind::Address, text)));
    let known = Arc::new(Known::default());
    let mut balance = Balance::new(Discovered {
        discover,
        known: Arc::clone(&known),
    });
    Box::new(move |cx| match balance.poll_ready(cx) {
        Poll::Ready(Ok(())) => {
            let picked = Pin::new(&mut balance.call(Pick)).poll(cx);
            picked.map_err(|error| Error::new(Kind::Address, error.to_string()))
        }
        Poll::Ready(Err(error)) => unavailable(format!("peers cannot be discovered: {error}")),
        Poll::Pending if balance.is_empty() && known.ended.load(Ordering::Relaxed) => {
            let last = known.gone.lock().unwrap_or_else(PoisonError::into_inner);
            let why = match &*last {
                Some(error) => format!("; the last is gone: {error}"),
                None => String::new(),
            };
            unavailable(format!(
                "there is no peer left to call, and no more are discovered{why}"
            ))
        }
        Poll::Pending => Poll::Pending,
    })
}

/// One of the peers: a connection, or a client that connects again.
pub struct Member {
    shared: Arc<Shared>,
    health: watch::Receiver<Health>,
    /// The peer, where it was well when it was looked at.
    well: Option<Peer>,
    waiting: Option<BoxFuture<()>>,
    keeping: AbortHandle,
}

/// How a member is.
#[derive(Debug, Clone)]
enum Health {
    Well(Peer),
    /// Not connected, or not answering.
    Sick,
    /// For good.
    Gone(Error),
}

/// What calls know of their member.
struct Shared {
    health: watch::Sender<Health>,
    in_flight: AtomicUsize,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("health", &*self.health.borrow())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Member {
    /// A connection, until it is gone.
    ///
    /// # Panics
    /// Outside of a tokio runtime: it spawns a task.
    pub fn connection(connection: Connection) -> Self {
        let health = Health::Well(connection.peer());
        Self::kept(health, |shared| async move {
            ping(&shared, &connection).await;
            let reason = connection.wait_closed().await;
            shared.health.send_replace(Health::Gone(reason));
        })
    }

    /// A client that connects again: it gets calls while it is connected.
    ///
    /// # Panics
    /// Outside of a tokio runtime: it spawns a task.
    pub fn reconnect(client: Reconnect) -> Self {
        Self::kept(Health::Sick, |shared| async move {
            let mut state = client.state();
            let mut last = None;
            loop {
                match connected(&mut state, last.as_ref()).await {
                    Ok(peer) => {
                        shared.health.send_replace(Health::Well(peer.clone()));
                        ping(&shared, &peer).await;
                        shared.health.send_replace(Health::Sick);
                        last = Some(peer);
                    }
                    Err(error) => {
                        shared.health.send_replace(Health::Gone(error));
                        return;
                    }
                }
            }
        })
    }

    /// A member whose health a task looks after, until it is dropped.
    fn kept<F>(health: Health, keep: impl FnOnce(Arc<Shared>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tell, health) = watch::channel(health);
        let shared = Arc::new(Shared {
            health: tell,
            in_flight: AtomicUsize::new(0),
        });
        let keeping = tokio::spawn(keep(Arc::clone(&shared))).abort_handle();
        Self {
            shared,
            health,
            well: None,
            waiting: None,
            keeping,
        }
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // what it keeps is dropped with it, and says goodbye
        self.keeping.abort();
    }
}

/// Pings a peer until it is gone, and keeps what is known of its health.
async fn ping(shared: &Shared, peer: &Peer) {
    if let Encoding::Literal(_) = peer.info().encoding {
        // there a script that does not land ends the connection, and each peer reads its own kind
        peer.wait_closed().await;
        return;
    }
    loop {
        tokio::select! {
            biased;
            _ = peer.wait_closed() => return,
            () = sleep(PING) => {}
        }
        let answer: Result<()> = peer.script("()").within(PING).await;
        let well = match answer {
            Ok(()) => true,
            Err(error) if error.is_timeout() || error.is_not_landed() => false,
            Err(error) if error.is_disconnected() => return,
            // one that lands no free scripts says so, and is well
            Err(_) => true,
        };
        shared.health.send_if_modified(|health| {
            let was = matches!(health, Health::Well(_));
            *health = match well {
                true => Health::Well(peer.clone()),
                false => Health::Sick,
            };
            was != well
        });
    }
}

/// A peer that was picked for a call, which is in flight as long as this lives.
struct Picked {
    peer: Peer,
    shared: Arc<Shared>,
}

impl Picked {
    fn new(peer: Peer, shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            peer,
            shared: Arc::clone(shared),
        }
    }

    /// It takes no calls: nor others, before the next ping.
    fn sick(&self) {
        self.shared.health.send_if_modified(|health| {
            let same = matches!(health, Health::Well(peer) if peer.is_of(&self.peer));
            if same {
                *health = Health::Sick;
            }
            same
        });
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What asks a member for its peer.
struct Pick;

/// What is known of the members as a whole.
#[derive(Default)]
struct Known {
    /// No more are discovered.
    ended: AtomicBool,
    /// Why the last that is gone for good is.
    gone: std::sync::Mutex<Option<Error>>,
}

/// A member as tower balances it.
struct Balancing(Member, Arc<Known>);

impl Service<Pick> for Balancing {
    type Response = Picked;
    type Error = Error;
    type Future = Ready<Result<Picked>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let member = &mut self.0;
        loop {
            if let Some(waiting) = &mut member.waiting {
                task::ready!(waiting.as_mut().poll(cx));
                member.waiting = None;
            }
            match &*member.health.borrow_and_update() {
                Health::Well(peer) if peer.closed().is_none() && !peer.is_peer_leaving() => {
                    member.well = Some(peer.clone());
                    return Poll::Ready(Ok(()));
                }
                Health::Well(_) | Health::Sick => {}
                Health::Gone(error) => {
                    let mut gone = self.1.gone.lock().unwrap_or_else(PoisonError::into_inner);
                    *gone = Some(error.clone());
                    return Poll::Ready(Err(error.clone()));
                }
            }
            let mut health = member.health.clone();
            member.waiting = Some(Box::pin(async move {
                // the sender lives as long as the member
                let _ = health.changed().await;
            }));
        }
    }

    fn call(&mut self, Pick: Pick) -> Self::Future {
        ready(match self.0.well.take() {
            Some(peer) => Ok(Picked::new(peer, &self.0.shared)),
            None => Err(Error::new(Kind::Misuse, "picked before it was ready")),
        })
    }
}

impl Load for Balancing {
    type Metric = usize;

    fn load(&self) -> usize {
        self.0.in_flight()
    }
}

/// What is discovered, once to its end.
struct Discovered<D> {
    discover: D,
    known: Arc<Known>,
}

impl<D: Discover<Service = Member> + Unpin> Stream for Discovered<D> {
    type Item = Result<Change<D::Key, Balancing>, D::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.known.ended.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        let next = task::ready!(Pin::new(&mut self.discover).poll_discover(cx));
        self.known.ended.store(next.is_none(), Ordering::Relaxed);
        Poll::Ready(next.map(|change| {
            change.map(|change| match change {
                Change::Insert(key, member) => {
                    Change::Insert(key, Balancing(member, Arc::clone(&self.known)))
                }
                Change::Remove(key) => Change::Remove(key),
            })
        }))
    }
}
