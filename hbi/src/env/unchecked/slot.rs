//! Places for the futures of methods, which the next call of a method uses again: to ask the allocator for
//! one each time takes a twentieth of a small call. They are the thread's, however many connections it has.
//!
//! What makes it sound:
//!
//! 1. *A future is dropped where it stands.* A pinned future may refer to itself, so its memory is used
//!    again only once its destructor was run there; from then on it is memory without a value.
//! 2. *A slot is never used on a fiber's stack*, where the address of a thread-local could be kept until
//!    another thread goes on. Methods that scripts call are polled by the fiber's future, on the
//!    thread's own stack.

use std::{any::Any, cell::Cell, mem::MaybeUninit, pin::Pin};

/// Places that each thread keeps, and bytes of the largest: 16 KiB in all.
const KEPT: usize = 16;
const LARGEST: usize = 1 << 10;

thread_local! {
    /// What calls left; each may be of any type.
    static LEFT: [Cell<Option<Box<dyn Any>>>; KEPT] = const { [const { Cell::new(None) }; KEPT] };
}

/// A place among those of the thread. A call has it to itself from [`Self::place`] on.
#[derive(Debug, Clone, Copy)]
pub(in crate::env) struct Slot(usize);

impl Slot {
    /// The slot of a method by its number; numbers that are next to each other have slots of their own.
    #[inline(always)]
    pub(in crate::env) fn new(number: usize) -> Self {
        Self(number % KEPT)
    }

    /// Puts a future where the last one of its type was, or to a place of its own.
    #[inline(always)]
    pub(in crate::env) fn place<F: 'static>(self, make: impl FnOnce() -> F) -> Pin<Box<F>> {
        // there is none while the thread ends, and a large one is not looked for
        let left = match size_of::<F>() <= LARGEST {
            true => LEFT.try_with(|left| left[self.0].take()).ok().flatten(),
            false => None,
        };
        let place = match left.map(Box::<dyn Any>::downcast) {
            Some(Ok(place)) => place,
            Some(Err(_)) | None => Box::new_uninit(),
        };
        // made where it stays: what is copied in pieces and read at once has to be waited for
        Box::into_pin(Box::write(place, make()))
    }

    /// Drops a future that is over, and keeps its place.
    #[inline(always)]
    pub(in crate::env) fn keep<F: 'static>(self, future: Pin<Box<F>>) {
        if size_of::<F>() > LARGEST {
            return;
        }
        let place = emptied(future);
        let _ = LEFT.try_with(|left| left[self.0].set(Some(place)));
    }
}

