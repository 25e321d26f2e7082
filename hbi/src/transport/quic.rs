//! QUIC: endpoints, the handshake of each side, and the control stream that comes first.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use quinn::{
    AckFrequencyConfig, Connection, ConnectionError, Endpoint, IdleTimeout, RecvStream, TokenStore,
    TransportConfig, TransportErrorCode, VarInt, ZeroRttAccepted,
    congestion::BbrConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Insecure, Remembered, TlsOptions, early, tls};
use crate::wire::{mux::Settings, quic::StreamKind};

/// Streams of each kind that a peer may have open at first. QUIC keeps something for each that may be
/// open, so the driver allows more only as they are used.
pub(crate) const FIRST_STREAMS: u32 = 64;

/// Bytes that are taken of a peer before it is known.
const STRANGER: u64 = 64 << 10;

/// Handshakes that may be under way with clients who have not shown that their address is theirs.
const UNPROVEN: usize = 64;

/// Bytes that are kept of all together who wait to be taken at all.
const WAITING: u64 = 4 << 20;

/// How fast a side sends over QUIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// Slows down when packets are lost, as TCP does: fair to others, and slow on ways that lose packets
    /// for other reasons, such as wireless ones.
    #[default]
    Cubic,
    /// Sends as fast as packets arrive, and leaves room for small messages beside bulk where packets get
    /// lost. quinn calls its implementation experimental: it may crowd out others.
    Bbr,
}

/// A connection whose handshake is done, or which did not wait for it. What is read of it is the
/// peer's control stream.
pub(crate) struct Quic {
    pub(crate) conn: Connection,
    /// The endpoint, where it serves this connection only.
    pub(crate) endpoint: Option<Endpoint>,
    /// The server at the other end, where it is to be remembered.
    pub(crate) remembered: Option<Arc<Remembered>>,
    /// Its handshake is under way: what is sent goes in the first flight.
    pub(crate) first: Option<First>,
    /// Ready when the handshake is over, where a server did not wait for that.
    pub(crate) shaken: Option<ZeroRttAccepted>,
    control: Control,
    /// Counts as a handshake that is under way.
    _under_way: Option<Arc<()>>,
}

/// The first flight of a client.
pub(crate) struct First {
    /// What the server takes, as it told last time.
    pub(crate) settings: Settings,
    /// Whether the server took what was sent, once that is known.
    pub(crate) accepted: ZeroRttAccepted,
}

/// The peer's control stream.
enum Control {
    Accepting(Pin<Box<dyn Future<Output = Result<RecvStream, ConnectionError>> + Send>>),
    Open(RecvStream),
}

impl Quic {
    fn new(conn: Connection, endpoint: Option<Endpoint>) -> Self {
        let accepting = conn.clone();
        let control = Control::Accepting(Box::pin(async move {
            let mut stream = accepting.accept_uni().await?;
            let first = stream.read_chunk(1, true).await;
            match first {
                Ok(Some(first)) if first.bytes[..] == [StreamKind::Control.to_byte()] => Ok(stream),
                _ => Err(ConnectionError::LocallyClosed),
            }
        }));
        Self {
            conn,
            endpoint,
            remembered: None,
            first: None,
            shaken: None,
            control,
            _under_way: None,
        }
    }

    /// The addresses of the peer and of this side.
    pub(super) fn addresses(&self) -> (String, String) {
        let own = match (&self.endpoint, self.conn.local_ip()) {
            (_, Some(ip)) => ip.to_string(),
            (Some(endpoint), None) => endpoint
                .local_addr()
                .map_or_else(|_| "unknown".to_owned(), |address| address.to_string()),
            (None, None) => "unknown".to_owned(),
        };
        (self.conn.remote_address().to_string(), own)
    }

    /// The certificate that the peer has shown.
    pub(super) fn certificate(&self) -> Option<tls::Certificate> {
        let shown = self.conn.peer_identity()?;
        let chain: Box<Vec<rustls::pki_types::CertificateDer<'static>>> = shown.downcast().ok()?;
        tls::Certificate::of_peer(Some(&chain))
    }

    /// The control stream, if reading it has begun.
    pub(crate) fn into_control(self) -> (Connection, Option<Endpoint>, Option<RecvStream>) {
        let control = match self.control {
            Control::Open(stream) => Some(stream),
            Control::Accepting(_) => None,
        };
        (self.conn, self.endpoint, control)
    }
}

