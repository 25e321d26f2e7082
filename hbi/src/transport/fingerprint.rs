//! Fingerprints of certificates.

use std::{fmt, str::FromStr};

/// The SHA-256 of a certificate (of its DER form), by which it is known without any authority. It is
/// written as 64 hexadecimal digits; colons between them are read, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "a fingerprint is 64 hexadecimal digits".to_owned();
        let mut bytes = [0; 32];
        let mut digits = text.chars().filter(|&c| c != ':').map(|c| c.to_digit(16));
        let mut digit = || digits.next().flatten().ok_or_else(bad);
        for byte in &mut bytes {
            *byte = (digit()? << 4 | digit()?) as u8;
        }
        match digits.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(bad()),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
