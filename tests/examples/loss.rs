//! Measures a small call beside a bulk transfer over a way that loses packets.
//!
//! ```text
//! cargo run --release -p hbi-tests --features tun --example loss
//! ```
//!
//! With the feature `tun`, where a network interface can be made (Linux, root), QUIC, TLS and TCP go
//! through one that delays each packet by 20 ms each way and loses 0, 1 and 5 % of them each way.
//! Without, QUIC goes through a UDP relay that does the same, and the others are left out: no program
//! can lose the kernel's segments.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hbi::{Congestion, HostingEnv, Options, Scheme};
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
    println!("transport | lost | beside | median | p95 | p99 | longest | bulk MB/s");
    println!("--- | --- | --- | --- | --- | --- | --- | ---");
    for percent in [0, 1, 5] {
        let loss = Loss {
            permille: percent * 10,
            delay: DELAY,
            seed: 42,
        };
        if let Err(why) = mirrored(loss, percent).await {
            eprintln!("{why}: QUIC over a relay only");
            relayed(loss, percent).await?;
        }
    }
    Ok(())
}

/// All transports, over a network interface that loses packets.
#[cfg(feature = "tun")]
async fn mirrored(loss: Loss, percent: u64) -> Result<(), String> {
    use hbi_tests::mirror::{FAR, Mirror, NEAR};
    let _mirror = Mirror::start(loss).map_err(|error| format!("no network interface: {error}"))?;
    for (over, congestion) in [
        (Transport::Quic, Congestion::Cubic),
        (Transport::Quic, Congestion::Bbr),
        (Transport::Tls, Congestion::Cubic),
        (Transport::Tcp, Congestion::Cubic),
    ] {
        let near = over.address().replace("127.0.0.1", &NEAR.to_string());
        let done = async {
            let server = serve(over, congestion, &near).await?;
            let far = server.address().to_string();
            let far = far.replace(&NEAR.to_string(), &FAR.to_string());
            measure(&name(over, congestion), percent, far).await
        };
        done.await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(not(feature = "tun"))]
async fn mirrored(_loss: Loss, _percent: u64) -> Result<(), String> {
    Err("built without the feature `tun`".to_owned())
}

/// QUIC, over a relay that loses packets.
async fn relayed(loss: Loss, percent: u64) -> hbi::Result<()> {
    for congestion in [Congestion::Cubic, Congestion::Bbr] {
        let server = serve(Transport::Quic, congestion, "quic://127.0.0.1:0").await?;
        let Scheme::Quic(at) = server.address().scheme() else {
            unreachable!("it was asked for");
        };
        let host: SocketAddr = at.host.parse().expect("it is bound to an address");
        let relay = Relay::start(host, loss).await.expect("there are sockets");
        let pin = at.pin.expect("the certificate is self-signed");
        let address = format!("quic://{}#sha256={pin}", relay.address());
        measure(&name(Transport::Quic, congestion), percent, address).await?;
    }
    Ok(())
}

/// What the system does for TCP is the system's business.
fn name(over: Transport, congestion: Congestion) -> String {
    match over {
        Transport::Quic => format!("QUIC, {congestion:?}"),
        other => format!("{other:?}").to_uppercase(),
    }
}

async fn serve(over: Transport, congestion: Congestion, address: &str) -> hbi::Result<hbi::Server> {
    let options = over.serving(Options::new()).congestion(congestion);
    let factory = |_peer| async { Ok(HostingEnv::new().service(FarHost::new(MyFar))) };
    options.serve(address, factory).await
}

async fn measure(transport: &str, percent: u64, address: String) -> hbi::Result<()> {
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
        let [median, p95, p99] = [50, 95, 99].map(|percent| ms(CALLS * percent / 100));
        let longest = ms(CALLS - 1);
        println!(
            "{transport} | {percent} % | {beside} | {median:.1} | {p95:.1} | {p99:.1} | {longest:.1} | \
             {speed:.2}"
        );
        if let Some(bulk) = bulk {
            bulk.abort();
        }
        peer.close(Duration::ZERO).await.ok();
    }
    Ok(())
}
