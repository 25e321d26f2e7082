//! The typed surface: versions side by side, pending values, streams within scripts, deadlines that
//! are inherited.

use std::{
    collections::HashMap,
    future::IntoFuture,
    sync::Arc,
    time::{Duration, Instant},
};

use hbi::{HoCo, HostingEnv, Kind, Options};
use hbi_tests::{
    pair::{Pair, Transport},
    work,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, hbi::Fields)]
struct User {
    id: i64,
    name: String,
}

#[hbi::service]
trait Users {
    async fn ids(&self) -> Vec<i64>;
    async fn get(&self, id: i64) -> User;
    async fn greet(&self, name: String, times: i64) -> String;
}

struct MyUsers;

impl Users for MyUsers {
    async fn ids(&self) -> Vec<i64> {
        vec![1, 2, 3]
    }

    async fn get(&self, id: i64) -> User {
        tokio::task::yield_now().await;
        User {
            id,
            name: format!("user {id}"),
        }
    }

    async fn greet(&self, name: String, times: i64) -> String {
        format!("{name}!").repeat(times as usize)
    }
}

/// A wire on which a round trip takes 20 ms, and how long things take on it. The clock stands still
/// but for that.
async fn far(env: HostingEnv) -> (hbi::Connection, hbi::Connection) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut their_read, mut their_write) = tokio::io::split(theirs);
    let (mut near_read, mut near_write) = tokio::io::split(near);
    tokio::spawn(async move { delay(&mut their_read, &mut near_write).await });
    tokio::spawn(async move { delay(&mut near_read, &mut their_write).await });
    let options = Options::new();
    let (a, b) = tokio::join!(
        options.take(ours, HostingEnv::new()),
        options.take(far, env)
    );
    (a.unwrap(), b.unwrap())
}

