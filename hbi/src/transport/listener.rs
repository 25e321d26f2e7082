//! Listening for connections.

use std::{io, path::PathBuf};

use tokio::net::TcpListener;

use super::{Address, Scheme, Stream, mem::MemListener};
use crate::{Error, Kind};

/// Takes connections to one address.
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: tokio::net::UnixListener,
        _file: SocketFile,
    },
    Mem(MemListener),
}

/// The file of a Unix socket, removed when its listener is gone.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // gone already is as good
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens; returns the address it is reached at, which says the port where 0 was asked for.
    pub(crate) async fn bind(address: &Address) -> Result<(Self, Address), Error> {
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
            #[cfg(unix)]
            Scheme::Unix(path) => {
                let listener = bind_unix(path).await.map_err(failed)?;
                let _file = SocketFile(path.clone());
                Ok((Listener::Unix { listener, _file }, address.clone()))
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
    pub(crate) async fn accept(&mut self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => Stream::tcp(listener.accept().await?.0),
            #[cfg(unix)]
            Listener::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0)),
            Listener::Mem(listener) => Ok(Stream::Mem(listener.accept().await?)),
        }
    }
}

/// Binds a Unix socket; the file of a server that is gone does not stand in the way.
#[cfg(unix)]
async fn bind_unix(path: &std::path::Path) -> io::Result<tokio::net::UnixListener> {
    match tokio::net::UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
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