/// Drops what stands in a box, and gives back the box.
#[inline(always)]
fn emptied<F>(full: Pin<Box<F>>) -> Box<MaybeUninit<F>> {
    // SAFETY: nothing is moved, only the box that refers to it, as one that has no value from here on: a
    // destructor that panics is not run again
    let mut place = unsafe {
        let full = Pin::into_inner_unchecked(full);
        Box::from_raw(Box::into_raw(full).cast::<MaybeUninit<F>>())
    };
    // SAFETY: the value is there until now, and is dropped where it was pinned
    unsafe { place.assume_init_drop() };
    place
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn, ready},
        panic::{AssertUnwindSafe, catch_unwind},
        ptr,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll, Waker},
    };

    use super::*;

    const SLOT: Slot = Slot(3);

    fn is_kept() -> bool {
        LEFT.with(|left| {
            let place = left[SLOT.0].take();
            let kept = place.is_some();
            left[SLOT.0].set(place);
            kept
        })
    }

    /// Counts how often it is dropped, and tells where that is.
    #[repr(align(64))]
    struct Dropped<const SIZE: usize> {
        drops: Arc<AtomicUsize>,
        at: Arc<AtomicUsize>,
        _bytes: [u8; SIZE],
    }

    impl<const SIZE: usize> Drop for Dropped<SIZE> {
        fn drop(&mut self) {
            self.drops.fetch_add(1, Ordering::Relaxed);
            self.at.store(ptr::from_ref(self).addr(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_place_is_used_again_once_what_was_there_is_dropped() {
        fn check<const SIZE: usize>(kept: bool) {
            drop(SLOT.place(|| ()));
            let (drops, at) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
            let new = || Dropped {
                drops: Arc::clone(&drops),
                at: Arc::clone(&at),
                _bytes: [1; SIZE],
            };
            let drops = || drops.load(Ordering::Relaxed);
            let mut last = None;
            // what takes the memory that is given back
            let mut others = Vec::new();
            for round in 1..=3 {
                let placed = SLOT.place(new);
                let here = ptr::from_ref(&*placed).addr();
                assert!(!is_kept(), "it is taken");
                assert_eq!(drops(), round - 1);
                SLOT.keep(placed);
                assert_eq!(drops(), round);
                assert_eq!(at.load(Ordering::Relaxed), here, "dropped where it was");
                assert_eq!(is_kept(), kept);
                others.push(Box::<Dropped<SIZE>>::new_uninit());
                if kept {
                    assert!(last.is_none_or(|last| last == here), "it is another");
                }
                last = Some(here);
            }
            // one that goes on takes its place along
            drop(SLOT.place(new));
            assert!(!is_kept());
            // an empty place has nothing to drop, and another type has a place of its own
            SLOT.keep(Slot(0).place(new));
            assert_eq!(is_kept(), kept);
            assert_eq!(*SLOT.place(|| 7_u8), 7);
            assert!(!is_kept());
            assert_eq!(drops(), 5);
        }
        check::<0>(true);
        check::<100>(true);
        check::<{ LARGEST - 64 }>(true);
        check::<{ LARGEST }>(false);
        // nothing at all stands at no place
        for _ in 0..2 {
            SLOT.keep(SLOT.place(|| async {}));
            SLOT.keep(SLOT.place(|| ready(())));
        }
    }

    #[test]
    fn futures_that_refer_to_themselves_are_right_in_a_place_used_again() {
        let mut waiting = Vec::new();
        for round in 0..100_u64 {
            let waits = round % 3 == 0;
            let mut future = SLOT.place(|| async move {
                let numbers = [round, round + 1, round + 2];
                let last = &numbers[2];
                let mut waits = waits;
                poll_fn(|_| match std::mem::take(&mut waits) {
                    true => Poll::Pending,
                    false => Poll::Ready(()),
                })
                .await;
                *last + numbers[0]
            });
            let mut cx = Context::from_waker(Waker::noop());
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(sum) => {
                    assert_eq!(sum, 2 * round + 2);
                    SLOT.keep(future);
                }
                Poll::Pending => waiting.push((round, future)),
            }
        }
        for (round, mut future) in waiting {
            let mut cx = Context::from_waker(Waker::noop());
            assert_eq!(future.as_mut().poll(&mut cx), Poll::Ready(2 * round + 2));
        }
    }

    #[test]
    fn a_destructor_that_panics_is_run_once() {
        struct Panics {
            drops: Arc<AtomicUsize>,
            _inner: Arc<()>,
        }
        impl Drop for Panics {
            fn drop(&mut self) {
                self.drops.fetch_add(1, Ordering::Relaxed);
                panic!("on purpose");
            }
        }
        let (drops, inner) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let placed = SLOT.place(|| Panics {
            drops: Arc::clone(&drops),
            _inner: Arc::clone(&inner),
        });
        assert!(catch_unwind(AssertUnwindSafe(|| SLOT.keep(placed))).is_err());
        assert!(!is_kept());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&inner), 1, "its fields were dropped");
        // where none is made there is none to be dropped
        SLOT.keep(SLOT.place(|| inner.clone()));
        let made = AssertUnwindSafe(|| SLOT.place(|| -> Arc<()> { panic!("on purpose") }));
        assert!(catch_unwind(made).is_err());
        assert!(!is_kept());
    }
}
