//! A verifier that keeps why it did not take a certificate, for a handshake that tells its number only.

use std::sync::{Arc, Mutex};

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Verifies as another does, and keeps its error.
#[derive(Debug)]
pub(crate) struct Noting {
    inner: Arc<dyn ServerCertVerifier>,
    noted: Mutex<Option<Error>>,
}

impl Noting {
    pub(super) fn new(inner: Arc<dyn ServerCertVerifier>) -> Self {
        Self {
            inner,
            noted: Mutex::default(),
        }
    }

    /// Why a certificate was not taken, if one was not.
    pub(crate) fn noted(&self) -> Option<Error> {
        self.noted.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// A new handshake begins.
    pub(crate) fn begin(&self) {
        *self.noted.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }

    fn note<T>(&self, verified: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &verified {
            *self.noted.lock().unwrap_or_else(|e| e.into_inner()) = Some(error.clone());
        }
        verified
    }
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .inner
            .verify_server_cert(certificate, chain, name, ocsp, now);
        self.note(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self
            .inner
            .verify_tls12_signature(message, certificate, signature);
        self.note(verified)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self
            .inner
            .verify_tls13_signature(message, certificate, signature);
        self.note(verified)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
