//! Peers that do not follow the rules of the QUIC wire: each is told which, its connection ends, and
//! nobody else notices.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{Either, select, select_all};
use hbi::{
    HostingEnv, Kind, Options, Scheme, Settings,
    tls::ClientTls,
    wire::{
        mux::{HandleKind, WireHandle},
        quic::{
            ALPN, CLOSE_KIND, ChannelHead, Control, Opening, RESET_CLOSING, ScriptText, StreamKind,
            write_data, write_end, write_item, write_opening, write_script,
        },
    },
};
use hbi_tests::pair::{Pair, Transport};
use quinn::crypto::rustls::QuicClientConfig;

async fn server() -> hbi::Server {
    serving(Settings::default()).await
}

async fn serving(settings: Settings) -> hbi::Server {
    let options = Transport::Quic.serving(Options::new().settings(settings));
    let factory = |_peer| async {
        let env = HostingEnv::new().function("one", || 1);
        Ok(env.function("much", || vec![0_u8; 3 << 20]))
    };
    options.serve("quic://127.0.0.1:0", factory).await.unwrap()
}

/// A client that writes its streams by hand.
struct Client {
    conn: quinn::Connection,
    control: quinn::SendStream,
    /// Conversations whose answers are still wanted.
    kept: Vec<(quinn::SendStream, quinn::RecvStream)>,
    _endpoint: quinn::Endpoint,
}

impl Client {
    /// Connected, and introduced.
    async fn new(server: &hbi::Server) -> Self {
        Self::taking(server, Settings::default()).await
    }

    /// The same, of one that takes other than the usual.
    async fn taking(server: &hbi::Server, settings: Settings) -> Self {
        let mut client = Self::stranger(server).await;
        let preface = Control::Preface {
            settings: Box::new(settings),
            token: (&[][..]).into(),
        };
        client.tell(&preface).await;
        client
    }

    /// Connected, and silent.
    async fn stranger(server: &hbi::Server) -> Self {
        let Scheme::Quic(at) = server.address().scheme() else {
            panic!("{}", server.address());
        };
        let tls = ClientTls::new().pin(at.pin.unwrap());
        let tls = QuicClientConfig::try_from(tls.config(&[ALPN]).unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let address: SocketAddr = at.host.parse().unwrap();
        let conn = endpoint
            .connect_with(config, address, "localhost")
            .unwrap()
            .await
            .unwrap();
        let control = conn.open_uni().await.unwrap();
        Self {
            conn,
            control,
            kept: Vec::new(),
            _endpoint: endpoint,
        }
    }

    async fn tell(&mut self, message: &Control<'_>) {
        self.control.write_all(&written(message)).await.unwrap();
    }

    /// A conversation in which this stands.
    async fn conversation(&self, bytes: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
        let (mut send, recv) = self.conn.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        (send, recv)
    }

    /// The answer to a conversation in which this stands, to its end.
    async fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut send, mut recv) = self.conversation(bytes).await;
        send.finish().unwrap();
        let answer = soon(recv.read_to_end(100), "there is an answer").await;
        answer.unwrap()
    }

    /// Lets the server have so many turns: it takes the control stream in each.
    async fn turns(&mut self, turns: u32) {
        let mut control = self.conn.accept_uni().await.unwrap();
        let mut told = Vec::new();
        for number in 1..=turns {
            self.tell(&Control::Define {
                number,
                parameters: Vec::new(),
                source: "one()".into(),
            })
            .await;
            let defined = written(&Control::Defined(number));
            while !told.ends_with(&defined) {
                let chunk = control.read_chunk(100, true).await.unwrap().unwrap();
                told.extend_from_slice(&chunk.bytes);
            }
        }
    }

    async fn unidirectional(&self, bytes: &[u8]) -> quinn::SendStream {
        let mut send = self.conn.open_uni().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send
    }

    /// Why the server ends the connection.
    async fn ended(&self, rule: &str) -> String {
        let what = format!("the connection goes on, where {rule}");
        match soon(self.conn.closed(), &what).await {
            quinn::ConnectionError::ApplicationClosed(closed) => {
                String::from_utf8(closed.reason.to_vec()).unwrap()
            }
            other => panic!("{other}"),
        }
    }
}

fn written(message: &Control<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    bytes
}

/// The page that writes the wire down.
const PAGE: &str = include_str!("../../docs/quic.md");

