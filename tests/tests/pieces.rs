//! Messages that come in pieces, as credit lets them, between two state machines: each becomes whole, and
//! none holds up another for ever.

use std::{io::IoSlice, task::Poll, time::Instant};

use bytes::Bytes;
use hbi::{
    Failure, Kind, Settings,
    wire::mux::{Arrival, CoId, Event, HandleKind, Opening, Output, Reply, WireHandle},
};
use hbi_tests::{
    machine::{Machine, call, cx, feed, machine, output},
    raw::frame,
};

/// A machine, and one with these settings, that know each other.
fn with_settings(settings: Settings) -> (Machine, Machine) {
    let (mut a, mut b) = (machine(), Machine::new(settings, Instant::now()));
    let (to_b, to_a) = (output(&mut a), output(&mut b));
    feed(&mut a, &to_a).unwrap();
    feed(&mut b, &to_b).unwrap();
    (a, b)
}

/// A conversation with so many streams, at its opener and at its host.
fn open(a: &mut Machine, streams: u16) -> (CoId, CoId) {
    let stream = |number| WireHandle {
        kind: HandleKind::Stream,
        number,
    };
    let handles: Vec<_> = (1..=streams.into()).map(stream).collect();
    let opening = Opening {
        handles: &handles,
        last: false,
        ..call(None, &[0x90])
    };
    let id = a.open(opening, Instant::now()).unwrap();
    (id, CoId::from_bits(id.to_bits() | 1 << 31))
}

/// Brings all that there is from one to the other, and back; whether there was anything.
fn exchange(a: &mut Machine, b: &mut Machine) -> bool {
    let there = output(a);
    feed(b, &there).unwrap();
    let back = output(b);
    feed(a, &back).unwrap();
    !there.is_empty() || !back.is_empty()
}

/// How many items a channel has for its reader.
fn read(b: &mut Machine, id: CoId, channel: u16) -> usize {
    let mut items = 0;
    while let Poll::Ready(item) = b.poll_receive(id, channel, &mut cx()) {
        assert!(matches!(item, Ok(Some(Arrival::Item(_)))), "{item:?}");
        items += 1;
    }
    items
}

/// A frame that opens a conversation or carries a value, and whether more of its message is to come.
#[derive(Debug, Clone, Copy)]
struct Part {
    opens: bool,
    conversation: u8,
    more: bool,
}

/// The openings and values in bytes of whole frames.
fn parts(mut bytes: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while let [x, y, z, kind, conversation, _, _, _, rest @ ..] = bytes {
        let (body, rest) = rest.split_at(u32::from_le_bytes([*x, *y, *z, 0]) as usize);
        if matches!(kind, 0x02 | 0x04) {
            parts.push(Part {
                opens: *kind == 0x02,
                conversation: *conversation,
                more: body[0] & 4 != 0,
            });
        }
        bytes = rest;
    }
    parts
}

fn send(a: &mut Machine, id: CoId, channel: u16, len: usize) -> bool {
    let item = Bytes::from(vec![7; len]);
    a.has_room(id, channel) && a.send_item(id, channel, item, &[]).is_ok()
}

#[test]
fn a_message_that_credit_cut_is_finished_before_another_begins() {
    let mut settings = Settings::default();
    settings.connection_window = settings.window;
    let (mut a, _) = with_settings(settings);
    a.define(1, &["a"], "f(a)");
    // a MessagePack array of one string of bytes, of which the credit lets out one and a half
    let arguments = [&[0x91, 0xc6, 0, 4, 0, 0][..], &[7; 256 << 10]].concat();
    for _ in 0..8 {
        a.open(call(Some(1), &arguments), Instant::now()).unwrap();
    }
    let mut came = Vec::new();
    for _ in 0..40 {
        // the heads of openings go out at once
        let written = parts(&output(&mut a)).into_iter();
        came.extend(written.filter(|part| !part.opens || !part.more));
        feed(&mut a, &frame(0x0f, 0, &40_000_u32.to_le_bytes())).unwrap();
    }
    let ends = came.iter().filter(|part| !part.more).count();
    assert!(ends > 5, "{came:?}");
    let mut within = None;
    for part in came {
        let co = part.conversation;
        assert!(within.is_none_or(|open| open == co), "{co} in {within:?}");
        within = part.more.then_some(co);
    }
}

