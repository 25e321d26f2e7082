//! Arbitrary text lands in an environment: the connection stands, and nothing panics.

#![no_main]

use std::{cell::RefCell, time::Duration};

use hbi::{
    HostingEnv,
    env::Bounds,
    testing::{Pair, pair},
};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tokio::runtime::Runtime;

/// Texts that one connection lands: it keeps them all.
const TEXTS: u32 = 500;

struct Host {
    runtime: Runtime,
    pair: Option<Pair>,
    left: u32,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be had"),
        pair: None,
        left: 0,
    });
}

fn exposed() -> HostingEnv {
    let mut bounds = Bounds::default();
    bounds.operations = 5_000;
    bounds.calls = 200;
    bounds.wall_clock = Duration::from_secs(5);
    HostingEnv::new()
        .bounds(bounds)
        .function("double", |n: i64| n.wrapping_mul(2))
        .function("echo", |text: String| text)
        .function("max", |a: i64, b: i64| a.max(b))
        .async_function("later", |n: i64| async move {
            tokio::task::yield_now().await;
            n
        })
        .value("limit", &[1, 2, 3])
        .on_print(|_| {})
        .on_error(|_| {})
}

fuzz_target!(|source: String| {
    HOST.with_borrow_mut(|host| {
        let Host {
            runtime,
            pair: kept,
            left,
        } = host;
        if *left == 0 {
            *kept = None;
            *left = TEXTS;
        }
        *left -= 1;
        runtime.block_on(async {
            if kept.is_none() {
                *kept = pair(exposed(), HostingEnv::new()).await.ok();
            }
            let peer = &kept.as_ref().expect("peers in memory can be joined").client;
            let script = peer.script::<IgnoredAny>(source);
            let answer = script.bind("a", [1, 2, 3]).bind("b", "tea").await;
            if let Err(error) = answer {
                assert!(!error.is_panic() && !error.is_disconnected(), "{error}");
            }
            let four: i64 = peer
                .script("double(n)")
                .bind("n", 2)
                .await
                .expect("it stands");
            assert_eq!(four, 4);
        });
    });
});
