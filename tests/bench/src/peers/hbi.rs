//! hbi: a typed service, its stub, compositions and peer-script, over any address it takes.
//!
//! - Bulk is `Data`, whose pieces mix with small messages on the same connection.
//! - The dependent calls are one composition of typed calls, plain values all the way.
//! - An event is pushed by a notification to each consumer's own service, which the consumer hosts.
//! - Scripts are texts with two bound parameters, sent by hand. Those of `script_N` are straight
//!   lines of calls; those of `loop_N` are loops, which land in the interpreter.
//! - Limits are the defaults, but where a work is about more than they allow.

use std::{
    collections::HashMap,
    fmt::Write as _,
    marker::PhantomData,
    sync::{Arc, Mutex, OnceLock},
};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::stream;
use hbi::{Connection, Data, Defences, HostingEnv, Options, PostingEnd, Settings, tls::ServerTls};

use super::{Client, Peer, floor, socket_path};
use crate::{
    process::{self, Announce},
    works::{COMPUTING, Tally, Work},
};

/// What the server hosts.
#[hbi::service(name = "bench")]
trait Server {
    async fn add(&self, a: i64, b: i64) -> i64;
    async fn echo(&self, payload: Bytes) -> Bytes;
    async fn download(&self, bytes: u64) -> Data;
    async fn upload(&self, data: Data) -> hbi::Result<u64>;
    async fn subscribe(&self) -> ();
    async fn publish(&self, event: i64) -> hbi::Result<()>;
    async fn compute(&self) -> ();
    #[hbi(parallel)]
    async fn compute_in_parallel(&self) -> ();
}

/// What a consumer hosts.
#[hbi::service]
trait Consumer {
    #[hbi(notify)]
    async fn pushed(&self, event: i64);
}

/// An address to measure hbi over: another one is another line.
pub(crate) trait Over: Send + Sync + 'static {
    const NAME: &'static str;
    const ABOUT: &'static str;

    /// Where to listen.
    fn address() -> Result<String>;
}

macro_rules! over {
    ($($over:ident: $name:literal, $about:literal, $address:expr;)*) => {$(
        #[derive(Debug)]
        pub(crate) struct $over;

        impl Over for $over {
            const NAME: &'static str = $name;
            const ABOUT: &'static str = $about;

            fn address() -> Result<String> {
                Ok($address.to_string())
            }
        }
    )*};
}

over! {
    Quic: "hbi-quic", "hbi over QUIC", "quic://127.0.0.1:0";
    Tcp: "hbi-tcp", "hbi, mux wire over TCP", "tcp://127.0.0.1:0";
    Tls: "hbi-tls", "hbi, mux wire over TLS 1.3", "tls://127.0.0.1:0";
    Unix: "hbi-unix", "hbi, mux wire over a Unix socket", format!("unix://{}", socket_path("hbi")?.display());
}

/// hbi.
#[derive(Debug)]
pub(crate) struct Hbi<O>(PhantomData<O>);

impl<O: Over> Peer for Hbi<O> {
    const NAME: &'static str = O::NAME;
    const ABOUT: &'static str = O::ABOUT;
    type Client = HbiClient;

    fn supports(_: Work) -> Result<(), &'static str> {
        Ok(())
    }

    async fn serve(announce: Announce) -> Result<()> {
        let server = listen(&O::address()?, announce.work()).await?;
        announce.at(server.address())?;
        std::future::pending().await
    }

    async fn connect(address: &str) -> Result<HbiClient> {
        connect(address).await
    }
}

/// A server and a connection to it in this process, in memory.
pub(crate) async fn in_memory(work: Work) -> Result<(hbi::Server, HbiClient)> {
    let server = listen("mem://bench", work).await?;
    let client = connect(&server.address().to_string()).await?;
    Ok((server, client))
}

async fn listen(address: &str, work: Work) -> Result<hbi::Server> {
    let subscribers = Subscribers::default();
    let names: Arc<[String]> = match work {
        Work::Methods(exposed) => (0..exposed).map(|which| format!("add_{which}")).collect(),
        _ => Arc::default(),
    };
    let factory = move |peer: hbi::Peer| {
        let (names, subscribers) = (names.clone(), subscribers.clone());
        async move {
            let host = ServerHost::new(Serving {
                po: peer.po(),
                subscribers,
            });
            let env = HostingEnv::new().service(host);
            let add = |a: i64, b: i64| a.wrapping_add(b);
            Ok(names.iter().fold(env, |env, name| env.function(name, add)))
        }
    };
    // all clients are of one address here
    let mut defences = Defences::default();
    (defences.connections, defences.connections_per_address) = (1 << 20, 1 << 20);
    let mut options = Options::new().settings(settings(work)).defences(defences);
    if address.starts_with("tls:") || address.starts_with("quic:") {
        // the address tells clients which one it is
        let certificate = process::private_dir()?.join("certificate.pem");
        options = options.server_tls(ServerTls::self_signed(certificate, &["127.0.0.1"])?);
    }
    Ok(options.serve(address, factory).await?)
}

async fn connect(address: &str) -> Result<HbiClient> {
    let tally = Arc::new(OnceLock::new());
    let env = HostingEnv::new().service(ConsumerHost::new(Consuming(tally.clone())));
    let connection = hbi::connect(address, env).await?;
    Ok(HbiClient {
        bench: ServerStub::new(&connection),
        connection: Arc::new(connection),
        tally,
        texts: Arc::default(),
    })
}

/// The limits that a work needs.
fn settings(work: Work) -> Settings {
    let mut settings = Settings::default();
    match work {
        Work::Pipe(n) => settings.conversations = settings.conversations.max(n as u32),
        Work::Methods(n) | Work::Interned(n) => {
            settings.scripts = settings.scripts.max(n as u32 + 16)
        }
        _ => {}
    }
    settings
}

