//! Who is calling: what a peer shows of itself, and what the application makes of it.

use std::{any::Any, fmt, sync::Arc};

use bytes::Bytes;
use subtle::ConstantTimeEq;

use crate::{Result, endpoint::BoxFuture};

/// What the application knows of who a peer is.
pub(crate) type Identity = Arc<dyn Any + Send + Sync>;

/// What a peer shows of itself when it connects, before anything of it lands; see
/// [`Options::authenticate`](crate::Options::authenticate).
#[derive(Debug, Clone)]
pub struct Credentials {
    pub(super) address: String,
    pub(super) token: Token,
    #[cfg(feature = "tls")]
    pub(super) certificate: Option<crate::tls::Certificate>,
}

impl Credentials {
    /// The peer's address, as its transport knows it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The token it has sent ([`Options::token`](crate::Options::token)); empty where it sent none.
    ///
    /// Compare it with [`token_is`](Self::token_is), not with `==`, which takes longer the more of it is
    /// right.
    pub fn token(&self) -> &[u8] {
        &self.token.0
    }

    /// Whether the token is this one, and not empty. How long that takes depends on the lengths only.
    pub fn token_is(&self, expected: &[u8]) -> bool {
        !expected.is_empty() && bool::from(self.token.0.ct_eq(expected))
    }

    /// The certificate it has shown, verified already against the authorities that the server trusts;
    /// see [`ServerTls::require_clients`](crate::tls::ServerTls::require_clients).
    #[cfg(feature = "tls")]
    pub fn certificate(&self) -> Option<&crate::tls::Certificate> {
        self.certificate.as_ref()
    }
}

/// A token, which no log may show.
#[derive(Clone, Default)]
pub(super) struct Token(pub(super) Bytes);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// The application's check of credentials.
#[derive(Clone)]
pub(super) struct Authenticate(
    pub(super) Arc<dyn Fn(Credentials) -> BoxFuture<Result<Identity>> + Send + Sync>,
);

impl fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticate")
    }
}

impl Authenticate {
    pub(super) fn new<F, R, I>(check: F) -> Self
    where
        F: Fn(Credentials) -> R + Send + Sync + 'static,
        R: Future<Output = Result<I>> + Send + 'static,
        I: Send + Sync + 'static,
    {
        Self(Arc::new(move |credentials| {
            let checked = check(credentials);
            Box::pin(async move { Ok(Arc::new(checked.await?) as Identity) })
        }))
    }
}
