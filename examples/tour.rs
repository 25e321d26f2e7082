//! A tour of hbi: typed calls, peer-script, a file sent both ways in conversations, pushes from the
//! server meanwhile, and a goodbye. Both halves run in this process, or each in its own.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use futures_util::{TryStreamExt, stream::try_unfold};
use hbi::prelude::*;
use hbi_examples::{Checked, bar};
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempDir};
use tokio::{fs::File, io::AsyncWriteExt};

/// Calls in flight at once in the part that measures their rate.
const CALLS: i64 = 1_000;

/// The server tells of a transfer each time this much of it has passed.
const STEP: u64 = 1 << 20;

/// The most bytes that one visitor may send up.
const MOST: u64 = 1 << 30;

/// How long what comes soon may take.
const SOON: Duration = Duration::from_secs(10);

/// Shows what two hbi peers can do with each other.
///
/// Without options both peers run in this process, over TCP on loopback. With --serve in one
/// terminal and --connect in another each runs on its own:
///
///   cargo run --release --example tour -- --serve tcp://127.0.0.1:3232
///   cargo run --release --example tour -- --connect tcp://127.0.0.1:3232
///
/// At tls://127.0.0.1:0 the server signs a certificate of its own, and prints the address with the
/// fingerprint that the other half is to be given.
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Options {
    /// Only serve, at this address: tcp://host:port, tls://host:port, quic://host:port,
    /// unix:///path. Ends with Ctrl-C.
    #[arg(long, value_name = "ADDR", conflicts_with = "connect")]
    serve: Option<String>,
    /// Only connect, to a tour that serves at this address.
    #[arg(long, value_name = "ADDR")]
    connect: Option<String>,
    /// Where the two meet when this program is both.
    #[arg(long, value_name = "ADDR", default_value = "tcp://127.0.0.1:0")]
    at: String,
    /// The file that is sent up and down [default: this program itself].
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

/// Why a division failed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum DivError {
    ByZero,
}

impl fmt::Display for DivError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("division by zero")
    }
}

/// What the server hosts: a calculator.
#[hbi::service]
trait Calc {
    /// Adds.
    async fn add(&self, a: i64, b: i64) -> i64;
    /// Divides.
    async fn div(&self, a: i64, b: i64) -> Result<i64, DivError>;
    /// Takes a note. Nobody waits for it.
    #[hbi(notify)]
    async fn note(&self, line: String);
}

/// What the server hosts: files, each with its CRC-32.
#[hbi::service]
trait Files {
    /// Takes the file's bytes, answers their number and CRC-32.
    #[hbi(converse)]
    async fn upload(&self, co: HoCo, name: String) -> hbi::Result<()>;
    /// Answers the file's size, its bytes, and their CRC-32.
    #[hbi(converse)]
    async fn download(&self, co: HoCo, name: String) -> hbi::Result<()>;
}

/// What the consumer hosts, for the server to push to.
#[hbi::service]
trait Watcher {
    /// A note was taken.
    #[hbi(notify)]
    async fn noted(&self, line: String);
    /// So many bytes of a transfer have passed the server.
    #[hbi(notify)]
    async fn passed(&self, bytes: u64);
}

/// The server's side of one connection.
#[derive(Clone)]
struct Host {
    watcher: WatcherStub,
    /// The visitor's own files; they go with it.
    folder: Arc<TempDir>,
    /// How many bytes the visitor has sent up.
    taken: Arc<AtomicU64>,
}

impl Calc for Host {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a.wrapping_add(b)
    }

    async fn div(&self, a: i64, b: i64) -> Result<i64, DivError> {
        a.checked_div(b).ok_or(DivError::ByZero)
    }

    async fn note(&self, line: String) {
        // a consumer that is gone needs no push
        let _ = self.watcher.noted(format!("the server has: {line}")).await;
    }
}

impl Files for Host {
    async fn upload(&self, mut co: HoCo, name: String) -> hbi::Result<()> {
        let path = self.path(&name)?;
        // one that breaks off never looks like a whole one
        let partial = NamedTempFile::new_in(self.folder.path()).map_err(failed)?;
        let file = partial.reopen().map_err(failed)?;
        let mut file = Checked::new(File::from_std(file));
        let sum = file.sum();
        let mut pieces = co.recv_stream()?;
        let mut told = 0;
        while let Some(piece) = pieces.try_next().await? {
            let length = piece.len() as u64;
            if self.taken.fetch_add(length, Ordering::Relaxed) + length > MOST {
                let why = format!("a visitor may send up {MOST} bytes, and this is more");
                return Err(hbi::Error::refusal(why));
            }
            file.write_all(&piece).await.map_err(failed)?;
            told = self.tell(told, sum.len()).await;
        }
        drop(pieces);
        file.flush().await.map_err(failed)?;
        partial.persist(path).map_err(|error| failed(error.error))?;
        let mut co = co.start_send().await?;
        co.send_obj(&(sum.len(), sum.crc())).await?;
        co.close().await
    }

