//! What goes out, in the order in which it asked: whole spans, and spans written piece by piece,
//! which hold the direction until they are finished.

use std::collections::VecDeque;

/// The queue of one direction: first come, first served. `K` names who holds the sender's role.
#[derive(Debug)]
pub struct Outbox<K> {
    turns: VecDeque<Turn<K>>,
    holder: Option<K>,
    /// Ready for the transport.
    ready: Vec<u8>,
    /// Bytes in `turns`.
    waiting: usize,
}

#[derive(Debug)]
enum Turn<K> {
    Whole(Vec<u8>),
    Open(K),
}

impl<K> Default for Outbox<K> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            holder: None,
            ready: Vec::new(),
            waiting: 0,
        }
    }
}

impl<K: Copy + PartialEq> Outbox<K> {
    /// Adds a whole span, or anything else that stands between spans.
    pub fn push(&mut self, whole: Vec<u8>) {
        if self.holder.is_none() && self.turns.is_empty() {
            if self.ready.is_empty() {
                self.ready = whole;
            } else {
                self.ready.extend_from_slice(&whole);
            }
            return;
        }
        self.waiting += whole.len();
        self.turns.push_back(Turn::Whole(whole));
    }

    /// Asks for the sender's role; returns whether it is there at once.
    pub fn ask(&mut self, who: K) -> bool {
        self.turns.push_back(Turn::Open(who));
        self.advance();
        self.holder == Some(who)
    }

    /// Who holds the sender's role.
    pub fn holder(&self) -> Option<K> {
        self.holder
    }

    /// Where the holder writes.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.ready
    }

    /// The holder has finished its span; returns who holds the role now.
    pub fn release(&mut self) -> Option<K> {
        self.holder = None;
        self.advance();
        self.holder
    }

    /// Gives up a place in the queue.
    pub fn withdraw(&mut self, who: K) {
        self.turns
            .retain(|turn| !matches!(turn, Turn::Open(other) if *other == who));
    }

    /// Moves on until somebody holds the role.
    fn advance(&mut self) {
        while self.holder.is_none() {
            match self.turns.pop_front() {
                Some(Turn::Whole(whole)) => {
                    self.waiting -= whole.len();
                    self.ready.extend_from_slice(&whole);
                }
                Some(Turn::Open(who)) => self.holder = Some(who),
                None => return,
            }
        }
    }

    /// What is ready for the transport; empty from now on.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// Bytes that are ready for the transport.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Bytes in all, those of spans that wait for their turn included.
    pub fn len(&self) -> usize {
        self.ready.len() + self.waiting
    }

    /// Whether all of it is ready for the transport: nobody is to send any more.
    pub fn is_ready(&self) -> bool {
        self.turns.is_empty() && self.holder.is_none()
    }

    /// Whether there is nothing to be sent and nobody to send.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_in_the_order_they_were_asked_for() {
        let mut outbox = Outbox::default();
        outbox.push(b"a".to_vec());
        assert!(outbox.ask(1));
        outbox.push(b"c".to_vec());
        assert!(!outbox.ask(2));
        assert!(!outbox.ask(3));
        outbox.push(b"e".to_vec());
        outbox.out().extend_from_slice(b"b");
        assert_eq!(outbox.take(), b"ab");
        assert!(!outbox.is_ready());
        outbox.withdraw(3);
        assert_eq!(outbox.len(), 2);
        assert_eq!(outbox.release(), Some(2));
        outbox.out().extend_from_slice(b"d");
        assert_eq!(outbox.release(), None);
        assert_eq!(outbox.take(), b"cde");
        assert!(outbox.is_empty());
    }
}