type Subscribers = Arc<Mutex<Vec<ConsumerStub>>>;

struct Serving {
    po: PostingEnd,
    subscribers: Subscribers,
}

impl Server for Serving {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a.wrapping_add(b)
    }

    async fn echo(&self, payload: Bytes) -> Bytes {
        payload
    }

    async fn download(&self, bytes: u64) -> Data {
        zeros(bytes)
    }

    async fn upload(&self, mut data: Data) -> hbi::Result<u64> {
        let mut received = 0;
        while let Some(piece) = data.try_next().await? {
            received += piece.len() as u64;
        }
        Ok(received)
    }

    async fn subscribe(&self) {
        self.subscribers
            .lock()
            .expect("no holder panics")
            .push(ConsumerStub::new(&self.po));
    }

    async fn publish(&self, event: i64) -> hbi::Result<()> {
        let subscribers = self.subscribers.lock().expect("no holder panics").clone();
        for subscriber in &subscribers {
            subscriber.pushed(event).await?;
        }
        Ok(())
    }

    async fn compute(&self) {
        process::compute(COMPUTING);
    }

    async fn compute_in_parallel(&self) {
        process::compute(COMPUTING);
    }
}

struct Consuming(Arc<OnceLock<Arc<Tally>>>);

impl Consumer for Consuming {
    async fn pushed(&self, event: i64) {
        if let Some(tally) = self.0.get() {
            tally.received(event);
        }
    }
}

/// So many zeros.
fn zeros(bytes: u64) -> Data {
    Data::stream(stream::unfold(bytes, async |left| {
        let piece = left.min(floor::PIECE as u64);
        let zeros = Bytes::from_static(&floor::ZEROS[..piece as usize]);
        (piece > 0).then_some((Ok::<_, hbi::Error>(zeros), left - piece))
    }))
}

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct HbiClient {
    bench: ServerStub,
    connection: Arc<Connection>,
    tally: Arc<OnceLock<Arc<Tally>>>,
    /// The texts that were made, by what they are for and their number.
    texts: Arc<Mutex<HashMap<(&'static str, usize), &'static str>>>,
}

impl HbiClient {
    async fn run(&self, text: &'static str, a: i64) -> Result<i64> {
        Ok(self
            .connection
            .script(text)
            .bind("a", a)
            .bind("b", 1)
            .await?)
    }

    /// A text, made at its first use. It lives as long as the program, as texts in a program do.
    fn text(&self, kind: &'static str, number: usize, make: fn(usize) -> String) -> &'static str {
        let mut texts = self.texts.lock().expect("no holder panics");
        texts
            .entry((kind, number))
            .or_insert_with(|| make(number).leak())
    }
}

/// A straight line of so many calls.
fn straight_line(calls: usize) -> String {
    let mut text = String::from("let v1 = bench::add(a, b); ");
    for call in 2..=calls {
        let _ = write!(text, "let v{call} = bench::add(v{}, b); ", call - 1);
    }
    let _ = write!(text, "v{calls}");
    text
}

/// A loop of so many calls.
fn looped(calls: usize) -> String {
    format!("for i in 0..{calls} {{ a = bench::add(a, b); }} a")
}

impl Client for HbiClient {
    async fn add(&self, a: i64, b: i64) -> Result<i64> {
        Ok(self.bench.add(a, b).await?)
    }

    async fn echo(&self, payload: Bytes) -> Result<Bytes> {
        Ok(self.bench.echo(payload).await?)
    }

    async fn download(&self, bytes: u64) -> Result<u64> {
        let mut data = self.bench.download(bytes).await?;
        let mut received = 0;
        while let Some(piece) = data.try_next().await? {
            received += piece.len() as u64;
        }
        Ok(received)
    }

    async fn upload(&self, bytes: u64) -> Result<u64> {
        Ok(self.bench.upload(zeros(bytes)).await?)
    }

    async fn chain(&self, steps: u32) -> Result<i64> {
        let mut sum = self.bench.add(0, 1);
        for _ in 1..steps {
            sum = self.bench.add(sum, 1);
        }
        Ok(sum.await?)
    }

    async fn subscribe(&self, tally: Arc<Tally>) -> Result<()> {
        if self.tally.set(tally).is_err() {
            bail!("this connection has subscribed already");
        }
        Ok(self.bench.subscribe().await?)
    }

    async fn publish(&self, event: i64) -> Result<()> {
        Ok(self.bench.publish(event).await?)
    }

    async fn compute(&self, parallel: bool) -> Result<()> {
        if parallel {
            return Ok(self.bench.compute_in_parallel().await?);
        }
        Ok(self.bench.compute().await?)
    }

    async fn script(&self, calls: u32, a: i64) -> Result<i64> {
        let text = match calls {
            1 => "bench::add(a, b)",
            3 => "let c = bench::add(a, b); let d = bench::add(c, b); bench::add(d, b)",
            _ => self.text("script", calls as usize, straight_line),
        };
        self.run(text, a).await
    }

    async fn loop_script(&self, calls: u32, a: i64) -> Result<i64> {
        self.run(self.text("loop", calls as usize, looped), a).await
    }

    async fn method(&self, which: usize, a: i64) -> Result<i64> {
        self.run(
            self.text("method", which, |which| format!("add_{which}(a, b)")),
            a,
        )
        .await
    }

    async fn interned(&self, which: usize, a: i64) -> Result<i64> {
        self.run(
            self.text("interned", which, |which| {
                format!("let v{which} = bench::add(a, b); v{which}")
            }),
            a,
        )
        .await
    }
}
