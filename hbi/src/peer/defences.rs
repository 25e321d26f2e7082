//! What a server does against peers that mean no good, and who stands at its door.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::transport::Source;

/// Sources whose failures are remembered; more are forgotten, not refused.
const REMEMBERED: usize = 65_536;

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The defences of a server against strangers. The defaults suit a server on the open network.
///
/// An address is one of IPv4, or a network of 64 bits of IPv6; over Unix sockets it is a user. Peers
/// within the process are not limited by address. What connected peers may do is limited by
/// [`Settings`](crate::Settings) and [`Bounds`](crate::env::Bounds); a peer that leaves a frame half
/// sent, or reads nothing, is dropped after [`Settings::idle_timeout`](crate::Settings::idle_timeout). Over
/// QUIC it holds up that one stream only, and all that waits is within
/// [`Settings::held`](crate::Settings::held).
///
/// ```
/// # use std::time::Duration;
/// let mut defences = hbi::Defences::default();
/// defences.handshake = Duration::from_secs(3);
/// let options = hbi::Options::new().defences(defences);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defences {
    /// How long a peer may take in all to introduce itself: the TLS handshake, its preface, its token;
    /// and then how long [`Options::authenticate`](crate::Options::authenticate) may take. Against peers
    /// that connect and say nothing, or drip byte by byte. Default 10 s.
    pub handshake: Duration,
    /// Connections at once. One more waits, unaccepted, until another is gone. Bounds memory and
    /// descriptors. Default 10,000.
    pub connections: usize,
    /// Connections at once of one address; one more is refused, and told why unless many are at that
    /// time. Against one that takes all the room. Raise it where many peers come through one proxy.
    /// Default 1,000.
    pub connections_per_address: usize,
    /// Bytes that are read of a peer before it is let in; a preface with the largest token has less
    /// than 5,000. Default 8 KiB.
    pub unauthenticated_bytes: usize,
    /// Conversations that a peer may open in a second, over QUIC with the streams within them; one
    /// that opens more is read more slowly, and so waits: nothing fails, and nothing is lost. Against
    /// one that opens and cancels, over and over. By default 10,000,000, which is more than a core
    /// lands: lower it where calls are dear. On the text wire, which has one at a time, it is of no
    /// use.
    pub openings_per_second: u32,
    /// Refused credentials of one address within a minute ([`failures_within`](Self::failures_within)),
    /// after which its connections are refused unheard until the time is over. Of one address only so
    /// many are checked at once as may still fail; others wait. Against guessing. Default 10.
    pub failures_per_address: u32,
    /// The time in which failures are counted. Default 60 s.
    pub failures_within: Duration,
}

impl Default for Defences {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            connections: 10_000,
            connections_per_address: 1_000,
            unauthenticated_bytes: 8 << 10,
            openings_per_second: 10_000_000,
            failures_per_address: 10,
            failures_within: Duration::from_secs(60),
        }
    }
}

/// Keeps count of who comes.
#[derive(Debug)]
pub(crate) struct Door {
    defences: Defences,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    inside: HashMap<Source, usize>,
    checking: HashMap<Source, Checks>,
    failures: HashMap<Source, Failures>,
    /// Nothing is too old before.
    fresh_until: Option<Instant>,
}

/// Checks of one source that are under way.
#[derive(Debug, Default)]
struct Checks {
    count: u32,
    /// Told whenever one is over.
    over: Arc<Notify>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    forgotten: Instant,
}

impl State {
    /// How often a source has failed; an error where that is too often.
    fn failed(&self, source: &Source, most: u32) -> Result<u32, String> {
        let now = Instant::now();
        let failures = self.failures.get(source);
        let Some(failures) = failures.filter(|failures| failures.forgotten > now) else {
            return Ok(0);
        };
        if failures.count < most {
            return Ok(failures.count);
        }
        let wait = (failures.forgotten - now).as_secs() + 1;
        Err(format!(
            "too many failed attempts from this address ({}): try again in {wait} s",
            failures.count
        ))
    }
}

/// A place inside, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    door: Arc<Door>,
    source: Option<Source>,
}

impl Door {
    pub(crate) fn new(defences: Defences) -> Self {
        Self {
            defences,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets somebody in, or says why not.
    pub(crate) fn enter(self: &Arc<Self>, source: Option<Source>) -> Result<Entered, String> {
        if let Some(source) = source {
            let mut state = self.lock();
            state.failed(&source, self.defences.failures_per_address)?;
            let most = self.defences.connections_per_address;
            let inside = state.inside.entry(source).or_default();
            if *inside >= most {
                return Err(format!(
                    "limit `connections_per_address` ({most}) reached; share connections, or raise \
                     `Defences::connections_per_address` at the server"
                ));
            }
            *inside += 1;
        }
        Ok(Entered {
            door: Arc::clone(self),
            source,
        })
    }
}

/// Credentials that are being checked, until it is dropped.
#[derive(Debug)]
pub(crate) struct Checking<'a>(&'a Entered);

impl Entered {
    /// Waits until the credentials of this peer may be checked, or says why they are not: side by side
    /// an address may guess no more often than one after the other.
    pub(crate) async fn check(&self) -> Result<Checking<'_>, String> {
        let Some(source) = self.source else {
            return Ok(Checking(self));
        };
        let most = self.door.defences.failures_per_address;
        loop {
            let checks_over;
            let over = {
                let mut state = self.door.lock();
                let failed = state.failed(&source, most)?;
                let checks = state.checking.entry(source).or_default();
                if checks.count == 0 || failed.saturating_add(checks.count) < most {
                    checks.count += 1;
                    return Ok(Checking(self));
                }
                // told of what ends from here on, whether it is looked at or not
                checks_over = Arc::clone(&checks.over);
                checks_over.notified()
            };
            over.await;
        }
    }

