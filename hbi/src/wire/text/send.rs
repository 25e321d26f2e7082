//! Sending: spans, and what stands between them.

use super::packet::{Directive, write_packet};

/// A span on its way out. Nothing else may be written before it is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    seq: String,
    ack: bool,
}

impl Span {
    /// Begins a conversation of this side.
    pub fn posting(out: &mut Vec<u8>, seq: u32) -> Self {
        let seq = seq.to_string();
        write_packet(out, Directive::CoBegin, &seq);
        Self { seq, ack: false }
    }

    /// Begins the answer to a conversation of the peer, whose number is echoed.
    pub fn ack(out: &mut Vec<u8>, seq: &str) -> Self {
        write_packet(out, Directive::CoAckBegin, seq);
        Self {
            seq: seq.to_owned(),
            ack: true,
        }
    }

    /// Ends it.
    pub fn finish(self, out: &mut Vec<u8>) {
        let directive = if self.ack {
            Directive::CoAckEnd
        } else {
            Directive::CoEnd
        };
        write_packet(out, directive, &self.seq);
    }
}

/// Appends a script that lands for its effect, on lines of its own as the existing peers do.
pub fn write_code(out: &mut Vec<u8>, source: &str) {
    let before = if source.starts_with('\n') { "" } else { "\n" };
    let after = if source.ends_with('\n') { "" } else { "\n" };
    write_packet(out, Directive::Code, &format!("{before}{source}{after}"));
}

/// Appends a script whose value is the receiver's next object.
pub fn write_object(out: &mut Vec<u8>, source: &str) {
    write_packet(out, Directive::CoRecv, source);
}

/// Appends the reason of disconnecting, in one line.
pub fn write_error(out: &mut Vec<u8>, reason: &str) {
    write_packet(out, Directive::Err, &one_line(reason));
}

/// The first line of a text, at most 500 characters.
pub fn one_line(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    match line.char_indices().nth(500) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "no reason given".to_owned(),
        None => line.to_owned(),
    }
}
