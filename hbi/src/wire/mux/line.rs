//! Those who wait to open a conversation.

use std::{
    collections::VecDeque,
    task::{Context, Waker},
};

/// A line of tasks that wait for room. When there is some the first is asked. It may have gone away
/// meanwhile, which nobody tells, so the next is asked as long as the room is there.
#[derive(Debug, Default)]
pub struct Line {
    waiting: VecDeque<Waker>,
    /// How many may still be asked for the room there was last: those who were there then.
    asking: usize,
}

impl Line {
    /// Joins the line.
    pub fn wait(&mut self, cx: &mut Context<'_>) {
        // one that is polled again and again is there once; a look at all would cost too much
        let last = self.waiting.back();
        if !last.is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push_back(cx.waker().clone());
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// There is room for one more.
    #[inline]
    pub fn ask(&mut self, wakers: &mut Vec<Waker>) {
        if let Some(waker) = self.waiting.pop_front() {
            wakers.push(waker);
            self.asking = self.waiting.len();
        }
    }

    /// Whether there are more to be asked, once those who were have had their turn.
    pub fn is_asking(&self) -> bool {
        self.asking > 0
    }

    /// Asks the next, if nobody has taken the room.
    pub fn ask_on(&mut self, room: bool, wakers: &mut Vec<Waker>) {
        match self.waiting.pop_front() {
            Some(waker) if room => {
                wakers.push(waker);
                self.asking -= 1;
            }
            Some(waker) => {
                self.waiting.push_front(waker);
                self.asking = 0;
            }
            None => self.asking = 0,
        }
    }

    /// Asks all.
    pub fn ask_all(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.waiting.drain(..));
        self.asking = 0;
    }
}
