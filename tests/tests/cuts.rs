//! A connection that is cut, at every stage of what goes on over it: each wait ends with the reason,
//! on both sides, and nothing hangs.

#![allow(
    clippy::async_yields_async,
    reason = "what brings a connection to a stage answers the wait that comes after"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hbi::{HoCo, HostingEnv, testing};
use tokio::sync::mpsc;

/// What ends each stage is told here: the stage's name and its error.
type Told = mpsc::UnboundedSender<(&'static str, hbi::Error)>;

/// A service whose methods wait at one stage each, say when they are there, and tell how it ended.
#[hbi::service]
trait Stages {
    async fn wait(&self);
    async fn take_items(&self, items: hbi::Items<i64>) -> i64;
    async fn take_data(&self, data: hbi::Data) -> i64;
    async fn give_items(&self) -> hbi::Items<Vec<u8>>;
    async fn give_data(&self) -> hbi::Data;
    async fn call_back(&self, cx: &hbi::Caller);
    async fn object(&self) -> hbi::Reactor<ThingStub>;
    #[hbi(converse)]
    async fn receives_object(&self, co: HoCo) -> hbi::Result<()>;
    #[hbi(converse)]
    async fn receives_data(&self, co: HoCo) -> hbi::Result<()>;
    #[hbi(converse)]
    async fn sends_much(&self, co: HoCo) -> hbi::Result<()>;
    #[hbi(converse)]
    async fn sends_code(&self, co: HoCo) -> hbi::Result<()>;
}

#[hbi::service(flat)]
trait Thing {
    async fn stay(&self);
}

#[hbi::service]
trait Consumer {
    async fn never(&self);
}

/// Waits for ever at each method.
struct Still;

impl Consumer for Still {
    async fn never(&self) {
        std::future::pending().await
    }
}

impl Thing for Still {
    async fn stay(&self) {
        std::future::pending().await
    }
}

struct MyStages {
    there: mpsc::UnboundedSender<()>,
    told: Told,
}

impl MyStages {
    fn there(&self) {
        self.there.send(()).expect("the test waits for it");
    }

    /// Keeps what ended a stage that the host waited in, past the cancellation of its method.
    fn tell<T: Send + 'static>(
        &self,
        stage: &'static str,
        end: impl Future<Output = hbi::Result<T>> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let told = self.told.clone();
        tokio::spawn(async move {
            if let Err(error) = end.await {
                // the test may be over
                let _ = told.send((stage, error));
            }
        })
    }
}

/// Bytes without end.
fn endless() -> hbi::Data {
    let piece = bytes::Bytes::from(vec![1; 10_000]);
    hbi::Data::stream(futures_util::stream::repeat_with(move || {
        Ok::<_, hbi::Error>(piece.clone())
    }))
}

async fn no_answer<T>(task: tokio::task::JoinHandle<()>) -> hbi::Result<T> {
    let _ = task.await;
    std::future::pending().await
}

impl Stages for MyStages {
    async fn wait(&self) {
        self.there();
        std::future::pending().await
    }

    async fn take_items(&self, mut items: hbi::Items<i64>) -> i64 {
        let _: hbi::Result<()> = no_answer(self.tell("host takes items", async move {
            while items.try_next().await?.is_some() {}
            Ok(())
        }))
        .await;
        0
    }

    async fn take_data(&self, mut data: hbi::Data) -> i64 {
        let _: hbi::Result<()> = no_answer(self.tell("host takes data", async move {
            while data.try_next().await?.is_some() {}
            Ok(())
        }))
        .await;
        0
    }

    async fn give_items(&self) -> hbi::Items<Vec<u8>> {
        let (sender, items) = hbi::Items::channel(1);
        self.tell("host gives items", async move {
            let mut sent = sender.send(vec![0; 1000]).await;
            while sent.is_ok() {
                sent = sender.send(vec![0; 1000]).await;
            }
            sent
        });
        items
    }

    async fn give_data(&self) -> hbi::Data {
        endless()
    }

    async fn call_back(&self, cx: &hbi::Caller) {
        let consumer = ConsumerStub::new(&cx.po());
        self.there();
        let _: hbi::Result<()> =
            no_answer(self.tell("host calls back", async move { consumer.never().await })).await;
    }

