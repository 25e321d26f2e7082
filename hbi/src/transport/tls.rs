//! TLS: whom to trust, and the certificates to show. TLS 1.3 by rustls, with ring.
//!
//! A client trusts what the system trusts, or the authorities of a file, or the one certificate whose
//! fingerprint it knows; there is no way to trust just anybody. A server shows a certificate of files,
//! or one that it signed itself when it was first started.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::Fingerprint;
use crate::{Error, Kind};

mod certificate;
mod explain;
#[cfg(feature = "quic")]
pub(crate) mod noting;
mod pinned;
mod self_signed;
mod showing;

pub use certificate::Certificate;
pub use explain::explain;
#[cfg(feature = "quic")]
pub(crate) use explain::of_alert;
pub(crate) use explain::{TURNED_AWAY, meaning};
use pinned::Pinned;
use showing::Showing;

/// The protocol name (ALPN) of hbi over TLS.
pub const ALPN: &[u8] = b"hbi/1";

/// A certificate with the chain behind it, and its key.
#[derive(Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Shown {
    fn read(chain: PathBuf, key: PathBuf) -> Result<Self, Error> {
        Ok(Self {
            chain: certificates(&chain)?,
            key: PrivateKeyDer::from_pem_file(&key)
                .map_err(|error| unusable(&key, "private key", error))?,
        })
    }
}

impl Clone for Shown {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(file: &std::path::Path, what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Address,
        format!(
            "no {what} can be read from {}: {error}; it has to be a PEM file",
            file.display()
        ),
    )
}

fn misconfigured(error: &rustls::Error) -> Error {
    Error::new(Kind::Misuse, explain(error))
}

/// The certificates of a PEM file, at least one.
fn certificates(file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |error: &dyn std::fmt::Display| unusable(file, "certificate", error);
    let list = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(&error))?;
    if list.is_empty() {
        return Err(failed(&"there is none in it"));
    }
    Ok(list)
}

/// The authorities of a PEM file.
fn authorities(file: PathBuf) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&file)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(&file, "authority", error))?;
    }
    Ok(Arc::new(roots))
}

/// The authorities that this system trusts, read once: they are many files.
fn system(known: &OnceLock<Arc<RootCertStore>>) -> Result<Arc<RootCertStore>, Error> {
    if let Some(roots) = known.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // those that rustls cannot use stand beside many that it can
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = match found.errors.first() {
            Some(error) => format!(" ({error})"),
            None => String::new(),
        };
        return Err(Error::new(
            Kind::Address,
            format!(
                "this system has no trusted authorities{why}: install its package of CA \
                 certificates, or name a file with `ClientTls::ca_file`, or pin the server's \
                 certificate with `#sha256=...`"
            ),
        ));
    }
    Ok(Arc::clone(known.get_or_init(|| Arc::new(roots))))
}

/// Whom a client trusts.
#[derive(Debug, Clone)]
enum Trust {
    /// Whom the system trusts, once that was read.
    System(Arc<OnceLock<Arc<RootCertStore>>>),
    Authorities(Arc<RootCertStore>),
    Pin(Fingerprint),
}

impl Default for Trust {
    fn default() -> Self {
        Trust::System(Arc::default())
    }
}

/// TLS of a client: by default it trusts the authorities that the system trusts, as they are when it and
/// its clones are used first, and shows no certificate. See [`Options::client_tls`](crate::Options::client_tls).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ClientTls {
    trust: Trust,
    shown: Option<Shown>,
}

