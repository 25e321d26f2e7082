//! What an interpreter sees of a hosting environment: names to call, to get and to set.

use std::{future::Future, pin::Pin};

use crate::{Failure, value::Packed};

/// The answer of an artifact: there at once, or later.
pub enum Outcome {
    /// The value or the failure.
    Ready(Result<Packed, Failure>),
    /// A future of it. Dropping it cancels the call.
    Waiting(Pin<Box<dyn Future<Output = Result<Packed, Failure>> + Send>>),
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Ready(answer) => f.debug_tuple("Ready").field(answer).finish(),
            Outcome::Waiting(_) => f.write_str("Waiting"),
        }
    }
}

/// The artifacts that a script may use, for the length of one landing.
///
/// Every name that a script uses and does not define itself goes through here. A name is a path of
/// identifiers joined by `::`, such as `calc::add`, or one identifier.
pub trait Artifacts: Send + Sync + 'static {
    /// Calls the function, constructor or method of a name.
    fn call(&self, name: &str, arguments: Vec<Packed>) -> Outcome;

    /// Calls a method of an object by reference; `object` is a value that is one handle.
    fn call_method(&self, object: Packed, method: &str, arguments: Vec<Packed>) -> Outcome;

    /// Whether there is something to call under the name, for an error that says what there is.
    fn has_function(&self, name: &str) -> bool;

    /// An exposed value.
    fn exposed(&self, name: &str) -> Option<Packed>;

    /// An exposed value, or one that the peer keeps in this environment (`env.name`).
    ///
    /// `None` where there is neither.
    fn get(&self, name: &str) -> Option<Packed>;

    /// Keeps a value in this environment, as `env.name = value` does.
    ///
    /// # Errors
    /// When the name is one that the host exposes, or the environment is full.
    fn set(&self, name: &str, value: Packed) -> Result<(), Failure>;

    /// What is exposed and resembles a name that is not there, for the error: a list of names.
    fn resembling(&self, name: &str) -> Vec<String>;
}
