//! A stub over several peers: who gets which call, who gets none, and what is no call for it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{Stream, stream::poll_fn};
use hbi::{
    Backoff, HostingEnv, Items, Kind, Options,
    peer::balance::{Balanced, Member},
    testing::{Pair, pair},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};
use tower::discover::Change;

/// A struct that carries a stream.
#[derive(serde::Serialize, serde::Deserialize)]
struct Parcel {
    items: Items<usize>,
}

/// A service of which each peer is one.
#[hbi::service]
trait Work {
    /// Who answers.
    async fn who(&self) -> usize;
    /// Who answers, once the worker is told that it may.
    async fn slow(&self) -> usize;
    /// The sum of a stream.
    async fn sum(&self, items: Items<usize>) -> usize;
    /// The same of a stream in a field.
    async fn weigh(&self, parcel: Parcel) -> usize;
    /// A stream in a field.
    async fn pack(&self, to: usize) -> Parcel;
    /// A sum of numbers.
    async fn add(&self, a: usize, b: usize) -> usize;
}

#[derive(Clone)]
struct Worker {
    name: usize,
    begun: Arc<AtomicUsize>,
    may: Arc<Semaphore>,
}

impl Worker {
    fn new(name: usize) -> Self {
        Self {
            name,
            begun: Arc::default(),
            may: Arc::new(Semaphore::new(0)),
        }
    }

    fn env(&self) -> HostingEnv {
        HostingEnv::new().service(WorkHost::new(self.clone()))
    }

    fn begun(&self) -> usize {
        self.begun.load(SeqCst)
    }
}

impl Work for Worker {
    async fn who(&self) -> usize {
        self.begun.fetch_add(1, SeqCst);
        self.name
    }

    async fn slow(&self) -> usize {
        self.begun.fetch_add(1, SeqCst);
        self.may.acquire().await.unwrap().forget();
        self.name
    }

    async fn weigh(&self, parcel: Parcel) -> usize {
        self.sum(parcel.items).await
    }

    async fn pack(&self, to: usize) -> Parcel {
        let items = Items::iter(0..to);
        Parcel { items }
    }

    async fn sum(&self, mut items: Items<usize>) -> usize {
        let mut sum = 0;
        while let Ok(Some(item)) = items.try_next().await {
            sum += item;
        }
        sum
    }

    async fn add(&self, a: usize, b: usize) -> usize {
        a + b
    }
}

/// A worker's side of its connection, its wire, and the member at the other end.
struct Joined {
    worker: Worker,
    wire: hbi::testing::Wire,
    _server: hbi::Connection,
}

async fn join(name: usize) -> (Joined, Member) {
    let worker = Worker::new(name);
    let Pair {
        server,
        client,
        wire,
    } = pair(worker.env(), HostingEnv::new()).await.unwrap();
    let joined = Joined {
        worker,
        wire,
        _server: server,
    };
    (joined, Member::connection(client))
}

