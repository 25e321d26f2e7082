//! What an interpreter sees of an environment, within one landing.

use std::sync::Arc;

use super::{Artifacts, Environment, Outcome};
use crate::{
    Failure,
    endpoint::Hosted,
    value::{Dialect, Packed},
};

/// The artifacts of an environment, within one landing.
pub(super) struct Within {
    pub(super) env: Arc<Environment>,
    pub(super) hosted: Arc<Hosted>,
    /// It lands off a text wire.
    pub(super) text: bool,
    /// What calls answer goes to the peer as it is: as a literal.
    pub(super) literal: Option<Dialect>,
}

impl Artifacts for Within {
    fn call(&self, name: &str, arguments: Vec<Packed>) -> Outcome {
        match self.env.resolve(name) {
            Some(target) => self.call_target(&target, arguments),
            None => Outcome::Ready(Err(self.env.unknown(name))),
        }
    }

    fn call_method(&self, object: Packed, method: &str, arguments: Vec<Packed>) -> Outcome {
        match self.env.method_of(object, method) {
            Ok(target) => self.call_target(&target, arguments),
            Err(failure) => Outcome::Ready(Err(failure)),
        }
    }

    fn has_function(&self, name: &str) -> bool {
        self.env.resolve(name).is_some()
    }

    fn exposed(&self, name: &str) -> Option<Packed> {
        self.env.exposed(name)
    }

    fn get(&self, name: &str) -> Option<Packed> {
        self.env.get(name)
    }

    fn set(&self, name: &str, value: Packed) -> Result<(), Failure> {
        self.env.set(name, value)
    }

    fn resembling(&self, name: &str) -> Vec<String> {
        self.env.resembling(name)
    }
}
