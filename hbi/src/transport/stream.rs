//! Connected byte streams.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

/// Bytes the kernel may hold unsent: more would keep small messages waiting behind bulk.
const UNSENT: u32 = 128 << 10;

/// A byte stream of any kind that is not known here.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// A connected byte stream.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
    /// What is read of it is the peer's control stream.
    #[cfg(feature = "quic")]
    Quic(Box<super::Quic>),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    Mem(DuplexStream),
    Other(Box<dyn ByteStream>),
}

impl Stream {
    /// A TCP stream, told to send without delay.
    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        Self::tuned(stream).map(Stream::Tcp)
    }

    pub(super) fn tuned(stream: TcpStream) -> io::Result<TcpStream> {
        stream.set_nodelay(true)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // one that cannot be told so still works
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        Ok(stream)
    }

    /// The certificate that the peer has shown.
    #[cfg(feature = "tls")]
    pub(crate) fn certificate(&self) -> Option<super::tls::Certificate> {
        match self {
            Stream::Tls(stream) => {
                super::tls::Certificate::of_peer(stream.get_ref().1.peer_certificates())
            }
            #[cfg(feature = "quic")]
            Stream::Quic(quic) => quic.certificate(),
            _ => None,
        }
    }

    /// The addresses of the peer and of this side, as far as there are any.
    pub(crate) fn addresses(&self) -> (String, String) {
        let shown = |address: io::Result<std::net::SocketAddr>| {
            address.map_or_else(|_| "unknown".to_owned(), |address| address.to_string())
        };
        match self {
            Stream::Tcp(stream) => (shown(stream.peer_addr()), shown(stream.local_addr())),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => {
                let stream = stream.get_ref().0;
                (shown(stream.peer_addr()), shown(stream.local_addr()))
            }
            #[cfg(feature = "quic")]
            Stream::Quic(quic) => quic.addresses(),
            #[cfg(unix)]
            Stream::Unix(stream) => {
                let path = |address: io::Result<tokio::net::unix::SocketAddr>| {
                    let path = address
                        .ok()
                        .and_then(|a| a.as_pathname().map(|p| p.to_owned()));
                    path.map_or_else(|| "unix".to_owned(), |path| path.display().to_string())
                };
                (path(stream.peer_addr()), path(stream.local_addr()))
            }
            Stream::Mem(_) => ("memory".to_owned(), "memory".to_owned()),
            Stream::Other(_) => ("unknown".to_owned(), "unknown".to_owned()),
        }
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $do:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $do,
            #[cfg(feature = "tls")]
            Stream::Tls($stream) => $do.map_err(super::secure::explained),
            #[cfg(feature = "quic")]
            Stream::Quic($stream) => $do,
            #[cfg(unix)]
            Stream::Unix($stream) => $do,
            Stream::Mem($stream) => $do,
            Stream::Other($stream) => $do,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
