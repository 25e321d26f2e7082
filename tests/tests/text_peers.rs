//! The text wire between Rust peers, and against peers written by hand: odd ones and bad ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use hbi::{CallError, Data, Error, HoCo, HostingEnv, Items, Kind, Peer};
use hbi_tests::given_up::GivenUp;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, hbi::Value)]
struct NoDivision {
    of: i64,
}

impl std::error::Error for NoDivision {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Meta {
    name: String,
    size: u64,
}

#[hbi::service]
trait Calc {
    async fn add(&self, a: i64, b: i64) -> i64;
    async fn div(&self, a: i64, b: i64) -> Result<i64, NoDivision>;
    async fn check(&self, b: i64) -> Result<(), NoDivision>;
    async fn nothing(&self);
    async fn maybe(&self, there: bool) -> Option<String>;
    async fn fail(&self) -> hbi::Result<()>;
    async fn echo(&self, text: String, x: f64) -> (String, f64);
    async fn sum(&self, items: Items<i64>) -> i64;
    async fn huge(&self, n: u128) -> bool;
    #[hbi(notify)]
    async fn count(&self);
    async fn upload(&self, name: String, data: Data) -> Result<Meta, NoDivision>;
    async fn download(&self, name: String, size: u64) -> Result<(Meta, Data), NoDivision>;
    async fn slow(&self) -> i64;
    #[hbi(converse)]
    async fn mirror(&self, co: HoCo, size: u64) -> hbi::Result<()>;
}

#[derive(Clone, Default)]
struct MyCalc {
    counted: Arc<AtomicUsize>,
    dropped: Arc<Notify>,
    go_on: Arc<Notify>,
}

/// Tells when a method that waits for data is over.
struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Calc for MyCalc {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }

    async fn div(&self, a: i64, b: i64) -> Result<i64, NoDivision> {
        a.checked_div(b).ok_or(NoDivision { of: a })
    }

    async fn check(&self, b: i64) -> Result<(), NoDivision> {
        self.div(1, b).await.map(|_| ())
    }

    async fn nothing(&self) {}

    async fn maybe(&self, there: bool) -> Option<String> {
        there.then(|| "there".to_owned())
    }

    async fn fail(&self) -> hbi::Result<()> {
        Err(Error::refusal("it never works\nnot at all"))
    }

    async fn echo(&self, text: String, x: f64) -> (String, f64) {
        (text, x)
    }

    async fn huge(&self, n: u128) -> bool {
        n > u128::from(u64::MAX)
    }

    async fn sum(&self, mut items: Items<i64>) -> i64 {
        let mut sum = 0;
        while let Ok(Some(item)) = items.try_next().await {
            sum += item;
        }
        sum
    }

    async fn count(&self) {
        self.counted.fetch_add(1, Ordering::Relaxed);
    }

    async fn upload(&self, name: String, data: Data) -> Result<Meta, NoDivision> {
        if name == "unwanted" {
            return Err(NoDivision { of: 7 });
        }
        let _gone = Gone(Arc::clone(&self.dropped));
        match data.to_bytes(1 << 24).await {
            Ok(data) => Ok(Meta {
                name,
                size: data.len() as u64,
            }),
            Err(_) => Err(NoDivision { of: 8 }),
        }
    }

    async fn download(&self, name: String, size: u64) -> Result<(Meta, Data), NoDivision> {
        if name == "missing" {
            return Err(NoDivision { of: 9 });
        }
        let data = Data::from(vec![7; size as usize]);
        Ok((Meta { name, size }, data))
    }

    async fn slow(&self) -> i64 {
        self.go_on.notified().await;
        5
    }

    async fn mirror(&self, mut co: HoCo, size: u64) -> hbi::Result<()> {
        let mut data = Vec::new();
        let _gone = Gone(Arc::clone(&self.dropped));
        co.recv_data_exact(&mut data, size).await?;
        let mut co = co.finish_recv().await?.start_send().await?;
        co.send_obj(&size).await?;
        co.send_data(data).await?;
        co.close().await
    }
}

async fn serve(address: &str, calc: &MyCalc) -> (hbi::Server, mpsc::UnboundedReceiver<Error>) {
    let (tell, ends) = mpsc::unbounded_channel();
    let calc = calc.clone();
    let server = hbi::serve(address, move |_: Peer| {
        let (calc, tell) = (calc.clone(), tell.clone());
        async move {
            Ok(HostingEnv::new()
                .service(CalcHost::new(calc))
                .on_disconnect(move |reason| {
                    // a test that is over hears nothing more
                    let _ = tell.send(reason.clone());
                }))
        }
    });
    (server.await.expect("serves"), ends)
}

