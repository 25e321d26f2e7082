//! How connections are made and served.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

#[cfg(feature = "tls")]
use super::identity::Identity;
use super::{
    Backoff, Connection, Credentials, Defences, Peer, Reconnect, Server,
    identity::{Authenticate, Token},
    wire::{Introduction, Started, start},
};
use crate::{
    Address, Error, HostingEnv, Result, Scheme,
    transport::{ByteStream, Listener, Stream, TlsOptions, dial},
    value::Dialect,
    wire::mux::{MAX_TOKEN, Settings},
};

/// Connects to a peer; `env` is what it finds on this side.
///
/// # Errors
/// When the address cannot be parsed or reached, the peer refuses or is no hbi peer, or names of the
/// environment are taken twice.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use hbi::HostingEnv;
/// let server = hbi::serve("mem://doc-connect", |_peer| async {
///     Ok(HostingEnv::new().function("double", |n: i64| n * 2))
/// }).await?;
/// let peer = hbi::connect("mem://doc-connect", HostingEnv::new()).await?;
/// let four: i64 = peer.script("double(n)").bind("n", 2).await?;
/// assert_eq!(four, 4);
/// # Ok::<(), hbi::Error>(()) }).unwrap();
/// ```
pub async fn connect(address: impl AsRef<str>, env: HostingEnv) -> Result<Connection> {
    Options::new().connect(address, env).await
}

/// Serves an address: `factory` makes the environment of each peer that connects. Where it fails the
/// peer is refused and told why ([`Error::refusal`]); calls made within it fail, the connection is not
/// up before it has come to its end.
///
/// # Errors
/// When the address cannot be parsed or listened at.
pub async fn serve<F, R>(address: impl AsRef<str>, factory: F) -> Result<Server>
where
    F: Fn(Peer) -> R + Send + Sync + 'static,
    R: Future<Output = Result<HostingEnv>> + Send + 'static,
{
    Options::new().serve(address, factory).await
}

/// How connections are made: limits, deadlines. One set of options makes any number of them.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(super) settings: Settings,
    pub(super) deadline: Option<Duration>,
    pub(super) trace: bool,
    pub(super) handshake: Duration,
    pub(super) dialect: Dialect,
    pub(super) defences: Defences,
    pub(super) token: Token,
    pub(super) authenticate: Option<Authenticate>,
    pub(super) tls: TlsOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            deadline: None,
            trace: false,
            handshake: Duration::from_secs(10),
            dialect: Dialect::Python,
            defences: Defences::default(),
            token: Token::default(),
            authenticate: None,
            tls: TlsOptions::default(),
        }
    }
}

impl Options {
    /// The defaults, which suit strangers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The limits of this side.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The deadline of calls that set none. By default there is none.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Gives each conversation a `tracing` span on this side, for as long as it lasts: `post` where it
    /// is begun here, `host` where the peer began it (target `hbi`, level `INFO`). By default there
    /// are none.
    ///
    /// Both have the fields `peer` (its address), `call` (what is called, where that is one call of a
    /// service, or hosted one call of anything), `trace_id` and `span_id` (W3C, in hex); `post` has
    /// `parent_id`, the span it was begun in, where there is one. The ids travel: the two spans of a
    /// conversation have the same, where both sides trace. A conversation that belongs to no trace
    /// yet begins one. Methods run within their `host` span. See [`TraceContext`](crate::TraceContext).
    pub fn trace(mut self, trace: bool) -> Self {
        self.trace = trace;
        self
    }

    /// How long it may take to reach a peer, and then until both sides know each other. By default 10 s
    /// each. What a server allows is in its [`Defences`].
    pub fn handshake(mut self, time: Duration) -> Self {
        self.handshake = time;
        self
    }

    /// What a server does against strangers.
    pub fn defences(mut self, defences: Defences) -> Self {
        self.defences = defences;
        self
    }

    /// By what this side wants to be known at servers: up to 4,096 bytes that they check before
    /// anything lands. It travels as it is: over `tcp://` whoever listens reads it, and can use it.
    pub fn token(mut self, token: impl Into<Bytes>) -> Self {
        self.token = Token(token.into());
        self
    }

