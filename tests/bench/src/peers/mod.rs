//! The peers: what is measured, one file each, and what each must be able to do.

mod floor;
pub(crate) mod hbi;
mod raw;
mod rawmux;

#[cfg(has_capnp)]
mod capnp_rpc;
#[cfg(feature = "peers")]
mod jsonrpsee;
#[cfg(feature = "peers")]
mod tarpc;
#[cfg(feature = "peers")]
mod tonic;

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    measure::Span,
    process::{self, Announce},
    works::{Bench, Load, Meter, Sample, Tally, Work},
};

/// A library, or a floor, that is measured.
pub(crate) trait Peer: 'static {
    const NAME: &'static str;
    const ABOUT: &'static str;

    type Client: Client;

    /// Whether it can do a work, or else why not.
    fn supports(work: Work) -> Result<(), &'static str>;

    /// Serves until the process ends, once it has announced where.
    fn serve(announce: Announce) -> impl Future<Output = Result<()>>;

    /// Opens a connection of its own.
    fn connect(address: &str) -> impl Future<Output = Result<Self::Client>>;
}

/// A connection; clones share it. Only the methods that a supported work needs are called.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// The server adds, wrapping around.
    fn add(&self, a: i64, b: i64) -> impl Future<Output = Result<i64>> + Send;

    /// The server sends bytes back.
    fn echo(&self, payload: Bytes) -> impl Future<Output = Result<Bytes>> + Send;

    /// The server sends so many bytes, in pieces; gives how many came.
    fn download(&self, _bytes: u64) -> impl Future<Output = Result<u64>> + Send {
        missing("download")
    }

    /// The server receives so many bytes, in pieces; gives how many the server says came.
    fn upload(&self, _bytes: u64) -> impl Future<Output = Result<u64>> + Send {
        missing("upload")
    }

    /// Adds 1 to 0 so many times, each sum an argument of the next call; gives the last.
    fn chain(&self, steps: u32) -> impl Future<Output = Result<i64>> + Send {
        async move {
            let mut sum = 0;
            for _ in 0..steps {
                sum = self.add(sum, 1).await?;
            }
            Ok(sum)
        }
    }

    /// The same, where a library can do it better if every value is an object by reference.
    fn chain_of_objects(&self, _steps: u32) -> impl Future<Output = Result<Option<i64>>> + Send {
        async { Ok(None) }
    }

    /// From its end on, the server pushes events to this connection, which are tallied.
    fn subscribe(&self, _tally: Arc<Tally>) -> impl Future<Output = Result<()>> + Send {
        missing("subscribe")
    }

    /// The server pushes an event to all who subscribed.
    fn publish(&self, _event: i64) -> impl Future<Output = Result<()>> + Send {
        missing("publish")
    }

    /// Sends a peer-script that makes so many calls of `add`; gives the last sum, `a` plus so many.
    fn script(&self, _calls: u32, _a: i64) -> impl Future<Output = Result<i64>> + Send {
        missing("script")
    }

    /// The same by a loop in the script, which takes an interpreter.
    fn loop_script(&self, _calls: u32, _a: i64) -> impl Future<Output = Result<i64>> + Send {
        missing("loop_script")
    }

    /// Calls one of the methods that add.
    fn method(&self, _which: usize, _a: i64) -> impl Future<Output = Result<i64>> + Send {
        missing("method")
    }

    /// Sends one of the peer-scripts that add.
    fn interned(&self, _which: usize, _a: i64) -> impl Future<Output = Result<i64>> + Send {
        missing("interned")
    }

    /// The server computes for 1 ms, where it handles what arrives or in a task of its own.
    fn compute(&self, _parallel: bool) -> impl Future<Output = Result<()>> + Send {
        missing("compute")
    }

    /// Keeps so many calls in flight until the meter is stopped. One task for each, unless the peer
    /// is a loop by hand.
    fn flood(
        &self,
        in_flight: usize,
        load: Load,
        meter: Arc<Meter>,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            let mut tasks = JoinSet::new();
            for slot in 0..in_flight {
                let (client, load, meter) = (self.clone(), load.clone(), meter.clone());
                tasks
                    .spawn(async move { client.keep_calling(slot, in_flight, load, &meter).await });
            }
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Ok(())
        }
    }

    /// One call after the other until the meter is stopped.
    fn keep_calling(
        &self,
        slot: usize,
        in_flight: usize,
        load: Load,
        meter: &Meter,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            let mut which = slot;
            while !meter.is_stopped() {
                self.call(&load, which).await?;
                meter.count(slot, 1);
                which += in_flight;
            }
            Ok(())
        }
    }

    /// One call, of those that differ this one.
    fn call(&self, load: &Load, which: usize) -> impl Future<Output = Result<()>> + Send {
        async move {
            let a = which as i64;
            let (sum, expected) = match load {
                Load::Echo(payload) => {
                    ensure!(
                        self.echo(payload.clone()).await? == payload,
                        "the peer sends back other bytes than it got"
                    );
                    return Ok(());
                }
                Load::Add => (self.add(a, 1).await?, a + 1),
                Load::Script(calls) => (self.script(*calls, a).await?, a + i64::from(*calls)),
                Load::Loop(calls) => (self.loop_script(*calls, a).await?, a + i64::from(*calls)),
                Load::Methods(n) => (self.method(which % n, a).await?, a + 1),
                Load::Interned(n) => (self.interned(which % n, a).await?, a + 1),
            };
            ensure!(sum == expected, "the peer says {sum}, not {expected}");
            Ok(())
        }
    }
}

