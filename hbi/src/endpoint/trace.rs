//! Trace contexts: which trace a conversation belongs to, as it travels with it.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    str::FromStr,
};

use super::{Carry, Current};
use crate::{Error, Kind};

/// Which trace work belongs to, and which span of it: a W3C trace context.
///
/// It travels with each conversation, and calls made while hosting inherit it, as they do with
/// deadlines. [`Options::trace`](crate::Options::trace) makes spans of it and begins a trace where
/// there is none; without that option it is only passed on. Shown and parsed as a `traceparent`.
///
/// ```
/// use hbi::TraceContext;
///
/// let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let context: TraceContext = text.parse()?;
/// assert_eq!(context.trace_id()[0], 0x0a);
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), text);
/// # Ok::<(), hbi::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext([u8; 25]);

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (Hex(self.trace_id()), Hex(self.span_id()));
        write!(f, "00-{trace}-{span}-{:02x}", self.0[24])
    }
}

impl FromStr for TraceContext {
    type Err = Error;

    /// Parses a `traceparent`; of versions after 00 what they share with it.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| {
            Error::new(
                Kind::Value,
                "no trace context: expected `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, \
                 lower case, ids not all 0",
            )
        })
    }
}

fn parse(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let mut version = [0];
    read_hex(parts.next()?, &mut version)?;
    let mut bytes = [0; 25];
    read_hex(parts.next()?, &mut bytes[..16])?;
    read_hex(parts.next()?, &mut bytes[16..24])?;
    read_hex(parts.next()?, &mut bytes[24..])?;
    let more = parts.next().is_some();
    if version[0] == 0xff || version[0] == 0 && more {
        return None;
    }
    let context = TraceContext(bytes);
    let ids = [context.trace_id(), context.span_id()];
    ids.iter()
        .all(|id| id.iter().any(|byte| *byte != 0))
        .then_some(context)
}

fn read_hex(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

impl TraceContext {
    /// A new trace, which is recorded.
    pub fn begin() -> Self {
        let mut bytes = [0; 25];
        bytes[..8].copy_from_slice(&random());
        bytes[8..16].copy_from_slice(&random());
        bytes[16..24].copy_from_slice(&random());
        bytes[24] = SAMPLED;
        Self(bytes)
    }

    /// What calls made now belong to: that of the hosted call which this runs for, or of a future
    /// that [`Self::carry`] made.
    pub fn current() -> Option<Self> {
        Current::get().trace.map(Self)
    }

    /// The bytes as they travel: trace id (16), span id (8), flags (1).
    pub fn to_bytes(self) -> [u8; 25] {
        self.0
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> &[u8] {
        &self.0[..16]
    }

    /// The id of the span in it.
    pub fn span_id(&self) -> &[u8] {
        &self.0[16..24]
    }

    /// Whether the trace is recorded, as far as who began it knows.
    pub fn is_sampled(&self) -> bool {
        self.0[24] & SAMPLED != 0
    }

    /// A future whose calls belong to this, for a trace that began elsewhere, as in an HTTP request.
    /// Deadline and depth stay what they are here.
    pub fn carry<F: Future>(self, future: F) -> Carry<F> {
        let current = Current {
            trace: Some(self.0),
            ..Current::get()
        };
        current.carry(future)
    }

    /// Another span of the same trace.
    fn next(self) -> Self {
        let mut bytes = self.0;
        bytes[16..24].copy_from_slice(&random());
        Self(bytes)
    }
}

impl From<[u8; 25]> for TraceContext {
    fn from(bytes: [u8; 25]) -> Self {
        Self(bytes)
    }
}

/// Eight bytes that are not all 0, and nobody else's: ids need not be secret.
fn random() -> [u8; 8] {
    // keyed by the system's randomness, and by another number each time
    let number = RandomState::new().build_hasher().finish();
    number.max(1).to_be_bytes()
}

/// Bytes as they are shown.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The trace context of a conversation that is posted now, and its span once that is open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Posted {
    parent: Option<TraceContext>,
    context: TraceContext,
}

impl Posted {
    pub(crate) fn new(parent: Option<[u8; 25]>) -> Self {
        let parent = parent.map(TraceContext);
        let context = parent.map_or_else(TraceContext::begin, TraceContext::next);
        Self { parent, context }
    }

    pub(crate) fn context(&self) -> &[u8; 25] {
        &self.context.0
    }

    /// The span of the conversation at who posts it.
    pub(crate) fn span(&self, peer: &str, call: Option<&str>) -> tracing::Span {
        let span = tracing::info_span!(
            target: "hbi",
            "post",
            peer,
            call,
            trace_id = %Hex(self.context.trace_id()),
            span_id = %Hex(self.context.span_id()),
            parent_id = tracing::field::Empty,
        );
        if let Some(parent) = &self.parent {
            span.record("parent_id", tracing::field::display(Hex(parent.span_id())));
        }
        span
    }
}

/// The span of a conversation at who hosts it. One that came without a context begins a trace.
pub(crate) fn hosted_span(current: &mut Current, peer: &str) -> tracing::Span {
    let context = TraceContext(*current.trace.get_or_insert_with(|| TraceContext::begin().0));
    tracing::info_span!(
        target: "hbi",
        "host",
        peer,
        call = tracing::field::Empty,
        trace_id = %Hex(context.trace_id()),
        span_id = %Hex(context.span_id()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_parse_as_they_are_shown() {
        for _ in 0..100 {
            let context = TraceContext::begin();
            assert_eq!(
                context.to_string().parse::<TraceContext>().unwrap(),
                context
            );
            assert_ne!(context.next(), context);
            assert_eq!(context.next().trace_id(), context.trace_id());
        }
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let later = format!("01-{trace}-{span}-00-more");
        assert!(!later.parse::<TraceContext>().unwrap().is_sampled());
        for text in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{span}-{trace}-01"),
            format!("00-{}-{span}-01", "ä".repeat(16)),
        ] {
            assert!(text.parse::<TraceContext>().is_err(), "{text}");
        }
    }
}
