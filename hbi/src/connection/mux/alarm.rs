//! When a driver is to be woken for the time alone.
//!
//! A runtime that has a timer pending reads the clock more often, and has the kernel set up and take
//! down a timer each time it sleeps: of a call that goes alone that is a twentieth. A connection always
//! waits for some time, its own silence at least. So times that are far off are waited for on a thread
//! of their own, one in the process, which hardly ever wakes.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{LazyLock, mpsc},
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Handle},
    task::coop,
    time::{Sleep, sleep_until},
};

use crate::connection::now;

/// A time so far off is waited for by the thread.
const FAR: Duration = Duration::from_secs(1);

/// The thread's runtime, which has nothing but timers; without it all times are the caller's runtime's.
static FAR_TIMES: LazyLock<Option<Handle>> = LazyLock::new(|| {
    let (give, take) = mpsc::channel();
    let thread = thread::Builder::new().name("hbi-far-times".to_owned());
    // it makes the runtime: where there is no thread to be had, none is dropped, which would panic in a task
    let run = move || {
        let runtime = Builder::new_current_thread().enable_time().build();
        let Ok(runtime) = runtime else { return };
        if give.send(runtime.handle().clone()).is_ok() {
            runtime.block_on(std::future::pending::<()>());
        }
    };
    thread.spawn(run).ok()?;
    take.recv().ok()
});

/// Wakes a driver's task at a time, or earlier.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes, while it runs.
    wakes: Option<Waker>,
}

impl Alarm {
    /// Whether it is seen to already that the task is woken then, and it is not that time.
    #[inline]
    pub(super) fn is_set(&self, next: Option<Instant>, cx: &Context<'_>) -> bool {
        let (Some(sleep), Some(waker)) = (&self.sleep, &self.wakes) else {
            return next.is_none();
        };
        // a later time is looked at when the earlier one has come
        next.is_none_or(|next| sleep.deadline().into_std() <= next)
            && !sleep.is_elapsed()
            && waker.will_wake(cx.waker())
    }

    /// Sees to it that the task is woken then; `false` when that is now.
    pub(super) fn set(
        &mut self,
        next: Option<Instant>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(next) = next else { return true };
        if self.is_set(Some(next), cx) {
            return true;
        }
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                let at = sleep.deadline().into_std();
                // what is pending is enough where only whom it wakes has changed
                if at <= now || at > next {
                    sleep.set(begin(next, now));
                }
                sleep
            }
            none => none.insert(Box::pin(begin(next, now))),
        };
        self.wakes = Some(cx.waker().clone());
        // a timer that has no budget left would be pending without a waker
        let timer = coop::unconstrained(sleep.as_mut());
        if pin!(timer).poll(cx).is_pending() {
            return true;
        }
        self.wakes = None;
        false
    }
}

fn begin(until: Instant, now: Instant) -> Sleep {
    let far = until.saturating_duration_since(now) >= FAR && is_time_real();
    let thread = if far { FAR_TIMES.as_ref() } else { None };
    let _context = thread.map(Handle::enter);
    sleep_until(until.into())
}

/// Whether the runtime's clock is the machine's: tests stop it, and the thread would not know.
fn is_time_real() -> bool {
    let (before, told, after) = (Instant::now(), now(), Instant::now());
    before <= told && told <= after
}
