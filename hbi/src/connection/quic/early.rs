//! The first flight of a client (0-RTT): calls that may run twice go before the server has answered,
//! by what it took last time. Where it does not take them so, they go once more when it has answered.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use quinn::{RecvStream, SendStream};

use super::{
    link::QuicLink,
    posting::ORDERED,
    receive::{ReceiveState, Receiving},
    send::Sending,
    state::{Conversation, Key, State},
    texts::check_source,
};
use crate::{
    Failure,
    endpoint::Request,
    wire::{
        mux::{Settings, too_large},
        quic::{Control, Opening, Reader, write_opening},
    },
};

/// What is done until the server has told what it takes.
pub(super) struct Early {
    /// What went in the first flight, in order.
    sent: Vec<Sent>,
    /// How the control stream begins.
    preface: Vec<u8>,
    /// A stream that was to be of the first flight, and came too late for it.
    late: Option<(SendStream, RecvStream)>,
    /// The server did not take the first flight.
    rejected: bool,
}

/// A call that went in the first flight.
struct Sent {
    number: u64,
    landing: u64,
    frame: Vec<u8>,
    /// Bytes of its text, and of its arguments.
    source: usize,
    arguments: usize,
}

/// Whether a request may go before the server has answered: a call that may run twice, as a whole. It is
/// kept until then, so it is no large one.
pub(super) fn may_go(request: &Request<'_>) -> bool {
    let whole = request.call && request.last && request.handles.is_empty();
    whole && request.idempotent && request.arguments.len() <= ORDERED
}

impl State {
    /// A connection that does not wait for the server, which took this last time.
    pub(super) fn begin_early(&mut self, settings: Settings) {
        self.peer = Some(settings);
        self.early = Some(Box::new(Early {
            sent: Vec::new(),
            preface: self.control.clone(),
            late: None,
            rejected: false,
        }));
    }

    /// Streams for a call, where the first flight takes one more.
    pub(super) fn open_early(
        &mut self,
        conn: &quinn::Connection,
    ) -> Option<(SendStream, RecvStream)> {
        let early = self.early.as_mut()?;
        if early.late.is_some() || early.rejected {
            return None;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(streams)) = pin!(conn.open_bi()).poll(&mut cx) else {
            return None;
        };
        if streams.1.is_0rtt() {
            return Some(streams);
        }
        // the handshake is over: what the server says to the first flight is not known yet
        early.late = Some(streams);
        None
    }

    /// A call went in the first flight.
    pub(super) fn sent_early(&mut self, opening: &Opening<'_>, source: usize, frame: Vec<u8>) {
        if let Some(early) = &mut self.early {
            early.sent.push(Sent {
                number: opening.number,
                landing: opening.landing,
                frame,
                source,
                arguments: opening.arguments.len(),
            });
        }
    }

    /// The server does not take the first flight, whose streams are gone; whether its control stream is,
    /// too. What went in it goes again once the server has told what it takes.
    pub(super) fn reject_early(&mut self, control_lost: bool) {
        let Some(early) = &mut self.early else {
            return;
        };
        early.rejected = true;
        self.peer = None;
        for sent in &early.sent {
            if let Some(co) = self.conversations.get_mut(&Key::ours(sent.number)) {
                co.sending[0].lost();
                co.receiving[0].stream = None;
            }
        }
        if control_lost {
            self.control = early.preface.clone();
            self.stir = true;
            // the texts travelled whole beside their definitions
            self.interner = None;
            self.acknowledged.clear();
            if let Some(last) = self.leaving {
                self.tell(&Control::Goodbye(last));
            }
        }
    }

    /// The server has told what it takes: everything may go, and what it did not take goes again.
    pub(super) fn end_early(&mut self, link: &Arc<QuicLink>) {
        let Some(early) = self.early.take() else {
            return;
        };
        self.late = early.late;
        if early.rejected {
            for sent in early.sent {
                self.send_again(link, sent);
            }
        }
    }

    /// Sends a call again. Its place in the order of landings is waited for, so where nobody waits for
    /// its answer, or the server takes less than before, a conversation that does nothing takes it.
    fn send_again(&mut self, link: &Arc<QuicLink>, sent: Sent) {
        let key = Key::ours(sent.number);
        if let Err(failure) = self.fits(&sent) {
            self.fail_receiving(key, 0, &failure);
        }
        let own = &self.own;
        let co = self.conversations.entry(key).or_insert_with(|| {
            self.posting += 1;
            let mut receiving = Receiving::new(None, Reader::new(own));
            receiving.state = ReceiveState::Dropped;
            let mut co = Conversation::new(Sending::new(None), receiving);
            co.released = true;
            co
        });
        let frame = match co.receiving[0].state {
            ReceiveState::Open => sent.frame,
            _ => nothing(&sent),
        };
        co.sending[0] = Sending::new(None);
        co.sending[0].opening(frame, true);
        // whoever waits for the answer looks at the new stream
        let waker = co.receiving[0].waker.take();
        self.wakers.extend(waker);
        self.kick(link, key, 0);
    }

    /// Whether the server takes a call.
    fn fits(&self, sent: &Sent) -> Result<(), Failure> {
        // it has just told
        let Some(peer) = &self.peer else {
            return Ok(());
        };
        check_source(peer, sent.source)?;
        match sent.arguments > peer.message as usize {
            true => Err(*too_large(sent.arguments, peer.message)),
            false => Ok(()),
        }
    }
}

/// The opening of a conversation in which nothing lands.
fn nothing(sent: &Sent) -> Vec<u8> {
    let mut frame = Vec::new();
    let opening = Opening {
        number: sent.number,
        landing: sent.landing,
        script: None,
        value: false,
        last: true,
        remaining: None,
        depth: 0,
        trace: None,
        arguments: &[],
        handles: &[],
    };
    write_opening(&mut frame, &opening);
    frame
}
