//! What conversations on QUIC streams have to get right beside what every transport has: order, though
//! streams overtake each other; objects, though their release may; loss; and peers that do not follow
//! the rules.

use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hbi::{HostingEnv, Options, Scheme};
use hbi_tests::{
    lossy::{Loss, Relay},
    pair::Transport,
    work::{
        ConsumerHost, CounterHost, CounterStub, MyConsumer, MyCounter, MyWork, Seen, WorkHost,
        WorkStub,
    },
};
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc},
};

/// A server, and a consumer connected to it over a way that loses packets.
struct Far {
    _server: hbi::Server,
    relay: Relay,
    peer: hbi::Connection,
    work: WorkStub,
    seen: Arc<Seen>,
}

async fn far(permille: u64, delay: Duration) -> Far {
    far_with(Options::new(), permille, delay).await
}

async fn far_with(options: Options, permille: u64, delay: Duration) -> Far {
    let seen = Arc::new(Seen::default());
    let kept = Arc::clone(&seen);
    let server = Transport::Quic.serving(options);
    let server = server.serve("quic://127.0.0.1:0", move |peer| {
        let (seen, po) = (Arc::clone(&kept), peer.po());
        async move { Ok(HostingEnv::new().service(WorkHost::new(MyWork { seen, po }))) }
    });
    let server = server.await.unwrap();
    let Scheme::Quic(at) = server.address().scheme() else {
        panic!("{}", server.address());
    };
    let (host, pin) = (at.host.parse::<SocketAddr>().unwrap(), at.pin.unwrap());
    let loss = Loss {
        permille,
        delay,
        seed: 0x5eed,
    };
    let relay = Relay::start(host, loss).await.unwrap();
    let (me, _events) = MyConsumer::new();
    let env = HostingEnv::new().service(ConsumerHost::new(me));
    let address = format!("quic://{}#sha256={pin}", relay.address());
    let peer = Options::new().connect(address, env).await.unwrap();
    Far {
        work: WorkStub::new(&peer),
        _server: server,
        relay,
        peer,
        seen,
    }
}

const SHORT: Duration = Duration::from_millis(2);

#[tokio::test]
async fn landings_begin_in_the_order_of_their_openings_whatever_gets_lost() {
    let far = far(50, SHORT).await;
    let expected: Vec<String> = (0..500).map(|n| format!("line {n}")).collect();
    for line in &expected {
        far.work.log(line.clone()).await.unwrap();
    }
    assert_eq!(far.work.lines().await.unwrap(), expected);
    assert!(far.relay.packets().0 > 0, "something was lost");
}

#[tokio::test]
async fn who_opens_too_many_streams_waits_and_loses_nothing() {
    let mut defences = hbi::Defences::default();
    defences.openings_per_second = 100;
    let far = far_with(Options::new().defences(defences), 0, Duration::ZERO).await;
    let began = std::time::Instant::now();
    let calls = (0..201).map(|n| far.work.add(n, 1).into_future());
    let answers = futures_util::future::try_join_all(calls).await.unwrap();
    assert_eq!(answers[200], 201);
    // those of the first second at once, those of each further one when it begins
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
}

/// What QUIC calls a packet that asks a client to show that its address is its own.
const RETRY: u8 = 0xf0;

/// Sends a client's first packet to a server, and nothing after it; what kind of packet is answered.
async fn half_a_handshake(trap: &UdpSocket, server: SocketAddr) -> (u8, UdpSocket) {
    let address = format!("quic://{}", trap.local_addr().unwrap());
    let connecting = tokio::spawn(hbi::connect(address, HostingEnv::new()));
    let mut packet = vec![0; 2048];
    let (len, _) = trap.recv_from(&mut packet).await.unwrap();
    connecting.abort();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&packet[..len], server).await.unwrap();
    socket.recv_from(&mut packet).await.unwrap();
    (packet[0] & 0xf0, socket)
}

#[tokio::test]
async fn addresses_have_to_be_shown_where_many_handshakes_are_under_way() {
    let server = Transport::Quic.serving(Options::new());
    let server = server.serve("quic://127.0.0.1:0", |_| async { Ok(HostingEnv::new()) });
    let server = server.await.unwrap();
    let Scheme::Quic(at) = server.address().scheme() else {
        panic!("{}", server.address());
    };
    let host: SocketAddr = at.host.parse().unwrap();
    let mut halves = Vec::new();
    for n in 0..70 {
        // of each a packet of its own: what is sent again comes to nobody
        let trap = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (answer, socket) = half_a_handshake(&trap, host).await;
        assert_eq!(answer == RETRY, n >= 64, "{answer:x} for number {n}");
        halves.push(socket);
    }
    // whoever receives what is sent to it gets in
    let address = server.address().to_string();
    let peer = hbi::connect(address, HostingEnv::new()).await.unwrap();
    let one: i64 = peer.script("1").await.unwrap();
    assert_eq!(one, 1);
}

