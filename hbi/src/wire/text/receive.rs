//! Receiving: from bytes to packets and raw data, checked for what may follow what.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    Violation,
    packet::{Directive, Header, read_header},
};

/// The longest sequence number that is echoed. Peers write up to 7 digits.
const SEQ_MOST: usize = 64;

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer begins a conversation; its number is echoed byte for byte.
    Begin(String),
    /// A script to land for its effect.
    Code(String),
    /// A script whose value goes to who receives the next object.
    Object(String),
    /// A script whose value the peer wants at once.
    Ask(String),
    /// The peer sends no more in the conversation it began.
    End,
    /// The answer to a conversation of this side begins.
    AckBegin(String),
    /// The answer is complete.
    AckEnd,
    /// Raw data, a part of what was expected.
    Raw(Bytes),
    /// The peer disconnects, and why.
    Error(String),
}

/// Where in the row of spans the stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Between,
    Posting(String),
    Ack(String),
}

/// Receives one direction of a text wire.
///
/// ```
/// use bytes::BytesMut;
/// use hbi::wire::text::{Event, Receiver};
///
/// let mut receiver = Receiver::new(1 << 20);
/// let mut input = BytesMut::from("[3#co_begin]101[8#]\nup(4)\n\n\u{1}\u{2}\u{3}\u{4}[3#co_end]101");
/// assert_eq!(receiver.next(&mut input)?, Some(Event::Begin("101".into())));
/// assert_eq!(receiver.next(&mut input)?, Some(Event::Code("\nup(4)\n\n".into())));
/// receiver.expect_raw(4);
/// assert_eq!(receiver.next(&mut input)?, Some(Event::Raw("\u{1}\u{2}\u{3}\u{4}".into())));
/// assert_eq!(receiver.next(&mut input)?, Some(Event::End));
/// receiver.finish(&input)?;
/// # Ok::<(), hbi::wire::text::Violation>(())
/// ```
#[derive(Debug)]
pub struct Receiver {
    place: Place,
    /// Bytes of raw data that come next.
    raw: u64,
    /// The longest payload taken.
    most: usize,
}

impl Receiver {
    /// A receiver at the beginning of a stream, which takes payloads up to `most` bytes, and at most
    /// 1 GiB.
    pub fn new(most: usize) -> Self {
        Self {
            place: Place::Between,
            raw: 0,
            most: most.min(1 << 30),
        }
    }

    /// The next so many bytes are raw data, beside those expected already.
    pub fn expect_raw(&mut self, bytes: u64) {
        self.raw = self.raw.saturating_add(bytes);
    }

    /// How much raw data is expected and did not come yet.
    pub fn raw_expected(&self) -> u64 {
        self.raw
    }

    /// Whether the stream stands within a span.
    pub fn in_span(&self) -> bool {
        self.place != Place::Between
    }

    /// Whether a conversation of the peer begins at the front of `input`.
    pub fn begins(&self, input: &[u8]) -> bool {
        self.place == Place::Between
            && matches!(read_header(input, self.most), Ok(Some(header))
                if header.directive == Directive::CoBegin)
    }

