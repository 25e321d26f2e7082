//! A computation on a stack of its own, which waits for futures in the middle of ordinary code: a
//! future that suspends the stack instead of the thread.
//!
//! What makes it sound:
//!
//! 1. *The yielder is alive whenever it is reached.* [`wait`] finds it in a thread-local that is set
//!    for the length of each resume, and the code that runs then is the fiber's own, in whose frame
//!    the yielder lives.
//! 2. *No thread-local outlives a suspension.* Reads and writes of those that are reached from a fiber, here,
//!    where scripts call out of it and where values are packed, are never inlined, so no address of one is
//!    kept on the fiber's stack, which may go on on another thread.
//! 3. *What lies on a suspended stack is `Send`.* The only code that suspends is [`wait`], called by
//!    the interpreter's native functions, and [`breathe`], called by its hook for progress; the
//!    interpreter is built with `sync`, so all it keeps on the stack is `Send`, and holds no lock
//!    across either (closures, whose values are shared behind locks, are not allowed in scripts).
//! 4. *No stack is dropped with frames on it.* Dropping a suspended fiber resumes it with the order
//!    to stop until its code has returned. One that never started has no frames: its closure is dropped once, by
//!    its coroutine's own drop.

use std::{
    any::Any,
    cell::Cell,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    ptr,
    sync::Mutex,
    task::{Context, Poll},
};

use corosensei::{
    Coroutine, CoroutineResult, Yielder,
    stack::{DefaultStack, Stack},
};

/// The size of a stack, where no more is asked for. Only what is touched takes memory; a debug build of
/// the interpreter needs several times as much.
pub(in crate::env) const STACK: usize = if cfg!(debug_assertions) {
    8 << 20
} else {
    3 << 19
};

/// Stacks of that size kept for the next fiber.
const KEPT: usize = 64;

static STACKS: Mutex<Vec<DefaultStack>> = Mutex::new(Vec::new());

/// A stack of at least so many bytes.
fn stack(size: usize) -> io::Result<DefaultStack> {
    let kept = || STACKS.lock().unwrap_or_else(|e| e.into_inner()).pop();
    match (size <= STACK).then(kept).flatten() {
        Some(stack) => Ok(stack),
        None => DefaultStack::new(size.max(STACK)),
    }
}

fn keep(stack: DefaultStack) {
    let mut kept = STACKS.lock().unwrap_or_else(|e| e.into_inner());
    let is_usual = stack.base().get() - stack.limit().get() < 2 * STACK;
    if kept.len() < KEPT && is_usual {
        kept.push(stack);
    }
}

type Answer = Box<dyn Any + Send>;

/// What goes out of a fiber when it suspends.
enum Out {
    /// It waits for this.
    Wait(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// It lets others have the thread for a moment.
    Yield,
}

/// What goes into a fiber when it resumes.
enum In {
    Start,
    Answer(Answer),
    Stop,
}

/// The order to stop reached code that waits: it is to return at once.
#[derive(Debug)]
pub(in crate::env) struct Stopped;

thread_local! {
    static YIELDER: Cell<*const Yielder<In, Out>> = const { Cell::new(ptr::null()) };
}

#[inline(never)]
fn yielder() -> *const Yielder<In, Out> {
    YIELDER.get()
}

#[inline(never)]
fn set_yielder(yielder: *const Yielder<In, Out>) -> *const Yielder<In, Out> {
    YIELDER.replace(yielder)
}

fn suspend(out: Out) -> Result<In, Stopped> {
    let yielder = yielder();
    if yielder.is_null() {
        return Err(Stopped);
    }
    // SAFETY: rule 1, it is set only while the fiber that owns it runs, and this is that fiber
    let input = unsafe { &*yielder }.suspend(out);
    match input {
        In::Stop => Err(Stopped),
        input => Ok(input),
    }
}

/// Waits for a future, from within a fiber.
///
/// # Errors
/// When the fiber is to stop.
pub(in crate::env) fn wait<F>(future: F) -> Result<F::Output, Stopped>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let future = Box::pin(async move { Box::new(future.await) as Answer });
    match suspend(Out::Wait(future))? {
        In::Answer(answer) => answer.downcast().map(|answer| *answer).map_err(|_| Stopped),
        In::Start | In::Stop => Err(Stopped),
    }
}

