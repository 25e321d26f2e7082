//! The receiver against recorded sessions of the existing peers, cut anywhere, and against bad peers.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

macro_rules! capture {
    ($name:literal) => {
        [
            (
                concat!($name, " c2s"),
                &include_bytes!(concat!(
                    "../../../../tests/data/text-wire/",
                    $name,
                    "/c2s.bin"
                ))[..],
            ),
            (
                concat!($name, " s2c"),
                &include_bytes!(concat!(
                    "../../../../tests/data/text-wire/",
                    $name,
                    "/s2c.bin"
                ))[..],
            ),
        ]
    };
}

/// Both directions of each recorded session.
fn captures() -> Vec<(&'static str, &'static [u8])> {
    [
        capture!("hello-go-client-go-server"),
        capture!("hello-go-client-py-server"),
        capture!("hello-py-client-go-server"),
        capture!("hello-py-client-py-server"),
        capture!("session-go-client-go-server"),
        capture!("session-py-client-py-server"),
        capture!("session-py-client-py-server-2"),
    ]
    .concat()
}

/// The raw data that the applications of the recordings expect behind a packet.
fn raw_behind(event: &Event) -> u64 {
    let last_number = |text: &str| {
        let text = text.trim().trim_end_matches(')');
        text.rsplit(", ").next().and_then(|n| n.parse().ok())
    };
    match event {
        Event::Code(text) if text.starts_with("\nSay(") || text.starts_with("\nRecvFile(") => {
            last_number(text).unwrap_or(0)
        }
        Event::Object(text) if text.contains("last modified") => {
            let number = text.trim_start_matches('[').split(',').next();
            number.and_then(|n| n.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Feeds pieces; what arrived, raw data joined, and how it ended.
fn receive<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Result<(), Violation>) {
    let mut receiver = Receiver::new(1 << 20);
    let (mut input, mut events) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match receiver.next(&mut input) {
                Ok(Some(Event::Raw(bytes))) => match events.last_mut() {
                    Some(Event::Raw(before)) => {
                        *before = Bytes::from([&before[..], &bytes].concat())
                    }
                    _ => events.push(Event::Raw(bytes)),
                },
                Ok(Some(event)) => {
                    receiver.expect_raw(raw_behind(&event));
                    events.push(event);
                }
                Ok(None) => break,
                Err(violation) => return (events, Err(violation)),
            }
        }
    }
    (events, receiver.finish(&input))
}

/// Cuts bytes at places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|at| at.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut from = 0;
    let mut pieces = Vec::new();
    for to in places {
        pieces.push(&bytes[from..to]);
        from = to;
    }
    pieces.push(&bytes[from..]);
    pieces
}

/// What a sender makes of events.
fn send(events: &[Event]) -> Vec<u8> {
    let (mut out, mut span) = (Vec::new(), None);
    for event in events {
        match event {
            Event::Begin(seq) => {
                let seq = seq.parse().expect("the recordings use numbers");
                span = Some(Span::posting(&mut out, seq));
            }
            Event::AckBegin(seq) => span = Some(Span::ack(&mut out, seq)),
            Event::End | Event::AckEnd => span.take().expect("a span").finish(&mut out),
            Event::Code(text) => write_code(&mut out, text),
            Event::Object(text) => write_object(&mut out, text),
            Event::Raw(bytes) => out.extend_from_slice(bytes),
            Event::Ask(_) | Event::Error(_) => panic!("not in the recordings"),
        }
    }
    out
}

#[test]
fn recordings_are_received_whole_and_sent_byte_for_byte() {
    for (name, bytes) in captures() {
        let (events, end) = receive([bytes]);
        assert_eq!(end, Ok(()), "{name}");
        assert_eq!(send(&events), bytes, "{name}");
    }
}

#[test]
fn an_end_at_every_byte_is_told_apart() {
    for (name, bytes) in captures() {
        let (_, whole) = receive([bytes]);
        assert_eq!(whole, Ok(()));
        let mut clean = 0;
        for at in 0..bytes.len() {
            let (events, end) = receive([&bytes[..at]]);
            let between = matches!(
                events.last(),
                None | Some(Event::End | Event::AckEnd | Event::Error(_))
            ) && send(&events).len() == at;
            assert_eq!(end.is_ok(), between, "{name} ended at byte {at}: {end:?}");
            clean += end.is_ok() as u32;
            if let Err(violation) = end {
                assert!(violation.0.starts_with("the stream ended "), "{violation}");
            }
        }
        assert!(clean >= 2, "{name}");
    }
}