impl AsyncRead for Quic {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut self.control {
                Control::Accepting(accepting) => match ready!(accepting.as_mut().poll(cx)) {
                    Ok(stream) => self.control = Control::Open(stream),
                    Err(ConnectionError::LocallyClosed) => {
                        let text = "the peer's first stream is no control stream";
                        return Poll::Ready(Err(io::Error::other(text)));
                    }
                    Err(error) => return Poll::Ready(Err(error.into())),
                },
                Control::Open(stream) => {
                    let read = pin!(stream.read_chunk(buf.remaining(), true)).poll(cx);
                    let chunk = ready!(read)?.map_or(Bytes::new(), |chunk| chunk.bytes);
                    buf.put_slice(&chunk);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Nobody writes here: this side's control stream is its driver's to open.
impl AsyncWrite for Quic {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What QUIC itself is told of this side's limits.
fn transport(settings: &Settings, congestion: Congestion) -> Arc<TransportConfig> {
    let settings = settings.clone().clamped();
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(settings.conversations.min(FIRST_STREAMS).into())
        .max_concurrent_uni_streams(FIRST_STREAMS.into())
        .stream_receive_window(settings.window.into())
        .receive_window(held(settings.held.min(STRANGER)))
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(acknowledged_soon()))
        .keep_alive_interval(Some(settings.keep_alive))
        // one that is too long to be told is none
        .max_idle_timeout(IdleTimeout::try_from(settings.idle_timeout).ok());
    if congestion == Congestion::Bbr {
        config.congestion_controller_factory(Arc::new(BbrConfig::default()));
    }
    Arc::new(config)
}

/// How soon the peer acknowledges what comes alone: QUIC's own 25 ms are long beside a call. Until
/// then a lost packet is not missed, and a stream that is done with still counts as open.
const ACKNOWLEDGED: Duration = Duration::from_millis(2);

fn acknowledged_soon() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.max_ack_delay(Some(ACKNOWLEDGED));
    config
}

fn held(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).unwrap_or(VarInt::MAX)
}

/// The peer is known: from now on what waits in one stream does not hold up another, since each has
/// its own window, and all together as much as this side holds.
pub(crate) fn known(conn: &Connection, settings: &Settings) {
    conn.set_receive_window(held(settings.held));
}

/// Listens at an address.
pub(super) fn listen(
    address: SocketAddr,
    config: Arc<rustls::ServerConfig>,
    settings: &Settings,
    options: &TlsOptions,
) -> io::Result<Endpoint> {
    let tls = QuicServerConfig::try_from(config).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(transport(settings, options.congestion))
        .migration(options.migration)
        .incoming_buffer_size(STRANGER)
        .incoming_buffer_size_total(WAITING);
    if options.zero_rtt.is_some() {
        config.validation_token_config(early::address_tokens());
    }
    Endpoint::server(config, address)
}

/// Connects to an address; `name` is what the certificate has to be for. Where the server is
/// remembered, and was at this address, its answer is not waited for.
pub(super) async fn connect(
    address: SocketAddr,
    name: String,
    tls: Arc<rustls::ClientConfig>,
    settings: &Settings,
    congestion: Congestion,
    remembered: Option<Arc<Remembered>>,
) -> io::Result<Quic> {
    let tls = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(settings, congestion));
    let mut last = None;
    if let Some(server) = &remembered {
        config.token_store(Arc::clone(&server.tokens) as Arc<dyn TokenStore>);
        last = server.last().filter(|(at, _)| *at == address);
    }
    let any = match address {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let any = any.parse().map_err(io::Error::other)?;
    let endpoint = Endpoint::client(any)?;
    let connecting = endpoint
        .connect_with(config, address, &name)
        .map_err(io::Error::other)?;
    let attempt = match last {
        Some((_, settings)) => connecting.into_0rtt().map(|early| (early, settings)),
        None => Err(connecting),
    };
    let (conn, first) = match attempt {
        Ok(((conn, accepted), settings)) => (conn, Some(First { settings, accepted })),
        // there is no session to resume
        Err(connecting) => (connecting.await.map_err(explained)?, None),
    };
    Ok(Quic {
        remembered,
        first,
        ..Quic::new(conn, Some(endpoint))
    })
}

/// Takes who comes to an endpoint.
pub(crate) struct Accepting {
    endpoint: Endpoint,
    /// Whether calls may come in the first flight.
    zero_rtt: bool,
    /// Held once more by each handshake that is under way.
    under_way: Arc<()>,
}

impl Accepting {
    pub(super) fn new(endpoint: Endpoint, zero_rtt: bool) -> Self {
        Self {
            endpoint,
            zero_rtt,
            under_way: Arc::new(()),
        }
    }