/// Lets others have the thread for a moment, from within a fiber.
///
/// # Errors
/// When the fiber is to stop.
pub(in crate::env) fn breathe() -> Result<(), Stopped> {
    suspend(Out::Yield).map(|_| ())
}

/// Drops what a fiber that ends waits for. A panic of that ends here: there are frames on the stack, which
/// are to be gone first (rule 4).
fn let_go<T>(waiting: T) {
    // the panic was reported where it happened
    let _ = catch_unwind(AssertUnwindSafe(|| drop(waiting)));
}

/// A computation on a stack of its own, as a future of its result.
pub(in crate::env) struct Fiber<T: 'static> {
    coroutine: Option<Coroutine<In, Out, T, DefaultStack>>,
    waiting: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    yielder: *const Yielder<In, Out>,
}

// SAFETY: rule 3, all that a suspended fiber has on its stack may move between threads; the pointer
// is only looked through on the thread that runs the fiber, by the fiber.
unsafe impl<T: Send> Send for Fiber<T> {}

impl<T: Send + 'static> Fiber<T> {
    /// A fiber that will run `code` on a stack of at least so many bytes.
    pub(in crate::env) fn new(
        size: usize,
        code: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let coroutine =
            Coroutine::with_stack(stack(size)?, move |yielder: &Yielder<In, Out>, _| {
                set_yielder(yielder);
                code()
            });
        Ok(Self {
            coroutine: Some(coroutine),
            waiting: None,
            yielder: ptr::null(),
        })
    }

    fn resume(&mut self, input: In) -> Option<CoroutineResult<Out, T>> {
        /// Puts the outer fiber's yielder back, whatever happens.
        struct Outer(*const Yielder<In, Out>);
        impl Drop for Outer {
            fn drop(&mut self) {
                set_yielder(self.0);
            }
        }
        let coroutine = self.coroutine.as_mut()?;
        let _outer = Outer(set_yielder(self.yielder));
        let result = coroutine.resume(input);
        // the first resume told it
        self.yielder = yielder();
        Some(result)
    }
}

impl<T: 'static> Fiber<T> {
    /// Keeps the stack of one that is over.
    fn give_stack_back(&mut self) {
        if let Some(coroutine) = self.coroutine.take() {
            keep(coroutine.into_stack());
        }
    }
}

impl<T: Send + 'static> Future for Fiber<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let mut input = In::Start;
        if let Some(waiting) = &mut this.waiting {
            // polled on the thread's own stack: rule 3 is about the fiber's
            let answer = std::task::ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
            input = In::Answer(answer);
        }
        loop {
            match this.resume(input) {
                Some(CoroutineResult::Yield(Out::Wait(mut future))) => {
                    match future.as_mut().poll(cx) {
                        Poll::Ready(answer) => input = In::Answer(answer),
                        Poll::Pending => {
                            this.waiting = Some(future);
                            return Poll::Pending;
                        }
                    }
                }
                Some(CoroutineResult::Yield(Out::Yield)) => {
                    // a task that only wakes itself would keep the runtime from its timers and sockets
                    // for some sixty turns: this wakes it once they had theirs
                    let yields = std::pin::pin!(tokio::task::yield_now());
                    let _ = yields.poll(cx);
                    return Poll::Pending;
                }
                Some(CoroutineResult::Return(result)) => {
                    this.give_stack_back();
                    return Poll::Ready(result);
                }
                // polled after its end: like other futures, it has no more to say
                None => return Poll::Pending,
            }
        }
    }
}

