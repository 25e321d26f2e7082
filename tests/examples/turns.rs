//! How late timers are beside scripts that compute without end: `cargo run --release -p hbi-tests
//! --example turns`.
//!
//! Everything is on one thread, which the scripts have to share with the timers, and on two workers.

use std::time::{Duration, Instant};

use hbi::{HostingEnv, env::Bounds, testing};

/// Timers measured each time, a millisecond apart.
const TIMERS: usize = 2_000;

const TEXTS: [&str; 4] = [
    "loop { }",
    "let n = 0; while true { n += 1; }",
    "let s = \"x\"; for i in 0..13 { s += s; } loop { let t = s.to_upper(); }",
    "let a = []; for i in 0..900 { a.push(i); } loop { let b = a; b.reverse(); }",
];

fn main() {
    let one = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let two = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    println!("how late timers of 1 ms are, in µs (tokio's own grain is 1 ms)");
    println!(
        "{:<12} {:>8} {:>8} {:>8} {:>8}",
        "threads", "scripts", "p50", "p99", "most"
    );
    for (name, runtime) in [("one", one), ("two", two)] {
        let runtime = runtime.expect("a runtime can be had");
        for scripts in [0, 1, 4, 64] {
            let mut late = runtime
                .block_on(async { tokio::spawn(late_beside(scripts)).await })
                .expect("it does not panic");
            late.sort_unstable();
            let at = |part: usize| late[(late.len() - 1) * part / 100].as_micros();
            let (p50, p99, most) = (at(50), at(99), at(100));
            println!("{name:<12} {scripts:>8} {p50:>8} {p99:>8} {most:>8}");
        }
    }
}

async fn late_beside(scripts: usize) -> Vec<Duration> {
    let mut bounds = Bounds::default();
    bounds.operations = u64::MAX;
    bounds.wall_clock = Duration::from_secs(600);
    let pair = testing::pair(HostingEnv::new().bounds(bounds), HostingEnv::new())
        .await
        .expect("peers in memory can be joined");
    let _long: Vec<_> = (0..scripts)
        .map(|n| pair.client.script::<()>(TEXTS[n % TEXTS.len()]).send())
        .collect();
    let mut late = Vec::with_capacity(TIMERS);
    for _ in 0..TIMERS {
        let due = Instant::now() + Duration::from_millis(1);
        tokio::time::sleep_until(due.into()).await;
        late.push(due.elapsed());
    }
    late
}