async fn rust_peers() -> (MyCalc, hbi::Server, hbi::Connection, CalcStub) {
    let calc = MyCalc::default();
    let (server, _) = serve("text+tcp://127.0.0.1:0", &calc).await;
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new())
        .await
        .expect("connects");
    let stub = CalcStub::new(&peer);
    (calc, server, peer, stub)
}

/// A peer written by hand.
struct Raw(TcpStream);

impl Raw {
    async fn connect(server: &hbi::Server) -> Self {
        let hbi::Scheme::Tcp(address) = server.address().scheme() else {
            panic!("a TCP server");
        };
        Self(TcpStream::connect(address).await.expect("connects"))
    }

    async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0
            .write_all(text.as_ref())
            .await
            .expect("the peer reads");
    }

    async fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        timeout(SOON, self.0.read_exact(&mut bytes))
            .await
            .expect("it comes soon")
            .expect("it comes");
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    /// The rest of the stream.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        timeout(SOON, self.0.read_to_end(&mut rest))
            .await
            .expect("the peer hangs up")
            .expect("the stream ends well");
        String::from_utf8_lossy(&rest).into_owned()
    }
}

#[tokio::test]
async fn typed_calls_answer_whatever_their_types() {
    let (_, _server, peer, calc) = rust_peers().await;
    assert_eq!(calc.add(1, 2).await.expect("answers"), 3);
    let thirty = calc.add(calc.add(1, 2), 27).await;
    assert_eq!(thirty.expect("compositions are calls in each other"), 30);
    let shared = calc.add(2, 3);
    let both = hbi::all((calc.add(&shared, 1), calc.add(&shared, 2))).await;
    assert_eq!(both.expect("answers"), (6, 7));
    assert_eq!(calc.div(7, 2).await.expect("answers"), 3);
    match calc.div(7, 0).await {
        Err(CallError::App(NoDivision { of: 7 })) => {}
        other => panic!("{other:?}"),
    }
    calc.check(1).await.expect("answers");
    assert!(matches!(calc.check(0).await, Err(CallError::App(_))));
    calc.nothing().await.expect("answers");
    assert_eq!(calc.maybe(false).await.expect("answers"), None);
    assert_eq!(
        calc.maybe(true).await.expect("answers").as_deref(),
        Some("there")
    );
    let text = "'\"\\\n\r\t\u{8}\u{c}\u{1b}\u{7f}é你😀\u{200b}\u{2028}";
    for x in [0.0, -0.0, 1.5, 1e21, 1e-7, f64::MAX, f64::MIN_POSITIVE] {
        let echoed = calc.echo(text, x).await.expect("answers");
        assert_eq!(echoed, (text.to_owned(), x));
    }
    let script: i64 = peer.script("calc.add(2, 3) * 2").await.expect("answers");
    assert_eq!(script, 10);
    peer.close(SOON).await.expect("a clean end");
}

#[tokio::test]
async fn what_has_no_spelling_is_refused_before_anything_is_sent() {
    let (_, _server, peer, calc) = rust_peers().await;
    let cases = [
        calc.echo("a\0b", 1.0).await.expect_err("NUL"),
        calc.echo("a", f64::INFINITY).await.expect_err("infinite"),
        calc.sum(Items::iter([1, 2])).await.expect_err("items"),
        calc.huge(1 << 64).await.expect_err("65 bits"),
    ];
    let reasons = ["NUL", "infinite float", "carries no `Items`", "64 bits"];
    for (error, reason) in cases.iter().zip(reasons) {
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!error.was_sent(), "{error}");
    }
    let unknown = Data::stream(futures_util::stream::empty::<hbi::Result<bytes::Bytes>>());
    match calc.upload("x", unknown).await {
        Err(CallError::Hbi(error)) => assert!(error.to_string().contains("with_len"), "{error}"),
        other => panic!("{other:?}"),
    }
    let mut co = peer.po().co().await.expect("begins");
    assert!(co.send_obj("a\0b").await.is_err());
    drop(co);
    let bound = peer.script::<i64>("a + 1").bind("a", 1).await;
    assert_eq!(bound.expect_err("bound").kind(), Kind::Misuse);
    assert_eq!(calc.add(1, 2).await.expect("the connection goes on"), 3);
}

