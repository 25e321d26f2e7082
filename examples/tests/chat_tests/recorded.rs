//! Sessions of the chat clients written in Python and Go, recorded byte by byte, played to the chat
//! as it serves the text wire.

use std::collections::BTreeMap;

use hbi::{
    script::python::Program,
    wire::text::{Event, Receiver},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedWriteHalf},
    sync::watch,
    time::timeout,
};

use super::SOON;
use crate::server;

macro_rules! recorded {
    ($name:literal, $file:literal) => {
        &include_bytes!(concat!("../../../tests/data/text-wire/", $name, "/", $file))[..]
    };
}

/// A part of a stream: the number of a conversation, whether it is an answer, what it says.
#[derive(Debug, Clone, Default)]
struct Span {
    seq: String,
    ack: bool,
    code: Vec<String>,
    objects: Vec<String>,
    raw: Vec<u8>,
}

/// Takes spans off a stream.
struct Spans {
    receiver: Receiver,
    input: bytes::BytesMut,
    open: Span,
}

impl Spans {
    fn new() -> Self {
        Self {
            receiver: Receiver::new(1 << 20),
            input: bytes::BytesMut::new(),
            open: Span::default(),
        }
    }

    /// Feeds bytes; the spans that are complete now.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Span> {
        self.input.extend_from_slice(bytes);
        let mut spans = Vec::new();
        while let Some(event) = self.receiver.next(&mut self.input).expect("well formed") {
            self.receiver.expect_raw(raw_behind(&event));
            match event {
                Event::Begin(seq) => self.open.seq = seq,
                Event::AckBegin(seq) => (self.open.seq, self.open.ack) = (seq, true),
                Event::Raw(bytes) => self.open.raw.extend_from_slice(&bytes),
                Event::Code(source) => self.open.code.extend(statements(&source)),
                Event::Object(source) => self.open.objects.push(comparable(&source)),
                Event::End | Event::AckEnd => spans.push(std::mem::take(&mut self.open)),
                Event::Ask(_) | Event::Error(_) => panic!("{event:?}"),
            }
        }
        spans
    }
}

/// How many raw bytes follow, which only the application knows.
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

/// The statements of a script, comparably.
fn statements(source: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = String::new();
    for line in source.lines().filter(|line| !line.trim().is_empty()) {
        open.push_str(line);
        open.push('\n');
        if Program::parse(&open, 64).is_ok() {
            all.push(masked(&comparable(&open)));
            open.clear();
        }
    }
    assert_eq!(open, "", "is no statement");
    all
}

/// A script without what differs between languages and runs: quotes, blanks, addresses, dates.
fn comparable(source: &str) -> String {
    let program = format!("{:?}", Program::parse(source, 64).expect("a script"));
    let mut shown = String::new();
    let mut parts = program.split("place: Place { ");
    shown.push_str(parts.next().expect("the first part"));
    for part in parts {
        shown.push_str(part.split_once('}').expect("a place ends").1);
    }
    let shown = shown.replace("Anonymous@", "Stranger$").replace("\\n", " ");
    let shown = without_digits_behind(&shown, "127.0.0.1:");
    let shown = without_digits_behind(&shown, "last modified: ");
    let words: Vec<_> = shown.split_whitespace().collect();
    // the end of a line at the end of a text
    words.join(" ").replace(" \")", "\")")
}

/// A text without the digits (and what stands between those of a date) behind a mark.
fn without_digits_behind(text: &str, mark: &str) -> String {
    let mut parts = text.split(mark);
    let mut shown = parts.next().expect("the first part").to_owned();
    for part in parts {
        let is_digit = |c: char| c.is_ascii_digit() || "-: ".contains(c);
        shown.push_str(mark);
        shown.push(' ');
        shown.push_str(part.trim_start_matches(is_digit));
    }
    shown
}

/// A statement without times: numbers of ten digits and what stands behind their point.
fn masked(statement: &str) -> String {
    let mut shown = String::new();
    let mut rest = statement;
    while let Some(from) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(from);
        let len = number.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, behind) = number.split_at(len.unwrap_or(number.len()));
        let digits = number.split('.').next().map_or(0, str::len);
        shown.push_str(before);
        shown.push_str(if digits == 10 { "TIME" } else { number });
        rest = behind;
    }
    shown.push_str(rest);
    shown
        .replace("Float(TIME)", "TIME")
        .replace("Int(TIME)", "TIME")
}

/// The spans of a recording, with their bytes.
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

/// What a conversation is answered: objects, and raw data.
type Answered = (Vec<String>, Vec<u8>);

/// What spans say: what each conversation of the client answers, and all statements, sorted.
fn said(spans: &[Span]) -> (BTreeMap<String, Answered>, Vec<String>) {
    let answers = spans.iter().filter(|span| span.ack);
    let answers = answers.map(|span| {
        let answer = (span.objects.clone(), span.raw.clone());
        (span.seq.clone(), answer)
    });
    let mut code: Vec<_> = spans.iter().flat_map(|span| span.code.clone()).collect();
    // the recorded servers told nobody
    code.retain(|statement| !statement.contains("is known as"));
    code.sort();
    (answers.collect(), code)
}

/// Checks that two servers said the same.
fn compare(ours: &[Span], theirs: &'static [u8]) {
    let recorded: Vec<_> = split(theirs).into_iter().map(|(span, _)| span).collect();
    let ((answers, code), (expected, told)) = (said(ours), said(&recorded));
    assert_eq!(answers, expected);
    for (ours, theirs) in code.iter().zip(&told) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(code.len(), told.len());
}

