//! Frames read as they were written, in whatever pieces they come; strangers' bytes are refused.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::{
    Failure, Kind,
    wire::mux::{HandleKind, Settings, WireHandle},
};

fn frames(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, String> {
    let mut reader = Reader::new(&Settings::default());
    let mut frames: Vec<Frame> = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(frame) = reader.take_frame().map_err(|violation| violation.0)? {
            match (frames.last_mut(), frame) {
                // raw data is given as it comes
                (Some(Frame::Data(before)), Frame::Data(more)) if !more.is_empty() => {
                    *before = [&before[..], &more].concat().into();
                }
                (_, frame) => frames.push(frame),
            }
        }
    }
    Ok(frames)
}

fn sample() -> Vec<u8> {
    let handles = [
        WireHandle {
            kind: HandleKind::Stream,
            number: 1,
        },
        WireHandle {
            kind: HandleKind::Returned,
            number: 9,
        },
    ];
    let inline = ScriptText::Inline {
        parameters: vec!["a".into(), "b".into()],
        source: "f(a, b)".into(),
    };
    let mut out = Vec::new();
    write_opening(
        &mut out,
        &Opening {
            number: 7,
            landing: 3,
            script: Some(inline),
            value: true,
            last: false,
            remaining: Some(Duration::from_micros(1)),
            depth: 2,
            trace: Some(&[5; 25]),
            arguments: &[0x92, 1, 2],
            handles: &handles,
        },
    );
    write_script(&mut out, &ScriptText::Number(4), false, &[0x90], &[]);
    write_data(&mut out, 3);
    out.extend_from_slice(b"abc");
    write_data(&mut out, 0);
    write_item(&mut out, 1, true, &handles);
    out.push(0xc0);
    write_end(&mut out);
    write_error(&mut out, &Failure::new(Kind::App, "no"));
    out
}

#[test]
fn frames_read_as_written_in_any_pieces() {
    let bytes = sample();
    let whole = frames(&bytes, bytes.len()).unwrap();
    assert_eq!(whole.len(), 7);
    let Frame::Open(open) = &whole[0] else {
        panic!("{:?}", whole[0]);
    };
    assert_eq!((open.number, open.landing, open.depth), (7, 3, 2));
    assert_eq!(open.remaining, Some(Duration::from_millis(1)));
    assert_eq!(open.handles.len(), 2);
    assert_eq!(&open.arguments[..], [0x92, 1, 2]);
    for piece in 1..40 {
        assert_eq!(frames(&bytes, piece).unwrap(), whole, "pieces of {piece}");
    }
}

#[test]
fn wrong_frames_say_what_is_wrong() {
    for (bytes, why) in [
        (&[0x33, 0, 0, 0, 0][..], "unknown kind 0x33"),
        (&[0x04, 0xff, 0xff, 0xff, 0xff], "Settings::message"),
        (&[0x04, 1, 0, 0, 0, 0xf0], "reserved flags"),
        (
            &[0x03, 5, 0, 0, 0, 0, 0xff, 0xff, 0, 0],
            "Settings::scripts",
        ),
        (&[0x02, 1, 0, 0, 0, 0], "ends within"),
        (&[0x07, 1, 0, 0, 0, 0xc1], "no failure"),
    ] {
        let error = frames(bytes, 64).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(
        frames(&[0x80, 2, 0, 0, 0, 1, 1], 3).unwrap(),
        [],
        "kinds from 0x80 on may be skipped"
    );
}

#[test]
fn control_messages_read_as_written() {
    let messages = [
        Control::Preface {
            settings: Box::new(Settings::default()),
            token: b"who".into(),
        },
        Control::Define {
            number: 1,
            parameters: vec!["a0".into()],
            source: "calc::add(a0)".into(),
        },
        Control::Defined(1),
        Control::Release {
            object: 3,
            count: 2,
        },
        Control::Seen {
            receivers: true,
            number: 5,
            channel: 1,
            handles: 2,
        },
        Control::Goodbye(8),
        Control::Done(9),
        Control::Close {
            kind: Kind::Limit,
            reason: "enough".into(),
        },
    ];
    let mut bytes = Vec::new();
    for message in &messages {
        message.write(&mut bytes);
    }
    for piece in [1, 7, 1000] {
        let mut reader = ControlReader::new(&Settings::default());
        let mut read = Vec::new();
        for piece in bytes[1..].chunks(piece) {
            reader.push(Bytes::copy_from_slice(piece));
            while let Some(message) = reader.take_message().unwrap() {
                read.push(message);
            }
        }
        assert_eq!(read, messages);
    }
}
