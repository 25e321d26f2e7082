//! Arbitrary bytes come from a peer that has introduced itself: they are told as events or as one
//! violation, and make nothing pile up.

#![no_main]

use std::{
    io,
    task::{Context, Waker},
    time::Instant,
};

use bytes::Bytes;
use hbi::{
    Failure, Kind, Settings,
    wire::mux::{CoId, Connection, Event, Input, Opening, Output, Violation, begin_answer, end_answer},
};
use libfuzzer_sys::fuzz_target;

type Machine = Connection<u32, ()>;

/// Bytes that wait for a peer that reads: answers, credit, ends.
const MOST_UNWRITTEN: usize = 1 << 20;

fn output(machine: &mut Machine) -> Vec<u8> {
    let mut output = Output::default();
    let mut bytes = Vec::new();
    while machine.has_output() {
        machine.fill(&mut output);
        let mut runs = [io::IoSlice::new(&[]); 64];
        while !output.is_empty() {
            let count = output.slices(&mut runs);
            let run: Vec<u8> = runs[..count].iter().flat_map(|run| run.to_vec()).collect();
            bytes.extend_from_slice(&run);
            output.advance(run.len());
            runs = [io::IoSlice::new(&[]); 64];
        }
    }
    bytes
}

/// Feeds what has come; returns what is not whole yet.
fn feed(machine: &mut Machine, bytes: Vec<u8>) -> Result<Vec<u8>, Violation> {
    let input = Bytes::from(bytes);
    let mut at = 0;
    let shared = Input::shared(&input);
    loop {
        let mut calls = Vec::new();
        let taken = machine.take_calls(shared, &mut at, |call| calls.push(call.id));
        for call in calls {
            let mut frame = Vec::new();
            begin_answer(&mut frame, call);
            frame.push(0xc0);
            end_answer(&mut frame);
            if machine.takes_answer(call.wire(), 1) {
                let len = frame.len();
                machine.write_answers(&mut frame, 0..len);
            } else {
                let _ = machine.answer(call, &[0xc0], &[]);
            }
        }
        taken?;
        let Some(event) = machine.receive(Instant::now(), shared, &mut at)? else {
            break;
        };
        match event {
            Event::Script(arrival) => machine.push_script(arrival, 0),
            Event::Open(open) => {
                let (co, value, last) = (open.id, open.value, open.last);
                if value && last {
                    let _ = machine.answer(co, &[0xc0], &[]);
                } else {
                    let mut cx = Context::from_waker(Waker::noop());
                    let _ = machine.poll_receive(co, 0, &mut cx);
                }
            }
            _ => {}
        }
    }
    Ok(input[at..].to_vec())
}

fuzz_target!(|input: &[u8]| {
    let Some((&cut, input)) = input.split_first() else {
        return;
    };
    let now = Instant::now();
    let mut machine = Machine::new(Settings::default(), now);
    let hello = output(&mut Machine::new(Settings::default(), now));
    let rest = feed(&mut machine, hello).expect("a peer as it should be");
    assert!(rest.is_empty());
    // a call and a conversation of this side, which the peer may answer
    machine.define(1, &["a"], "f(a)");
    for script in [Some(1), None] {
        let opening = Opening {
            script,
            value: script.is_some(),
            call: script.is_some(),
            last: script.is_some(),
            deadline: None,
            depth: 0,
            trace: None,
            arguments: if script.is_some() { &[0x91, 1] } else { &[] },
            handles: &[],
        };
        machine.open(opening, now).expect("there is room");
    }
    let mut left = Vec::new();
    for piece in input.chunks(cut.max(1) as usize) {
        left.extend_from_slice(piece);
        match feed(&mut machine, left) {
            Ok(rest) => left = rest,
            Err(violation) => {
                machine.write_close(Kind::Protocol, &violation.0);
                break;
            }
        }
        let mut cx = Context::from_waker(Waker::noop());
        for bits in [0, 1, 1 << 31, 1 << 31 | 1] {
            let _ = machine.poll_receive(CoId::from_bits(bits), 0, &mut cx);
        }
        assert!(machine.unwritten() < MOST_UNWRITTEN);
        output(&mut machine);
    }
    machine.close(Failure::new(Kind::Disconnected, "the test ends"));
});
