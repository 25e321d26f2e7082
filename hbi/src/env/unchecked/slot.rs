//! A place for the future of a method, which its next call uses again: to ask the allocator for one each
//! time takes a twentieth of a small call.
//!
//! What makes it sound: *a future is dropped where it stands.* A pinned future may refer to itself, so its
//! memory is used again only once its destructor was run there; from then on it is memory without a value.

use std::{any::Any, mem::MaybeUninit, pin::Pin};

/// Futures up to this many bytes leave their place to the next. A connection keeps one for each method
/// that was called on it.
const LARGEST: usize = 1 << 10;

/// The place that the last call left, if it was of the same method.
#[derive(Debug, Default)]
pub(in crate::env) struct Slot(Option<Box<dyn Any + Send>>);

impl Slot {
    /// Puts a future where the last one was, or to a place of its own.
    #[inline(always)]
    pub(in crate::env) fn place<F: Send + 'static>(
        &mut self,
        make: impl FnOnce() -> F,
    ) -> Pin<Box<F>> {
        let left = self.0.take().map(Box::<dyn Any + Send>::downcast);
        let place = match left {
            Some(Ok(place)) => place,
            Some(Err(_)) | None => Box::new_uninit(),
        };
        // made where it stays: what is copied in pieces and read at once has to be waited for
        Box::into_pin(Box::write(place, make()))
    }

    /// Drops a future that is over, and keeps its place.
    #[inline(always)]
    pub(in crate::env) fn keep<F: Send + 'static>(&mut self, future: Pin<Box<F>>) {
        if size_of::<F>() <= LARGEST {
            self.0 = Some(emptied(future));
        }
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
        future::{Future, poll_fn},
        panic::{AssertUnwindSafe, catch_unwind},
        ptr,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll, Waker},
    };

    use super::*;

    /// Counts how often it is dropped, and tells where that is.
    struct Dropped<const SIZE: usize>(Arc<AtomicUsize>, Arc<AtomicUsize>, [u8; SIZE]);

    impl<const SIZE: usize> Drop for Dropped<SIZE> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.store(ptr::from_ref(self).addr(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_place_is_used_again_once_what_was_there_is_dropped() {
        fn check<const SIZE: usize>(kept: bool) {
            let (drops, at) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let mut slot = Slot::default();
            let mut last = None;
            for round in 1..=3 {
                let placed = slot.place(|| Dropped(drops.clone(), at.clone(), [1; SIZE]));
                let here = ptr::from_ref(&*placed).addr();
                assert!(slot.0.is_none(), "it is taken");
                assert_eq!(drops.load(Ordering::Relaxed), round - 1);
                slot.keep(placed);
                assert_eq!(drops.load(Ordering::Relaxed), round);
                assert_eq!(at.load(Ordering::Relaxed), here, "dropped where it was");
                assert_eq!(slot.0.is_some(), kept);
                if kept {
                    assert!(last.is_none_or(|last| last == here), "it has moved");
                }
                last = Some(here);
            }
            // one that goes on takes its place along
            drop(slot.place(|| Dropped(drops.clone(), at.clone(), [1; SIZE])));
            assert!(slot.0.is_none());
            // an empty place has nothing to drop, and another type has a place of its own
            slot.keep(Slot::default().place(|| Dropped(drops.clone(), at.clone(), [2; SIZE])));
            let other = slot.place(|| 7_u8);
            assert_eq!(*other, 7);
            drop(slot);
            assert_eq!(drops.load(Ordering::Relaxed), 5);
        }
        check::<0>(true);
        check::<100>(true);
        check::<LARGEST>(false);
    }

    #[test]
    fn futures_that_refer_to_themselves_are_right_in_a_place_used_again() {
        let mut slot = Slot::default();
        let mut waiting = Vec::new();
        for round in 0..100_u64 {
            let waits = round % 3 == 0;
            let mut future = slot.place(|| async move {
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
                    slot.keep(future);
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
        let mut slot = Slot::default();
        let placed = slot.place(|| Panics {
            drops: drops.clone(),
            _inner: inner.clone(),
        });
        assert!(catch_unwind(AssertUnwindSafe(|| slot.keep(placed))).is_err());
        assert!(slot.0.is_none());
        drop(slot);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&inner), 1, "its fields were dropped");
    }
}
