//! Numbers for texts: each is told to the peer once, and named by its number from then on.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
};

use super::{StubText, Text};

/// The number that texts share which are used for the first time: it is given a new text each time.
pub const SCRATCH: u32 = 0;

/// Texts remembered as used once, by some ten bytes each: as many as there are numbers, within these.
const FEWEST: usize = 4 << 10;
const MOST: usize = 256 << 10;

/// A text's number, and whether the peer has to be told the text first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interned {
    /// The number.
    pub number: u32,
    /// Whether the text is to be defined before it is used.
    pub define: bool,
}

/// The texts that one connection has given numbers to, in one direction.
#[derive(Debug)]
pub struct Interner {
    /// By a stub text's index in the process; 0 is none.
    stubs: Vec<u32>,
    free: HashMap<Box<str>, u32>,
    /// Free texts in the order of their numbers' use, the oldest first.
    order: VecDeque<Box<str>>,
    /// Hashes of free texts used once.
    once: HashSet<u64>,
    hasher: RandomState,
    next: u32,
    limit: u32,
    /// A number keeps its text for good.
    permanent: bool,
}

impl Interner {
    /// Numbers below `limit`, what the peer keeps.
    pub fn new(limit: u32) -> Self {
        Self {
            stubs: Vec::new(),
            free: HashMap::new(),
            order: VecDeque::new(),
            once: HashSet::new(),
            hasher: RandomState::new(),
            next: SCRATCH + 1,
            limit,
            permanent: false,
        }
    }

    /// As [`Self::new`], where no number is ever given another text: once all are in use, texts stay
    /// without. For wires on which what uses a number may be overtaken by what defines it anew.
    #[cfg(feature = "quic")]
    pub fn permanent(limit: u32) -> Self {
        Self {
            permanent: true,
            ..Self::new(limit)
        }
    }

    /// Whether a text was given this number.
    #[cfg(feature = "quic")]
    pub fn is_given(&self, number: u32) -> bool {
        number != SCRATCH && number < self.next
    }

    /// The number that a stub's text has already.
    #[inline]
    pub fn known(&self, stub: &StubText) -> Option<u32> {
        match self.stubs.get(stub.id()) {
            Some(&number) if number != 0 => Some(number),
            _ => None,
        }
    }

    /// The number of a text. Stubs' texts get one at their first use, others at their second; when
    /// all are in use the oldest free text loses its own.
    pub fn intern(&mut self, text: &Text<'_>) -> Interned {
        match text {
            Text::Stub(stub) => {
                let id = stub.id();
                if let Some(number) = self.known(stub) {
                    return Interned {
                        number,
                        define: false,
                    };
                }
                if id >= self.stubs.len() {
                    self.stubs.resize(id + 1, 0);
                }
                let number = self.number();
                // a stub without a number of its own is told its text each time
                self.stubs[id] = if number == SCRATCH { 0 } else { number };
                Interned {
                    number,
                    define: true,
                }
            }
            Text::Free {
                source,
                parameters,
                again,
            } => {
                let key = key(source, parameters);
                if let Some(&number) = self.free.get(&*key) {
                    return Interned {
                        number,
                        define: false,
                    };
                }
                if !again && !self.seen(&key) {
                    return Interned {
                        number: SCRATCH,
                        define: true,
                    };
                }
                let number = self.number();
                if number != SCRATCH {
                    self.free.insert(key.clone().into(), number);
                    self.order.push_back(key.into());
                }
                Interned {
                    number,
                    define: true,
                }
            }
        }
    }

    /// A number for a new text.
    fn number(&mut self) -> u32 {
        if self.next < self.limit {
            self.next += 1;
            return self.next - 1;
        }
        if self.permanent {
            return SCRATCH;
        }
        let oldest = self.order.pop_front();
        oldest
            .and_then(|key| self.free.remove(&key))
            .unwrap_or(SCRATCH)
    }

    /// Whether the text was used before; it is remembered from now on.
    fn seen(&mut self, key: &str) -> bool {
        let hash = self.hasher.hash_one(key);
        if self.once.len() >= (self.limit as usize).clamp(FEWEST, MOST) {
            self.once.clear();
        }
        !self.once.insert(hash)
    }
}

/// What tells texts apart: source and parameters.
fn key<'a>(source: &'a str, parameters: &[Cow<'static, str>]) -> Cow<'a, str> {
    if parameters.is_empty() {
        return Cow::Borrowed(source);
    }
    let mut key = String::with_capacity(source.len() + 8 * parameters.len());
    key.push_str(source);
    for name in parameters {
        key.push('\0');
        key.push_str(name);
    }
    Cow::Owned(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::StubText;

    fn free(source: &str) -> Text<'_> {
        Text::Free {
            source,
            parameters: &[],
            again: false,
        }
    }

    #[test]
    fn stubs_get_their_number_at_the_first_use_others_at_the_second() {
        static ADD: StubText = StubText::new("add(a0)", 1);
        let mut interner = Interner::new(16);
        assert_eq!(
            interner.intern(&Text::Stub(&ADD)),
            Interned {
                number: 1,
                define: true
            }
        );
        assert_eq!(
            interner.intern(&Text::Stub(&ADD)),
            Interned {
                number: 1,
                define: false
            }
        );
        assert_eq!(
            interner.intern(&free("x()")),
            Interned {
                number: SCRATCH,
                define: true
            }
        );
        assert_eq!(
            interner.intern(&free("x()")),
            Interned {
                number: 2,
                define: true
            }
        );
        assert_eq!(
            interner.intern(&free("x()")),
            Interned {
                number: 2,
                define: false
            }
        );
    }

    #[test]
    fn the_oldest_free_text_makes_room() {
        let mut interner = Interner::new(3);
        for source in ["a", "b"] {
            interner.intern(&free(source));
            interner.intern(&free(source));
        }
        interner.intern(&free("c"));
        assert_eq!(
            interner.intern(&free("c")),
            Interned {
                number: 1,
                define: true
            }
        );
        assert_eq!(
            interner.intern(&free("b")),
            Interned {
                number: 2,
                define: false
            }
        );
        assert!(interner.intern(&free("a")).define, "`a` lost its number");
    }

    #[test]
    fn texts_that_differ_in_a_parameter_are_not_one() {
        let mut interner = Interner::new(16);
        let (ab, ba) = (["a".into(), "b".into()], ["b".into(), "a".into()]);
        let text = |parameters| Text::Free {
            source: "f(a, b)",
            parameters,
            again: true,
        };
        let first = interner.intern(&text(&ab)).number;
        assert_ne!(interner.intern(&text(&ba)).number, first);
    }
}