#[tokio::test]
async fn data_travels_both_ways_with_its_length() {
    let (_, _server, peer, calc) = rust_peers().await;
    for size in [0, 1, 65_536, 3_000_000] {
        let up = calc.upload("up", vec![1; size]).await.expect("answers");
        assert_eq!(up.size, size as u64);
        let (meta, data) = calc.download("down", size as u64).await.expect("answers");
        assert_eq!(
            (meta.size, data.len_hint()),
            (size as u64, Some(size as u64))
        );
        let bytes = data.to_bytes(size).await.expect("all of it");
        assert!(bytes.len() == size && bytes.iter().all(|b| *b == 7));
        let mut co = calc.mirror(size as u64).open().await.expect("opens");
        co.send_data(vec![9; size]).await.expect("sent");
        let mut co = co.start_recv().await.expect("goes on");
        assert_eq!(co.recv_obj::<usize>().await.expect("an object"), size);
        let mut back = vec![0; size];
        co.recv_exact(&mut back).await.expect("raw data");
        assert!(back.iter().all(|b| *b == 9));
        co.close().await.expect("closes");
    }
    // what was begun to be read is passed on with what is left of it
    let (_, mut data) = calc.download("down", 200_000).await.expect("answers");
    let first = data.try_next().await.expect("a piece").expect("some");
    let left = 200_000 - first.len() as u64;
    assert_eq!(data.len_hint(), Some(left));
    let rest = calc.upload("rest", data).await.expect("answers");
    assert_eq!(rest.size, left);
    // what is not wanted goes by
    assert!(calc.upload("unwanted", vec![1; 1_000_000]).await.is_err());
    drop(calc.download("down", 1_000_000).await.expect("answers"));
    assert!(calc.download("missing", 5).await.is_err());
    assert_eq!(calc.add(1, 2).await.expect("the wire is in step"), 3);
    peer.close(SOON).await.expect("a clean end");
}

#[tokio::test]
async fn nothing_is_lost_at_close() {
    let (calc, server, peer, stub) = rust_peers().await;
    for _ in 0..2_000 {
        stub.count().await.expect("handed over");
    }
    peer.close(SOON).await.expect("a clean end");
    assert_eq!(calc.counted.load(Ordering::Relaxed), 2_000);
    drop(server);
}

#[tokio::test]
async fn many_callers_take_turns_beside_bulk() {
    let (_, _server, peer, calc) = rust_peers().await;
    let bulk = tokio::spawn({
        let calc = calc.clone();
        async move {
            calc.upload("bulk", vec![1; 10_000_000])
                .await
                .expect("answers")
                .size
        }
    });
    let callers: Vec<_> = (0..64)
        .map(|n| {
            let calc = calc.clone();
            tokio::spawn(async move {
                for m in 0..20 {
                    assert_eq!(calc.add(n, m).await.expect("answers"), n + m);
                }
            })
        })
        .collect();
    for caller in callers {
        timeout(SOON, caller)
            .await
            .expect("soon")
            .expect("does not panic");
    }
    assert_eq!(bulk.await.expect("does not panic"), 10_000_000);
    assert_eq!(peer.conversations(), (0, 0));
}

#[tokio::test]
async fn a_reply_that_nobody_awaits_stops_nobody_and_slow_ones_are_overtaken() {
    let (calc, _server, _peer, stub) = rust_peers().await;
    let waiting = stub.add(1, 1).send();
    let slow = stub.slow().send();
    assert_eq!(stub.add(2, 2).await.expect("answers"), 4);
    calc.go_on.notify_one();
    assert_eq!(slow.await.expect("answers"), 5);
    drop(stub.slow().send());
    assert_eq!(waiting.await.expect("kept"), 2);
    let late = stub.slow().within(Duration::from_millis(20)).await;
    assert!(late.expect_err("it is late").is_timeout());
    calc.go_on.notify_waiters();
    assert_eq!(stub.add(3, 3).await.expect("answers"), 6);
}

#[tokio::test]
async fn a_failure_ends_the_connection_with_its_reason_on_both_sides() {
    let calc = MyCalc::default();
    let (server, mut ends) = serve("text+tcp://127.0.0.1:0", &calc).await;
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new())
        .await
        .expect("connects");
    let stub = CalcStub::new(&peer);
    let error = stub.fail().await.expect_err("it fails");
    assert!(error.is_disconnected() && error.was_sent(), "{error:?}");
    assert!(error.to_string().contains("it never works"), "{error}");
    assert!(!error.to_string().contains("not at all"), "{error}");
    let reason = ends.recv().await.expect("told");
    assert!(reason.to_string().contains("it never works"), "{reason}");
    assert!(stub.add(1, 2).await.is_err());
    assert!(peer.close(SOON).await.is_err());
}