/// Loses the packet of one line, and logs another by this stub; which lines the host has seen then.
async fn logged_behind_a_lost_line(far: &Far, work: &WorkStub) -> Vec<String> {
    // the way is long, so that what is lost is missed only after the other has landed
    far.work.add(1, 2).await.unwrap();
    let lost = far.relay.packets().0;
    far.relay.lose_next(400..1_000);
    far.work.log("l".repeat(500)).await.unwrap();
    while far.relay.packets().0 == lost {
        tokio::task::yield_now().await;
    }
    work.log("behind it".to_owned()).confirmed().await.unwrap();
    let lines = far.work.lines().await.unwrap();
    lines.into_iter().map(|line| line[..1].to_owned()).collect()
}

#[tokio::test]
async fn a_lost_opening_holds_up_those_behind_it_but_for_unordered_ones() {
    let way = Duration::from_millis(100);
    let ordered = far(0, way).await;
    let lines = logged_behind_a_lost_line(&ordered, &ordered.work).await;
    assert_eq!(lines, ["l", "b"]);
    let unordered = far(0, way).await;
    let work = WorkStub::new(&unordered.peer.unordered());
    let lines = logged_behind_a_lost_line(&unordered, &work).await;
    assert_eq!(lines, ["b", "l"]);
}

#[tokio::test]
async fn a_large_opening_holds_up_no_smaller_one() {
    let far = far(20, SHORT).await;
    let large = far.work.echo(vec![1; 2 << 20]).send();
    for n in 0..20 {
        assert_eq!(far.work.add(n, 1).await.unwrap(), n + 1);
    }
    assert_eq!(large.await.unwrap().len(), 2 << 20);
}

#[tokio::test]
async fn bulk_and_calls_and_streams_come_whole_whatever_gets_lost() {
    let far = far(50, SHORT).await;
    let (meta, data) = far.work.download("f", 1_000_000).await.unwrap();
    let calls = async {
        for n in 0..50 {
            assert_eq!(far.work.add(n, n).await.unwrap(), 2 * n);
        }
    };
    let events = async {
        let mut events = far.work.watch("tea", 300).await.unwrap();
        let mut count = 0;
        while let Some(event) = events.try_next().await.unwrap() {
            assert_eq!(event.n, count);
            count += 1;
        }
        assert_eq!(count, 300);
    };
    let (bytes, (), ()) = tokio::join!(data.to_bytes(usize::MAX), calls, events);
    let bytes = bytes.unwrap();
    assert_eq!(bytes.len() as u64, meta.size);
    assert!(bytes.iter().enumerate().all(|(n, &b)| b == n as u8));
}

#[tokio::test]
async fn objects_are_found_though_their_release_may_overtake() {
    let far = far(50, SHORT).await;
    for n in 0..30 {
        let counter = far.work.counter(n).await.unwrap();
        // let go of while the call is on its way
        let value = far.work.value_of(&counter).send();
        drop(counter);
        value.await.unwrap();
    }
    // all of them are let go of in the end
    while far
        .seen
        .counters_dropped
        .load(std::sync::atomic::Ordering::SeqCst)
        < 30
    {
        far.work.add(0, 0).await.unwrap();
    }
}

#[tokio::test]
async fn objects_in_answers_that_nobody_reads_are_taken_back() {
    let far = far(0, SHORT).await;
    for n in 0..30 {
        let mut call = Box::pin(far.work.counter(n).into_future());
        assert!(futures_util::poll!(&mut call).is_pending());
        far.work.add(0, 0).await.unwrap();
        // the answer is there, or on its way, and nobody looks at it
        drop(call);
    }
    while far
        .seen
        .counters_dropped
        .load(std::sync::atomic::Ordering::SeqCst)
        < 30
    {
        far.work.add(0, 0).await.unwrap();
    }
}

/// Data without end.
fn endless() -> hbi::Data {
    let piece = bytes::Bytes::from(vec![7; 16 << 10]);
    hbi::Data::stream(futures_util::stream::repeat_with(move || {
        Ok::<_, hbi::Error>(piece.clone())
    }))
}

#[tokio::test]
async fn a_poster_learns_why_its_host_reads_no_more() {
    let far = far(20, SHORT).await;
    let mut co = far.peer.po().co().await.unwrap();
    let error = co.send_data(endless()).await.unwrap_err();
    assert!(error.to_string().contains("no hosted code"), "{error}");
}

