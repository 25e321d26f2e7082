//! A bounded outbox of notifications, for pushing to peers of which any may be slow.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Notify as Signal;

use super::Notify;
use crate::PostingEnd;

/// What an [`Outbox`] does with a notification it has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Makes room: drops the oldest one that has not left yet.
    DropOldest,
    /// Drops the one that was pushed.
    DropNewest,
    /// Drops what has not left yet, and the connection with it: the peer is too slow to be served.
    Disconnect,
}

/// Pushes notifications to one peer in order and never waits, so that a peer which does not keep up
/// slows nobody else.
///
/// It holds at most `capacity` notifications that have not left for the peer yet; what happens with
/// more is its [`Policy`]. The connection itself takes as many before it makes the outbox wait as
/// conversations are open to it (`Settings::conversations` of the peer). A task hands them over, one
/// after the other. Dropping the outbox lets those that it holds still leave.
///
/// ```
/// use hbi::{HostingEnv, Outbox, Policy, testing};
///
/// #[hbi::service]
/// trait Board {
///     /// A new line.
///     #[hbi(notify)]
///     async fn line(&self, text: String);
/// }
///
/// struct Screen(tokio::sync::mpsc::UnboundedSender<String>);
///
/// impl Board for Screen {
///     async fn line(&self, text: String) {
///         let _ = self.0.send(text);
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (lines, mut shown) = tokio::sync::mpsc::unbounded_channel();
/// let client = HostingEnv::new().service(BoardHost::new(Screen(lines)));
/// let pair = testing::pair(HostingEnv::new(), client).await?;
///
/// let board = BoardStub::new(&pair.server);
/// let outbox = Outbox::new(&pair.server, 100, Policy::DropOldest);
/// outbox.push(board.line("hello"));
/// assert_eq!(shown.recv().await.unwrap(), "hello");
/// assert_eq!(outbox.dropped(), 0);
/// # Ok::<(), hbi::Error>(()) }).unwrap();
/// ```
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    po: PostingEnd,
    capacity: usize,
    policy: Policy,
    state: Mutex<State>,
    changed: Signal,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Notify>,
    dropped: u64,
    /// Nothing is pushed any more: the outbox was dropped.
    ended: bool,
    /// Nothing leaves any more: the peer is gone, or too slow.
    closed: bool,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Outbox")
            .field("waiting", &state.waiting.len())
            .field("dropped", &state.dropped)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// An outbox for the notifications of one peer. Of a capacity of 0 it makes 1.
    ///
    /// # Panics
    /// Outside of a tokio runtime: it spawns a task.
    pub fn new(peer: &impl AsRef<PostingEnd>, capacity: usize, policy: Policy) -> Self {
        let shared = Arc::new(Shared {
            po: peer.as_ref().clone(),
            capacity: capacity.max(1),
            policy,
            state: Mutex::default(),
            changed: Signal::new(),
        });
        tokio::spawn(drain(Arc::clone(&shared)));
        Self { shared }
    }

    /// Pushes a notification, and never waits. `false` when the peer is gone, or was let go by
    /// [`Policy::Disconnect`]: the outbox is of no use then. What is dropped by the other policies
    /// is no reason for it, and counted in [`Self::dropped`].
    pub fn push(&self, notification: Notify) -> bool {
        let Shared {
            po,
            capacity,
            policy,
            ..
        } = &*self.shared;
        let mut state = self.shared.lock();
        if state.closed {
            state.dropped += 1;
            return false;
        }
        // what is let go is dropped once the lock is released
        let mut late = None;
        let mut rest = VecDeque::new();
        if state.waiting.len() < *capacity {
            state.waiting.push_back(notification);
        } else {
            state.dropped += 1;
            match policy {
                Policy::DropOldest => {
                    late = state.waiting.pop_front();
                    state.waiting.push_back(notification);
                }
                Policy::DropNewest => late = Some(notification),
                Policy::Disconnect => {
                    rest = state.close();
                    late = Some(notification);
                }
            }
        }
        let open = !state.closed;
        drop(state);
        if !open {
            po.link().goodbye(Duration::ZERO);
        }
        drop((late, rest));
        self.shared.changed.notify_one();
        open
    }

    /// How many notifications have not left yet.
    pub fn len(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    /// Whether all notifications have left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many notifications were dropped so far: by the policy, because they could not be sent, or
    /// because the peer is gone.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    /// Nothing leaves any more; returns what has not.
    fn close(&mut self) -> VecDeque<Notify> {
        self.closed = true;
        self.dropped += self.waiting.len() as u64;
        std::mem::take(&mut self.waiting)
    }
}

/// Hands notifications to the wire, one after the other, until there are no more.
async fn drain(shared: Arc<Shared>) {
    let gone = shared.po.wait_closed();
    let send = async {
        loop {
            let (next, ended) = {
                let mut state = shared.lock();
                (state.waiting.pop_front(), state.ended || state.closed)
            };
            match next {
                Some(notification) => {
                    if let Err(error) = notification.await {
                        shared.lock().dropped += 1;
                        tracing::debug!(target: "hbi", %error, "a notification could not be sent");
                    }
                }
                None if ended => return,
                None => shared.changed.notified().await,
            }
        }
    };
    tokio::select! {
        biased;
        () = send => {}
        _ = gone => {
            // dropped once the lock is released
            let rest = shared.lock().close();
            drop(rest);
        }
    }
}