    /// The next that comes. Anybody can write another's address on a packet: while many handshakes are
    /// under way, only those are taken that have shown that they receive what is sent to theirs.
    pub(super) async fn accept(&mut self) -> io::Result<Shaking> {
        loop {
            let incoming = self.endpoint.accept().await;
            let incoming = incoming.ok_or(io::ErrorKind::NotConnected)?;
            let many = Arc::strong_count(&self.under_way) > UNPROVEN;
            if many && !incoming.remote_address_validated() && incoming.may_retry() {
                // it was asked whether it may
                let _ = incoming.retry();
                continue;
            }
            return Ok(Shaking {
                incoming,
                zero_rtt: self.zero_rtt,
                under_way: Arc::clone(&self.under_way),
            });
        }
    }
}

/// A client that wants to shake hands.
pub(crate) struct Shaking {
    incoming: quinn::Incoming,
    zero_rtt: bool,
    under_way: Arc<()>,
}

impl Shaking {
    pub(super) fn from(&self) -> IpAddr {
        self.incoming.remote_address().ip()
    }

    /// Lets it know that it is not taken.
    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    /// A server's handshake. Its end is not waited for where something can be read before: that is in
    /// the first flight of who resumes a session, and has shown that the address it writes on its
    /// packets is its own.
    pub(super) async fn accept(self) -> Result<Quic, Insecure> {
        let failed = |error: ConnectionError| match &error {
            ConnectionError::TransportError(failed) if is_certificate(failed.code) => {
                Insecure::Client(explained(error).to_string())
            }
            _ => Insecure::Failed(explained(error).to_string()),
        };
        let early = self.zero_rtt && self.incoming.remote_address_validated();
        let connecting = self.incoming.accept().map_err(failed)?;
        let connecting = match early {
            true => connecting.into_0rtt(),
            false => Err(connecting),
        };
        match connecting {
            Ok((conn, shaken)) => Ok(Quic {
                shaken: Some(shaken),
                _under_way: Some(self.under_way),
                ..Quic::new(conn, None)
            }),
            Err(connecting) => Ok(Quic::new(connecting.await.map_err(failed)?, None)),
        }
    }
}

/// QUIC's codes for failed handshakes are TLS alerts from here on.
const CRYPTO: u64 = 0x100;

fn alert(code: TransportErrorCode) -> Option<rustls::AlertDescription> {
    let code = u64::from(code).checked_sub(CRYPTO)?;
    Some(u8::try_from(code).ok()?.into())
}

/// Whether a handshake failed over a certificate.
fn is_certificate(code: TransportErrorCode) -> bool {
    use rustls::AlertDescription as A;
    matches!(
        alert(code),
        Some(
            A::BadCertificate
                | A::CertificateExpired
                | A::CertificateRequired
                | A::CertificateRevoked
                | A::CertificateUnknown
                | A::DecryptError
                | A::UnknownCA
                | A::UnsupportedCertificate
        )
    )
}

/// Whether a connection ended in its handshake, over who the peers are.
pub(crate) fn is_handshake(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::TransportError(failed) => alert(failed.code).is_some(),
        ConnectionError::ConnectionClosed(closed) => alert(closed.error_code).is_some(),
        _ => false,
    }
}

/// A failed handshake in words, of a kind as [`tls::meaning`] has them.
pub(crate) fn explained(error: ConnectionError) -> io::Error {
    let text = match &error {
        ConnectionError::TransportError(failed) => match alert(failed.code) {
            Some(rustls::AlertDescription::NoApplicationProtocol) => {
                tls::explain(&rustls::Error::NoApplicationProtocol)
            }
            _ => failed.to_string(),
        },
        ConnectionError::ConnectionClosed(closed) => match alert(closed.error_code) {
            Some(alert) => tls::explain(&rustls::Error::AlertReceived(alert)),
            None if closed.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                tls::TURNED_AWAY.to_owned()
            }
            None => closed.to_string(),
        },
        ConnectionError::TimedOut => "the peer does not answer: is it a `quic://` address, and \
             does UDP pass?"
            .to_owned(),
        other => other.to_string(),
    };
    let told = match &error {
        ConnectionError::TransportError(failed) => alert(failed.code),
        ConnectionError::ConnectionClosed(closed) => alert(closed.error_code),
        ConnectionError::VersionMismatch => Some(rustls::AlertDescription::ProtocolVersion),
        _ => None,
    };
    let kind = told.and_then(tls::of_alert);
    io::Error::new(kind.unwrap_or(io::ErrorKind::ConnectionRefused), text)
}
