//! Packets: the header `[len#directive]`, read and written.

use super::Violation;

/// The longest header, both brackets included.
const HEADER_MOST: usize = 60;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// A script, to land for its effect.
    Code,
    /// A posting span begins.
    CoBegin,
    /// A posting span ends.
    CoEnd,
    /// An ack span begins.
    CoAckBegin,
    /// An ack span ends.
    CoAckEnd,
    /// A script, whose value goes to who receives the next object.
    CoRecv,
    /// A script, whose value is sent back at once.
    CoSend,
    /// Why the sender disconnects.
    Err,
}

const DIRECTIVES: [Directive; 8] = [
    Directive::Code,
    Directive::CoBegin,
    Directive::CoEnd,
    Directive::CoAckBegin,
    Directive::CoAckEnd,
    Directive::CoRecv,
    Directive::CoSend,
    Directive::Err,
];

impl Directive {
    /// As it stands in the header.
    pub fn name(self) -> &'static str {
        match self {
            Directive::Code => "",
            Directive::CoBegin => "co_begin",
            Directive::CoEnd => "co_end",
            Directive::CoAckBegin => "co_ack_begin",
            Directive::CoAckEnd => "co_ack_end",
            Directive::CoRecv => "co_recv",
            Directive::CoSend => "co_send",
            Directive::Err => "err",
        }
    }
}

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of the header itself.
    pub(super) size: usize,
    /// Bytes of the payload.
    pub(super) len: usize,
    pub(super) directive: Directive,
}

/// Reads the header at the front of `input`; `None` where its end is not there yet.
///
/// # Errors
/// At the first byte that cannot belong to a header of a payload of at most `most` bytes. Whatever
/// comes after it changes nothing, so that it does not matter how the input was cut.
pub(super) fn read_header(input: &[u8], most: usize) -> Result<Option<Header>, Violation> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    if first != b'[' {
        return Err(Violation(format!(
            "a packet begins with `[`, found {}{}",
            shown(first),
            match first {
                // the first byte of its preface
                0x89 => ": the peer speaks the mux wire, connect to its address without `text+`",
                _ => "",
            }
        )));
    }
    let mut len: usize = 0;
    let mut at = 1;
    loop {
        let Some(&byte) = input.get(at) else {
            return Ok(None);
        };
        match byte {
            b'#' if at > 1 => break,
            b'0'..=b'9' => {
                if at == 2 && len == 0 {
                    return Err(Violation(
                        "the length of a packet has a leading zero".into(),
                    ));
                }
                // `most` is far below where this overflows
                len = len * 10 + (byte - b'0') as usize;
                if len > most {
                    return Err(Violation(format!(
                        "the length of a packet is over the limit of {most} bytes"
                    )));
                }
            }
            b'#' => return Err(Violation("a packet without a length".into())),
            other => {
                return Err(Violation(format!(
                    "the length of a packet is decimal digits, found {}",
                    shown(other)
                )));
            }
        }
        at += 1;
    }
    let name = at + 1;
    loop {
        at += 1;
        if at >= HEADER_MOST {
            return Err(Violation(format!(
                "a header of more than {HEADER_MOST} bytes"
            )));
        }
        let Some(&byte) = input.get(at) else {
            return Ok(None);
        };
        if byte == b']' {
            break;
        }
    }
    let name = &input[name..at];
    let directive = DIRECTIVES
        .into_iter()
        .find(|directive| directive.name().as_bytes() == name);
    let Some(directive) = directive else {
        return Err(Violation(format!(
            "unknown directive `{}`",
            String::from_utf8_lossy(name).escape_debug()
        )));
    };
    Ok(Some(Header {
        size: at + 1,
        len,
        directive,
    }))
}

/// A byte, for errors.
fn shown(byte: u8) -> String {
    match byte {
        b' '..=b'~' => format!("`{}`", byte as char),
        _ => format!("byte 0x{byte:02x}"),
    }
}

/// Appends a packet. An empty payload becomes a newline: Python peers lose what stands behind a
/// packet without a payload.
pub(super) fn write_packet(out: &mut Vec<u8>, directive: Directive, payload: &str) {
    let payload = if payload.is_empty() { "\n" } else { payload };
    let head = format!("[{}#{}]", payload.len(), directive.name());
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(payload.as_bytes());
}