    /// The credentials of this peer were refused.
    pub(crate) fn failed(&self) {
        let Some(source) = self.source else { return };
        let within = self.door.defences.failures_within;
        let now = Instant::now();
        // what is longer than a clock counts is forgotten in a hundred years
        let forgotten = now.checked_add(within).unwrap_or(now + CENTURY);
        let mut state = self.door.lock();
        if state.fresh_until.is_none_or(|at| at <= now) {
            state
                .failures
                .retain(|_, failures| failures.forgotten > now);
            state.fresh_until = Some(forgotten);
        }
        if state.failures.len() >= REMEMBERED && !state.failures.contains_key(&source) {
            return;
        }
        let failures = state.failures.entry(source).or_insert(Failures {
            count: 0,
            forgotten,
        });
        if failures.forgotten <= now {
            failures.count = 0;
            failures.forgotten = forgotten;
        }
        failures.count = failures.count.saturating_add(1);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(source) = self.source else { return };
        let mut state = self.door.lock();
        if let Some(inside) = state.inside.get_mut(&source) {
            *inside -= 1;
            if *inside == 0 {
                state.inside.remove(&source);
            }
        }
    }
}

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        let Some(source) = self.0.source else { return };
        let mut state = self.0.door.lock();
        let Some(checks) = state.checking.get_mut(&source) else {
            return;
        };
        checks.count -= 1;
        let over = Arc::clone(&checks.over);
        if checks.count == 0 {
            state.checking.remove(&source);
        }
        drop(state);
        over.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Option<Source> {
        Some(Source::of(address.parse().unwrap()))
    }

    fn door(defences: Defences) -> Arc<Door> {
        Arc::new(Door::new(defences))
    }

    #[test]
    fn a_network_has_so_many_places_and_gets_them_back() {
        let door = door(Defences {
            connections_per_address: 2,
            ..Defences::default()
        });
        let one = door.enter(source("2001:db8::1")).unwrap();
        let _two = door.enter(source("2001:db8::2")).unwrap();
        let refused = door.enter(source("2001:db8::ffff")).unwrap_err();
        assert!(refused.contains("connections_per_address"), "{refused}");
        assert!(door.enter(source("2001:db8:1::1")).is_ok());
        assert!(door.enter(None).is_ok());
        drop(one);
        assert!(door.enter(source("2001:db8::3")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_too_often_waits() {
        let door = door(Defences {
            failures_per_address: 2,
            ..Defences::default()
        });
        let guess = || door.enter(source("::ffff:10.0.0.1"));
        guess().unwrap().failed();
        guess().unwrap().failed();
        let refused = guess().unwrap_err();
        assert!(refused.contains("try again in"), "{refused}");
        // the same address, written as what it is
        assert!(door.enter(source("10.0.0.1")).is_err());
        assert!(door.enter(source("10.0.0.2")).is_ok());
        tokio::time::advance(Duration::from_secs(61)).await;
        guess().unwrap().failed();
        assert!(guess().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_side_by_side_are_as_many_as_one_after_the_other() {
        let door = door(Defences {
            failures_per_address: 2,
            ..Defences::default()
        });
        let asked = std::sync::atomic::AtomicU32::new(0);
        let guess = |right: bool| {
            let entered = door.enter(source("10.0.0.1")).unwrap();
            let asked = &asked;
            async move {
                let _checking = entered.check().await?;
                asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
                if !right {
                    entered.failed();
                }
                Ok::<_, String>(())
            }
        };
        // who is right waits for others of its address at most
        let right = futures_util::future::join_all((0..10).map(|_| guess(true))).await;
        assert!(right.iter().all(Result::is_ok), "{right:?}");
        let wrong = futures_util::future::join_all((0..10).map(|_| guess(false))).await;
        assert_eq!(wrong.iter().filter(|wrong| wrong.is_ok()).count(), 2);
        assert_eq!(asked.into_inner(), 12);
        assert!(door.lock().checking.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_may_be_remembered_for_ever() {
        let door = door(Defences {
            failures_per_address: 1,
            failures_within: Duration::MAX,
            ..Defences::default()
        });
        door.enter(source("10.0.0.1")).unwrap().failed();
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert!(door.enter(source("10.0.0.1")).is_err());
    }
}
