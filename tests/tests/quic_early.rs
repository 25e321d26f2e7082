//! Calls in the first flight of a QUIC connection (0-RTT): which go there, and what becomes of them where
//! the server does not take them, or somebody sends them again.

use std::{
    collections::HashMap,
    future::IntoFuture,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::poll;
use hbi::{
    Backoff, Connection, Error, Fingerprint, HostingEnv, Kind, Options, Scheme, Server, Settings,
    tls::{ClientTls, ServerTls},
};
use hbi_tests::pair::Transport;
use tokio::{net::UdpSocket, sync::watch, task::JoinSet};

#[hbi::service]
trait Store {
    /// Safe to run twice.
    #[hbi(idempotent)]
    async fn get(&self, n: u64) -> u64;
    /// Safe to run twice, and as large as it likes.
    #[hbi(idempotent)]
    async fn size(&self, data: Vec<u8>) -> u64;
    /// Gives so many bytes.
    async fn fill(&self, bytes: u64) -> Vec<u8>;
    /// Not known to be.
    async fn put(&self, n: u64) -> u64;
    #[hbi(notify, idempotent)]
    async fn note(&self, n: u64);
}

/// What landed, in order.
#[derive(Clone)]
struct Landed(watch::Sender<Vec<String>>);

impl Landed {
    fn new() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }

    fn push(&self, what: String) {
        self.0.send_modify(|list| list.push(what));
    }

    fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    async fn until(&self, what: &str) {
        let mut list = self.0.subscribe();
        let there = list.wait_for(|list| list.iter().any(|one| one == what));
        there.await.unwrap();
    }
}

struct Kept(Landed);

impl Store for Kept {
    async fn get(&self, n: u64) -> u64 {
        self.0.push(format!("get {n}"));
        n
    }

    async fn size(&self, data: Vec<u8>) -> u64 {
        self.0.push(format!("size {}", data.len()));
        data.len() as u64
    }

    async fn fill(&self, bytes: u64) -> Vec<u8> {
        vec![7; bytes as usize]
    }

    async fn put(&self, n: u64) -> u64 {
        self.0.push(format!("put {n}"));
        n
    }

    async fn note(&self, n: u64) {
        self.0.push(format!("note {n}"));
    }
}

/// A way between clients and a server that can be closed in each direction, and remembers what clients
/// sent.
struct Relay {
    address: SocketAddr,
    way: Arc<Way>,
    _tasks: JoinSet<()>,
}

struct Way {
    server: Mutex<SocketAddr>,
    /// What clients send is not passed on.
    silent: AtomicBool,
    /// Clients come from another address of this machine.
    moved: AtomicBool,
    /// What the server sends is passed on.
    back: watch::Sender<bool>,
    /// What clients sent before their handshakes were over.
    sent: Mutex<Vec<Vec<u8>>>,
}

/// Set in the first byte of packets that belong to a handshake, or come before its end.
const LONG: u8 = 0x80;