    /// How a server finds out who a peer is, from the token or the certificate it shows. What `check`
    /// returns is [`Peer::identity`] in the factory and [`Caller::identity`](crate::Caller::identity) in
    /// methods. Where it fails the peer is told why, before the factory is asked and anything lands. How
    /// often an address may be refused ([`Error::refusal`]) is limited, and so is how long `check` may
    /// take ([`Defences`]). With any other error it is `check` that failed: that counts for nothing, and
    /// the peer may try again.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use hbi::{Error, HostingEnv, Options};
    /// struct User(&'static str);
    ///
    /// let server = Options::new()
    ///     .authenticate(|shown| async move {
    ///         match shown.token_is(b"open sesame") {
    ///             true => Ok(User("ali")),
    ///             false => Err(Error::refusal("who are you? send the token you were given")),
    ///         }
    ///     })
    ///     .serve("mem://doc-token", |peer| async move {
    ///         let &User(name) = peer.identity().expect("it was checked");
    ///         Ok(HostingEnv::new().function("whoami", move || name.to_owned()))
    ///     })
    ///     .await?;
    /// let refused = hbi::connect("mem://doc-token", HostingEnv::new()).await.unwrap_err();
    /// assert!(refused.is_refused());
    /// let options = Options::new().token(&b"open sesame"[..]);
    /// let peer = options.connect("mem://doc-token", HostingEnv::new()).await?;
    /// let name: String = peer.script("whoami()").await?;
    /// assert_eq!(name, "ali");
    /// # Ok::<(), hbi::Error>(()) }).unwrap();
    /// ```
    pub fn authenticate<F, R, I>(mut self, check: F) -> Self
    where
        F: Fn(Credentials) -> R + Send + Sync + 'static,
        R: Future<Output = Result<I>> + Send + 'static,
        I: Send + Sync + 'static,
    {
        self.authenticate = Some(Authenticate::new(check));
        self
    }

    /// Whom to trust at `tls://` and `quic://` addresses, and the certificate to show there. By default the
    /// authorities that the system trusts, and none. Who says so does not mean to talk unsecured:
    /// connecting to a `tcp://` address fails then ([`Kind::Misuse`](crate::Kind)).
    #[cfg(feature = "tls")]
    pub fn client_tls(mut self, tls: crate::tls::ClientTls) -> Self {
        self.tls.client = tls;
        self.tls.secured_only = true;
        // what one trust has let in is not resumed under another
        #[cfg(feature = "quic")]
        if let Some(memory) = &mut self.tls.zero_rtt {
            *memory = crate::transport::Memory::default();
        }
        self
    }

    /// The certificate to serve `tls://` and `quic://` addresses with.
    #[cfg(feature = "tls")]
    pub fn server_tls(mut self, tls: crate::tls::ServerTls) -> Self {
        self.tls.server = Some(tls);
        self
    }

    /// Lets a client of a `quic://` address go on from another address of its own, as a phone does that
    /// leaves one network for another. By default a server takes nothing from there: whom it has let in,
    /// and counts ([`Defences`]), stays where it was.
    #[cfg(feature = "quic")]
    pub fn migration(mut self, migration: bool) -> Self {
        self.tls.migration = migration;
        self
    }

    /// Lets calls go in the first packets of a connection to a `quic://` address (0-RTT), where the server
    /// was connected to before: such a [`connect`](Self::connect) returns at once, and a call is answered
    /// after one round trip instead of three. Only calls of methods that are all marked
    /// `#[hbi(idempotent)]` go so early, since who sees the packets may send them again, and they may
    /// land twice then; everything else waits until the server has answered, and a call that is sent
    /// meanwhile by [`Call::send`](crate::Call::send) until it is awaited. By default off. Both sides
    /// have to turn it on; at a server it says that its clients may.
    ///
    /// What is remembered of servers (64 at most) lives in these options and their clones, so that a
    /// [`Reconnect`] uses it, too. What `connect` would fail with, where the server is gone or refuses,
    /// the calls fail with instead. It cannot be had together with certificates of clients:
    /// connecting with one, or serving with
    /// [`ServerTls::ask_clients`](crate::tls::ServerTls::ask_clients) or
    /// [`require_clients`](crate::tls::ServerTls::require_clients), fails then.
    /// [`guide::quic`](crate::guide::quic) tells what can be sent again, and when.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use hbi::{HostingEnv, Options, tls::ServerTls};
    ///
    /// #[hbi::service]
    /// trait Prices {
    ///     #[hbi(idempotent)]
    ///     async fn of(&self, tea: String) -> u32;
    /// }
    ///
    /// struct Fixed;
    ///
    /// impl Prices for Fixed {
    ///     async fn of(&self, tea: String) -> u32 {
    ///         tea.len() as u32
    ///     }
    /// }
    ///
    /// # let file = std::env::temp_dir().join(format!("hbi-doc-early-{}.pem", std::process::id()));
    /// let tls = ServerTls::self_signed(&file, &["localhost"])?;
    /// let server = Options::new().server_tls(tls).zero_rtt(true);
    /// let server = server
    ///     .serve("quic://127.0.0.1:0", |_peer| async {
    ///         Ok(HostingEnv::new().service(PricesHost::new(Fixed)))
    ///     })
    ///     .await?;
    /// let client = Options::new().zero_rtt(true);
    /// for _ in 0..2 {
    ///     // the second time the call is in the first packet
    ///     let peer = client.connect(server.address().to_string(), HostingEnv::new()).await?;
    ///     assert_eq!(PricesStub::new(&peer).of("green").await?, 5);
    /// }
    /// # std::fs::remove_file(file).unwrap();
    /// # Ok::<(), hbi::Error>(()) }).unwrap();
    /// ```
    #[cfg(feature = "quic")]
    pub fn zero_rtt(mut self, zero_rtt: bool) -> Self {
        self.tls.zero_rtt = zero_rtt.then(crate::transport::Memory::default);
        self
    }