#[tokio::test]
async fn one_set_of_service_objects_serves_both_wires_and_unix_sockets() {
    let calc = MyCalc::default();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("text.sock");
    let mut servers = Vec::new();
    for address in [
        "tcp://127.0.0.1:0".to_owned(),
        "text+tcp://127.0.0.1:0".to_owned(),
        format!("text+unix://{}", path.display()),
    ] {
        let (server, _) = serve(&address, &calc).await;
        let address = server.address().to_string();
        let peer = hbi::connect(&address, HostingEnv::new())
            .await
            .expect("connects");
        let stub = CalcStub::new(&peer);
        assert_eq!(stub.add(1, 2).await.expect("answers"), 3);
        stub.count().await.expect("handed over");
        peer.close(SOON).await.expect("a clean end");
        servers.push(server);
    }
    assert_eq!(calc.counted.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn pushes_go_to_the_peer_of_whoever_connects() {
    let server = hbi::serve("text+tcp://127.0.0.1:0", |_: Peer| async {
        Ok(HostingEnv::new().on_connect(|po| async move {
            po.notif("print('Welcome', 1)").await.expect("sent");
            // a round trip is possible, too: the reader runs already
            let answer: i64 = po.script("twice(21)").await.expect("answers");
            po.notif(format!("print({answer})")).await.expect("sent");
        }))
    })
    .await
    .expect("serves");
    let (tell, mut lines) = mpsc::unbounded_channel();
    let env = HostingEnv::new()
        .function("twice", |n: i64| n * 2)
        .on_print(move |line| tell.send(line.to_owned()).expect("the test listens"));
    let _peer = hbi::connect(server.address().to_string(), env)
        .await
        .expect("connects");
    assert_eq!(lines.recv().await.as_deref(), Some("Welcome 1"));
    assert_eq!(lines.recv().await.as_deref(), Some("42"));
}

#[tokio::test]
async fn what_existing_peers_do_in_odd_ways_is_answered() {
    let (server, mut ends) = serve("text+tcp://127.0.0.1:0", &MyCalc::default()).await;
    let mut peer = Raw::connect(&server).await;
    // numbers are echoed, several scripts are answered in order, only values are
    peer.send("[12#co_begin]any-thing é[15#]\ncalc.add(1,2)\n[12#]\nx = 5\t\r\n\n\n\n")
        .await;
    peer.send("[16#]\ncalc.nothing()\n[18#]calc.maybe(false)\n[12#co_end]any-thing é")
        .await;
    peer.expect(
        "[12#co_ack_begin]any-thing é[1#co_recv]3[4#co_recv]None[12#co_ack_end]any-thing é",
    )
    .await;
    // two of the same number get two answers
    for _ in 0..2 {
        peer.send("[3#co_begin]101[18#]\ncalc.add(x, 2.0)\n").await;
        peer.send("[3#co_end]101").await;
    }
    let reason = "argument 2";
    let rest = peer.rest().await;
    assert!(rest.contains("#err]") && rest.contains(reason), "{rest}");
    assert!(
        ends.recv()
            .await
            .expect("told")
            .to_string()
            .contains(reason)
    );

    let mut peer = Raw::connect(&server).await;
    peer.send("[3#co_begin]101[15#]\ncalc.add(1, 2)[3#co_end]101")
        .await;
    peer.send("[3#co_begin]101[15#]\ncalc.add(3, 4)[3#co_end]101")
        .await;
    for answer in ["3", "7"] {
        peer.expect(&format!(
            "[3#co_ack_begin]101[1#co_recv]{answer}[3#co_ack_end]101"
        ))
        .await;
    }
    // a value that is wanted at once comes between the spans
    peer.send("[3#co_begin]102[14#co_send]calc.add(5, 6)").await;
    peer.expect("[2#co_recv]11").await;
    peer.send("[3#co_end]102").await;
    peer.expect("[3#co_ack_begin]102[3#co_ack_end]102").await;
    // own errors that have a name are values
    peer.send("[3#co_begin]103[14#]calc.div(5, 0)[3#co_end]103")
        .await;
    peer.expect("[3#co_ack_begin]103[13#co_recv]NoDivision(5)[3#co_ack_end]103")
        .await;
    // all that came before the end is answered
    for n in 0..100 {
        peer.send(format!(
            "[3#co_begin]{}[14#]calc.add(5, 0)[3#co_end]{}",
            104 + n,
            104 + n
        ))
        .await;
    }
    peer.0.shutdown().await.expect("hangs up");
    let rest = peer.rest().await;
    assert_eq!(rest.matches("[1#co_recv]5").count(), 100, "{rest}");
    assert!(!rest.contains("err]"), "{rest}");
}

#[tokio::test]
async fn data_that_does_not_come_is_an_error_and_never_a_hang() {
    let calc = MyCalc::default();
    let (server, mut ends) = serve("text+tcp://127.0.0.1:0", &calc).await;
    for script in ["calc.mirror(10)", "calc.upload('x', 10)"] {
        let mut peer = Raw::connect(&server).await;
        peer.send(format!("[3#co_begin]101[{}#]{script}12345", script.len()))
            .await;
        peer.0.shutdown().await.expect("hangs up");
        let rest = peer.rest().await;
        assert!(
            rest.contains("5 bytes before the end of raw data"),
            "{rest}"
        );
        ends.recv().await.expect("told");
        timeout(SOON, calc.dropped.notified())
            .await
            .expect("the method does not wait for ever");
    }
}

#[tokio::test]
async fn bad_peers_are_refused_with_one_line_and_others_are_served() {
    let (server, mut ends) = serve("text+tcp://127.0.0.1:0", &MyCalc::default()).await;
    let long = format!("[3#co_begin]101[{}#]{}", 20 << 10, "x".repeat(20 << 10));
    let cases: &[(&[u8], &str)] = &[
        (b"GET / HTTP/1.1\r\n\r\n", "begins with `[`, found `G`"),
        (b"[-3#co_begin]101", "decimal digits"),
        (b"[0x3#co_begin]101", "decimal digits"),
        (b"[#co_begin]101", "without a length"),
        (b"[99999999999999#co_begin]1", "over the limit"),
        (&[b'['; 100], "decimal digits"),
        (
            b"[3#co_beginnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
            "more than 60",
        ),
        (b"[3#bogus]101", "unknown directive `bogus`"),
        (b"[4#]f()\n", "outside a conversation"),
        (b"[3#co_begin]101[0#]", "empty payload"),
        (b"[3#co_begin]101[2#]\xff\xfe", "not valid UTF-8"),
        (b"[3#co_begin]101[3#co_begin]102", "do not nest"),
        (b"[3#co_ack_begin]555", "does not wait for one"),
        (
            b"[3#co_begin]101[3#co_end]102",
            "the end of conversation 102",
        ),
        (b"[3#co_begin]101[8#]nobody()", "`nobody` is not exposed"),
        (b"[3#co_begin]101[4#]f(1\n", "expected `)`"),
        (b"[3#co_begin]101[9#]import os", "`import` does not land"),
        (b"[3#co_begin]101[1#co_recv]1", "no hosted code receives"),
        (b"[3#co_begin]101[15#]calc.div(1, '')", "argument 2"),
        (b"[3#co_begin]101[14#]calc = 5 + 5 +", "expected"),
        (b"[3#co_begin]101[8#]calc = 5", "is exposed by the host"),
        (long.as_bytes(), "source"),
        (
            b"[3#co_begin]101",
            "the stream ended inside conversation 101",
        ),
    ];
    for (bytes, reason) in cases {
        let mut peer = Raw::connect(&server).await;
        // it may be refused before all of it is read
        let _ = peer.0.write_all(bytes).await;
        let _ = peer.0.shutdown().await;
        let rest = peer.rest().await;
        let shown = String::from_utf8_lossy(bytes);
        let line = rest.split_once("#err]").map(|(_, line)| line);
        let line = line.unwrap_or_else(|| panic!("{shown}: {rest}"));
        assert!(
            line.contains(reason) && !line.contains('\n'),
            "{shown}: {line}"
        );
        let told = ends.recv().await.expect("told").to_string();
        assert!(told.contains(reason), "{shown}: {told}");
    }
    let good = hbi::connect(server.address().to_string(), HostingEnv::new()).await;
    let good = good.expect("connects");
    assert_eq!(CalcStub::new(&good).add(1, 2).await.expect("answers"), 3);
}

#[tokio::test]
async fn a_peer_that_stops_in_the_middle_or_takes_nothing_is_given_up() {
    let (tell, mut ends) = mpsc::unbounded_channel();
    let calc = MyCalc::default();
    let mut settings = hbi::Settings::default();
    settings.idle_timeout = Duration::from_millis(200);
    let options = hbi::Options::new().settings(settings);
    let server = options.serve("text+tcp://127.0.0.1:0", move |_: Peer| {
        let (calc, tell) = (calc.clone(), tell.clone());
        async move {
            Ok(HostingEnv::new()
                .service(CalcHost::new(calc))
                .on_disconnect(move |reason| tell.send(reason.clone()).expect("the test listens")))
        }
    });
    let server = server.await.expect("serves");
    for begun in [
        "[3#co_",
        "[3#co_begin]101[10#]calc",
        "[3#co_begin]101[15#]calc.mirror(10)12",
    ] {
        let mut peer = Raw::connect(&server).await;
        peer.send(begun).await;
        let rest = peer.rest().await;
        assert!(rest.contains("had begun did not come"), "{begun}: {rest}");
        ends.recv().await.expect("told");
    }
    let mut peer = Raw::connect(&server).await;
    peer.send("[3#co_begin]101[34#]calc.download('never', 20_000_000)[3#co_end]101")
        .await;
    let reason = timeout(SOON, ends.recv()).await.expect("soon");
    let reason = reason.expect("told").to_string();
    assert!(reason.contains("took nothing"), "{reason}");
}

#[tokio::test]
async fn an_end_at_every_byte_ends_the_connection() {
    let (server, mut ends) = serve("text+tcp://127.0.0.1:0", &MyCalc::default()).await;
    let session = "[3#co_begin]101[33#]\nmy_name = 'Nick'\ncalc.nothing()\n[3#co_end]101\
                   [3#co_begin]102[15#]calc.mirror(13)hello [9#x] x[3#co_end]102";
    for at in 0..=session.len() {
        let mut peer = Raw::connect(&server).await;
        peer.send(&session.as_bytes()[..at]).await;
        peer.0.shutdown().await.expect("hangs up");
        let rest = peer.rest().await;
        let told = ends.recv().await.expect("told").to_string();
        let clean = told.contains("the peer closed the connection");
        assert_eq!(rest.contains("err]"), !clean, "byte {at}: {rest} {told}");
        assert!(
            clean || told.contains("the stream ended"),
            "byte {at}: {told}"
        );
    }
}

/// A server written by hand: its side of one connection.
async fn raw_server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("has an address");
    (listener, format!("text+tcp://{address}"))
}

#[tokio::test]
async fn what_peers_answer_arrives_as_the_type_asked_for() {
    let (listener, address) = raw_server().await;
    let answers = [
        "[5000, 'last modified: 2026-11-23 01:56:31']",
        "0x49f047e1",
        "nil",
        "Meta('a', 5)",
        "{\"name\": \"b\", \"size\": 6}",
        "'text'",
    ];
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a peer comes");
        let mut raw = Raw(stream);
        for (n, answer) in answers.into_iter().enumerate() {
            let seq = 101 + n;
            raw.expect(&format!("[3#co_begin]{seq}[8#]\nwhat()\n[3#co_end]{seq}"))
                .await;
            let len = answer.len();
            raw.send(format!(
                "[3#co_ack_begin]{seq}[{len}#co_recv]{answer}[3#co_ack_end]{seq}"
            ))
            .await;
        }
        raw.send("[43#err]panic: it broke\n\ngoroutine 1:\n\tmain.go:12 +0x1")
            .await;
        raw.0.shutdown().await.expect("hangs up");
    });
    let peer = hbi::connect(&address, HostingEnv::new())
        .await
        .expect("connects");
    let pair: (i64, String) = peer.script("what()").await.expect("answers");
    assert_eq!(pair.0, 5000);
    assert_eq!(
        peer.script::<u32>("what()").await.expect("answers"),
        0x49f0_47e1
    );
    assert_eq!(
        peer.script::<Option<u8>>("what()").await.expect("answers"),
        None
    );
    for name in ["a", "b"] {
        let meta: Meta = peer.script("what()").await.expect("answers");
        assert_eq!(meta.name, name);
    }
    let unfit = peer.script::<i64>("what()").await.expect_err("no number");
    assert_eq!(unfit.kind(), Kind::Value);
    let reason = timeout(SOON, peer.wait_closed()).await.expect("it ends");
    let reason = reason.to_string();
    assert!(reason.ends_with("panic: it broke"), "{reason}");
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_nothing_behind() {
    let (_never_answers, address) = raw_server().await;
    let mut settings = hbi::Settings::default();
    settings.conversations = 1;
    let options = hbi::Options::new().settings(settings);
    let peer = options.connect(&address, HostingEnv::new()).await;
    let peer = peer.expect("connects");
    let _first = peer.script::<i64>("f()").send();
    let given_up = GivenUp::default();
    for _ in 0..3 {
        given_up.waits(peer.script::<i64>("g()").into_future());
        given_up.waits(peer.notif("h()"));
        given_up.waits(peer.wait_closed());
    }
    assert_eq!(given_up.kept(), 0);
    let late = peer.script::<i64>("g()").within(Duration::from_millis(30));
    let late = late.await.expect_err("nobody answers");
    assert!(late.is_timeout() && !late.was_sent(), "{late}");
}