impl Relay {
    async fn start(server: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = near.local_addr().unwrap();
        let way = Arc::new(Way {
            server: Mutex::new(server),
            silent: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            back: watch::Sender::new(true),
            sent: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let passing = Arc::clone(&way);
        tasks.spawn(async move {
            let mut clients = HashMap::new();
            let mut answers = JoinSet::new();
            let mut packet = vec![0; 1 << 16];
            loop {
                // a client that is gone refuses packets
                let Ok((len, from)) = near.recv_from(&mut packet).await else {
                    continue;
                };
                if packet[0] & LONG != 0 {
                    passing.sent.lock().unwrap().push(packet[..len].to_vec());
                }
                let far = match clients.get(&from) {
                    Some(far) => Arc::clone(far),
                    None => {
                        let own = match passing.moved.load(Ordering::SeqCst) {
                            true => "127.0.0.2:0",
                            false => "127.0.0.1:0",
                        };
                        let far = Arc::new(UdpSocket::bind(own).await.unwrap());
                        let way = Arc::clone(&passing);
                        answers.spawn(way.answer(Arc::clone(&far), Arc::clone(&near), from));
                        clients.insert(from, Arc::clone(&far));
                        far
                    }
                };
                let server = *passing.server.lock().unwrap();
                if !passing.silent.load(Ordering::SeqCst) {
                    let _ = far.send_to(&packet[..len], server).await;
                }
            }
        });
        Self {
            address,
            way,
            _tasks: tasks,
        }
    }

    /// Nothing that the server sends arrives from now on, until it is released.
    fn hold(&self) {
        self.way.back.send_replace(false);
    }

    fn release(&self) {
        self.way.back.send_replace(true);
    }

    /// Nothing that clients send arrives; what they have sent before is forgotten.
    fn silence(&self) {
        self.way.silent.store(true, Ordering::SeqCst);
        self.way.sent.lock().unwrap().clear();
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        self.way.sent.lock().unwrap().clone()
    }

    fn lead_to(&self, server: &Server) {
        *self.way.server.lock().unwrap() = place(server).0;
    }
}

impl Way {
    async fn answer(self: Arc<Self>, far: Arc<UdpSocket>, near: Arc<UdpSocket>, to: SocketAddr) {
        let mut packet = vec![0; 1 << 16];
        let mut open = self.back.subscribe();
        loop {
            if let Ok(len) = far.recv(&mut packet).await {
                open.wait_for(|open| *open).await.unwrap();
                let _ = near.send_to(&packet[..len], to).await;
            }
        }
    }
}

fn place(server: &Server) -> (SocketAddr, Fingerprint) {
    let Scheme::Quic(at) = server.address().scheme() else {
        panic!("{}", server.address());
    };
    (at.host.parse().unwrap(), at.pin.unwrap())
}

async fn serve(options: Options, landed: &Landed) -> Server {
    let landed = landed.clone();
    let server = options.serve("quic://127.0.0.1:0", move |_peer| {
        let store = StoreHost::new(Kept(landed.clone()));
        async move { Ok(HostingEnv::new().service(store)) }
    });
    server.await.unwrap()
}

fn serving() -> Options {
    // all of them show one certificate
    Transport::Quic.serving(Options::new()).zero_rtt(true)
}

/// A server, and the way to it.
struct Far {
    server: Server,
    relay: Relay,
    landed: Landed,
    address: String,
}

impl Far {
    async fn new(options: Options) -> Self {
        let landed = Landed::new();
        let server = serve(options, &landed).await;
        let (at, pin) = place(&server);
        let relay = Relay::start(at).await;
        Self {
            address: format!("quic://{}#sha256={pin}", relay.address),
            server,
            relay,
            landed,
        }
    }

    async fn connect(&self, options: &Options) -> hbi::Result<Connection> {
        options.connect(&self.address, HostingEnv::new()).await
    }

    /// A client that was connected before.
    async fn known(&self) -> Options {
        let options = Options::new().zero_rtt(true);
        self.meet(&options).await;
        options
    }

    async fn meet(&self, options: &Options) {
        let peer = self.connect(options).await.unwrap();
        assert_eq!(StoreStub::new(&peer).get(0).await.unwrap(), 0);
        peer.close(Duration::from_secs(10)).await.unwrap();
        self.nobody().await;
    }

    async fn nobody(&self) {
        while self.server.connections() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Whether a connection waits for the server.
    async fn waits(&self, options: Options) -> bool {
        self.relay.hold();
        let options = options.handshake(Duration::from_millis(300));
        let connected = self.connect(&options).await;
        self.relay.release();
        connected.is_err()
    }
}

/// Polls a call once, which sends it where it may go.
macro_rules! begun {
    ($call:expr) => {{
        let mut call = Box::pin($call.into_future());
        assert!(poll!(&mut call).is_pending());
        call
    }};
}

#[tokio::test]
async fn calls_that_may_run_twice_land_in_the_first_flight_and_nothing_else_does() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    // from here on the client hears nothing of the server
    far.relay.hold();
    let peer = far.connect(&options).await.unwrap();
    let store = StoreStub::new(&peer);
    let put = begun!(store.put(1));
    let both = begun!(store.get(store.put(1)));
    let note = begun!(store.note(1));
    let script = begun!(peer.script::<u64>("store::get(7)"));
    let mut co = peer.po().co().await.unwrap();
    let mut raw = Box::pin(co.send_code("store::put(9)"));
    assert!(poll!(&mut raw).is_pending());
    let get = begun!(store.get(2));
    let nested = begun!(store.get(store.get(3)));
    far.landed.until("get 2").await;
    while far.landed.all().len() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(far.landed.all(), ["get 0", "get 2", "get 3", "get 3"]);
    far.relay.release();
    assert_eq!((get.await.unwrap(), nested.await.unwrap()), (2, 3));
    assert_eq!((put.await.unwrap(), both.await.unwrap()), (1, 1));
    note.await.unwrap();
    raw.await.unwrap();
    assert_eq!(script.await.unwrap(), 7);
    assert_eq!(store.get(8).await.unwrap(), 8);
    let landed = far.landed.all();
    for what in ["put 1", "get 1", "note 1", "get 7", "put 9"] {
        assert!(landed.iter().any(|one| one == what), "{what}: {landed:?}");
    }
}

#[tokio::test]
async fn connections_wait_for_the_server_where_one_of_the_two_does_not_want_it() {
    let plain = Transport::Quic.serving(Options::new());
    for (server, client, waits) in [
        (serving(), Options::new().zero_rtt(true), false),
        (serving(), Options::new(), true),
        (
            serving(),
            Options::new().zero_rtt(true).zero_rtt(false),
            true,
        ),
        (plain.clone(), Options::new().zero_rtt(true), true),
        (plain, Options::new(), true),
    ] {
        let far = Far::new(server).await;
        far.meet(&client).await;
        assert_eq!(far.waits(client).await, waits);
    }
}

#[tokio::test]
async fn a_server_that_was_started_anew_answers_what_went_in_the_first_flight() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    let landed = Landed::new();
    let anew = serve(serving(), &landed).await;
    far.relay.lead_to(&anew);
    far.relay.hold();
    let peer = far.connect(&options).await.unwrap();
    let store = StoreStub::new(&peer);
    let put = begun!(store.put(1));
    let first = begun!(store.get(1));
    let dropped = begun!(store.get(2));
    let late = begun!(store.get(3).within(Duration::from_millis(1)));
    let last = begun!(store.get(store.get(4)));
    drop(dropped);
    assert!(late.await.unwrap_err().is_timeout());
    far.relay.release();
    assert_eq!((first.await.unwrap(), last.await.unwrap()), (1, 4));
    assert_eq!(put.await.unwrap(), 1);
    // whatever was opened before has landed, or never will
    assert_eq!(store.put(5).await.unwrap(), 5);
    assert_eq!(landed.all(), ["get 1", "get 4", "get 4", "put 1", "put 5"]);
    assert_eq!(far.landed.all(), ["get 0"]);
    peer.close(Duration::from_secs(10)).await.unwrap();

    // what was learnt of the new one counts
    far.relay.hold();
    let peer = far.connect(&options).await.unwrap();
    let get = begun!(StoreStub::new(&peer).get(6));
    landed.until("get 6").await;
    far.relay.release();
    assert_eq!(get.await.unwrap(), 6);
}

#[tokio::test]
async fn of_the_first_flight_a_server_gets_nothing_that_it_does_not_take_any_more() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    let landed = Landed::new();
    let mut settings = Settings::default();
    settings.frame = 16 << 10;
    settings.message = 16 << 10;
    settings.conversations = 2;
    let anew = serve(serving().settings(settings), &landed).await;
    far.relay.lead_to(&anew);
    far.relay.hold();
    let peer = far.connect(&options).await.unwrap();
    let store = StoreStub::new(&peer);
    let large = begun!(store.size(vec![1; 20 << 10]));
    let small: Vec<_> = (0..8).map(|_| store.size(vec![1; 1 << 9]).send()).collect();
    far.relay.release();
    let error = large.await.unwrap_err();
    assert!(
        error.kind() == Kind::Limit && error.to_string().contains("16384"),
        "{error}"
    );
    for small in small {
        assert_eq!(small.await.unwrap(), 512);
    }
    assert_eq!(store.put(1).await.unwrap(), 1);
    assert_eq!(landed.all().len(), 9);
    peer.close(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_refused_before_it_leaves_takes_nothing_of_the_first_flight() {
    let mut settings = Settings::default();
    settings.frame = 32 << 10;
    settings.message = 32 << 10;
    let far = Far::new(serving().settings(settings)).await;
    let options = far.known().await;
    far.relay.hold();
    let peer = far.connect(&options).await.unwrap();
    let store = StoreStub::new(&peer);
    let before = begun!(store.get(1));
    let error = store.size(vec![1; 40 << 10]).await.unwrap_err();
    assert!(
        error.kind() == Kind::Limit && error.to_string().contains("Settings::message"),
        "{error}"
    );
    let behind = begun!(store.get(2));
    let landed = tokio::time::timeout(Duration::from_secs(20), far.landed.until("get 2"));
    landed.await.expect("the connection goes on");
    far.relay.release();
    assert_eq!((before.await.unwrap(), behind.await.unwrap()), (1, 2));
    assert_eq!(store.put(3).await.unwrap(), 3);
    peer.close(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn more_than_the_first_flight_takes_comes_whole_each_way() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    for anew in [false, true] {
        let landed = Landed::new();
        let other = serve(serving(), &landed).await;
        if anew {
            far.relay.lead_to(&other);
        }
        far.relay.hold();
        let peer = far.connect(&options).await.unwrap();
        let store = StoreStub::new(&peer);
        let many: Vec<_> = (0..100)
            .map(|_| store.size(vec![1; 10_000]).into_future())
            .collect();
        let mut all = Box::pin(futures_util::future::try_join_all(many));
        assert!(poll!(&mut all).is_pending());
        far.relay.release();
        assert!(all.await.unwrap().iter().all(|size| *size == 10_000));
        assert_eq!(store.fill(1 << 20).await.unwrap().len(), 1 << 20);
        peer.close(Duration::from_secs(10)).await.unwrap();
        assert_eq!(landed.all().len(), if anew { 100 } else { 0 });
        if anew {
            far.relay.lead_to(&far.server);
        }
    }
}

/// The answer of the server comes at any moment of what callers on other threads do.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_call_lands_once_and_is_answered_whenever_the_handshake_ends() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    let others = [Landed::new(), Landed::new()];
    let servers = [
        serve(serving(), &others[0]).await,
        serve(serving(), &others[1]).await,
    ];
    let mut calls = 0;
    for round in 0..60 {
        // two times in three it is another server than the last time
        far.relay.lead_to(&servers[usize::from(round % 3 == 0)]);
        let peer = far.connect(&options).await.unwrap();
        let mut callers = JoinSet::new();
        for n in 0..16 {
            let store = StoreStub::new(&peer);
            callers.spawn(async move {
                for n in n * 10..n * 10 + 4 {
                    assert_eq!(store.get(n).await.unwrap(), n);
                }
                store.put(n).await.unwrap();
            });
        }
        while let Some(called) = callers.join_next().await {
            called.unwrap();
        }
        calls += 16 * 5;
        peer.close(Duration::from_secs(10)).await.unwrap();
    }
    let landed: usize = others.iter().map(|landed| landed.all().len()).sum();
    assert_eq!(landed, calls);
}

#[tokio::test]
async fn a_first_flight_that_is_sent_again_lands_nothing() {
    let mut settings = Settings::default();
    settings.idle_timeout = Duration::from_millis(500);
    let far = Far::new(serving().settings(settings)).await;
    let options = far.known().await;
    // somebody keeps the first flight back
    far.relay.silence();
    let peer = far.connect(&options).await.unwrap();
    let call = begun!(StoreStub::new(&peer).get(1));
    let thief = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = place(&far.server).0;
    let again = async |flight: &[Vec<u8>], socket: &UdpSocket| {
        for packet in flight {
            socket.send_to(packet, server).await.unwrap();
        }
    };
    // the first that comes is the first: it is the client's own call, whoever carries it
    let mut flight = Vec::new();
    while far.landed.all().len() < 2 {
        flight = far.relay.sent();
        again(&flight, &thief).await;
        tokio::task::yield_now().await;
    }
    drop((call, peer));
    far.nobody().await;
    assert_eq!(far.landed.all(), ["get 0", "get 1"]);
    // once more, to a server that knows nothing of the connection any more: it answers as it answers
    // whoever comes, and reads nothing of it
    let thief = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    again(&flight, &thief).await;
    let mut packet = [0; 2048];
    thief.recv(&mut packet).await.unwrap();
    assert_ne!(packet[0] & LONG, 0);
    let direct = far.server.address().to_string();
    let peer = hbi::connect(direct, HostingEnv::new()).await.unwrap();
    assert_eq!(StoreStub::new(&peer).get(2).await.unwrap(), 2);
    assert_eq!(far.landed.all(), ["get 0", "get 1", "get 2"]);
    assert_eq!(far.server.connections(), 1);
}

/// Loopback has more than one address there.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_first_flight_from_an_address_that_was_not_shown_waits_for_the_handshake() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    far.relay.silence();
    let peer = far.connect(&options).await.unwrap();
    let _call = begun!(StoreStub::new(&peer).get(1));
    while far.relay.sent().len() < 2 {
        tokio::task::yield_now().await;
    }
    let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    for packet in far.relay.sent() {
        elsewhere
            .send_to(&packet, place(&far.server).0)
            .await
            .unwrap();
    }
    let mut packet = [0; 2048];
    elsewhere.recv(&mut packet).await.unwrap();
    let direct = far.server.address().to_string();
    let other = hbi::connect(direct, HostingEnv::new()).await.unwrap();
    assert_eq!(StoreStub::new(&other).get(2).await.unwrap(), 2);
    assert_eq!(far.landed.all(), ["get 0", "get 2"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_has_moved_is_answered_all_the_same() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    far.relay.way.moved.store(true, Ordering::SeqCst);
    let peer = far.connect(&options).await.unwrap();
    let store = StoreStub::new(&peer);
    assert_eq!(store.get(1).await.unwrap(), 1);
    assert_eq!(store.put(2).await.unwrap(), 2);
    assert_eq!(far.landed.all(), ["get 0", "get 1", "put 2"]);
}

#[tokio::test]
async fn what_one_trust_has_let_in_is_not_resumed_under_another() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    let pin = place(&far.server).1;
    // the pin in the address comes first
    let address = far.address.split('#').next().unwrap().to_owned();
    let wrong = format!("{address}#sha256={}", "0".repeat(64));
    let error = options.connect(wrong, HostingEnv::new()).await.unwrap_err();
    assert!(
        error.is_refused() && error.to_string().contains("pin"),
        "{error}"
    );
    // neither is it for options that trust otherwise, though they trust the same in the end
    let other = options.clone().client_tls(ClientTls::new().pin(pin));
    assert!(far.waits(other).await);
    // nothing was lost by all that
    assert!(!far.waits(options).await);
}

#[tokio::test]
async fn the_certificate_is_shown_again_after_a_day() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    let day = Duration::from_secs(24 * 60 * 60);
    for (time, waits) in [(day / 2, false), (day / 2, true), (day / 2, false)] {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
        assert_eq!(far.waits(options.clone()).await, waits);
        far.nobody().await;
        // each connection is given another session
        far.meet(&options).await;
    }
}

#[tokio::test]
async fn a_server_with_another_certificate_gets_nothing() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    let file = format!("hbi-early-{}.pem", std::process::id());
    let file = std::env::temp_dir().join(file);
    let tls = ServerTls::self_signed(&file, &["localhost"]).unwrap();
    let landed = Landed::new();
    let other = Options::new().server_tls(tls).zero_rtt(true);
    let other = serve(other, &landed).await;
    std::fs::remove_file(file).unwrap();
    far.relay.lead_to(&other);
    let peer = far.connect(&options).await.unwrap();
    let store = StoreStub::new(&peer);
    let (get, put) = tokio::join!(store.get(1), store.put(1));
    for error in [get.unwrap_err(), put.unwrap_err()] {
        assert!(
            error.is_refused() && error.to_string().contains("pin"),
            "{error}"
        );
    }
    // from then on it is the connection that fails
    assert!(far.connect(&options).await.unwrap_err().is_refused());
    assert_eq!(landed.all(), [] as [String; 0]);
}

