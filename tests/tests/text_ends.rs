//! Recorded sessions of the existing peers that break off, at any byte, before either side.

#[allow(dead_code, reason = "other tests use the rest")]
mod chat;

use std::time::Duration;

use chat::{ChatHost, ChatStub, ConsumerHost, Msg, MsgsInRoom, Room};
use hbi::{
    Error, HostingEnv, Peer,
    wire::text::{Event, Receiver},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

macro_rules! captures {
    ($($name:literal),*) => {
        [$((
            include_bytes!(concat!("../data/text-wire/", $name, "/c2s.bin")) as &[u8],
            include_bytes!(concat!("../data/text-wire/", $name, "/s2c.bin")) as &[u8],
        )),*]
    };
}

const HELLOS: [(&[u8], &[u8]); 4] = captures!(
    "hello-go-client-go-server",
    "hello-go-client-py-server",
    "hello-py-client-go-server",
    "hello-py-client-py-server"
);

const CHATS: [(&[u8], &[u8]); 3] = captures!(
    "session-go-client-go-server",
    "session-py-client-py-server",
    "session-py-client-py-server-2"
);

/// How much raw data stands behind what arrived, as the applications of the recordings know.
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

#[test]
fn an_end_at_any_byte_of_a_recording_is_clean_between_spans_only() {
    for (c2s, s2c) in HELLOS.into_iter().chain(CHATS) {
        for bytes in [c2s, s2c] {
            let mut receiver = Receiver::new(1 << 20);
            let mut input = bytes::BytesMut::new();
            let mut ends = 0;
            for (at, byte) in bytes.iter().enumerate() {
                input.extend_from_slice(&[*byte]);
                while let Some(event) = receiver.next(&mut input).expect("well formed") {
                    receiver.expect_raw(raw_behind(&event));
                }
                let between = !receiver.in_span() && input.is_empty();
                let ended = receiver.finish(&input);
                assert_eq!(ended.is_ok(), between, "byte {at}: {ended:?}");
                ends += usize::from(between);
            }
            assert!(ends > 0 && !receiver.in_span());
        }
    }
}

/// Plays the beginning of a recording, hangs up, and returns what came.
async fn break_off(mut stream: TcpStream, bytes: &[u8]) -> String {
    // who has heard enough hangs up earlier
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let end = timeout(SOON, stream.read_to_end(&mut rest)).await;
    end.expect("the peer hangs up").expect("and does it well");
    String::from_utf8_lossy(&rest).into_owned()
}

/// What an `err` packet at the end says, which is one line.
fn told(rest: &str) -> Option<&str> {
    let (_, line) = rest.split_once("#err]")?;
    assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
    Some(line)
}

async fn chat_server(ends: mpsc::UnboundedSender<Error>) -> hbi::Server {
    let room = Room::python();
    let server = hbi::serve("text+tcp://127.0.0.1:0", move |peer: Peer| {
        let (room, ends) = (room.clone(), ends.clone());
        async move {
            let greeting = room.greeting(peer.address());
            Ok(HostingEnv::new()
                .service(ChatHost::new(room.host(peer)))
                .function("hello", || "Hello!")
                .on_connect(|po| async move {
                    // a peer that is gone again needs no greeting
                    let _ = po.notif(greeting).await;
                })
                .on_disconnect(move |reason| ends.send(reason.clone()).expect("the test listens")))
        }
    });
    server.await.expect("serves")
}

async fn dial(server: &hbi::Server) -> TcpStream {
    let hbi::Scheme::Tcp(address) = server.address().scheme() else {
        panic!("a TCP server");
    };
    TcpStream::connect(address).await.expect("connects")
}

#[tokio::test]
async fn recorded_clients_that_break_off_are_told_and_nothing_hangs() {
    let (tell, mut ends) = mpsc::unbounded_channel();
    let server = chat_server(tell).await;
    for (c2s, _) in HELLOS {
        for at in 0..=c2s.len() {
            let rest = break_off(dial(&server).await, &c2s[..at]).await;
            let reason = timeout(SOON, ends.recv())
                .await
                .expect("soon")
                .expect("told");
            let reason = reason.to_string();
            match told(&rest) {
                Some(line) => assert!(line.contains("the stream ended"), "byte {at}: {line}"),
                None => assert!(
                    reason.contains("closed the connection"),
                    "byte {at}: {reason}"
                ),
            }
        }
    }
    for (c2s, _) in CHATS {
        // each byte is tried without a connection above
        for at in (0..=c2s.len()).step_by(11) {
            let rest = break_off(dial(&server).await, &c2s[..at]).await;
            told(&rest);
            timeout(SOON, ends.recv())
                .await
                .expect("soon")
                .expect("told");
        }
    }
    // none is left behind
    let left = timeout(SOON, server.shutdown(SOON)).await;
    left.expect("all of them are gone");
}

#[tokio::test]
async fn recorded_servers_that_break_off_fail_what_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("has an address");
    let sessions = HELLOS.map(|(_, s2c)| (s2c, 1)).into_iter();
    for (s2c, step) in sessions.chain(CHATS.map(|(_, s2c)| (s2c, 11))) {
        for at in (0..=s2c.len()).step_by(step) {
            let (printed, _lines) = mpsc::unbounded_channel();
            let env = HostingEnv::new()
                .service(ConsumerHost::new(chat::Me(printed)))
                .constructor::<Msg>()
                .constructor::<MsgsInRoom>();
            let connecting = hbi::connect(format!("text+tcp://{address}"), env);
            let (peer, accepted) = tokio::join!(connecting, listener.accept());
            let (peer, (stream, _)) = (peer.expect("connects"), accepted.expect("a peer"));
            let stub = ChatStub::new(&peer);
            let waiting = async {
                // the answer was recorded, or the connection ends
                let answer = timeout(SOON, stub.set_nick("Nick")).await.expect("soon");
                if let Err(error) = answer {
                    assert!(!error.to_string().is_empty());
                }
                timeout(SOON, peer.wait_closed()).await.expect("it ends")
            };
            let (reason, rest) = tokio::join!(waiting, break_off(stream, &s2c[..at]));
            if let Some(line) = told(&rest) {
                assert!(
                    reason.to_string().contains(line),
                    "byte {at}: {line}, {reason}"
                );
            }
            assert_eq!(peer.conversations().1, 0, "byte {at}");
        }
    }
}
