//! tarpc, with bincode over TCP.
//!
//! - It has no streams: bulk is calls of 64 KiB, several in flight.
//! - It has no calls from server to client: a consumer keeps a call pending, which the next event
//!   answers.
//! - Its limits of calls in flight are raised beyond what the works need.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::tarpc::{
    client, context, serde_transport,
    server::{self, BaseChannel, Channel as _},
    tokio_serde::formats::Bincode,
    tokio_util::codec::LengthDelimitedCodec,
};
use anyhow::Result;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_bytes::ByteBuf;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Client, NO_COMPUTING, NO_SCRIPTS, Peer, floor::PIECE};
use crate::{
    process::Announce,
    works::{Tally, Work},
};

/// More calls than any work has in flight.
const IN_FLIGHT: usize = 1 << 17;
/// How many calls of a transfer are in flight.
const PIECES: usize = 8;

#[::tarpc::service]
trait Bench {
    async fn add(a: i64, b: i64) -> i64;
    async fn echo(payload: ByteBuf) -> ByteBuf;
    async fn download(bytes: u64) -> ByteBuf;
    async fn upload(piece: ByteBuf) -> u64;
    /// The event after one.
    async fn next(after: i64) -> Option<i64>;
    async fn publish(event: i64) -> ();
}

/// tarpc.
#[derive(Debug)]
pub(crate) struct Tarpc;

impl Peer for Tarpc {
    const NAME: &'static str = "tarpc";
    const ABOUT: &'static str = "tarpc, bincode over TCP";
    type Client = TarpcClient;

    fn supports(work: Work) -> Result<(), &'static str> {
        match work {
            Work::Script(_) | Work::Loop(_) | Work::Interned(_) => Err(NO_SCRIPTS),
            Work::InPlace(_) | Work::Parallel(_) => Err(NO_COMPUTING),
            Work::Methods(_) => Err("its methods are those of the trait"),
            _ => Ok(()),
        }
    }

    async fn serve(announce: Announce) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce.at(listener.local_addr()?)?;
        let serving = Serving {
            events: Arc::new(watch::Sender::new(0)),
        };
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let framed = LengthDelimitedCodec::builder().new_framed(stream);
            let config = server::Config {
                pending_response_buffer: IN_FLIGHT,
            };
            let channel =
                BaseChannel::new(config, serde_transport::new(framed, Bincode::default()));
            let calls = channel.execute(serving.clone().serve());
            tokio::spawn(calls.for_each(async |call| {
                tokio::spawn(call);
            }));
        }
    }

    async fn connect(address: &str) -> Result<TarpcClient> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let framed = LengthDelimitedCodec::builder().new_framed(stream);
        let mut config = client::Config::default();
        config.max_in_flight_requests = IN_FLIGHT;
        let client =
            BenchClient::new(config, serde_transport::new(framed, Bincode::default())).spawn();
        Ok(TarpcClient { client })
    }
}

#[derive(Clone)]
struct Serving {
    events: Arc<watch::Sender<i64>>,
}

impl Bench for Serving {
    async fn add(self, _: context::Context, a: i64, b: i64) -> i64 {
        a.wrapping_add(b)
    }

    async fn echo(self, _: context::Context, payload: ByteBuf) -> ByteBuf {
        payload
    }

    async fn download(self, _: context::Context, bytes: u64) -> ByteBuf {
        ByteBuf::from(vec![0; bytes as usize])
    }

    async fn upload(self, _: context::Context, piece: ByteBuf) -> u64 {
        piece.len() as u64
    }

    async fn next(self, _: context::Context, after: i64) -> Option<i64> {
        let mut events = self.events.subscribe();
        events
            .wait_for(|event| *event > after)
            .await
            .ok()
            .map(|event| *event)
    }

    async fn publish(self, _: context::Context, event: i64) {
        self.events.send_replace(event);
    }
}

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct TarpcClient {
    client: BenchClient,
}

/// A deadline that is never reached: by default it is 10 s.
fn context() -> context::Context {
    let mut context = context::current();
    context.deadline = Instant::now() + Duration::from_secs(3600);
    context
}

/// The lengths of the pieces of so many bytes.
fn pieces(bytes: u64) -> impl Iterator<Item = u64> {
    (0..bytes.div_ceil(PIECE as u64)).map(move |at| (bytes - at * PIECE as u64).min(PIECE as u64))
}

impl Client for TarpcClient {
    async fn add(&self, a: i64, b: i64) -> Result<i64> {
        Ok(self.client.add(context(), a, b).await?)
    }

    async fn echo(&self, payload: Bytes) -> Result<Bytes> {
        let echoed = self.client.echo(context(), ByteBuf::from(payload)).await?;
        Ok(echoed.into_vec().into())
    }

    async fn download(&self, bytes: u64) -> Result<u64> {
        let calls =
            stream::iter(pieces(bytes)).map(|piece| {
                let client = self.client.clone();
                async move {
                    Ok::<_, anyhow::Error>(client.download(context(), piece).await?.len() as u64)
                }
            });
        sum(calls.buffer_unordered(PIECES)).await
    }

    async fn upload(&self, bytes: u64) -> Result<u64> {
        let calls = stream::iter(pieces(bytes)).map(|piece| {
            let client = self.client.clone();
            let piece = ByteBuf::from(vec![0; piece as usize]);
            async move { Ok(client.upload(context(), piece).await?) }
        });
        sum(calls.buffer_unordered(PIECES)).await
    }

    async fn subscribe(&self, tally: Arc<Tally>) -> Result<()> {
        let client = self.client.clone();
        let mut seen = 0;
        // it keeps a call pending, and ends with the connection
        tokio::spawn(async move {
            while let Ok(Some(event)) = client.next(context(), seen).await {
                seen = event;
                tally.received(event);
            }
        });
        Ok(())
    }

    async fn publish(&self, event: i64) -> Result<()> {
        Ok(self.client.publish(context(), event).await?)
    }
}

async fn sum(pieces: impl stream::Stream<Item = Result<u64>>) -> Result<u64> {
    let mut pieces = std::pin::pin!(pieces);
    let mut total = 0;
    while let Some(piece) = pieces.next().await {
        total += piece?;
    }
    Ok(total)
}
