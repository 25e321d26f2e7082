//! The certificate that a server shows, which can be read anew while it serves.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Shown, certificate, misconfigured, provider};
use crate::{Error, Fingerprint};

/// A certificate of two files, as it was read last.
#[derive(Debug)]
pub(super) struct Showing {
    chain: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Showing {
    pub(super) fn read(chain: PathBuf, key: PathBuf) -> Result<Self, Error> {
        let current = RwLock::new(certified(&chain, &key)?);
        Ok(Self {
            chain,
            key,
            current,
        })
    }

    /// Reads the files again. Where that fails the certificate stays as it is.
    pub(super) fn reload(&self) -> Result<(), Error> {
        let new = certified(&self.chain, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        certificate::fingerprint(&self.current().cert[0])
    }
}

/// Certificate and key of two files, which belong together.
fn certified(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let Shown { chain, key } = Shown::read(chain.to_owned(), key.to_owned())?;
    let certified = CertifiedKey::from_der(chain, key, &provider());
    Ok(Arc::new(certified.map_err(|error| misconfigured(&error))?))
}

impl ResolvesServerCert for Showing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}