#[test]
fn large_items_of_many_streams_arrive_though_little_is_held() {
    let mut settings = Settings::default();
    settings.held = 1 << 20;
    let (mut a, mut b) = with_settings(settings);
    const STREAMS: u16 = 60;
    let (id, hosted) = open(&mut a, STREAMS);
    for channel in 1..=STREAMS {
        // larger than a channel's window, so each could wait for credit when it was begun
        assert!(send(&mut a, id, channel, 500_000));
    }
    let mut arrived = 0;
    while arrived < usize::from(STREAMS) {
        assert!(exchange(&mut a, &mut b), "{arrived} of {STREAMS} arrived");
        let came = (1..=STREAMS).map(|channel| read(&mut b, hosted, channel));
        arrived += came.sum::<usize>();
    }
}

#[test]
fn streams_of_large_items_that_are_read_have_their_turns() {
    let sizes: [&[usize]; 4] = [
        &[1_000_000; 6],
        &[4 << 20; 3],
        &[2_000_000; 12],
        &[400_000, 400_000, 400_000, 4_000_000],
    ];
    for sizes in sizes {
        let (mut a, mut b) = with_settings(Settings::default());
        let (id, hosted) = open(&mut a, sizes.len() as u16);
        let mut arrived = vec![0; sizes.len()];
        for _ in 0..150 {
            // each is always refilled
            for (channel, len) in (1..).zip(sizes) {
                send(&mut a, id, channel, *len);
            }
            exchange(&mut a, &mut b);
            for (channel, arrived) in (1..).zip(&mut arrived) {
                *arrived += read(&mut b, hosted, channel);
            }
        }
        let (least, most) = (arrived.iter().min(), arrived.iter().max());
        let even = least.unwrap() * 3 >= *most.unwrap() && *least.unwrap() > 0;
        assert!(even, "{sizes:?} brought {arrived:?}");
    }
}

#[test]
fn streams_that_nobody_reads_stop_no_other() {
    for (still, large) in [(1, 4 << 20), (4, 1_000_000), (14, 300_000)] {
        for other in [10_000, 70_000, 250_000, 600_000] {
            let (mut a, mut b) = with_settings(Settings::default());
            let (id, hosted) = open(&mut a, still + 1);
            for _ in 0..2 {
                for channel in 1..=still {
                    assert!(send(&mut a, id, channel, large), "there is room for two");
                }
                while exchange(&mut a, &mut b) {}
            }
            let mut arrived = 0;
            for _ in 0..60 {
                send(&mut a, id, still + 1, other);
                exchange(&mut a, &mut b);
                arrived += read(&mut b, hosted, still + 1);
            }
            assert!(
                arrived >= 10,
                "{arrived} of {other} beside {still} of {large}"
            );
        }
    }
}

#[test]
fn an_item_and_an_opening_in_pieces_become_whole_in_a_narrow_window() {
    for window in [384 << 10, 1 << 20, 4 << 20] {
        for before in [0, 4, 8, 12] {
            let mut settings = Settings::default();
            (settings.connection_window, settings.held) = (window, 1 << 20);
            let (mut a, mut b) = with_settings(settings);
            let (id, hosted) = open(&mut a, 1);
            assert!(send(&mut a, id, 1, 4_000_000));
            let mut item = 0;
            for _ in 0..before {
                exchange(&mut a, &mut b);
                item += read(&mut b, hosted, 1);
            }
            let arguments = vec![7; 4_000_000];
            a.define(1, &["a"], "f(a)");
            a.open(call(Some(1), &arguments), Instant::now()).unwrap();
            let mut opened = 0;
            for _ in 0..100 {
                opened += feed(&mut b, &output(&mut a)).unwrap().len();
                item += read(&mut b, hosted, 1);
                feed(&mut a, &output(&mut b)).unwrap();
            }
            // the text and the call
            assert!(opened >= 1 && a.unwritten() == 0, "{window}, {before}");
            assert_eq!(item, 1, "{window}, {before}");
        }
    }
}

#[test]
fn a_stream_is_dropped_within_a_message() {
    let cut = [100_000, 140_000, 200_000, 300_000];
    for (len, cut) in [500_000, 1_000_000]
        .map(|len| cut.map(|cut| (len, cut)))
        .concat()
    {
        let (mut a, mut b) = with_settings(Settings::default());
        let (id, hosted) = open(&mut a, 2);
        assert!(send(&mut a, id, 1, len));
        let bytes = output(&mut a);
        // it hears of a part, drops the stream, and the rest was under way
        let (begun, rest) = bytes.split_at(cut);
        let whole = last_whole(begun);
        feed(&mut b, &begun[..whole]).unwrap();
        b.stop(hosted, 1);
        feed(&mut b, &[&begun[whole..], rest].concat()).unwrap();
        feed(&mut a, &output(&mut b)).unwrap();
        // no credit is lost by it: others have all of the window, as often as they want
        for _ in 0..10 {
            assert!(send(&mut a, id, 2, 300_000));
            while exchange(&mut a, &mut b) {}
            assert_eq!(read(&mut b, hosted, 2), 1, "{len}");
            exchange(&mut a, &mut b);
        }
    }
}