    async fn download(&self, co: HoCo, name: String) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        let path = self.path(&name)?;
        let file = File::open(path).await.map_err(failed)?;
        let len = file.metadata().await.map_err(failed)?.len();
        co.send_obj(&len).await?;
        let file = Checked::new(file);
        let sum = file.sum();
        let pieces = hbi::Data::reader(file);
        let (host, passing) = (Host::clone(self), Arc::clone(&sum));
        let told = 0;
        let pieces = try_unfold((pieces, told), move |(mut pieces, told)| {
            let (host, passing) = (host.clone(), Arc::clone(&passing));
            async move {
                let piece = pieces.try_next().await?;
                let told = host.tell(told, passing.len()).await;
                Ok::<_, hbi::Error>(piece.map(|piece| (piece, (pieces, told))))
            }
        });
        co.send_data(hbi::Data::stream(pieces)).await?;
        co.send_obj(&sum.crc()).await?;
        co.close().await
    }
}

impl Host {
    /// Where a file lies; only plain names are taken.
    fn path(&self, name: &str) -> hbi::Result<PathBuf> {
        match Path::new(name).file_name() {
            Some(plain) if plain == name => Ok(self.folder.path().join(plain)),
            _ => Err(hbi::Error::refusal(format!(
                "`{name}` is no plain file name"
            ))),
        }
    }

    /// Pushes how much has passed, step by step; returns what was told last.
    async fn tell(&self, told: u64, passed: u64) -> u64 {
        if passed < told + STEP && passed != 0 && told != 0 {
            return told;
        }
        // a consumer that is gone needs no push
        let _ = self.watcher.passed(passed).await;
        passed
    }
}

fn failed(error: std::io::Error) -> hbi::Error {
    hbi::Error::refusal(format!("the file cannot be read or written: {error}"))
}

/// The consumer's side: counts what is pushed to it.
#[derive(Default)]
struct Watching {
    notes: AtomicU64,
    passed: AtomicU64,
    heard: tokio::sync::Notify,
}

impl Watching {
    fn count(&self, pushed: &AtomicU64) {
        pushed.fetch_add(1, Ordering::SeqCst);
        self.heard.notify_one();
    }

    /// How much was counted since; waits for the first, which over QUIC may come behind an answer.
    async fn pushed(&self, pushed: &AtomicU64) -> anyhow::Result<u64> {
        let counted = async {
            loop {
                match pushed.swap(0, Ordering::SeqCst) {
                    0 => self.heard.notified().await,
                    count => return count,
                }
            }
        };
        let counted = tokio::time::timeout(SOON, counted).await;
        counted.context("the server pushed nothing")
    }
}

impl Watcher for Watching {
    async fn noted(&self, line: String) {
        println!("  pushed by the server: {line:?}");
        self.count(&self.notes);
    }

    async fn passed(&self, _bytes: u64) {
        self.count(&self.passed);
    }
}

async fn serve(address: &str, folder: &Path) -> hbi::Result<hbi::Server> {
    let options = hbi_examples::options(address, folder)?;
    let folder = folder.to_owned();
    let factory = move |peer: Peer| {
        let folder = TempDir::new_in(&folder);
        async move {
            let host = Arc::new(Host {
                watcher: WatcherStub::new(&peer),
                folder: Arc::new(folder.map_err(failed)?),
                taken: Arc::default(),
            });
            Ok(HostingEnv::new()
                .service(CalcHost::new(Arc::clone(&host)))
                .service(FilesHost::new(host)))
        }
    };
    options.serve(address, factory).await
}

async fn visit(address: &str, path: &Path) -> anyhow::Result<()> {
    let watching = Arc::new(Watching::default());
    let env = HostingEnv::new().service(WatcherHost::new(Arc::clone(&watching)));
    let peer = hbi::connect(address, env).await?;
    println!("connected to {address}");
    typed_calls(&peer, &watching).await.context("typed calls")?;
    peer_script(&peer).await.context("peer-script")?;
    transfers(&peer, &watching, path)
        .await
        .context("transfers")?;
    peer.close(SOON).await?;
    println!("\nboth sides said goodbye");
    Ok(())
}

