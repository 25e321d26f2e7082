//! Testing services in memory: two peers joined by a wire that a test can cut or slow down.
//!
//! [`pair`] joins two hosting environments without sockets, so that tests need no ports and run
//! under tokio's paused clock (`#[tokio::test(start_paused = true)]`, feature `test-util` of tokio):
//! deadlines and delays then pass at once, and in order.
//!
//! ```
//! use std::time::Duration;
//! use hbi::{HostingEnv, testing};
//!
//! # let paused = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
//! # paused().unwrap().block_on(async {
//! let server = HostingEnv::new().function("double", |n: i64| n * 2);
//! let pair = testing::pair(server, HostingEnv::new()).await?;
//! let double = || pair.client.script("double(n)").bind("n", 2);
//! let four: i64 = double().await?;
//! assert_eq!(four, 4);
//!
//! // a slow wire: the deadline passes before the answer is back
//! pair.wire.delay(Duration::from_secs(2));
//! let late: hbi::Result<i64> = double().within(Duration::from_secs(3)).await;
//! assert!(late.unwrap_err().is_timeout());
//!
//! pair.wire.cut();
//! let gone: hbi::Result<i64> = double().await;
//! assert!(gone.unwrap_err().is_disconnected());
//! # Ok::<(), hbi::Error>(()) }).unwrap();
//! ```

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split},
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::{Connection, HostingEnv, Options, Result, transport::Stream};

/// Bytes that each end of the wire takes before its peer has to wait.
const PIPE: usize = 64 << 10;

/// Bytes that may be under way in one direction while the wire is slow.
const UNDER_WAY: usize = 1 << 20;

/// Bytes that pass a slow wire in one go.
const PIECE: usize = 1 << 10;

/// What takes longer does not come: some 30 years.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// Two peers in one process, and the wire between them. Dropping it says goodbye.
#[derive(Debug)]
pub struct Pair {
    /// The connection as the server's side has it: talks to the client.
    pub server: Connection,
    /// The connection as the client's side has it: talks to the server.
    pub client: Connection,
    /// What joins them.
    pub wire: Wire,
}

/// Joins two peers with default options: `server` is what the client finds, `client` what the
/// server finds.
///
/// # Errors
/// When an environment exposes a name twice.
pub async fn pair(server: HostingEnv, client: HostingEnv) -> Result<Pair> {
    let options = Options::new();
    pair_with((&options, server), (&options, client)).await
}

/// Joins two peers, each with options of its own.
///
/// # Errors
/// As [`pair`].
pub async fn pair_with(
    server: (&Options, HostingEnv),
    client: (&Options, HostingEnv),
) -> Result<Pair> {
    let (wire, near, far) = Wire::new();
    let server = server.0.join(Stream::Mem(near), false, server.1);
    let client = client.0.join(Stream::Mem(far), false, client.1);
    let (server, client) = tokio::try_join!(server, client)?;
    Ok(Pair {
        server,
        client,
        wire,
    })
}

/// The wire between two peers: fast and whole, until it is told otherwise. A cheap handle; dropping
/// it leaves the wire as it is.
#[derive(Debug, Clone)]
pub struct Wire {
    pace: Arc<watch::Sender<Pace>>,
    carrying: AbortHandle,
}

/// How fast bytes pass.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    delay: Duration,
    /// Bytes per second.
    rate: Option<u64>,
}

impl Wire {
    fn new() -> (Self, DuplexStream, DuplexStream) {
        let (near, near_end) = duplex(PIPE);
        let (far, far_end) = duplex(PIPE);
        let (pace, paced) = watch::channel(Pace::default());
        let carrying = tokio::spawn(async move {
            let (near_from, near_to) = split(near_end);
            let (far_from, far_to) = split(far_end);
            // an end that is gone is an error of writing to it, and ends both directions
            let _ = tokio::try_join!(
                carry(near_from, far_to, paced.clone()),
                carry(far_from, near_to, paced)
            );
        });
        let wire = Self {
            pace: Arc::new(pace),
            carrying: carrying.abort_handle(),
        };
        (wire, near, far)
    }

    /// Cuts the connection, as a cable that breaks: what is under way is lost, and no goodbye is
    /// said. It cannot be mended.
    pub fn cut(&self) {
        self.carrying.abort();
    }

    /// Lets bytes take this long from one peer to the other, from now on: half of a round trip.
    /// What is under way keeps its time, and is not overtaken. At most 1 MiB is under way in each
    /// direction; more waits where it is sent.
    pub fn delay(&self, delay: Duration) {
        self.pace.send_modify(|pace| pace.delay = delay);
    }

    /// Lets at most this many bytes pass per second in each direction, from now on; `None` as many
    /// as come. Of 0 it makes 1.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        let rate = bytes_per_second.map(|rate| rate.max(1));
        self.pace.send_modify(|pace| pace.rate = rate);
    }
}

