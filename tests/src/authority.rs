//! An authority that vouches for certificates, servers that somebody is let into, and what the others
//! are told.

use std::path::{Path, PathBuf};

use hbi::{
    Connection, Error, HostingEnv, Options, Server,
    tls::{ClientTls, ServerTls},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer,
    KeyPair,
};
use tempfile::TempDir;

/// An authority, and the files of what it vouches for.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One with a name of its own.
    #[expect(clippy::new_without_default, reason = "it makes keys and writes files")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().display().to_string();
        Self::made(folder, &name)
    }

    /// One of this name.
    pub fn named(name: &str) -> Self {
        Self::made(tempfile::tempdir().unwrap(), name)
    }

    fn made(folder: TempDir, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of its own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The files of a certificate and its key.
    pub fn issue(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (
            self.folder.path().join(format!("{name}.pem")),
            self.folder.path().join(format!("{name}.key")),
        );
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    /// A server with a certificate for this name.
    pub fn server(&self, name: &str) -> ServerTls {
        let (chain, key) = self.issue(name, |_| {});
        ServerTls::files(chain, key).unwrap()
    }

    /// A client that trusts it, and nobody else.
    pub fn trusted(&self) -> ClientTls {
        ClientTls::new().ca_file(self.file()).unwrap()
    }
}

/// A server of one function.
pub async fn serve(options: Options, address: &str) -> Server {
    let factory = |_peer| async { Ok(HostingEnv::new().function("one", || 1)) };
    options.serve(address, factory).await.unwrap()
}

/// Checks that a peer is taken, and is not taken before it lands.
pub async fn works(peer: &Connection) {
    let one: i64 = peer.script("one()").await.unwrap();
    assert_eq!(one, 1);
}

/// Checks that an error has these parts.
pub fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