impl<T: 'static> Drop for Fiber<T> {
    fn drop(&mut self) {
        // what it waits for goes first: it may borrow nothing of the fiber, but be cancelled by this
        let_go(self.waiting.take());
        let Some(coroutine) = self.coroutine.as_mut().filter(|it| it.started()) else {
            return;
        };
        if !coroutine.done() {
            let outer = set_yielder(self.yielder);
            while let CoroutineResult::Yield(out) = coroutine.resume(In::Stop) {
                let_go(out);
            }
            set_yielder(outer);
        }
        self.give_stack_back();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Waker,
    };

    use super::*;

    fn fiber<T: Send + 'static>(code: impl FnOnce() -> T + Send + 'static) -> Fiber<T> {
        Fiber::new(STACK, code).expect("a stack can be had")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn fibers_wait_on_whatever_thread_they_are() {
        let tasks: Vec<_> = (0..200_usize)
            .map(|n| {
                tokio::spawn(fiber(move || {
                    let mut sum = 0;
                    for i in 0..20 {
                        let step = async move {
                            tokio::task::yield_now().await;
                            n + i
                        };
                        sum += wait(step).expect("nobody stops it");
                        breathe().expect("nobody stops it");
                    }
                    sum
                }))
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.expect("no panic"), 20 * n + 190);
        }
    }

    #[tokio::test]
    async fn a_fiber_that_is_dropped_stops_where_it_waits() {
        static STOPPED: AtomicUsize = AtomicUsize::new(0);
        let waits = fiber(|| {
            let stopped = wait(std::future::pending::<()>()).is_err();
            // it cannot wait any more
            let again = wait(async {}).is_err();
            STOPPED.fetch_add((stopped && again) as usize, Ordering::SeqCst);
        });
        let mut waits = Box::pin(waits);
        let pending = std::future::poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
        std::thread::spawn(move || drop(waits))
            .join()
            .expect("no panic");
        assert_eq!(STOPPED.load(Ordering::SeqCst), 1);
        let captured = Arc::new(());
        let kept = Arc::clone(&captured);
        drop(fiber(move || {
            unreachable!("it never starts, with {kept:?}")
        }));
        assert_eq!(Arc::strong_count(&captured), 1);
    }

    #[tokio::test]
    async fn fibers_within_fibers_find_their_own_way_out() {
        let count = Arc::new(AtomicUsize::new(0));
        let inner = Arc::clone(&count);
        let outer = fiber(move || {
            let innermost = fiber(move || {
                wait(tokio::task::yield_now()).expect("nobody stops it");
                inner.fetch_add(1, Ordering::SeqCst)
            });
            wait(innermost).expect("nobody stops it");
            wait(tokio::task::yield_now()).is_ok()
        });
        assert!(outer.await);
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_fiber_stops_though_what_it_waits_for_panics_as_it_is_dropped() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("of what is waited for");
            }
        }
        let count = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::clone(&count);
        let outer = fiber(move || {
            let mut inner = Box::pin(fiber(move || {
                for _ in 0..2 {
                    let panics = Panics;
                    let never = wait(async move {
                        let _panics = panics;
                        std::future::pending::<()>().await;
                    });
                    stopped.fetch_add(never.is_err() as usize, Ordering::SeqCst);
                }
            }));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(inner.as_mut().poll(&mut cx).is_pending());
            drop(inner);
            wait(tokio::task::yield_now()).is_ok()
        });
        assert!(outer.await, "the outer one finds its own way out");
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_runtime_sees_its_sockets_at_the_next_breath() {
        use std::{
            io::Write,
            sync::{
                Arc,
                atomic::{AtomicUsize, Ordering},
            },
        };
        use tokio::io::AsyncReadExt;
        let breaths = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&breaths);
        let endless = move || {
            while breathe().is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        let endless = tokio::spawn(Fiber::new(STACK, endless).expect("there is memory"));
        let (one, mut other) = std::os::unix::net::UnixStream::pair().expect("a pair can be had");
        one.set_nonblocking(true).expect("it is a socket");
        let mut one = tokio::net::UnixStream::from_std(one).expect("it is a socket");
        for _ in 0..10 {
            let mut read = std::pin::pin!(one.read_u8());
            assert!(futures_util::poll!(&mut read).is_pending());
            other.write_all(&[1]).expect("it takes a byte");
            read.await.expect("there is one");
        }
        endless.abort();
        let breaths = breaths.load(Ordering::Relaxed);
        assert!((1..100).contains(&breaths), "{breaths}");
    }
}
