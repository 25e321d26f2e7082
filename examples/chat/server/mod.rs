//! The server: several addresses, one state.

mod host;
mod hub;
mod member;

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::Context;
use hbi::{Address, Defences, Options, Scheme, Server, Settings, prelude::*};

use self::{host::Host, hub::Hub};
use crate::{
    protocol::{ChatHost, RoomsHost, TransfersHost},
    store::Store,
};

/// How often uploads that broke off long ago are removed.
const SWEPT: Duration = Duration::from_secs(60 * 60);

/// How long nothing may come of a member over QUIC before it counts as gone. The first question behind
/// what came last starts it anew, so that one which vanished leaves after this and [`ASKS`] together:
/// within a second.
const SILENT: Duration = Duration::from_millis(700);

/// After how much silence over QUIC a member is asked whether it is there, so that a few lost packets
/// do not make it leave.
const ASKS: Duration = Duration::from_millis(200);

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Serving {
    servers: Vec<Server>,
}

/// Serves at all addresses, and keeps everything in a directory.
pub(crate) async fn serve(addresses: &[String], dir: &Path) -> anyhow::Result<Serving> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("the directory {} cannot be made", dir.display()))?;
    let hub = Hub::open(Store::open(dir)?, dir)?;
    hub.files.count().await?;
    tokio::spawn(sweep(Arc::downgrade(&hub)));
    let mut servers = Vec::new();
    for address in addresses {
        let hub = Arc::clone(&hub);
        let factory = move |peer: Peer| {
            let hub = Arc::clone(&hub);
            async move { Ok(environment(hub, &peer)) }
        };
        let serving = async { options(address, dir)?.serve(address, factory).await };
        let server = serving.await;
        servers.push(server.with_context(|| format!("cannot serve at {address}"))?);
    }
    Ok(Serving { servers })
}

/// Removes uploads that broke off long ago, as long as there is a server.
async fn sweep(hub: Weak<Hub>) {
    let mut look = tokio::time::interval(SWEPT);
    loop {
        look.tick().await;
        let Some(hub) = hub.upgrade() else {
            return;
        };
        if let Err(error) = hub.files.sweep().await {
            eprintln!("old uploads cannot be removed: {error}");
        }
    }
}

/// How an address is served. A call may read a room's history or open a file, so that a stranger makes
/// fewer than hbi would let it. A member whose process is killed is gone at once over TCP and Unix
/// sockets, since its system closes them; over QUIC nothing does, so there silence tells.
fn options(address: &str, dir: &Path) -> hbi::Result<Options> {
    let mut defences = Defences::default();
    defences.connections_per_address = 256;
    defences.openings_per_second = 1_000;
    let mut settings = Settings::default();
    settings.conversations = 64;
    if let Scheme::Quic(_) = address.parse::<Address>()?.scheme() {
        settings.keep_alive = ASKS;
        settings.idle_timeout = SILENT;
    }
    let options = hbi_examples::options(address, dir)?;
    Ok(options.defences(defences).settings(settings))
}

impl Serving {
    /// The addresses, as clients can use them.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers
            .iter()
            .map(|s| s.address().to_string())
            .collect()
    }

    /// Says goodbye to all.
    pub(crate) async fn shutdown(self) {
        let goodbyes = self
            .servers
            .into_iter()
            .map(|server| server.shutdown(Duration::from_secs(5)));
        futures_util::future::join_all(goodbyes).await;
    }
}

/// What one peer finds here, and what its coming and going does.
fn environment(hub: Arc<Hub>, peer: &Peer) -> HostingEnv {
    let id = hub.next_id();
    let host = Arc::new(Host::new(Arc::clone(&hub), id));
    let (coming, peer) = (Arc::clone(&hub), peer.clone());
    HostingEnv::new()
        .service(ChatHost::new(Arc::clone(&host)))
        .service(RoomsHost::new(Arc::clone(&host)))
        .service(TransfersHost::new(host))
        .on_connect(move |_po| {
            coming.join(id, &peer);
            std::future::ready(())
        })
        .on_disconnect(move |_why| hub.leave(id))
}