    async fn object(&self) -> hbi::Reactor<ThingStub> {
        hbi::Reactor::new(ThingHost::new(Still))
    }

    async fn receives_object(&self, mut co: HoCo) -> hbi::Result<()> {
        self.there();
        no_answer(self.tell("host receives an object", async move {
            co.recv_obj::<i64>().await
        }))
        .await
    }

    async fn receives_data(&self, mut co: HoCo) -> hbi::Result<()> {
        no_answer(self.tell("host receives data", async move {
            co.recv_data(&mut tokio::io::sink()).await
        }))
        .await
    }

    async fn sends_much(&self, co: HoCo) -> hbi::Result<()> {
        no_answer(self.tell("host sends data", async move {
            let mut co = co.start_send().await?;
            co.send_obj(&1).await?;
            co.send_data(endless()).await
        }))
        .await
    }

    async fn sends_code(&self, co: HoCo) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        co.send_code("kept()").await?;
        std::future::pending().await
    }
}

/// A wait that a cut has to end, with its error.
type Wait = BoxFuture<'static, hbi::Error>;

#[track_caller]
fn failing<T: Send>(wait: impl Future<Output = hbi::Result<T>> + Send + 'static) -> Wait {
    let place = std::panic::Location::caller();
    Box::pin(async move {
        match wait.await {
            Ok(_) => panic!("it came to a good end: {place}"),
            Err(error) => error,
        }
    })
}

/// Brings a connection to a stage, cuts it, and checks what the waits come to: the consumer's, and
/// those of the host by their names.
async fn cut(
    stage: &'static str,
    host: &[&'static str],
    bring: impl AsyncFnOnce(&hbi::Connection, StagesStub, &mut mpsc::UnboundedReceiver<()>) -> Wait,
) {
    let (there, mut arrived) = mpsc::unbounded_channel();
    let (told, mut ends) = mpsc::unbounded_channel();
    let left = told.clone();
    let env = HostingEnv::new()
        .service(StagesHost::new(MyStages { there, told }))
        .on_disconnect(move |reason| {
            // the test may be over
            let _ = left.send(("the host's side", reason.clone()));
        });
    let consumer = HostingEnv::new().service(ConsumerHost::new(Still));
    let pair = testing::pair(env, consumer).await.expect("sound");
    let wait = bring(&pair.client, StagesStub::new(&pair.client), &mut arrived).await;
    let wait = tokio::spawn(wait);
    // the clock moves on only when everything that can go on without the peer has
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!wait.is_finished(), "{stage}: it does not wait");
    pair.wire.cut();

    let hang = Duration::from_secs(3600);
    let error = tokio::time::timeout(hang, wait)
        .await
        .unwrap_or_else(|_| panic!("{stage}: hangs"))
        .expect("a wait does not panic");
    assert!(error.is_disconnected(), "{stage}: {error}");
    let mut open: Vec<&str> = host.iter().copied().chain(["the host's side"]).collect();
    while !open.is_empty() {
        let (what, error) = tokio::time::timeout(hang, ends.recv())
            .await
            .unwrap_or_else(|_| panic!("{stage}: not told at the host: {open:?}"))
            .expect("the host keeps its sender");
        let named = open.contains(&what);
        assert!(
            !named || error.is_disconnected(),
            "{stage}: {what}: {error}"
        );
        open.retain(|wanted| *wanted != what);
    }
    let after = pair.client.script::<i64>("1").await.unwrap_err();
    assert!(after.is_disconnected() && !after.was_sent(), "{after}");
}

