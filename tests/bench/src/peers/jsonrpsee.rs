//! jsonrpsee: JSON-RPC over WebSocket.
//!
//! - JSON has no bytes: 4 KiB of echo are a string of that length, and there is no bulk.
//! - Events are pushed through subscriptions.
//! - Its limits are raised beyond what the works need.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ::jsonrpsee::{
    RpcModule, SubscriptionSink,
    core::client::{ClientT as _, SubscriptionClientT as _},
    rpc_params,
    server::{ServerBuilder, ServerConfig},
    types::ErrorObjectOwned,
    ws_client::{WsClient, WsClientBuilder},
};
use anyhow::Result;
use bytes::Bytes;

use super::{Client, NO_COMPUTING, NO_SCRIPTS, Peer};
use crate::{
    process::Announce,
    works::{Tally, Work},
};

/// More than any work has in flight.
const IN_FLIGHT: u32 = 1 << 17;

/// jsonrpsee.
#[derive(Debug)]
pub(crate) struct Jsonrpsee;

impl Peer for Jsonrpsee {
    const NAME: &'static str = "jsonrpsee";
    const ABOUT: &'static str = "jsonrpsee, JSON-RPC over WebSocket without TLS";
    type Client = JsonrpseeClient;

    fn supports(work: Work) -> Result<(), &'static str> {
        match work {
            Work::BulkDown | Work::BulkUp | Work::Hol => Err("JSON has no bytes"),
            Work::Script(_) | Work::Loop(_) | Work::Interned(_) => Err(NO_SCRIPTS),
            Work::InPlace(_) | Work::Parallel(_) => Err(NO_COMPUTING),
            Work::Methods(_) => Err("not written: the floors and hbi are compared there"),
            _ => Ok(()),
        }
    }

    async fn serve(announce: Announce) -> Result<()> {
        let config = ServerConfig::builder()
            .max_connections(1 << 20)
            .set_message_buffer_capacity(IN_FLIGHT)
            .build();
        let server = ServerBuilder::with_config(config)
            .build("127.0.0.1:0")
            .await?;
        let address = server.local_addr()?;
        let handle = server.start(methods()?);
        announce.at(address)?;
        handle.stopped().await;
        Ok(())
    }

    async fn connect(address: &str) -> Result<JsonrpseeClient> {
        let client = WsClientBuilder::new()
            .max_concurrent_requests(IN_FLIGHT as usize)
            .request_timeout(Duration::from_secs(3600))
            .build(format!("ws://{address}"))
            .await?;
        Ok(JsonrpseeClient {
            client: Arc::new(client),
        })
    }
}

type Subscribers = Mutex<Vec<SubscriptionSink>>;

fn methods() -> Result<RpcModule<Subscribers>> {
    let mut methods = RpcModule::new(Subscribers::default());
    methods.register_method("add", |params, _, _| {
        let (a, b): (i64, i64) = params.parse()?;
        Ok::<_, ErrorObjectOwned>(a.wrapping_add(b))
    })?;
    methods.register_method("echo", |params, _, _| params.one::<String>())?;
    methods.register_subscription(
        "subscribe",
        "event",
        "unsubscribe",
        |_, pending, subscribers, _| async move {
            let sink = pending.accept().await?;
            subscribers
                .lock()
                .expect("no holder panics")
                .push(sink.clone());
            sink.closed().await;
            Ok(())
        },
    )?;
    methods.register_async_method("publish", |params, subscribers, _| async move {
        let event: i64 = params.one()?;
        let text = serde_json::value::to_raw_value(&event)
            .map_err(|error| ErrorObjectOwned::owned(1, error.to_string(), None::<()>))?;
        let sinks = subscribers.lock().expect("no holder panics").clone();
        for sink in sinks {
            // a consumer that is gone misses it
            let _ = sink.send(text.clone()).await;
        }
        Ok::<_, ErrorObjectOwned>(())
    })?;
    Ok(methods)
}

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct JsonrpseeClient {
    client: Arc<WsClient>,
}

impl Client for JsonrpseeClient {
    async fn add(&self, a: i64, b: i64) -> Result<i64> {
        Ok(self.client.request("add", rpc_params![a, b]).await?)
    }

    async fn echo(&self, payload: Bytes) -> Result<Bytes> {
        let text = std::str::from_utf8(&payload)?;
        let echoed: String = self.client.request("echo", rpc_params![text]).await?;
        Ok(echoed.into())
    }

    async fn subscribe(&self, tally: Arc<Tally>) -> Result<()> {
        let mut events = self
            .client
            .subscribe::<i64, _>("subscribe", rpc_params![], "unsubscribe")
            .await?;
        tokio::spawn(async move {
            // it ends with the connection
            while let Some(Ok(event)) = events.next().await {
                tally.received(event);
            }
        });
        Ok(())
    }

    async fn publish(&self, event: i64) -> Result<()> {
        Ok(self.client.request("publish", rpc_params![event]).await?)
    }
}
