//! What a peer's certificate says.

use std::fmt;

use rustls::pki_types::CertificateDer;

use super::super::Fingerprint;

/// The certificate that a peer has shown, and proved to have the key of. It was verified against the
/// authorities or the pin that this side trusts.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    /// The peer's own certificate, of the chain that it has shown in a handshake that is over.
    pub fn of_peer(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        Some(Self(chain?.first()?.clone().into_owned()))
    }

    /// Its DER form.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Its fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.0)
    }

    /// The DNS names it is for. Other kinds of names are in [`der`](Self::der).
    pub fn dns_names(&self) -> Vec<String> {
        // one that was verified can be parsed
        webpki::EndEntityCert::try_from(&self.0)
            .map(|parsed| parsed.valid_dns_names().map(str::to_owned).collect())
            .unwrap_or_default()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("dns_names", &self.dns_names())
            .field("fingerprint", &self.fingerprint())
            .finish()
    }
}

pub(super) fn fingerprint(der: &[u8]) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Fingerprint(bytes)
}