#[tokio::test]
async fn a_sender_without_room_learns_of_the_deadline() {
    let far = far(20, SHORT).await;
    let co = far.peer.po().co().await.unwrap();
    let mut co = co.within(Duration::from_millis(200));
    co.send_code("work::wait(1)").await.unwrap();
    let error = co.send_data(endless()).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn a_host_that_ends_early_lets_the_poster_finish() {
    let far = far(20, SHORT).await;
    let mut co = far.work.send_file("f").open().await.unwrap();
    let sent = co.send_data(vec![0; 5 << 20]).await;
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("wants no more"), "{error}");
    let mut co = co.start_recv().await.unwrap();
    let _meta: hbi_tests::work::FileMeta = co.recv_obj().await.unwrap();
    let mut file = Vec::new();
    co.recv_data(&mut file).await.unwrap();
    assert!(!file.is_empty());
    drop(co);
    while far.peer.conversations() != (0, 0) {
        far.work.add(0, 0).await.unwrap();
    }
}

#[tokio::test]
async fn clients_may_move_where_the_server_lets_them() {
    let far = far_with(Options::new().migration(true), 0, SHORT).await;
    for n in 0..3 {
        far.relay.move_clients();
        assert_eq!(far.work.add(n, 1).await.unwrap(), n + 1);
    }
    let mut settings = hbi::Settings::default();
    settings.idle_timeout = Duration::from_millis(300);
    let far = far_with(Options::new().settings(settings), 0, SHORT).await;
    assert_eq!(far.work.add(1, 1).await.unwrap(), 2);
    far.relay.move_clients();
    let error = far.work.add(1, 1).await.unwrap_err();
    assert!(error.is_disconnected(), "{error}");
}

/// What fails, or ends, before all objects that were sent in it have left or were looked at.
#[hbi::service]
trait Failing {
    async fn failing(&self) -> hbi::Items<(Vec<u8>, Option<hbi::Reactor<CounterStub>>)>;
    async fn offers(&self) -> hbi::Items<hbi::Reactor<CounterStub>>;
    #[hbi(converse)]
    async fn breaks(&self, co: hbi::HoCo) -> hbi::Result<()>;
    #[hbi(converse)]
    async fn ignores(&self, co: hbi::HoCo, items: hbi::Items<i64>) -> hbi::Result<()>;
}

struct MyFailing {
    dropped: Arc<AtomicUsize>,
    /// Told once the object is sent.
    sent: mpsc::UnboundedSender<()>,
    /// Told once it may be ignored.
    ignore: Arc<Notify>,
}

impl Failing for MyFailing {
    async fn failing(&self) -> hbi::Items<(Vec<u8>, Option<hbi::Reactor<CounterStub>>)> {
        let (sender, items) = hbi::Items::channel(4);
        let counter = counter(&self.dropped);
        let sent = self.sent.clone();
        tokio::spawn(async move {
            // the next stays here until it is read
            sender.send((over_the_window(), None)).await.unwrap();
            sender.send((Vec::new(), Some(counter))).await.unwrap();
            sender.fail("the source ran dry").await;
            sent.send(()).unwrap();
        });
        items
    }

    async fn offers(&self) -> hbi::Items<hbi::Reactor<CounterStub>> {
        hbi::Items::iter([counter(&self.dropped)])
    }

    async fn breaks(&self, co: hbi::HoCo) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        co.send_data(over_the_window()).await?;
        co.send_obj(&counter(&self.dropped)).await?;
        self.sent.send(()).unwrap();
        Err(hbi::Error::refusal("no more of it"))
    }

    async fn ignores(&self, co: hbi::HoCo, _items: hbi::Items<i64>) -> hbi::Result<()> {
        self.ignore.notified().await;
        co.start_send().await?.close().await
    }
}

/// More than the peer's window, by less than a sender takes over beside it.
fn over_the_window() -> Vec<u8> {
    vec![7; hbi::Settings::default().window as usize + 50_000]
}

fn counter(dropped: &Arc<AtomicUsize>) -> hbi::Reactor<CounterStub> {
    hbi::Reactor::new(CounterHost::new(MyCounter::new(1, dropped)))
}

/// A server whose conversations fail, and one that is connected to it.
struct FailingPair {
    _server: hbi::Server,
    peer: hbi::Connection,
    stub: FailingStub,
    dropped: Arc<AtomicUsize>,
    sent: mpsc::UnboundedReceiver<()>,
    ignore: Arc<Notify>,
}

