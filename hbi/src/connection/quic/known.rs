//! What the peer has opened: its conversations, and streams, which may come before the message that
//! names them.

use quinn::RecvStream;

use super::{
    receive::{ReceiveState, Receiving},
    state::{Conversation, Key, State},
};
use crate::wire::{
    mux::{HandleKind, Violation, WireHandle},
    quic::{Reader, STOP_DONE},
};

/// How many times the conversations that may be open at once may have come before one that is late:
/// those that are over are none of them any more.
const GAPS: usize = 64;

impl State {
    /// Opens the channels of the streams in a payload that arrived. Streams are numbered as they are
    /// sent, and channels are read on their own, so numbers may come in any order, and some never.
    pub(super) fn add_received(
        &mut self,
        key: Key,
        handles: &[WireHandle],
    ) -> Result<(), Violation> {
        let limit = self.own.channels;
        for handle in handles {
            if handle.kind != HandleKind::Stream {
                continue;
            }
            let Some(co) = self.conversations.get_mut(&key) else {
                return Ok(());
            };
            if !(1..=limit).contains(&handle.number) {
                return Err(Violation(format!(
                    "stream {} named where {limit} is the last",
                    handle.number
                )));
            }
            // within the limit, which is a channel's
            let (channel, place) = (handle.number as u16, handle.number as usize);
            while co.receiving.len() <= place {
                let reader = Reader::new(&self.own);
                co.receiving.push(Receiving::unnamed(reader));
            }
            let receiving = &mut co.receiving[place];
            if receiving.is_named() {
                return Err(Violation(format!("stream {channel} was named twice")));
            }
            receiving.state = ReceiveState::Open;
            if let Some((stream, reader)) = self.early_streams.remove(&(key, channel)) {
                receiving.stream = Some(stream);
                receiving.reader = reader;
            }
        }
        Ok(())
    }

    /// A stream of a conversation arrived.
    pub(super) fn channel_arrived(
        &mut self,
        key: Key,
        channel: u16,
        mut stream: RecvStream,
        reader: Reader,
    ) -> Result<(), Violation> {
        let over = if key.is_hosted() {
            self.is_known(key.number())
        } else if key.number() > self.opened {
            return Err(Violation(format!(
                "a stream of conversation {}, which was not opened",
                key.number()
            )));
        } else {
            true
        };
        let receiving = match self.conversations.get_mut(&key) {
            Some(co) => {
                let receiving = co.receiving.get_mut(channel as usize);
                receiving.filter(|receiving| receiving.is_named())
            }
            None if over => {
                // it is stopped as it is dropped
                self.tell_seen(key, channel, 0);
                return Ok(());
            }
            None => None,
        };
        let Some(receiving) = receiving else {
            if channel == 0
                || self
                    .early_streams
                    .insert((key, channel), (stream, reader))
                    .is_some()
            {
                return Err(Violation(format!("channel {channel} was opened twice")));
            }
            return Ok(());
        };
        if channel == 0 || receiving.stream.is_some() {
            return Err(Violation(format!("channel {channel} was opened twice")));
        }
        if receiving.is_over() {
            // nobody reads it: it has not been stopped before
            let _ = stream.stop(STOP_DONE.into());
            self.tell_seen(key, channel, 0);
            return Ok(());
        }
        receiving.stream = Some(stream);
        receiving.reader = reader;
        let waker = receiving.waker.take();
        self.wakers.extend(waker);
        Ok(())
    }

    /// Streams within conversations that the peer has open.
    pub(super) fn open_streams(&self) -> usize {
        let open = |co: &Conversation| {
            let streams = co.receiving.iter().skip(1);
            streams.filter(|stream| stream.stream.is_some()).count()
        };
        self.early_streams.len() + self.conversations.values().map(open).sum::<usize>()
    }

    fn is_known(&self, number: u64) -> bool {
        number <= self.known_to || self.known.contains(&number)
    }

    /// A conversation of the peer arrived.
    pub(super) fn learn(&mut self, number: u64) -> Result<(), Violation> {
        if number == 0 || self.is_known(number) {
            return Err(Violation(format!("conversation {number} was opened twice")));
        }
        self.known.insert(number);
        let most = GAPS * self.own.conversations as usize;
        if self.known.len() > most {
            return Err(Violation(format!(
                "{most} conversations and more were opened behind number {}, which was not",
                self.known_to + 1
            )));
        }
        while self.known.remove(&(self.known_to + 1)) {
            self.known_to += 1;
        }
        Ok(())
    }

    /// How many conversations of the peer have arrived, and the last of them.
    pub(super) fn arrived(&self) -> (u64, u64) {
        let beyond = self.known.last().copied();
        (
            self.known_to + self.known.len() as u64,
            beyond.unwrap_or(self.known_to),
        )
    }
}
