//! Why a request is not posted, and what it means that a peer is not let in, whatever the wire.

use std::time::Instant;

use super::now;
use crate::{Error, Failure, Kind};

/// How deep conversations may be nested in each other: a call made while another lands is one
/// deeper.
const MAX_NESTING: u8 = 16;

/// Looks at what a request says by itself: how deep it is nested, and whether there is time left. The
/// time is looked at, and answered, where there is a deadline.
pub(super) fn check(depth: u8, deadline: Option<Instant>) -> Result<Option<Instant>, Error> {
    if depth > MAX_NESTING {
        return Err(Failure::limit(
            "nesting",
            MAX_NESTING,
            "calls made while others land are nested too deep; spawn a task for what need not be",
        )
        .into());
    }
    let now = deadline.map(|_| now());
    if deadline.is_some() && deadline <= now {
        let text = "the deadline passed before the call was sent";
        return Err(Error::new(Kind::Timeout, text));
    }
    Ok(now)
}

/// What it means that the peer ended the connection for a reason that it told. Some it has only for
/// who was not let in: where this side is (`up`), the connection is gone, whatever the peer calls that.
pub(super) fn told(kind: Kind, reason: &str, up: bool) -> Failure {
    match kind {
        Kind::Refused | Kind::Limit | Kind::NotLanded | Kind::Panic if !up => {
            Failure::new(kind, reason)
        }
        _ => {
            let text = format!("disconnected: the peer ended the connection: {reason}");
            Failure::new(Kind::Disconnected, text)
        }
    }
}

/// It is made while the environment is.
pub(super) fn too_early() -> Error {
    let text = "the connection is not up while its environment is made: call from \
                `HostingEnv::on_connect`";
    Error::new(Kind::Misuse, text)
}

/// The peer takes no more now, and it is nested: waiting within a landing could wait for itself.
pub(super) fn no_room() -> Error {
    Failure::limit(
        "conversations",
        "all that the peer takes at once are open",
        "waiting for one within a landing could wait for itself; raise `Settings::conversations` at \
         the peer",
    )
    .into()
}

/// The error of a failure that a conversation ended with.
pub(in crate::connection) fn error(failure: Failure) -> Error {
    match failure.kind {
        Kind::Disconnected => Error::from(failure).sent(),
        Kind::NotLanded => Error::from(failure),
        // the conversation's own deadline, which this side set, whichever side was first to see it pass;
        // of a method that met another there is the name
        Kind::Timeout if failure.origin.is_empty() => Error::from(failure).sent(),
        _ => Error::from_peer(failure),
    }
}