/// The bytes of an example of the page.
fn vector(name: &str) -> Vec<u8> {
    let (_, rest) = PAGE
        .split_once(&format!("```vector {name}\n"))
        .unwrap_or_else(|| panic!("the page has no example {name}"));
    let (hex, _) = rest.split_once("```").unwrap();
    hex.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn the_examples_of_the_page_are_what_is_written() {
    let preface = Control::Preface {
        settings: Box::new(Settings::default()),
        token: (&[][..]).into(),
    };
    assert_eq!(vector("preface"), written(&preface));
    let mut control = Vec::new();
    for message in [
        Control::Define {
            number: 1,
            parameters: vec!["a0".into(), "a1".into()],
            source: "calc::add(a0, a1)".into(),
        },
        Control::Defined(1),
        Control::Release {
            object: 3,
            count: 1,
        },
        Control::Seen {
            receivers: true,
            number: 5,
            channel: 0,
            handles: 2,
        },
        Control::Goodbye(7),
        Control::Done(9),
        Control::Close {
            kind: hbi::Kind::Refused,
            reason: "no".into(),
        },
    ] {
        message.write(&mut control);
    }
    assert_eq!(vector("control"), control);
    let script = |inline| match inline {
        false => ScriptText::Number(1),
        true => ScriptText::Inline {
            parameters: vec!["a0".into()],
            source: "f(a0)".into(),
        },
    };
    let mut openings = Vec::new();
    for (number, inline) in [(1, true), (2, false)] {
        let opening = Opening {
            number,
            landing: number,
            script: Some(script(inline)),
            value: true,
            last: true,
            remaining: (!inline).then_some(Duration::from_secs(1)),
            depth: 0,
            trace: None,
            arguments: &[0x91, 0x05],
            handles: &[],
        };
        write_opening(&mut openings, &opening);
    }
    assert_eq!(vector("openings"), openings);
    let mut frames = Vec::new();
    write_script(&mut frames, &script(false), false, &[0x90], &[]);
    write_data(&mut frames, 3);
    frames.extend_from_slice(b"abc");
    write_data(&mut frames, 0);
    write_item(&mut frames, 6, true, &[stream(1)]);
    frames.extend_from_slice(&[0xd6, 72, 0, 0, 0, 0]);
    write_end(&mut frames);
    assert_eq!(vector("frames"), frames);
    assert_eq!(vector("channel"), channel(5, true, 1));
}

/// An opening that asks for the value of `one()`.
fn opening(number: u64, landing: u64, last: bool, handles: &[WireHandle]) -> Vec<u8> {
    opening_with(number, landing, last, &[0x90], handles)
}

/// The same with these arguments.
fn opening_with(
    number: u64,
    landing: u64,
    last: bool,
    arguments: &[u8],
    handles: &[WireHandle],
) -> Vec<u8> {
    opening_of("one()", number, landing, last, arguments, handles)
}

/// An opening that asks for the value of a script.
fn opening_of(
    source: &str,
    number: u64,
    landing: u64,
    last: bool,
    arguments: &[u8],
    handles: &[WireHandle],
) -> Vec<u8> {
    let script = ScriptText::Inline {
        parameters: Vec::new(),
        source: source.into(),
    };
    let mut bytes = Vec::new();
    write_opening(
        &mut bytes,
        &Opening {
            number,
            landing,
            script: Some(script),
            value: true,
            last,
            remaining: None,
            depth: 0,
            trace: None,
            arguments,
            handles,
        },
    );
    bytes
}

/// A call of a method without arguments.
fn calling(source: &str, number: u64) -> Vec<u8> {
    opening_of(source, number, number, true, &[0x90], &[])
}

/// What comes soon, where all is well.
async fn soon<T>(future: impl Future<Output = T>, what: &str) -> T {
    let soon = tokio::time::timeout(Duration::from_secs(20), future).await;
    soon.unwrap_or_else(|_| panic!("{what}"))
}

fn stream(number: u32) -> WireHandle {
    WireHandle {
        kind: HandleKind::Stream,
        number,
    }
}

fn channel(number: u64, receivers: bool, channel: u16) -> Vec<u8> {
    let head = ChannelHead {
        receivers,
        number,
        channel,
    };
    [&[StreamKind::Channel.to_byte()], &head.to_bytes()[..]].concat()
}

/// Breaks a rule on a connection of its own; the server says which, and serves others.
async fn breaks<F: Future<Output = Client>>(
    server: &hbi::Server,
    rule: &str,
    how: impl FnOnce(Client) -> F,
) {
    let client = how(Client::new(server).await).await;
    let reason = client.ended(rule).await;
    assert!(reason.contains(rule), "`{rule}` is not in: {reason}");
}

#[tokio::test]
async fn by_the_rules_it_works() {
    let server = server().await;
    let client = Client::new(&server).await;
    for number in 1..=3 {
        let (_send, mut recv) = client
            .conversation(&opening(number, number, true, &[]))
            .await;
        let answer = recv.read_to_end(100).await.unwrap();
        let mut expected = Vec::new();
        write_item(&mut expected, 1, true, &[]);
        expected.push(1);
        assert_eq!(answer, expected);
    }
}

#[tokio::test]
async fn what_stands_in_conversations_is_checked() {
    let server = server().await;
    for (bytes, rule) in [
        (vec![0x33, 0, 0, 0, 0], "unknown kind 0x33"),
        (vec![0x04, 255, 255, 255, 255], "Settings::message"),
        (vec![0x02, 1, 0, 0, 0, 0x80], "reserved flags"),
        (vec![0x02, 1, 0, 0, 0, 0], "ends within its fields"),
        (vec![0x06, 0, 0, 0, 0], "does not begin with an opening"),
        (opening(0, 1, true, &[]), "conversation 0 was opened twice"),
        (
            {
                let text = ScriptText::Number(1 << 20);
                let mut bytes = opening(1, 1, false, &[]);
                write_script(&mut bytes, &text, true, &[0x90], &[]);
                bytes
            },
            "Settings::scripts",
        ),
        (
            {
                let mut bytes = opening(1, 1, false, &[]);
                bytes.extend_from_slice(&opening(2, 2, false, &[]));
                bytes
            },
            "where there can be none",
        ),
        (
            opening(1, 1, true, &[stream(65)]),
            "stream 65 named where 64 is the last",
        ),
        (
            opening(1, 1, true, &[stream(0)]),
            "stream 0 named where 64 is the last",
        ),
        (
            opening(1, 1, true, &[stream(7), stream(2), stream(7)]),
            "stream 7 was named twice",
        ),
    ] {
        breaks(&server, rule, |mut client| async move {
            let streams = client.conversation(&bytes).await;
            client.kept.push(streams);
            client
        })
        .await;
    }
    breaks(&server, "ended before its opening", |client| async {
        let (mut send, _recv) = client.conversation(&[]).await;
        send.finish().unwrap();
        client
    })
    .await;
    works(&server).await;
}

/// A list of one binary of so many bytes.
fn bytes(n: u32) -> Vec<u8> {
    let mut list = vec![0x91, 0xc6];
    list.extend_from_slice(&n.to_be_bytes());
    list.resize(list.len() + n as usize, 7);
    list
}

#[tokio::test]
async fn what_waits_for_a_place_that_is_left_out_is_bounded() {
    let mut settings = Settings::default();
    settings.conversations = 64;
    settings.held = 1 << 20;
    let server = serving(settings).await;
    breaks(&server, "has a place in the order", |client| async {
        let large = opening_with(1, 2, true, &bytes(100_000), &[]);
        client.conversation(&large).await;
        client
    })
    .await;
    // the first never comes
    breaks(&server, "wait for the one at place 1", |mut client| async {
        for number in 1..=20 {
            let opening = opening_with(number, number + 1, true, &bytes(60_000), &[]);
            let streams = client.conversation(&opening).await;
            client.kept.push(streams);
        }
        client
    })
    .await;
    works(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_may_end_while_scripts_with_objects_are_made_ready() {
    let server = server().await;
    let script = ScriptText::Inline {
        parameters: vec!["x".into()],
        source: "one()".into(),
    };
    for _ in 0..30 {
        let mut client = Client::new(&server).await;
        for number in 1..=60 {
            let objects = [1, 2, 3, 4].map(|n| WireHandle {
                kind: HandleKind::Object,
                number: number as u32 * 8 + n,
            });
            let mut bytes = opening(number, number, false, &[]);
            write_script(&mut bytes, &script, true, &[0x91, 0x05], &objects);
            let streams = client.conversation(&bytes).await;
            client.kept.push(streams);
        }
        let close = Control::Close {
            kind: Kind::Refused,
            reason: "gone".into(),
        };
        client.tell(&close).await;
        client.conn.closed().await;
    }
    works(&server).await;
}

#[tokio::test]
async fn gaps_in_numbers_end() {
    let mut settings = Settings::default();
    settings.conversations = 1;
    let server = serving(settings).await;
    breaks(&server, "behind number 1, which was not", |client| async {
        for number in 2.. {
            // without a place in the order, so that each is over at once
            let Ok((mut send, mut recv)) = client.conn.open_bi().await else {
                break;
            };
            let written = send.write_all(&opening(number, 0, true, &[])).await;
            if written.is_err() || recv.read_to_end(100).await.is_err() {
                break;
            }
        }
        client
    })
    .await;
    works(&server).await;
}

#[tokio::test]
async fn numbers_leave_room_for_whose_they_are() {
    let server = server().await;
    breaks(&server, "is the last", |client| async {
        client
            .conversation(&opening(1 << 63 | 1, 1, true, &[]))
            .await;
        client
    })
    .await;
    breaks(&server, "is the last", |client| async {
        client.unidirectional(&channel(1 << 63, true, 1)).await;
        client
    })
    .await;
    works(&server).await;
}

#[tokio::test]
async fn large_messages_take_turns_in_what_a_server_holds() {
    let mut settings = Settings::default();
    settings.held = 1 << 20;
    settings.window = 64 << 10;
    let server = serving(settings).await;
    let client = Client::new(&server).await;
    let script = ScriptText::Inline {
        parameters: vec!["b".into()],
        source: "one()".into(),
    };
    let mut message = Vec::new();
    write_script(&mut message, &script, true, &bytes(700_000), &[]);
    write_end(&mut message);
    let half = message.len() / 2;
    let (mut sending, mut answers) = (Vec::new(), Vec::new());
    for number in 1..=4_usize {
        let mut bytes = opening(number as u64, number as u64, false, &[]);
        bytes.extend_from_slice(&message[..6]);
        let (mut send, recv) = client.conversation(&bytes).await;
        answers.push(Some(recv));
        let message = &message;
        sending.push(Box::pin(async move {
            send.write_all(&message[6..half]).await.unwrap();
            (number - 1, send)
        }));
    }
    // there is room for one: only that is read
    let ((first, mut send), _, others) = select_all(sending).await;
    // however much is done meanwhile
    let calls = async {
        for number in 5..200 {
            let opening = opening(number, number, true, &[]);
            let (_send, mut recv) = client.conversation(&opening).await;
            recv.read_to_end(100).await.unwrap();
        }
    };
    let others = match select(select_all(others), pin!(calls)).await {
        Either::Left(_) => panic!("another is read beside the first"),
        Either::Right(((), others)) => others,
    };
    send.write_all(&message[half..]).await.unwrap();
    let answer = answers[first].take().unwrap().read_to_end(100).await;
    let answer = answer.unwrap();
    // then the next
    let _next = others.await;
    assert_eq!(answer.last_chunk(), Some(&[0x06, 0, 0, 0, 0]));
}

#[tokio::test]
async fn large_messages_that_wait_leave_a_window_to_others() {
    let mut settings = Settings::default();
    settings.held = 1 << 20;
    settings.window = 64 << 10;
    let server = serving(settings).await;
    let client = Client::new(&server).await;
    let script = ScriptText::Inline {
        parameters: vec!["b".into()],
        source: "one()".into(),
    };
    let mut message = Vec::new();
    write_script(&mut message, &script, true, &bytes(300_000), &[]);
    write_end(&mut message);
    let message = bytes::Bytes::from(message);
    // all land before any of them takes of the connection's window
    let mut landed = Vec::new();
    for number in 1..=40 {
        let bytes = opening(number, number, false, &[]);
        let (send, mut recv) = client.conversation(&bytes).await;
        let mut one = Vec::new();
        write_item(&mut one, 1, false, &[]);
        one.push(1);
        let mut answer = vec![0; one.len()];
        recv.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, one);
        landed.push((send, recv));
    }
    let mut writing = tokio::task::JoinSet::new();
    for (mut send, mut recv) in landed {
        let message = message.clone();
        writing.spawn(async move {
            // it is stopped where there is no room, and none to wait for it; who waits for the
            // connection's window to write may not be told
            let stopped = send.stopped();
            let whole = tokio::select! {
                written = send.write_all(&message) => written.is_ok(),
                _ = stopped => false,
            };
            (whole, recv.read_to_end(1 << 10).await.unwrap())
        });
    }
    let mut whole = 0;
    // their windows together are more than twice the connection's
    let all = async {
        while let Some(ended) = writing.join_next().await {
            match ended.unwrap() {
                (true, answer) => {
                    assert_eq!(answer.last_chunk(), Some(&[0x06, 0, 0, 0, 0]));
                    whole += 1;
                }
                (false, answer) => {
                    let why = String::from_utf8_lossy(&answer);
                    assert!(why.contains("Settings::held"), "{why}");
                }
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
    ended.expect("what waits for room holds up what has some");
    // those that there is room for, and those whose windows are three quarters of the connection's
    assert!(whole >= 15, "{whole} of 40 came whole");
    works(&server).await;
}

#[tokio::test]
async fn numbers_are_used_once() {
    let server = server().await;
    breaks(&server, "conversation 1 was opened twice", |client| async {
        client.conversation(&opening(1, 1, true, &[])).await;
        client.conversation(&opening(1, 2, true, &[])).await;
        client
    })
    .await;
    for second in [1, 3] {
        breaks(&server, "in the order was used", |client| async move {
            // the third waits for the second, which never comes
            for (number, landing) in [(1, 1), (2, 3), (3, second)] {
                client
                    .conversation(&opening(number, landing, true, &[]))
                    .await;
            }
            client
        })
        .await;
    }
    works(&server).await;
}

#[tokio::test]
async fn streams_are_what_was_told() {
    let server = server().await;
    for (bytes, rule) in [
        (vec![9], "unknown kind 0x09"),
        (vec![StreamKind::Control.to_byte()], "second control stream"),
        (channel(1, true, 1), "conversation 1, which was not opened"),
        ([&[2, 5][..], &[0; 10]].concat(), "of neither side"),
    ] {
        breaks(&server, rule, |client| async move {
            client.unidirectional(&bytes).await;
            client
        })
        .await;
    }
    breaks(&server, "channel 1 was opened twice", |client| async {
        for _ in 0..2 {
            client.unidirectional(&channel(1, false, 1)).await;
        }
        client
    })
    .await;
    works(&server).await;
}

#[tokio::test]
async fn what_is_told_on_the_control_stream_is_checked() {
    let server = server().await;
    let define = |number| Control::Define {
        number,
        parameters: Vec::new(),
        source: "one()".into(),
    };
    for (messages, rule) in [
        (vec![define(0)], "script number 0 defined"),
        (vec![define(1 << 20)], "Settings::scripts"),
        (vec![define(1), define(1)], "script 1 was defined twice"),
        (vec![Control::Defined(0)], "which was not defined"),
        (
            vec![Control::Release {
                object: 3,
                count: 1,
            }],
            "object 3 released",
        ),
    ] {
        breaks(&server, rule, |mut client| async move {
            for message in &messages {
                client.tell(message).await;
            }
            client
        })
        .await;
    }
    breaks(&server, "unknown kind 0x30", |mut client| async {
        client.control.write_all(&[0x30, 0, 0, 0, 0]).await.unwrap();
        client
    })
    .await;
    works(&server).await;
}

#[tokio::test]
async fn only_a_script_that_was_defined_is_acknowledged() {
    let server = server().await;
    let mut settings = Settings::default();
    settings.scripts = u32::MAX;
    let mut client = Client::taking(&server, settings).await;
    client.tell(&Control::Defined(u32::MAX - 1)).await;
    let reason = client.ended("nothing was defined").await;
    assert!(reason.contains("which was not defined"), "{reason}");
    works(&server).await;
}

#[tokio::test]
async fn streams_that_nobody_waits_for_are_stopped() {
    let server = server().await;
    let client = Client::new(&server).await;
    let (_send, mut recv) = client.conversation(&opening(1, 1, true, &[])).await;
    recv.read_to_end(100).await.unwrap();
    let mut bytes = channel(1, false, 1);
    write_data(&mut bytes, 3);
    bytes.extend_from_slice(b"abc");
    write_end(&mut bytes);
    let send = client.unidirectional(&bytes).await;
    assert!(send.stopped().await.unwrap().is_some());
    assert!(client.conn.close_reason().is_none());
}

#[tokio::test]
async fn who_is_done_with_a_conversation_before_its_end_has_given_up() {
    let Pair {
        server,
        seen,
        peer: _peer,
        ..
    } = Transport::Quic.pair().await;
    let mut client = Client::new(&server).await;
    let streams = client.conversation(&calling("work::wait(1)", 1)).await;
    client.kept.push(streams);
    let waiting = seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1);
    soon(waiting, "the method is called").await;
    // that the stream is stopped may come late, or never: then it has been reset
    client.tell(&done_with(1)).await;
    let cancelled = seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == 1);
    soon(cancelled, "the method is cancelled").await;
    assert!(client.conn.close_reason().is_none());
}

#[tokio::test]
async fn conversations_whose_streams_have_ended_count_as_long_as_they_go_on() {
    let mut settings = Settings::default();
    settings.conversations = 8;
    let called = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&called);
    let quiet = move || {
        count.fetch_add(1, Ordering::SeqCst);
        hbi::Items::stream(futures_util::stream::pending::<i64>())
    };
    let Pair {
        server,
        peer: _peer,
        ..
    } = Transport::Quic
        .pair_with(
            Options::new().settings(settings),
            Options::new(),
            move |env| env.function("quiet", quiet.clone()),
        )
        .await;
    let mut client = Client::new(&server).await;
    for number in 1..=8 {
        client.answer(&calling("quiet()", number)).await;
    }
    // the stream of none of them is open, so it may be opened
    let (mut send, mut recv) = client.conversation(&calling("quiet()", 9)).await;
    send.finish().unwrap();
    {
        let turns = pin!(client.turns(100));
        let answer = pin!(recv.read_chunk(100, true));
        match select(answer, turns).await {
            Either::Left(_) => panic!("nine are open at once"),
            Either::Right(((), _)) => assert_eq!(called.load(Ordering::SeqCst), 8),
        }
    }
    // one is over: its stream is not wanted any more
    client
        .tell(&Control::Seen {
            receivers: false,
            number: 3,
            channel: 1,
            handles: 0,
        })
        .await;
    let answer = soon(recv.read_to_end(100), "the next is taken").await;
    assert!(!answer.unwrap().is_empty());
}

#[tokio::test]
async fn conversations_that_are_taken_back_before_they_open_take_no_room() {
    let mut settings = Settings::default();
    settings.conversations = 2;
    let server = serving(settings).await;
    let client = Client::new(&server).await;
    let whole = calling("one()", 1);
    for _ in 0..8 {
        let (mut send, _recv) = soon(client.conversation(&whole[..3]), "it may be opened").await;
        send.reset(RESET_CLOSING.into()).unwrap();
    }
    soon(client.answer(&whole), "the next is taken").await;
}

/// Says that of an answer nothing was seen, and nothing will be.
fn done_with(number: u64) -> Control<'static> {
    Control::Seen {
        receivers: false,
        number,
        channel: 0,
        handles: 0,
    }
}

/// The head of an opening after which so many bytes of arguments are to follow.
fn large_opening(number: u64, follow: usize) -> Vec<u8> {
    let mut bytes = opening(number, 0, true, &[]);
    let len = follow + bytes.len() - 5;
    bytes[1..5].copy_from_slice(&(len as u32).to_le_bytes());
    bytes
}

#[tokio::test]
async fn few_large_openings_are_put_together_at_once() {
    let server = server().await;
    let client = Client::new(&server).await;
    let (begun, mut beginning) = tokio::sync::mpsc::unbounded_channel();
    let (go, _) = tokio::sync::watch::channel(false);
    let mut writing = tokio::task::JoinSet::new();
    for number in 1..=12 {
        let left = 3 << 20;
        let head = large_opening(number, left);
        let (mut send, mut recv) = client.conversation(&head).await;
        let (begun, mut going) = (begun.clone(), go.subscribe());
        writing.spawn(async move {
            // more than waits in a stream that nobody reads
            send.write_all(&vec![0; 1 << 20]).await.unwrap();
            begun.send(()).unwrap();
            going.wait_for(|go| *go).await.unwrap();
            send.write_all(&vec![0; left - (1 << 20)]).await.unwrap();
            send.finish().unwrap();
            recv.read_to_end(1 << 10).await.unwrap()
        });
    }
    for _ in 0..4 {
        beginning.recv().await.unwrap();
    }
    // others go on meanwhile
    for number in 13..=33 {
        let (_send, mut recv) = client
            .conversation(&opening(number, number - 12, true, &[]))
            .await;
        recv.read_to_end(100).await.unwrap();
    }
    let mut more = 0;
    while beginning.try_recv().is_ok() {
        more += 1;
    }
    assert!(more <= 1, "{} are put together at once", 4 + more);
    go.send_replace(true);
    while let Some(answer) = writing.join_next().await {
        assert!(!answer.unwrap().is_empty());
    }
}

#[tokio::test]
async fn few_large_openings_wait_for_answers_to_be_taken() {
    let mut settings = Settings::default();
    settings.held = 2 << 20;
    settings.frame = 16 << 10;
    settings.window = 16 << 10;
    settings.message = 128 << 10;
    // more than waits in a stream that nobody reads
    const LEFT: usize = 127 << 10;
    let server = serving(settings).await;
    let mut client = Client::new(&server).await;
    let (whole, mut writing) = tokio::sync::mpsc::unbounded_channel();
    let (go, _) = tokio::sync::watch::channel(false);
    let mut calls = tokio::task::JoinSet::new();
    for number in 1..=12 {
        let head = large_opening(number, LEFT);
        let (mut send, mut recv) = client.conversation(&head).await;
        let (whole, mut going) = (whole.clone(), go.subscribe());
        calls.spawn(async move {
            going.wait_for(|go| *go).await.unwrap();
            send.write_all(&[0; LEFT]).await.unwrap();
            whole.send(()).unwrap();
            recv.read_to_end(1 << 10).await.unwrap()
        });
    }
    // more than the server holds of answers that are not taken
    let much = opening_of("much()", 13, 1, true, &[0x90], &[]);
    let (_send, mut much) = client.conversation(&much).await;
    much.read_exact(&mut [0; 5]).await.unwrap();
    go.send_replace(true);
    for _ in 0..4 {
        writing.recv().await.unwrap();
    }
    // the server goes on meanwhile
    let (mut control, mut told) = (client.conn.accept_uni().await.unwrap(), Vec::new());
    for number in 1..=200 {
        client
            .tell(&Control::Define {
                number,
                parameters: Vec::new(),
                source: "one()".into(),
            })
            .await;
        let defined = written(&Control::Defined(number));
        while !told.ends_with(&defined) {
            let chunk = control.read_chunk(1 << 10, true).await.unwrap().unwrap();
            told.extend_from_slice(&chunk.bytes);
        }
    }
    assert!(writing.try_recv().is_err(), "more are put together");
    much.read_to_end(4 << 20).await.unwrap();
    while let Some(answer) = calls.join_next().await {
        assert!(!answer.unwrap().is_empty());
    }
}

#[tokio::test]
async fn little_is_taken_of_strangers() {
    let mut defences = hbi::Defences::default();
    defences.handshake = Duration::from_millis(300);
    let options = Transport::Quic.serving(Options::new().defences(defences));
    let factory = |_peer| async { Ok(HostingEnv::new().function("one", || 1)) };
    let server = options.serve("quic://127.0.0.1:0", factory).await.unwrap();
    let client = Client::stranger(&server).await;
    let (mut send, _recv) = client.conversation(&opening(1, 1, false, &[])).await;
    let flood = send.write_all(&[0; 200 << 10]).await;
    assert!(flood.is_err(), "more was taken than of a stranger");
    works(&server).await;
}

#[tokio::test]
async fn whatever_a_peer_calls_its_end_the_connection_is_gone() {
    let (tell, mut peers) = tokio::sync::mpsc::unbounded_channel();
    let options = Transport::Quic.serving(Options::new());
    let factory = move |peer| {
        let _ = tell.send(peer);
        async { Ok(HostingEnv::new().function("one", || 1)) }
    };
    let server = options.serve("quic://127.0.0.1:0", factory).await.unwrap();
    for kind in [Kind::Refused, Kind::Limit, Kind::NotLanded, Kind::Panic] {
        let client = Client::new(&server).await;
        let (_send, mut recv) = client.conversation(&opening(1, 1, true, &[])).await;
        recv.read_to_end(100).await.unwrap();
        let code = CLOSE_KIND + u8::from(kind) as u32;
        client.conn.close(code.into(), b"no");
        let reason = peers.recv().await.unwrap().wait_closed().await;
        assert!(reason.is_disconnected(), "{kind:?}: {reason:?}");
    }
}

async fn works(server: &hbi::Server) {
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new()).await;
    let one: i64 = peer.unwrap().script("one()").await.unwrap();
    assert_eq!(one, 1);
}
