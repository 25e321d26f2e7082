//! capnp-rpc: Cap'n Proto over TCP.
//!
//! - Bulk is a streaming method of an object that the receiver gives out, with the window that it has
//!   by default.
//! - An event is a call of an object that the consumer gave.
//! - Promises are pipelined where they are for objects; plain values are not.
//! - It runs on one thread only, as all do here.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::Arc,
};

use ::capnp_rpc::{RpcSystem, new_client, rpc_twoparty_capnp::Side, twoparty::VatNetwork};
use anyhow::Result;
use bytes::Bytes;
use capnp::Error;
use send_wrapper::SendWrapper;
use tokio::{
    io::{BufReader, BufWriter},
    net::{TcpListener, TcpStream},
};
use tokio_util::compat::{TokioAsyncReadCompatExt as _, TokioAsyncWriteCompatExt as _};

use super::{Client, NO_COMPUTING, NO_SCRIPTS, Peer, floor};
use crate::{
    process::Announce,
    works::{Tally, Work},
};

#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::all,
    clippy::unimplemented,
    rust_2018_idioms
)]
mod bench_capnp {
    include!(concat!(env!("OUT_DIR"), "/bench_capnp.rs"));
}

use bench_capnp::{bench, consumer, pieces, value};

/// capnp-rpc.
#[derive(Debug)]
pub(crate) struct CapnpRpc;

impl Peer for CapnpRpc {
    const NAME: &'static str = "capnp-rpc";
    const ABOUT: &'static str = "capnp-rpc, Cap'n Proto over TCP";
    type Client = CapnpClient;

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
        let bench: bench::Client = new_client(Serving::default());
        loop {
            let (stream, _) = listener.accept().await?;
            let network = network(stream, Side::Server)?;
            run(RpcSystem::new(network, Some(bench.clone().client)));
        }
    }

    async fn connect(address: &str) -> Result<CapnpClient> {
        let network = network(TcpStream::connect(address).await?, Side::Client)?;
        let mut system = RpcSystem::new(network, None);
        let bench: bench::Client = system.bootstrap(Side::Server);
        run(system);
        Ok(CapnpClient {
            bench: SendWrapper::new(bench),
        })
    }
}

fn network(
    stream: TcpStream,
    side: Side,
) -> Result<Box<VatNetwork<impl futures_util::AsyncRead + Unpin>>> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let (read, write) = (
        BufReader::new(read).compat(),
        BufWriter::new(write).compat_write(),
    );
    Ok(Box::new(VatNetwork::new(
        read,
        write,
        side,
        Default::default(),
    )))
}

/// Runs a connection until it ends.
fn run(system: RpcSystem<Side>) {
    tokio::spawn(SendWrapper::new(async move {
        // whoever still waits learns why it has ended
        let _ = system.await;
    }));
}

#[derive(Default)]
struct Serving {
    subscribers: RefCell<Vec<consumer::Client>>,
}

impl bench::Server for Serving {
    async fn add(
        self: Rc<Self>,
        params: bench::AddParams,
        mut results: bench::AddResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        results
            .get()
            .set_sum(params.get_a().wrapping_add(params.get_b()));
        Ok(())
    }

    async fn echo(
        self: Rc<Self>,
        params: bench::EchoParams,
        mut results: bench::EchoResults,
    ) -> Result<(), Error> {
        results.get().set_payload(params.get()?.get_payload()?);
        Ok(())
    }

    async fn download(
        self: Rc<Self>,
        params: bench::DownloadParams,
        _: bench::DownloadResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let (bytes, into) = (params.get_bytes(), params.get_into()?);
        send(bytes, into).await
    }

    async fn upload(
        self: Rc<Self>,
        _: bench::UploadParams,
        mut results: bench::UploadResults,
    ) -> Result<(), Error> {
        results.get().set_into(new_client(Receiving::default()));
        Ok(())
    }

    async fn subscribe(
        self: Rc<Self>,
        params: bench::SubscribeParams,
        _: bench::SubscribeResults,
    ) -> Result<(), Error> {
        self.subscribers
            .borrow_mut()
            .push(params.get()?.get_consumer()?);
        Ok(())
    }

    async fn publish(
        self: Rc<Self>,
        params: bench::PublishParams,
        _: bench::PublishResults,
    ) -> Result<(), Error> {
        let event = params.get()?.get_event();
        for subscriber in &*self.subscribers.borrow() {
            let mut request = subscriber.pushed_request();
            request.get().set_event(event);
            tokio::task::spawn(SendWrapper::new(async move {
                // a consumer that is gone misses it
                let _ = request.send().promise.await;
            }));
        }
        Ok(())
    }

    async fn value(
        self: Rc<Self>,
        params: bench::ValueParams,
        mut results: bench::ValueResults,
    ) -> Result<(), Error> {
        results
            .get()
            .set_value(new_client(Value(params.get()?.get_value())));
        Ok(())
    }
}

