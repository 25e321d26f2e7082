//! A live cast: a caster posts a stream of frames, the studio asks its subscribers who is ready to
//! watch, tells the caster how many are, and relays the frames to each. A watcher that does not keep
//! up sees fewer of them; it never holds up the cast.

use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use bytes::Bytes;
use clap::Parser;
use futures_util::future::join_all;
use hbi::{Caller, Connection, Items, ItemsSender, Server, prelude::*};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::timeout};

/// The bytes of a frame.
const FRAME: usize = 32 << 10;

/// How many frames wait for a watcher before others are left out.
const WAITING: usize = 2;

/// How long a subscriber may think about whether it is ready, and see what is left at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most characters of a subscriber's name.
const NAME: usize = 64;

/// Casts live to watchers, of which one is slow and one is not ready.
///
/// Without options the studio, three subscribers and a caster all run in this process. With --serve
/// in one terminal, --watch in others and --cast in one more each runs on its own.
#[derive(Parser)]
struct Options {
    /// Only runs the studio, at this address: tcp://host:port, tls://host:port, quic://host:port or
    /// unix:///path. Ends with Ctrl-C.
    #[arg(long, value_name = "ADDR")]
    serve: Option<String>,
    /// Only watches, at the studio of this address. Ends with Ctrl-C.
    #[arg(long, value_name = "ADDR", conflicts_with = "serve")]
    watch: Option<String>,
    /// Only casts, at the studio of this address.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["serve", "watch"])]
    cast: Option<String>,
    /// With --watch: how many milliseconds it takes to look at a frame.
    #[arg(long, default_value_t = 0)]
    slow: u64,
    /// How many frames are cast.
    #[arg(long, default_value_t = 200)]
    frames: u32,
    /// How many frames are cast in a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    fps: u32,
}

/// A picture of a cast.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Frame {
    number: u32,
    picture: Bytes,
}

/// What became of a cast for one watcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watched {
    pub(crate) name: String,
    /// So many frames it saw.
    pub(crate) seen: u64,
    /// So many were left out, since it did not keep up.
    pub(crate) left_out: u64,
}

/// What the studio hosts.
#[hbi::service]
pub(crate) trait Studio {
    /// Wants to be asked when there is a cast; once.
    async fn subscribe(&self, cx: &Caller, name: String) -> hbi::Result<()>;
    /// Asks the subscribers who is ready, tells the caster how many are; answers who.
    async fn invite(&self, cx: &Caller, title: String) -> Vec<u64>;
    /// Relays a cast to watchers that are ready for this caster; answers how they fared.
    async fn relay(&self, watchers: Vec<u64>, frames: Items<Frame>) -> hbi::Result<Vec<Watched>>;
}

/// What a subscriber hosts.
#[hbi::service]
trait Subscriber {
    /// There will be a cast: whether it is ready to watch.
    async fn ready(&self, title: String) -> bool;
    /// The cast; answers how many frames it saw.
    async fn watch(&self, frames: Items<Frame>) -> hbi::Result<u64>;
}

/// What a caster hosts.
#[hbi::service]
trait Caster {
    /// So many will watch.
    #[hbi(notify)]
    async fn watchers(&self, count: u64);
}

/// The studio's subscribers.
#[derive(Default)]
struct Subscribers {
    all: Mutex<Vec<Subscription>>,
    numbers: AtomicU64,
}

#[derive(Clone)]
struct Subscription {
    number: u64,
    name: String,
    subscriber: SubscriberStub,
    po: PostingEnd,
}

impl Subscribers {
    /// Those that are still there.
    fn all(&self) -> MutexGuard<'_, Vec<Subscription>> {
        let mut all = self.all.lock().unwrap_or_else(|e| e.into_inner());
        all.retain(|one| one.po.closed().is_none());
        all
    }
}

/// The studio's side of one connection.
#[derive(Default)]
struct MyStudio {
    subscribers: Arc<Subscribers>,
    subscribed: AtomicBool,
    /// Who said to be ready for casts of this peer.
    ready: Mutex<Vec<u64>>,
}

