//! Looking again before going to sleep, for input, or for room for output. Where a peer on another core
//! answers within microseconds, to be woken takes several times as long as that, and more of both
//! processors; where it is on the same core or far away, looking only delays it. So both are tried, and
//! what moves more is done.

use std::{cell::Cell, time::Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

/// How often a driver looks again. The runtime looks at its sockets after 61 polls of tasks (tokio's
/// `event_interval`), so where no other task is ready this is a matter of some ten microseconds.
const LOOKS: u32 = 5 * 61;

/// Waits of each way that are compared.
const TRIAL: usize = 8;

/// Waits until they are compared anew, at first and at last.
const FIRST: u32 = 64;
const LAST: u32 = 4096;

thread_local! {
    /// Which driver of the thread looks: the last that began to. The others sleep.
    static LOOKS_NOW: Cell<u64> = const { Cell::new(0) };
}

/// Whether a driver that has nothing to do looks again.
#[derive(Debug)]
pub(super) struct Spin {
    /// Not on a runtime of several threads, which wakes another of them whenever a task yields.
    allowed: bool,
    /// Looks left, and what it is among those of its thread that look.
    left: u32,
    number: u64,
    /// When the last wait was over, and what was read and written since.
    since: Option<Instant>,
    moved: usize,
    way: Way,
    better: Way,
    /// Whether the ways are being compared, and what was moved with each: bytes in a millisecond. What
    /// was waited says less: who looks may get the same in smaller pieces.
    trial: bool,
    rates: [u32; TRIAL],
    slept: u32,
    /// Waits so far of this trial, or in the way that was better, and how many that is to be.
    count: u32,
    interval: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Sleep,
    Look,
}

impl Spin {
    pub(super) fn new() -> Self {
        Self {
            allowed: Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread,
            left: 0,
            number: 0,
            since: None,
            moved: 0,
            way: Way::Sleep,
            better: Way::Sleep,
            trial: true,
            rates: [0; TRIAL],
            slept: 0,
            count: 0,
            interval: FIRST,
        }
    }

    /// So many bytes were read or written.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes);
    }

    /// Whether to look again. `came` is now, where what it waits for came since it was asked last, and
    /// `left` says whether something was written.
    pub(super) fn again(&mut self, came: Option<Instant>, left: bool) -> bool {
        if !self.allowed {
            return false;
        }
        if let Some(now) = came {
            let moved = std::mem::take(&mut self.moved);
            if let Some(since) = self.since.replace(now) {
                self.waited(moved, since, now);
            }
        }
        if came.is_some() || left {
            self.left = match self.way {
                Way::Look => LOOKS,
                Way::Sleep => 0,
            };
            if self.left > 0 {
                self.number = LOOKS_NOW.get() + 1;
                LOOKS_NOW.set(self.number);
            }
        } else if LOOKS_NOW.get() == self.number {
            self.left = self.left.saturating_sub(1);
        } else {
            self.left = 0;
        }
        self.left > 0
    }

    /// A wait is over, and so much was moved since the one before.
    fn waited(&mut self, moved: usize, since: Instant, now: Instant) {
        if self.trial {
            let time = now.saturating_duration_since(since);
            let rate = moved as u128 * 1_000_000 / time.as_nanos().max(1);
            self.rates[self.count as usize] = rate.min(u32::MAX.into()) as u32;
        }
        self.count += 1;
        if self.trial && self.count == TRIAL as u32 {
            self.rates.sort_unstable();
            self.tried(self.rates[TRIAL / 2]);
        } else if !self.trial && self.count == self.interval {
            (self.trial, self.count, self.way) = (true, 0, Way::Sleep);
        }
    }

    /// One way was tried, and so is the other, or the better is gone from now on.
    fn tried(&mut self, median: u32) {
        self.count = 0;
        if self.way == Way::Sleep {
            self.slept = median;
            self.way = Way::Look;
            return;
        }
        // looking takes a processor, so it has to be clearly better
        let better = match median / 4 > self.slept / 3 {
            true => Way::Look,
            false => Way::Sleep,
        };
        self.interval = match self.better == better {
            true => (self.interval * 2).min(LAST),
            false => FIRST,
        };
        (self.trial, self.better, self.way) = (false, better, better);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Waits so often, each way so long; how many of the last hundred were looked through.
    fn looked(spin: &mut Spin, waits: u32, sleep: Duration, look: Duration) -> u32 {
        let mut now = Instant::now();
        let mut looked = 0;
        for wait in 0..waits {
            spin.moved(30_000);
            let looks = spin.again(Some(now), true);
            now += if looks { look } else { sleep };
            looked += u32::from(looks && wait + 100 >= waits);
        }
        looked
    }

    #[test]
    fn a_driver_does_what_moves_more() {
        const NEAR: Duration = Duration::from_micros(5);
        const WOKEN: Duration = Duration::from_micros(40);
        const FAR: Duration = Duration::from_micros(300);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let mut spin = Spin::new();
        // on another core
        assert_eq!(looked(&mut spin, 8 + 8 + 60, WOKEN, NEAR), 8 + 60);
        // then on the same one, where it is the looking that takes time
        assert_eq!(looked(&mut spin, 2 * LAST, NEAR, WOKEN), 0);
        // and far away, where there is no difference
        assert_eq!(looked(&mut spin, 2 * LAST, FAR, FAR), 0);
        // and near again: whatever was, it is tried within the longest time
        assert!(looked(&mut spin, 2 * LAST, WOKEN, NEAR) > 80);
        // of a thread the last that began to look does
        let (mut first, mut last) = (Spin::new(), Spin::new());
        for spin in [&mut first, &mut last] {
            assert_eq!(looked(spin, 8 + 8 + 60, WOKEN, NEAR), 8 + 60);
        }
        let now = Instant::now();
        assert!(first.again(Some(now), true) && first.again(None, false));
        assert!(last.again(Some(now), true) && !first.again(None, false));
        assert!(last.again(None, false));
    }

    #[test]
    fn on_a_runtime_of_several_threads_it_sleeps() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let (near, woken) = (Duration::from_micros(5), Duration::from_micros(40));
        assert_eq!(looked(&mut Spin::new(), 500, woken, near), 0);
    }
}
