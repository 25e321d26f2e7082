//! A client that connects again: when it does, what the application is told, and what becomes of
//! calls.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hbi::{
    Backoff, Error, HostingEnv, Kind, Options, Reconnect, ReconnectState as State, Server, Settings,
};
use hbi_tests::pair::Transport;
use tokio::sync::watch;

/// Methods that wait while they are told to.
#[hbi::service]
trait Store {
    /// Safe to run twice.
    #[hbi(idempotent)]
    async fn get(&self, n: u64) -> u64;
    /// Not known to be.
    async fn put(&self, n: u64) -> u64;
}

#[derive(Clone)]
struct MyStore(Arc<Shared>);

struct Shared {
    /// Methods wait for ever.
    waits: AtomicBool,
    /// Calls that have begun.
    calls: watch::Sender<usize>,
}

impl MyStore {
    fn new(waits: bool) -> Self {
        let (waits, calls) = (AtomicBool::new(waits), watch::channel(0).0);
        Self(Arc::new(Shared { waits, calls }))
    }

    async fn call(&self, n: u64) -> u64 {
        self.0.calls.send_modify(|calls| *calls += 1);
        if self.0.waits.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        n
    }

    fn answers(&self) {
        self.0.waits.store(false, SeqCst);
    }

    /// Waits until so many calls have begun.
    async fn began(&self, calls: usize) {
        let mut seen = self.0.calls.subscribe();
        seen.wait_for(|seen| *seen >= calls).await.unwrap();
    }

    fn calls(&self) -> usize {
        *self.0.calls.borrow()
    }

    /// Serves the store; the name becomes free soon after a server before it is gone.
    async fn serve(&self, address: &str) -> Server {
        self.serve_with(&Options::new(), address).await
    }