async fn typed_calls(peer: &Peer, watching: &Watching) -> anyhow::Result<()> {
    println!("\ntyped calls");
    let calc = CalcStub::new(peer);
    let three = calc.add(1, 2).await?;
    println!("  add(1, 2) = {three}");
    ensure!(three == 3, "1 + 2 is not {three}");
    let four = calc.add(2, 2).within(SOON).await?;
    println!("  add(2, 2) = {four}, within {SOON:?} or not at all");
    ensure!(four == 4, "2 + 2 is not {four}");
    match calc.div(1, 0).await {
        Err(CallError::App(DivError::ByZero)) => println!("  div(1, 0) fails: DivError::ByZero"),
        other => anyhow::bail!("div(1, 0) answered {other:?}"),
    }
    let thirty = calc.add(calc.add(1, 2), 27).await?;
    println!("  add(add(1, 2), 27) = {thirty}, in one round trip");
    ensure!(thirty == 30, "3 + 27 is not {thirty}");
    calc.note("hello").await?;
    watching.pushed(&watching.notes).await?;

    let began = Instant::now();
    let calls = (0..CALLS).map(|n| calc.add(n, n));
    let sums = futures_util::future::try_join_all(calls).await?;
    let took = began.elapsed();
    ensure!(
        sums.iter().zip(0..).all(|(sum, n)| *sum == 2 * n),
        "a sum is wrong"
    );
    let rate = CALLS as f64 / took.as_secs_f64();
    println!("  {CALLS} calls in flight at once: {took:.1?}, {rate:.0} calls/s");
    Ok(())
}

async fn peer_script(peer: &Peer) -> anyhow::Result<()> {
    println!("\npeer-script");
    let source = "let sum = 0; for i in 0..n { sum += calc::add(i, step); } sum";
    let sum: i64 = peer.script(source).bind("n", 10).bind("step", 100).await?;
    println!("  {source}");
    println!("  with n = 10 and step = 100: {sum}");
    ensure!(sum == 1045, "the script's sum is not {sum}");
    Ok(())
}

async fn transfers(peer: &Peer, watching: &Watching, path: &Path) -> anyhow::Result<()> {
    println!("\n{} up and down again", path.display());
    let files = FilesStub::new(peer);
    let source = File::open(path)
        .await
        .with_context(|| path.display().to_string())?;
    let len = source.metadata().await?.len();

    let mut co = files.upload("tour.bin").open().await?;
    let source = Checked::new(source).with_bar(bar("upload", len));
    let sum = source.sum();
    let began = Instant::now();
    co.send_data(hbi::Data::reader(source)).await?;
    let mut co = co.start_recv().await?;
    let (their_len, their_crc): (u64, u32) = co.recv_obj().await?;
    report("up", sum.len(), began.elapsed(), sum.crc(), their_crc);
    ensure!(
        (their_len, their_crc) == (len, sum.crc()),
        "the server has another file"
    );
    if len > 0 {
        let pushed = watching.pushed(&watching.passed).await?;
        println!("  pushed by the server meanwhile: {pushed} events");
    }

    let mut co = files.download("tour.bin").await?;
    let size: u64 = co.recv_obj().await?;
    ensure!(size == len, "{size} bytes announced, {len} sent up");
    let file = NamedTempFile::new()?;
    let target = File::create(file.path()).await?;
    let mut target = Checked::new(target).with_bar(bar("download", len));
    let down = target.sum();
    let began = Instant::now();
    co.recv_data(&mut target).await?;
    let their_crc: u32 = co.recv_obj().await?;
    report("down", down.len(), began.elapsed(), down.crc(), their_crc);
    ensure!(
        down.crc() == their_crc && down.crc() == sum.crc(),
        "the file was changed on its way"
    );
    if len > 0 {
        let pushed = watching.pushed(&watching.passed).await?;
        println!("  pushed by the server meanwhile: {pushed} events");
    }
    Ok(())
}

fn report(way: &str, len: u64, took: Duration, ours: u32, theirs: u32) {
    let mib = len as f64 / (1 << 20) as f64;
    let rate = mib / took.as_secs_f64();
    println!(
        "  {way:>4}: {mib:.1} MiB in {took:.1?}, {rate:.0} MiB/s, CRC-32 {ours:08x} here, {theirs:08x} there"
    );
}

#[tokio::main]
async fn main() -> ExitCode {
    match tour(Options::parse()).await {
        Ok(()) => {
            println!("tour: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tour: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn tour(options: Options) -> anyhow::Result<()> {
    let given = [&options.serve, &options.connect, &Some(options.at.clone())];
    for address in given.into_iter().flatten() {
        let text = address.parse::<hbi::Address>()?.is_text();
        ensure!(
            !text,
            "{address}: the text wire has no typed errors and no pushes meanwhile, which the tour shows; leave `text+` out"
        );
    }
    let folder = tempfile::tempdir()?;
    if let Some(address) = &options.serve {
        let server = serve(address, folder.path()).await?;
        println!("serving at {}; Ctrl-C ends it", server.address());
        tokio::signal::ctrl_c().await?;
        server.shutdown(Duration::from_secs(5)).await;
        return Ok(());
    }
    let file = match options.file {
        Some(file) => file,
        None => std::env::current_exe()?,
    };
    let metadata = std::fs::metadata(&file).with_context(|| file.display().to_string())?;
    ensure!(metadata.is_file(), "{} is no file", file.display());
    match &options.connect {
        Some(address) => visit(address, &file).await?,
        None => {
            let server = serve(&options.at, folder.path()).await?;
            visit(&server.address().to_string(), &file).await?;
            server.shutdown(Duration::from_secs(5)).await;
        }
    }
    Ok(())
}
