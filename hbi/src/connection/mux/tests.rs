//! The driver against a peer's state machine, over a transport that watches how much is read.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
    },
    time,
};

use super::{Driver, MuxLink, scratch::READ};
use crate::{
    Error, Failure, Settings,
    connection::now,
    endpoint::{
        Arrived, BoxFuture, Encoding, Landed, Landing, Link as _, LinkInfo, Prepared, Written,
    },
    value::{Handles, Packed},
    wire::mux::{self, CoId, Event, Input, Opening, Output, Reply},
};

type Peer = mux::Connection<(), ()>;

/// Calls of each round: a crowd.
const CALLS: usize = 1000;

/// Rounds until a crowd has to have been split: far more than it takes to try all ways to wait.
const ROUNDS: usize = 1000;

/// More calls than have their answers kept for a peer that reads none, and what each says: so few are in
/// one read that it does not matter how long they take.
const FLOOD: usize = 1 << 11;
const SAID: [u8; 4096] = [7; 4096];

/// Answers each call with its arguments.
struct Echo;

impl Landing for Echo {
    fn is_defined(&self, _: u32) -> bool {
        false
    }

    fn define(&mut self, _: u32, _: &[&str], _: &str) {}

    fn land(&mut self, arrived: Arrived<'_>, output: &mut Vec<u8>) -> Landed {
        output.extend_from_slice(arrived.arguments);
        Landed::Done(Handles::new())
    }

    fn prepare(&mut self, _: u32) -> Arc<dyn Prepared> {
        unreachable!("calls are not kept")
    }

    fn means(&self, _: u32, _: &Arc<dyn Prepared>) -> bool {
        unreachable!("calls are not kept")
    }

    fn unheard(
        &self,
        landing: BoxFuture<Result<Packed, Failure>>,
    ) -> BoxFuture<Result<Packed, Failure>> {
        landing
    }

    fn read(&mut self, _: &str) -> Result<Written, Failure> {
        unreachable!("it is no text wire")
    }

    fn read_value(&mut self, _: &str) -> BoxFuture<Result<Arc<dyn Prepared>, Failure>> {
        unreachable!("it is no text wire")
    }

    fn connected(&mut self) -> Option<BoxFuture<()>> {
        None
    }

    fn disconnected(&mut self, _: &Error) {}
}