    async fn serve_with(&self, options: &Options, address: &str) -> Server {
        loop {
            let store = self.clone();
            let served = options.serve(address, move |_peer| {
                let store = store.clone();
                async { Ok(HostingEnv::new().service(StoreHost::new(store))) }
            });
            match served.await {
                Ok(server) => return server,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

impl Store for MyStore {
    async fn get(&self, n: u64) -> u64 {
        self.call(n).await
    }

    async fn put(&self, n: u64) -> u64 {
        self.call(n).await
    }
}

/// An end without any time for what is under way.
async fn break_off(server: Server) {
    server.shutdown(Duration::ZERO).await;
}

fn client(address: &str) -> Reconnect {
    let options = Options::new();
    let backoff = Backoff::default();
    options
        .reconnect(address, backoff, HostingEnv::new)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn waits_double_up_to_the_longest_and_are_jittered() {
    let backoff = Backoff {
        first: Duration::from_millis(100),
        most: Duration::from_millis(700),
    };
    let wholes = [100, 200, 400, 700, 700].map(Duration::from_millis);
    let mut all = Vec::new();
    for _ in 0..10 {
        let client = Options::new()
            .reconnect("mem://reconnect-nobody", backoff, HostingEnv::new)
            .unwrap();
        let mut state = client.state();
        let mut until = None;
        for (n, whole) in wholes.into_iter().enumerate() {
            let waits = |state: &State| matches!(state, State::Waiting { attempts, .. } if *attempts as usize == n + 1);
            let waiting = state.wait_for(waits).await.unwrap().clone();
            let State::Waiting { time, reason, .. } = waiting else {
                unreachable!()
            };
            assert!(time >= whole / 2 && time <= whole, "{time:?} of {whole:?}");
            assert_eq!(reason.kind(), Kind::Address, "{reason}");
            all.push(time.as_secs_f64() / whole.as_secs_f64());
            // the clock's steps are milliseconds
            let now = tokio::time::Instant::now();
            let late = until.map_or(Duration::ZERO, |until| now - until);
            assert!(late <= Duration::from_millis(2), "{late:?} late");
            until = Some(now + time);
        }
    }
    // among fifty that were left to chance some are short and some long
    assert!(all.iter().any(|part| *part < 0.7), "{all:?}");
    assert!(all.iter().any(|part| *part > 0.8), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn each_connection_has_an_environment_of_its_own_and_greets_again() {
    let address = "mem://reconnect-env";
    let made = Arc::new(AtomicUsize::new(0));
    let greeted = Arc::new(Mutex::new(Vec::new()));
    let client = {
        let (made, greeted) = (Arc::clone(&made), Arc::clone(&greeted));
        let env = move || {
            let n = made.fetch_add(1, SeqCst) + 1;
            let greeted = Arc::clone(&greeted);
            HostingEnv::new()
                .value("generation", &n)
                .on_connect(move |po| async move {
                    let told: u64 = po.script("hello(n)").bind("n", n).await.unwrap();
                    greeted.lock().unwrap().push(told);
                })
        };
        let options = Options::new();
        options.reconnect(address, Backoff::default(), env).unwrap()
    };
    let mut generations = Vec::new();
    for _ in 0..2 {
        let (peers, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        let server = loop {
            let peers = peers.clone();
            let served = hbi::serve(address, move |peer| {
                let _ = peers.send(peer);
                async { Ok(HostingEnv::new().function("hello", |n: u64| n)) }
            });
            match served.await {
                Ok(server) => break server,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        // what the server finds is that of this connection
        let peer = arrived.recv().await.unwrap();
        client.peer().await.unwrap();
        let n: u64 = peer.script("generation").await.unwrap();
        generations.push(n);
        // `on_connect` has come to its end once it was answered
        while greeted.lock().unwrap().len() < generations.len() {
            tokio::task::yield_now().await;
        }
        break_off(server).await;
    }
    assert!(generations[0] < generations[1], "{generations:?}");
    assert_eq!(*greeted.lock().unwrap(), generations);
}

#[tokio::test(start_paused = true)]
async fn the_state_tells_of_the_end_and_of_the_next_connection() {
    let address = "mem://reconnect-state";
    let store = MyStore::new(false);
    let server = store.serve(address).await;
    let client = client(address);
    let mut state = client.state();
    let connected = |state: &State| matches!(state, State::Connected(_));
    state.wait_for(connected).await.unwrap();
    let first = client.peer().await.unwrap();

    break_off(server).await;
    let waiting = state
        .wait_for(|state| matches!(state, State::Waiting { .. }))
        .await
        .unwrap()
        .clone();
    let State::Waiting {
        attempts, reason, ..
    } = waiting
    else {
        unreachable!()
    };
    assert_eq!(attempts, 0);
    assert!(reason.is_disconnected(), "{reason}");

    let _server = store.serve(address).await;
    state.wait_for(connected).await.unwrap();
    // whoever kept the first has nothing of the second
    let error = StoreStub::new(&first).get(1).await.unwrap_err();
    assert!(error.is_disconnected() && !error.was_sent(), "{error}");
    let second = client.peer().await.unwrap();
    assert_eq!(StoreStub::new(&second).get(1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pending_call_says_whether_it_was_sent() {
    let address = "mem://reconnect-sent";
    let store = MyStore::new(true);
    let mut settings = Settings::default();
    settings.conversations = 1;
    let options = Options::new().settings(settings);
    let server = store.serve_with(&options, address).await;
    let client = client(address);
    // the peer takes one at a time: one of them has no room
    let (one, other) = (
        client.call(|peer| StoreStub::new(peer).put(1)),
        client.call(|peer| StoreStub::new(peer).put(2)),
    );
    let broken = async {
        store.began(1).await;
        break_off(server).await;
    };
    let (one, other, ()) = tokio::join!(one, other, broken);
    let errors = [one.unwrap_err(), other.unwrap_err()];
    let mut sent = errors.each_ref().map(Error::was_sent);
    sent.sort();
    assert_eq!(sent, [false, true], "{errors:?}");
    assert_eq!(store.calls(), 1);
}

/// What a call answers whose first connection breaks, and how often its methods have begun.
async fn broken_once<F>(address: &str, begun: usize, make: F) -> (Result<u64, Error>, usize)
where
    F: Fn(&StoreStub) -> hbi::Call<u64>,
{
    let store = MyStore::new(true);
    let server = store.serve(address).await;
    let client = client(address);
    let call = client.call(|peer| make(&StoreStub::new(peer)));
    let broken = async {
        store.began(begun).await;
        break_off(server).await;
        store.answers();
        store.serve(address).await
    };
    let (answer, _server) = tokio::join!(call, broken);
    (answer, store.calls())
}

#[tokio::test(start_paused = true)]
async fn idempotent_calls_are_sent_again_and_no_others() {
    let (answer, calls) = broken_once("mem://reconnect-get", 1, |store| store.get(7)).await;
    assert_eq!((answer.unwrap(), calls), (7, 2));

    let (answer, calls) = broken_once("mem://reconnect-put", 1, |store| store.put(7)).await;
    let error = answer.unwrap_err();
    assert!(error.is_disconnected() && error.was_sent(), "{error:?}");
    assert_eq!(calls, 1);

    // a composition is, where all of its methods are
    let composed = |store: &StoreStub| store.get(store.get(7));
    let (answer, calls) = broken_once("mem://reconnect-gets", 1, composed).await;
    assert_eq!((answer.unwrap(), calls), (7, 3));

    let composed = |store: &StoreStub| store.get(store.put(7));
    let (answer, calls) = broken_once("mem://reconnect-mixed", 1, composed).await;
    assert!(answer.unwrap_err().was_sent());
    assert_eq!(calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_breaks_each_connection_is_given_up() {
    let address = "mem://reconnect-poison";
    let store = MyStore::new(true);
    let client = client(address);
    let call = client.call(|peer| StoreStub::new(peer).get(1));
    let broken = async {
        for n in 1..=3 {
            let server = store.serve(address).await;
            store.began(n).await;
            break_off(server).await;
        }
        store.serve(address).await
    };
    let (answer, _server) = tokio::join!(call, broken);
    let error = answer.unwrap_err();
    assert!(error.is_disconnected() && error.was_sent(), "{error:?}");
    assert_eq!(store.calls(), 3);
    // the client itself goes on
    store.answers();
    let two = client.call(|peer| StoreStub::new(peer).get(2)).await;
    assert_eq!(two.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_was_sent_if_any_attempt_was() {
    let made = AtomicUsize::new(0);
    let second_too_late = |store: &StoreStub| match made.fetch_add(1, SeqCst) {
        0 => store.get(7),
        _ => store.get(7).within(Duration::ZERO),
    };
    let (answer, calls) = broken_once("mem://reconnect-late", 1, second_too_late).await;
    let error = answer.unwrap_err();
    assert!(error.is_timeout() && error.was_sent(), "{error:?}");
    assert_eq!((calls, made.load(SeqCst)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_to_the_peer_it_is_made_of() {
    let address = "mem://reconnect-other";
    let store = MyStore::new(false);
    let _server = store.serve(address).await;
    let (client, other) = (client(address), client(address));
    let stub = StoreStub::new(&other.peer().await.unwrap());
    let error = client.call(|_peer| stub.get(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse, "{error}");
    assert_eq!(store.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_lets_what_is_under_way_end_and_fails_what_comes_later() {
    let address = "mem://reconnect-close";
    let store = MyStore::new(false);
    let server = store.serve(address).await;
    let client = client(address);
    let mut state = client.state();
    let peer = client.peer().await.unwrap();
    let call = StoreStub::new(&peer).put(3).send();
    client.close(Duration::from_secs(5)).await;
    assert_eq!(call.await.unwrap(), 3);
    let closed = state.wait_for(|state| matches!(state, State::Closed(_)));
    closed.await.unwrap();
    while server.connections() > 0 {
        tokio::task::yield_now().await;
    }

    // a client that is dropped while it has no connection closes, too
    drop(server);
    let client = self::client("mem://reconnect-close-nobody");
    let mut state = client.state();
    drop(client);
    let closed = state.wait_for(|state| matches!(state, State::Closed(_)));
    closed.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_would_fail_each_time_is_not_tried_again() {
    let address = "mem://reconnect-misuse";
    let store = MyStore::new(false);
    let _server = store.serve(address).await;
    let env = || HostingEnv::new().value("twice", &1).value("twice", &2);
    let options = Options::new();
    let client = options.reconnect(address, Backoff::default(), env).unwrap();
    let error = client.peer().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse, "{error}");
    let refused = options.reconnect("nowhere", Backoff::default(), HostingEnv::new);
    assert_eq!(refused.unwrap_err().kind(), Kind::Address);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_environment_is_told() {
    let address = "mem://reconnect-panic";
    let _server = MyStore::new(false).serve(address).await;
    let env = || -> HostingEnv { panic!("a test panics") };
    let client = Options::new().reconnect(address, Backoff::default(), env);
    let client = client.unwrap();
    let error = client.call(|peer| StoreStub::new(peer).get(1)).await;
    let error = error.unwrap_err();
    assert!(error.is_panic() && !error.was_sent(), "{error:?}");
    assert!(matches!(&*client.state().borrow(), State::Closed(error) if error.is_panic()));
}

/// A server whose check knows one token, and whose factory fails with this at first.
async fn serve_checked(address: &str, fails: fn() -> Error, times: usize) -> Server {
    let left = Arc::new(AtomicUsize::new(times));
    let options = Options::new().authenticate(|shown| async move {
        match shown.token_is(b"right") {
            true => Ok(()),
            false => Err(Error::refusal("this token is nobody's: ask for one")),
        }
    });
    let factory = move |_peer| {
        let fail = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        async move {
            match fail {
                Ok(_) => Err(fails()),
                Err(_) => Ok(HostingEnv::new().service(StoreHost::new(MyStore::new(false)))),
            }
        }
    };
    options.serve(address, factory).await.unwrap()
}

/// A client that shows a token.
fn showing(token: &'static [u8], address: &str) -> Reconnect {
    let options = Options::new().token(token);
    let client = options.reconnect(address, Backoff::default(), HostingEnv::new);
    client.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_it_and_is_told_to_calls() {
    let never = || Error::refusal("never");
    let _server = serve_checked("mem://reconnect-token", never, 0).await;
    let client = showing(b"wrong", "mem://reconnect-token");
    let began = tokio::time::Instant::now();
    let error = client.call(|peer| StoreStub::new(peer).get(1)).await;
    let error = error.unwrap_err();
    assert!(error.is_refused() && !error.was_sent(), "{error:?}");
    assert!(error.message().contains("ask for one"), "{error}");
    assert!(began.elapsed().is_zero(), "it was asked once");
    let mut state = client.state();
    let closed = state.wait_for(|state| matches!(state, State::Closed(_)));
    let State::Closed(error) = closed.await.unwrap().clone() else {
        unreachable!()
    };
    assert!(error.is_refused(), "{error:?}");

    let _server = serve_checked("mem://reconnect-unwanted", never, 1).await;
    let client = showing(b"right", "mem://reconnect-unwanted");
    let error = client.peer().await.unwrap_err();
    assert!(error.is_refused(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_does_not_end_it() {
    // the database behind the factory, say
    let away = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
    let _server = serve_checked("mem://reconnect-passing", away, 3).await;
    let client = showing(b"right", "mem://reconnect-passing");
    let seven = client.call(|peer| StoreStub::new(peer).get(7)).await;
    assert_eq!(seven.unwrap(), 7);
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_ends_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await.is_ok_and(|n| n > 0) {}
    });
    let error = client(&address).peer().await.unwrap_err();
    assert!(error.is_protocol(), "{error:?}");
    serving.await.unwrap();
}

/// A service before another one, to which its connection ended.
#[hbi::service]
trait Gate {
    #[hbi(idempotent)]
    async fn behind(&self, kind: Kind) -> hbi::Result<u64>;
}

struct MyGate;

impl Gate for MyGate {
    async fn behind(&self, kind: Kind) -> hbi::Result<u64> {
        Err(hbi::Failure::new(kind, "what another connection ended with").into())
    }
}

#[tokio::test]
async fn a_connection_that_is_gone_behind_the_peer_is_not_this_one() {
    for over in [Transport::Mem, Transport::Tcp, Transport::Quic] {
        let server = over
            .serving(Options::new())
            .serve(over.address(), |_peer| async {
                Ok(HostingEnv::new().service(GateHost::new(MyGate)))
            })
            .await
            .unwrap();
        let client = self::client(&server.address().to_string());
        for kind in [Kind::Disconnected, Kind::NotLanded] {
            // this connection stands: there is no other to wait for
            let behind = client.call(|peer| GateStub::new(peer).behind(kind));
            let error = behind.await.unwrap_err();
            assert!(error.is_remote() && error.was_sent(), "{error:?}");
            assert!(!error.is_disconnected() && !error.is_not_landed());
            assert_eq!(error.origin(), "gate::behind");
        }
        assert!(client.peer().await.unwrap().closed().is_none());
    }
}

/// A preface of the mux wire without any settings.
const PREFACE: &[u8] = b"\x89HBI\r\n\x01\x01\0\0";

#[tokio::test]
async fn whatever_a_peer_calls_its_end_the_connection_is_gone() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let kinds = [Kind::Refused, Kind::Limit, Kind::NotLanded, Kind::Panic];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("tcp://{}", listener.local_addr().unwrap()));
    let ending = async {
        for kind in kinds {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(PREFACE).await.unwrap();
            // the client's preface, and its call
            let mut read = Vec::new();
            while !read.ends_with(b"\x2a") {
                assert!(stream.read_buf(&mut read).await.unwrap() > 0);
            }
            let close = [3, 0, 0, 0x0e, 0, 0, 0, 0, kind.into(), b'n', b'o'];
            stream.write_all(&close).await.unwrap();
        }
    };
    let calls = async {
        for kind in kinds {
            let error = client.call(|peer| StoreStub::new(peer).put(42)).await;
            let error = error.unwrap_err();
            assert!(error.is_disconnected(), "{kind:?}: {error:?}");
            assert!(error.was_sent(), "{kind:?}: {error:?}");
        }
    };
    tokio::join!(ending, calls);
}

#[tokio::test]
async fn a_long_refusal_is_one() {
    for over in [
        Transport::Mem,
        Transport::Tcp,
        Transport::Tls,
        Transport::Quic,
    ] {
        let refuse = |_peer| async { Err(Error::refusal("not you! ".repeat(1000))) };
        let options = over.serving(Options::new());
        let server = options.serve(over.address(), refuse).await.unwrap();
        let error = client(&server.address().to_string()).peer().await;
        let error = error.unwrap_err();
        assert!(error.is_refused(), "{over:?}: {error:?}");
        assert!(error.message().contains("not you!"), "{over:?}: {error:?}");
    }
}
