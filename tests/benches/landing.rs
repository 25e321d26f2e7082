//! What it costs to land: to compile a script, to run one that is known, a direct call, a script
//! with three calls, a script with one wait. Both peers are in one process and on one thread, joined
//! in memory; what a round trip takes without any landing is in `a direct call`.
//!
//! `cargo bench -p hbi-tests --bench landing`

use std::{cell::Cell, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use hbi::{HostingEnv, Peer, Settings, testing};
use tokio::runtime::Runtime;

fn exposed() -> HostingEnv {
    HostingEnv::new()
        .function("add", |a: i64, b: i64| a + b)
        .async_function("later", |n: i64| async move {
            tokio::task::yield_now().await;
            n
        })
}

fn script(bench: &mut Criterion, runtime: &Runtime, peer: &Peer, name: &str, source: &'static str) {
    bench.bench_function(name, |bencher| {
        bencher.iter(|| {
            let script = peer.script::<i64>(source).bind("n", black_box(3));
            runtime.block_on(async { script.await.expect("it lands") })
        });
    });
}

fn landing(bench: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had");
    let pair = runtime
        .block_on(testing::pair(exposed(), HostingEnv::new()))
        .expect("peers in memory can be joined");
    let peer = &pair.client;

    let count = Cell::new(0_u64);
    let texts = Settings::default().scripts as u64;
    bench.bench_function("a script that is new each time", |bencher| {
        bencher.iter(|| {
            // more than are kept, so that none is known
            count.set((count.get() + 1) % (2 * texts));
            let script = peer.script::<i64>(format!("n + {}", count.get()));
            let script = script.bind("n", black_box(3));
            runtime.block_on(async { script.await.expect("it lands") })
        });
    });
    for (name, source) in [
        ("a script that is known", "n + 1"),
        ("a direct call", "add(n, n)"),
        (
            "a straight line of three calls",
            "add(add(add(n, 1), 2), 3)",
        ),
        (
            "a script with three calls",
            "add(n, 1) + add(n, 2) + add(n, 3)",
        ),
        ("a direct call that waits", "later(n)"),
        ("a script with one wait", "later(n) + 1"),
        (
            "a script with a loop of a hundred",
            "let t = 0; for i in 0..100 { t += i * n; } t",
        ),
        (
            "a script that fills a list of a hundred",
            "let a = []; for i in 0..100 { a.push(i * n); } a.len()",
        ),
    ] {
        script(bench, &runtime, peer, name, source);
    }
}

criterion_group!(benches, landing);
criterion_main!(benches);