impl MyStudio {
    fn ready(&self) -> MutexGuard<'_, Vec<u64>> {
        self.ready.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Studio for MyStudio {
    async fn subscribe(&self, cx: &Caller, name: String) -> hbi::Result<()> {
        let length = name.chars().count();
        if length > NAME {
            let why = format!("a name of {length} characters: expected {NAME} at most");
            return Err(hbi::Error::refusal(why));
        }
        if self.subscribed.swap(true, Ordering::Relaxed) {
            let why = "subscribed already: connect once more for another";
            return Err(hbi::Error::refusal(why));
        }
        let po = cx.po();
        let subscription = Subscription {
            number: self.subscribers.numbers.fetch_add(1, Ordering::Relaxed),
            name,
            subscriber: SubscriberStub::new(&po),
            po,
        };
        self.subscribers.all().push(subscription);
        Ok(())
    }

    async fn invite(&self, cx: &Caller, title: String) -> Vec<u64> {
        let all = self.subscribers.all().clone();
        let answers = all.iter().map(|one| async {
            let ready = one.subscriber.ready(&title).within(PATIENCE).await;
            // who is gone, or does not answer, is not ready
            ready.unwrap_or(false).then_some(one.number)
        });
        let ready: Vec<_> = join_all(answers).await.into_iter().flatten().collect();
        *self.ready() = ready.clone();
        // a caster that is gone need not know
        let _ = CasterStub::new(&cx.po()).watchers(ready.len() as u64).await;
        ready
    }

    async fn relay(
        &self,
        watchers: Vec<u64>,
        mut frames: Items<Frame>,
    ) -> hbi::Result<Vec<Watched>> {
        let mut ready = std::mem::take(&mut *self.ready());
        ready.retain(|number| watchers.contains(number));
        let all = self.subscribers.all().clone();
        let chosen = all.into_iter().filter(|one| ready.contains(&one.number));
        let mut relays: Vec<_> = chosen.map(Relay::new).collect();
        while let Some(frame) = frames.try_next().await? {
            relays.iter_mut().for_each(|relay| relay.pass(&frame));
        }
        Ok(join_all(relays.into_iter().map(Relay::finish)).await)
    }
}

/// A channel to one watcher.
struct Relay {
    name: String,
    sender: ItemsSender<Frame>,
    watching: JoinSet<hbi::Result<u64>>,
    left_out: u64,
}

impl Relay {
    fn new(to: Subscription) -> Self {
        let (sender, frames) = Items::channel(WAITING);
        let mut watching = JoinSet::new();
        watching.spawn(async move { to.subscriber.watch(frames).await });
        Self {
            name: to.name,
            sender,
            watching,
            left_out: 0,
        }
    }

    /// Passes a frame on, or leaves it out: never waits.
    fn pass(&mut self, frame: &Frame) {
        if self.sender.try_send(frame.clone()).is_err() {
            self.left_out += 1;
        }
    }

    async fn finish(mut self) -> Watched {
        let seen = async {
            self.sender.finish().await;
            self.watching.join_next().await
        };
        let seen = match timeout(PATIENCE, seen).await {
            Ok(Some(Ok(Ok(seen)))) => seen,
            // it is gone, or still at it
            _ => 0,
        };
        Watched {
            name: self.name,
            seen,
            left_out: self.left_out,
        }
    }
}

/// Somebody who watches.
pub(crate) struct Me {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// How long it takes to look at a frame.
    pub(crate) looks: Duration,
}

impl Subscriber for Me {
    async fn ready(&self, title: String) -> bool {
        println!("{}: a cast of {title:?}, ready: {}", self.name, self.ready);
        self.ready
    }