/// How many of the bytes are whole frames.
fn last_whole(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some([a, b, c, ..]) = bytes.get(at..) {
        let len = 8 + u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        if at + len > bytes.len() {
            break;
        }
        at += len;
    }
    at
}

#[test]
fn a_host_that_fails_wants_no_more_of_the_streams() {
    let (mut a, mut b) = with_settings(Settings::default());
    let (id, hosted) = open(&mut a, 1);
    for _ in 0..2 {
        assert!(send(&mut a, id, 1, 1_000_000));
        while exchange(&mut a, &mut b) {}
    }
    b.fail(hosted, 0, &Failure::new(Kind::App, "no"));
    while exchange(&mut a, &mut b) {}
    assert!(a.poll_stopped(id, 1, &mut cx()).is_ready());
    assert!(!send(&mut a, id, 1, 1));
    let seen = b.poll_receive(hosted, 1, &mut cx());
    assert!(matches!(seen, Poll::Ready(Err(_))), "{seen:?}");
    b.stop(hosted, 1);
    a.end(id, 0);
    a.release(id);
    while exchange(&mut a, &mut b) {}
    assert_eq!((a.conversations(), b.conversations()), ((0, 0), (0, 0)));
}

#[test]
fn the_number_of_a_host_that_failed_is_free_though_its_stream_is_not_read() {
    let (mut a, mut b) = with_settings(Settings::default());
    let (id, hosted) = open(&mut a, 1);
    assert!(send(&mut a, id, 1, 100));
    exchange(&mut a, &mut b);
    b.fail(hosted, 0, &Failure::new(Kind::App, "no"));
    exchange(&mut a, &mut b);
    // the opener is over with it, and opens the next
    a.end(id, 0);
    a.release(id);
    let (next, _) = open(&mut a, 1);
    assert_eq!(next.to_bits() & 0x7f_ffff, 0, "the number is used again");
    exchange(&mut a, &mut b);
    assert_eq!((a.conversations(), b.conversations()), ((1, 0), (0, 1)));
    // who reads later learns that it is over
    let seen = b.poll_receive(hosted, 1, &mut cx());
    assert!(matches!(seen, Poll::Ready(Err(_))), "{seen:?}");
}

#[test]
fn a_stream_within_a_message_that_was_dropped_is_stopped() {
    for dropped in [true, false] {
        let (mut a, mut b) = with_settings(Settings::default());
        let (id, hosted) = open(&mut a, 1);
        let inner = WireHandle {
            kind: HandleKind::Stream,
            number: 2,
        };
        let item = Bytes::from(vec![7; 1_000_000]);
        a.send_item(id, 1, item, &[inner]).unwrap();
        let bytes = output(&mut a);
        let begun = last_whole(&bytes[..100_000]);
        feed(&mut b, &bytes[..begun]).unwrap();
        if dropped {
            b.stop(hosted, 1);
        }
        feed(&mut b, &bytes[begun..]).unwrap();
        if !dropped {
            a.fail(id, 1, &Failure::new(Kind::App, "no more of it"));
            feed(&mut b, &output(&mut a)).unwrap();
        }
        feed(&mut a, &output(&mut b)).unwrap();
        assert!(a.poll_stopped(id, 2, &mut cx()).is_ready());
    }
}

#[test]
fn openings_that_wait_for_credit_go_in_their_order() {
    let mut settings = Settings::default();
    settings.connection_window = settings.window;
    let (mut a, _) = with_settings(settings);
    a.define(1, &["a"], "f(a)");
    // small ones, of which the credit lets out some thirty
    for _ in 0..60 {
        let arguments = [7; 12_000];
        a.open(call(Some(1), &arguments), Instant::now()).unwrap();
    }
    let mut whole = Vec::new();
    for _ in 0..40 {
        let came = parts(&output(&mut a)).into_iter();
        whole.extend(came.filter(|part| !part.more).map(|part| part.conversation));
        feed(&mut a, &frame(0x0f, 0, &20_000_u32.to_le_bytes())).unwrap();
    }
    let expected: Vec<u8> = (0..60).collect();
    assert_eq!(whole, expected);
}

