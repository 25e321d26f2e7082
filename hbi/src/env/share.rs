//! What the scripts of one connection hold together, and the share that each has of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Failure;

/// It is counted in units of so many bytes: what is smaller costs nothing to count.
const UNIT: usize = 4 << 10;

/// What all scripts of a connection may hold at once.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    free: Arc<Semaphore>,
    bytes: usize,
}

/// The share of one script.
#[derive(Debug)]
pub(super) struct Share {
    pool: Pool,
    units: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Pool {
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = bytes.min(UNIT.saturating_mul(u32::MAX as usize));
        Self {
            free: Arc::new(Semaphore::new(bytes / UNIT)),
            bytes,
        }
    }

    /// A share for a script that begins; more of them queue for it, in order.
    #[cfg(feature = "script")]
    pub(super) async fn wait_for(&self, bytes: usize) -> Result<Share, Failure> {
        let units = bytes / UNIT;
        if units > self.bytes / UNIT {
            return Err(self.exceeded());
        }
        let held = Arc::clone(&self.free).acquire_many_owned(units as u32);
        Ok(Share {
            pool: self.clone(),
            units,
            // it is never closed
            held: held.await.ok(),
        })
    }

    /// A share of nothing yet.
    pub(super) fn share(&self) -> Share {
        Share {
            pool: self.clone(),
            units: 0,
            held: None,
        }
    }

    fn exceeded(&self) -> Failure {
        Failure::limit(
            "connection_memory",
            format_args!("{} bytes in all scripts of the connection", self.bytes),
            "let them end, or raise `Bounds::connection_memory` at the host",
        )
    }
}

impl Share {
    /// The script holds so much now.
    pub(super) fn resize(&mut self, bytes: usize) -> Result<(), Failure> {
        let units = bytes / UNIT;
        if units > self.units {
            let more = (units - self.units)
                .try_into()
                .map_err(|_| self.pool.exceeded())?;
            let more = Arc::clone(&self.pool.free).try_acquire_many_owned(more);
            let more = more.map_err(|_| self.pool.exceeded())?;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        } else if units < self.units {
            drop(
                self.held
                    .as_mut()
                    .and_then(|held| held.split(self.units - units)),
            );
        }
        self.units = units;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back() {
        let pool = Pool::new(10 * UNIT);
        let (mut one, mut other) = (pool.share(), pool.share());
        one.resize(6 * UNIT).expect("there is room");
        other.resize(4 * UNIT + 100).expect("there is room");
        let error = other.resize(5 * UNIT).unwrap_err();
        assert!(error.message.contains("`connection_memory`"), "{error}");
        one.resize(3 * UNIT).expect("less is always there");
        other.resize(7 * UNIT).expect("there is room again");
        drop(other);
        one.resize(10 * UNIT).expect("there is all");
        drop(one);
        assert_eq!(pool.free.available_permits(), 10);
    }

    #[cfg(feature = "script")]
    #[tokio::test]
    async fn who_begins_waits_for_room() {
        let pool = Pool::new(10 * UNIT);
        let first = pool.wait_for(8 * UNIT).await.expect("there is room");
        let mut second = std::pin::pin!(pool.wait_for(8 * UNIT));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        second.await.expect("there is room now");
        let never = pool.wait_for(11 * UNIT).await;
        assert!(never.is_err());
    }
}