/// Peers in memory, under a clock that stands still.
async fn peers_in_memory(name: &str) -> (hbi::Server, hbi::Connection, CalcStub) {
    let (server, _) = serve(&format!("text+mem://{name}"), &MyCalc::default()).await;
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new()).await;
    let peer = peer.expect("connects");
    let stub = CalcStub::new(&peer);
    (server, peer, stub)
}

/// The error of an upload that is not the method's own.
fn of_hbi(uploaded: Result<Meta, CallError<NoDivision>>) -> Error {
    let error = uploaded.expect_err("it fails");
    error.as_hbi().expect("not by its method").clone()
}

/// Data of which the last part comes when it is asked for.
fn data_in_parts(first: usize, last: usize) -> (Data, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let asked = Arc::clone(&go_on);
    let parts = async move {
        asked.notified().await;
        Ok::<_, Error>(vec![1; last].into())
    };
    let begun = futures_util::stream::iter([Ok(vec![1; first].into())]);
    let parts = begun.chain(futures_util::stream::once(parts));
    let data = Data::stream(parts).with_len((first + last) as u64);
    (data, go_on)
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_waits_for_its_turn_is_given_up_by_itself() {
    let (_server, peer, stub) = peers_in_memory("waits").await;
    let mut before = peer.po().co().await.expect("begins");
    before.send_code("calc.mirror(200000)").await.expect("sent");
    before.send_data(vec![1; 100_000]).await.expect("sent");
    // it has the direction to itself, so nothing of these leaves
    let soon = Duration::from_millis(50);
    let late = stub.upload("late", vec![1; 1 << 20]).within(soon);
    let late = of_hbi(late.await);
    assert!(late.is_timeout() && !late.was_sent(), "{late}");
    let fails = futures_util::stream::iter([Err(Error::refusal("unreadable"))]);
    let fails = stub.upload("fails", Data::stream(fails).with_len(1 << 20));
    let failed = of_hbi(fails.await);
    assert!(failed.to_string().contains("unreadable"), "{failed}");
    // one that nobody waits for goes on
    let dropped = stub.upload("dropped", vec![1; 100_000]).within(soon).send();
    drop(dropped);
    tokio::time::sleep(2 * soon).await;
    before.send_data(vec![1; 100_000]).await.expect("sent");
    let mut before = before.start_recv().await.expect("sent");
    assert_eq!(before.recv_obj::<u64>().await.expect("an object"), 200_000);
    let mut sink = tokio::io::sink();
    let data = before.recv_data_exact(&mut sink, 200_000).await;
    data.expect("raw data");
    before.close().await.expect("closes");
    assert_eq!(stub.add(1, 2).await.expect("answers"), 3);
    peer.close(SOON).await.expect("a clean end");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_has_begun_goes_on_past_its_deadline() {
    let (_server, peer, stub) = peers_in_memory("begun").await;
    let (data, go_on) = data_in_parts(100_000, 100_000);
    let late = stub.upload("late", data).within(Duration::from_millis(50));
    let late = of_hbi(late.await);
    assert!(late.is_timeout() && late.was_sent(), "{late}");
    go_on.notify_one();
    assert_eq!(stub.add(1, 2).await.expect("answers"), 3);
    peer.close(SOON).await.expect("a clean end");
}

#[tokio::test]
async fn an_upload_that_is_answered_too_early_is_let_go() {
    let (listener, address) = raw_server().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a peer comes");
        let mut raw = Raw(stream);
        raw.expect("[3#co_begin]101").await;
        raw.send("[3#co_ack_begin]101[1#co_recv]5[3#co_ack_end]101")
            .await;
        // it reads on until the peer hangs up
        let _ = tokio::io::copy(&mut raw.0, &mut tokio::io::sink()).await;
    });
    let peer = hbi::connect(&address, HostingEnv::new()).await;
    let peer = peer.expect("connects");
    let dropped = Arc::new(Notify::new());
    let gone = Gone(Arc::clone(&dropped));
    let parts = futures_util::stream::repeat_with(move || {
        let _held = &gone;
        Ok::<_, Error>(vec![1; 10_000].into())
    });
    let data = Data::stream(parts).with_len(1 << 40);
    let upload = CalcStub::new(&peer).upload("early", data);
    let error = of_hbi(timeout(SOON, upload).await.expect("it ends"));
    let reason = "an answer to conversation 101 before its end";
    assert!(error.to_string().contains(reason), "{error}");
    let let_go = timeout(SOON, dropped.notified()).await;
    let_go.expect("nothing more is sent");
}