    async fn watch(&self, mut frames: Items<Frame>) -> hbi::Result<u64> {
        let (mut seen, mut last) = (0, None);
        while let Some(frame) = frames.try_next().await? {
            if last.is_some_and(|last| frame.number <= last) || frame.picture.len() != FRAME {
                return Err(hbi::Error::refusal("a frame is not in its place"));
            }
            last = Some(frame.number);
            seen += 1;
            tokio::time::sleep(self.looks).await;
        }
        println!("{}: saw {seen} frames", self.name);
        Ok(seen)
    }
}

/// Somebody who casts, and hears how many watch.
struct OnAir;

impl Caster for OnAir {
    async fn watchers(&self, count: u64) {
        println!("caster: {count} will watch");
    }
}

/// Serves; `folder` is for a certificate, where the address needs one.
pub(crate) async fn studio(address: &str, folder: &Path) -> hbi::Result<Server> {
    let subscribers = Arc::new(Subscribers::default());
    let factory = move |_peer| {
        let studio = MyStudio {
            subscribers: Arc::clone(&subscribers),
            ..MyStudio::default()
        };
        async move { Ok(HostingEnv::new().service(StudioHost::new(studio))) }
    };
    let options = hbi_examples::options(address, folder)?;
    options.serve(address, factory).await
}

pub(crate) async fn watch(address: &str, me: Me) -> hbi::Result<Connection> {
    let name = me.name.clone();
    let env = HostingEnv::new().service(SubscriberHost::new(me));
    let connection = hbi::connect(address, env).await?;
    StudioStub::new(&connection).subscribe(name).await?;
    Ok(connection)
}

async fn cast(address: &str, frames: u32, fps: u32) -> hbi::Result<Vec<Watched>> {
    let env = HostingEnv::new().service(CasterHost::new(OnAir));
    let connection = hbi::connect(address, env).await?;
    let studio = StudioStub::new(&connection);

    let (camera, live) = Items::channel(WAITING);
    let filming = async {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / fps);
        for number in 0..frames {
            tick.tick().await;
            let picture = Bytes::from(vec![number as u8; FRAME]);
            camera.send(Frame { number, picture }).await?;
        }
        camera.finish().await;
        Ok::<_, hbi::Error>(())
    };
    // whoever is ready is asked, told, and gets the cast: one round trip
    let relaying = async { studio.relay(studio.invite("the sea"), live).await };
    let (watched, filmed) = tokio::join!(relaying, filming);
    let watched = watched?;
    filmed?;
    connection.close(PATIENCE).await?;
    Ok(watched)
}

/// Everything in this process, with the studio at this address.
pub(crate) async fn all(address: &str, frames: u32, fps: u32) -> anyhow::Result<Vec<Watched>> {
    let folder = tempfile::tempdir()?;
    let server = studio(address, folder.path()).await?;
    let address = server.address().to_string();
    let mut watching = Vec::new();
    for (name, ready, looks) in [("quick", true, 0), ("slow", true, 100), ("busy", false, 0)] {
        let me = Me {
            name: name.to_owned(),
            ready,
            looks: Duration::from_millis(looks),
        };
        watching.push(watch(&address, me).await?);
    }
    let watched = cast(&address, frames, fps).await?;
    ensure!(watched.len() == 2, "two were ready, {watched:?} watched");
    for connection in watching {
        connection.close(PATIENCE).await?;
    }
    server.shutdown(PATIENCE).await;
    Ok(watched)
}

async fn run(options: Options) -> anyhow::Result<()> {
    if let Some(address) = &options.serve {
        let folder = tempfile::tempdir()?;
        let server = studio(address, folder.path()).await?;
        println!("the studio is at {}; Ctrl-C ends it", server.address());
        tokio::signal::ctrl_c().await?;
        server.shutdown(PATIENCE).await;
        return Ok(());
    }
    if let Some(address) = &options.watch {
        let me = Me {
            name: format!("watcher {}", std::process::id()),
            ready: true,
            looks: Duration::from_millis(options.slow),
        };
        let connection = watch(address, me).await?;
        tokio::select! {
            ended = tokio::signal::ctrl_c() => ended?,
            why = connection.wait_closed() => anyhow::bail!("{why}"),
        }
        return Ok(connection.close(PATIENCE).await?);
    }
    let watched = match &options.cast {
        Some(address) => cast(address, options.frames, options.fps).await?,
        None => all("tcp://127.0.0.1:0", options.frames, options.fps).await?,
    };
    for Watched {
        name,
        seen,
        left_out,
    } in watched
    {
        println!("caster: {name:?} saw {seen} frames, {left_out} were left out");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("livecast: {error:#}");
            ExitCode::FAILURE
        }
    }
}
