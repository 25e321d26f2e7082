//! Outboxes: pushing never waits, whatever the peer does.

use std::time::Duration;

use hbi::{HostingEnv, Outbox, Policy, testing};
use hbi_tests::work::{ConsumerHost, ConsumerStub, Event, MyConsumer};
use tokio::sync::mpsc;

/// Two peers of which the client consumes events.
async fn joined() -> (testing::Pair, ConsumerStub, mpsc::UnboundedReceiver<Event>) {
    let (me, events) = MyConsumer::new();
    let client = HostingEnv::new().service(ConsumerHost::new(me));
    let pair = testing::pair(HostingEnv::new(), client)
        .await
        .expect("the environments are sound");
    let stub = ConsumerStub::new(&pair.server);
    (pair, stub, events)
}

fn event(n: u32) -> Event {
    Event {
        room: "r".repeat(100),
        n,
    }
}

/// Lets the tasks of this thread go as far as they get.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// Nothing arrives at the client from now on: as if it never read.
fn stall(pair: &testing::Pair) {
    pair.wire.delay(Duration::from_secs(1 << 20));
}

/// Pushes so many events without ever waiting for the peer.
async fn push_all(outbox: &Outbox, stub: &ConsumerStub, count: u32) -> u32 {
    let mut taken = 0;
    for n in 0..count {
        taken += u32::from(outbox.push(stub.pushed(event(n))));
        if n % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    taken
}

#[tokio::test]
async fn events_arrive_in_order() {
    let (pair, stub, mut events) = joined().await;
    let outbox = Outbox::new(&pair.server, 1000, Policy::DropNewest);
    assert_eq!(push_all(&outbox, &stub, 1000).await, 1000);
    // what it holds still leaves
    assert_eq!(outbox.dropped(), 0);
    drop(outbox);
    for n in 0..1000 {
        assert_eq!(events.recv().await.map(|event| event.n), Some(n));
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_costs_the_capacity_and_harms_nobody() {
    const COUNT: u32 = 100_000;
    let (slow, slow_stub, _slow_events) = joined().await;
    let (quick, quick_stub, mut events) = joined().await;
    stall(&slow);
    let to_slow = Outbox::new(&slow.server, 100, Policy::DropOldest);
    let to_quick = Outbox::new(&quick.server, 100, Policy::DropOldest);
    let mut seen = 0;
    for n in 0..COUNT {
        assert!(to_slow.push(slow_stub.pushed(event(n))));
        assert!(to_slow.len() <= 100);
        if n % 100 == 0 {
            assert!(to_quick.push(quick_stub.pushed(event(n))));
            assert_eq!(events.recv().await.map(|event| event.n), Some(n));
            seen += 1;
        }
    }
    assert_eq!((seen, to_quick.dropped()), (1000, 0));
    assert_eq!(to_slow.len(), 100);
    // the rest is what the connection itself takes before it has the peer wait
    let left = u64::from(COUNT) - 100 - to_slow.dropped();
    assert!(left < 10_000, "{left} are with the connection");
}

#[tokio::test]
async fn the_oldest_or_the_newest_is_dropped() {
    for policy in [Policy::DropOldest, Policy::DropNewest] {
        let (pair, stub, mut events) = joined().await;
        let outbox = Outbox::new(&pair.server, 10, policy);
        // its task does not run in between
        for n in 0..100 {
            assert!(outbox.push(stub.pushed(event(n))));
        }
        assert_eq!((outbox.len(), outbox.dropped()), (10, 90));
        let expected: Vec<_> = match policy {
            Policy::DropOldest => (90..100).collect(),
            _ => (0..10).collect(),
        };
        for n in expected {
            assert_eq!(events.recv().await.map(|event| event.n), Some(n));
        }
        assert!(outbox.is_empty());
    }
}

#[tokio::test]
async fn a_peer_that_is_too_slow_is_let_go() {
    let (slow, stub, _events) = joined().await;
    let (other, other_stub, mut other_events) = joined().await;
    stall(&slow);
    let outbox = Outbox::new(&slow.server, 10, Policy::Disconnect);
    let taken = push_all(&outbox, &stub, 100_000).await;
    assert!((10..10_000).contains(&taken), "{taken}");
    slow.server.wait_closed().await;
    assert!(!outbox.push(stub.pushed(event(0))));
    assert!(outbox.is_empty());

    let to_other = Outbox::new(&other.server, 10, Policy::Disconnect);
    assert!(to_other.push(other_stub.pushed(event(5))));
    assert_eq!(other_events.recv().await.map(|event| event.n), Some(5));
}

#[tokio::test]
async fn a_peer_that_is_gone_is_told() {
    let (pair, stub, _events) = joined().await;
    let outbox = Outbox::new(&pair.server, 10, Policy::DropOldest);
    pair.wire.cut();
    pair.server.wait_closed().await;
    settle().await;
    assert!(!outbox.push(stub.pushed(event(1))));
    assert_eq!((outbox.len(), outbox.dropped()), (0, 1));
}
