//! What makes 0-RTT possible: what a client remembers of servers, and what a server of clients.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use quinn::{TokenLog, TokenMemoryCache, TokenReuseError, ValidationTokenConfig};
use rustls::{ClientConfig, ServerConfig, client::Resumption, server::ServerSessionMemoryCache};

use tokio::time::Instant;

use super::{Secured, tls::noting::Noting};
use crate::{Error, wire::mux::Settings};

/// Servers that a client remembers; of more, those that it connected to last.
const SERVERS: usize = 64;

/// Sessions that a server remembers; of more, the last.
const SESSIONS: usize = 4096;

/// How long a server is remembered: rustls resumes sessions so long that servers keep. Each connection
/// gets another session, in none of which the certificate is shown again, so it is counted from the
/// first.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a client remembers of servers it was connected to, shared by clones.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Servers>>);

/// The one that was connected to last comes last.
type Servers = VecDeque<(Secured, Arc<Remembered>)>;

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} servers)", self.lock().len())
    }
}

/// One server, by its address and the certificate that is pinned there. Its sessions are resumed under
/// the same trust only: they are kept in the configuration that they were made with.
pub(crate) struct Remembered {
    pub(super) config: Arc<ClientConfig>,
    pub(super) noting: Arc<Noting>,
    /// By which the server knows that an address is this client's.
    pub(super) tokens: Arc<TokenMemoryCache>,
    /// When it was met first.
    met: Instant,
    /// Which of the server's addresses answered last, and what it takes.
    last: Mutex<Option<(SocketAddr, Settings)>>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Servers> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What is known of a server; `make` says how to connect to one that is new.
    pub(super) fn of(
        &self,
        server: &Secured,
        make: impl FnOnce() -> Result<(Arc<ClientConfig>, Arc<Noting>), Error>,
    ) -> Result<Arc<Remembered>, Error> {
        let mut servers = self.lock();
        servers.retain(|(_, known)| known.met.elapsed() < DAY);
        let known = servers.iter().position(|(other, _)| other == server);
        let entry = match known.and_then(|place| servers.remove(place)) {
            Some(entry) => entry,
            None => {
                let (config, noting) = make()?;
                let mut config = Arc::unwrap_or_clone(config);
                config.enable_early_data = true;
                // of one name: the sessions of another server are in another configuration
                config.resumption = Resumption::in_memory_sessions(1);
                let remembered = Remembered {
                    config: Arc::new(config),
                    noting,
                    met: Instant::now(),
                    tokens: Arc::new(TokenMemoryCache::new(1, 8)),
                    last: Mutex::default(),
                };
                (server.clone(), Arc::new(remembered))
            }
        };
        let remembered = Arc::clone(&entry.1);
        servers.push_back(entry);
        if servers.len() > SERVERS {
            servers.pop_front();
        }
        Ok(remembered)
    }
}

impl Remembered {
    fn lock(&self) -> MutexGuard<'_, Option<(SocketAddr, Settings)>> {
        self.last.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Which of the server's addresses answered last, and what it takes.
    pub(super) fn last(&self) -> Option<(SocketAddr, Settings)> {
        self.lock().clone()
    }

    /// The server has told what it takes.
    pub(crate) fn remember(&self, at: SocketAddr, settings: Settings) {
        *self.lock() = Some((at, settings));
    }

    /// The server did not answer: the next connection waits for it.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// Why the server's certificate was not taken, where it was not.
    pub(crate) fn noted(&self) -> Option<String> {
        let noted = self.noting.noted()?;
        Some(super::tls::explain(&noted))
    }
}

/// Lets clients send in their first flight. A session is kept here and taken out when it is resumed, so
/// that a first flight that is sent again resumes none, and what is in it is not even read.
pub(super) fn resumable(config: &mut ServerConfig) {
    config.max_early_data_size = u32::MAX;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    // each connection that resumes one is given another
    config.send_tls13_tickets = 1;
}

/// Lets clients show in their first packet that an address is theirs.
pub(super) fn address_tokens() -> ValidationTokenConfig {
    let mut config = ValidationTokenConfig::default();
    config.sent(1).lifetime(DAY).log(Arc::new(Used::default()));
    config
}

/// Tokens that were used, the last of them: each is good once.
#[derive(Default)]
struct Used(Mutex<[HashSet<u128>; 2]>);

impl TokenLog for Used {
    fn check_and_insert(
        &self,
        nonce: u128,
        _issued: SystemTime,
        _lifetime: Duration,
    ) -> Result<(), TokenReuseError> {
        let mut used = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let [now, before] = &mut *used;
        if before.contains(&nonce) || !now.insert(nonce) {
            return Err(TokenReuseError);
        }
        if now.len() >= SESSIONS {
            *before = std::mem::take(now);
        }
        Ok(())
    }
}
