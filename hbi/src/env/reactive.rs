//! Objects of this side that a peer holds by reference: a service object each.

use std::{any::Any, fmt, sync::Arc};

use super::Service;
use crate::endpoint::Object;

/// A service object given out by reference.
pub(crate) struct Reactive {
    pub(crate) service: Arc<dyn Service>,
    /// The same object, as its own type.
    pub(crate) own: Arc<dyn Any + Send + Sync>,
}

impl Reactive {
    pub(crate) fn new<S: Service>(service: Arc<S>) -> Self {
        Self {
            own: Arc::clone(&service) as Arc<dyn Any + Send + Sync>,
            service,
        }
    }
}

impl fmt::Debug for Reactive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reactive({})", self.service.table().name)
    }
}

impl Object for Reactive {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
