//! How many conversations a peer may open in a second, before it is read more slowly.

use std::time::{Duration, Instant};

/// The longest pause: well below what makes a connection look dead.
const LONGEST: Duration = Duration::from_secs(5);

const SECOND: Duration = Duration::from_secs(1);

/// Counts openings.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u32,
    /// The second that is counted: from when, and until when.
    second: Option<(Instant, Instant)>,
    opened: u32,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: per_second.max(1),
            second: None,
            opened: 0,
        }
    }

    /// So many more were opened; returns until when nothing more is to be read, if so.
    pub(super) fn opened(&mut self, count: u32, now: Instant) -> Option<Instant> {
        let since = match self.second {
            Some((since, until)) if now < until => since,
            _ => {
                self.begin(now);
                now
            }
        };
        self.opened = self.opened.saturating_add(count);
        if self.opened < self.per_second {
            return None;
        }
        let worth = SECOND.mul_f64(self.opened as f64 / self.per_second as f64);
        let until = since.checked_add(worth.min(LONGEST))?;
        self.begin(until);
        Some(until)
    }

    /// Begins to count another second.
    fn begin(&mut self, at: Instant) {
        self.second = at.checked_add(SECOND).map(|until| (at, until));
        self.opened = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_as_long_as_the_openings_were_worth() {
        let began = Instant::now();
        let at = |millis: u64| began + Duration::from_millis(millis);
        let mut pace = Pace::new(100);
        assert_eq!(pace.opened(60, at(0)), None);
        assert_eq!(pace.opened(39, at(300)), None);
        assert_eq!(pace.opened(51, at(400)), Some(at(1500)));
        // a new second begins with the end of the pause
        assert_eq!(pace.opened(99, at(1600)), None);
        assert_eq!(pace.opened(1, at(1700)), Some(at(2500)));
        // and with silence
        assert_eq!(pace.opened(99, at(9000)), None);
        assert_eq!(pace.opened(99, at(10_000)), None);
        assert_eq!(pace.opened(1_000_000, at(10_500)), Some(at(15_000)));
    }
}
