//! What can go wrong: `Error` as an application sees it, `Failure` as it travels between peers.

use std::{fmt, io};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::value::{Packed, ValueError};

/// The result of what can fail with hbi's own [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blame {
    /// The application on this side: a wrong address, a value that cannot be packed, a call used twice.
    Application,
    /// The other peer, or what it hosts: its method failed, its script, it broke the protocol.
    Peer,
    /// What lies between, or time: a cut connection, a deadline.
    Network,
}

/// What kind of thing went wrong; the number is its code on the mux wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", from = "u8")]
#[non_exhaustive]
pub enum Kind {
    /// A method ended with its own error; see [`Error::app`]. That another connection is gone, which the
    /// method passed on, is such an error to its caller, whose own connection stands.
    App,
    /// A method panicked.
    Panic,
    /// The peer exposes nothing of that name.
    Unknown,
    /// The arguments do not fit the method: their number or a type.
    Arguments,
    /// A script that does not compile, or an error while it ran.
    Script,
    /// A limit was reached; the message names it, its value and how to raise it.
    Limit,
    /// A deadline passed.
    Timeout,
    /// The conversation was cancelled, or dropped before its end.
    Cancelled,
    /// The peer said goodbye before this could land.
    NotLanded,
    /// The peer refused the connection, or what was asked of it; or its certificate is not taken here.
    Refused,
    /// A value that cannot be packed, or does not unpack as the type asked for; or what is read or written
    /// beside the connection, a file, failed.
    Value,
    /// The connection is gone.
    Disconnected,
    /// The peer broke the protocol, or speaks another one.
    Protocol,
    /// An address that cannot be parsed or reached.
    Address,
    /// A thing used in a way it cannot be used: a call sent twice, calls of two connections composed.
    Misuse,
}

const KINDS: [Kind; 15] = [
    Kind::App,
    Kind::Panic,
    Kind::Unknown,
    Kind::Arguments,
    Kind::Script,
    Kind::Limit,
    Kind::Timeout,
    Kind::Cancelled,
    Kind::NotLanded,
    Kind::Refused,
    Kind::Value,
    Kind::Disconnected,
    Kind::Protocol,
    Kind::Address,
    Kind::Misuse,
];

impl From<Kind> for u8 {
    fn from(kind: Kind) -> u8 {
        kind as u8
    }
}

impl From<u8> for Kind {
    /// A code of a later version reads as [`Kind::Refused`].
    fn from(code: u8) -> Kind {
        KINDS.get(code as usize).copied().unwrap_or(Kind::Refused)
    }
}

/// A place in a script, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// An error as it travels to the peer that waits for an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct Failure {
    /// What kind of thing went wrong.
    pub kind: Kind,
    /// What was seen, what was expected, what to do.
    pub message: String,
    /// The exposed name where it happened, such as `calc::div`; empty where there is none.
    #[serde(default)]
    pub origin: String,
    /// A method's own error, as MessagePack.
    #[serde(default)]
    pub payload: Option<Bytes>,
    /// Where in the script.
    #[serde(default)]
    pub place: Option<Place>,
    /// A method's own error as a literal, where it goes to the peer as that.
    #[serde(skip)]
    pub(crate) literal: Option<String>,
}

impl Failure {
    /// A failure of a kind, with its message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            origin: String::new(),
            payload: None,
            place: None,
            literal: None,
        }
    }

    /// A limit that was reached: its name, its value, and how it is raised.
    pub fn limit(name: &str, value: impl fmt::Display, raise: &str) -> Self {
        Self::new(
            Kind::Limit,
            format!("limit `{name}` ({value}) reached; {raise}"),
        )
    }

    /// The same failure, with the exposed name where it happened, unless one is known already.
    pub fn at(mut self, origin: &str) -> Self {
        if self.origin.is_empty() {
            self.origin = origin.to_owned();
        }
        self
    }

    /// The same failure, with the place in the script, unless one is known already.
    pub fn in_script(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

impl From<ValueError> for Failure {
    fn from(error: ValueError) -> Self {
        Failure::new(Kind::Value, error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        error.0.failure
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}: ", self.origin)?;
        }
        f.write_str(&self.message)?;
        match self.place {
            Some(Place { line, column }) => write!(f, " (line {line}, column {column})"),
            None => Ok(()),
        }
    }
}

/// hbi's error: opaque, with questions.
///
/// A method's own error type does not come as this, but as [`CallError::App`](crate::CallError);
/// in a composition, where several methods ran, [`Error::app`] gives it.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    failure: Failure,
    sent: bool,
    remote: bool,
    excerpt: Option<String>,
}