impl ClientTls {
    /// Trusts the authorities that the system trusts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities of a PEM file, and none beside them.
    ///
    /// # Errors
    /// When there are none in it.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Result<Self, Error> {
        self.trust = Trust::Authorities(authorities(file.into())?);
        Ok(self)
    }

    /// Trusts the one certificate with this fingerprint, whatever name, dates and issuer it has. A pin
    /// in an address does the same, and comes before what is set here.
    pub fn pin(mut self, fingerprint: Fingerprint) -> Self {
        self.trust = Trust::Pin(fingerprint);
        self
    }

    /// Shows a certificate (with its chain) to servers that ask for one: two PEM files.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn certificate(
        mut self,
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        self.shown = Some(Shown::read(chain.into(), key.into())?);
        Ok(self)
    }

    /// Reads whom the system trusts, where that is asked for and was not read yet, beside the runtime.
    pub(crate) async fn load(&self, pin: Option<Fingerprint>) {
        let Trust::System(known) = &self.trust else {
            return;
        };
        if pin.is_none() && known.get().is_none() {
            let known = Arc::clone(known);
            // that it failed shows where it is made use of
            let _ = tokio::task::spawn_blocking(move || system(&known).is_ok()).await;
        }
    }

    #[cfg(feature = "quic")]
    pub(crate) fn shows_certificate(&self) -> bool {
        self.shown.is_some()
    }

    /// The configuration for rustls, with the protocol names (ALPN) to offer.
    ///
    /// # Errors
    /// When the system trusts nobody, or certificate and key do not fit each other.
    pub fn config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
        self.config_with(alpn, self.verifier()?)
    }

    /// The same, with what keeps why a certificate was not taken.
    #[cfg(feature = "quic")]
    pub(crate) fn noting(
        &self,
        alpn: &[&[u8]],
    ) -> Result<(Arc<ClientConfig>, Arc<noting::Noting>), Error> {
        let noting = Arc::new(noting::Noting::new(self.verifier()?));
        let verifier = Arc::clone(&noting) as Arc<dyn ServerCertVerifier>;
        Ok((self.config_with(alpn, verifier)?, noting))
    }

    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let provider = provider();
        Ok(match &self.trust {
            Trust::Pin(pin) => Arc::new(Pinned::new(*pin, &provider)),
            Trust::System(known) => verifier(system(known)?, &provider)?,
            Trust::Authorities(roots) => verifier(Arc::clone(roots), &provider)?,
        })
    }

    fn config_with(
        &self,
        alpn: &[&[u8]],
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Arc<ClientConfig>, Error> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| misconfigured(&error))?
            // "dangerous" is what rustls calls any verifier that is not made by the builder itself
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.shown.clone() {
            None => builder.with_no_client_auth(),
            Some(Shown { chain, key }) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| misconfigured(&error))?,
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// The same, but trusting the certificate that an address pins, if it does.
    pub fn for_pin(&self, pin: Option<Fingerprint>) -> Self {
        match pin {
            Some(pin) => self.clone().pin(pin),
            None => self.clone(),
        }
    }
}

/// The name that a server's certificate has to be for, of `host:port`.
pub(crate) fn server_name(host: &str) -> std::io::Result<ServerName<'static>> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    // a zone says which way an address is, and is of this machine
    let name = name.split_once('%').map_or(name, |(name, _)| name);
    ServerName::try_from(name.to_owned()).map_err(|error| {
        let text = format!("`{name}` is no name that a certificate could be for: {error}");
        std::io::Error::new(std::io::ErrorKind::InvalidInput, text)
    })
}

fn verifier(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| Error::new(Kind::Address, error.to_string()))
}

/// What a server asks of its clients.
#[derive(Debug, Clone, Default)]
enum Ask {
    #[default]
    Nothing,
    Optional(Arc<RootCertStore>),
    Required(Arc<RootCertStore>),
}

/// TLS of a server: the certificate it shows, and what it asks of its clients. See
/// [`Options::server_tls`](crate::Options::server_tls).
///
/// Clones show one certificate: whoever keeps one can renew it while a server runs
/// ([`reload`](Self::reload)).
#[derive(Debug, Clone)]
#[must_use]
pub struct ServerTls {
    showing: Arc<Showing>,
    ask: Ask,
    /// No authority vouches for the certificate.
    own: bool,
}

