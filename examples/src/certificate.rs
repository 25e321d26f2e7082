//! A certificate to try things out with.

use std::path::Path;

use hbi::{Address, Options, Scheme, tls::ServerTls};

/// Options to serve an address with: where it needs a certificate, with one that is signed by itself
/// and kept in the folder. The server's own address then has the fingerprint in it.
///
/// # Errors
/// When the address cannot be parsed, or the certificate not be kept.
pub fn options(address: &str, folder: &Path) -> hbi::Result<Options> {
    let options = Options::new();
    Ok(match address.parse::<Address>()?.scheme() {
        Scheme::Tls(_) => {
            let file = folder.join("certificate.pem");
            options.server_tls(ServerTls::self_signed(file, &["localhost"])?)
        }
        _ => options,
    })
}