impl Error {
    /// An error of this side.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Failure::new(kind, message).into()
    }

    /// A refusal, for a factory that does not want a peer, or a method that does not want a call.
    pub fn refusal(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// A failure that the peer answered.
    pub(crate) fn from_peer(failure: Failure) -> Self {
        Self(Box::new(Inner {
            failure,
            sent: true,
            remote: true,
            excerpt: None,
        }))
    }

    /// The same error, of a request that had been handed to the wire.
    pub(crate) fn sent(mut self) -> Self {
        self.0.sent = true;
        self
    }

    /// The same error, showing the place in the script it is about.
    pub(crate) fn with_excerpt(mut self, excerpt: impl FnOnce(Place) -> Option<String>) -> Self {
        if let Some(place) = self.0.failure.place {
            self.0.excerpt = excerpt(place);
        }
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        self.0.failure.kind
    }

    /// Who caused it.
    pub fn blame(&self) -> Blame {
        match self.kind() {
            Kind::Disconnected | Kind::Timeout => Blame::Network,
            Kind::Protocol => Blame::Peer,
            _ if self.0.remote => Blame::Peer,
            _ => Blame::Application,
        }
    }

    /// The text, without the origin and the place.
    pub fn message(&self) -> &str {
        &self.0.failure.message
    }

    /// The exposed name where it happened, such as `calc::div`; empty where there is none.
    pub fn origin(&self) -> &str {
        &self.0.failure.origin
    }

    /// Where in the script it happened.
    pub fn place(&self) -> Option<Place> {
        self.0.failure.place
    }

    /// A method's own error, if that is what this is and it is an `E`.
    pub fn app<E: DeserializeOwned + 'static>(&self) -> Option<E> {
        if self.kind() != Kind::App {
            return None;
        }
        let payload = self.0.failure.payload.clone()?;
        Packed::from_parts(payload, Default::default())
            .unpack()
            .ok()
    }

    /// Whether the request had been handed to the wire, so that the peer may have acted on it.
    pub fn was_sent(&self) -> bool {
        self.0.sent
    }

    /// Whether the peer raised it, rather than this side.
    pub fn is_remote(&self) -> bool {
        self.0.remote
    }

    /// Whether the connection is gone.
    pub fn is_disconnected(&self) -> bool {
        self.kind() == Kind::Disconnected
    }

    /// Whether a deadline passed.
    pub fn is_timeout(&self) -> bool {
        self.kind() == Kind::Timeout
    }

    /// Whether it was cancelled, or a conversation was dropped before its end.
    pub fn is_cancelled(&self) -> bool {
        self.kind() == Kind::Cancelled
    }

    /// Whether a script did not compile, or failed while it ran.
    pub fn is_script(&self) -> bool {
        self.kind() == Kind::Script
    }

    /// Whether a limit was reached; the message names it.
    pub fn is_limit(&self) -> bool {
        self.kind() == Kind::Limit
    }

    /// Whether the peer exposes nothing of that name.
    pub fn is_unknown(&self) -> bool {
        self.kind() == Kind::Unknown
    }

    /// Whether the arguments did not fit the method.
    pub fn is_arguments(&self) -> bool {
        self.kind() == Kind::Arguments
    }

    /// Whether a method panicked.
    pub fn is_panic(&self) -> bool {
        self.kind() == Kind::Panic
    }

    /// Whether the peer said goodbye before this could land.
    pub fn is_not_landed(&self) -> bool {
        self.kind() == Kind::NotLanded
    }

    /// Whether the peer refused the connection or the request.
    pub fn is_refused(&self) -> bool {
        self.kind() == Kind::Refused
    }

    /// Whether the peer broke the protocol, or speaks another one.
    pub fn is_protocol(&self) -> bool {
        self.kind() == Kind::Protocol
    }

    pub(crate) fn disconnected(reason: impl fmt::Display) -> Self {
        Self::new(Kind::Disconnected, format!("disconnected: {reason}"))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self(Box::new(Inner {
            failure,
            sent: false,
            remote: false,
            excerpt: None,
        }))
    }
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        Failure::from(error).into()
    }
}

impl From<io::Error> for Error {
    /// That a file, a reader or a writer of this side failed, which says nothing about the connection; or
    /// hbi's own error again, where that is what [`Data`](crate::Data) failed with as a reader.
    fn from(error: io::Error) -> Self {
        let own = error.get_ref().and_then(|inner| inner.downcast_ref());
        match own {
            Some(own) => Self::clone(own),
            None => Self::new(Kind::Value, format!("reading or writing failed: {error}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.failure.fmt(f)?;
        match &self.0.excerpt {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_file_says_nothing_about_the_connection() {
        let missing = Error::from(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(
            (missing.kind(), missing.blame()),
            (Kind::Value, Blame::Application)
        );
        assert!(missing.message().contains("not found"), "{missing}");
        // what data failed with is that again
        let cut = io::Error::other(Error::disconnected("cut"));
        assert!(Error::from(cut).is_disconnected());
    }
}