    /// Takes what is at the front of `input`: raw data where some is expected, a packet elsewhere.
    /// `None` where more bytes are needed.
    ///
    /// # Errors
    /// When the peer breaks the protocol; the receiver is of no more use then.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        if self.raw > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let n = usize::try_from(self.raw).map_or(input.len(), |raw| raw.min(input.len()));
            self.raw -= n as u64;
            return Ok(Some(Event::Raw(input.split_to(n).freeze())));
        }
        let Some(header) = read_header(input, self.most)? else {
            return Ok(None);
        };
        self.admit(header)?;
        if input.len() - header.size < header.len {
            return Ok(None);
        }
        input.advance(header.size);
        let payload = input.split_to(header.len);
        let Ok(payload) = std::str::from_utf8(&payload) else {
            return Err(Violation(format!(
                "the payload of {} is not valid UTF-8",
                packet(header.directive)
            )));
        };
        self.enter(header.directive, payload.to_owned()).map(Some)
    }

    /// Whether a packet may stand here. Told by its header, before its payload is waited for.
    fn admit(&self, header: Header) -> Result<(), Violation> {
        use Directive as D;
        let (directive, what) = (header.directive, packet(header.directive));
        if header.len == 0 {
            return Err(Violation(format!("{what} with an empty payload")));
        }
        let opens = matches!(directive, D::CoBegin | D::CoAckBegin);
        let (seq, inside, fits) = match &self.place {
            _ if directive == D::Err => return Ok(()),
            Place::Between if opens => return self.seq_len(header),
            Place::Between => return Err(Violation(format!("{what} outside a conversation"))),
            Place::Posting(seq) => (
                seq,
                "a conversation",
                matches!(directive, D::Code | D::CoRecv | D::CoSend | D::CoEnd),
            ),
            Place::Ack(seq) => (
                seq,
                "the answer to conversation",
                matches!(directive, D::Code | D::CoRecv | D::CoAckEnd),
            ),
        };
        if opens {
            return Err(Violation(format!(
                "{what} inside {inside} {}: they do not nest",
                seq.escape_debug()
            )));
        }
        if !fits {
            return Err(Violation(format!(
                "{what} inside {inside} {}",
                seq.escape_debug()
            )));
        }
        match directive {
            D::CoEnd | D::CoAckEnd => self.seq_len(header),
            _ => Ok(()),
        }
    }

    fn seq_len(&self, header: Header) -> Result<(), Violation> {
        if header.len > SEQ_MOST {
            return Err(Violation(format!(
                "a conversation's number of {} bytes, at most {SEQ_MOST} are taken",
                header.len
            )));
        }
        Ok(())
    }

    fn enter(&mut self, directive: Directive, payload: String) -> Result<Event, Violation> {
        Ok(match directive {
            Directive::Code => Event::Code(payload),
            Directive::CoRecv => Event::Object(payload),
            Directive::CoSend => Event::Ask(payload),
            Directive::Err => Event::Error(payload),
            Directive::CoBegin => {
                self.place = Place::Posting(payload.clone());
                Event::Begin(payload)
            }
            Directive::CoAckBegin => {
                self.place = Place::Ack(payload.clone());
                Event::AckBegin(payload)
            }
            Directive::CoEnd | Directive::CoAckEnd => {
                let place = std::mem::replace(&mut self.place, Place::Between);
                if let Place::Posting(seq) | Place::Ack(seq) = place
                    && seq != payload
                {
                    return Err(Violation(format!(
                        "the end of conversation {} inside conversation {}",
                        payload.escape_debug(),
                        seq.escape_debug()
                    )));
                }
                match directive {
                    Directive::CoEnd => Event::End,
                    _ => Event::AckEnd,
                }
            }
        })
    }

    /// The stream has ended; `input` is what was left of it.
    ///
    /// # Errors
    /// When it ended anywhere but between two spans: what was missing.
    pub fn finish(&self, input: &[u8]) -> Result<(), Violation> {
        let what = if self.raw > 0 {
            format!("{} bytes before the end of raw data", self.raw)
        } else if input.is_empty() {
            match &self.place {
                Place::Between => return Ok(()),
                Place::Posting(seq) => format!("inside conversation {}", seq.escape_debug()),
                Place::Ack(seq) => {
                    format!("inside the answer to conversation {}", seq.escape_debug())
                }
            }
        } else {
            match read_header(input, self.most)? {
                None => "inside the header of a packet".to_owned(),
                Some(header) => format!("inside the payload of {}", packet(header.directive)),
            }
        };
        Err(Violation(format!("the stream ended {what}")))
    }
}

/// A packet's name, for errors.
fn packet(directive: Directive) -> &'static str {
    match directive {
        Directive::Code => "a code packet",
        Directive::CoBegin => "a co_begin packet",
        Directive::CoEnd => "a co_end packet",
        Directive::CoAckBegin => "a co_ack_begin packet",
        Directive::CoAckEnd => "a co_ack_end packet",
        Directive::CoRecv => "a co_recv packet",
        Directive::CoSend => "a co_send packet",
        Directive::Err => "an err packet",
    }
}
