//! How a driver waits, and how much it takes on at once. It may look again before going to sleep, for
//! input, or for room for output: where a peer on another core answers within microseconds, to be woken
//! takes several times as long as that, and more of both processors; where it is on the same core or far
//! away, looking only delays it. And it may split a crowd of calls or answers, so that the peer works on
//! the one half while this side does on the other; on the same core that is only more to write and to
//! read. So all are tried, and what moves more is done.

use std::{cell::Cell, time::Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

/// How often a driver looks again. The runtime looks at its sockets after 61 polls of tasks (tokio's
/// `event_interval`), so where no other task is ready this is a matter of some ten microseconds.
const LOOKS: u32 = 5 * 61;

/// Waits of each way that are compared.
const TRIAL: usize = 16;

/// Looks of a trial that may end with nothing: on the core that the peer would need it waits for each.
/// Behind a trial that ended so the first is enough.
const FAILURES: u32 = 3;

/// Waits until they are compared anew, at first and at last.
const FIRST: u32 = 256;
const LAST: u32 = 4096;

/// So many calls or answers of one read are a crowd, which can be split. Halves of fewer take more
/// system calls than they win.
const CROWD: usize = 640;

/// So many who were woken are worth a turn for what they add.
const FEWEST: usize = 16;

/// What is read at least, in bytes: an end of the connection, which wakes many, is no crowd.
const LEAST: usize = 1 << 10;

thread_local! {
    /// Which driver of the thread looks: the last that began to. The others sleep.
    static LOOKS_NOW: Cell<u64> = const { Cell::new(0) };
}

/// Whether a driver that has nothing to do looks again, and whether it splits crowds.
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
    looked: u32,
    /// Bytes of the last read, if it brought a crowd, and whether one came in this trial.
    crowd: usize,
    crowded: bool,
    /// So many were woken by the last read.
    woken: usize,
    /// Looks of this trial that ended with nothing, with those before it that count.
    failures: u32,
    /// Waits so far of this trial, or in the way that was better, and how many that is to be.
    count: u32,
    interval: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Sleep,
    Look,
    /// Looks, and splits crowds.
    Split,
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
            looked: 0,
            crowd: 0,
            crowded: false,
            woken: 0,
            failures: 0,
            count: 0,
            interval: FIRST,
        }
    }

    /// So many bytes were read or written.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes);
    }

    /// How much to read at most.
    #[inline]
    pub(super) fn most(&self) -> usize {
        match self.way {
            Way::Split if self.crowd > 0 => (self.crowd / 2).max(LEAST),
            _ => usize::MAX,
        }
    }

    /// Whether the peer seems to work beside this side, on a core of its own: looking again is better.
    #[inline]
    pub(super) fn is_apart(&self) -> bool {
        self.better != Way::Sleep
    }

    /// Whether a read that brought so many bytes was held to that.
    #[inline]
    pub(super) fn is_cut(&self, bytes: usize) -> bool {
        bytes == self.most()
    }

    /// Whether what those add whom the last read woke is to go out with what is there already. Two
    /// bursts that follow each other would do so for ever, which is good where both sides work at once,
    /// and twice the system calls on one core.
    #[inline]
    pub(super) fn joins(&self) -> bool {
        self.woken >= FEWEST && self.way == Way::Sleep && self.better == Way::Sleep && self.allowed
    }

    /// So many bytes were read that woke so many, with so many calls in them.
    #[inline]
    pub(super) fn brought(&mut self, bytes: usize, woken: usize, opened: usize) {
        self.woken = woken;
        let crowd = self.allowed && woken.max(opened) >= CROWD;
        self.crowd = if crowd { bytes } else { 0 };
        self.crowded |= crowd;
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
                Way::Look | Way::Split => LOOKS,
                Way::Sleep => 0,
            };
            if self.left > 0 {
                self.number = LOOKS_NOW.get() + 1;
                LOOKS_NOW.set(self.number);
            }
        } else if LOOKS_NOW.get() == self.number {
            if self.left == 1 && self.trial {
                self.looked_in_vain();
            }
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
            self.crowded = false;
        }
    }

    /// Nothing came while it looked: too many of these are no trial but a delay.
    fn looked_in_vain(&mut self) {
        self.failures += 1;
        if self.failures == FAILURES {
            (self.count, self.failures) = (0, FAILURES - 1);
            self.decided(Way::Sleep);
        }
    }

    /// One way was tried, and so is the next, or the best is gone from now on.
    fn tried(&mut self, median: u32) {
        self.count = 0;
        match self.way {
            Way::Sleep => {
                (self.slept, self.way) = (median, Way::Look);
                return;
            }
            Way::Look if self.crowded => {
                (self.looked, self.way) = (median, Way::Split);
                return;
            }
            Way::Look => self.looked = median,
            Way::Split => {}
        }
        // looking takes a processor, and splitting system calls, so each has to be clearly better
        let clearly = |rate: u32, than: u32| rate / 4 > than / 3;
        let (mut better, mut best) = (Way::Sleep, self.slept);
        if clearly(self.looked, best) {
            (better, best) = (Way::Look, self.looked);
        }
        if self.way == Way::Split && clearly(median, best) {
            better = Way::Split;
        }
        self.failures = 0;
        self.decided(better);
    }

    /// The trial is over.
    fn decided(&mut self, better: Way) {
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

    /// Waits until sleeping and looking were tried.
    const TRIED: u32 = 2 * TRIAL as u32;

    /// Reads crowds so often, which take so long as a whole and in halves; how many of the last hundred
    /// reads were held to a half.
    fn split(spin: &mut Spin, reads: u32, messages: usize, whole: u64, halves: u64) -> u32 {
        let mut now = Instant::now();
        let mut split = 0;
        for read in 0..reads {
            let half = spin.is_cut(10_000);
            assert_eq!(half, spin.most() < 20_000);
            spin.brought(20_000, messages, 0);
            spin.moved(20_000);
            spin.again(Some(now), true);
            now += Duration::from_micros(if half { halves } else { whole });
            split += u32::from(half && read + 100 >= reads);
        }
        split
    }

    #[test]
    fn a_crowd_is_split_where_that_moves_more() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let mut spin = Spin::new();
        // both sides work at once
        assert!(split(&mut spin, TRIED + 100, 1024, 500, 300) > 80);
        // an end that many wait for is no crowd, and there is always something to be read
        spin.brought(1, 1024, 0);
        assert_eq!(spin.most(), LEAST);
        spin.brought(20_000, 10, 0);
        assert_eq!(spin.most(), usize::MAX);
        // on one core it only takes longer, and hardly winning is not worth it
        assert_eq!(split(&mut spin, 2 * LAST, 1024, 300, 400), 0);
        assert_eq!(split(&mut spin, 2 * LAST, 1024, 300, 290), 0);
        assert!(split(&mut spin, 2 * LAST, 1024, 500, 300) > 80);
        // few are read as they come
        assert_eq!(split(&mut Spin::new(), 2 * LAST, 64, 500, 300), 0);
    }

    #[test]
    fn bursts_are_joined_where_the_peer_is_on_the_same_core() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let mut spin = Spin::new();
        let joins = |spin: &mut Spin, woken: usize| {
            spin.brought(1_000, woken, 0);
            spin.joins()
        };
        assert!(joins(&mut spin, FEWEST) && !joins(&mut spin, FEWEST - 1));
        let (near, woken) = (Duration::from_micros(5), Duration::from_micros(40));
        looked(&mut spin, 2 * LAST, woken, near);
        assert!(!joins(&mut spin, FEWEST));
        looked(&mut spin, 2 * LAST, near, woken);
        assert!(joins(&mut spin, FEWEST));
    }

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
        assert_eq!(looked(&mut spin, TRIED + 60, WOKEN, NEAR), TRIED / 2 + 60);
        // then on the same one, where it is the looking that takes time
        assert_eq!(looked(&mut spin, 2 * LAST, NEAR, WOKEN), 0);
        // and far away, where there is no difference
        assert_eq!(looked(&mut spin, 2 * LAST, FAR, FAR), 0);
        // and near again: whatever was, it is tried within the longest time
        assert!(looked(&mut spin, 2 * LAST, WOKEN, NEAR) > 80);
        // of a thread the last that began to look does
        let (mut first, mut last) = (Spin::new(), Spin::new());
        for spin in [&mut first, &mut last] {
            assert_eq!(looked(spin, TRIED + 60, WOKEN, NEAR), TRIED / 2 + 60);
        }
        let now = Instant::now();
        assert!(first.again(Some(now), true) && first.again(None, false));
        assert!(last.again(Some(now), true) && !first.again(None, false));
        assert!(last.again(None, false));
    }

    /// Waits so often, and whenever it looks that ends with nothing; how often it did.
    fn in_vain(spin: &mut Spin, waits: u32) -> u32 {
        let (mut now, mut in_vain) = (Instant::now(), 0);
        for _ in 0..waits {
            let mut looks = spin.again(Some(now), true);
            in_vain += u32::from(looks);
            while looks {
                looks = spin.again(None, false);
            }
            now += Duration::from_micros(5);
        }
        in_vain
    }

    #[test]
    fn looks_that_find_nothing_end_the_trial() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let mut spin = Spin::new();
        assert_eq!(in_vain(&mut spin, FIRST), FAILURES);
        assert!(!spin.is_apart());
        // a trial behind one that ended so ends with its first
        assert_eq!(in_vain(&mut spin, LAST), 3);
        // but not behind one where looking found something, if later
        let (near, woken) = (Duration::from_micros(5), Duration::from_micros(40));
        assert_eq!(looked(&mut spin, 2 * LAST, near, woken), 0);
        assert!((FAILURES..2 * FAILURES).contains(&in_vain(&mut spin, LAST + TRIED)));
    }

    #[test]
    fn on_a_runtime_of_several_threads_it_sleeps() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();
        let (near, woken) = (Duration::from_micros(5), Duration::from_micros(40));
        let mut spin = Spin::new();
        assert_eq!(looked(&mut spin, 500, woken, near), 0);
        assert_eq!(split(&mut spin, 500, 1024, 500, 300), 0);
    }
}