#[tokio::test]
async fn a_server_that_is_gone_shows_in_the_calls_and_then_in_the_connection() {
    let far = Far::new(serving()).await;
    let options = far.known().await.handshake(Duration::from_millis(300));
    far.relay.silence();
    let peer = far.connect(&options).await.unwrap();
    let store = StoreStub::new(&peer);
    let (get, put) = tokio::join!(store.get(1), store.put(1));
    let (get, put) = (get.unwrap_err(), put.unwrap_err());
    assert!(get.is_disconnected() && get.was_sent(), "{get}");
    assert!(put.is_disconnected() && !put.was_sent(), "{put}");
    assert!(get.to_string().contains("300ms"), "{get}");
    let error = far.connect(&options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Address, "{error}");
}

#[tokio::test]
async fn a_refused_token_is_told_and_lands_nothing() {
    let checked = serving().authenticate(|shown| async move {
        match shown.token_is(b"good") {
            true => Ok(()),
            false => Err(Error::refusal("not this token")),
        }
    });
    let far = Far::new(checked).await;
    let options = Options::new().zero_rtt(true).token(&b"good"[..]);
    far.meet(&options).await;
    // what is remembered of a server lets nobody in
    let bad = options.clone().token(&b"bad"[..]);
    let peer = far.connect(&bad).await.unwrap();
    let error = StoreStub::new(&peer).get(1).await.unwrap_err();
    assert!(
        error.is_refused() && error.to_string().contains("not this token"),
        "{error}"
    );
    far.meet(&options).await;
    assert_eq!(far.landed.all(), ["get 0", "get 0"]);
}

