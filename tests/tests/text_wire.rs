//! The text wire against recorded sessions of the existing peers, from both sides, and against bad
//! peers.

mod chat;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use chat::{ChatHost, ChatStub, ConsumerHost, ConsumerStub, Msg, MsgsInRoom, Room};
use hbi::{
    HostingEnv,
    env::Kept,
    wire::text::{Event, Receiver},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

macro_rules! capture {
    ($name:literal) => {
        (
            &include_bytes!(concat!("../data/text-wire/", $name, "/c2s.bin"))[..],
            &include_bytes!(concat!("../data/text-wire/", $name, "/s2c.bin"))[..],
        )
    };
}

/// A span: whether it answers, its number, its bytes, and what it says, told comparably.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    ack: bool,
    seq: String,
    said: Vec<String>,
}

/// Takes spans off a stream; the applications of the recordings tell how much raw data comes.
struct Spans {
    receiver: Receiver,
    input: bytes::BytesMut,
    open: Option<Span>,
    raw: Vec<u8>,
}

impl Spans {
    fn new() -> Self {
        Self {
            receiver: Receiver::new(1 << 20),
            input: bytes::BytesMut::new(),
            open: None,
            raw: Vec::new(),
        }
    }

    /// Feeds bytes; the spans that are complete now.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Span> {
        self.input.extend_from_slice(bytes);
        let mut spans = Vec::new();
        while let Some(event) = self.receiver.next(&mut self.input).expect("well formed") {
            self.receiver.expect_raw(raw_behind(&event));
            match event {
                Event::Begin(seq) => self.begin(false, seq),
                Event::AckBegin(seq) => self.begin(true, seq),
                Event::Raw(bytes) => {
                    self.raw.extend_from_slice(&bytes);
                    if self.receiver.raw_expected() == 0 {
                        let raw = std::mem::take(&mut self.raw);
                        self.say(format!("raw {raw:?}"));
                    }
                }
                Event::Code(source) => self.say(format!("code {}", comparable(&source))),
                Event::Object(source) => self.say(format!("object {}", comparable(&source))),
                Event::End | Event::AckEnd => spans.extend(self.open.take()),
                Event::Ask(_) | Event::Error(_) => panic!("{event:?}"),
            }
        }
        spans
    }

    fn begin(&mut self, ack: bool, seq: String) {
        let said = Vec::new();
        self.open = Some(Span { ack, seq, said });
    }

    fn say(&mut self, said: String) {
        self.open.as_mut().expect("within a span").said.push(said);
    }
}

fn raw_behind(event: &Event) -> u64 {
    let number = |text: Option<&str>| text.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    match event {
        Event::Code(text) if text.starts_with("\nSay(") || text.starts_with("\nRecvFile(") => {
            number(text.trim().trim_end_matches(')').rsplit(',').next())
        }
        Event::Object(text) if text.contains("last modified") => {
            number(text.trim_start_matches('[').split(',').next())
        }
        _ => 0,
    }
}