/// Makes calls until the next conversation has in frames the number of the one before them: there it begins
/// anew after 256 uses.
fn use_number_again(a: &mut Machine, b: &mut Machine) {
    for _ in 0..255 {
        let id = a.open(call(Some(1), &[0x90]), Instant::now()).unwrap();
        exchange(a, b);
        assert!(b.answer(CoId::from_bits(id.to_bits() | 1 << 31), &[1], &[]));
        exchange(a, b);
        assert!(a.poll_reply(id, &mut cx()).is_ready());
    }
}

#[test]
fn a_stream_kept_from_a_host_that_failed_is_no_other_conversations() {
    let (mut a, mut b) = with_settings(Settings::default());
    let (id, hosted) = open(&mut a, 1);
    exchange(&mut a, &mut b);
    b.fail(hosted, 0, &Failure::new(Kind::App, "no"));
    exchange(&mut a, &mut b);
    a.end(id, 0);
    a.release(id);
    exchange(&mut a, &mut b);
    use_number_again(&mut a, &mut b);
    let (again, hosted_again) = open(&mut a, 1);
    assert_eq!(again.wire(), id.wire());
    assert!(send(&mut a, again, 1, 100));
    exchange(&mut a, &mut b);
    // who kept the stream of the first has nothing of it, and lets go of nothing else
    let seen = b.poll_receive(hosted, 1, &mut cx());
    assert!(matches!(seen, Poll::Ready(Err(_))), "{seen:?}");
    b.stop(hosted, 1);
    exchange(&mut a, &mut b);
    assert!(a.poll_stopped(again, 1, &mut cx()).is_pending());
    assert_eq!(read(&mut b, hosted_again, 1), 1);
}

#[test]
fn who_keeps_a_hosted_conversation_that_is_over_touches_no_other() {
    let (mut a, mut b) = with_settings(Settings::default());
    a.define(1, &[] as &[&str], "f()");
    let (id, hosted) = open(&mut a, 0);
    exchange(&mut a, &mut b);
    b.end(hosted, 0);
    a.end(id, 0);
    a.release(id);
    exchange(&mut a, &mut b);
    use_number_again(&mut a, &mut b);
    let again = a.open(call(Some(1), &[0x90]), Instant::now()).unwrap();
    assert_eq!(again.wire(), id.wire());
    exchange(&mut a, &mut b);
    // whatever is done with the first
    assert!(!b.answer(hosted, &[1], &[]));
    let sent = b.send_item(hosted, 0, Bytes::from_static(&[1]), &[]);
    assert!(sent.is_err(), "{sent:?}");
    b.fail(hosted, 0, &Failure::new(Kind::App, "late"));
    b.end(hosted, 0);
    b.release(hosted);
    assert!(!exchange(&mut a, &mut b), "the other hears of nothing");
    let hosted_again = CoId::from_bits(again.to_bits() | 1 << 31);
    assert!(b.answer(hosted_again, &[2], &[]));
    exchange(&mut a, &mut b);
    let answer = a.poll_reply(again, &mut cx());
    assert!(
        matches!(&answer, Poll::Ready(Reply::Short(value)) if value.to_vec() == [2]),
        "{answer:?}"
    );
}

#[test]
fn small_pieces_of_data_that_wait_are_few() {
    let (mut a, _) = with_settings(Settings::default());
    let (id, _) = open(&mut a, 1);
    let mut taken = 0;
    while a.send_data(id, 1, Bytes::from_static(&[7])).is_ok() {
        taken += 1;
    }
    assert!((100..4_000).contains(&taken), "{taken}");
    // as they leave there is room again
    output(&mut a);
    assert!(a.has_room(id, 1));
}