#[tokio::test]
async fn a_client_that_reconnects_sends_in_the_first_flight() {
    let far = Far::new(serving()).await;
    let options = far.known().await;
    let backoff = Backoff {
        first: Duration::from_secs(1),
        most: Duration::from_secs(1),
    };
    far.relay.hold();
    let client = options
        .reconnect(&far.address, backoff, HostingEnv::new)
        .unwrap();
    let get = |n| client.call(move |peer| StoreStub::new(peer).get(n));
    let landed = async {
        far.landed.until("get 1").await;
        far.relay.release();
    };
    assert_eq!(tokio::join!(get(1), landed).0.unwrap(), 1);
    let before = client.peer().await.unwrap();
    far.server.shutdown(Duration::from_secs(10)).await;
    before.wait_closed().await;
    // another comes to its place while the client waits
    let landed = Landed::new();
    let anew = serve(serving(), &landed).await;
    far.relay.lead_to(&anew);
    assert_eq!(get(2).await.unwrap(), 2);
    assert_eq!(landed.all(), ["get 2"]);
    client.close(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn certificates_of_clients_and_the_first_flight_exclude_each_other() {
    let file = format!("hbi-early-client-{}.pem", std::process::id());
    let file = std::env::temp_dir().join(file);
    let tls = ServerTls::self_signed(&file, &["localhost"]).unwrap();
    let asking = tls.clone().ask_clients(&file).unwrap();
    let options = Options::new().server_tls(asking).zero_rtt(true);
    let factory = |_peer| async { Ok(HostingEnv::new()) };
    let error = options
        .serve("quic://127.0.0.1:0", factory)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse, "{error}");
    assert!(error.to_string().contains("zero_rtt"), "{error}");
    let showing = ClientTls::new().certificate(&file, &file).unwrap();
    std::fs::remove_file(file).unwrap();
    let options = Options::new().client_tls(showing).zero_rtt(true);
    let error = options
        .connect("quic://127.0.0.1:1", HostingEnv::new())
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse, "{error}");
    assert!(error.to_string().contains("zero_rtt"), "{error}");
}
