//! Who calls a hosted method, and what is left of the caller's time. Set around each poll of a
//! landing, so that calls made within it inherit the deadline and the depth.

use std::{
    cell::Cell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{CoNumber, Hosted, Link, LinkInfo, PostingEnd, TraceContext};

thread_local! {
    static CURRENT: Cells = const {
        Cells {
            deadline: Cell::new(None),
            depth: Cell::new(0),
            trace: Cell::new(None),
        }
    };
}

/// Apart, since most of what is set is the depth alone.
struct Cells {
    deadline: Cell<Option<Instant>>,
    depth: Cell<u8>,
    trace: Cell<Option<[u8; 25]>>,
}

impl Cells {
    fn is_bare(&self) -> bool {
        self.deadline.get().is_none() && self.trace.get().is_none()
    }

    fn get(&self) -> Current {
        Current {
            deadline: self.deadline.get(),
            depth: self.depth.get(),
            trace: self.trace.get(),
        }
    }

    fn set(&self, current: Current) {
        self.deadline.set(current.deadline);
        self.depth.set(current.depth);
        self.trace.set(current.trace);
    }
}

/// What calls made now inherit.
#[derive(Debug, Clone, Copy)]
pub struct Current {
    /// When the caller gives up.
    pub deadline: Option<Instant>,
    /// How many hosted conversations this is nested in.
    pub depth: u8,
    /// The caller's W3C trace context.
    pub trace: Option<[u8; 25]>,
}

impl Current {
    /// Outside of any landing.
    pub const NONE: Self = Self {
        deadline: None,
        depth: 0,
        trace: None,
    };

    /// What holds on this thread now.
    #[inline]
    pub fn get() -> Self {
        CURRENT.with(Cells::get)
    }

    /// Whether this is within no landing, and nothing is inherited.
    #[inline]
    pub fn is_none() -> bool {
        CURRENT.with(|cells| cells.depth.get() == 0 && cells.is_bare())
    }

    /// Runs `f` with this.
    #[inline]
    pub fn scope<R>(&self, f: impl FnOnce() -> R) -> R {
        enum Outer {
            Depth(u8),
            Whole(Current),
        }
        impl Drop for Outer {
            #[inline]
            fn drop(&mut self) {
                CURRENT.with(|cells| match self {
                    Outer::Depth(depth) => cells.depth.set(*depth),
                    Outer::Whole(outer) => cells.set(*outer),
                });
            }
        }
        let _outer = CURRENT.with(|cells| {
            if self.deadline.is_none() && self.trace.is_none() && cells.is_bare() {
                return Outer::Depth(cells.depth.replace(self.depth));
            }
            let outer = cells.get();
            cells.set(*self);
            Outer::Whole(outer)
        });
        f()
    }

    /// A future that is polled with this.
    pub fn carry<F: Future>(self, future: F) -> Carry<F> {
        Carry {
            current: self,
            future: Box::pin(future),
        }
    }
}

/// A future that is polled with what a landing passes on; see [`Current::carry`].
#[derive(Debug)]
pub struct Carry<F> {
    current: Current,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Carry<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.current.scope(|| this.future.as_mut().poll(cx))
    }
}

/// Where an arrived conversation comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The connection.
    pub link: &'a Arc<dyn Link>,
    /// The conversation.
    pub co: CoNumber,
    /// What calls made while it lands inherit.
    pub current: Current,
}

impl Origin<'_> {
    /// The conversation, for a landing that needs to know it.
    pub fn hosted(&self) -> Arc<Hosted> {
        Arc::new(Hosted::new(Arc::clone(self.link), self.co, self.current))
    }
}

/// What a hosted method may ask of its surroundings: an optional first parameter `cx: &Caller`.
///
/// Calls made within a method inherit its deadline and depth without it. A task that the method
/// spawns does not: [`Caller::carry`] takes them there.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Hosted>);

impl Caller {
    pub(crate) fn new(hosted: Arc<Hosted>) -> Self {
        Self(hosted)
    }

    /// Facts about the connection: the peer's address, its identity.
    pub fn info(&self) -> &LinkInfo {
        self.0.link().info()
    }

    /// Who calls; see [`Peer::identity`](crate::Peer::identity).
    pub fn identity<I: 'static>(&self) -> Option<&I> {
        self.info().identity()
    }

    /// Where to start conversations with the caller.
    pub fn po(&self) -> PostingEnd {
        PostingEnd::new(Arc::clone(self.0.link()))
    }

    /// When the caller gives up, if it said so.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.current().deadline
    }

    /// How many hosted conversations this one is nested in; 0 for a call that began at the caller.
    pub fn depth(&self) -> u8 {
        self.0.current().depth.saturating_sub(1)
    }

    /// The trace context that came with the call; with [`Options::trace`](crate::Options::trace) there
    /// always is one.
    pub fn trace(&self) -> Option<TraceContext> {
        self.0.current().trace.map(TraceContext::from)
    }

    /// Whether the caller wants no answer any more: it dropped the call, its time ran out, or it is
    /// gone. Methods that are not `#[hbi(no_cancel)]` are dropped at their next await then.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancellation().is_cancelled()
    }

    /// Waits until the caller wants no answer any more.
    pub async fn cancelled(&self) {
        self.0.cancellation().cancelled().await;
    }

    /// A future that inherits deadline and depth as the method itself does, for `tokio::spawn`.
    pub fn carry<F: Future>(&self, future: F) -> Carry<F> {
        self.0.current().carry(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_ends_as_it_began_and_through_a_panic() {
        let depth = |depth| Current {
            depth,
            ..Current::NONE
        };
        let timed = Current {
            deadline: Some(Instant::now()),
            trace: Some([7; 25]),
            ..depth(2)
        };
        let seen = || {
            let Current {
                deadline,
                depth,
                trace,
            } = Current::get();
            (deadline, depth, trace)
        };
        let expected = |current: Current| (current.deadline, current.depth, current.trace);
        assert!(Current::is_none());
        depth(1).scope(|| {
            assert_eq!(seen(), expected(depth(1)));
            timed.scope(|| {
                assert_eq!(seen(), expected(timed));
                // what it does not have it does not inherit
                depth(3).scope(|| assert_eq!(seen(), expected(depth(3))));
                assert_eq!(seen(), expected(timed));
                let panicked = std::panic::catch_unwind(|| depth(4).scope(|| panic!("in it")));
                assert!(panicked.is_err());
                assert_eq!(seen(), expected(timed));
            });
            assert_eq!(seen(), expected(depth(1)));
        });
        assert!(Current::is_none());
    }
}
