//! Measures a small call beside a bulk transfer over a way that loses packets.
//!
//! ```text
//! cargo run --release -p hbi-tests --example loss
//! ```
//!
//! QUIC goes through a UDP relay in this process, which delays each packet by 20 ms each way and loses
//! 0, 1 and 5 % of them each way. TCP and TLS are measured where a network namespace can be made whose
//! loopback does the same (Linux, root, `tc` with netem): segments cannot be lost by a program. Run it
//! within one, and name it so:
//!
//! ```text
//! unshare --net sh -c 'ip link set lo up && tc qdisc add dev lo root netem delay 20ms loss 1% \
//!     && cargo run --release -p hbi-tests --example loss -- here'
//! ```

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
    async fn add(&self, a: i64, b: i64) -> i64;
    async fn bulk(&self) -> hbi::Data;
}

struct MyFar;

impl Far for MyFar {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }

    async fn bulk(&self) -> hbi::Data {
        let piece = bytes::Bytes::from(vec![7; 64 << 10]);
        hbi::Data::stream(futures_util::stream::repeat_with(move || {
            Ok::<_, hbi::Error>(piece.clone())
        }))
    }
}

/// How long each way is.
const DELAY: Duration = Duration::from_millis(20);

/// Calls measured, one after the other.
const CALLS: usize = 500;

#[tokio::main]
async fn main() -> hbi::Result<()> {
    println!("{CALLS} calls, one after the other, round trip in ms:\n");
    println!("transport | lost | beside | median | p99 | longest | bulk MB/s");
    println!("--- | --- | --- | --- | --- | --- | ---");
    if std::env::args().nth(1).as_deref() == Some("here") {
        for over in [Transport::Quic, Transport::Tls, Transport::Tcp] {
            let server = serve(over).await?;
            measure(&format!("{over:?}"), "here", server.address().to_string()).await?;
        }
        return Ok(());
    }
    for percent in [0, 1, 5] {
        let server = serve(Transport::Quic).await?;
        let Scheme::Quic(at) = server.address().scheme() else {
            unreachable!("it was asked for");
        };
        let loss = Loss {
            permille: percent * 10,
            delay: DELAY,
            seed: 42,
        };
        let host: SocketAddr = at.host.parse().expect("it is bound to an address");
        let relay = Relay::start(host, loss).await.expect("there are sockets");
        let pin = at.pin.expect("the certificate is self-signed");
        let address = format!("quic://{}#sha256={pin}", relay.address());
        measure("Quic", &format!("{percent} %"), address).await?;
    }
    Ok(())
}

async fn serve(over: Transport) -> hbi::Result<hbi::Server> {
    let options = over.serving(Options::new());
    let factory = |_peer| async { Ok(HostingEnv::new().service(FarHost::new(MyFar))) };
    options.serve(over.address(), factory).await
}

async fn measure(transport: &str, lost: &str, address: String) -> hbi::Result<()> {
    for beside in ["nothing", "bulk"] {
        let peer = hbi::connect(&address, HostingEnv::new()).await?;
        let far = FarStub::new(&peer);
        far.add(1, 2).await?;
        let (count, moved) = tokio::sync::watch::channel(0_usize);
        let bulk = if beside == "bulk" {
            let mut data = far.bulk().await?;
            Some(tokio::spawn(async move {
                while let Ok(Some(piece)) = data.try_next().await {
                    count.send_modify(|count| *count += piece.len());
                }
            }))
        } else {
            None
        };
        // the transfer finds its pace first
        for n in 0..50 {
            far.add(n, 1).await?;
        }
        let (began, before) = (Instant::now(), *moved.borrow());
        let mut times = Vec::with_capacity(CALLS);
        for n in 0..CALLS as i64 {
            let sent = Instant::now();
            far.add(n, 1).await?;
            times.push(sent.elapsed());
        }
        let speed = (*moved.borrow() - before) as f64 / began.elapsed().as_secs_f64() / 1e6;
        times.sort_unstable();
        let ms = |n: usize| times[n].as_secs_f64() * 1e3;
        let (median, p99, longest) = (ms(CALLS / 2), ms(CALLS * 99 / 100), ms(CALLS - 1));
        println!(
            "{transport} | {lost} | {beside} | {median:.1} | {p99:.1} | {longest:.1} | {speed:.2}"
        );
        if let Some(bulk) = bulk {
            bulk.abort();
        }
        peer.close(Duration::ZERO).await.ok();
    }
    Ok(())
}