/// How many of so many calls, one after the other, each of two workers answers.
async fn shares(work: &Balanced<WorkStub>, calls: usize) -> [usize; 2] {
    let mut shares = [0; 2];
    for _ in 0..calls {
        shares[work.call(|work| work.who()).await.unwrap()] += 1;
    }
    shares
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_to_the_peer_with_fewer_in_flight() {
    let (zero, member_zero) = join(0).await;
    let (one, member_one) = join(1).await;
    let work = Balanced::<WorkStub>::over([member_zero, member_one]);
    let mut calls = tokio::task::JoinSet::new();
    for n in 1..=10 {
        let work = work.clone();
        calls.spawn(async move { work.call(|work| work.slow()).await });
        until(|| zero.worker.begun() + one.worker.begun() == n).await;
        // with two peers both are looked at each time: none is ever ahead by more than one
        assert!(zero.worker.begun().abs_diff(one.worker.begun()) <= 1);
    }
    // those of one peer are answered: it gets the next five
    zero.worker.may.add_permits(5);
    for _ in 0..5 {
        assert_eq!(calls.join_next().await.unwrap().unwrap().unwrap(), 0);
    }
    for n in 11..=15 {
        let work = work.clone();
        calls.spawn(async move { work.call(|work| work.slow()).await });
        until(|| zero.worker.begun() + one.worker.begun() == n).await;
    }
    assert_eq!((zero.worker.begun(), one.worker.begun()), (10, 5));
    // calls that are dropped are in flight no more
    calls.shutdown().await;
    let shares = shares(&work, 50).await;
    assert!(shares[0] > 5 && shares[1] > 5, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_no_ping_gets_no_calls_until_it_does() {
    let (_zero, member_zero) = join(0).await;
    let (one, member_one) = join(1).await;
    let work = Balanced::<WorkStub>::over([member_zero, member_one]);
    one.wire.delay(Duration::from_secs(7));
    // a ping, and the time it has
    sleep(Duration::from_secs(11)).await;
    assert_eq!(shares(&work, 20).await, [20, 0]);
    one.wire.delay(Duration::ZERO);
    sleep(Duration::from_secs(25)).await;
    let shares = shares(&work, 50).await;
    assert!(shares[0] > 5 && shares[1] > 5, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_gone_is_let_go_of() {
    let (zero, member_zero) = join(0).await;
    let (one, member_one) = join(1).await;
    let work = Balanced::<WorkStub>::over([member_zero, member_one]);
    assert!(work.call(|work| work.who()).await.unwrap() < 2);
    one.wire.cut();
    until(|| one._server.closed().is_some()).await;
    // a call may meet the cut before this side knows of it, and no other does
    let _met = work.call(|work| work.who()).await;
    assert_eq!(shares(&work, 20).await, [20, 0]);

    let hanging = tokio::spawn({
        let work = work.clone();
        async move { work.call(|work| work.slow()).await }
    });
    let begun = zero.worker.begun();
    until(|| zero.worker.begun() > begun || hanging.is_finished()).await;
    zero.wire.cut();
    let error = hanging.await.unwrap().unwrap_err();
    assert!(error.is_disconnected() && error.was_sent(), "{error:?}");
    let error = work.call(|work| work.who()).await.unwrap_err();
    assert!(error.message().contains("no peer left"), "{error}");
    assert!(!error.was_sent());
}

#[tokio::test(start_paused = true)]
async fn one_that_says_goodbye_gets_no_calls_and_answers_those_it_has() {
    let (zero, member_zero) = join(0).await;
    let (one, member_one) = join(1).await;
    let work = Balanced::<WorkStub>::over([member_zero, member_one]);
    // of two calls each has one
    let mut calls = tokio::task::JoinSet::new();
    for n in 1..=2 {
        let work = work.clone();
        calls.spawn(async move { work.call(|work| work.slow()).await });
        until(|| zero.worker.begun() + one.worker.begun() == n).await;
    }
    let leaving = tokio::spawn(zero._server.close(Duration::from_secs(60)));
    // it is on its way, and comes before a ping would tell
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shares(&work, 20).await, [0, 20]);
    zero.worker.may.add_permits(1);
    one.worker.may.add_permits(1);
    let answers = calls.join_all().await;
    let mut answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    answers.sort_unstable();
    assert_eq!(answers, [0, 1]);
    leaving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn why_no_peer_is_left_is_told() {
    let options = Options::new().authenticate(|_shown| async {
        Err::<(), _>(hbi::Error::refusal("this token is nobody's: ask for one"))
    });
    let factory = |_peer| async { Ok(HostingEnv::new()) };
    let address = "mem://balance-refused";
    let _server = options.serve(address, factory).await.unwrap();
    let client = Options::new().reconnect(address, Backoff::default(), HostingEnv::new);
    let work = Balanced::<WorkStub>::over([Member::reconnect(client.unwrap())]);
    let error = work.call(|work| work.who()).await.unwrap_err();
    assert!(error.message().contains("no peer left"), "{error}");
    assert!(error.message().contains("ask for one"), "{error}");
}

/// What is discovered as it is sent.
fn discovered<E>(
    mut changes: mpsc::UnboundedReceiver<Result<Change<&'static str, Member>, E>>,
) -> impl Stream<Item = Result<Change<&'static str, Member>, E>> + Unpin {
    poll_fn(move |cx| changes.poll_recv(cx))
}

#[tokio::test(start_paused = true)]
async fn peers_come_and_go_as_they_are_discovered() {
    let (tell, changes) = mpsc::unbounded_channel::<Result<_, Infallible>>();
    let work = Balanced::<WorkStub>::new(discovered(changes));
    let (zero, member_zero) = join(0).await;
    let (_one, member_one) = join(1).await;
    // those that wait are all served once there is a peer
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let work = work.clone();
        waiting.spawn(async move { work.call(|work| work.who()).await.unwrap() });
    }
    tokio::task::yield_now().await;
    tell.send(Ok(Change::Insert("zero", member_zero))).unwrap();
    assert_eq!(waiting.join_all().await, [0, 0, 0]);

    tell.send(Ok(Change::Insert("one", member_one))).unwrap();
    let both = shares(&work, 50).await;
    assert!(both[0] > 5 && both[1] > 5, "{both:?}");

    tell.send(Ok(Change::Remove("zero"))).unwrap();
    assert_eq!(shares(&work, 20).await, [0, 20]);
    // and is said goodbye to
    zero._server.wait_closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_to_discover_is_told() {
    let (tell, changes) = mpsc::unbounded_channel();
    let work = Balanced::<WorkStub>::new(discovered(changes));
    tell.send(Err("the registry is on fire")).unwrap();
    let error = work.call(|work| work.who()).await.unwrap_err();
    assert!(error.message().contains("on fire"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_one_connection_is_refused() {
    let (zero, member) = join(0).await;
    let work = Balanced::<WorkStub>::over([member]);
    // where a signature shows it, it does not compile; a field does not show
    let parcel = || Parcel {
        items: Items::iter([1, 2, 3]),
    };
    let streams = work.call(|work| work.weigh(parcel())).await;
    let error = streams.unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse, "{error}");
    assert!(!error.was_sent());

    let streamed = work.call(|work| work.pack(3)).await;
    assert_eq!(streamed.err().map(|error| error.kind()), Some(Kind::Misuse));

    // nor does a call in the midst of a composition
    let items = Items::iter([1, 2, 3]);
    let inner = work.call(|work| work.add(work.sum(items), 1_usize)).await;
    assert_eq!(inner.err().map(|error| error.kind()), Some(Kind::Misuse));

    // a composition stands by itself as its calls do
    let sum = work.call(|work| work.add(work.add(1, 2), work.add(3, 4)));
    assert_eq!(sum.await.unwrap(), 10);

    let (_other, _member) = join(1).await;
    let pair = pair(zero.worker.env(), HostingEnv::new()).await.unwrap();
    let stub = WorkStub::new(&pair.client);
    let error = work.call(|_work| stub.who()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse, "{error}");
    assert_eq!(zero.worker.begun(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_connects_again_gets_calls_again() {
    let addresses = ["mem://balance-0", "mem://balance-1"];
    let members = addresses.map(|address| {
        let options = Options::new();
        let client = options.reconnect(address, Backoff::default(), HostingEnv::new);
        Member::reconnect(client.unwrap())
    });
    let work = Balanced::<WorkStub>::over(members);
    let serve = async |n: usize| {
        let worker = Worker::new(n);
        hbi::serve(addresses[n], move |_peer| {
            let env = worker.env();
            async { Ok(env) }
        })
        .await
        .unwrap()
    };
    let first = work.call(|work| work.who());
    let (zero, first) = tokio::join!(serve(0), first);
    assert_eq!(first.unwrap(), 0);
    let one = serve(1).await;
    sleep(Duration::from_secs(60)).await;
    let both = shares(&work, 50).await;
    assert!(both[0] > 5 && both[1] > 5, "{both:?}");

    zero.shutdown(Duration::ZERO).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shares(&work, 20).await, [0, 20]);
    let _zero = serve(0).await;
    sleep(Duration::from_secs(60)).await;
    let both = shares(&work, 50).await;
    assert!(both[0] > 5 && both[1] > 5, "{both:?}");
    drop(one);
}
