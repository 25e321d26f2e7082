//! The state machine of the mux wire, driven by hand: bytes out of one into the other.

use std::{
    io,
    task::{Context, Waker},
    time::Instant,
};

use bytes::Bytes;
use hbi::{
    Settings,
    wire::mux::{CoId, Connection, Event, Input, Opening, Output},
};

/// The state of a connection, of a driver that keeps nothing with it.
pub type Machine = Connection<u32, ()>;

/// One that begins, with the default settings.
pub fn machine() -> Machine {
    Machine::new(Settings::default(), Instant::now())
}

/// All that it has to write.
pub fn output(machine: &mut Machine) -> Vec<u8> {
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

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

/// Feeds bytes; tells what came of them, in words.
pub fn feed(machine: &mut Machine, bytes: &[u8]) -> Result<Vec<String>, String> {
    let input = Bytes::copy_from_slice(bytes);
    let (mut at, mut events) = (0, Vec::new());
    loop {
        // as the driver does: calls the short way, the rest by events
        let calls = machine.take_calls(Input::shared(&input), &mut at, |call| {
            events.push(format!(
                "open {:?} value true last true arguments {}",
                Some(call.script),
                hex(call.arguments)
            ));
        });
        calls.map_err(|violation| violation.to_string())?;
        let event = machine.receive(Instant::now(), Input::shared(&input), &mut at);
        let event = event.map_err(|violation| violation.to_string())?;
        match event {
            None if at == input.len() => return Ok(events),
            None => return Err(format!("{} bytes left", input.len() - at)),
            Some(Event::Script(arrival)) => {
                events.push(format!("script {}", arrival.script));
                machine.push_script(arrival, 0);
            }
            Some(Event::Open(open)) => events.push(format!(
                "open {:?} value {} last {} arguments {}",
                open.script,
                open.value,
                open.last,
                hex(open.arguments.as_slice())
            )),
            Some(event) => events.push(format!("{event:?}")),
        }
    }
}

/// The context of a task that nobody wakes.
pub fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A call of an interned script, or an open conversation where there is none.
pub fn call<'a>(script: Option<u32>, arguments: &'a [u8]) -> Opening<'a> {
    Opening {
        script,
        value: script.is_some(),
        call: script.is_some(),
        last: script.is_some(),
        deadline: None,
        depth: 0,
        trace: None,
        arguments,
        handles: &[],
    }
}

/// Two machines that know each other.
pub fn joined() -> (Machine, Machine) {
    let (mut a, mut b) = (machine(), machine());
    let (to_b, to_a) = (output(&mut a), output(&mut b));
    assert_eq!(feed(&mut a, &to_a).unwrap(), ["Ready"]);
    assert_eq!(feed(&mut b, &to_b).unwrap(), ["Ready"]);
    (a, b)
}

/// The first conversation, at its host.
pub fn hosted() -> CoId {
    CoId::from_bits(1 << 31)
}
