//! The sequence numbers of the conversations that this side began and the peer did not answer yet.

use std::collections::HashMap;

use super::Violation;

const FIRST: u32 = 101;
const LAST: u32 = 9_999_999;

/// Conversations by number, from the moment they begin until their answer begins.
#[derive(Debug)]
pub struct Numbers<T> {
    pending: HashMap<u32, T>,
    next: u32,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self::from(FIRST)
    }
}

impl<T> Numbers<T> {
    fn from(next: u32) -> Self {
        Self {
            pending: HashMap::new(),
            next,
        }
    }

    /// Begins a conversation: 101, 102, ... and after 9999999 again 101; numbers still in use are
    /// left out. Callers keep far fewer conversations pending than there are numbers.
    pub fn begin(&mut self, conversation: T) -> u32 {
        loop {
            let number = self.next;
            self.next = if number == LAST { FIRST } else { number + 1 };
            if let std::collections::hash_map::Entry::Vacant(free) = self.pending.entry(number) {
                free.insert(conversation);
                return number;
            }
        }
    }

    /// The answer of a number begins: it is free from now on.
    ///
    /// # Errors
    /// When no conversation of that number waits for its answer.
    pub fn answered(&mut self, number: &str) -> Result<T, Violation> {
        let canonical = number.starts_with(|c: char| c.is_ascii_digit() && c != '0');
        let parsed = number.parse().ok().filter(|_| canonical);
        parsed
            .and_then(|number: u32| self.pending.remove(&number))
            .ok_or_else(|| {
                Violation(format!(
                    "an answer to conversation {}, which does not wait for one",
                    number.escape_debug()
                ))
            })
    }

    /// Whether none waits for its answer.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_and_those_in_use_are_left_out() {
        let mut numbers = Numbers::default();
        assert_eq!((numbers.begin('a'), numbers.begin('b')), (101, 102));
        numbers.next = LAST;
        assert_eq!(numbers.begin('c'), LAST);
        assert_eq!(numbers.begin('d'), 103);
        assert_eq!(numbers.answered("101"), Ok('a'));
        assert_eq!(numbers.pending.len(), 3);
        numbers.next = 101;
        assert_eq!(numbers.begin('e'), 101, "free once its answer began");
    }

    #[test]
    fn unknown_numbers_are_refused() {
        let mut numbers = Numbers::default();
        numbers.begin(());
        for unknown in ["102", "0101", "+101", "", " 101", "abc", "99999999999999"] {
            assert!(numbers.answered(unknown).is_err(), "{unknown}");
        }
        assert!(numbers.answered("101").is_ok());
        assert!(numbers.answered("101").is_err(), "it is answered once");
    }
}