#[tokio::test]
async fn recorded_clients_are_told_what_their_own_servers_told_them() {
    for (c2s, s2c, other) in [
        (
            recorded!("session-py-client-py-server", "c2s.bin"),
            recorded!("session-py-client-py-server", "s2c.bin"),
            recorded!("session-py-client-py-server-2", "c2s.bin"),
        ),
        (
            recorded!("session-go-client-go-server", "c2s.bin"),
            recorded!("session-go-client-go-server", "s2c.bin"),
            // of the one that the client in Go met there is no recording
            recorded!("session-py-client-py-server-2", "c2s.bin"),
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let addresses = ["text+tcp://127.0.0.1:0".to_owned()];
        let serving = server::serve(&addresses, dir.path()).await;
        let serving = serving.expect("serves");
        let address = serving.addresses().remove(0);
        let (first, mut second) = play(&address, c2s, other).await;
        compare(&first, s2c);

        // their server told the nick that one had when it came
        let left = |statement: &String| statement.contains("ChatterLeft");
        let mut told = second.iter().flat_map(|span| &span.code);
        assert!(told.any(left), "{second:?}");
        let theirs = recorded!("session-py-client-py-server-2", "s2c.bin");
        let recorded = split(theirs).into_iter().map(|(span, _)| span);
        let mut recorded: Vec<_> = recorded.collect();
        for span in second.iter_mut().chain(&mut recorded) {
            span.code.retain(|statement| !left(statement));
        }
        let ((answers, code), (expected, told)) = (said(&second), said(&recorded));
        assert_eq!(answers, expected);
        assert_eq!(code, told);
    }
}

/// A recorded client that is played.
struct Player {
    spans: std::vec::IntoIter<(Span, &'static [u8])>,
    write: OwnedWriteHalf,
    /// What the server sent so far.
    coming: watch::Receiver<Vec<Span>>,
}

impl Player {
    async fn connect(address: &str, recorded: &'static [u8]) -> Self {
        let stream = TcpStream::connect(address.trim_start_matches("text+tcp://")).await;
        let (mut read, write) = stream.expect("connects").into_split();
        let (came, coming) = watch::channel(Vec::<Span>::new());
        tokio::spawn(async move {
            let mut spans = Spans::new();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = read.read(&mut buffer).await {
                let new = spans.feed(&buffer[..n]);
                came.send_modify(|all| all.extend(new));
            }
        });
        Self {
            spans: split(recorded).into_iter(),
            write,
            coming,
        }
    }

    /// Waits until something is true of what came.
    async fn told(&mut self, what: impl FnMut(&Vec<Span>) -> bool) {
        drop(
            timeout(SOON, self.coming.wait_for(what))
                .await
                .expect("is told"),
        );
    }

    /// Waits until so many statements with a text in them came.
    async fn heard(&mut self, text: &str, count: usize) {
        self.told(|all| {
            let code = all.iter().flat_map(|span| &span.code);
            code.filter(|statement| statement.contains(text)).count() >= count
        })
        .await;
    }

    /// Plays a part, once what it answers is there, and waits for what it is answered.
    async fn play(&mut self, span: &Span, bytes: &[u8]) {
        let same = |one: &&Span| one.seq == span.seq && one.ack != span.ack;
        if span.ack {
            self.told(|all| all.iter().any(|one| same(&one))).await;
        }
        self.write.write_all(bytes).await.expect("is read");
        if !span.ack {
            self.told(|all| all.iter().any(|one| same(&one))).await;
        }
    }

    /// Plays up to a request, or to the end.
    async fn play_to(&mut self, request: Option<&str>) {
        while let Some((span, bytes)) = self.spans.next() {
            self.play(&span, bytes).await;
            if !span.ack && Some(&*span.seq) == request {
                return;
            }
        }
    }

    /// Hangs up, waits until the server does; all that it sent.
    async fn end(mut self) -> Vec<Span> {
        drop(self.write);
        while timeout(SOON, self.coming.changed())
            .await
            .expect("the server hangs up")
            .is_ok()
        {}
        self.coming.borrow().clone()
    }
}

/// Plays a recorded client, and the other one that it meets; returns what the server sent to each.
async fn play(
    address: &str,
    recorded: &'static [u8],
    other: &'static [u8],
) -> (Vec<Span>, Vec<Span>) {
    let mut first = Player::connect(address, recorded).await;
    // comes and talks where the recording has it
    let mut second = None;
    while let Some((span, bytes)) = first.spans.next() {
        match (span.ack, &*span.seq) {
            (true, "102") => {
                let mut player = Player::connect(address, other).await;
                player.play_to(Some("101")).await;
                second = Some(player);
                first.heard("ChatterJoined", 1).await;
            }
            (true, "103") => {
                let second = second.as_mut().expect("has come");
                second.play_to(Some("103")).await;
                first.heard("pushed line one", 1).await;
            }
            _ => {}
        }
        first.play(&span, bytes).await;
    }
    let mut second = second.expect("has come");
    // what was pushed for the last of it
    first.heard("RoomMsgs", 3).await;
    let first = first.end().await;
    second.heard("ChatterLeft", 1).await;
    second.play_to(None).await;
    (first, second.end().await)
}