#[test]
fn an_opening_that_was_given_up_in_pieces_does_not_land() {
    // VALUE, MORE and an object in its arguments; STOP; the rest, with LAST
    let begun = frame(0x02, 0, &[0x0d, 1, 0, 0, 0, 1, 0, 2, 7, 0, 0, 0]);
    let stop = frame(0x09, 0, &[0, 0]);
    let rest = frame(0x04, 0, &[2, 0, 0, 0x90]);
    // its host ends it before the rest comes, as the opener or its time wants it, or only later
    for (stopped, ended) in [(true, true), (true, false), (false, true)] {
        let (_, mut b) = with_settings(Settings::default());
        let hosted = CoId::from_bits(1 << 31);
        let end = |b: &mut Machine| b.fail(hosted, 0, &Failure::new(Kind::Cancelled, "given up"));
        let begins = Event::Begun {
            id: hosted,
            script: 1,
        };
        assert_eq!(feed(&mut b, &begun).unwrap(), [format!("{begins:?}")]);
        if stopped {
            let cancelled = [format!("{:?}", Event::Cancelled(hosted))];
            assert_eq!(feed(&mut b, &stop).unwrap(), cancelled);
        }
        if ended {
            end(&mut b);
        }
        assert!(feed(&mut b, &rest).unwrap().is_empty());
        end(&mut b);
        assert_eq!(b.conversations(), (0, 0));
        // it was seen all the same: its opener counts it
        b.goodbye();
        let bytes = output(&mut b);
        for expected in [
            frame(0x0d, 0, &[7, 0, 0, 0, 1, 0, 0, 0]),
            frame(0x0c, 0, &1_u64.to_le_bytes()),
        ] {
            let mut parts = bytes.windows(expected.len());
            assert!(parts.any(|part| part == expected), "{bytes:x?}");
        }
    }
}

#[test]
fn the_rest_of_a_call_that_was_dropped_is_not_sent() {
    let (mut a, mut b) = with_settings(Settings::default());
    a.define(1, &["a"], "f(a)");
    let arguments = vec![7; 1_000_000];
    let id = a.open(call(Some(1), &arguments), Instant::now()).unwrap();
    let mut some = Output::default();
    a.fill(&mut some);
    while !some.is_empty() {
        let mut runs = [IoSlice::new(&[]); 64];
        let count = some.slices(&mut runs);
        let run: Vec<u8> = runs[..count].iter().flat_map(|run| run.to_vec()).collect();
        feed(&mut b, &run).unwrap();
        some.advance(run.len());
    }
    a.release(id);
    let rest = output(&mut a);
    assert!(rest.len() < 1000, "{} bytes more", rest.len());
    let hosted = CoId::from_bits(1 << 31);
    let cancelled = [format!("{:?}", Event::Cancelled(hosted))];
    assert_eq!(feed(&mut b, &rest).unwrap(), cancelled);
    b.fail(hosted, 0, &Failure::new(Kind::Cancelled, "given up"));
    exchange(&mut a, &mut b);
    assert_eq!((a.conversations(), b.conversations()), ((0, 0), (0, 0)));
}

#[test]
fn objects_in_messages_that_a_host_did_not_read_are_released() {
    for fails in [false, true] {
        let (mut a, mut b) = with_settings(Settings::default());
        let (id, hosted) = open(&mut a, 0);
        for number in 0..2 {
            let object = WireHandle {
                kind: HandleKind::Object,
                number,
            };
            let item = Bytes::from_static(&[0xc0]);
            a.send_item(id, 0, item, &[object]).unwrap();
        }
        a.end(id, 0);
        exchange(&mut a, &mut b);
        assert!(b.poll_receive(hosted, 0, &mut cx()).is_ready());
        match fails {
            true => b.fail(hosted, 0, &Failure::new(Kind::App, "no")),
            false => b.end(hosted, 0),
        }
        b.detach(hosted);
        assert_eq!(b.conversations(), (0, 0));
        // the first is its reader's
        let bytes = output(&mut b);
        let released = |number| {
            let release = frame(0x0d, 0, &[number, 0, 0, 0, 1, 0, 0, 0]);
            bytes.windows(release.len()).any(|part| part == release)
        };
        assert_eq!((released(0), released(1)), (false, true));
    }
}

#[test]
fn streams_in_messages_that_a_host_did_not_read_are_no_later_conversations() {
    let (mut a, mut b) = with_settings(Settings::default());
    let (id, hosted) = open(&mut a, 0);
    let stream = WireHandle {
        kind: HandleKind::Stream,
        number: 1,
    };
    let item = Bytes::from_static(&[0xc0]);
    a.send_item(id, 0, item, &[stream]).unwrap();
    a.end(id, 1);
    a.end(id, 0);
    exchange(&mut a, &mut b);
    b.fail(hosted, 0, &Failure::new(Kind::App, "no"));
    b.detach(hosted);
    a.release(id);
    exchange(&mut a, &mut b);
    assert_eq!((a.conversations(), b.conversations()), ((0, 0), (0, 0)));
    use_number_again(&mut a, &mut b);
    let (again, hosted_again) = open(&mut a, 1);
    assert_eq!(again.wire(), id.wire());
    assert!(send(&mut a, again, 1, 100));
    exchange(&mut a, &mut b);
    assert_eq!(read(&mut b, hosted_again, 1), 1);
}