/// A number as an object.
struct Value(i64);

impl value::Server for Value {
    async fn add(
        self: Rc<Self>,
        params: value::AddParams,
        mut results: value::AddResults,
    ) -> Result<(), Error> {
        let sum = self.0.wrapping_add(params.get()?.get_b());
        results.get().set_sum(new_client(Value(sum)));
        Ok(())
    }

    async fn read(
        self: Rc<Self>,
        _: value::ReadParams,
        mut results: value::ReadResults,
    ) -> Result<(), Error> {
        results.get().set_value(self.0);
        Ok(())
    }
}

/// Counts the bytes that come.
#[derive(Default)]
struct Receiving(Cell<u64>);

impl pieces::Server for Receiving {
    async fn write(self: Rc<Self>, params: pieces::WriteParams) -> Result<(), Error> {
        let piece = params.get()?.get_piece()?.len() as u64;
        self.0.set(self.0.get() + piece);
        Ok(())
    }

    async fn done(
        self: Rc<Self>,
        _: pieces::DoneParams,
        mut results: pieces::DoneResults,
    ) -> Result<(), Error> {
        results.get().set_bytes(self.0.get());
        Ok(())
    }
}

/// Sends so many bytes, as the window allows.
async fn send(bytes: u64, into: pieces::Client) -> Result<(), Error> {
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(floor::PIECE as u64) as usize;
        let mut request = into.write_request();
        request.get().set_piece(&floor::ZEROS[..piece]);
        request.send().await?;
        left -= piece as u64;
    }
    Ok(())
}

struct Consuming(Arc<Tally>);

impl consumer::Server for Consuming {
    async fn pushed(
        self: Rc<Self>,
        params: consumer::PushedParams,
        _: consumer::PushedResults,
    ) -> Result<(), Error> {
        self.0.received(params.get()?.get_event());
        Ok(())
    }
}

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct CapnpClient {
    bench: SendWrapper<bench::Client>,
}

impl CapnpClient {
    /// Lets futures that stay on a thread pass for ones that need not.
    fn on_this_thread<T, C, F>(
        &self,
        call: C,
    ) -> impl Future<Output = Result<T>> + Send + use<T, C, F>
    where
        C: FnOnce(bench::Client) -> F,
        F: Future<Output = Result<T, Error>>,
    {
        let call = SendWrapper::new(call((*self.bench).clone()));
        async move { Ok(call.await?) }
    }
}

impl Client for CapnpClient {
    async fn add(&self, a: i64, b: i64) -> Result<i64> {
        self.on_this_thread(|bench| async move {
            let mut request = bench.add_request();
            request.get().set_a(a);
            request.get().set_b(b);
            Ok(request.send().promise.await?.get()?.get_sum())
        })
        .await
    }

    async fn echo(&self, payload: Bytes) -> Result<Bytes> {
        self.on_this_thread(|bench| async move {
            let mut request = bench.echo_request();
            request.get().set_payload(&payload);
            let answer = request.send().promise.await?;
            Ok(Bytes::copy_from_slice(answer.get()?.get_payload()?))
        })
        .await
    }

    async fn download(&self, bytes: u64) -> Result<u64> {
        self.on_this_thread(|bench| async move {
            let receiving = Rc::new(Receiving::default());
            let mut request = bench.download_request();
            request.get().set_bytes(bytes);
            request
                .get()
                .set_into(::capnp_rpc::new_client_from_rc(receiving.clone()));
            request.send().promise.await?;
            Ok(receiving.0.get())
        })
        .await
    }

    async fn upload(&self, bytes: u64) -> Result<u64> {
        self.on_this_thread(|bench| async move {
            let into = bench.upload_request().send().pipeline.get_into();
            send(bytes, into.clone()).await?;
            Ok(into.done_request().send().promise.await?.get()?.get_bytes())
        })
        .await
    }

    async fn chain_of_objects(&self, steps: u32) -> Result<Option<i64>> {
        self.on_this_thread(|bench| async move {
            let mut value = bench.value_request().send().pipeline.get_value();
            for _ in 0..steps {
                let mut request = value.add_request();
                request.get().set_b(1);
                value = request.send().pipeline.get_sum();
            }
            Ok(Some(
                value
                    .read_request()
                    .send()
                    .promise
                    .await?
                    .get()?
                    .get_value(),
            ))
        })
        .await
    }

    async fn subscribe(&self, tally: Arc<Tally>) -> Result<()> {
        self.on_this_thread(|bench| async move {
            let mut request = bench.subscribe_request();
            request.get().set_consumer(new_client(Consuming(tally)));
            request.send().promise.await?;
            Ok(())
        })
        .await
    }

    async fn publish(&self, event: i64) -> Result<()> {
        self.on_this_thread(|bench| async move {
            let mut request = bench.publish_request();
            request.get().set_event(event);
            request.send().promise.await?;
            Ok(())
        })
        .await
    }
}
