//! Two peers, joined over one transport or another.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hbi::{HostingEnv, Options, tls::ServerTls};
use tokio::sync::mpsc;

use crate::work::{ConsumerHost, Event, MyConsumer, MyWork, Seen, WorkHost, WorkStub};

/// How the two peers are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In memory.
    Mem,
    /// TCP on loopback.
    Tcp,
    /// TLS over TCP on loopback, with a pinned certificate.
    Tls,
    /// QUIC on loopback, with a pinned certificate.
    Quic,
    /// The same, on a connection that does not wait for the server, which it knows (0-RTT).
    QuicEarly,
    /// The same, and the server was started anew: it takes nothing of what comes early.
    QuicAnew,
    /// A Unix socket.
    Unix,
}

/// A server of [`Work`](crate::work::Work), and one consumer connected to it.
#[derive(Debug)]
pub struct Pair {
    /// The server.
    pub server: hbi::Server,
    /// The consumer's connection.
    pub peer: hbi::Connection,
    /// The consumer's stub.
    pub work: WorkStub,
    /// What the server's side saw.
    pub seen: Arc<Seen>,
    /// What was pushed to the consumer.
    pub events: mpsc::UnboundedReceiver<Event>,
}

impl Transport {
    /// An address that nobody else uses.
    pub fn address(self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        match self {
            Transport::Mem => format!("mem://pair-{n}"),
            Transport::Tcp => "tcp://127.0.0.1:0".to_owned(),
            Transport::Tls => "tls://127.0.0.1:0".to_owned(),
            Transport::Quic | Transport::QuicEarly | Transport::QuicAnew => {
                "quic://127.0.0.1:0".to_owned()
            }
            Transport::Unix => {
                let path = std::env::temp_dir().join(format!("hbi-{id}-{n}.sock"));
                format!("unix://{}", path.display())
            }
        }
    }

    /// A server's options, with what this transport needs.
    pub fn serving(self, options: Options) -> Options {
        let secured = matches!(self, Transport::Tls | Transport::Quic) || self.is_early();
        if !secured {
            return options;
        }
        static TLS: OnceLock<ServerTls> = OnceLock::new();
        let tls = TLS.get_or_init(|| {
            let file = format!("hbi-tests-{}.pem", std::process::id());
            let file = std::env::temp_dir().join(file);
            ServerTls::self_signed(file, &["localhost"])
                .expect("the directory for temporary files can be written")
        });
        options.server_tls(tls.clone()).zero_rtt(self.is_early())
    }

    /// Whether the consumer does not wait for the server.
    fn is_early(self) -> bool {
        matches!(self, Transport::QuicEarly | Transport::QuicAnew)
    }

    /// A server and a consumer with default options.
    pub async fn pair(self) -> Pair {
        self.pair_with(Options::new(), Options::new(), |env| env)
            .await
    }

    /// A server and a consumer with options of their own; `more` adds to what the server exposes.
    pub async fn pair_with(
        self,
        server: Options,
        consumer: Options,
        more: impl Fn(HostingEnv) -> HostingEnv + Send + Sync + 'static,
    ) -> Pair {
        let seen = Arc::new(Seen::default());
        let kept = Arc::clone(&seen);
        let more = Arc::new(more);
        let factory = move |peer: hbi::Peer| {
            let (seen, more) = (Arc::clone(&kept), Arc::clone(&more));
            async move {
                let work = WorkHost::new(MyWork {
                    seen,
                    po: peer.po(),
                });
                Ok(more(HostingEnv::new().service(work)))
            }
        };
        let options = self.serving(server);
        let mut server = options
            .serve(self.address(), factory.clone())
            .await
            .expect("an address of its own can be listened at");
        let (me, events) = MyConsumer::new();
        let env = HostingEnv::new().service(ConsumerHost::new(me));
        let address = server.address().to_string();
        let consumer = match self.is_early() {
            true => acquainted(&server, consumer.zero_rtt(true)).await,
            false => consumer,
        };
        if self == Transport::QuicAnew {
            server.shutdown(Duration::from_secs(10)).await;
            let place = address.split('#').next().unwrap_or(&address);
            server = loop {
                match options.serve(place, factory.clone()).await {
                    Ok(anew) => break anew,
                    // the old one lets go of its port in a moment
                    Err(_) => tokio::task::yield_now().await,
                }
            };
        }
        let peer = consumer
            .connect(address, env)
            .await
            .expect("the server listens");
        let work = WorkStub::new(&peer);
        Pair {
            server,
            peer,
            work,
            seen,
            events,
        }
    }
}

/// A consumer's options that know the server.
async fn acquainted(server: &hbi::Server, consumer: Options) -> Options {
    let address = server.address().to_string();
    let peer = consumer
        .connect(address, HostingEnv::new())
        .await
        .expect("the server listens");
    peer.close(Duration::from_secs(10))
        .await
        .expect("nothing is under way");
    while server.connections() > 0 {
        tokio::task::yield_now().await;
    }
    consumer
}
