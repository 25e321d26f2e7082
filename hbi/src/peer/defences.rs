//! What a server does against peers that mean no good, and who stands at its door.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::transport::Source;

/// Sources whose failures are remembered; more are forgotten, not refused.
const REMEMBERED: usize = 65_536;

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
    /// How long a peer may take in all to introduce itself: the TLS handshake, its preface, its token.
    /// Against peers that connect and say nothing, or drip byte by byte. Default 10 s.
    pub handshake: Duration,
    /// Connections at once. One more waits, unaccepted, until another is gone. Bounds memory and
    /// descriptors. Default 10,000.
    pub connections: usize,
    /// Connections at once of one address; one more is refused. Against one that takes all the room.
    /// Raise it where many peers come through one proxy. Default 1,000.
    pub connections_per_address: usize,
    /// Bytes that are read of a peer before it is let in; a preface with the largest token has less
    /// than 5,000. Default 8 KiB.
    pub unauthenticated_bytes: usize,
    /// Conversations that a peer may open in a second, over QUIC with the streams within them; one
    /// that opens more is read more slowly, and so waits: nothing fails, and nothing is lost. Against
    /// one that opens and cancels, over and over. By default 1,000,000, which is more than a core
    /// lands: lower it where calls are dear. On the text wire, which has one at a time, it is of no
    /// use.
    pub openings_per_second: u32,
    /// Refused credentials of one address within a minute ([`failures_within`](Self::failures_within)),
    /// after which its connections are refused unheard until the time is over. Against guessing.
    /// Default 10.
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
            openings_per_second: 1_000_000,
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
    failures: HashMap<Source, Failures>,
    /// Nothing is too old before.
    fresh_until: Option<Instant>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    forgotten: Instant,
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
            let now = Instant::now();
            if let Some(failures) = state.failures.get(&source)
                && failures.forgotten > now
                && failures.count >= self.defences.failures_per_address
            {
                let wait = (failures.forgotten - now).as_secs() + 1;
                return Err(format!(
                    "too many failed attempts from this address ({}): try again in {wait} s",
                    failures.count
                ));
            }
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

impl Entered {
    /// The credentials of this peer were refused.
    pub(crate) fn failed(&self) {
        let Some(source) = self.source else { return };
        let within = self.door.defences.failures_within;
        let now = Instant::now();
        let mut state = self.door.lock();
        if state.fresh_until.is_none_or(|at| at <= now) {
            state
                .failures
                .retain(|_, failures| failures.forgotten > now);
            state.fresh_until = Some(now + within);
        }
        if state.failures.len() >= REMEMBERED && !state.failures.contains_key(&source) {
            return;
        }
        let failures = state.failures.entry(source).or_insert(Failures {
            count: 0,
            forgotten: now + within,
        });
        if failures.forgotten <= now {
            failures.count = 0;
            failures.forgotten = now + within;
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
}
