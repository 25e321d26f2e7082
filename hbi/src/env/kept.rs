//! What a peer keeps in an environment with `env.name = value`, or on the text wire `name = value`.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Failure, Kind, Result,
    value::{Handles, Packed},
};

/// What a value kept under a name takes beside both, at most, in bytes.
const OF_A_NAME: usize = 128;

/// The values that a peer keeps in an environment, as the host sees them. A cheap handle.
///
/// ```
/// use hbi::prelude::*;
/// let env = HostingEnv::new();
/// let kept = env.kept();
/// let env = env.function("hello", move || {
///     let name: Option<String> = kept.get("my_name").unwrap_or_default();
///     format!("Hello, {}!", name.unwrap_or_else(|| "stranger".to_owned()))
/// });
/// # drop(env);
/// ```
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Values>>);

#[derive(Default)]
struct Values {
    by_name: HashMap<String, Bytes>,
    bytes: usize,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().by_name.keys()).finish()
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The value of a name; `None` where the peer keeps none.
    ///
    /// # Errors
    /// When it is no `T`: the peer chooses what it keeps.
    pub fn get<T: DeserializeOwned + 'static>(&self, name: &str) -> Result<Option<T>> {
        match self.packed(name) {
            Some(packed) => Ok(Some(packed.unpack()?)),
            None => Ok(None),
        }
    }

    /// Keeps a value, which the peer's scripts find under the name.
    ///
    /// # Errors
    /// When it does not pack, or holds a stream or an object.
    pub fn set<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<()> {
        let packed = Packed::pack(value)?;
        self.keep(name, packed, usize::MAX).map_err(Error::from)
    }

    pub(super) fn packed(&self, name: &str) -> Option<Packed> {
        let bytes = self.lock().by_name.get(name)?.clone();
        Some(Packed::from_parts(bytes, Handles::new()))
    }

    /// Keeps a value, where all of them are at most so many bytes.
    pub(super) fn keep(&self, name: &str, value: Packed, most: usize) -> Result<(), Failure> {
        if !value.handles().is_empty() {
            return Err(Failure::new(
                Kind::Value,
                format!(
                    "a stream or reactor cannot be kept (`env.{name}`): it belongs to its conversation"
                ),
            ));
        }
        let bytes = Bytes::copy_from_slice(value.bytes());
        let mut values = self.lock();
        let old = values.by_name.get(name);
        let old = old.map_or(0, |old| old.len() + name.len() + OF_A_NAME);
        let new = values.bytes - old + bytes.len() + name.len() + OF_A_NAME;
        if new > most {
            return Err(Failure::limit(
                "memory",
                format_args!("{most} bytes kept in `env`"),
                "keep less, or raise `Bounds::memory`",
            ));
        }
        values.bytes = new;
        values.by_name.insert(name.to_owned(), bytes);
        Ok(())
    }
}
