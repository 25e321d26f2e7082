//! Compositions at their edges: large, deep, shared, in loops, with deadlines, and those that fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hbi::{Call, HostingEnv, Kind, Reactor, testing::Pair};

#[hbi::service]
trait Calc {
    async fn add(&self, a: i64, b: i64) -> i64;
    async fn id(&self, n: i64) -> i64;
    async fn list(&self, len: i64) -> Vec<i64>;
    /// Counts its calls.
    async fn count(&self) -> usize;
    /// Never comes back.
    async fn slow(&self) -> i64;
    /// Answers once `slow` was asked for.
    async fn open(&self) -> Reactor<TalkStub>;
    async fn all(&self, numbers: Vec<i64>) -> usize;
    #[hbi(notify)]
    async fn note(&self, n: i64);
    async fn left(&self, cx: &hbi::Caller) -> bool;
}

#[hbi::service(flat)]
trait Talk {
    async fn say(&self, n: i64) -> i64;
    async fn hang(&self) -> i64;
}

#[derive(Debug, Default)]
struct MyCalc {
    counted: AtomicUsize,
    calls: AtomicUsize,
}

struct MyTalk;

impl Talk for MyTalk {
    async fn say(&self, n: i64) -> i64 {
        n
    }

    async fn hang(&self) -> i64 {
        std::future::pending().await
    }
}

impl Calc for Arc<MyCalc> {
    async fn add(&self, a: i64, b: i64) -> i64 {
        self.calls.fetch_add(1, Ordering::SeqCst);
        a.wrapping_add(b)
    }

    async fn id(&self, n: i64) -> i64 {
        self.calls.fetch_add(1, Ordering::SeqCst);
        n
    }

    async fn list(&self, len: i64) -> Vec<i64> {
        (0..len).collect()
    }

    async fn count(&self) -> usize {
        self.counted.fetch_add(1, Ordering::SeqCst)
    }

    async fn slow(&self) -> i64 {
        std::future::pending().await
    }

    async fn open(&self) -> Reactor<TalkStub> {
        Reactor::new(TalkHost::new(MyTalk))
    }

    async fn all(&self, numbers: Vec<i64>) -> usize {
        numbers.len()
    }

    async fn note(&self, _n: i64) {
        self.calls.fetch_add(1, Ordering::SeqCst);
    }

    async fn left(&self, cx: &hbi::Caller) -> bool {
        cx.deadline().is_some()
    }
}

async fn calc() -> (Arc<MyCalc>, CalcStub, Pair) {
    let calc = Arc::new(MyCalc::default());
    let env = HostingEnv::new().service(CalcHost::new(Arc::clone(&calc)));
    let pair = hbi::testing::pair(env, HostingEnv::new()).await.unwrap();
    (calc, CalcStub::new(&pair.client), pair)
}

#[tokio::test]
async fn more_than_255_values_are_bound() {
    let (_, calc, pair) = calc().await;
    for len in [255, 256, 300] {
        let all: Call<Vec<i64>> = (0..len).map(|n| calc.id(n)).collect();
        assert_eq!(all.await.unwrap(), (0..len).collect::<Vec<_>>());
    }
    let sums: Call<Vec<i64>> = (0..300).map(|n| calc.add(n, n)).collect();
    assert_eq!(
        sums.await.unwrap(),
        (0..300).map(|n| 2 * n).collect::<Vec<_>>()
    );
    // and by hand
    let mut script = hbi::Script::new("a299");
    for n in 0..300 {
        script = script.bind(format!("a{n}"), n);
    }
    assert_eq!(pair.client.run::<i64>(script).await.unwrap(), 299);
}

#[tokio::test]
async fn names_and_texts_that_are_too_long_are_refused_at_once() {
    let (_, calc, pair) = calc().await;
    let fits = "a".repeat(255);
    let script = hbi::Script::new(fits.clone()).bind(fits, 7);
    assert_eq!(pair.client.run::<i64>(script).await.unwrap(), 7);
    let script = hbi::Script::new("1").bind("a".repeat(256), 7);
    let error = pair.client.run::<i64>(script).await.unwrap_err();
    assert!(
        error.kind() == Kind::Misuse && error.message().contains("256 bytes"),
        "{error}"
    );
    // names fill the frame, too
    let mut script = hbi::Script::new("1");
    for n in 0..300 {
        script = script.bind(format!("{}{n}", "a".repeat(250)), n);
    }
    let error = pair.client.run::<i64>(script).await.unwrap_err();
    assert!(error.is_limit() && !error.was_sent(), "{error}");
    assert_eq!(calc.id(1).await.unwrap(), 1, "the connection goes on");
}