#[tokio::test]
async fn conversations_read_what_they_ask_for_and_leave_the_rest() {
    let (listener, address) = raw_server().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a peer comes");
        let mut raw = Raw(stream);
        raw.expect("[3#co_begin]101[5#]\nf()\n[3#co_end]101").await;
        // raw data that looks like packets, code between objects, and an object nobody wants
        raw.send("[3#co_ack_begin]101[18#co_ack_end]101[3#co_be[8#]print(1)")
            .await;
        raw.send("[1#co_recv]2[8#]print(3)[1#co_recv]4[3#co_ack_end]101")
            .await;
        raw.expect("[3#co_begin]102[5#]\ng()\n[3#co_end]102").await;
        raw.send("[3#co_ack_begin]102[1#co_recv]1[3#co_ack_end]102")
            .await;
        raw.expect("[3#co_begin]103[5#]\nh()\n[3#co_end]103").await;
        raw.send("[3#co_ack_begin]103[5#co_recv]1 + x").await;
        raw.0.read_to_end(&mut Vec::new()).await.expect("an end");
    });
    let (tell, mut lines) = mpsc::unbounded_channel();
    let env = HostingEnv::new()
        .on_print(move |line| tell.send(line.to_owned()).expect("the test listens"));
    let peer = hbi::connect(&address, env).await.expect("connects");
    let mut co = peer.po().co().await.expect("begins");
    co.send_code("f()").await.expect("sent");
    let mut co = co.start_recv().await.expect("goes on");
    let mut looks_like_packets = [0; 25];
    co.recv_exact(&mut looks_like_packets)
        .await
        .expect("raw data");
    assert_eq!(&looks_like_packets, b"[18#co_ack_end]101[3#co_b");
    let mut two = [0; 1];
    co.recv_exact(&mut two).await.expect("raw data");
    assert_eq!(co.recv_obj::<i64>().await.expect("an object"), 2);
    co.close().await.expect("closes");
    // a notification whose peer answers with an object all the same
    peer.notif("g()").await.expect("sent");
    for line in ["1", "3"] {
        assert_eq!(lines.recv().await.as_deref(), Some(line));
    }
    let bad = peer.script::<i64>("h()").await.expect_err("no value");
    assert!(
        bad.is_disconnected() || bad.kind() == Kind::Script,
        "{bad:?}"
    );
}

