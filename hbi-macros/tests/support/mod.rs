//! Two peers in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use hbi::{Connection, HostingEnv, Server};

/// A server that hosts what `host` makes, and a connection to it.
pub(crate) async fn pair(
    host: impl Fn() -> HostingEnv + Send + Sync + 'static,
) -> (Server, Connection) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let address = format!("mem://macros-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let server = hbi::serve(&address, move |_peer| {
        let env = host();
        async move { Ok(env) }
    })
    .await
    .expect("an address of its own");
    let peer = hbi::connect(&address, HostingEnv::new())
        .await
        .expect("the server is there");
    (server, peer)
}