/// A script without what differs between peers and runs: quotes and blanks, addresses, times.
fn comparable(source: &str) -> String {
    let mut text = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if let Some(port) = rest.strip_prefix("127.0.0.1:") {
            text.push_str("ADDRESS");
            rest = port.trim_start_matches(|c: char| c.is_ascii_digit());
        } else if let Some(time) = rest.strip_prefix("last modified: ") {
            text.push_str("modified");
            rest = &time["2026-11-23 01:56:31".len()..];
        } else if rest.starts_with("17953989") {
            text.push('0');
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        } else {
            text.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    let program = hbi::script::python::Program::parse(&text, 64).expect("a script");
    let mut shown = String::new();
    let whole = format!("{program:?}");
    let mut parts = whole.split("place: Place { ");
    shown.push_str(parts.next().expect("the first part"));
    for part in parts {
        shown.push_str(part.split_once('}').expect("a place ends").1);
    }
    shown
}

/// Cuts bytes into pieces of odd sizes.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut size = 0;
    std::iter::from_fn(move || {
        size = size * 7 % 13 + 1;
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The bytes of each span of a recording.
fn split(bytes: &[u8]) -> Vec<(Span, &[u8])> {
    let mut spans = Spans::new();
    let mut from = 0;
    let mut all = Vec::new();
    for to in 1..=bytes.len() {
        if let Some(span) = spans.feed(&bytes[to - 1..to]).pop() {
            all.push((span, &bytes[from..to]));
            from = to;
        }
    }
    assert_eq!(from, bytes.len());
    all
}

/// Plays the other side of a recording: writes its spans, each answer once what it answers has come;
/// `push` is called where the recorded peer was pushed something by a third. Returns what came.
async fn play(
    stream: TcpStream,
    recorded: &'static [u8],
    one_at_a_time: bool,
    mut push: Option<impl FnMut(usize)>,
) -> Vec<Span> {
    let (mut read, mut write) = stream.into_split();
    let (came, mut coming) = watch::channel(Vec::<Span>::new());
    let reading = tokio::spawn(async move {
        let mut spans = Spans::new();
        let mut buffer = [0; 4096];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) | Err(_) => return came,
                Ok(n) => {
                    let new = spans.feed(&buffer[..n]);
                    came.send_modify(|all| all.extend(new));
                }
            }
        }
    });
    let mut pushes = 0;
    for (span, bytes) in split(recorded) {
        let there = |all: &Vec<Span>, ack: bool| {
            all.iter()
                .any(|other| other.ack == ack && other.seq == span.seq)
        };
        if span.ack {
            let greeting = span.seq == "101";
            if let Some(push) = &mut push
                && !greeting
                && !there(&coming.borrow(), false)
            {
                push(pushes);
                pushes += 1;
            }
            let wait = coming.wait_for(|all| there(all, false));
            drop(timeout(SOON, wait).await.expect("what is answered comes"));
        }
        for piece in pieces(bytes) {
            write.write_all(piece).await.expect("the peer reads");
            tokio::task::yield_now().await;
        }
        if !span.ack && one_at_a_time {
            let wait = coming.wait_for(|all| there(all, true));
            drop(timeout(SOON, wait).await.expect("an answer comes"));
        }
    }
    if one_at_a_time {
        drop(write);
    }
    let came = timeout(SOON, reading).await.expect("the peer hangs up");
    came.expect("the reader does not panic").borrow().clone()
}

/// Spans in an order of their own: those of both kinds may overtake each other.
fn sorted(spans: &[Span]) -> BTreeSet<Span> {
    spans.iter().cloned().collect()
}

fn recorded_spans(bytes: &[u8]) -> Vec<Span> {
    split(bytes).into_iter().map(|(span, _)| span).collect()
}

#[tokio::test]
async fn our_hello_server_answers_recorded_clients_as_theirs_did() {
    for (c2s, s2c) in [
        capture!("hello-go-client-go-server"),
        capture!("hello-go-client-py-server"),
        capture!("hello-py-client-go-server"),
        capture!("hello-py-client-py-server"),
    ] {
        let server = hbi::serve("text+tcp://127.0.0.1:0", |peer: hbi::Peer| async move {
            let env = HostingEnv::new();
            let kept = env.kept();
            Ok(env
                .async_function("hello", move || {
                    let (kept, peer) = (kept.clone(), peer.clone());
                    async move {
                        let name: Option<String> = kept.get("my_name").expect("a string");
                        format!(
                            "Hello, {} from {}!",
                            name.unwrap_or_default(),
                            peer.address()
                        )
                    }
                })
                .on_connect(|po| async move {
                    po.notif("print(\"Welcome to HBI world!\")")
                        .await
                        .expect("sent");
                }))
        })
        .await
        .expect("serves");
        let stream = connect(&server).await;
        let came = play(stream, c2s, true, None::<fn(usize)>).await;
        assert_eq!(sorted(&came), sorted(&recorded_spans(s2c)));
    }
}

#[tokio::test]
async fn our_hello_client_talks_to_recorded_servers_as_theirs_did() {
    for (c2s, s2c) in [
        capture!("hello-go-client-go-server"),
        capture!("hello-go-client-py-server"),
        capture!("hello-py-client-go-server"),
        capture!("hello-py-client-py-server"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("has an address");
        let playing = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a peer comes");
            play(stream, s2c, false, None::<fn(usize)>).await
        });
        let (printed, mut lines) = mpsc::unbounded_channel();
        let env = HostingEnv::new().function("print", move |line: String| {
            printed.send(line).expect("the test listens");
        });
        let peer = hbi::connect(format!("text+tcp://{address}"), env)
            .await
            .expect("connects");
        let answer: String = peer
            .script("my_name = 'Nick'\nhello()\t")
            .await
            .expect("an answer");
        assert!(
            answer.starts_with("Hello, Nick from 127.0.0.1:"),
            "{answer}"
        );
        assert_eq!(lines.recv().await.as_deref(), Some("Welcome to HBI world!"));
        peer.close(SOON).await.expect("a clean end");
        let came = playing.await.expect("plays");
        assert_eq!(sorted(&came), sorted(&recorded_spans(c2s)));
    }
}

