//! What the scripts of one peer take, in all: their texts, and what is made of them to run them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::Failure;

/// What all scripts of a connection may take.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// What one takes, as long as this is there.
#[derive(Debug)]
pub(super) struct Taken {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Sources {
    pub(super) fn new(most: usize) -> Self {
        let taken = Arc::default();
        Self { taken, most }
    }

    /// Takes so many bytes.
    pub(super) fn take(&self, bytes: usize) -> Result<Taken, Failure> {
        let all = self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let of = Arc::clone(&self.taken);
        let taken = Taken { bytes, of };
        if all > self.most {
            return Err(Failure::limit(
                "sources",
                format_args!(
                    "the scripts of this connection would take {all} bytes in all, at most {}",
                    self.most
                ),
                "bind values as parameters, so that texts are the same, or raise `Bounds::sources` \
                 at the host",
            ));
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let sources = Sources::new(10);
        let six = sources.take(6).expect("there is room");
        let error = sources.take(5).unwrap_err();
        assert!(error.message.contains("11 bytes"), "{error}");
        let four = sources.take(4).expect("what was refused takes nothing");
        drop((six, four));
        sources.take(10).expect("there is room again");
    }
}