/// Carries bytes in one direction to their end.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    paced: watch::Receiver<Pace>,
) -> io::Result<()> {
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut bytes = 0;
    let mut ended = false;
    // when the last byte that was taken has entered the wire, and when it leaves it
    let (mut entered, mut leaves) = (Instant::now(), Instant::now());
    let mut piece = vec![0; PIPE];
    loop {
        let now = Instant::now();
        while under_way.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, piece)) = under_way.pop_front() {
                bytes -= piece.len();
                to.write_all(&piece).await?;
            }
        }
        let next = under_way.front().map(|(at, _)| *at);
        if ended && next.is_none() {
            return to.shutdown().await;
        }
        let most = match paced.borrow().rate {
            Some(_) => PIECE,
            None => PIPE,
        };
        tokio::select! {
            biased;
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            read = from.read(&mut piece[..most]), if !ended && bytes < UNDER_WAY => {
                let piece = &piece[..read?];
                if piece.is_empty() {
                    ended = true;
                    continue;
                }
                let pace = *paced.borrow();
                entered = entered.max(Instant::now()) + pace.takes(piece.len());
                leaves = leaves.max(entered + pace.delay.min(NEVER));
                bytes += piece.len();
                under_way.push_back((leaves, piece.to_vec()));
            }
        }
    }
}

impl Pace {
    /// How long so many bytes take to enter the wire.
    fn takes(self, bytes: usize) -> Duration {
        match self.rate {
            Some(rate) => Duration::from_secs_f64(bytes as f64 / rate as f64),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> HostingEnv {
        HostingEnv::new().function("size", |data: Vec<u8>| data.len())
    }

    async fn size(pair: &Pair, bytes: usize) -> Result<usize> {
        let call = pair.client.script("size(data)");
        call.bind("data", vec![7u8; bytes]).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_wire_takes_no_time() {
        let began = Instant::now();
        let pair = pair(echo(), echo()).await.unwrap();
        assert_eq!(size(&pair, 300_000).await.unwrap(), 300_000);
        let back: usize = pair.server.script("size([1, 2])").await.unwrap();
        assert_eq!(back, 2);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_half_of_a_round_trip() {
        let pair = pair(echo(), echo()).await.unwrap();
        pair.wire.delay(Duration::from_millis(70));
        let began = Instant::now();
        assert_eq!(size(&pair, 10).await.unwrap(), 10);
        assert_eq!(began.elapsed(), Duration::from_millis(140));
        pair.wire.delay(Duration::ZERO);
        let began = Instant::now();
        assert_eq!(size(&pair, 10).await.unwrap(), 10);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_without_end_is_no_cut() {
        let pair = pair(echo(), echo()).await.unwrap();
        pair.wire.delay(Duration::MAX);
        let call = pair.client.script::<usize>("size([1, 2])");
        let error = call.within(Duration::from_secs(1)).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(pair.client.closed().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_wire_passes_so_many_bytes_a_second() {
        let pair = pair(echo(), echo()).await.unwrap();
        pair.wire.throttle(Some(10_000));
        let began = Instant::now();
        assert_eq!(size(&pair, 50_000).await.unwrap(), 50_000);
        let took = began.elapsed();
        // 5 s for the bytes of the argument, and little more for what is around them
        let seconds = took.as_secs_f64();
        assert!((5.0..12.0).contains(&seconds), "{took:?}");
        pair.wire.throttle(None);
        // what has entered already keeps its time
        assert_eq!(size(&pair, 10).await.unwrap(), 10);
        let began = Instant::now();
        assert_eq!(size(&pair, 50_000).await.unwrap(), 50_000);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_ends_both_sides() {
        let pair = pair(echo(), echo()).await.unwrap();
        pair.wire.cut();
        let error = size(&pair, 10).await.unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        assert!(pair.server.wait_closed().await.is_disconnected());
        assert!(pair.client.wait_closed().await.is_disconnected());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_during_a_call_loses_it() {
        let server = HostingEnv::new().async_function("never", std::future::pending::<()>);
        let pair = pair(server, HostingEnv::new()).await.unwrap();
        let call = pair.client.script::<()>("never()").send();
        let cut = async {
            while pair.server.conversations().1 == 0 {
                tokio::task::yield_now().await;
            }
            pair.wire.cut();
        };
        let (answer, ()) = tokio::join!(call, cut);
        assert!(answer.unwrap_err().is_disconnected());
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_follow_the_paused_clock() {
        let server = HostingEnv::new().async_function("never", std::future::pending::<()>);
        let pair = pair(server, HostingEnv::new()).await.unwrap();
        let began = Instant::now();
        let call = pair.client.script("never()");
        let answer: Result<()> = call.within(Duration::from_secs(3600)).await;
        assert!(answer.unwrap_err().is_timeout());
        let took = began.elapsed().as_secs();
        assert!((3600..3602).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_passes_the_wire() {
        let pair = pair(echo(), echo()).await.unwrap();
        pair.client.close(Duration::from_secs(1)).await.unwrap();
        pair.server.close(Duration::from_secs(1)).await.unwrap();
    }
}
