//! The mux wire against bytes written by hand: the page that documents it, strangers, and peers that
//! break the protocol.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hbi::{
    Failure, HostingEnv, Kind, Options, Settings,
    wire::mux::{Arrival, CoId, Event, Input, Opening, Reply},
};
use hbi_tests::{
    machine::{Machine, call, cx, feed, hex, hosted, joined, machine, output},
    raw::{frame, vector},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

#[test]
fn answers_of_all_lengths_come_whole_wherever_the_input_ends() {
    // around the longest that is kept in place; the last of a read has nothing behind it
    let lengths: Vec<usize> = (1..80).collect();
    for together in [1, 2, lengths.len()] {
        let (mut a, mut b) = joined();
        a.define(1, &["a0"], "id(a0)");
        for lengths in lengths.chunks(together) {
            let called = lengths
                .iter()
                .map(|_| a.call(1, &[0x91, 1], &mut cx()).expect("a call"));
            let called: Vec<_> = called.collect();
            feed(&mut b, &output(&mut a)).unwrap();
            for (id, len) in called.iter().zip(lengths) {
                let hosted = CoId::from_bits(id.to_bits() | 1 << 31);
                assert!(b.answer(hosted, &vec![*len as u8; *len], &[]));
            }
            assert!(feed(&mut a, &output(&mut b)).unwrap().is_empty());
            for (id, len) in called.into_iter().zip(lengths) {
                let value = match a.poll_reply(id, &mut cx()) {
                    Poll::Ready(Reply::Short(value)) => value.to_vec(),
                    Poll::Ready(Reply::Bytes(value)) => value.to_vec(),
                    other => panic!("{other:?}"),
                };
                assert_eq!(value, vec![*len as u8; *len]);
            }
        }
        assert_eq!((a.conversations(), b.conversations()), ((0, 0), (0, 0)));
    }
}

/// Notifications that arrived and landed, so many.
fn notified(count: usize) -> (Machine, Machine) {
    let (mut a, mut b) = joined();
    a.define(1, &[] as &[&str], "calc::log()");
    for _ in 0..count {
        let mut opening = call(Some(1), &[0x90]);
        (opening.value, opening.call) = (false, false);
        let id = a.open(opening, Instant::now()).unwrap();
        a.detach(id);
    }
    feed(&mut b, &output(&mut a)).unwrap();
    for number in 0..count as u64 {
        b.end_unwatched(CoId::from_bits(1 << 31 | number));
    }
    assert_eq!(b.conversations(), (0, 0));
    (a, b)
}

#[test]
fn ends_that_nobody_waits_for_go_out_with_the_next_that_somebody_does() {
    let (mut a, mut b) = notified(3);
    assert!(!b.has_output(), "an END was written for its own sake");

    b.define(1, &[] as &[&str], "calc::log()");
    feed(&mut a, &output(&mut b)).unwrap();
    assert_eq!(a.conversations(), (0, 0));
}

#[test]
fn ends_that_nobody_waits_for_go_out_when_it_is_time_or_they_are_many() {
    let (mut a, mut b) = notified(1);
    let later = b.timeout().unwrap();
    assert!(later < Instant::now() + Duration::from_secs(1));
    b.handle_timeout(later).unwrap();
    feed(&mut a, &output(&mut b)).unwrap();
    assert_eq!(a.conversations(), (0, 0));

    let (mut a, mut b) = notified(100);
    assert!(b.has_output());
    feed(&mut a, &output(&mut b)).unwrap();
    assert_eq!(a.conversations(), (0, 0));
}

#[test]
fn ends_that_nobody_waits_for_keep_no_large_buffer() {
    let (mut a, mut b) = notified(0);
    assert!(b.give_buffer().is_none(), "it has none");
    b.take_buffer(Vec::with_capacity(1 << 20));
    for round in 0..2 {
        let mut opening = call(Some(1), &[0x90]);
        (opening.value, opening.call) = (false, false);
        let id = a.open(opening, Instant::now()).unwrap();
        a.detach(id);
        feed(&mut b, &output(&mut a)).unwrap();
        b.end_unwatched(CoId::from_bits(id.to_bits() | 1 << 31));
        let given = b
            .give_buffer()
            .map(|buffer| (buffer.len(), buffer.capacity()));
        assert_eq!(given, (round == 0).then_some((0, 1 << 20)));
    }
    b.define(1, &[] as &[&str], "calc::log()");
    b.take_buffer(Vec::with_capacity(1 << 20));
    assert!(b.give_buffer().is_none(), "it is to be written");
    feed(&mut a, &output(&mut b)).unwrap();
    assert_eq!(a.conversations(), (0, 0));
}

#[test]
fn ends_that_nobody_waits_for_go_out_at_a_goodbye() {
    let (mut a, mut b) = notified(1);
    a.goodbye();
    feed(&mut b, &output(&mut a)).unwrap();
    feed(&mut a, &output(&mut b)).unwrap();
    assert!(a.is_over());
}

#[test]
fn the_page_shows_what_is_written_and_read() {
    assert_eq!(hex(&output(&mut machine())), hex(&vector("preface")));
    let mut known = Machine::with_token(Settings::default(), b"tea", Instant::now());
    assert_eq!(hex(&output(&mut known)), hex(&vector("token")));
    let (mut a, mut b) = joined();

    a.define(1, &["a0", "a1"], "calc::add(a0, a1)");
    let id = a
        .open(call(Some(1), &[0x92, 1, 2]), Instant::now())
        .unwrap();
    let bytes = output(&mut a);
    assert_eq!(hex(&bytes), hex(&vector("call")));
    let (mut short, _) = joined();
    short.define(1, &["a0", "a1"], "calc::add(a0, a1)");
    short.call(1, &[0x92, 1, 2], &mut cx()).unwrap();
    assert_eq!(hex(&output(&mut short)), hex(&vector("call")));
    assert_eq!(
        feed(&mut b, &bytes).unwrap(),
        [
            "Define { number: 1, parameters: [\"a0\", \"a1\"], source: \"calc::add(a0, a1)\" }",
            "open Some(1) value true last true arguments 92 01 02 "
        ]
    );
    let _ = b.answer(hosted(), &[3], &[]);
    let bytes = output(&mut b);
    assert_eq!(hex(&bytes), hex(&vector("answer")));
    assert!(feed(&mut a, &bytes).unwrap().is_empty());
    match a.poll_reply(id, &mut cx()) {
        Poll::Ready(Reply::Short(value)) => assert_eq!(*value, [3]),
        other => panic!("{other:?}"),
    }
    assert_eq!((a.conversations(), b.conversations()), ((0, 0), (0, 0)));

    let (mut a, mut b) = joined();
    let id = a.open(call(None, &[]), Instant::now()).unwrap();
    a.send_item(id, 0, Bytes::from_static(b"\xa4file"), &[])
        .unwrap();
    a.send_data(id, 0, Bytes::from_static(b"abc")).unwrap();
    a.send_data(id, 0, Bytes::new()).unwrap();
    a.end(id, 0);
    let bytes = output(&mut a);
    assert_eq!(hex(&bytes), hex(&vector("conversation")));
    feed(&mut b, &bytes).unwrap();
    let mut seen = Vec::new();
    while let Poll::Ready(Ok(Some(arrival))) = b.poll_receive(hosted(), 0, &mut cx()) {
        seen.push(match arrival {
            Arrival::Item(payload) => hex(&payload.bytes),
            Arrival::Data(bytes) => format!("data {}", hex(&bytes)),
            Arrival::Script { .. } => "script".to_owned(),
        });
    }
    assert_eq!(seen, ["a4 66 69 6c 65 ", "data 61 62 63 ", "data "]);
}

#[test]
fn pieces_of_data_share_a_frame_and_their_end_has_its_own() {
    // the largest piece that is sent whole, small ones, the end of a run, and a run after it
    share_frames(
        &[64 << 10, 1, 2, 20_000, 0, 3, 0, 0],
        &[64 << 10, 20_003, 0, 3, 0, 0],
    );
    // a piece whose one part fills a frame, and whose rest begins the next
    share_frames(&[40_000, 40_000, 5, 0], &[64 << 10, 14_469, 0]);
}

/// Sends pieces of so many bytes on one channel: they go out in frames of so many, and arrive as they are.
fn share_frames(pieces: &[usize], framed: &[usize]) {
    let (mut a, mut b) = joined();
    let id = a.open(call(None, &[]), Instant::now()).unwrap();
    feed(&mut b, &output(&mut a)).unwrap();
    let mut sent = vec![Vec::new()];
    for (n, &len) in pieces.iter().enumerate() {
        let piece = vec![n as u8; len];
        match len {
            0 => sent.push(Vec::new()),
            _ => sent.last_mut().unwrap().extend_from_slice(&piece),
        }
        a.send_data(id, 0, piece.into()).unwrap();
    }
    let bytes = output(&mut a);
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let [l0, l1, l2, kind, ..] = *rest {
        assert_eq!(kind, 0x05);
        let len = u32::from_le_bytes([l0, l1, l2, 0]) as usize;
        // the flags and the channel are no data
        frames.push(len - 3);
        rest = &rest[8 + len..];
    }
    assert_eq!(frames, framed);
    feed(&mut b, &bytes).unwrap();
    let mut runs = vec![Vec::new()];
    while let Poll::Ready(Ok(Some(Arrival::Data(bytes)))) = b.poll_receive(hosted(), 0, &mut cx()) {
        match bytes.is_empty() {
            true => runs.push(Vec::new()),
            false => runs.last_mut().unwrap().extend_from_slice(&bytes),
        }
    }
    assert_eq!(runs, sent);
}

#[tokio::test]
async fn a_server_reads_the_token_of_the_page() {
    let (shown, mut tokens) = tokio::sync::mpsc::unbounded_channel();
    let server = Options::new()
        .authenticate(move |credentials| {
            let _ = shown.send(credentials.token().to_vec());
            async { Ok(()) }
        })
        .serve("tcp://127.0.0.1:0", |_peer| async { Ok(HostingEnv::new()) })
        .await
        .unwrap();
    let address = server.address().to_string();
    let at = address.strip_prefix("tcp://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let (bytes, preface) = (vector("token"), vector("preface"));
    // in two pieces: the token is no part of the settings before it
    let (settings, token) = bytes.split_at(bytes.len() - 2);
    stream.write_all(settings).await.unwrap();
    stream.write_all(token).await.unwrap();
    assert_eq!(tokens.recv().await.unwrap(), b"tea");
    let mut answer = vec![0; preface.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(hex(&answer), hex(&preface));
}

#[test]
fn any_cut_of_the_bytes_gives_the_same_events() {
    let mut bytes = vector("preface");
    bytes.extend(vector("call"));
    let conversation = vector("conversation");
    // under the next number
    for frame in [0..13, 13..29, 29..43, 43..54, 54..64] {
        let mut frame = conversation[frame].to_vec();
        frame[4] = 1;
        bytes.extend(frame);
    }
    let events = |cuts: &[usize]| {
        let mut machine = machine();
        let mut events = Vec::new();
        let mut rest = Vec::new();
        let mut from = 0;
        for &to in cuts.iter().chain([&bytes.len()]) {
            rest.extend_from_slice(&bytes[from..to]);
            from = to;
            let input = Bytes::copy_from_slice(&rest);
            let mut at = 0;
            let input = Input::shared(&input);
            loop {
                let calls = machine.take_calls(input, &mut at, |call| {
                    events.push(format!("{call:?}"));
                });
                calls.expect("no violation");
                let event = machine.receive(Instant::now(), input, &mut at);
                match event.expect("no violation") {
                    Some(event) => events.push(format!("{event:?}")),
                    None => break,
                }
            }
            rest.drain(..at);
        }
        assert!(rest.is_empty(), "all is read");
        let mut data = Vec::new();
        let id = CoId::from_bits(1 << 31 | 1);
        while let Poll::Ready(Ok(Some(arrival))) = machine.poll_receive(id, 0, &mut cx()) {
            if let Arrival::Data(bytes) = arrival {
                data.extend_from_slice(&bytes);
            }
        }
        (events, data)
    };
    let whole = events(&[]);
    assert_eq!(whole.1, b"abc");
    for first in 0..bytes.len() {
        assert_eq!(events(&[first]), whole, "cut at {first}");
        let second = (first * 7 + 3) % bytes.len();
        let cuts = [first.min(second), first.max(second)];
        assert_eq!(events(&cuts), whole, "cut at {cuts:?}");
    }
    let every: Vec<_> = (1..bytes.len()).collect();
    assert_eq!(events(&every), whole, "byte by byte");
}

#[test]
fn a_connection_that_wakes_nobody_takes_no_room_of_the_list_of_wakers() {
    let mut wakers = Vec::with_capacity(1000);
    machine().take_wakers(&mut wakers);
    assert_eq!(wakers.capacity(), 1000);
}

#[test]
fn calls_before_a_violation_are_taken() {
    let call = |index: u32| frame(0x02, index, &[0x03, 1, 0, 0, 0, 0x90]);
    let (good, bad) = ([call(0), call(1)].concat(), call(1));
    let input = [vector("preface"), good.clone(), bad].concat();
    let (mut machine, mut at) = (machine(), 0);
    let input = Bytes::from(input);
    let input = Input::shared(&input);
    let mut calls = Vec::new();
    let before = machine.take_calls(input, &mut at, |call| calls.push(call.id));
    assert!(before.is_ok() && calls.is_empty(), "the preface is first");
    let event = machine.receive(Instant::now(), input, &mut at);
    assert!(matches!(event, Ok(Some(Event::Ready))));
    let preface = at;
    let taken = machine.take_calls(input, &mut at, |call| calls.push(call.id));
    let violation = taken.unwrap_err().to_string();
    assert!(violation.contains("opened again"), "{violation}");
    assert_eq!(calls.len(), 2);
    assert_eq!(at, preface + good.len());
}

/// A frame written by hand.
#[test]
fn violations_are_told_by_what_was_seen() {
    let open = |index: u32| frame(0x02, index, &[0x01, 1, 0, 0, 0, 0x90]);
    let call = |index: u32| frame(0x02, index, &[0x03, 1, 0, 0, 0, 0x90]);
    let item = |co, flags| frame(0x04, co, &[flags, 0, 0, 0xc0]);
    let cases: &[(&str, Vec<Vec<u8>>)] = &[
        ("unknown kind 0x7f", vec![frame(0x7f, 0, &[])]),
        (
            "reserved flags 0x80",
            vec![frame(0x02, 0, &[0x80, 1, 0, 0, 0])],
        ),
        ("never opened", vec![item(5, 0)]),
        ("never opened", vec![frame(0x06, 7, &[0, 0])]),
        ("opened again before its end", vec![open(0), open(0)]),
        ("out of turn", vec![open(3 << 23)]),
        ("at most 4096 may be open", vec![open(4096)]),
        ("0 is the next new one", vec![open(4095)]),
        ("1 is the next new one", vec![call(0), call(2)]),
        ("opened again before its end", vec![call(0), call(0)]),
        ("out of turn", vec![call(3 << 23)]),
        ("at most 4096 may be open", vec![call(4096)]),
        (
            "under a number of this side",
            vec![frame(0x02, 1 << 31, &[0, 1, 0, 0, 0])],
        ),
        ("after the end of its side", vec![call(0), item(0, 0)]),
        ("ends within its fields", vec![frame(0x08, 0, &[0])]),
        ("bytes after its fields", vec![frame(0x0a, 0, &[0; 9])]),
        (
            "`Settings::scripts`",
            vec![frame(0x01, 0, &[0, 0x10, 0, 0, 0, 0])],
        ),
        ("`Settings::frame`", vec![frame(0x04, 0, &vec![0; 70_000])]),
        ("channel 3", vec![open(0), frame(0x04, 0, &[0, 3, 0, 0xc0])]),
        ("no UTF-8", vec![frame(0x01, 0, &[1, 0, 0, 0, 0, 0, 0xff])]),
        (
            "handle of unknown kind 9",
            vec![frame(0x02, 0, &[0x08, 1, 0, 0, 0, 1, 0, 9, 0, 0, 0, 0])],
        ),
        (
            "stream 5 opened",
            vec![frame(0x02, 0, &[0x08, 1, 0, 0, 0, 1, 0, 1, 5, 0, 0, 0])],
        ),
        (
            "last and has more",
            vec![frame(0x02, 0, &[0x06, 1, 0, 0, 0])],
        ),
        (
            "holds no failure",
            vec![open(0), frame(0x07, 0, &[0, 0, 0xc1])],
        ),
        ("can be counted", vec![frame(0x0f, 0, &[0xff; 4])]),
        ("window of 393216", {
            let mut frames = vec![open(0)];
            frames.extend((0..9).map(|_| {
                let mut body = vec![0, 0, 0];
                body.extend(vec![0xc0; 60_000]);
                frame(0x05, 0, &body)
            }));
            frames
        }),
    ];
    for (expected, frames) in cases {
        let (_, mut machine) = joined();
        let bytes = frames.concat();
        let error = feed(&mut machine, &bytes).expect_err(expected);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // what a later version may add is skipped
    let (_, mut machine) = joined();
    assert!(
        feed(&mut machine, &frame(0x80, 99, b"whatever"))
            .unwrap()
            .is_empty()
    );
    assert!(feed(&mut machine, &frame(0xff, 0, &[])).unwrap().is_empty());
}

#[test]
fn late_frames_are_dropped_and_their_credit_returned() {
    let (mut a, mut b) = joined();
    a.define(1, &["a"], "f(a)");
    a.open(call(Some(1), &[0x91, 1]), Instant::now()).unwrap();
    feed(&mut b, &output(&mut a)).unwrap();
    let _ = b.answer(hosted(), &[3], &[]);
    assert_eq!(b.conversations(), (0, 0));
    // a cancel that crossed the answer
    assert!(feed(&mut b, &frame(0x09, 0, &[0, 0])).unwrap().is_empty());
    let late = [0_u8, 0, 0]
        .into_iter()
        .chain([0xc0; 60_000])
        .collect::<Vec<_>>();
    output(&mut b);
    for _ in 0..20 {
        feed(&mut b, &frame(0x05, 0, &late)).unwrap();
    }
    let credit = output(&mut b);
    assert_eq!(credit.get(3), Some(&0x0f), "connection credit is returned");
}

#[test]
fn arbitrary_bytes_never_panic_or_pile_up() {
    use proptest::prelude::*;
    let mut runner = proptest::test_runner::TestRunner::default();
    let frames = proptest::collection::vec(
        (
            0_u8..0x14,
            0_u32..4,
            any::<bool>(),
            proptest::collection::vec(any::<u8>(), 0..40),
        ),
        0..40,
    );
    runner
        .run(&frames, |frames| {
            let (_, mut machine) = joined();
            for (kind, co, theirs, body) in frames {
                let co = co | (theirs as u32) << 31;
                if feed(&mut machine, &frame(kind, co, &body)).is_err() {
                    break;
                }
                let _ = machine.poll_receive(CoId::from_bits((co ^ 1 << 31).into()), 0, &mut cx());
            }
            prop_assert!(machine.unwritten() < 100_000);
            machine.close(Failure::new(Kind::Disconnected, "the test ends"));
            Ok(())
        })
        .unwrap();
}

#[test]
fn numbers_are_used_again_for_ever() {
    let (mut a, mut b) = joined();
    a.define(1, &["a"], "f(a)");
    for n in 0..70_000_u32 {
        let id = a.open(call(Some(1), &[0x91, 1]), Instant::now()).unwrap();
        assert_eq!(
            id.to_bits() & 0x7f_ffff,
            0,
            "the lowest index is free again"
        );
        let bytes = output(&mut a);
        feed(&mut b, &bytes).unwrap();
        let _ = b.answer(CoId::from_bits(id.to_bits() | 1 << 31), &[3], &[]);
        let bytes = output(&mut b);
        feed(&mut a, &bytes).unwrap();
        assert!(a.poll_reply(id, &mut cx()).is_ready(), "call {n}");
    }
}

#[test]
fn the_deadline_of_a_call_that_was_answered_ends_no_later_one() {
    // the later one has no deadline, or one that comes later
    for later in [None, Some(Duration::from_secs(8))] {
        let (mut a, mut b) = joined();
        a.define(1, &["a"], "f(a)");
        let now = Instant::now();
        let open = |a: &mut Machine, b: &mut Machine, within: Option<Duration>| {
            let opening = Opening {
                deadline: within.map(|within| now + within),
                ..call(Some(1), &[0x91, 1])
            };
            let id = a.open(opening, now).unwrap();
            feed(b, &output(a)).unwrap();
            (id, CoId::from_bits(id.to_bits() | 1 << 31))
        };
        let (first, mut hosted) = open(&mut a, &mut b, Some(Duration::from_secs(2)));
        let mut id = first;
        // in frames numbers begin anew after 256 uses
        for n in 0..256 {
            assert!(b.answer(hosted, &[3], &[]));
            feed(&mut a, &output(&mut b)).unwrap();
            assert!(a.poll_reply(id, &mut cx()).is_ready());
            (id, hosted) = open(&mut a, &mut b, later.filter(|_| n == 255));
        }
        assert_eq!(id.wire(), first.wire());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(b.handle_timeout(after(3)).unwrap().is_empty());
        assert!(a.handle_timeout(after(3)).unwrap().is_empty());
        assert!(a.poll_reply(id, &mut cx()).is_pending());
        // its own deadline stands
        let expired = b.handle_timeout(after(9)).unwrap();
        assert_eq!(expired.contains(&hosted), later.is_some());
        a.handle_timeout(after(9)).unwrap();
        assert_eq!(a.poll_reply(id, &mut cx()).is_ready(), later.is_some());
    }
}

#[test]
fn a_peer_that_never_reads_makes_nothing_pile_up() {
    let (mut a, mut b) = joined();
    let id = a.open(call(None, &[]), Instant::now()).unwrap();
    let piece = Bytes::from(vec![7; 10_000]);
    let mut sent = 0;
    let mut in_between = Vec::new();
    for _ in 0..10_000 {
        if a.has_room(id, 0) && a.send_data(id, 0, piece.clone()).is_ok() {
            sent += piece.len();
        }
        let bytes = output(&mut a);
        in_between.extend_from_slice(&bytes);
        let fed = feed(&mut b, &bytes).unwrap();
        assert!(fed.len() <= 1);
        let back = output(&mut b);
        feed(&mut a, &back).unwrap();
    }
    // a window at the receiver, a buffer at the sender, and no more
    assert!(
        in_between.len() < 600_000,
        "{} bytes went out",
        in_between.len()
    );
    assert!(
        sent < 750_000,
        "{sent} bytes were taken from the application"
    );
}

async fn talk_to_a_server(bytes: &[u8]) -> (Vec<u8>, DuplexStream) {
    let (mut ours, theirs) = duplex(1 << 20);
    let taken = tokio::spawn(async move { Options::new().take(theirs, HostingEnv::new()).await });
    ours.write_all(bytes).await.unwrap();
    let mut seen = Vec::new();
    let read = ours.read_to_end(&mut seen);
    tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .expect("it hangs up")
        .unwrap();
    let error = taken.await.unwrap().unwrap_err();
    seen.extend_from_slice(error.to_string().as_bytes());
    (seen, ours)
}

#[tokio::test]
async fn strangers_are_told_what_they_look_like() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "an HTTP request"),
        (b"HTTP/1.1 400 Bad Request\r\n", "an HTTP answer"),
        (b"\x16\x03\x01\x02\x00\x01", "a TLS hello"),
        (b"[9#co_begin]", "a packet of the text wire"),
        (b"hello?", "\"hello?\""),
        (b"\x89HBI\r\n\x07\x09\0\0", "speaks versions 7 to 9"),
    ] {
        let (seen, _) = talk_to_a_server(bytes).await;
        let text = String::from_utf8_lossy(&seen);
        assert_eq!(
            text.matches(expected).count(),
            2,
            "told to both sides, {expected}: {text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_given_up() {
    let (_silent, theirs) = duplex(1 << 20);
    let error = Options::new()
        .take(theirs, HostingEnv::new())
        .await
        .unwrap_err();
    assert!(
        error.is_disconnected() && error.to_string().contains("within 10s"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_is_found_by_pings() {
    let (mut dead, theirs) = duplex(1 << 20);
    dead.write_all(&vector("preface")).await.unwrap();
    let peer = Options::new()
        .take(theirs, HostingEnv::new())
        .await
        .unwrap();
    let began = tokio::time::Instant::now();
    let call = peer.script::<()>("f()").await;
    let error = call.unwrap_err();
    assert!(error.is_disconnected() && error.was_sent(), "{error}");
    assert!(
        error.to_string().contains("Settings::idle_timeout"),
        "{error}"
    );
    assert_eq!(began.elapsed().as_secs(), 45);
    let mut seen = vec![0; 4096];
    let n = dead.read(&mut seen).await.unwrap();
    let ping = frame(0x0a, 0, &[0; 8]);
    assert!(
        seen[..n].windows(16).any(|window| window == ping),
        "a ping was sent"
    );
}

#[tokio::test(start_paused = true)]
async fn peers_that_answer_pings_stay_connected() {
    let (ours, theirs) = duplex(1 << 20);
    let options = Options::new();
    let (a, b) = tokio::join!(
        options.take(ours, HostingEnv::new().function("double", |n: i64| n * 2)),
        options.take(theirs, HostingEnv::new())
    );
    let (_a, b) = (a.unwrap(), b.unwrap());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(b.script::<i64>("double(2)").await.unwrap(), 4);
}

fn define(number: u32, source: &str) -> Vec<u8> {
    let body = [&number.to_le_bytes()[..], &[0, 0], source.as_bytes()];
    frame(0x01, 0, &body.concat())
}

/// Reads frames up to one of this kind and conversation; returns its body.
async fn until(from: &mut DuplexStream, kind: u8, co: u32) -> Vec<u8> {
    let mut head = [0; 8];
    loop {
        from.read_exact(&mut head).await.unwrap();
        let len = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let mut body = vec![0; len as usize];
        from.read_exact(&mut body).await.unwrap();
        if head[3] == kind && head[4..] == co.to_le_bytes() {
            return body;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_ends_in_its_time_though_nothing_can_be_written() {
    let (mut ours, theirs) = duplex(1 << 10);
    ours.write_all(&vector("preface")).await.unwrap();
    let peer = Options::new()
        .take(theirs, HostingEnv::new())
        .await
        .unwrap();
    // to a peer that reads nothing
    let call = peer
        .po()
        .script::<i64>("f(x)")
        .bind("x", "y".repeat(100_000));
    let call = tokio::spawn(call.into_future());
    // the clock goes on once nobody has anything to do
    tokio::time::sleep(Duration::from_millis(1)).await;
    let began = tokio::time::Instant::now();
    let _ = peer.close(Duration::from_secs(1)).await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn calls_are_answered_though_the_peer_says_nothing_more_behind_them() {
    let env = HostingEnv::new().function("double", |n: i64| n * 2);
    let (mut ours, theirs) = duplex(1 << 16);
    let define = [&1_u32.to_le_bytes()[..], &[1, 0, 1, b'n'], b"double(n)"].concat();
    let open = frame(0x02, 0, &[3, 1, 0, 0, 0, 0x91, 21]);
    let all = [vector("preface"), frame(0x01, 0, &define), open].concat();
    ours.write_all(&all).await.unwrap();
    ours.shutdown().await.unwrap();
    // by the time that it is joined it is over
    let _joined = Options::new().take(theirs, env).await;
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).await.unwrap();
    let expected = frame(0x04, 1 << 31, &[2, 0, 0, 42]);
    let found = answer.windows(expected.len()).any(|part| part == expected);
    assert!(found, "{answer:x?}");
}

#[tokio::test(start_paused = true)]
async fn what_ran_out_of_time_before_it_landed_does_not_land() {
    let landed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&landed);
    let env = HostingEnv::new()
        .function("blob", || vec![7_u8; 3_000_000])
        .function("count", move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
    let mut settings = Settings::default();
    settings.held = 1 << 20;
    let (mut ours, theirs) = duplex(1 << 20);
    ours.write_all(&vector("preface")).await.unwrap();
    let options = Options::new().settings(settings);
    let _peer = options.take(theirs, env).await.unwrap();
    let mut preface = vec![0; vector("preface").len()];
    ours.read_exact(&mut preface).await.unwrap();
    const THEIRS: u32 = 1 << 31;
    // two answers, of which the connection's credit lets one leave: the other is more than is held for
    // a peer, so nothing more lands
    ours.write_all(&define(0, "blob()")).await.unwrap();
    ours.write_all(&define(1, "count()")).await.unwrap();
    for number in 0..2 {
        let open = [3, 0, 0, 0, 0, 0x90];
        ours.write_all(&frame(0x02, number, &open)).await.unwrap();
    }
    // VALUE, LAST and DEADLINE, 5 ms: its number is used again as soon as it has run out of time
    for generation in 0..3 {
        let number = 2 | generation << 23;
        let open = [0x13, 1, 0, 0, 0, 5, 0, 0, 0, 0x90];
        ours.write_all(&frame(0x02, number, &open)).await.unwrap();
        until(&mut ours, 0x07, number | THEIRS).await;
    }
    // the answer is wanted no more, so this one lands
    ours.write_all(&frame(0x09, 1, &[0, 0])).await.unwrap();
    let open = [3, 1, 0, 0, 0, 0x90];
    ours.write_all(&frame(0x02, 3, &open)).await.unwrap();
    until(&mut ours, 0x04, 3 | THEIRS).await;
    assert_eq!(landed.load(Ordering::SeqCst), 1, "and those before did not");
}

#[test]
fn a_goodbye_says_what_did_not_land_though_the_connection_breaks_off() {
    let (mut a, mut b) = joined();
    a.define(1, &["a"], "f(a)");
    let open = |a: &mut Machine, depth| {
        let opening = Opening {
            depth,
            ..call(Some(1), &[0x91, 1])
        };
        a.open(opening, Instant::now()).unwrap()
    };
    let before = open(&mut a, 0);
    feed(&mut b, &output(&mut a)).unwrap();
    // these cross the goodbye: what is nested lands all the same
    let (after, nested) = (open(&mut a, 0), open(&mut a, 1));
    b.goodbye();
    feed(&mut a, &output(&mut b)).unwrap();
    a.close(Failure::new(Kind::Disconnected, "it broke off"));
    for (id, kind) in [
        (before, Kind::Disconnected),
        (after, Kind::NotLanded),
        (nested, Kind::Disconnected),
    ] {
        match a.poll_reply(id, &mut cx()) {
            Poll::Ready(Reply::Failed(failure)) => assert_eq!(failure.kind, kind, "{failure:?}"),
            reply => panic!("{reply:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_a_goodbye_does_not_land_unless_it_is_nested() {
    let landed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&landed);
    let env = HostingEnv::new().function("count", move |_: Vec<u8>| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let (mut ours, theirs) = duplex(1 << 20);
    let text = [&[0, 0, 0, 0, 1, 0, 1, b'a'][..], b"count(a)"].concat();
    // VALUE and MORE: the rest comes after the goodbye
    let begun = frame(0x02, 0, &[5, 0, 0, 0, 0]);
    let all = [vector("preface"), frame(0x01, 0, &text), begun].concat();
    ours.write_all(&all).await.unwrap();
    let peer = Options::new().take(theirs, env).await.unwrap();
    let mut preface = vec![0; vector("preface").len()];
    ours.read_exact(&mut preface).await.unwrap();
    let closing = tokio::spawn(peer.close(Duration::from_secs(60)));
    assert_eq!(until(&mut ours, 0x0c, 0).await, [0; 8], "it has seen none");

    const THEIRS: u32 = 1 << 31;
    let arguments = [0x91, 0xc4, 1, 7];
    // one that is whole with this, a call, one with NESTED
    let rest = frame(0x04, 0, &[&[2, 0, 0][..], &arguments].concat());
    let call = frame(0x02, 1, &[&[3, 0, 0, 0, 0][..], &arguments].concat());
    let nested = frame(0x02, 2, &[&[0x23, 0, 0, 0, 0, 1][..], &arguments].concat());
    ours.write_all(&[rest, call, nested].concat())
        .await
        .unwrap();
    for number in [0, 1] {
        let error = until(&mut ours, 0x07, number | THEIRS).await;
        let kind = b"\xa4kind\x08";
        assert!(error.windows(kind.len()).any(|part| part == kind));
    }
    until(&mut ours, 0x04, 2 | THEIRS).await;
    assert_eq!(landed.load(Ordering::SeqCst), 1, "the nested one");
    ours.write_all(&frame(0x0c, 0, &[0; 8])).await.unwrap();
    ours.shutdown().await.unwrap();
    closing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_for_effect_is_heard_though_its_text_was_replaced_before_it_landed() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let env = HostingEnv::new()
        .function("blob", || vec![7_u8; 3_000_000])
        .try_function("fail", || Err::<(), _>("as it was told".to_owned()))
        .on_error(move |error| told.send(error).expect("the test listens"));
    let mut settings = Settings::default();
    settings.held = 1 << 20;
    let (mut ours, theirs) = duplex(1 << 20);
    ours.write_all(&vector("preface")).await.unwrap();
    let options = Options::new().settings(settings);
    let _peer = options.take(theirs, env).await.unwrap();
    let blob = |number| frame(0x02, number, &[3, 0, 0, 0, 0, 0x90]);
    let sent = [
        define(0, "blob()"),
        define(1, "fail()"),
        // two answers, of which the second is more than is held for a peer, so nothing more lands
        blob(0),
        blob(1),
        // LAST
        frame(0x02, 2, &[2, 1, 0, 0, 0, 0x90]),
        define(1, "blob()"),
        // the second answer is wanted no more
        frame(0x09, 1, &[0, 0]),
    ];
    ours.write_all(&sent.concat()).await.unwrap();
    let mut nowhere = tokio::io::sink();
    let read = tokio::io::copy(&mut ours, &mut nowhere);
    let error = tokio::select! {
        error = heard.recv() => error.unwrap(),
        read = read => panic!("the peer hung up: {read:?}"),
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("nobody heard of it"),
    };
    assert_eq!(error.origin(), "fail");
}

#[tokio::test(start_paused = true)]
async fn large_openings_wait_for_a_peer_that_does_not_read() {
    #[hbi::service]
    trait Store {
        #[hbi(notify)]
        async fn put(&self, data: Vec<u8>);
    }
    let (mut still, theirs) = duplex(1000);
    still.write_all(&vector("preface")).await.unwrap();
    let options = Options::new();
    let peer = options.take(theirs, HostingEnv::new()).await.unwrap();
    let store = StoreStub::new(&peer);
    let megabyte = vec![0; 1 << 20];
    let (mut tasks, mut waiting) = (tokio::task::JoinSet::new(), 0);
    for _ in 0..100 {
        let put = store.put(&megabyte);
        tasks.spawn(async move { put.await });
    }
    let soon = Duration::from_secs(1);
    while let Ok(taken) = tokio::time::timeout(soon, tasks.join_next()).await {
        taken.unwrap().unwrap().unwrap();
        waiting += 1;
    }
    assert!((1..=9).contains(&waiting), "{waiting} were taken");
    // small calls pass, and whoever waits learns of the end
    let small = peer.script::<()>("f()").send();
    drop(still);
    assert!(small.await.unwrap_err().is_disconnected());
    while let Some(ended) = tasks.join_next().await {
        assert!(ended.unwrap().unwrap_err().is_disconnected());
    }
}

#[tokio::test]
async fn large_openings_that_waited_all_arrive() {
    #[hbi::service]
    trait Store {
        async fn put(&self, data: Vec<u8>) -> u64;
    }
    struct MyStore;
    impl Store for MyStore {
        async fn put(&self, data: Vec<u8>) -> u64 {
            data.len() as u64
        }
    }
    let env = HostingEnv::new().service(StoreHost::new(MyStore));
    let pair = hbi::testing::pair(env, HostingEnv::new()).await.unwrap();
    let store = StoreStub::new(&pair.client);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let len = if n % 3 == 0 { 5_000 } else { 1 << 20 };
        let call = store.put(vec![1; len]);
        // some change their mind
        if n % 7 == 0 {
            drop(call.send());
        } else {
            tasks.spawn(async move { (call.await.unwrap() as usize, len) });
        }
    }
    while let Some(done) = tasks.join_next().await {
        let (answer, len) = done.unwrap();
        assert_eq!(answer, len);
    }
}
