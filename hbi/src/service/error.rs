//! What a call ends with when it does not end with its value.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::{Error, Kind, value::Packed};

/// Why a call of a method with an error type of its own failed.
#[derive(Clone)]
pub enum CallError<E> {
    /// The method's own error.
    App(E),
    /// Anything else: another step of the composition, the connection, a limit.
    Hbi(Error),
}

impl<E> CallError<E> {
    /// hbi's error, if it is not the method's own.
    pub fn as_hbi(&self) -> Option<&Error> {
        match self {
            CallError::App(_) => None,
            CallError::Hbi(error) => Some(error),
        }
    }

    /// The method's own error, if it is that.
    pub fn as_app(&self) -> Option<&E> {
        match self {
            CallError::App(error) => Some(error),
            CallError::Hbi(_) => None,
        }
    }
}

impl<E> From<Error> for CallError<E> {
    fn from(error: Error) -> Self {
        CallError::Hbi(error)
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::App(error) => error.fmt(f),
            CallError::Hbi(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::App(error) => f.debug_tuple("App").field(error).finish(),
            CallError::Hbi(error) => f.debug_tuple("Hbi").field(error).finish(),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for CallError<E> {}

/// How the error of a call reaches its caller: as [`Error`] where the method has none of its own,
/// as [`CallError`] where it has.
pub trait Outcome {
    /// What the call's future ends with.
    type Error;

    /// The error, of a call whose last step is the method `root`.
    fn outcome(error: Error, root: &str) -> Self::Error;

    /// The method's own error, where the value that was answered is that: the text wire has no other
    /// place for it.
    fn own(_value: Packed) -> Option<Self::Error> {
        None
    }
}

impl Outcome for Error {
    type Error = Error;

    fn outcome(error: Error, _root: &str) -> Error {
        error
    }
}

impl<E: DeserializeOwned + 'static> Outcome for E {
    type Error = CallError<E>;

    fn outcome(error: Error, root: &str) -> CallError<E> {
        if error.kind() == Kind::App
            && error.origin() == root
            && let Some(own) = error.app()
        {
            return CallError::App(own);
        }
        CallError::Hbi(error)
    }

    fn own(value: Packed) -> Option<CallError<E>> {
        value.unpack().ok().map(CallError::App)
    }
}
