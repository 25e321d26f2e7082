//! Listening for connections.

#[cfg(unix)]
use std::path::{Path, PathBuf};
#[cfg(feature = "quic")]
use std::sync::Arc;
use std::{io, net::IpAddr};

use tokio::net::{TcpListener, TcpStream};

use super::{
    Address, Insecure, Scheme, Secured, Stream, TlsOptions, mem::MemListener, secure::ServerConfig,
};
use crate::{Error, Kind, wire::mux::Settings};

/// Takes connections to one address.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, ServerConfig),
    #[cfg(feature = "quic")]
    Quic(super::quic::Accepting),
    #[cfg(unix)]
    Unix {
        /// Removed before nobody listens there: who then finds it would take it for a stale one, and put
        /// its own in its place.
        _file: SocketFile,
        listener: tokio::net::UnixListener,
    },
    Mem(MemListener),
}

/// The file of a Unix socket, removed when it is dropped, unless another was put in its place.
#[cfg(unix)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

#[cfg(unix)]
impl SocketFile {
    fn at(path: PathBuf) -> io::Result<Self> {
        let id = Self::id(&path)?;
        Ok(Self { path, id })
    }

    /// What tells files apart, wherever they are: a device, and a number there.
    fn id(path: &Path) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::symlink_metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::id(&self.path).is_ok_and(|id| id == self.id) {
            // gone already is as good
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Listens; returns the address it is reached at, which says the port where 0 was asked for.
    pub(crate) async fn bind(
        address: &Address,
        tls: &TlsOptions,
        settings: &Settings,
    ) -> Result<(Self, Address), Error> {
        #[cfg(not(feature = "quic"))]
        let _ = settings;
        let failed = |error: io::Error| {
            Error::new(
                Kind::Address,
                format!("cannot listen at {address}: {error}"),
            )
        };
        match address.scheme() {
            Scheme::Tcp(host) => {
                let listener = TcpListener::bind(host).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Ok((
                    Listener::Tcp(listener),
                    address.at(Scheme::Tcp(bound.to_string())),
                ))
            }
            Scheme::Tls(secured) => {
                let config = tls.serving(address, secured)?;
                let listener = TcpListener::bind(&secured.host).await.map_err(failed)?;
                let host = listener.local_addr().map_err(failed)?.to_string();
                let pin = tls.pin();
                Ok((
                    Listener::Tls(listener, config),
                    address.at(Scheme::Tls(Secured { host, pin })),
                ))
            }
            #[cfg(feature = "quic")]
            Scheme::Quic(secured) => {
                let config = tls.serving_quic(address, secured)?;
                let found = tokio::net::lookup_host(&secured.host).await;
                let mut endpoint = Err(io::ErrorKind::NotFound.into());
                // a machine may lack a family that the name has
                for at in found.map_err(failed)? {
                    endpoint = super::quic::listen(at, Arc::clone(&config), settings, tls);
                    if endpoint.is_ok() {
                        break;
                    }
                }
                let endpoint = endpoint.map_err(failed)?;
                let host = endpoint.local_addr().map_err(failed)?.to_string();
                let pin = tls.pin();
                Ok((
                    Listener::Quic(super::quic::Accepting::new(
                        endpoint,
                        tls.zero_rtt.is_some(),
                    )),
                    address.at(Scheme::Quic(Secured { host, pin })),
                ))
            }
            #[cfg(not(feature = "quic"))]
            Scheme::Quic(_) => Err(super::without_quic(address)),
            #[cfg(unix)]
            Scheme::Unix(path) => {
                let listener = bind_unix(path).await.map_err(failed)?;
                let _file = SocketFile::at(path.clone()).map_err(failed)?;
                Ok((Listener::Unix { _file, listener }, address.clone()))
            }
            #[cfg(not(unix))]
            Scheme::Unix(_) => Err(failed(io::ErrorKind::Unsupported.into())),
            Scheme::Mem(name) => Ok((
                Listener::Mem(MemListener::bind(name).map_err(failed)?),
                address.clone(),
            )),
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> io::Result<Arrived> {
        Ok(match self {
            Listener::Tcp(listener) => Arrived::Ready(Stream::tcp(listener.accept().await?.0)?),
            Listener::Tls(listener, config) => {
                let stream = listener.accept().await?.0;
                Arrived::Plain(stream, config.clone())
            }
            #[cfg(feature = "quic")]
            Listener::Quic(accepting) => Arrived::Quic(Box::new(accepting.accept().await?)),
            #[cfg(unix)]
            Listener::Unix { listener, .. } => {
                Arrived::Ready(Stream::Unix(listener.accept().await?.0))
            }
            Listener::Mem(listener) => Arrived::Ready(Stream::Mem(listener.accept().await?)),
        })
    }
}

/// A connection that was accepted.
pub(crate) enum Arrived {
    /// Ready to be talked over.
    Ready(Stream),
    /// To be secured first.
    Plain(TcpStream, ServerConfig),
    /// To shake hands with first.
    #[cfg(feature = "quic")]
    Quic(Box<super::quic::Shaking>),
}

/// Who is limited together: an address, or a user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// An IPv4 address, or the 64 bits of an IPv6 address that name a network.
    Network(IpAddr),
    /// A user of this machine.
    #[cfg(unix)]
    User(u32),
}

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        Source::Network(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                IpAddr::V6(network.into())
            }
            address => address,
        })
    }
}

impl Arrived {
    /// Whom it comes from; nobody in particular within this process.
    pub(crate) fn source(&self) -> Option<Source> {
        match self {
            Arrived::Ready(Stream::Tcp(stream)) | Arrived::Plain(stream, _) => {
                Some(Source::of(stream.peer_addr().ok()?.ip()))
            }
            #[cfg(feature = "quic")]
            Arrived::Quic(shaking) => Some(Source::of(shaking.from())),
            #[cfg(unix)]
            Arrived::Ready(Stream::Unix(stream)) => {
                Some(Source::User(stream.peer_cred().ok()?.uid()))
            }
            Arrived::Ready(_) => None,
        }
    }

    /// The stream, secured where it has to be.
    pub(crate) async fn secure(self) -> Result<Stream, Insecure> {
        match self {
            Arrived::Ready(stream) => Ok(stream),
            Arrived::Plain(stream, config) => Stream::secured(stream, &config).await,
            #[cfg(feature = "quic")]
            Arrived::Quic(shaking) => {
                let quic = shaking.accept().await?;
                Ok(Stream::Quic(Box::new(quic)))
            }
        }
    }
}

/// Binds a Unix socket; the file of a server that is gone does not stand in the way.
#[cfg(unix)]
async fn bind_unix(path: &Path) -> io::Result<tokio::net::UnixListener> {
    match tokio::net::UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            use std::os::unix::fs::FileTypeExt;
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                let text = "there is a file of that name that is no socket";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            match tokio::net::UnixStream::connect(path).await {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    tokio::net::UnixListener::bind(path)
                }
                _ => Err(error),
            }
        }
        bound => bound,
    }
}
