//! What conversations on QUIC streams have to get right beside what every transport has: order, though
//! streams overtake each other; objects, though their release may; loss; and peers that do not follow
//! the rules.

use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
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

/// Answers and items of some size.
#[hbi::service]
trait Large {
    async fn answer(&self, size: usize) -> Vec<u8>;
    async fn total(&self, items: hbi::Items<Bytes>) -> hbi::Result<usize>;
    async fn leaves(&self, items: hbi::Items<Bytes>);
}

struct MyLarge {
    /// Told once what came is let go of.
    left: Arc<Notify>,
}

impl Large for MyLarge {
    async fn answer(&self, size: usize) -> Vec<u8> {
        vec![7; size]
    }

    async fn total(&self, mut items: hbi::Items<Bytes>) -> hbi::Result<usize> {
        let mut total = 0;
        while let Some(item) = items.try_next().await? {
            total += item.len();
        }
        Ok(total)
    }

    async fn leaves(&self, mut items: hbi::Items<Bytes>) {
        for _ in 0..4 {
            // each time a part of it is there, and never all
            let mut next = std::pin::pin!(items.try_next());
            let mut looked = false;
            let once = std::future::poll_fn(|cx| {
                let ready = std::mem::replace(&mut looked, true);
                if ready {
                    return std::task::Poll::Ready(());
                }
                assert!(next.as_mut().poll(cx).is_pending());
                std::task::Poll::Pending
            });
            once.await;
        }
        drop(items);
        self.left.notify_one();
        std::future::pending().await
    }
}

/// A server, and one that is connected to it, of which one side or the other holds little for its peer.
async fn large_pair(server: u64, client: u64) -> LargePair {
    let left = Arc::new(Notify::new());
    let kept = Arc::clone(&left);
    let holding = |held| {
        let mut settings = hbi::Settings::default();
        settings.held = held;
        settings.window = 128 << 10;
        Options::new().settings(settings)
    };
    let server = Transport::Quic.serving(holding(server));
    let server = server.serve("quic://127.0.0.1:0", move |_peer| {
        let left = Arc::clone(&kept);
        async move { Ok(HostingEnv::new().service(LargeHost::new(MyLarge { left }))) }
    });
    let server = server.await.unwrap();
    let address = server.address().to_string();
    let client = holding(client);
    let peer = client.connect(address, HostingEnv::new()).await.unwrap();
    LargePair {
        large: LargeStub::new(&peer),
        _server: server,
        peer,
        left,
    }
}

struct LargePair {
    _server: hbi::Server,
    peer: hbi::Connection,
    large: LargeStub,
    left: Arc<Notify>,
}

const MUCH: u64 = 256 << 20;

/// As much as eight windows.
const LITTLE: u64 = 1 << 20;

/// Messages that fit a window, and larger ones.
const SIZES: [usize; 2] = [100_000, 300_000];

/// All that is done at once.
async fn all<F: Future>(what: impl Iterator<Item = F>) -> Vec<F::Output> {
    let all = futures_util::future::join_all(what);
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
    ended.expect("they wait for ever")
}

#[tokio::test]
async fn answers_come_though_all_together_are_more_than_is_held() {
    let pair = large_pair(MUCH, LITTLE).await;
    for size in SIZES {
        let calls = (0..40).map(|_| pair.large.answer(size).into_future());
        for answer in all(calls).await {
            assert_eq!(answer.unwrap().len(), size);
        }
    }
}

#[tokio::test]
async fn who_sends_more_at_once_than_is_held_learns_what_to_do() {
    let pair = large_pair(LITTLE, MUCH).await;
    for size in SIZES {
        let calls = (0..40).map(|_| {
            let items = hbi::Items::iter([Bytes::from(vec![7; size])]);
            pair.large.total(items).into_future()
        });
        let mut whole = 0;
        for total in all(calls).await {
            match total {
                Ok(total) => {
                    assert_eq!(total, size);
                    whole += 1;
                }
                Err(error) => {
                    assert!(error.is_limit(), "{error}");
                    assert!(error.to_string().contains("Settings::held"), "{error}");
                }
            }
        }
        // nobody is refused unless six others wait, and those come whole
        assert!(whole >= 6, "{whole} came whole");
        // nothing of what was refused is left
        let none_is_left = async {
            while pair.peer.conversations() != (0, 0) {
                assert_eq!(pair.large.answer(1).await.unwrap(), [7]);
            }
        };
        all(std::iter::once(none_is_left)).await;
    }
}

#[tokio::test]
async fn what_is_let_go_of_half_read_leaves_its_room_to_others() {
    let pair = large_pair(LITTLE, MUCH).await;
    let one = || hbi::Items::iter([Bytes::from(vec![7; 900_000])]);
    // it does not end, though it looks at its items no more
    let leaving = pair.large.leaves(one()).send();
    all(std::iter::once(pair.left.notified())).await;
    let totals = all(std::iter::once(pair.large.total(one()).into_future())).await;
    assert_eq!(*totals[0].as_ref().unwrap(), 900_000);
    drop(leaving);
}

/// What begins to wait while the runtime that it is on shuts down.
#[hbi::service]
trait Stuck {
    async fn stuck(&self, cx: &hbi::Caller) -> i64;
}

#[derive(Clone)]
struct MyStuck {
    begun: std::sync::mpsc::Sender<()>,
    /// Ends once the runtime takes no task any more.
    shut: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
    dropped: std::sync::mpsc::Sender<()>,
}

/// Tells that it is dropped.
struct Tells(std::sync::mpsc::Sender<()>);

impl Drop for Tells {
    fn drop(&mut self) {
        // one who waits for nothing any more needs not know
        let _ = self.0.send(());
    }
}

impl Stuck for MyStuck {
    async fn stuck(&self, cx: &hbi::Caller) -> i64 {
        let _last = Tells(self.dropped.clone());
        let mut co = cx.po().co().await.unwrap();
        co.send_code("1").await.unwrap();
        self.begun.send(()).unwrap();
        self.shut.lock().unwrap().recv().unwrap();
        // dropped here, the conversation ends
        std::future::pending::<()>().await;
        drop(co);
        0
    }
}

#[test]
fn a_runtime_may_shut_down_while_a_method_begins_to_wait() {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build().unwrap()
    };
    let (here, there) = (runtime(), runtime());
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (dropped, is_dropped) = std::sync::mpsc::channel();
    let (shut, is_shut) = std::sync::mpsc::channel();
    let task = Tells(shut);
    there.spawn(async move {
        let _task = task;
        std::future::pending::<()>().await;
    });
    let stuck = MyStuck {
        begun,
        shut: Arc::new(Mutex::new(is_shut)),
        dropped,
    };
    let server = there.block_on(async {
        let options = Transport::Quic.serving(Options::new());
        let server = options.serve("quic://127.0.0.1:0", move |_peer| {
            let stuck = StuckHost::new(stuck.clone());
            async move { Ok(HostingEnv::new().service(stuck)) }
        });
        server.await.unwrap()
    });
    let address = server.address().to_string();
    here.spawn(async move {
        let peer = hbi::connect(address, HostingEnv::new()).await.unwrap();
        StuckStub::new(&peer).stuck().await
    });
    let guard = Duration::from_secs(20);
    has_begun.recv_timeout(guard).expect("it is called");
    there.shutdown_background();
    let ended = is_dropped.recv_timeout(guard);
    // where something hangs, they would, too
    std::mem::forget((server, here));
    ended.expect("nothing hangs");
}
