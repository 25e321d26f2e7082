//! The preface: the first bytes of each direction.

use super::{Settings, Violation};

/// What a mux connection begins with. The first byte is no text, the last two end a line, so that a
/// stranger which waits for a line answers at once.
pub const MAGIC: [u8; 6] = [0x89, b'H', b'B', b'I', b'\r', b'\n'];

/// The versions of the format this code speaks.
const OLDEST: u8 = 1;
const NEWEST: u8 = 1;

/// Settings a preface may hold, known or not.
const MAX_PAIRS: usize = 64;

/// The largest token a preface may hold, in bytes.
pub const MAX_TOKEN: usize = 4096;

/// The key of a token: the value is its length, it follows the settings.
const TOKEN: u16 = 9;

pub(in crate::wire) fn write(out: &mut Vec<u8>, settings: &Settings, token: &[u8]) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[OLDEST, NEWEST]);
    let mut pairs = settings.pairs().to_vec();
    if !token.is_empty() {
        pairs.push((TOKEN, token.len() as u32));
    }
    out.extend_from_slice(&(pairs.len() as u16).to_le_bytes());
    for (key, value) in pairs {
        out.extend_from_slice(&key.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(token);
}

/// What a preface says.
#[derive(Debug)]
pub struct Preface<'a> {
    /// The peer's settings.
    pub settings: Settings,
    /// By what it wants to be known; empty where it says nothing of that.
    pub token: &'a [u8],
    /// The bytes that the preface is long.
    pub length: usize,
}

/// Reads the peer's preface, or `None` while it is not whole.
///
/// # Errors
/// When it is no preface, or one of other versions.
pub fn read_preface(input: &[u8]) -> Result<Option<Preface<'_>>, Violation> {
    let known = input.len().min(MAGIC.len());
    if input[..known] != MAGIC[..known] {
        return Err(stranger(input));
    }
    let Some(&[oldest, newest, low, high]) = input.get(6..10).and_then(|b| b.first_chunk()) else {
        return Ok(None);
    };
    if oldest > NEWEST || newest < OLDEST {
        return Err(Violation::new(format!(
            "the peer speaks versions {oldest} to {newest} of the mux wire, this side {OLDEST} to \
             {NEWEST}: bring the older of the two up to date"
        )));
    }
    let count = u16::from_le_bytes([low, high]) as usize;
    if count > MAX_PAIRS {
        return Err(Violation::new(format!(
            "a preface with {count} settings, at most {MAX_PAIRS} are taken"
        )));
    }
    let end = 10 + 6 * count;
    let Some(pairs) = input.get(10..end) else {
        return Ok(None);
    };
    let mut settings = Settings::default();
    let mut token = 0;
    for pair in pairs.chunks_exact(6) {
        let key = u16::from_le_bytes([pair[0], pair[1]]);
        let value = u32::from_le_bytes([pair[2], pair[3], pair[4], pair[5]]);
        match key {
            TOKEN => token = value as usize,
            _ => settings.set(key, value),
        }
    }
    if token > MAX_TOKEN {
        return Err(Violation::new(format!(
            "a preface with a token of {token} bytes, at most {MAX_TOKEN} are taken"
        )));
    }
    let length = end + token;
    Ok(input.get(end..length).map(|token| Preface {
        settings: settings.clamped(),
        token,
        length,
    }))
}

/// What a peer that is no mux peer sent instead of the preface.
fn stranger(input: &[u8]) -> Violation {
    let seen = match input {
        [0x16, 3, ..] | [0x16] => "a TLS hello (use a `tls://` address on this side)".to_owned(),
        [0x15, 3, ..] | [0x15] => "a TLS alert (use a `tls://` address on this side)".to_owned(),
        [b'[', ..] => {
            "a packet of the text wire (use a `text+tcp://` address on this side)".to_owned()
        }
        _ if [
            &b"GET "[..],
            b"POST",
            b"PUT ",
            b"HEAD",
            b"OPTI",
            b"CONN",
            b"DELE",
            b"PRI ",
        ]
        .iter()
        .any(|method| method.starts_with(&input[..input.len().min(4)])) =>
        {
            "an HTTP request (the peer takes this side for a web server)".to_owned()
        }
        _ if input.starts_with(b"HTTP") => "an HTTP answer (the peer is a web server)".to_owned(),
        _ => format!(
            "{:?} (check host, port and scheme)",
            String::from_utf8_lossy(&input[..input.len().min(16)])
        ),
    };
    Violation::new(format!(
        "the peer is no hbi mux peer: its first bytes are {seen}"
    ))
}