#[tokio::test]
async fn a_factory_that_refuses_is_told_as_an_err() {
    let server = hbi::serve("text+tcp://127.0.0.1:0", |_: Peer| async {
        Err(Error::refusal("not today\nor ever"))
    })
    .await
    .expect("serves");
    let mut peer = Raw::connect(&server).await;
    let rest = peer.rest().await;
    assert!(
        rest.contains("#err]") && rest.contains("not today"),
        "{rest}"
    );
    assert!(!rest.contains("ever"), "{rest}");
}

fn packet(directive: &str, payload: &str) -> String {
    format!("[{}#{directive}]{payload}", payload.len())
}

#[tokio::test]
async fn a_long_object_is_read_in_time_that_grows_with_its_length() {
    let calc = MyCalc::default();
    let (server, _ends) = serve("text+tcp://127.0.0.1:0", &calc).await;
    let mut raw = Raw::connect(&server).await;
    // a quarter of a million elements would take minutes, were each found from the beginning
    let list = format!("[{}0]", "1,\n".repeat(250_000));
    raw.send(packet("co_begin", "1")).await;
    raw.send(packet("co_send", &list)).await;
    raw.send(packet("co_end", "1")).await;
    raw.expect("[750003#co_recv][1, 1, ").await;
    // too many are refused
    let mut raw = Raw::connect(&server).await;
    let list = format!("[{}0]", "1,".repeat(300_000));
    raw.send(packet("co_begin", "1")).await;
    raw.send(packet("co_send", &list)).await;
    assert!(raw.rest().await.contains("limit `values`"));
}

