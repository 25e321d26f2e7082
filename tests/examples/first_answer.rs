//! How long the first answer takes on a new QUIC connection, counted from before it is made, where each
//! packet is 20 ms under way: with 0-RTT and without, to a server that the client was connected to
//! before.
//!
//! `cargo run -p hbi-tests --example first_answer`

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hbi::{HostingEnv, Options, Scheme};
use hbi_tests::{
    lossy::{Loss, Relay},
    pair::Transport,
};

#[hbi::service]
trait Far {
    #[hbi(idempotent)]
    async fn add(&self, a: i64, b: i64) -> i64;
}

struct MyFar;

impl Far for MyFar {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }
}

const ROUNDS: usize = 20;

#[tokio::main]
async fn main() -> hbi::Result<()> {
    let server = Transport::Quic.serving(Options::new()).zero_rtt(true);
    let factory = |_peer| async { Ok(HostingEnv::new().service(FarHost::new(MyFar))) };
    let server = server.serve("quic://127.0.0.1:0", factory).await?;
    let Scheme::Quic(at) = server.address().scheme() else {
        unreachable!("it was asked for");
    };
    let host: SocketAddr = at.host.parse().expect("it is bound to an address");
    let loss = Loss {
        permille: 0,
        delay: Duration::from_millis(20),
        seed: 1,
    };
    let relay = Relay::start(host, loss).await.expect("there are sockets");
    let pin = at.pin.expect("the certificate is self-signed");
    let address = format!("quic://{}#sha256={pin}", relay.address());
    println!("| 0-RTT | median | shortest | longest |");
    println!("|---|---|---|---|");
    for zero_rtt in [false, true] {
        let options = Options::new().zero_rtt(zero_rtt);
        let mut took = Vec::new();
        // the first of them meets the server
        for _ in 0..=ROUNDS {
            let began = Instant::now();
            let peer = options.connect(&address, HostingEnv::new()).await?;
            assert_eq!(FarStub::new(&peer).add(1, 2).await?, 3);
            took.push(began.elapsed().as_secs_f64() * 1e3);
            peer.close(Duration::from_secs(10)).await?;
        }
        let mut took = took.split_off(1);
        took.sort_by(f64::total_cmp);
        let median = (took[ROUNDS / 2 - 1] + took[ROUNDS / 2]) / 2.0;
        let on = if zero_rtt { "on" } else { "off" };
        println!(
            "| {on} | {median:.1} | {:.1} | {:.1} |",
            took[0],
            took[ROUNDS - 1]
        );
    }
    Ok(())
}
