//! Objects by reference: those of this side that a peer may hold, and those of a peer.

use std::{any::Any, fmt, sync::Arc};

use super::Link;

/// An object that can be given to a peer by reference. What it can do is the environment's business.
pub trait Object: Any + Send + Sync + fmt::Debug {
    /// The object as [`Any`].
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// An object of a peer, held by reference. Its last copy tells the peer when it is dropped.
#[derive(Clone)]
pub struct RemoteObject(Arc<Held>);

struct Held {
    link: Arc<dyn Link>,
    number: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.link.release_object(self.number);
    }
}

impl RemoteObject {
    /// The object of a number at the peer, given to this side once.
    pub fn new(link: Arc<dyn Link>, number: u32) -> Self {
        Self(Arc::new(Held { link, number }))
    }

    /// The connection to its owner.
    pub fn link(&self) -> &Arc<dyn Link> {
        &self.0.link
    }

    /// Its number at its owner.
    pub fn number(&self) -> u32 {
        self.0.number
    }
}

impl fmt::Debug for RemoteObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteObject({})", self.0.number)
    }
}