async fn connect(server: &hbi::Server) -> TcpStream {
    let hbi::Scheme::Tcp(address) = server.address().scheme() else {
        panic!("a TCP server");
    };
    TcpStream::connect(address).await.expect("connects")
}

/// A chat server with what its rooms hold, which makes its peers known to the test.
async fn chat_server(room: Room) -> (hbi::Server, mpsc::UnboundedReceiver<hbi::Peer>) {
    let (known, peers) = mpsc::unbounded_channel();
    let server = hbi::serve("text+tcp://127.0.0.1:0", move |peer: hbi::Peer| {
        let (room, known) = (room.clone(), known.clone());
        async move {
            known.send(peer.clone()).expect("the test listens");
            let greeting = room.greeting(peer.address());
            Ok(HostingEnv::new()
                .service(ChatHost::new(room.host(peer)))
                .on_connect(|po| async move { po.notif(greeting).await.expect("sent") }))
        }
    })
    .await
    .expect("serves");
    (server, peers)
}

/// What others in the room make the server push, in the order of the recordings.
fn pushes(which: usize) -> Vec<fn(ConsumerStub) -> hbi::Notify> {
    fn msgs(stub: ConsumerStub, from: &str, text: &str) -> hbi::Notify {
        let (from, text) = (from.to_owned(), text.to_owned());
        let msgs = vec![Msg {
            from,
            text,
            time: 1_795_398_990.25,
        }];
        stub.room_msgs(MsgsInRoom {
            room: "Tea".into(),
            msgs,
        })
    }
    match which {
        1 => vec![
            |stub| stub.chatter_joined("Stranger$127.0.0.1:1", "Tea"),
            |stub| msgs(stub, "Bob \"the\" O'Neil é", "pushed line one"),
        ],
        _ => vec![
            |stub| msgs(stub, "Nick", "second to bob"),
            |stub| {
                let text = "\n @*@ I just uploaded a file 49f047e1 5 KB [up load'1.bin]\n";
                msgs(stub, "Nick", text)
            },
            |stub| {
                let text = "\n @*@ I just uploaded a file b8b1a045 2 KB [brackets].bin]\n";
                msgs(stub, "Nick", text)
            },
            |stub| stub.chatter_left("Anonymous@127.0.0.1:1", "Tea"),
        ],
    }
}

#[tokio::test]
async fn our_chat_server_answers_recorded_clients_as_theirs_did() {
    for ((c2s, s2c), room, which) in [
        (capture!("session-py-client-py-server"), Room::python(), 1),
        (capture!("session-go-client-go-server"), Room::go(), 1),
        (
            capture!("session-py-client-py-server-2"),
            Room::python().with_talk(),
            2,
        ),
    ] {
        let (server, mut peers) = chat_server(room).await;
        let stream = connect(&server).await;
        let peer = peers.recv().await.expect("a peer");
        let push = move |index: usize| {
            let notify = pushes(which)[index](ConsumerStub::new(&peer));
            tokio::spawn(async move { notify.await.expect("sent") });
        };
        let came = play(stream, c2s, true, Some(push)).await;
        let (came, expected) = (sorted(&came), sorted(&recorded_spans(s2c)));
        for span in expected.difference(&came).chain(came.difference(&expected)) {
            eprintln!("{span:?}");
        }
        assert!(came == expected);
    }
}

async fn say(stub: &ChatStub, line: &str) {
    let mut co = stub.say(0, line.len() as u64).open().await.expect("opens");
    co.send_data(line.as_bytes().to_vec()).await.expect("sent");
    let co = co.start_recv().await.expect("sent");
    co.wait_completed().await.expect("answered");
}

