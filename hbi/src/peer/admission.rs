//! Letting a peer in: its transport is secured, it introduces itself, and its credentials are
//! checked, before anything of it lands.

use std::io;
#[cfg(feature = "tls")]
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, task::JoinSet};

use super::{
    Options,
    defences::Entered,
    identity::{Credentials, Identity, Token},
    wire::{Introduction, start},
};
use crate::{
    Error, Kind,
    transport::{Arrived, Insecure, Stream},
    wire::mux::read_preface,
};

/// A peer that may be hosted.
pub(super) struct Admitted {
    pub(super) stream: Stream,
    /// What was read of it so far.
    pub(super) input: BytesMut,
    pub(super) identity: Option<Identity>,
}

/// Why a peer is not let in.
struct Rejected {
    kind: Kind,
    reason: String,
    /// Where it can be told.
    stream: Option<Stream>,
    /// It has shown a certificate, and that is no good.
    guessed: bool,
}

/// Lets a peer in, or tells it why not.
pub(super) async fn admit(
    options: &Options,
    arrived: Arrived,
    text: bool,
    entered: &Entered,
) -> Option<Admitted> {
    match introduced(options, arrived, text, entered).await {
        Ok(admitted) => Some(admitted),
        Err(rejected) => {
            if rejected.guessed {
                entered.failed();
            }
            tracing::info!(target: "hbi", reason = %rejected.reason, "a peer was not let in");
            if let Some(stream) = rejected.stream {
                refuse(options, stream, text, rejected.kind, &rejected.reason).await;
            }
            None
        }
    }
}

/// Tells one that is not heard at all why; over TLS and QUIC that would be work, and it is left out.
pub(super) async fn turn_away(options: &Options, arrived: Arrived, text: bool, reason: &str) {
    tracing::info!(target: "hbi", %reason, "a peer was turned away");
    match arrived {
        Arrived::Ready(stream) => refuse(options, stream, text, Kind::Limit, reason).await,
        Arrived::Plain(..) => {}
        #[cfg(feature = "quic")]
        Arrived::Quic(shaking) => shaking.refuse(),
    }
}

async fn refuse(options: &Options, stream: Stream, text: bool, kind: Kind, reason: &str) {
    let started = start(options, stream, text, Introduction::default());
    started.driver.refuse(kind, reason).await;
}

async fn introduced(
    options: &Options,
    arrived: Arrived,
    text: bool,
    entered: &Entered,
) -> Result<Admitted, Rejected> {
    let within = options.defences.handshake;
    let most = options.defences.unauthenticated_bytes;
    let introduction = async {
        let mut stream = secured(arrived).await?;
        if text {
            // peers of the text wire never introduce themselves
            return Ok((stream, BytesMut::new(), Bytes::new()));
        }
        match introduce(&mut stream, most).await {
            Ok((input, token)) => Ok((stream, input, token)),
            Err((kind, reason)) => Err(Rejected {
                kind,
                reason,
                stream: Some(stream),
                guessed: false,
            }),
        }
    };
    let (stream, input, token) = match tokio::time::timeout(within, introduction).await {
        Ok(introduced) => introduced?,
        Err(_) => {
            return Err(Rejected {
                kind: Kind::Refused,
                reason: format!("the peer did not introduce itself within {within:?}"),
                stream: None,
                guessed: false,
            });
        }
    };
    let credentials = Credentials {
        address: stream.addresses().0,
        token: Token(token),
        #[cfg(feature = "tls")]
        certificate: stream.certificate(),
    };
    match authenticate(options, credentials, entered).await {
        Ok(identity) => Ok(Admitted {
            stream,
            input,
            identity,
        }),
        Err((kind, reason)) => Err(Rejected {
            kind,
            reason,
            stream: Some(stream),
            guessed: false,
        }),
    }
}

async fn secured(arrived: Arrived) -> Result<Stream, Rejected> {
    arrived.secure().await.map_err(|insecure| {
        let (reason, stream, guessed) = match insecure {
            Insecure::Plain(stream) => {
                let text = "this port speaks TLS: connect to its `tls://` address";
                (text.to_owned(), Some(stream), false)
            }
            Insecure::Client(reason) => (reason, None, true),
            Insecure::Failed(reason) => (reason, None, false),
        };
        Rejected {
            kind: Kind::Refused,
            reason,
            stream,
            guessed,
        }
    })
}

/// Reads the peer's preface; returns what was read, and the token in it.
async fn introduce(stream: &mut Stream, most: usize) -> Result<(BytesMut, Bytes), (Kind, String)> {
    let mut input = BytesMut::with_capacity(1 << 10);
    loop {
        match read_preface(&input) {
            Err(violation) => return Err((Kind::Refused, violation.0)),
            Ok(Some(preface)) => {
                let token = Bytes::copy_from_slice(preface.token);
                return Ok((input, token));
            }
            Ok(None) => {}
        }
        let left = most.saturating_sub(input.len());
        if left == 0 {
            return Err((
                Kind::Refused,
                format!(
                    "limit `unauthenticated_bytes` ({most}) reached; send a shorter token, or raise \
                     `Defences::unauthenticated_bytes` at the server"
                ),
            ));
        }
        let cut = |error: io::Error| (Kind::Disconnected, error.to_string());
        let read = stream.take(left as u64).read_buf(&mut input).await;
        if read.map_err(cut)? == 0 {
            return Err(cut(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// What a peer is told where the application does not let it in: a refusal as such. That something else
/// failed meanwhile may pass.
pub(super) fn not_let_in(error: &Error) -> (Kind, String) {
    let kind = match error.kind() {
        Kind::Refused | Kind::Limit => error.kind(),
        _ => Kind::Disconnected,
    };
    (kind, error.to_string())
}

/// Who the peer is, by the application's check or else by the certificate that was verified.
async fn authenticate(
    options: &Options,
    credentials: Credentials,
    entered: &Entered,
) -> Result<Option<Identity>, (Kind, String)> {
    let Some(check) = options.authenticate.clone() else {
        #[cfg(feature = "tls")]
        return Ok(credentials
            .certificate
            .map(|shown| Arc::new(shown) as Identity));
        #[cfg(not(feature = "tls"))]
        return Ok(None);
    };
    let within = options.defences.handshake;
    let checked = async {
        let checking = entered.check().await;
        let _checking = checking.map_err(|reason| (Kind::Limit, reason))?;
        // in a task of its own, so that a panic in it is told to the peer, too
        let mut running = JoinSet::new();
        running.spawn(async move { (check.0)(credentials).await });
        match running.join_next().await {
            Some(Ok(Ok(identity))) => Ok(Some(identity)),
            Some(Ok(Err(error))) => {
                if error.is_refused() {
                    entered.failed();
                }
                Err(not_let_in(&error))
            }
            Some(Err(_)) | None => Err((Kind::Panic, "checking the credentials failed".to_owned())),
        }
    };
    let late = |_| {
        let text = format!("the credentials were not checked within {within:?}: try again later");
        (Kind::Disconnected, text)
    };
    tokio::time::timeout(within, checked).await.map_err(late)?
}