#[test]
fn bad_packets_are_refused_each_with_its_reason() {
    let long_header = format!("[1#{}]x", "y".repeat(60));
    let cases: &[(&[u8], &str)] = &[
        (b"x", "begins with `[`, found `x`"),
        (b"\xff", "found byte 0xff"),
        (b"[#co_begin]", "without a length"),
        (b"[-3#co_begin]101", "decimal digits, found `-`"),
        (b"[0x3#co_begin]101", "decimal digits, found `x`"),
        (b"[+3#co_begin]101", "decimal digits, found `+`"),
        (b"[ 3#co_begin]101", "decimal digits, found ` `"),
        (b"[abc#co_begin]101", "decimal digits, found `a`"),
        (b"[03#co_begin]101", "leading zero"),
        (b"[3]101", "decimal digits, found `]`"),
        (b"[99999999999999999999", "limit of 1048576 bytes"),
        (b"[1048577#]", "limit of 1048576 bytes"),
        (long_header.as_bytes(), "more than 60 bytes"),
        (b"[3#co_start]101", "unknown directive `co_start`"),
        (b"[3#CO_BEGIN]101", "unknown directive `CO_BEGIN`"),
        (b"[4#]f()\n", "code packet outside a conversation"),
        (b"[1#co_recv]1", "co_recv packet outside a conversation"),
        (b"[3#co_end]101", "co_end packet outside a conversation"),
        (b"[0#co_begin]", "empty payload"),
        (b"[100#co_begin]", "number of 100 bytes"),
        (b"[2#co_begin]\xc3\x28", "not valid UTF-8"),
        (b"[3#co_begin]101[0#]", "code packet with an empty payload"),
        (
            b"[3#co_begin]101[3#co_begin]102",
            "co_begin packet inside a conversation 101: they do not nest",
        ),
        (
            b"[3#co_begin]101[3#co_ack_begin]102",
            "co_ack_begin packet inside a conversation 101: they do not nest",
        ),
        (
            b"[3#co_ack_begin]101[3#co_begin]102",
            "inside the answer to conversation 101: they do not nest",
        ),
        (
            b"[3#co_ack_begin]101[3#co_end]101",
            "co_end packet inside the answer",
        ),
        (
            b"[3#co_ack_begin]101[1#co_send]1",
            "co_send packet inside the answer",
        ),
        (
            b"[3#co_begin]101[3#co_end]102",
            "end of conversation 102 inside conversation 101",
        ),
        (b"[3#co_begin]101[2#]\xff\xfe", "not valid UTF-8"),
    ];
    for (bytes, reason) in cases {
        let shown = String::from_utf8_lossy(bytes);
        let (_, end) = receive([*bytes]);
        let violation = end.expect_err(&shown);
        assert!(violation.0.contains(reason), "{shown}: {violation}");
        assert!(!violation.0.contains('\n'));
        let bytewise = receive(bytes.chunks(1)).1;
        assert_eq!(bytewise, Err(violation), "{shown} byte by byte");
    }
}

#[test]
fn a_length_is_refused_before_its_payload_arrives_and_nothing_is_set_aside_for_it() {
    let mut receiver = Receiver::new(1 << 20);
    let mut input = BytesMut::from(&b"[3#co_begin]101[1048576#]"[..]);
    assert_eq!(
        receiver.next(&mut input),
        Ok(Some(Event::Begin("101".into())))
    );
    assert_eq!(receiver.next(&mut input), Ok(None));
    assert!(input.capacity() < 1024);
}

#[test]
fn what_the_existing_peers_write_in_odd_ways_is_taken() {
    let bytes = "[12#co_begin]any-thing é[4#]f()\n[1#co_send]1[12#co_end]any-thing é\
                 [19#err]gone\n\tat main.go:1\n";
    let (events, end) = receive([bytes.as_bytes()]);
    assert_eq!(end, Ok(()));
    assert_eq!(events[0], Event::Begin("any-thing é".into()));
    assert_eq!(events[2], Event::Ask("1".into()));
    assert_eq!(events[4], Event::Error("gone\n\tat main.go:1\n".into()));
}

#[test]
fn what_is_sent_has_no_empty_payload_and_errors_have_one_line() {
    let mut out = Vec::new();
    write_code(&mut out, "");
    write_object(&mut out, "");
    write_error(&mut out, "it broke\nstack\n");
    write_error(&mut out, "");
    let sent = String::from_utf8(out).expect("text");
    assert_eq!(
        sent,
        "[2#]\n\n[1#co_recv]\n[8#err]it broke[15#err]no reason given"
    );
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        which in 0..14usize,
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (_, bytes) = captures()[which];
        prop_assert_eq!(receive(cut(bytes, &places)), receive([bytes]));
    }

    #[test]
    fn cuts_of_damaged_input_do_not_matter(
        which in 0..14usize,
        damage in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = captures()[which].1.to_vec();
        let at = damage.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(receive(cut(&bytes, &places)), receive([&bytes[..]]));
    }

    #[test]
    fn anything_is_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut receiver = Receiver::new(1 << 20);
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = receiver.next(&mut input) {}
        let _ = receiver.finish(&input);
    }
}