/// What the recorded clients did, with our stubs.
async fn chat(stub: ChatStub, mut heard: mpsc::UnboundedReceiver<String>) {
    let hear = async |heard: &mut mpsc::UnboundedReceiver<String>, what: &str| loop {
        let line = timeout(SOON, heard.recv())
            .await
            .expect("heard soon")
            .expect("heard");
        if line.contains(what) {
            return;
        }
    };
    hear(&mut heard, "Welcome").await;
    assert_eq!(stub.set_nick("Nick").await.expect("an answer"), "Nick");
    stub.goto_room("Tea")
        .await
        .expect("sent")
        .wait_completed()
        .await
        .expect("answered");
    hear(&mut heard, "Tea: 0 messages").await;
    let lines = [
        "hello there",
        "it's \"quoted\" back\\slash [9#co_end] é你好😀",
    ];
    for line in lines {
        say(&stub, line).await;
        hear(&mut heard, "said 0").await;
    }
    hear(&mut heard, "joined").await;
    hear(&mut heard, "Bob \"the\" O'Neil é: pushed line one").await;
    say(&stub, "second to bob").await;
    hear(&mut heard, "said 0").await;
    let file = chat::file(5000);
    let ok = stub.upload_req("Tea", "up load'1.bin", 5000).await;
    assert_eq!(ok.expect("an answer"), None);
    let crc = stub.recv_file("Tea", "up load'1.bin", file.clone()).await;
    assert_eq!(crc.expect("an answer"), 0x49f0_47e1);
    let refused = stub.upload_req("Tea", "small.bin", 100).await;
    assert_eq!(
        refused.expect("an answer").as_deref(),
        Some("file too small!")
    );
    stub.upload_req("Tea", "brackets].bin", 2048)
        .await
        .expect("an answer");
    let crc = stub
        .recv_file("Tea", "brackets].bin", file[..2048].to_vec())
        .await;
    assert_eq!(crc.expect("an answer"), 0xb8b1_a045);
    let files = stub.list_files("Tea").await.expect("an answer");
    assert_eq!(files[0], (2048, "brackets].bin".to_owned()));
    let mut co = stub.send_file("Tea", "up load'1.bin").await.expect("sent");
    let (size, _): (i64, String) = co.recv_obj().await.expect("an object");
    let mut data = Vec::new();
    co.recv_data_exact(&mut data, size as u64)
        .await
        .expect("raw data");
    assert_eq!(data, file);
    assert_eq!(co.recv_obj::<u32>().await.expect("an object"), 0x49f0_47e1);
    co.wait_completed().await.expect("answered");
    let mut co = stub.send_file("Tea", "nofile").await.expect("sent");
    let refused: (i64, String) = co.recv_obj().await.expect("an object");
    assert_eq!(refused, (-1, "no such file".to_owned()));
    co.wait_completed().await.expect("answered");
    stub.set_nick("").await.expect("an answer");
    stub.goto_room("")
        .await
        .expect("sent")
        .wait_completed()
        .await
        .expect("answered");
}

#[tokio::test]
async fn our_chat_client_talks_to_recorded_servers_as_theirs_did() {
    for (c2s, s2c) in [
        capture!("session-py-client-py-server"),
        capture!("session-go-client-go-server"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("has an address");
        let playing = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a peer comes");
            play(stream, s2c, false, None::<fn(usize)>).await
        });
        let (tell, heard) = mpsc::unbounded_channel();
        let env = HostingEnv::new()
            .service(ConsumerHost::new(chat::Me(tell)))
            .constructor::<Msg>()
            .constructor::<MsgsInRoom>();
        let peer = hbi::connect(format!("text+tcp://{address}"), env)
            .await
            .expect("connects");
        chat(ChatStub::new(&peer), heard).await;
        peer.close(SOON).await.expect("a clean end");
        let came = playing.await.expect("plays");
        let (came, expected) = (sorted(&came), sorted(&recorded_spans(c2s)));
        for span in expected.difference(&came).chain(came.difference(&expected)) {
            eprintln!("{span:?}");
        }
        assert!(came == expected);
    }
}

