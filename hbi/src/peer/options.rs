//! How connections are made and served.

use std::{sync::Arc, time::Duration};

use super::{
    Connection, Peer, Server,
    connection::{Started, start},
};
use crate::{
    Address, Error, HostingEnv, Result,
    transport::{ByteStream, Listener, Stream, dial},
    wire::mux::Settings,
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
    pub(super) connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            deadline: None,
            trace: false,
            handshake: Duration::from_secs(10),
            connections: 10_000,
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

    /// How long the peer may take until both sides know each other. By default 10 s.
    pub fn handshake(mut self, time: Duration) -> Self {
        self.handshake = time;
        self
    }

    /// How many connections a server takes at once. By default 10,000; one more waits until another
    /// is gone.
    pub fn connections(mut self, limit: usize) -> Self {
        self.connections = limit.max(1);
        self
    }

    /// Connects to a peer; see [`connect`].
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect(&self, address: impl AsRef<str>, env: HostingEnv) -> Result<Connection> {
        let address: Address = address.as_ref().parse()?;
        let stream = tokio::time::timeout(self.handshake, dial(&address))
            .await
            .map_err(|_| {
                Error::new(
                    crate::Kind::Address,
                    format!(
                        "cannot reach {address}: no answer within {:?}",
                        self.handshake
                    ),
                )
            })??;
        self.join(stream, env).await
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
        self.join(Stream::Other(Box::new(stream)), env).await
    }

    /// Talks over a stream of a known kind.
    pub(crate) async fn join(&self, stream: Stream, env: HostingEnv) -> Result<Connection> {
        let (env, hooks) = env.build()?;
        let Started { link, driver, .. } = start(self, stream);
        driver.spawn(env, hooks);
        let connection = Connection::new(link);
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
        let (listener, bound) = Listener::bind(&address).await?;
        Ok(Server::start(
            self.clone(),
            listener,
            bound,
            Arc::new(factory),
        ))
    }
}