#[tokio::test]
async fn a_peer_that_asks_and_never_reads_is_let_go() {
    let calc = MyCalc::default();
    let (server, mut ends) = serve("text+tcp://127.0.0.1:0", &calc).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(packet("co_begin", "1")).await;
    let ask = packet("co_send", &format!("'{}'", "x".repeat(60_000)));
    let flood = async {
        for _ in 0..2500 {
            if raw.0.write_all(ask.as_bytes()).await.is_err() {
                return;
            }
        }
        panic!("all of it was taken");
    };
    timeout(SOON, flood).await.expect("it is let go soon");
    let reason = ends.recv().await.expect("it is told");
    assert!(reason.to_string().contains("limit `unread`"), "{reason}");
}

#[tokio::test]
async fn scripts_of_one_answer_do_not_pile_up() {
    let (listener, address) = raw_server().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a peer comes");
        let mut raw = Raw(stream);
        raw.expect("[3#co_begin]101[5#]\nf()\n[3#co_end]101").await;
        raw.send("[3#co_ack_begin]101").await;
        // until the peer hangs up
        while raw.0.write_all(b"[6#]wait()").await.is_ok() {}
    });
    let env = HostingEnv::new().async_function("wait", std::future::pending::<()>);
    let peer = hbi::connect(&address, env).await.expect("connects");
    let call = peer.script::<i64>("f()");
    let error = timeout(SOON, call).await.expect("it ends").unwrap_err();
    assert!(
        error.to_string().contains("limit `back-scripts`"),
        "{error}"
    );
}

#[tokio::test]
async fn many_scripts_of_one_conversation_land_one_after_the_other() {
    let calc = MyCalc::default();
    let (server, _ends) = serve("text+tcp://127.0.0.1:0", &calc).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(packet("co_begin", "1")).await;
    // the first waits, so the others are taken in the conversation's own task; more than may wait
    let padding = " ".repeat(4000);
    raw.send(packet("", "calc.slow()")).await;
    for _ in 0..200 {
        raw.send(packet("", &format!("calc.add(1, 2){padding}")))
            .await;
    }
    raw.send(packet("co_end", "1")).await;
    calc.go_on.notify_one();
    raw.expect("[1#co_ack_begin]1").await;
    let rest = format!("{}[1#co_ack_end]1", "[1#co_recv]3".repeat(200));
    let mut answered = vec![0; "[1#co_recv]7".len()];
    timeout(SOON, raw.0.read_exact(&mut answered))
        .await
        .expect("it comes soon")
        .expect("it comes");
    raw.expect(&rest).await;
}