#[tokio::test]
async fn our_chat_client_and_server_talk_to_each_other_over_either_wire() {
    for address in [
        "text+tcp://127.0.0.1:0",
        "tcp://127.0.0.1:0",
        "text+mem://chat",
    ] {
        let room = Room::python();
        let server = hbi::serve(address, move |peer: hbi::Peer| {
            let room = room.clone();
            async move { Ok(HostingEnv::new().service(ChatHost::new(room.host(peer)))) }
        })
        .await
        .expect("serves");
        let (tell, mut heard) = mpsc::unbounded_channel();
        let env = HostingEnv::new()
            .service(ConsumerHost::new(chat::Me(tell)))
            .constructor::<Msg>()
            .constructor::<MsgsInRoom>();
        let peer = hbi::connect(server.address().to_string(), env)
            .await
            .expect("connects");
        let stub = ChatStub::new(&peer);
        assert_eq!(stub.set_nick("Nick").await.expect("an answer"), "Nick");
        let file = chat::file(300_000);
        let up = stub.recv_file("Tea", "big.bin", file.clone());
        assert_eq!(up.await.expect("an answer"), chat::crc32(&file));
        let mut co = stub.send_file("Tea", "big.bin").await.expect("sent");
        let (size, _): (i64, String) = co.recv_obj().await.expect("an object");
        let mut data = Vec::new();
        co.recv_data_exact(&mut data, size as u64)
            .await
            .expect("raw data");
        assert!(data == file);
        assert_eq!(
            co.recv_obj::<u32>().await.expect("an object"),
            chat::crc32(&file)
        );
        co.close().await.expect("closes");
        if address.starts_with("text") {
            stub.goto_room("Tea")
                .await
                .expect("sent")
                .wait_completed()
                .await
                .expect("answered");
            assert!(heard.recv().await.is_some());
        }
        peer.close(SOON).await.expect("a clean end");
    }
}

#[derive(Debug, Clone, hbi::Value, hbi::Fields)]
struct User {
    id: i64,
    name: String,
}

#[hbi::service]
trait Pages {
    async fn get(&self, id: i64) -> User;
    async fn posts(&self, of: i64) -> String;
    async fn render(&self, name: String, posts: String) -> String;
    async fn add(&self, a: i64, b: i64) -> i64;
}

/// `posts` waits until both are asked for theirs.
struct MyPages(tokio::sync::Barrier);

impl Pages for MyPages {
    async fn get(&self, id: i64) -> User {
        let name = format!("user {id}");
        User { id, name }
    }

    async fn posts(&self, of: i64) -> String {
        self.0.wait().await;
        format!("posts of {of}")
    }

    async fn render(&self, name: String, posts: String) -> String {
        format!("{name}: {posts}")
    }

    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }
}

async fn pages(address: &str) -> (hbi::Server, hbi::Connection, Kept) {
    let (tell, mut kept) = mpsc::unbounded_channel();
    let server = hbi::serve(address, move |_: hbi::Peer| {
        let env = HostingEnv::new().service(PagesHost::new(MyPages(tokio::sync::Barrier::new(2))));
        tell.send(env.kept()).expect("the test listens");
        async move { Ok(env) }
    })
    .await
    .expect("serves");
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new())
        .await
        .expect("connects");
    let kept = kept.recv().await.expect("a peer came");
    (server, peer, kept)
}

#[tokio::test]
async fn compositions_that_overlap_keep_their_values_apart() {
    let (_server, peer, kept) = pages("text+mem://overlap").await;
    kept.set("v1", &5).expect("a number is kept");
    let stub = PagesStub::new(&peer);
    let page = |id: i64| {
        let user = stub.get(id);
        stub.render(user.name(), stub.posts(user.id()))
    };
    let both = async { tokio::join!(page(1), page(2)) };
    let (one, other) = timeout(SOON, both).await.expect("both are answered");
    assert_eq!(one.expect("an answer"), "user 1: posts of 1");
    assert_eq!(other.expect("an answer"), "user 2: posts of 2");
    assert_eq!(format!("{kept:?}"), "{\"v1\"}");
    assert_eq!(kept.get("v1").unwrap(), Some(5));
    peer.close(SOON).await.expect("a clean end");
}

#[tokio::test]
async fn long_compositions_land_whole() {
    let (_server, peer, _) = pages("text+mem://long").await;
    let stub = PagesStub::new(&peer);
    let chain = |calls: i64| (1..calls).fold(stub.add(0, 1), |sum, _| stub.add(sum, 1));
    for calls in [1, 2, 14, 15, 16, 17, 40, 400] {
        assert_eq!(chain(calls).await.expect("an answer"), calls);
    }
    peer.close(SOON).await.expect("a clean end");
}

#[hbi::service(flat)]
trait Addresses {
    async fn next(&self, ip: Ipv4Addr) -> Ipv4Addr;
    async fn seen(&self, guest: Guest) -> Guest;
}

