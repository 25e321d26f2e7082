//! Compositions at their edges: large, deep, shared, in loops, with deadlines, and those that fail.

use std::{
    future::IntoFuture,
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
async fn a_notification_is_sent_once_however_often_it_is_awaited() {
    let (mine, calc, _pair) = calc().await;
    let mut sending = calc.note(1).into_future();
    (&mut sending).await.unwrap();
    let error = (&mut sending).await.unwrap_err();
    assert!(
        error.kind() == Kind::Misuse && error.message().contains("awaited"),
        "{error}"
    );
    // what comes behind has landed after whatever was sent
    assert_eq!(calc.count().await.unwrap(), 0);
    assert_eq!(mine.calls.load(Ordering::SeqCst), 1);
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

#[tokio::test]
async fn what_is_shared_in_the_body_of_a_map_is_compiled_once() {
    let (host, calc, _pair) = calc().await;
    let doubled = calc.list(3).map(|n| {
        let mut sum = calc.add(&n, 0);
        for _ in 0..40 {
            sum = calc.add(&sum, &sum);
        }
        sum
    });
    let doubled = doubled.await.unwrap();
    assert_eq!(doubled, [0, 1 << 40, 2 << 40]);
    assert_eq!(host.calls.load(Ordering::SeqCst), 3 * 41);
}

#[tokio::test]
async fn the_body_of_a_map_runs_for_each_element() {
    let (host, calc, _pair) = calc().await;
    // what does not use the element as well
    let counts = calc.list(3).map(|_| calc.count()).await.unwrap();
    assert_eq!(counts, [0, 1, 2]);
    let counts = calc.list(0).map(|_| calc.count()).await.unwrap();
    assert_eq!(counts, [0; 0]);
    assert_eq!(host.counted.load(Ordering::SeqCst), 3);
    // what was made outside runs once, wherever it is used
    let outside = calc.count();
    let sums = calc.list(3).map(|n| calc.add(n, outside.field("x")));
    drop(sums);
    let one = calc.id(40);
    let sums = calc.list(3).map(|n| calc.add(n, &one));
    let (sums, one) = hbi::all((sums, one)).await.unwrap();
    assert_eq!((sums, one), (vec![40, 41, 42], 40));
    assert_eq!(host.calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn maps_in_maps_run_their_bodies_for_each_element_of_their_own() {
    let (host, calc, _pair) = calc().await;
    let outer = calc.id(10);
    let nested = calc.list(2).map(|a| {
        let each = calc.add(&a, &outer);
        calc.list(2).map(|b| calc.add(calc.add(&a, b), &each))
    });
    let nested = nested.await.unwrap();
    assert_eq!(nested, [[10, 11], [12, 13]]);
    // `outer` once, `each` twice, and two calls for each of four
    assert_eq!(host.calls.load(Ordering::SeqCst), 1 + 2 + 8);
}

#[tokio::test]
async fn what_a_map_makes_stays_in_its_closure() {
    let (host, calc, _pair) = calc().await;
    let mut kept = None;
    let sums = calc.list(2).map(|n| {
        let sum = calc.add(n, 1);
        let twice = calc.add(&sum, &sum);
        kept = Some(sum);
        twice
    });
    let error = hbi::all((sums, kept.unwrap())).await.unwrap_err();
    assert!(error.message().contains("used outside"), "{error}");
    // a map made outside is a value as any other
    let ones = calc.list(2).map(|n| n);
    let lists = calc.list(2).map(|_| ones);
    assert_eq!(lists.await.unwrap(), [[0, 1], [0, 1]]);
    assert_eq!(host.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn deadlines_of_parts_hold_for_the_whole() {
    let (_, calc, _pair) = calc().await;
    let short = Duration::from_millis(20);
    let long = Duration::from_secs(600);
    let error = calc.add(calc.slow().within(short), 1).within(long).await;
    assert!(error.unwrap_err().is_timeout());
    let error = calc.add(1, calc.slow()).within(short).await;
    assert!(error.unwrap_err().is_timeout());
    let error = hbi::all((calc.id(1), calc.slow().within(short))).await;
    assert!(error.unwrap_err().is_timeout());
    let error = calc.list(1).map(|_| calc.slow().within(short)).await;
    assert!(error.unwrap_err().is_timeout());
    // of an object that is not there yet
    let opened = calc.open().within(short);
    let error = opened.hang().await;
    assert!(error.unwrap_err().is_timeout());
    let stub = calc.open().within(long).await.unwrap();
    assert_eq!(stub.say(1).await.unwrap(), 1);
    assert!(calc.left().within(long).await.unwrap());
    assert!(!calc.left().await.unwrap());
}

#[tokio::test]
async fn a_deadline_set_once_sent_is_told_to_be_too_late() {
    let (_, calc, _pair) = calc().await;
    let error = calc.slow().send().within(Duration::from_secs(1)).await;
    let error = error.unwrap_err();
    assert!(
        error.kind() == Kind::Misuse && error.message().contains("within"),
        "{error}"
    );
}

#[tokio::test]
async fn a_composition_that_fails_leaves_its_parts_unsent() {
    let (host, calc, _pair) = calc().await;
    let (_, other, _other) = self::calc().await;
    let a = calc.id(1);
    let error = calc.add(&a, other.id(2)).await.unwrap_err();
    assert!(error.message().contains("another connection"), "{error}");
    let error = calc.add(&a, calc.id(3).send()).await.unwrap_err();
    assert!(error.message().contains("sent before"), "{error}");
    assert_eq!(calc.add(&a, 1).await.unwrap(), 2);
    let error = calc.add(&a, 1).await.unwrap_err();
    assert!(error.message().contains("sent before"), "{error}");
    assert_eq!(host.calls.load(Ordering::SeqCst), 3, "what was sent");
}

#[tokio::test]
async fn a_part_of_what_could_not_be_sent_says_so() {
    let (_host, calc, pair) = calc().await;
    pair.wire.cut();
    pair.client.wait_closed().await;
    let part = calc.id(1);
    let error = calc.add(&part, 1).await.unwrap_err();
    assert!(error.is_disconnected() && !error.was_sent(), "{error}");
    let error = part.await.unwrap_err();
    assert!(
        error.message().contains("given up with a composition"),
        "{error}"
    );
}

/// So many calls in each other.
fn deep(calc: &CalcStub, depth: usize) -> Call<i64> {
    let mut sum = calc.add(1, 0);
    for _ in 1..depth {
        sum = calc.add(sum, 1);
    }
    sum
}

#[tokio::test]
async fn up_to_512_calls_stand_in_each_other() {
    let (_, calc, _pair) = calc().await;
    assert_eq!(deep(&calc, 512).await.unwrap(), 512);
    for depth in [513, 100_000] {
        let error = deep(&calc, depth).await.unwrap_err();
        assert!(
            error.kind() == Kind::Misuse && error.message().contains("512"),
            "{error}"
        );
        drop(deep(&calc, depth));
    }
    let mut call = deep(&calc, 1);
    for _ in 0..100_000 {
        call = call + 1;
    }
    assert!(call.await.is_err());
}

#[tokio::test]
async fn what_is_no_field_is_refused_before_anything_is_sent() {
    let pair = hbi::testing::pair(hbi::HostingEnv::new(), hbi::HostingEnv::new())
        .await
        .unwrap();
    let value = pair.client.script::<i64>("#{a: 1}").call();
    let error = value.field::<i64>("id; 1").await.unwrap_err();
    assert!(!error.was_sent(), "{error}");
}