async fn failing_pair() -> FailingPair {
    let dropped = Arc::new(AtomicUsize::new(0));
    let kept = Arc::clone(&dropped);
    let ignore = Arc::new(Notify::new());
    let ignored = Arc::clone(&ignore);
    let (sender, sent) = mpsc::unbounded_channel();
    let server = Transport::Quic.serving(Options::new());
    let server = server.serve("quic://127.0.0.1:0", move |_peer| {
        let failing = FailingHost::new(MyFailing {
            dropped: Arc::clone(&kept),
            sent: sender.clone(),
            ignore: Arc::clone(&ignored),
        });
        async move { Ok(HostingEnv::new().service(failing)) }
    });
    let server = server.await.unwrap();
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new());
    let peer = peer.await.unwrap();
    FailingPair {
        stub: FailingStub::new(&peer),
        _server: server,
        peer,
        dropped,
        sent,
        ignore,
    }
}

impl FailingPair {
    /// All objects that were given are let go of, though the connection goes on.
    async fn all_dropped(&self, all: usize) {
        // what one side tells of it overtakes no call
        for _ in 0..1000 {
            if self.dropped.load(Ordering::SeqCst) == all {
                return;
            }
            let one: i64 = self.peer.script("1").await.unwrap();
            assert_eq!(one, 1);
        }
        let dropped = self.dropped.load(Ordering::SeqCst);
        panic!("{dropped} of {all} are dropped");
    }
}

#[tokio::test]
async fn objects_in_a_stream_that_failed_are_taken_back() {
    let mut pair = failing_pair().await;
    for _ in 0..20 {
        let mut items = pair.stub.failing().await.unwrap();
        pair.sent.recv().await.unwrap();
        while let Ok(Some(_)) = items.try_next().await {}
    }
    pair.all_dropped(20).await;
}

#[tokio::test]
async fn objects_in_a_conversation_that_failed_are_taken_back() {
    let mut pair = failing_pair().await;
    for _ in 0..20 {
        let mut co = pair.stub.breaks().await.unwrap();
        pair.sent.recv().await.unwrap();
        let error = co.recv_data(&mut Vec::new()).await.unwrap_err();
        assert!(error.is_refused(), "{error}");
    }
    pair.all_dropped(20).await;
}

#[tokio::test]
async fn objects_behind_a_stream_that_nobody_looked_at_are_taken_back() {
    let pair = failing_pair().await;
    for _ in 0..20 {
        let items = hbi::Items::iter([1, 2]);
        let mut co = pair.stub.ignores(items).open().await.unwrap();
        co.send_obj(&counter(&pair.dropped)).await.unwrap();
        pair.ignore.notify_one();
        let co = co.start_recv().await.unwrap();
        co.wait_completed().await.unwrap();
    }
    pair.all_dropped(20).await;
}

#[tokio::test]
async fn objects_in_streams_of_answers_that_nobody_reads_are_taken_back() {
    let pair = failing_pair().await;
    for _ in 0..20 {
        let mut call = Box::pin(pair.stub.offers().into_future());
        assert!(futures_util::poll!(&mut call).is_pending());
        for _ in 0..3 {
            let one: i64 = pair.peer.script("1").await.unwrap();
            assert_eq!(one, 1);
        }
        // the stream has come, and nobody looked at the answer that names it
        drop(call);
    }
    pair.all_dropped(20).await;
}

#[tokio::test]
async fn more_objects_than_may_be_under_way_stop_nobody() {
    let server = Transport::Quic.serving(Options::new());
    let server = server.serve("quic://127.0.0.1:0", |_peer| async {
        Ok(HostingEnv::new())
    });
    let server = server.await.unwrap();
    let address = server.address().to_string();
    let peer = hbi::connect(&address, HostingEnv::new()).await.unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = hbi::Reactor::<CounterStub>::new(CounterHost::new(MyCounter::new(1, &dropped)));
    // their answers give them back, and nobody looks at those
    let mut calls = Vec::new();
    for _ in 0..90 {
        let many = vec![counter.clone(); 900];
        let call = peer.script::<Vec<hbi::Reactor<CounterStub>>>("x");
        calls.push(call.bind("x", many).into_future().send());
        // what went up has been seen there
        let one: i64 = peer.script("1").await.unwrap();
        assert_eq!(one, 1);
    }
    let other = hbi::connect(&address, HostingEnv::new()).await.unwrap();
    for _ in 0..100 {
        let one: i64 = other.script("1").await.unwrap();
        assert_eq!(one, 1);
    }
    drop(calls);
}

#[tokio::test]
async fn a_goodbye_loses_nothing() {
    for round in 0..5 {
        let far = far(50, SHORT).await;
        for n in 0..20 {
            far.work.log(format!("line {n}")).await.unwrap();
        }
        let closed = far.peer.close(Duration::from_secs(20)).await;
        closed.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(far.seen.lines.lock().unwrap().len(), 20);
    }
}