async fn delay(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut bytes = vec![0; 1 << 20];
    loop {
        let n = from.read(&mut bytes).await.unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(10)).await;
        if n == 0 || to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn eight_dependent_calls_are_one_round_trip() {
    let calc = HostingEnv::new().service(UsersHost::new(MyUsers));
    let (peer, _host) = far(calc).await;
    let users = UsersStub::new(&peer);
    let began = tokio::time::Instant::now();
    let mut text = users.greet("a", 1);
    for _ in 0..7 {
        text = users.greet(text, 1);
    }
    assert_eq!(text.await.unwrap(), format!("a{}", "!".repeat(8)));
    assert_eq!(began.elapsed().as_millis(), 20, "one round trip");

    let began = tokio::time::Instant::now();
    let names = users.ids().map(|id| users.get(id)).map(|user| user.name());
    assert_eq!(names.await.unwrap(), ["user 1", "user 2", "user 3"]);
    assert_eq!(began.elapsed().as_millis(), 20, "one round trip");
}

#[tokio::test]
async fn pending_values_have_fields_and_are_reckoned_with() {
    let (peer, _host) = far(HostingEnv::new().service(UsersHost::new(MyUsers))).await;
    let users = UsersStub::new(&peer);
    assert_eq!(users.get(4).name().await.unwrap(), "user 4");
    let user = users.get(5);
    assert_eq!(
        users.greet(user.name(), user.id() - 3).await.unwrap(),
        "user 5!user 5!"
    );
    let sum: i64 = (users.get(1).id() + users.get(2).id() * 10).await.unwrap();
    assert_eq!(sum, 21);
}

mod v1 {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Order {
        pub(super) item: String,
    }

    #[hbi::service(name = "shop")]
    pub(super) trait Shop {
        async fn order(&self, order: Order) -> Order;
    }
}

mod v2 {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Order {
        pub(super) item: String,
        #[serde(default)]
        pub(super) count: u32,
    }

    #[hbi::service(name = "shop")]
    pub(super) trait Shop {
        async fn order(&self, order: Order) -> Order;
        async fn cancel(&self, item: String) -> bool;
    }

    #[hbi::service(name = "shop_v2")]
    pub(super) trait Newer {
        async fn order(&self, order: Order) -> u32;
    }
}

struct MyShop;

impl v1::Shop for MyShop {
    async fn order(&self, order: v1::Order) -> v1::Order {
        order
    }
}

impl v2::Shop for MyShop {
    async fn order(&self, order: v2::Order) -> v2::Order {
        order
    }

    async fn cancel(&self, _item: String) -> bool {
        true
    }
}

impl v2::Newer for MyShop {
    async fn order(&self, order: v2::Order) -> u32 {
        order.count
    }
}

#[tokio::test]
async fn a_field_added_with_a_default_and_versions_side_by_side() {
    let old = HostingEnv::new().service(v1::ShopHost::new(MyShop));
    let new = HostingEnv::new()
        .service(v2::ShopHost::new(MyShop))
        .service(v2::NewerHost::new(MyShop));
    let (to_old, _old) = far(old).await;
    let (to_new, _new) = far(new).await;
    let tea = || "tea".to_owned();
    // an old consumer of a new host, and a new one of an old host
    let answer = v1::ShopStub::new(&to_new)
        .order(v1::Order { item: tea() })
        .await
        .unwrap();
    assert_eq!(answer, v1::Order { item: tea() });
    let answer = v2::ShopStub::new(&to_old).order(v2::Order {
        item: tea(),
        count: 3,
    });
    assert_eq!(
        answer.await.unwrap(),
        v2::Order {
            item: tea(),
            count: 0
        }
    );
    // a method that the old host does not have
    let error = v2::ShopStub::new(&to_old).cancel("tea").await.unwrap_err();
    assert!(error.is_unknown(), "{error}");
    assert!(
        error.to_string().contains("`shop::cancel`"),
        "it is named: {error}"
    );
    assert!(
        error.to_string().contains("shop::order"),
        "what there is is listed: {error}"
    );
    // two versions in one environment
    let order = v2::Order {
        item: tea(),
        count: 3,
    };
    assert_eq!(v2::NewerStub::new(&to_new).order(order).await.unwrap(), 3);
}

#[tokio::test]
async fn a_script_moves_data_at_the_host() {
    let Pair {
        peer,
        work: _work,
        server: _server,
        ..
    } = Transport::Tcp.pair().await;
    let moved: (u64, u64) = peer
        .script("let file = work::download(name, 300000); work::upload(name, file[1])")
        .bind("name", "f")
        .await
        .unwrap();
    assert_eq!(moved.0, 300_000);
    let twice = "let file = work::download(\"f\", 9); let d = file[1]; work::upload(\"a\", d); work::upload(\"b\", d)";
    let error = peer.script::<(u64, u64)>(twice).await.unwrap_err();
    assert!(error.to_string().contains("taken"), "{error}");
    // streams may stand anywhere in a value
    let both = HashMap::from([("a", hbi::Data::from("xy")), ("b", hbi::Data::from("z"))]);
    let sum: (u64, u64) = peer
        .script("work::upload(\"a\", both.a)")
        .bind("both", both)
        .await
        .unwrap();
    assert_eq!(sum.0, 2);
    // an object of a script, called in the middle of it
    let bumped: i64 = peer
        .script("let c = work::counter(5); let n = 0; while n < 9 { n = c.bump(2); } n")
        .await
        .unwrap();
    assert_eq!(bumped, 9);
}

#[tokio::test]
async fn calls_made_within_a_call_inherit_what_is_left_of_its_time() {
    #[hbi::service(flat)]
    trait Outer {
        async fn outer(&self, cx: &hbi::Caller) -> Result<bool, String>;
        async fn spawned(&self, cx: &hbi::Caller) -> Result<bool, String>;
    }
    #[hbi::service(flat)]
    trait Inner {
        async fn inner(&self, cx: &hbi::Caller) -> (bool, u8);
    }
    struct Both;
    impl Outer for Both {
        async fn outer(&self, cx: &hbi::Caller) -> Result<bool, String> {
            let (limited, depth) = InnerStub::new(&cx.po())
                .inner()
                .await
                .map_err(|e| e.to_string())?;
            Ok(limited && depth == 1)
        }
        async fn spawned(&self, cx: &hbi::Caller) -> Result<bool, String> {
            let inner = InnerStub::new(&cx.po());
            let lost = tokio::spawn({
                let inner = inner.clone();
                async move { inner.inner().await }
            });
            let kept = tokio::spawn(cx.carry(async move { inner.inner().await }));
            let (lost, kept) = (lost.await.unwrap().unwrap(), kept.await.unwrap().unwrap());
            Ok(!lost.0 && kept.0)
        }
    }
    impl Inner for Both {
        async fn inner(&self, cx: &hbi::Caller) -> (bool, u8) {
            (cx.deadline().is_some(), cx.depth())
        }
    }
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let options = Options::new();
    let (a, b) = tokio::join!(
        options.take(ours, HostingEnv::new().service(InnerHost::new(Both))),
        options.take(theirs, HostingEnv::new().service(OuterHost::new(Both)))
    );
    let (a, _b) = (a.unwrap(), b.unwrap());
    let outer = OuterStub::new(&a);
    assert!(outer.outer().within(Duration::from_secs(60)).await.unwrap());
    assert!(!outer.outer().await.unwrap());
    assert!(
        outer
            .spawned()
            .within(Duration::from_secs(60))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_default_deadline_holds_for_calls_that_set_none() {
    let consumer = Options::new().deadline(Duration::from_millis(20));
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = Transport::Mem
        .pair_with(Options::new(), consumer, |env| env)
        .await;
    let error = work.wait(1).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_time_of_its_own_is_a_calls_whatever_the_default() {
    let consumer = Options::new().deadline(Duration::from_millis(20));
    let Pair {
        work,
        seen,
        peer: _peer,
        server: _server,
        ..
    } = Transport::Mem
        .pair_with(Options::new(), consumer, |env| env)
        .await;
    let longer = tokio::spawn(work.wait(1).within(Duration::from_secs(10)).into_future());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!longer.is_finished());
    seen.open_gates();
    assert_eq!(longer.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_conversation_opened_within_a_call_has_no_more_time_than_the_call() {
    #[hbi::service(flat)]
    trait Times {
        async fn left(&self, cx: &hbi::Caller) -> u64;
        async fn ask(&self, cx: &hbi::Caller) -> Result<u64, String>;
    }
    struct MyTimes;
    impl Times for MyTimes {
        async fn left(&self, cx: &hbi::Caller) -> u64 {
            let deadline = cx.deadline().expect("it travels");
            deadline.saturating_duration_since(Instant::now()).as_secs()
        }
        async fn ask(&self, cx: &hbi::Caller) -> Result<u64, String> {
            let asked = async {
                let mut co = cx.po().co().await?.within(Duration::from_secs(600));
                co.send_obj_of("left()").await?;
                co.start_recv().await?.recv_obj().await
            };
            asked.await.map_err(|error: hbi::Error| error.to_string())
        }
    }
    let env = || HostingEnv::new().service(TimesHost::new(MyTimes));
    let pair = hbi::testing::pair(env(), env()).await.unwrap();
    let ask = TimesStub::new(&pair.client).ask();
    let left = ask.within(Duration::from_secs(60)).await.unwrap();
    assert!(left <= 60, "{left} seconds");
}

#[tokio::test]
async fn calls_that_call_each_other_without_end_are_stopped() {
    #[hbi::service(flat)]
    trait Ping {
        async fn ping(&self, cx: &hbi::Caller) -> Result<u8, String>;
    }
    struct MyPing;
    impl Ping for MyPing {
        async fn ping(&self, cx: &hbi::Caller) -> Result<u8, String> {
            let deeper = PingStub::new(&cx.po()).ping().await;
            deeper.map_err(|error| error.to_string())
        }
    }
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let options = Options::new();
    let env = || HostingEnv::new().service(PingHost::new(MyPing));
    let (a, b) = tokio::join!(options.take(ours, env()), options.take(theirs, env()));
    let (a, _b) = (a.unwrap(), b.unwrap());
    let error = PingStub::new(&a).ping().await.unwrap_err();
    assert!(error.to_string().contains("`nesting`"), "{error}");
}

#[tokio::test]
async fn misuse_is_told_before_anything_is_sent() {
    let Pair {
        work,
        peer,
        server: _server,
        ..
    } = Transport::Mem.pair().await;
    let error = peer
        .script::<i64>("f(a)")
        .bind("a", 1)
        .bind("a", 2)
        .await
        .unwrap_err();
    assert!(
        error.kind() == Kind::Misuse && error.message().contains("bound twice"),
        "{error}"
    );
    let call = work.add(1, 2).send();
    let error = work.add(call, 1).await.unwrap_err();
    assert!(error.kind() == Kind::Misuse && !error.was_sent(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn parallel_methods_of_one_connection_run_on_several_threads() {
    #[hbi::service]
    trait Compute {
        /// Holds its thread until another call holds one as well.
        #[hbi(parallel)]
        async fn meet(&self) -> bool;
        async fn add(&self, a: i64, b: i64) -> i64;
    }
    struct MyCompute {
        both: std::sync::Barrier,
        holding: tokio::sync::Semaphore,
    }
    impl Compute for std::sync::Arc<MyCompute> {
        async fn meet(&self) -> bool {
            self.holding.add_permits(1);
            self.both.wait();
            true
        }
        async fn add(&self, a: i64, b: i64) -> i64 {
            a + b
        }
    }
    let compute = std::sync::Arc::new(MyCompute {
        both: std::sync::Barrier::new(2),
        holding: tokio::sync::Semaphore::new(0),
    });
    let env = HostingEnv::new().service(ComputeHost::new(std::sync::Arc::clone(&compute)));
    let pair = hbi::testing::pair(env, HostingEnv::new()).await.unwrap();
    let stub = ComputeStub::new(&pair.client);
    let first = stub.meet().send();
    let _held = compute.holding.acquire().await.unwrap();
    assert_eq!(stub.add(1, 2).await.unwrap(), 3, "while a thread is held");
    // from a script as well
    let second = pair.client.script::<bool>("compute::meet() == true").send();
    assert!(first.await.unwrap() && second.await.unwrap());
}

#[tokio::test]
async fn objects_that_the_peer_holds_are_bounded() {
    let mut settings = hbi::Settings::default();
    settings.objects = 2;
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = Transport::Mem
        .pair_with(Options::new().settings(settings), Options::new(), |env| env)
        .await;
    let first = work.counter(1).await.unwrap();
    let _second = work.counter(2).await.unwrap();
    let error = work.counter(3).await.unwrap_err();
    assert!(
        error.is_limit() && error.to_string().contains("Settings::objects"),
        "{error}"
    );
    assert_eq!(first.bump(1).await.unwrap(), 2, "the others are unharmed");
    drop(first);
    // the release travels ahead of the next call
    let third = work.counter(3).await.unwrap();
    assert_eq!(third.bump(1).await.unwrap(), 4);
}

/// Gives out objects in every way that a message can be refused in.
mod givers {
    use super::work::{CounterHost, CounterStub, MyCounter};
    use hbi::Reactor;
    use std::sync::{Arc, atomic::AtomicUsize};

    #[hbi::service]
    pub(super) trait Giver {
        async fn many(&self, count: usize) -> Vec<Reactor<CounterStub>>;
        #[hbi(no_cancel)]
        async fn late(&self) -> Reactor<CounterStub>;
        async fn take(&self, counters: Vec<Reactor<CounterStub>>, ballast: Vec<u8>) -> usize;
        async fn items(&self, count: usize) -> hbi::Items<Reactor<CounterStub>>;
    }

    #[derive(Debug, Default)]
    pub(super) struct MyGiver {
        pub(super) dropped: Arc<AtomicUsize>,
        pub(super) began: tokio::sync::Notify,
        pub(super) gate: tokio::sync::Notify,
    }

    impl MyGiver {
        pub(super) fn counter(&self) -> Reactor<CounterStub> {
            Reactor::new(CounterHost::new(MyCounter::new(0, &self.dropped)))
        }
    }

    impl Giver for Arc<MyGiver> {
        async fn many(&self, count: usize) -> Vec<Reactor<CounterStub>> {
            (0..count).map(|_| self.counter()).collect()
        }

        async fn late(&self) -> Reactor<CounterStub> {
            self.began.notify_one();
            self.gate.notified().await;
            self.counter()
        }

        async fn take(&self, counters: Vec<Reactor<CounterStub>>, _ballast: Vec<u8>) -> usize {
            counters.len()
        }

        async fn items(&self, count: usize) -> hbi::Items<Reactor<CounterStub>> {
            let counters: Vec<_> = (0..count).map(|_| self.counter()).collect();
            hbi::Items::iter(counters)
        }
    }
}

/// A giver with three objects at most, on both sides.
async fn giver() -> (
    std::sync::Arc<givers::MyGiver>,
    givers::GiverStub,
    hbi::testing::Pair,
) {
    let mut settings = hbi::Settings::default();
    settings.objects = 3;
    let options = Options::new().settings(settings);
    let giver = std::sync::Arc::new(givers::MyGiver::default());
    let env = HostingEnv::new().service(givers::GiverHost::new(std::sync::Arc::clone(&giver)));
    let pair = hbi::testing::pair_with((&options, env), (&options, HostingEnv::new()))
        .await
        .unwrap();
    (giver, givers::GiverStub::new(&pair.client), pair)
}

#[tokio::test]
async fn objects_of_what_is_not_sent_are_not_held() {
    use std::sync::atomic::Ordering;
    let (giver, stub, _pair) = giver().await;
    // an answer with more than there may be
    for _ in 0..2 {
        let error = stub.many(5).await.unwrap_err();
        assert!(error.is_limit(), "{error}");
    }
    assert_eq!(giver.dropped.load(Ordering::SeqCst), 10);
    assert_eq!(stub.many(3).await.unwrap().len(), 3);
    // arguments with more than there may be, or too large
    let own = givers::MyGiver::default();
    let counters = |count: usize| (0..count).map(|_| own.counter()).collect::<Vec<_>>();
    for _ in 0..2 {
        assert!(stub.take(counters(5), vec![]).await.unwrap_err().is_limit());
        let large = stub.take(counters(2), vec![0; 5 << 20]).await;
        assert!(large.unwrap_err().is_limit());
    }
    assert_eq!(own.dropped.load(Ordering::SeqCst), 14);
    assert_eq!(stub.take(counters(3), vec![]).await.unwrap(), 3);
}

#[tokio::test]
async fn objects_of_answers_that_nobody_awaits_are_not_held() {
    let (giver, stub, _pair) = giver().await;
    for _ in 0..4 {
        let mut late = stub.late().into_future();
        tokio::select! {
            biased;
            _ = &mut late => unreachable!("its gate is shut"),
            () = giver.began.notified() => {}
        }
        drop(late);
        // the drop travels ahead of the next call
        assert_eq!(stub.take(vec![], vec![]).await.unwrap(), 0);
        giver.gate.notify_one();
        assert_eq!(stub.take(vec![], vec![]).await.unwrap(), 0);
    }
    assert_eq!(stub.many(3).await.unwrap().len(), 3);
}

mod faults {
    //! After every way in which a method can fail, the connection goes on.

    use std::fmt;

    use serde::{Deserialize, Serialize};

    /// Panics wherever a user's code runs beside the method itself.
    #[derive(Debug, Clone, Serialize)]
    pub(super) struct Strict(u8);

    impl<'de> Deserialize<'de> for Strict {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let n = u8::deserialize(deserializer)?;
            assert!(n < 10, "a strict type");
            Ok(Self(n))
        }
    }

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Mute;

    impl fmt::Display for Mute {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("it cannot be shown")
        }
    }

    #[hbi::service]
    pub(super) trait Faults {
        async fn strict(&self, n: Strict) -> u8;
        async fn mute(&self) -> Result<u8, Mute>;
        async fn mute_later(&self) -> Result<u8, Mute>;
        async fn take(&self, data: hbi::Data) -> Result<u64, String>;
        async fn take_items(&self, items: hbi::Items<u8>) -> Result<u64, String>;
        async fn fine(&self) -> u8;
    }

    pub(super) struct MyFaults;

    impl Faults for MyFaults {
        async fn strict(&self, n: Strict) -> u8 {
            n.0
        }
        async fn mute(&self) -> Result<u8, Mute> {
            Err(Mute)
        }
        async fn mute_later(&self) -> Result<u8, Mute> {
            tokio::task::yield_now().await;
            Err(Mute)
        }
        async fn take(&self, mut data: hbi::Data) -> Result<u64, String> {
            let _ = data.try_next().await;
            drop(data);
            Err("not wanted".to_owned())
        }
        async fn take_items(&self, items: hbi::Items<u8>) -> Result<u64, String> {
            drop(items);
            tokio::task::yield_now().await;
            Err("not wanted".to_owned())
        }
        async fn fine(&self) -> u8 {
            7
        }
    }
}

#[tokio::test]
async fn the_connection_goes_on_after_every_failure() {
    use faults::*;
    let env = HostingEnv::new().service(FaultsHost::new(MyFaults));
    let pair = hbi::testing::pair(env, HostingEnv::new()).await.unwrap();
    let stub = FaultsStub::new(&pair.client);
    let wait = Duration::from_secs(20);
    for _ in 0..3 {
        let error = pair.client.script::<u8>("faults::strict(n)").bind("n", 11);
        assert!(error.await.unwrap_err().is_panic());
        let error = stub.mute().within(wait).await.unwrap_err();
        assert!(error.to_string().contains("cannot be shown"), "{error}");
        let error = stub.mute_later().within(wait).await.unwrap_err();
        assert!(error.to_string().contains("cannot be shown"), "{error}");
        for len in [0, 5, 1 << 20] {
            let data = hbi::Data::from(vec![0; len]);
            let error = stub.take(data).within(wait).await.unwrap_err();
            assert!(error.to_string().contains("not wanted"), "{error}");
            let items = hbi::Items::iter(std::iter::repeat_n(1, len));
            let error = stub.take_items(items).within(wait).await.unwrap_err();
            assert!(error.to_string().contains("not wanted"), "{error}");
        }
        assert_eq!(stub.fine().await.unwrap(), 7);
    }
    while pair.client.conversations() != (0, 0) {
        assert_eq!(stub.fine().await.unwrap(), 7);
    }
}

/// What goes on when its conversation is over.
#[hbi::service]
trait Keeper {
    /// Ends its conversation, and fails later.
    #[hbi(converse)]
    async fn fails_later(&self, co: HoCo) -> hbi::Result<()>;
    /// Keeps its conversation, and sends in it later.
    #[hbi(converse)]
    async fn sends_later(&self, co: HoCo) -> hbi::Result<()>;
    async fn at_once(&self) -> u8;
    async fn slow(&self) -> u8;
}

#[derive(Clone)]
struct MyKeeper {
    came: tokio::sync::mpsc::UnboundedSender<&'static str>,
    later: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl MyKeeper {
    fn tell(&self, what: &'static str) {
        self.came.send(what).expect("the test listens");
    }
}

impl Keeper for MyKeeper {
    async fn fails_later(&self, co: HoCo) -> hbi::Result<()> {
        co.start_send().await?.close().await?;
        self.tell("taken");
        self.later.acquire().await.expect("it is open").forget();
        self.tell("later");
        Err(hbi::Error::refusal("too late"))
    }

    async fn sends_later(&self, co: HoCo) -> hbi::Result<()> {
        let (mut co, this) = (co.start_send().await?, self.clone());
        tokio::spawn(async move {
            this.later.acquire().await.expect("it is open").forget();
            let sent = co.send_obj(&"for another").await;
            this.tell(if sent.is_ok() { "sent" } else { "later" });
        });
        self.tell("taken");
        Ok(())
    }

    async fn at_once(&self) -> u8 {
        1
    }

    async fn slow(&self) -> u8 {
        self.tell("slow");
        self.slow.acquire().await.expect("it is open").forget();
        2
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_when_a_conversation_is_over_touches_no_later_one() {
    let (came, mut comes) = tokio::sync::mpsc::unbounded_channel();
    let [later, slow] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let env = HostingEnv::new().service(KeeperHost::new(MyKeeper {
        came,
        later: Arc::clone(&later),
        slow: Arc::clone(&slow),
    }));
    let pair = hbi::testing::pair(env, HostingEnv::new()).await.unwrap();
    let keeper = KeeperStub::new(&pair.client);
    for sends in [false, true] {
        let co = match sends {
            true => keeper.sends_later().open().await.unwrap(),
            false => keeper.fails_later().open().await.unwrap(),
        };
        assert_eq!(comes.recv().await, Some("taken"));
        match sends {
            true => drop(co),
            false => co.start_recv().await.unwrap().close().await.unwrap(),
        }
        while (pair.client.conversations(), pair.server.conversations()) != ((0, 0), (0, 0)) {
            tokio::task::yield_now().await;
        }
        // in frames the next call but these has its number
        for _ in 0..255 {
            assert_eq!(keeper.at_once().await.unwrap(), 1);
        }
        let call = tokio::spawn(keeper.slow().into_future());
        assert_eq!(comes.recv().await, Some("slow"));
        later.add_permits(1);
        assert_eq!(comes.recv().await, Some("later"));
        // whatever came of it has come to its end when the clock moves
        tokio::time::sleep(Duration::from_millis(1)).await;
        slow.add_permits(1);
        assert_eq!(call.await.unwrap().unwrap(), 2);
    }
}

#[hbi::service]
trait Taker {
    /// Refuses, wherever its stream is by then.
    async fn take(&self, how: String, data: hbi::Data) -> Result<u64, String>;
}

struct MyTaker;

impl Taker for MyTaker {
    async fn take(&self, how: String, mut data: hbi::Data) -> Result<u64, String> {
        match &*how {
            "drops it" => drop(data),
            "keeps it" => drop(tokio::spawn(async move {
                while let Ok(Some(_)) = data.try_next().await {}
            })),
            "reads some" => drop(data.try_next().await),
            _ => while let Ok(Some(_)) = data.try_next().await {},
        }
        Err(how)
    }
}

#[tokio::test]
async fn a_method_may_fail_before_its_stream_has_ended_and_numbers_are_used_again() {
    let pair = hbi::testing::pair(
        HostingEnv::new().service(TakerHost::new(MyTaker)),
        HostingEnv::new(),
    )
    .await
    .unwrap();
    let taker = TakerStub::new(&pair.client);
    for _ in 0..10 {
        for how in ["drops it", "keeps it", "reads some", "reads all"] {
            for len in [0, 10, 100_000, 1_000_000] {
                let outcome = taker.take(how, vec![1; len]).await;
                assert!(
                    matches!(&outcome, Err(hbi::CallError::App(told)) if told == how),
                    "{how}, {len}: {outcome:?}"
                );
            }
            let broken = [
                Ok(bytes::Bytes::from_static(b"some")),
                Err(hbi::Error::refusal("it breaks off")),
            ];
            let broken = hbi::Data::stream(futures_util::stream::iter(broken));
            let outcome = taker.take(how, broken).await;
            assert!(outcome.is_err(), "{how}");
        }
    }
}

#[hbi::service]
trait Streams {
    async fn large(&self) -> hbi::Items<Vec<u8>>;
    async fn nested(&self, count: u32) -> hbi::Items<hbi::Items<u32>>;
}

struct MyStreams;

impl Streams for MyStreams {
    async fn large(&self) -> hbi::Items<Vec<u8>> {
        hbi::Items::iter([vec![1], vec![2; 5 << 20]])
    }

    async fn nested(&self, count: u32) -> hbi::Items<hbi::Items<u32>> {
        hbi::Items::iter((0..count).map(|n| hbi::Items::iter([n])))
    }
}

#[tokio::test]
async fn limits_met_within_a_stream_are_told_at_its_end() {
    let env = HostingEnv::new().service(StreamsHost::new(MyStreams));
    let pair = hbi::testing::pair(env, HostingEnv::new()).await.unwrap();
    let stub = StreamsStub::new(&pair.client);
    let mut large = stub.large().await.unwrap();
    assert_eq!(large.try_next().await.unwrap(), Some(vec![1]));
    let error = large.try_next().await.unwrap_err();
    assert!(error.is_limit(), "{error}");
    assert!(error.to_string().contains("`message`"), "{error}");
    let mut nested = stub.nested(100).await.unwrap();
    let mut count = 0;
    let error = loop {
        match nested.try_next().await {
            Ok(Some(inner)) => assert_eq!(inner.collect().await.unwrap(), [count]),
            Ok(None) => panic!("more streams than there may be"),
            Err(error) => break error,
        }
        count += 1;
    };
    assert!(error.is_limit() && count > 60, "{count}: {error}");
    assert!(error.to_string().contains("`channels`"), "{error}");
    let (_giver, giver, _pair) = giver().await;
    let mut items = giver.items(5).await.unwrap();
    let mut held = Vec::new();
    let error = loop {
        match items.try_next().await {
            Ok(item) => held.push(item.expect("more objects than there may be")),
            Err(error) => break error,
        }
    };
    assert_eq!(held.len(), 3);
    assert!(error.to_string().contains("`objects`"), "{error}");
}

#[tokio::test]
async fn a_stream_that_failed_gives_its_error_again() {
    let env = HostingEnv::new().service(StreamsHost::new(MyStreams));
    let pair = hbi::testing::pair(env, HostingEnv::new()).await.unwrap();
    let mut large = StreamsStub::new(&pair.client).large().await.unwrap();
    assert!(large.try_next().await.unwrap().is_some());
    for _ in 0..2 {
        assert!(large.try_next().await.unwrap_err().is_limit());
    }
    // as a `Stream` it is over after the error
    assert!(large.next().await.is_none());
    let dry = hbi::Error::from(std::io::Error::other("dry"));
    let dry = Err::<bytes::Bytes, hbi::Error>(dry);
    let mut data = hbi::Data::stream(futures_util::stream::iter([dry]));
    for _ in 0..2 {
        assert!(
            data.try_next()
                .await
                .unwrap_err()
                .to_string()
                .contains("dry")
        );
    }
}

#[tokio::test]
async fn large_items_that_were_taken_are_not_held() {
    #[hbi::service]
    trait Blocks {
        async fn blocks(&self, count: usize) -> hbi::Items<String>;
        async fn sizes(&self, blocks: hbi::Items<String>) -> usize;
    }
    struct MyBlocks;
    impl Blocks for MyBlocks {
        async fn blocks(&self, count: usize) -> hbi::Items<String> {
            hbi::Items::iter((0..count).map(|_| "x".repeat(300_000)))
        }
        async fn sizes(&self, mut blocks: hbi::Items<String>) -> usize {
            let mut total = 0;
            while let Ok(Some(block)) = blocks.try_next().await {
                total += block.len();
            }
            total
        }
    }
    // each item is larger than a window takes at once, all of them than what may be held
    let mut settings = hbi::Settings::default();
    settings.held = 4 << 20;
    let options = Options::new().settings(settings);
    let env = HostingEnv::new().service(BlocksHost::new(MyBlocks));
    let pair = hbi::testing::pair_with((&options, env), (&options, HostingEnv::new()))
        .await
        .unwrap();
    let stub = BlocksStub::new(&pair.client);
    let within = Duration::from_secs(20);
    let mut blocks = stub.blocks(100).within(within).await.unwrap();
    let mut count = 0;
    while let Some(block) = blocks.try_next().await.unwrap() {
        assert_eq!(block.len(), 300_000);
        count += 1;
    }
    assert_eq!(count, 100);
    let items = hbi::Items::iter((0..100).map(|_| "x".repeat(300_000)));
    let total = stub.sizes(items).within(within).await.unwrap();
    assert_eq!(total, 30_000_000);
}

#[hbi::service]
trait Blobs {
    async fn filled(&self, byte: u8, len: u32) -> bytes::Bytes;
}

struct MyBlobs;

impl Blobs for MyBlobs {
    async fn filled(&self, byte: u8, len: u32) -> bytes::Bytes {
        vec![byte; len as usize].into()
    }
}

/// Answers around and above what the length of a frame can tell, between small ones: they come whole, or
/// are refused by themselves.
#[tokio::test]
async fn an_answer_larger_than_a_frame_can_be_disturbs_no_other() {
    let env = |_| async { Ok(HostingEnv::new().service(BlobsHost::new(MyBlobs))) };
    let options = Options::new();
    let server = options.serve("tcp://127.0.0.1:0", env).await.unwrap();
    for message in [1 << 20, 64 << 20] {
        let mut settings = hbi::Settings::default();
        settings.message = message;
        let options = Options::new().settings(settings);
        let address = server.address().to_string();
        let peer = options.connect(&address, HostingEnv::new());
        let peer = peer.await.unwrap();
        let blobs = BlobsStub::new(&peer);
        for len in [(16 << 10) + 1, (1 << 24) - 14, 1 << 24, (1 << 24) + 300] {
            // what its end looks like must not matter
            let calls = [(3, 10), (4, len), (2, 10), (4, len), (1, 300)];
            let calls = calls.map(|(byte, len)| (byte, len, blobs.filled(byte, len).send()));
            for (byte, len, call) in calls {
                match call.await {
                    Ok(answer) => {
                        assert_eq!(answer.len(), len as usize);
                        assert!(answer.iter().all(|&b| b == byte));
                    }
                    Err(error) => {
                        assert!(error.is_limit() && len > message, "{len}: {error}");
                    }
                }
            }
        }
    }
}

/// Answers that find no credit wait, and those before, between and behind them come all the same.
#[tokio::test]
async fn answers_that_wait_for_credit_stand_between_others() {
    let env = |_| async { Ok(HostingEnv::new().service(BlobsHost::new(MyBlobs))) };
    let options = Options::new();
    let server = options.serve("tcp://127.0.0.1:0", env).await.unwrap();
    let mut settings = hbi::Settings::default();
    settings.window = 64 << 10;
    settings.connection_window = 64 << 10;
    let options = Options::new().settings(settings);
    let address = server.address().to_string();
    let peer = options.connect(&address, HostingEnv::new()).await.unwrap();
    let blobs = BlobsStub::new(&peer);
    // all arrive in few reads, and none is looked at before all are sent
    let lens = (0..120).map(|n| if n % 3 == 0 { 9 << 10 } else { n });
    let calls = lens.map(|len| (len, blobs.filled(len as u8, len).send()));
    for (len, call) in calls.collect::<Vec<_>>() {
        // without a deadline of its own: that would be another way to land
        let answer = tokio::time::timeout(Duration::from_secs(60), call).await;
        assert_eq!(answer.unwrap().unwrap(), vec![len as u8; len as usize]);
    }
}

/// A call may be made in the place of another that was sent, of whatever connection: nothing of that one
/// goes along.
#[tokio::test]
async fn calls_of_a_thread_take_nothing_over_from_one_another() {
    let mut connections = Vec::new();
    for address in ["mem://taken_over", "text+tcp://127.0.0.1:0"] {
        let env = |_| async { Ok(HostingEnv::new().service(UsersHost::new(MyUsers))) };
        let server = hbi::serve(address, env).await.unwrap();
        let address = server.address().to_string();
        let peer = hbi::connect(&address, HostingEnv::new()).await.unwrap();
        connections.push((server, peer));
    }
    let large = "x".repeat(10 << 10);
    for _ in 0..3 {
        for (_, peer) in &connections {
            let users = UsersStub::new(peer);
            assert_eq!(users.greet("a", 2).await.unwrap(), "a!a!");
            assert_eq!(users.greet(&*large, 1).await.unwrap(), format!("{large}!"));
            assert_eq!(users.get(7).await.unwrap().id, 7);
            let script = peer.script::<String>("users::greet(name, 1)");
            assert_eq!(script.bind("name", "c").await.unwrap(), "c!");
            let composed = users.greet(users.greet("b", 1), 2);
            assert_eq!(composed.await.unwrap(), "b!!b!!");
            drop(users.greet("never sent", 9));
            assert_eq!(users.ids().await.unwrap(), [1, 2, 3]);
        }
    }
}
