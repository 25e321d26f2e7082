//! A UDP relay that loses packets and makes the way long, for tests and measurements of QUIC.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// What the relay does to packets.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Packets lost of 1,000, each way.
    pub permille: u64,
    /// How long each way is.
    pub delay: Duration,
    /// What makes the same packets get lost again.
    pub seed: u64,
}

/// A relay between clients and one server; it ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    lost: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
    moved: Arc<AtomicBool>,
    loses: Arc<Mutex<Option<Range<usize>>>>,
    _tasks: JoinSet<()>,
}

/// Decides by a sequence of numbers that is the same each time (xorshift).
#[derive(Debug, Clone)]
pub(crate) struct Dice(Arc<Mutex<u64>>, u64);

impl Dice {
    pub(crate) fn new(loss: Loss) -> Self {
        Self(Arc::new(Mutex::new(loss.seed | 1)), loss.permille)
    }

    pub(crate) fn loses(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % 1000 < self.1
    }
}

impl Relay {
    /// A relay to a server, which is reached at [`Self::address`].
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn start(server: SocketAddr, loss: Loss) -> io::Result<Self> {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let address = near.local_addr()?;
        let (lost, passed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let way = Way {
            loss,
            dice: Dice::new(loss),
            lost: Arc::clone(&lost),
            passed: Arc::clone(&passed),
        };
        let moved = Arc::<AtomicBool>::default();
        let moves = Arc::clone(&moved);
        let loses = Arc::<Mutex<Option<Range<usize>>>>::default();
        let lose = Arc::clone(&loses);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients: HashMap<SocketAddr, mpsc::UnboundedSender<Packet>> = HashMap::new();
            // ends with the relay's own task
            let mut ways = JoinSet::new();
            let mut packet = vec![0; 1 << 16];
            while let Ok((len, from)) = near.recv_from(&mut packet).await {
                if moves.swap(false, Ordering::Relaxed) {
                    clients.clear();
                }
                if take_fit(&lose, len) {
                    way.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                if let Some(forth) = clients.get(&from) {
                    way.send(forth, &packet[..len]);
                    continue;
                }
                let Ok(far) = UdpSocket::bind("127.0.0.1:0").await else {
                    continue;
                };
                if far.connect(server).await.is_err() {
                    continue;
                }
                let far = Arc::new(far);
                let (forth, packets) = mpsc::unbounded_channel();
                ways.spawn(pass(packets, Arc::clone(&far), None));
                ways.spawn(way.clone().back(far, Arc::clone(&near), from));
                way.send(&forth, &packet[..len]);
                clients.insert(from, forth);
            }
        });
        Ok(Self {
            address,
            lost,
            passed,
            moved,
            loses,
            _tasks: tasks,
        })
    }

    /// From now on clients come from other addresses, as the server sees it.
    pub fn move_clients(&self) {
        self.moved.store(true, Ordering::Relaxed);
    }

    /// The next packet of a client that is so large will be lost.
    pub fn lose_next(&self, bytes: Range<usize>) {
        *self.loses.lock().unwrap_or_else(|e| e.into_inner()) = Some(bytes);
    }

    /// Where clients reach the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many packets were lost, and how many were passed on.
    pub fn packets(&self) -> (u64, u64) {
        (
            self.lost.load(Ordering::Relaxed),
            self.passed.load(Ordering::Relaxed),
        )
    }
}

/// Whether a packet is the one that is to be lost.
fn take_fit(lose: &Mutex<Option<Range<usize>>>, len: usize) -> bool {
    let mut lose = lose.lock().unwrap_or_else(|e| e.into_inner());
    let fits = lose.as_ref().is_some_and(|bytes| bytes.contains(&len));
    if fits {
        *lose = None;
    }
    fits
}

/// When a packet is to arrive, and what is in it.
pub(crate) type Packet = (Instant, Vec<u8>);

#[derive(Debug, Clone)]
struct Way {
    loss: Loss,
    dice: Dice,
    lost: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
}

impl Way {
    fn send(&self, to: &mpsc::UnboundedSender<Packet>, packet: &[u8]) {
        if self.dice.loses() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        // nobody receives it when the relay ends
        let _ = to.send((Instant::now() + self.loss.delay, packet.to_vec()));
    }

    async fn back(self, far: Arc<UdpSocket>, near: Arc<UdpSocket>, client: SocketAddr) {
        let (back, packets) = mpsc::unbounded_channel();
        let mut passing = JoinSet::new();
        passing.spawn(pass(packets, near, Some(client)));
        let mut packet = vec![0; 1 << 16];
        loop {
            // a server that is gone refuses packets, one after the other
            if let Ok(len) = far.recv(&mut packet).await {
                self.send(&back, &packet[..len]);
            }
        }
    }
}

async fn pass(
    mut packets: mpsc::UnboundedReceiver<Packet>,
    socket: Arc<UdpSocket>,
    to: Option<SocketAddr>,
) {
    while let Some((at, packet)) = packets.recv().await {
        sleep_until(at).await;
        let sent = match to {
            Some(to) => socket.send_to(&packet, to).await,
            None => socket.send(&packet).await,
        };
        // one that cannot be sent is lost, as any other may be
        drop(sent);
    }
}
