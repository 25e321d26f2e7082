//! TLS over TCP: what is configured for it, and the handshake of each side.

use std::io;
#[cfg(feature = "tls")]
use std::sync::Arc;

use tokio::net::TcpStream;

use super::{Address, Secured, Stream};
#[cfg(feature = "tls")]
use super::{Fingerprint, tls};
use crate::{Error, Kind};

/// What is configured for `tls://` and `quic://` addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsOptions {
    #[cfg(feature = "tls")]
    pub(crate) client: tls::ClientTls,
    /// It was said whom to trust, which means nothing where nobody shows who they are.
    #[cfg(feature = "tls")]
    pub(crate) secured_only: bool,
    #[cfg(feature = "tls")]
    pub(crate) server: Option<tls::ServerTls>,
    /// Whether a client may go on from another address.
    #[cfg(feature = "quic")]
    pub(crate) migration: bool,
    /// How fast this side sends over QUIC.
    #[cfg(feature = "quic")]
    pub(crate) congestion: super::Congestion,
    /// What is remembered of servers, where calls may go in the first flight.
    #[cfg(feature = "quic")]
    pub(crate) zero_rtt: Option<super::Memory>,
}

#[cfg(feature = "tls")]
pub(crate) type ClientConfig = Arc<rustls::ClientConfig>;
#[cfg(feature = "tls")]
pub(crate) type ServerConfig = Arc<rustls::ServerConfig>;

/// There is none without the feature.
#[cfg(not(feature = "tls"))]
#[derive(Debug)]
pub(crate) enum ClientConfig {}
/// There is none without the feature.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Clone)]
pub(crate) enum ServerConfig {}

/// Why a connection to a TLS port did not become a secured one.
#[cfg_attr(not(feature = "tls"), expect(dead_code))]
pub(crate) enum Insecure {
    /// The peer speaks something, but no TLS.
    Plain(Stream),
    /// The client's certificate is missing or not taken.
    Client(String),
    /// The handshake failed otherwise.
    Failed(String),
}

#[cfg(not(feature = "tls"))]
mod without {
    use super::*;

    fn missing(address: &Address) -> Error {
        let text = format!("{address}: build hbi with its feature `tls` to use this address");
        Error::new(Kind::Misuse, text)
    }

    impl TlsOptions {
        pub(crate) async fn connecting(
            &self,
            address: &Address,
            _secured: &Secured,
        ) -> Result<ClientConfig, Error> {
            Err(missing(address))
        }

        pub(crate) fn serving(
            &self,
            address: &Address,
            _secured: &Secured,
        ) -> Result<ServerConfig, Error> {
            Err(missing(address))
        }

        pub(crate) fn pin(&self) -> Option<super::super::Fingerprint> {
            None
        }
    }

    impl Stream {
        pub(crate) async fn tls(
            _stream: TcpStream,
            _secured: &Secured,
            config: ClientConfig,
        ) -> io::Result<Self> {
            match config {}
        }

        pub(crate) async fn secured(
            _stream: TcpStream,
            config: &ServerConfig,
        ) -> Result<Self, Insecure> {
            match *config {}
        }
    }
}

#[cfg(feature = "tls")]
mod with {
    use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

    use super::*;

    /// The first byte of a TLS connection: a handshake record.
    const HANDSHAKE: u8 = 0x16;

    impl TlsOptions {
        pub(crate) async fn connecting(
            &self,
            _address: &Address,
            secured: &Secured,
        ) -> Result<ClientConfig, Error> {
            self.client.load(secured.pin).await;
            self.client.for_pin(secured.pin).config(&[tls::ALPN])
        }

        /// For QUIC, whose handshake tells the number of what is wrong only.
        #[cfg(feature = "quic")]
        pub(crate) fn noting(
            &self,
            secured: &Secured,
        ) -> Result<(ClientConfig, Arc<tls::noting::Noting>), Error> {
            self.client.for_pin(secured.pin).noting(&[tls::ALPN])
        }

        /// What is known of a server, where calls may go in the first flight.
        #[cfg(feature = "quic")]
        pub(crate) fn remembered(
            &self,
            address: &Address,
            secured: &Secured,
        ) -> Result<Option<Arc<super::super::Remembered>>, Error> {
            let Some(memory) = &self.zero_rtt else {
                return Ok(None);
            };
            if self.client.shows_certificate() {
                let text = format!(
                    "{address}: `Options::zero_rtt` and a client's certificate exclude each other, \
                     since what comes in the first flight comes before the certificate: show a \
                     token, or leave 0-RTT off"
                );
                return Err(Error::new(Kind::Misuse, text));
            }
            memory.of(secured, || self.noting(secured)).map(Some)
        }

