//! Scopes of closures of [`Call::map`](super::Call::map): what is made in one belongs to each
//! element.

use std::{
    cell::Cell,
    ops::RangeInclusive,
    sync::atomic::{AtomicU64, Ordering},
};

/// Scopes are numbered through, so that those that are opened in one come after it and before its
/// end. 0 is outside of all.
static LAST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// A closure that runs on this thread.
pub(super) struct Scope {
    own: u64,
    outer: u64,
}

impl Scope {
    /// The scope that is open on this thread.
    #[inline]
    pub(super) fn current() -> u64 {
        CURRENT.get()
    }

    pub(super) fn enter() -> Self {
        let own = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let outer = CURRENT.replace(own);
        Self { own, outer }
    }

    /// Closes it; returns its number and those of the scopes that were opened in it.
    pub(super) fn leave(self) -> RangeInclusive<u64> {
        self.own..=LAST.load(Ordering::Relaxed)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}
