//! tonic: gRPC over HTTP/2, with streams for bulk and for events. Windows and limits as it has them.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use ::tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use anyhow::Result;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{net::TcpListener, sync::mpsc};

use super::{Client, NO_COMPUTING, NO_SCRIPTS, Peer, floor};
use crate::{
    process::Announce,
    works::{Tally, Work},
};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    ::tonic::include_proto!("bench");
}

use proto::{
    Nothing, Number, Numbers, Piece,
    bench_client::BenchClient,
    bench_server::{Bench, BenchServer},
};

/// tonic.
#[derive(Debug)]
pub(crate) struct Tonic;

impl Peer for Tonic {
    const NAME: &'static str = "tonic";
    const ABOUT: &'static str = "tonic, gRPC over TCP without TLS";
    type Client = TonicClient;

    fn supports(work: Work) -> Result<(), &'static str> {
        match work {
            Work::Script(_) | Work::Loop(_) | Work::Interned(_) => Err(NO_SCRIPTS),
            Work::InPlace(_) | Work::Parallel(_) => Err(NO_COMPUTING),
            Work::Methods(_) => Err("its methods are those of the schema"),
            _ => Ok(()),
        }
    }

    async fn serve(announce: Announce) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce.at(listener.local_addr()?)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = BenchServer::new(Serving::default());
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    }

    async fn connect(address: &str) -> Result<TonicClient> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        Ok(TonicClient {
            client: BenchClient::new(endpoint.connect().await?),
        })
    }
}

type Events = mpsc::UnboundedSender<i64>;

#[derive(Debug, Default)]
struct Serving {
    subscribers: Mutex<Vec<Events>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[::tonic::async_trait]
impl Bench for Serving {
    type DownloadStream = Answers<Piece>;
    type SubscribeStream = Answers<Number>;

    async fn add(&self, request: Request<Numbers>) -> Result<Response<Number>, Status> {
        let Numbers { a, b } = request.into_inner();
        Ok(Response::new(Number {
            value: a.wrapping_add(b),
        }))
    }

    async fn echo(&self, request: Request<Piece>) -> Result<Response<Piece>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn download(
        &self,
        request: Request<Number>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let pieces = pieces(request.into_inner().value as u64);
        Ok(Response::new(Box::pin(stream::iter(pieces.map(Ok)))))
    }

    async fn upload(&self, request: Request<Streaming<Piece>>) -> Result<Response<Number>, Status> {
        let (mut pieces, mut value) = (request.into_inner(), 0);
        while let Some(piece) = pieces.message().await? {
            value += piece.data.len() as i64;
        }
        Ok(Response::new(Number { value }))
    }

    async fn subscribe(
        &self,
        _: Request<Nothing>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (events, pushed) = mpsc::unbounded_channel();
        self.subscribers
            .lock()
            .expect("no holder panics")
            .push(events);
        let pushed = stream::unfold(pushed, async |mut pushed| {
            let value = pushed.recv().await?;
            Some((Ok(Number { value }), pushed))
        });
        Ok(Response::new(Box::pin(pushed)))
    }

    async fn publish(&self, request: Request<Number>) -> Result<Response<Nothing>, Status> {
        let event = request.into_inner().value;
        self.subscribers
            .lock()
            .expect("no holder panics")
            .retain(|events| events.send(event).is_ok());
        Ok(Response::new(Nothing {}))
    }
}

/// So many bytes.
fn pieces(bytes: u64) -> impl Iterator<Item = Piece> + Send + 'static {
    let piece = floor::PIECE as u64;
    (0..bytes.div_ceil(piece)).map(move |at| {
        let length = (bytes - at * piece).min(piece);
        Piece {
            data: Bytes::from_static(&floor::ZEROS[..length as usize]),
        }
    })
}

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct TonicClient {
    client: BenchClient<Channel>,
}

impl TonicClient {
    /// What a call needs to hold; it is a handle.
    fn client(&self) -> BenchClient<Channel> {
        self.client.clone()
    }
}

impl Client for TonicClient {
    async fn add(&self, a: i64, b: i64) -> Result<i64> {
        Ok(self
            .client()
            .add(Numbers { a, b })
            .await?
            .into_inner()
            .value)
    }

    async fn echo(&self, data: Bytes) -> Result<Bytes> {
        Ok(self.client().echo(Piece { data }).await?.into_inner().data)
    }

    async fn download(&self, bytes: u64) -> Result<u64> {
        let mut pieces = self
            .client()
            .download(Number {
                value: bytes as i64,
            })
            .await?
            .into_inner();
        let mut received = 0;
        while let Some(piece) = pieces.message().await? {
            received += piece.data.len() as u64;
        }
        Ok(received)
    }

    async fn upload(&self, bytes: u64) -> Result<u64> {
        Ok(self
            .client()
            .upload(stream::iter(pieces(bytes)))
            .await?
            .into_inner()
            .value as u64)
    }

    async fn subscribe(&self, tally: Arc<Tally>) -> Result<()> {
        let mut events = self.client().subscribe(Nothing {}).await?.into_inner();
        tokio::spawn(async move {
            // it ends with the connection
            while let Ok(Some(event)) = events.message().await {
                tally.received(event.value);
            }
        });
        Ok(())
    }

    async fn publish(&self, event: i64) -> Result<()> {
        self.client().publish(Number { value: event }).await?;
        Ok(())
    }
}
