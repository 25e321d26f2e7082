//! Peers within one process: listeners by name, joined by pipes in memory.

use std::{
    collections::HashMap,
    io,
    sync::{LazyLock, Mutex},
};

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

/// Bytes a pipe holds in each direction.
const PIPE: usize = 64 << 10;

/// Connections that may wait to be accepted.
const BACKLOG: usize = 128;

static LISTENERS: LazyLock<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>> =
    LazyLock::new(Mutex::default);

fn listeners() -> std::sync::MutexGuard<'static, HashMap<String, mpsc::Sender<DuplexStream>>> {
    LISTENERS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Takes connections to one name, until it is dropped.
#[derive(Debug)]
pub(crate) struct MemListener {
    name: String,
    arriving: mpsc::Receiver<DuplexStream>,
}

impl MemListener {
    pub(super) fn bind(name: &str) -> io::Result<Self> {
        let (sender, arriving) = mpsc::channel(BACKLOG);
        match listeners().entry(name.to_owned()) {
            std::collections::hash_map::Entry::Occupied(_) => Err(io::ErrorKind::AddrInUse.into()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(sender);
                Ok(Self {
                    name: name.to_owned(),
                    arriving,
                })
            }
        }
    }

    pub(super) async fn accept(&mut self) -> io::Result<DuplexStream> {
        self.arriving
            .recv()
            .await
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for MemListener {
    fn drop(&mut self) {
        listeners().remove(&self.name);
    }
}

pub(super) async fn dial(name: &str) -> io::Result<DuplexStream> {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let sender = listeners().get(name).cloned().ok_or_else(refused)?;
    let (ours, theirs) = duplex(PIPE);
    sender.send(theirs).await.map_err(|_| refused())?;
    Ok(ours)
}