    /// How fast this side sends over `quic://`. By default [`Congestion::Cubic`](crate::Congestion).
    #[cfg(feature = "quic")]
    pub fn congestion(mut self, congestion: crate::Congestion) -> Self {
        self.tls.congestion = congestion;
        self
    }

    /// How values are spelt for peers of the text wire. By default [`Dialect::Python`], which Go peers
    /// read, too, where they expose the names that the two have in common.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Connects to a peer; see [`connect`].
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect(&self, address: impl AsRef<str>, env: HostingEnv) -> Result<Connection> {
        self.connect_to(&address.as_ref().parse()?, env).await
    }

    /// Connects to a peer.
    pub(super) async fn connect_to(
        &self,
        address: &Address,
        env: HostingEnv,
    ) -> Result<Connection> {
        let stream = tokio::time::timeout(self.handshake, dial(address, &self.tls, &self.settings))
            .await
            .map_err(|_| {
                Error::new(
                    crate::Kind::Address,
                    format!(
                        "cannot reach {address}: no answer within {:?}{}",
                        self.handshake,
                        match address.scheme() {
                            Scheme::Quic(_) => {
                                ", and UDP does not tell why: is the server up, does it serve \
                                 `quic://` at this port, and does UDP pass?"
                            }
                            _ => ": is the server up, and does a firewall let this pass?",
                        }
                    ),
                )
            })??;
        self.join(stream, address.is_text(), env).await
    }

    /// A client that connects now, and again whenever the connection is gone, until it is dropped;
    /// `env` makes what the peer finds on this side, once for each connection.
    ///
    /// # Errors
    /// When the address cannot be parsed. That it cannot be reached is no error, but a
    /// [`ReconnectState`](crate::ReconnectState).
    ///
    /// # Panics
    /// Outside of a tokio runtime: it spawns a task.
    pub fn reconnect<F>(
        &self,
        address: impl AsRef<str>,
        backoff: Backoff,
        env: F,
    ) -> Result<Reconnect>
    where
        F: FnMut() -> HostingEnv + Send + 'static,
    {
        let address = address.as_ref().parse()?;
        Ok(Reconnect::start(self.clone(), address, backoff, env))
    }

    /// Talks over a stream that is connected already.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn take(
        &self,
        stream: impl ByteStream + 'static,
        env: HostingEnv,
    ) -> Result<Connection> {
        let stream = Stream::Other(Box::new(stream));
        self.join(stream, false, env).await
    }

    /// Talks over a stream of a known kind.
    pub(crate) async fn join(
        &self,
        stream: Stream,
        text: bool,
        env: HostingEnv,
    ) -> Result<Connection> {
        let token = &self.token.0;
        if token.len() > MAX_TOKEN {
            let text = format!(
                "a token of {} bytes, at most {MAX_TOKEN} travel",
                token.len()
            );
            return Err(Error::new(crate::Kind::Misuse, text));
        }
        if text && !token.is_empty() {
            let text = "the text wire carries no token; connect without one, or over another wire";
            return Err(Error::new(crate::Kind::Misuse, text));
        }
        let (env, hooks) = env.build()?;
        let introduction = Introduction {
            token,
            #[cfg(feature = "tls")]
            identity: stream
                .certificate()
                .map(|shown| Arc::new(shown) as Identity),
            ..Introduction::default()
        };
        let Started { wire, driver } = start(self, stream, text, introduction);
        driver.spawn(env, hooks, ());
        let connection = Connection::new(wire);
        connection.ready(self.handshake).await?;
        Ok(connection)
    }

    /// Serves an address; see [`serve`].
    ///
    /// # Errors
    /// As [`serve`].
    pub async fn serve<F, R>(&self, address: impl AsRef<str>, factory: F) -> Result<Server>
    where
        F: Fn(Peer) -> R + Send + Sync + 'static,
        R: Future<Output = Result<HostingEnv>> + Send + 'static,
    {
        let address: Address = address.as_ref().parse()?;
        let (listener, bound) = Listener::bind(&address, &self.tls, &self.settings).await?;
        Ok(Server::start(
            self.clone(),
            listener,
            bound,
            Arc::new(factory),
        ))
    }
}