/// A stream that counts reads which were held to little, and brought as much.
struct Watched {
    stream: DuplexStream,
    held: Arc<AtomicUsize>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let asked = buffer.remaining();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if asked < READ / 4 && buffer.remaining() == 0 {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn link(settings: Settings) -> Arc<MuxLink> {
    let info = LinkInfo {
        peer_address: String::new(),
        local_address: String::new(),
        encoding: Encoding::Bound,
        deadline: None,
        conversations: Settings::default().conversations,
        trace: false,
        identity: None,
    };
    Arc::new(MuxLink::new(info, settings, &[]))
}

fn written(peer: &mut Peer) -> Vec<u8> {
    let mut output = Output::default();
    peer.fill(&mut output);
    output.as_slice().expect("it is all small").to_vec()
}

/// Opens a call of script 0.
fn call(peer: &mut Peer, arguments: &[u8]) -> CoId {
    let opening = Opening {
        script: Some(0),
        value: true,
        call: true,
        last: true,
        deadline: None,
        depth: 0,
        trace: None,
        arguments,
        handles: &[],
    };
    peer.open(opening, Instant::now()).expect("it is taken")
}

/// Takes apart all of the input that is whole; whether the other side's preface was in it.
fn receive(peer: &mut Peer, input: &mut Vec<u8>) -> bool {
    let (mut at, mut ready) = (0, false);
    while let Some(event) = peer
        .receive(Instant::now(), Input::copied(input), &mut at)
        .expect("it keeps to the protocol")
    {
        ready |= matches!(event, Event::Ready);
    }
    input.drain(..at);
    ready
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_lands_once_the_peer_reads() {
    // once it is read the transport takes all at once that waited
    const TRANSPORT: usize = 4 << 20;
    let (near, mut far) = duplex(TRANSPORT);
    let link = link(Settings::default());
    tokio::spawn(Driver::new(Arc::clone(&link), near, Box::new(Echo)));
    let mut peer = Peer::new(Settings::default(), Instant::now());
    peer.define(0, &[""; 0], "echo");
    far.write_all(&written(&mut peer)).await.unwrap();
    let mut input = Vec::with_capacity(TRANSPORT);
    far.read_buf(&mut input).await.unwrap();
    assert!(receive(&mut peer, &mut input), "the preface comes first");

    let calls: Vec<_> = (0..FLOOD).map(|_| call(&mut peer, &SAID)).collect();
    far.write_all(&written(&mut peer)).await.unwrap();
    // it passes once nobody has anything to do
    time::sleep(Duration::from_millis(1)).await;
    let unwritten = link.lock().mux.unwritten();
    assert!(unwritten < 2 << 20, "{unwritten} bytes wait");

    let began = time::Instant::now();
    let mut cx = Context::from_waker(Waker::noop());
    for id in calls {
        let answer = loop {
            if let Poll::Ready(answer) = peer.poll_reply(id, &mut cx) {
                break answer;
            }
            let read = far.read_buf(&mut input).await.unwrap();
            assert_ne!(read, 0, "the driver has ended");
            receive(&mut peer, &mut input);
        };
        assert!(matches!(answer, Reply::Bytes(bytes) if bytes == SAID[..]));
    }
    // what was held back did not wait for a timer
    assert_eq!(time::Instant::now(), began);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_is_read_in_parts_is_answered_whole() {
    let (near, mut far) = duplex(1 << 20);
    let held = Arc::default();
    let stream = Watched {
        stream: near,
        held: Arc::clone(&held),
    };
    let link = link(Settings::default());
    tokio::spawn(Driver::new(link, stream, Box::new(Echo)));
    let began = time::Instant::now();

    let mut peer = Peer::new(Settings::default(), Instant::now());
    peer.define(0, &[""; 0], "echo");
    far.write_all(&written(&mut peer)).await.unwrap();
    let (mut input, mut ready) = (Vec::new(), false);
    let mut cx = Context::from_waker(Waker::noop());
    let mut round = 0;
    // while no time passes no way moves more: crowds are split only while that is tried
    while held.load(Ordering::Relaxed) < 4 {
        assert!(round < ROUNDS, "no crowd was split");
        let mut calls = Vec::new();
        // the first round only learns what the other side says of itself
        for n in 0..if ready { CALLS } else { 0 } {
            let arguments = ((round * CALLS + n) as u32).to_be_bytes();
            calls.push((call(&mut peer, &arguments), arguments));
        }
        far.write_all(&written(&mut peer)).await.unwrap();
        let mut next = 0;
        while !ready || next < calls.len() {
            let read = far.read_buf(&mut input).await.unwrap();
            assert_ne!(read, 0, "the driver has ended");
            ready |= receive(&mut peer, &mut input);
            while let Some((id, arguments)) = calls.get(next)
                && let Poll::Ready(reply) = peer.poll_reply(*id, &mut cx)
            {
                let right = matches!(reply, Reply::Short(value) if *value == arguments[..]);
                assert!(right, "call {next} of round {round}");
                next += 1;
            }
        }
        round += 1;
    }
    // what is left unread is read when a timer wakes the driver, which nothing has to
    assert_eq!(time::Instant::now(), began);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_ends_while_the_timer_is_looked_at_is_for_the_next_turn() {
    let (near, _far) = duplex(1);
    let mut driver = Driver::new(link(Settings::default()), near, Box::new(Echo));
    driver.scratch.take();
    let began = now();
    let pause = Duration::from_millis(10);
    driver.paused = Some(began + pause);
    // as long as what was due took
    time::sleep(2 * pause).await;
    let mut cx = Context::from_waker(Waker::noop());
    assert!(driver.poll_timer(&mut cx, began).is_ok());
    assert!(driver.paused.is_some(), "the read is not asked for yet");
}

// by the machine's clock: only times of a second and more are waited for by a thread
#[tokio::test]
async fn silence_is_noticed_after_times_that_are_far_off() {
    let settings = Settings {
        keep_alive: Duration::from_secs(1),
        idle_timeout: Duration::from_millis(1_100),
        ..Settings::default()
    };
    let (near, _far) = duplex(1024);
    let link = link(settings);
    let driver = Driver::new(Arc::clone(&link), near, Box::new(Echo));
    let ended = time::timeout(Duration::from_secs(60), driver).await;
    assert!(ended.is_ok(), "the driver waits on");
    let reason = link.closed().expect("it has ended").to_string();
    assert!(reason.contains("nothing came from the peer"), "{reason}");
}