#[tokio::test(start_paused = true)]
async fn calls_end_with_the_reason() {
    cut("a call", &[], async |_, stages, there| {
        let call = stages.wait().send();
        there.recv().await;
        failing(call)
    })
    .await;
    cut("a script", &[], async |peer, _, there| {
        let script = peer.script::<()>("let n = 1; stages::wait(); n").send();
        there.recv().await;
        failing(script)
    })
    .await;
    cut("a composition", &[], async |_, stages, there| {
        let both = hbi::all((stages.wait(), stages.wait())).send();
        there.recv().await;
        failing(both)
    })
    .await;
    cut(
        "a call back",
        &["host calls back"],
        async |_, stages, there| {
            let call = stages.call_back().send();
            there.recv().await;
            failing(call)
        },
    )
    .await;
    cut("an object's method", &[], async |_, stages, _| {
        let thing = stages.object().await.unwrap();
        failing(thing.stay().send())
    })
    .await;
    cut("a method of a pending object", &[], async |_, stages, _| {
        failing(stages.object().stay().send())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_the_reason() {
    cut("items in", &["host takes items"], async |_, stages, _| {
        let (sender, items) = hbi::Items::channel(1);
        let call = stages.take_items(items).send();
        sender.send(1).await.unwrap();
        failing(async move {
            let answer = call.await;
            // what is sent later is refused too
            assert!(sender.send(2).await.is_err());
            answer
        })
    })
    .await;
    cut("data in", &["host takes data"], async |_, stages, _| {
        let stay = futures_util::stream::pending::<hbi::Result<bytes::Bytes>>();
        failing(stages.take_data(hbi::Data::stream(stay)).send())
    })
    .await;
    // the producer only learns that nobody wants its items any more
    cut("items out", &[], async |_, stages, _| {
        let mut items = stages.give_items().await.unwrap();
        items.try_next().await.unwrap();
        // stands still until it is cut, then takes what has arrived
        failing(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            while items.try_next().await?.is_some() {}
            Ok(())
        })
    })
    .await;
    cut("data out", &[], async |_, stages, _| {
        let mut data = stages.give_data().await.unwrap();
        data.try_next().await.unwrap();
        failing(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            data.write_to(&mut tokio::io::sink()).await
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn conversations_end_with_the_reason() {
    cut(
        "sending",
        &["host receives an object"],
        async |_, stages, there| {
            let co = stages.receives_object().open().await.unwrap();
            there.recv().await;
            failing(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut co = co;
                co.send_obj(&1).await
            })
        },
    )
    .await;
    cut("sending more than is read", &[], async |peer, _, _| {
        let mut co = peer.po().co().await.unwrap();
        co.send_code("stages::wait()").await.unwrap();
        failing(async move { co.send_data(endless()).await })
    })
    .await;
    cut(
        "sending data",
        &["host receives data"],
        async |_, stages, _| {
            let mut co = stages.receives_data().open().await.unwrap();
            let stay = futures_util::stream::pending::<hbi::Result<bytes::Bytes>>();
            failing(async move { co.send_data(hbi::Data::stream(stay)).await })
        },
    )
    .await;
    cut("receiving an object", &[], async |_, stages, _| {
        let co = stages.receives_object().open().await.unwrap();
        let mut co = co.start_recv().await.unwrap();
        failing(async move { co.recv_obj::<i64>().await })
    })
    .await;
    cut(
        "receiving data",
        &["host sends data"],
        async |_, stages, _| {
            let mut co = stages.sends_much().await.unwrap();
            let _: i64 = co.recv_obj().await.unwrap();
            failing(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                co.recv_data(&mut tokio::io::sink()).await
            })
        },
    )
    .await;
    cut("waiting until completed", &[], async |peer, _, there| {
        let mut co = peer.po().co().await.unwrap();
        co.send_code("stages::wait()").await.unwrap();
        let co = co.start_recv().await.unwrap();
        there.recv().await;
        failing(co.wait_completed())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn beginning_and_goodbye_end_with_the_reason() {
    // before the preface, and within it
    for bytes in 0..=6 {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let connecting =
            tokio::spawn(async move { hbi::Options::new().take(ours, HostingEnv::new()).await });
        tokio::io::AsyncWriteExt::write_all(&mut theirs, &b"\x89HBI\r\n"[..bytes])
            .await
            .unwrap();
        drop(theirs);
        let error = connecting.await.unwrap().unwrap_err();
        assert!(error.is_disconnected() || error.is_protocol(), "{error}");
    }

    let pair = testing::pair(HostingEnv::new(), HostingEnv::new())
        .await
        .unwrap();
    let server = pair.server.po();
    let mut co = pair.client.po().co().await.unwrap();
    co.send_obj(&1).await.unwrap();
    let closing = tokio::spawn(pair.server.close(Duration::from_secs(600)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!closing.is_finished(), "it waits for the conversation");
    pair.wire.cut();
    let hang = Duration::from_secs(60);
    let closed = tokio::time::timeout(hang, closing).await.expect("hangs");
    assert!(closed.unwrap().unwrap_err().is_disconnected());
    assert!(server.wait_closed().await.is_disconnected());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_ends_early_lets_the_poster_finish() {
    #[hbi::service]
    trait Early {
        #[hbi(converse)]
        async fn early(&self, co: HoCo) -> hbi::Result<()>;
        #[hbi(converse)]
        async fn late(&self, co: HoCo) -> hbi::Result<()>;
    }
    struct MyEarly;
    impl Early for MyEarly {
        async fn early(&self, co: HoCo) -> hbi::Result<()> {
            co.start_send().await?.close().await
        }
        async fn late(&self, co: HoCo) -> hbi::Result<()> {
            // what fits its window has arrived by then
            tokio::time::sleep(Duration::from_secs(1)).await;
            co.start_send().await?.close().await
        }
    }
    let env = HostingEnv::new().service(EarlyHost::new(MyEarly));
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let early = EarlyStub::new(&pair.client);
    for co in [early.early().open().await, early.late().open().await] {
        let mut co = co.unwrap();
        // what nobody reads is taken, or refused; it does not stand still
        let sent = co.send_data(vec![0; 5 << 20]);
        let sent = tokio::time::timeout(Duration::from_secs(60), sent).await;
        if sent.expect("it goes on").is_ok() {
            let co = co.start_recv().await.unwrap();
            co.wait_completed().await.unwrap();
        }
    }
    while pair.client.conversations() != (0, 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_without_room_learns_of_the_deadline() {
    let env = HostingEnv::new().async_function("wait", std::future::pending::<()>);
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let co = pair.client.po().co().await.unwrap();
    let mut co = co.within(Duration::from_millis(200));
    co.send_code("wait()").await.unwrap();
    let error = co.send_data(endless()).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_poster_learns_why_its_host_reads_no_more() {
    let pair = testing::pair(HostingEnv::new(), HostingEnv::new())
        .await
        .unwrap();
    let mut co = pair.client.po().co().await.unwrap();
    let error = co.send_data(endless()).await.unwrap_err();
    assert!(error.to_string().contains("no hosted code"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silent_peers_are_let_go_and_harm_nobody() {
    let server = hbi::serve("mem://silent", |_| async { Ok(HostingEnv::new()) })
        .await
        .unwrap();
    let mut silent = Vec::new();
    for _ in 0..3 {
        let (ours, theirs) = tokio::io::duplex(100);
        let taken = hbi::Options::new().handshake(Duration::from_secs(3600));
        silent.push((
            ours,
            tokio::spawn(async move { taken.take(theirs, HostingEnv::new()).await }),
        ));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let peer = hbi::connect("mem://silent", HostingEnv::new())
        .await
        .unwrap();
    assert_eq!(peer.script::<i64>("1 + 1").await.unwrap(), 2);
    for (_ours, taken) in silent {
        let error = taken.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("idle_timeout"), "{error}");
    }
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn what_came_too_late_to_land_goes_with_all_that_its_environment_holds() {
    let (there, _arrived) = mpsc::unbounded_channel();
    let (told, _ends) = mpsc::unbounded_channel();
    let env = HostingEnv::new().service(StagesHost::new(MyStages { there, told }));
    let kept: Arc<Mutex<Option<ThingStub>>> = Arc::default();
    let left = Arc::downgrade(&kept);
    let keeps = Arc::clone(&kept);
    let own = HostingEnv::new().function("kept", move || keeps.lock().expect("sound").is_some());
    let pair = testing::pair(env, own).await.expect("sound");
    let stages = StagesStub::new(&pair.client);
    let thing = stages.object().await.expect("it is given");
    *kept.lock().expect("sound") = Some(thing);
    drop(kept);
    let co = stages.sends_code().await.expect("it is called");
    // the code is there before the clock moves on
    tokio::time::sleep(Duration::from_millis(100)).await;
    pair.wire.cut();
    pair.client.wait_closed().await;
    assert_eq!(
        left.strong_count(),
        1,
        "the code is what holds the environment"
    );

    let (dropped, is_dropped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(co);
        dropped.send(()).expect("the test waits for it");
    });
    if is_dropped.recv_timeout(Duration::from_secs(60)).is_err() {
        // what goes with it lets go of an object of the same connection, as the end of this test would
        eprintln!("it hangs");
        std::process::abort();
    }
    assert_eq!(left.strong_count(), 0);
}