impl ServerTls {
    /// Shows a certificate (with its chain): two PEM files.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together.
    pub fn files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, Error> {
        Ok(Self {
            showing: Arc::new(Showing::read(chain.into(), key.into())?),
            ask: Ask::default(),
            own: false,
        })
    }

    /// Reads the files again, where the certificate was renewed: who connects from now on to a server with
    /// this `ServerTls`, or a clone of it, is shown the new one. Connections that stand are not touched.
    ///
    /// ```no_run
    /// # async fn f() -> hbi::Result<()> {
    /// use hbi::{HostingEnv, Options, tls::ServerTls};
    ///
    /// let tls = ServerTls::files("chain.pem", "key.pem")?;
    /// let options = Options::new().server_tls(tls.clone());
    /// let server = options.serve("tls://0.0.0.0:3232", |_| async { Ok(HostingEnv::new()) }).await?;
    /// // whenever the files have changed
    /// tls.reload()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`files`](Self::files); the old certificate is shown on then.
    pub fn reload(&self) -> Result<(), Error> {
        self.showing.reload()
    }

    /// Shows a certificate that no authority vouches for: clients pin its [fingerprint](Self::fingerprint).
    /// It is made for these names, with its key, when the file is not there yet, and is read from the
    /// file from then on. Only the owner may read the file. [`Server::address`](crate::Server::address)
    /// has the pin in it.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn self_signed(file: impl Into<PathBuf>, names: &[&str]) -> Result<Self, Error> {
        let file = file.into();
        self_signed::ensure(&file, names)?;
        let mut made = Self::files(file.clone(), file)?;
        made.own = true;
        Ok(made)
    }

    #[cfg(feature = "quic")]
    pub(crate) fn asks_clients(&self) -> bool {
        !matches!(self.ask, Ask::Nothing)
    }

    /// What clients have to pin, where no authority vouches for the certificate.
    pub(crate) fn pin(&self) -> Option<Fingerprint> {
        self.own.then(|| self.fingerprint())
    }

    /// The fingerprint of the certificate, for clients to pin: `tls://host:port#sha256=<fingerprint>`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.showing.fingerprint()
    }

    /// Asks clients for a certificate that an authority of this PEM file vouches for, and takes none
    /// without.
    ///
    /// # Errors
    /// When there are no authorities in it.
    pub fn require_clients(mut self, ca_file: impl Into<PathBuf>) -> Result<Self, Error> {
        self.ask = Ask::Required(authorities(ca_file.into())?);
        Ok(self)
    }

    /// Asks clients for a certificate that an authority of this PEM file vouches for; those without
    /// one are taken, too.
    ///
    /// # Errors
    /// When there are no authorities in it.
    pub fn ask_clients(mut self, ca_file: impl Into<PathBuf>) -> Result<Self, Error> {
        self.ask = Ask::Optional(authorities(ca_file.into())?);
        Ok(self)
    }

    /// The configuration for rustls, with the protocol names (ALPN) it takes.
    ///
    /// # Errors
    /// When the authorities that clients are asked for are of no use.
    pub fn config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
        let provider = provider();
        let clients = |roots: &Arc<RootCertStore>| {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
        };
        let built = match &self.ask {
            Ask::Nothing => Ok(WebPkiClientVerifier::no_client_auth()),
            Ask::Optional(roots) => clients(roots).allow_unauthenticated().build(),
            Ask::Required(roots) => clients(roots).build(),
        };
        let clients: Arc<dyn ClientCertVerifier> =
            built.map_err(|error| Error::new(Kind::Address, error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| misconfigured(&error))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&self.showing) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_certificate_has_no_port_and_no_zone() {
        for (host, name) in [
            ("example.org:1", "example.org"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:1", "::1"),
            ("[fe80::1%2]:1", "fe80::1"),
        ] {
            assert_eq!(server_name(host).unwrap().to_str(), name);
        }
        let error = server_name("a b:1").unwrap_err().to_string();
        assert!(error.contains("`a b` is no name"), "{error}");
    }
}