/// serde takes it apart by itself, and asks no more how it was written.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind")]
enum Guest {
    From { ip: IpAddr },
}

struct MyAddresses;

impl Addresses for MyAddresses {
    async fn next(&self, ip: Ipv4Addr) -> Ipv4Addr {
        (u32::from(ip) + 1).into()
    }

    async fn seen(&self, guest: Guest) -> Guest {
        guest
    }
}

#[tokio::test]
async fn what_has_a_form_for_people_is_written_as_that_on_either_wire() {
    for address in ["mem://addresses", "text+tcp://127.0.0.1:0"] {
        let server = hbi::serve(address, |_: hbi::Peer| async {
            Ok(HostingEnv::new().service(AddressesHost::new(MyAddresses)))
        });
        let server = server.await.expect("serves");
        let peer = hbi::connect(server.address().to_string(), HostingEnv::new());
        let peer = peer.await.expect("connects");
        let addresses = AddressesStub::new(&peer);
        let next = addresses.next(Ipv4Addr::LOCALHOST);
        // an argument, an answer, and both within a composition
        let next = addresses.next(next).await.unwrap();
        assert_eq!(next, Ipv4Addr::new(127, 0, 0, 3), "{address}");
        let guest = Guest::From {
            ip: IpAddr::from([10, 0, 0, 1]),
        };
        assert_eq!(addresses.seen(&guest).await.unwrap(), guest, "{address}");
        let next: String = peer.script("next(\"10.0.0.1\")").await.unwrap();
        assert_eq!(next, "10.0.0.2", "{address}");
    }
}

/// Sends a host one packet of a conversation, and tells what comes back until `end`.
async fn told(server: &hbi::Server, packet: &str, end: &str) -> String {
    let mut stream = connect(server).await;
    let ask = format!("[3#co_begin]101{packet}[3#co_end]101");
    stream.write_all(ask.as_bytes()).await.expect("it reads");
    let mut came = Vec::new();
    let reading = async {
        while stream.read_buf(&mut came).await.expect("it writes") > 0 {
            if String::from_utf8_lossy(&came).contains(end) {
                return;
            }
        }
    };
    timeout(SOON, reading).await.expect("it comes soon");
    String::from_utf8(came).expect("it is text")
}

fn packet(kind: &str, source: &str) -> String {
    format!("[{}#{kind}]{source}", source.len())
}

#[tokio::test]
async fn what_a_value_is_padded_with_raises_no_bound() {
    let server = hbi::serve("text+tcp://127.0.0.1:0", |_: hbi::Peer| async move {
        let mut bounds = hbi::env::Bounds::default();
        bounds.expression_depth = 8;
        let pair = |a: i64, b: i64| vec![a, b];
        Ok(HostingEnv::new().function("pair", pair).bounds(bounds))
    })
    .await
    .expect("serves");
    let padding = format!("#{}\n", "x".repeat(100_000));
    let nest = |depth: usize| format!("{}pair(1, 2){}", "[".repeat(depth), "]".repeat(depth));
    for (source, name) in [
        (format!("{padding}[pair(1, 2)] * 1500"), "array"),
        (format!("{padding}[pair(1, 2), 'x' * 20000]"), "string"),
        (format!("{padding}for n in [1] {{ pair(1, 2) }}"), "source"),
        (
            format!("pair(1, 2){}pair(3, 4)", ";".repeat(20_000)),
            "source",
        ),
        (nest(9), "expression_depth"),
    ] {
        let came = told(&server, &packet("co_send", &source), "raise").await;
        assert!(came.contains(&format!("`{name}`")), "{name}: {came}");
    }
    // what stands in the text is as large as it likes
    let long = format!("[{}]", "pair(1, 2), ".repeat(5_000));
    let text = format!("[pair(1, 2), '{}']", "x".repeat(30_000));
    let entries: String = (0..5_000).map(|n| format!("{n}: pair({n}, 2), ")).collect();
    let dict = format!("{{{entries}}}");
    let two = "pair(1, 2); pair(3, 4)".to_owned();
    for source in [&long, &text, &dict, &nest(5), &two] {
        let came = told(&server, &packet("co_send", source), "[3#co_ack_end]101").await;
        assert!(came.contains("#co_recv]"), "{came}");
    }
}