        /// As [`Self::serving`], for QUIC.
        #[cfg(feature = "quic")]
        pub(crate) fn serving_quic(
            &self,
            address: &Address,
            secured: &Secured,
        ) -> Result<ServerConfig, Error> {
            let config = self.serving(address, secured)?;
            if self.zero_rtt.is_none() {
                return Ok(config);
            }
            if self
                .server
                .as_ref()
                .is_some_and(tls::ServerTls::asks_clients)
            {
                let text = format!(
                    "cannot serve {address}: `Options::zero_rtt` and certificates of clients exclude \
                     each other, since what comes in the first flight comes before the certificate: \
                     ask for tokens (`Options::authenticate`), or leave 0-RTT off"
                );
                return Err(Error::new(Kind::Misuse, text));
            }
            let mut config = Arc::unwrap_or_clone(config);
            super::super::early::resumable(&mut config);
            Ok(Arc::new(config))
        }

        pub(crate) fn serving(
            &self,
            address: &Address,
            secured: &Secured,
        ) -> Result<ServerConfig, Error> {
            let failed = |why| Error::new(Kind::Address, format!("cannot serve {address} {why}"));
            let Some(server) = &self.server else {
                let why = "without a certificate: set one with `Options::server_tls`";
                return Err(failed(why.to_owned()));
            };
            let own = server.fingerprint();
            if secured.pin.is_some_and(|pin| pin != own) {
                return Err(failed(format!(
                    "with another certificate than the address pins: its fingerprint is {own}"
                )));
            }
            server.config(&[tls::ALPN])
        }

        /// What clients have to pin, where no authority vouches for the certificate.
        pub(crate) fn pin(&self) -> Option<Fingerprint> {
            self.server.as_ref().and_then(tls::ServerTls::pin)
        }
    }

    impl Stream {
        /// A client's handshake.
        pub(crate) async fn tls(
            stream: TcpStream,
            secured: &Secured,
            config: ClientConfig,
        ) -> io::Result<Self> {
            let stream = Self::tuned(stream)?;
            let name = tls::server_name(&secured.host)?;
            let connected = TlsConnector::from(config).connect(name, stream).await;
            let stream = connected.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => io::Error::new(error.kind(), tls::TURNED_AWAY),
                _ => explained(error),
            })?;
            if stream.get_ref().1.alpn_protocol() != Some(tls::ALPN) {
                let text = tls::explain(&rustls::Error::NoApplicationProtocol);
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
            Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
        }

        /// A server's handshake.
        pub(crate) async fn secured(
            stream: TcpStream,
            config: &ServerConfig,
        ) -> Result<Self, Insecure> {
            let failed = |error: io::Error| Insecure::Failed(error.to_string());
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(0) => {
                    let text = "the peer hung up before it said anything";
                    return Err(Insecure::Failed(text.to_owned()));
                }
                Ok(_) => {}
                Err(error) => return Err(failed(error)),
            }
            let stream = Self::tuned(stream).map_err(failed)?;
            if first != [HANDSHAKE] {
                return Err(Insecure::Plain(Stream::Tcp(stream)));
            }
            let accepted = TlsAcceptor::from(Arc::clone(config)).accept(stream).await;
            match accepted {
                Ok(stream) if stream.get_ref().1.alpn_protocol() != Some(tls::ALPN) => Err(
                    Insecure::Failed("the client did not ask for hbi".to_owned()),
                ),
                Ok(stream) => Ok(Stream::Tls(Box::new(TlsStream::Server(stream)))),
                Err(error) => {
                    use rustls::Error as E;
                    let client = matches!(
                        of_rustls(&error),
                        Some(E::InvalidCertificate(_) | E::NoCertificatesPresented)
                    );
                    let text = explained(error).to_string();
                    Err(if client {
                        Insecure::Client(text)
                    } else {
                        Insecure::Failed(text)
                    })
                }
            }
        }
    }

    fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
        error.get_ref()?.downcast_ref()
    }

    /// The same error in words. Of kind `PermissionDenied` where one of the two does not take the other's
    /// certificate, `Unsupported` where they speak different protocols.
    pub(crate) fn explained(error: io::Error) -> io::Error {
        let Some(found) = of_rustls(&error) else {
            return error;
        };
        let kind = tls::meaning(found).unwrap_or_else(|| error.kind());
        io::Error::new(kind, tls::explain(found))
    }
}

#[cfg(feature = "tls")]
pub(super) use with::explained;