async fn missing<T>(method: &'static str) -> Result<T> {
    bail!("this peer has no `{method}`, though it says that it supports the work")
}

/// Why only hbi does what needs peer-script.
const NO_SCRIPTS: &str = "its clients send calls, not scripts";
/// Why only hbi computes.
const NO_COMPUTING: &str = "not written: it compares two kinds of hbi's methods";

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T>>>>;

/// A peer whose type is forgotten.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) supports: fn(Work) -> Result<(), &'static str>,
    pub(crate) serve: fn(Announce) -> Boxed<()>,
    pub(crate) measure: fn(Work, Span) -> Boxed<Vec<Sample>>,
}

impl Entry {
    fn of<P: Peer>() -> Self {
        Self {
            name: P::NAME,
            about: P::ABOUT,
            supports: P::supports,
            serve: |announce| Box::pin(P::serve(announce)),
            measure: |work, span| Box::pin(async move { Bench::run::<P>(work, &span).await }),
        }
    }
}

const NOT_ASKED: &str = "built without the feature `peers`";
const NO_COMPILER: &str = "its schema needs the program `capnp` when this is built, which was not found or \
    failed; its package is `capnproto` on Debian and Ubuntu";

/// What the program was built without, and why.
pub(crate) const LEFT_OUT: &[(&str, &str)] = if cfg!(not(feature = "peers")) {
    &[
        ("tarpc", NOT_ASKED),
        ("tonic", NOT_ASKED),
        ("capnp-rpc", NOT_ASKED),
        ("jsonrpsee", NOT_ASKED),
    ]
} else if cfg!(not(has_capnp)) {
    &[("capnp-rpc", NO_COMPILER)]
} else {
    &[]
};

/// All peers, the floors first.
pub(crate) fn all() -> Vec<Entry> {
    vec![
        Entry::of::<raw::Raw>(),
        Entry::of::<rawmux::RawMux<floor::Tcp>>(),
        Entry::of::<rawmux::RawMux<floor::Unix>>(),
        Entry::of::<hbi::Hbi<hbi::Tcp>>(),
        Entry::of::<hbi::Hbi<hbi::Unix>>(),
        Entry::of::<hbi::Hbi<hbi::Tls>>(),
        Entry::of::<hbi::Hbi<hbi::Quic>>(),
        #[cfg(feature = "peers")]
        Entry::of::<tarpc::Tarpc>(),
        #[cfg(feature = "peers")]
        Entry::of::<tonic::Tonic>(),
        #[cfg(has_capnp)]
        Entry::of::<capnp_rpc::CapnpRpc>(),
        #[cfg(feature = "peers")]
        Entry::of::<jsonrpsee::Jsonrpsee>(),
    ]
}

/// The peer of this name.
pub(crate) fn named(name: &str) -> Result<Entry> {
    if let Some(entry) = all().into_iter().find(|entry| entry.name == name) {
        return Ok(entry);
    }
    if let Some((_, why)) = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name) {
        bail!("{name}: {why}");
    }
    let known: Vec<_> = all().iter().map(|entry| entry.name).collect();
    bail!(
        "there is no peer `{name}`; the peers are {}",
        known.join(", ")
    )
}

/// A path for a Unix socket of this process.
pub(crate) fn socket_path(name: &str) -> Result<PathBuf> {
    Ok(process::private_dir()?.join(format!("{name}.sock")))
}