#[tokio::test]
async fn a_script_answers_what_is_made_of_what_calls_gave() {
    let server = hbi::serve("text+tcp://127.0.0.1:0", |_: hbi::Peer| async move {
        let pair = |a: i64, b: i64| vec![a, b];
        Ok(HostingEnv::new()
            .function("pair", pair)
            .constructor::<User>())
    })
    .await
    .expect("serves");
    for (source, answer) in [
        ("len(pair(1, 2))", Some("2")),
        ("str(pair(1, 2)[0])", Some("\"1\"")),
        ("x = pair(3, 4)\nlen(x)", Some("2")),
        ("pair(1, 2)[0] + 1", Some("2")),
        ("print(pair(1, 2))", None),
        ("len([1])", None),
        ("pair(1, 2)\nlen([1])", None),
        ("pair(1, 2)\nUser(1, 'a')", None),
        ("pair(1, 2)\n5", None),
    ] {
        let came = told(&server, &packet("", source), "[3#co_ack_end]101").await;
        let expected = answer.map_or(String::new(), |answer| packet("co_recv", answer));
        let expected = format!("[3#co_ack_begin]101{expected}[3#co_ack_end]101");
        assert_eq!(came, expected, "{source}");
    }
}

struct MyRoom;

#[hbi::service]
trait Talk {
    async fn say(&self, line: String) -> String;
}

impl Talk for MyRoom {
    async fn say(&self, line: String) -> String {
        format!("said {line}")
    }
}

#[tokio::test]
async fn a_script_calls_an_object_that_it_has_in_a_name() {
    let server = hbi::serve("text+tcp://127.0.0.1:0", |_: hbi::Peer| async move {
        let open = || hbi::Reactor::<TalkStub>::new(TalkHost::new(MyRoom));
        Ok(HostingEnv::new().function("open", open))
    })
    .await
    .expect("serves");
    let source = "_1 = open()\n_1.say('hi')\n_1.say('ho')";
    let came = told(&server, &packet("", source), "[3#co_ack_end]101").await;
    let answer = packet("co_recv", "\"said ho\"");
    let expected = format!("[3#co_ack_begin]101{answer}[3#co_ack_end]101");
    assert_eq!(came, expected);
}

#[tokio::test]
async fn data_behind_a_loop_is_read_as_often_as_the_loop_takes_some() {
    let (tell, mut taken) = mpsc::unbounded_channel();
    let server = hbi::serve("text+tcp://127.0.0.1:0", move |_: hbi::Peer| {
        let tell = tell.clone();
        let keep = move |name: String, data: hbi::Data| {
            let tell = tell.clone();
            async move {
                let data = data.to_bytes(100).await.expect("it comes");
                tell.send((name, data)).expect("the test listens");
                // the rest is there long before the next is asked for
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }
        };
        async move { Ok(HostingEnv::new().async_function("keep", keep)) }
    })
    .await
    .expect("serves");
    let source = packet("", "for n in ['a', 'b', 'c'] { keep(n, len(n) * 5) }");
    let none = packet("", "for n in [] { keep(n, 5) }");
    for (source, data) in [(source, "first[b#bb][3#c"), (none, "")] {
        let came = told(&server, &format!("{source}{data}"), "[3#co_ack_end]101").await;
        assert_eq!(came, "[3#co_ack_begin]101[3#co_ack_end]101");
        for (name, data) in ["a", "b", "c"].iter().zip(data.as_bytes().chunks(5)) {
            let (of, took) = taken.recv().await.expect("it was taken");
            assert_eq!((&*of, &took[..]), (*name, data));
        }
    }
}

#[tokio::test]
async fn a_hook_that_panics_stops_no_script() {
    let server = hbi::serve("text+tcp://127.0.0.1:0", |_: hbi::Peer| async move {
        let pair = |a: i64, b: i64| vec![a, b];
        Ok(HostingEnv::new()
            .function("pair", pair)
            .on_print(|line| panic!("at {line}, as it should")))
    })
    .await
    .expect("serves");
    for (kind, source) in [
        ("", "print('one')\npair(1, 2)"),
        ("co_send", "pair(1, print('two') or 2)"),
    ] {
        let came = told(&server, &packet(kind, source), "[3#co_ack_end]101").await;
        assert!(came.contains(&packet("co_recv", "[1, 2]")), "{came}");
    }
}
