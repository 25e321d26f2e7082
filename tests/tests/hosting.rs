//! The hosting environment: what is exposed, what a peer keeps in it, hooks, and scripts that only an
//! interpreter runs.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use hbi::{HostingEnv, Kind, env::Bounds};
use hbi_tests::pair::Transport;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// A server with this environment, and a consumer of it that exposes `own`.
async fn joined(
    env: impl Fn() -> HostingEnv + Send + Sync + 'static,
    own: HostingEnv,
) -> (hbi::Server, hbi::Result<hbi::Connection>) {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let address = format!("mem://hosting-{n}");
    let server = hbi::serve(&address, move |_peer| {
        let env = env();
        async move { Ok(env) }
    });
    let server = server.await.expect("the name is free");
    (server, hbi::connect(&address, own).await)
}

#[derive(Debug, Clone, PartialEq, hbi::Value)]
struct Msg {
    from: String,
    text: String,
    time: f64,
}

#[hbi::service(flat)]
trait Room {
    async fn say(&self, line: String) -> usize;
}

#[derive(Default)]
struct MyRoom(Mutex<Vec<String>>);

impl Room for MyRoom {
    async fn say(&self, line: String) -> usize {
        tokio::task::yield_now().await;
        let mut lines = self.0.lock().expect("no test panics with the lock held");
        lines.push(line);
        lines.len()
    }
}

fn everything() -> HostingEnv {
    HostingEnv::new()
        .function("double", |n: i64| n * 2)
        .try_function("half", |n: i64| {
            if n % 2 == 0 {
                Ok(n / 2)
            } else {
                Err("odd".to_owned())
            }
        })
        .async_function("later", |n: i64| async move {
            tokio::task::yield_now().await;
            n + 1
        })
        .function("swap", |msg: Msg| Msg {
            from: msg.text,
            text: msg.from,
            time: msg.time,
        })
        .constructor::<Msg>()
        .value("greeting", "hello")
        .reactor("room", RoomHost::new(MyRoom::default()))
}

#[tokio::test]
async fn functions_constructors_values_and_reactors_are_found_by_name() {
    let (_server, peer) = joined(everything, HostingEnv::new()).await;
    let peer = peer.unwrap();
    assert_eq!(peer.script::<i64>("double(4)").await.unwrap(), 8);
    assert_eq!(peer.script::<i64>("later(later(1))").await.unwrap(), 3);
    assert_eq!(peer.script::<String>("greeting").await.unwrap(), "hello");
    assert_eq!(peer.script::<usize>("room.say(\"hi\")").await.unwrap(), 1);
    let swapped: Msg = peer
        .script("swap(Msg(\"Nick\", \"hi\", 1.5))")
        .await
        .unwrap();
    assert_eq!(
        swapped,
        Msg {
            from: "hi".into(),
            text: "Nick".into(),
            time: 1.5
        }
    );
    let error = peer.script::<i64>("half(3)").await.unwrap_err();
    assert_eq!(
        (error.origin(), error.app::<String>()),
        ("half", Some("odd".to_owned()))
    );

    // the same names in a script that only an interpreter runs
    let looped = r#"
        let total = 0;
        for i in 0..3 { total += later(double(i)); }
        let msg = swap(Msg("a", "b", 0.5));
        room.say(msg.from + greeting) + total
    "#;
    assert_eq!(peer.script::<i64>(looped).await.unwrap(), 2 + 9);
}

#[tokio::test]
async fn a_script_catches_a_methods_error_and_looks_at_it() {
    let (_server, peer) = joined(everything, HostingEnv::new()).await;
    let peer = peer.unwrap();
    let caught = r#"
        let seen = "";
        try { half(3) } catch (e) { seen = `${e.kind} ${e.origin}: ${e.message}, ${e.payload}`; }
        seen
    "#;
    assert_eq!(
        peer.script::<String>(caught).await.unwrap(),
        "App half: odd, odd"
    );
    let error = peer
        .script::<i64>("let n = 3;\n  half(n)")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::App);
    assert_eq!(error.app::<String>().as_deref(), Some("odd"));
    let place = error.place().expect("the place of the call");
    assert_eq!((place.line, place.column), (2, 3));
    assert!(
        error.to_string().contains("2 |   half(n)\n  |   ^"),
        "{error}"
    );
}

#[tokio::test]
async fn errors_of_scripts_have_their_place() {
    let (_server, peer) = joined(everything, HostingEnv::new()).await;
    let peer = peer.unwrap();
    for (source, kind, line, text) in [
        ("let x = 1;\nlet y = ;", Kind::Script, 2, "2 | let y = ;"),
        ("let x = 1;\nx + nothing", Kind::Unknown, 2, "nothing"),
        (
            "let x = 1;\nif x > 0 { doubel(x) }",
            Kind::Unknown,
            2,
            "doubel",
        ),
        ("let x = [1];\nx[5] + 1", Kind::Script, 2, "index"),
        (
            "let x = 1;\nif x > 0 { double(x, x) }",
            Kind::Arguments,
            2,
            "2 arguments given, 1 expected",
        ),
        ("if true { none::such(1) }", Kind::Unknown, 1, "none::such"),
    ] {
        let error = peer.script::<i64>(source).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{source}: {error}");
        assert_eq!(
            error.place().map(|place| place.line),
            Some(line),
            "{source}: {error}"
        );
        assert!(error.to_string().contains(text), "{source}: {error}");
    }
    assert_eq!(
        peer.script::<i64>("double(1)").await.unwrap(),
        2,
        "nothing else is disturbed"
    );
}

#[tokio::test]
async fn values_kept_in_env_persist_and_exposed_names_cannot_be_overwritten() {
    let (server, peer) = joined(everything, HostingEnv::new()).await;
    let peer = peer.unwrap();
    peer.script::<()>("env.name = \"Nick\"; env.list = [1, 2];")
        .await
        .unwrap();
    assert_eq!(
        peer.script::<String>("greeting + env.name").await.unwrap(),
        "helloNick"
    );
    assert_eq!(peer.script::<Vec<i64>>("env.list").await.unwrap(), [1, 2]);
    peer.script::<()>("env.name = ();").await.unwrap();
    assert_eq!(
        peer.script::<Option<String>>("env.name").await.unwrap(),
        None
    );
    for name in ["greeting", "double", "room"] {
        let error = peer
            .script::<()>(format!("env.{name} = 5;"))
            .await
            .unwrap_err();
        assert!(
            error.is_refused() && error.to_string().contains("overwritten"),
            "{error}"
        );
    }
    // another connection has an environment of its own
    let other = hbi::connect(server.address().to_string(), HostingEnv::new())
        .await
        .unwrap();
    assert_eq!(
        other.script::<Option<Vec<i64>>>("env.list").await.unwrap(),
        None
    );
    let keeps =
        "let s = \"x\"; while s.len() < 8000 { s += s; } for i in 0..2000 { env[`k${i}`] = s; }";
    let error = peer.script::<()>(keeps).await.unwrap_err();
    assert!(
        error.is_limit() && error.to_string().contains("`memory`"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_exposed_is_described_unless_it_is_withheld() {
    let (_server, peer) = joined(everything, HostingEnv::new()).await;
    let described: hbi::env::Description = peer.unwrap().script("describe()").await.unwrap();
    let text = described.to_string();
    for line in [
        "double(…): a function",
        "greeting: a value",
        "Msg(from, text, time) -> Msg",
    ] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
    let (_server, peer) = joined(|| everything().withhold_description(), HostingEnv::new()).await;
    let peer = peer.unwrap();
    for script in [
        "describe()",
        "doubel(1)",
        "hello::doubel(1)",
        "let n = 1; doubel(n)",
        "if true { doubel(1) }",
        "room.shout(\"hi\")",
        "if true { room.shout(\"hi\") }",
    ] {
        let error = peer.script::<()>(script).await.unwrap_err();
        assert!(error.is_unknown(), "{script}: {error}");
        let text = error.to_string();
        let told = ["double", "greeting", "say"]
            .iter()
            .find(|name| text.contains(**name));
        assert_eq!(told, None, "{script}: {text}");
    }
}

#[tokio::test]
async fn an_error_that_holds_an_object_says_that_it_cannot() {
    #[derive(Debug, Serialize)]
    struct Full(hbi::Reactor<RoomStub>);
    impl std::fmt::Display for Full {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("go to another room")
        }
    }
    let env = || {
        HostingEnv::new().try_function("enter", || {
            let other = hbi::Reactor::new(RoomHost::new(MyRoom::default()));
            Err::<(), _>(Full(other))
        })
    };
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    let error = peer.unwrap().script::<()>("enter()").await.unwrap_err();
    assert_eq!(error.kind(), Kind::App);
    for part in ["go to another room", "no stream and no object"] {
        assert!(error.message().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_hook_for_errors_that_panics_ends_nothing_else() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let env = move || {
        let told = told.clone();
        everything()
            .try_async_function("fails_later", || async {
                tokio::task::yield_now().await;
                Err::<(), _>("no".to_owned())
            })
            .on_error(move |error| {
                told.send(error.to_string()).expect("the test listens");
                panic!("in the hook");
            })
    };
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    let peer = peer.unwrap();
    for script in [
        "nothing()",
        "half(1)",
        "fails_later()",
        "if true { half(1) }",
        "later(1); half(1)",
    ] {
        peer.po().notif(script).await.unwrap();
        soon(heard.recv()).await.expect("the hook is called");
    }
    let two: i64 = peer.script("half(4)").await.unwrap();
    assert_eq!(two, 2);
    // each conversation has ended
    let free = async {
        while peer.conversations() != (0, 0) {
            tokio::task::yield_now().await;
        }
    };
    soon(free).await;
}

#[tokio::test]
async fn what_panics_as_it_is_dropped_is_answered() {
    struct Answer;
    impl Serialize for Answer {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_unit()
        }
    }
    impl Drop for Answer {
        fn drop(&mut self) {
            panic!("of the answer");
        }
    }
    struct Running(bool);
    impl Future for Running {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
    impl Drop for Running {
        fn drop(&mut self) {
            panic!("of the future");
        }
    }
    let env = || {
        everything()
            .function("now", || Answer)
            .async_function("answer", || async {
                tokio::task::yield_now().await;
                Answer
            })
            .async_function("running", || Running(false))
    };
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    let peer = peer.unwrap();
    for script in [
        "now()",
        "answer()",
        "running()",
        "half(2); answer()",
        "half(2); running()",
        "if true { answer() }",
        "if true { running() }",
    ] {
        let answer = async { peer.script::<()>(script).await };
        let error = soon(answer).await.unwrap_err();
        assert!(error.is_panic(), "{script}: {error}");
    }
    let two: i64 = peer.script("half(4)").await.unwrap();
    assert_eq!(two, 2);
}

#[tokio::test]
async fn a_name_exposed_twice_is_an_error_that_says_which() {
    let twice = || HostingEnv::new().value("x", &1).function("x", || 2);
    let error = hbi::connect("mem://nobody", twice()).await.unwrap_err();
    assert_eq!(
        error.kind(),
        Kind::Address,
        "the address is looked at first: {error}"
    );
    let (_server, refused) = joined(twice, HostingEnv::new()).await;
    let error = refused.unwrap_err();
    assert!(
        error.is_refused() && error.to_string().contains("`x` is exposed twice"),
        "{error}"
    );
    let (_server, own) = joined(HostingEnv::new, twice()).await;
    assert!(
        own.unwrap_err()
            .to_string()
            .contains("`x` is exposed twice")
    );
}

#[tokio::test]
async fn a_factory_may_refuse_and_cannot_call() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let server = hbi::serve("mem://refusing", move |peer: hbi::Peer| {
        let told = told.clone();
        async move {
            let error = peer.script::<()>("x()").await.unwrap_err();
            told.send(error.to_string()).expect("the test listens");
            Err(hbi::Error::refusal("not on Sundays"))
        }
    });
    let _server = server.await.unwrap();
    let error = hbi::connect("mem://refusing", HostingEnv::new())
        .await
        .unwrap_err();
    assert!(
        error.is_refused() && error.to_string().contains("not on Sundays"),
        "{error}"
    );
    assert!(heard.recv().await.unwrap().contains("on_connect"));
}

#[tokio::test]
async fn hooks_see_the_connection_come_and_go() {
    let (hello, mut heard) = mpsc::unbounded_channel();
    let (gone, why) = oneshot::channel();
    let gone = Arc::new(Mutex::new(Some(gone)));
    let env = move || {
        let gone = Arc::clone(&gone);
        HostingEnv::new()
            .on_connect(|po| async move { po.notif("hello(\"Nick\")").await.expect("it is up") })
            .on_disconnect(move |reason| {
                let gone = gone.lock().expect("nobody panics").take();
                let _ = gone.expect("it goes once").send(reason.to_string());
            })
    };
    let own = HostingEnv::new().function("hello", move |name: String| {
        hello.send(name).expect("the test listens");
    });
    let (_server, peer) = joined(env, own).await;
    assert_eq!(heard.recv().await.unwrap(), "Nick");
    peer.unwrap().close(Duration::from_secs(5)).await.unwrap();
    assert!(why.await.unwrap().contains("goodbye"));
}

#[tokio::test]
async fn a_hook_that_panics_is_heard_of_and_the_connection_goes_on() {
    for waits in [false, true] {
        let (told, mut heard) = mpsc::unbounded_channel();
        let (gone, mut why) = mpsc::unbounded_channel();
        let env = move || {
            let (told, gone) = (told.clone(), gone.clone());
            everything()
                .on_connect(move |_| async move {
                    if waits {
                        tokio::task::yield_now().await;
                    }
                    panic!("of the hook");
                })
                .on_disconnect(move |reason| gone.send(reason.clone()).expect("the test listens"))
                .on_error(move |error| told.send(error).expect("the test listens"))
        };
        let (_server, peer) = joined(env, HostingEnv::new()).await;
        let peer = peer.unwrap();
        let error = heard.recv().await.expect("it is told");
        assert_eq!((error.kind(), error.origin()), (Kind::Panic, "on_connect"));
        assert!(error.to_string().contains("of the hook"), "{error}");
        assert_eq!(peer.script::<i64>("double(21)").await.unwrap(), 42);
        peer.close(Duration::from_secs(5)).await.unwrap();
        assert!(why.recv().await.unwrap().to_string().contains("goodbye"));
    }
}

#[tokio::test]
async fn failures_nobody_waits_for_are_heard() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let env = move || {
        let told = told.clone();
        everything().on_error(move |error| told.send(error).expect("the test listens"))
    };
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    let peer = peer.unwrap();
    peer.notif("half(3)").await.unwrap();
    assert_eq!(
        heard.recv().await.unwrap().app::<String>().as_deref(),
        Some("odd")
    );
    peer.notif("let n = 1; if n > 0 { half(n) }").await.unwrap();
    assert_eq!(heard.recv().await.unwrap().origin(), "half");
}

#[hbi::service]
trait Stubborn {
    #[hbi(no_cancel)]
    async fn give_up_late(&self, cx: &hbi::Caller) -> Result<i64, String>;
}

/// Begun, it waits until its caller gives up.
struct MyStubborn(mpsc::UnboundedSender<()>);

impl Stubborn for MyStubborn {
    async fn give_up_late(&self, cx: &hbi::Caller) -> Result<i64, String> {
        self.0.send(()).expect("the test listens");
        cx.cancelled().await;
        Err("late".to_owned())
    }
}

/// What hosts it, when it begins, and what is heard of it.
fn stubborn() -> (
    impl Fn() -> HostingEnv + Send + Sync + 'static,
    mpsc::UnboundedReceiver<()>,
    mpsc::UnboundedReceiver<hbi::Error>,
) {
    let (began, begins) = mpsc::unbounded_channel();
    let (told, heard) = mpsc::unbounded_channel();
    let env = move || {
        let told = told.clone();
        HostingEnv::new()
            .service(StubbornHost::new(MyStubborn(began.clone())))
            .on_error(move |error| told.send(error).expect("the test listens"))
    };
    (env, begins, heard)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let heard = tokio::time::timeout(Duration::from_secs(20), what).await;
    heard.expect("it comes")
}

#[tokio::test]
async fn failures_of_methods_that_run_on_are_heard() {
    let (env, mut begins, mut heard) = stubborn();
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    let peer = peer.unwrap();
    let direct = StubbornStub::new(&peer).give_up_late().send();
    let step = peer.script::<i64>("let n = stubborn::give_up_late(); n");
    let looped = peer.script::<i64>("loop { stubborn::give_up_late(); }");
    let (step, looped) = (step.send(), looped.send());
    for _ in 0..3 {
        begins.recv().await.unwrap();
    }
    drop((direct, step, looped));
    for _ in 0..3 {
        let error = soon(heard.recv()).await.unwrap();
        assert_eq!(error.app::<String>().as_deref(), Some("late"));
    }
}

#[tokio::test]
async fn methods_that_run_on_do_so_when_a_text_peer_is_gone() {
    let (env, mut begins, mut heard) = stubborn();
    let server = hbi::serve("text+tcp://127.0.0.1:0", move |_| {
        std::future::ready(Ok(env()))
    });
    let server = server.await.unwrap();
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new())
        .await
        .unwrap();
    let call = StubbornStub::new(&peer).give_up_late().send();
    begins.recv().await.unwrap();
    drop((call, peer));
    let error = soon(heard.recv()).await.unwrap();
    assert!(error.to_string().contains("late"), "{error}");
}

#[tokio::test]
async fn what_scripts_print_goes_to_the_hook() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let env = move || {
        let told = told.clone();
        HostingEnv::new()
            .on_print(move |line| told.send(line.to_owned()).expect("the test listens"))
    };
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    peer.unwrap()
        .script::<()>("if true { print(\"hi\"); }")
        .await
        .unwrap();
    assert_eq!(heard.recv().await.unwrap(), "hi");
}

#[tokio::test]
async fn bounds_end_a_script_with_their_name_and_nothing_else() {
    let bounds = || {
        let mut bounds = Bounds::default();
        bounds.wall_clock = Duration::from_millis(300);
        bounds.calls = 50;
        bounds.source = 2000;
        everything().bounds(bounds)
    };
    let (_server, peer) = joined(bounds, HostingEnv::new()).await;
    let peer = peer.unwrap();
    let long = format!("double(1{})", " + 1".repeat(1000));
    let deep = format!("let x = {}1{};", "(".repeat(100), ")".repeat(100));
    for (source, bound) in [
        ("loop { }", "operations"),
        ("for i in 0..100 { double(i); }", "calls"),
        ("fn f(n) { f(n + 1) } f(0)", "call_depth"),
        ("let s = \"x\"; loop { s += s; }", "string"),
        ("let a = [1]; loop { a += a; }", "array"),
        (
            "let m = #{}; for i in 0..600 { m[`k${i}`] = i; } m.len()",
            "map",
        ),
        (&long, "source"),
    ] {
        let error = peer.script::<i64>(source.to_owned()).await.unwrap_err();
        assert!(error.is_limit(), "{source}: {error}");
        assert!(
            error.to_string().contains(&format!("limit `{bound}`")),
            "{source}: {error}"
        );
        assert!(
            error.to_string().contains(&format!("Bounds::{bound}")),
            "{source}: {error}"
        );
    }
    assert!(peer.script::<i64>(deep).await.unwrap_err().is_limit());
    for (source, text) in [
        ("eval(\"1\")", "eval"),
        ("let s = \"eval(s)\"; eval(s)", "eval"),
        ("import \"x\" as y;", "import"),
        ("sleep(100)", "sleep"),
        ("timestamp()", "timestamp"),
        // on their own these never come to the interpreter
        ("if true { sleep(100) }", "sleep"),
        ("if true { sleep(100.0) }", "sleep"),
        ("if true { 100.sleep() }", "sleep"),
        ("if true { timestamp() }", "timestamp"),
        ("let f = |x| x; f(1)", "|"),
        ("Fn(\"double\")", "Fn"),
    ] {
        let error = peer.script::<i64>(source).await.unwrap_err();
        assert!(error.is_script() || error.is_unknown(), "{source}: {error}");
        assert!(error.to_string().contains(text), "{source}: {error}");
    }
    // what is caught cannot be a bound
    let caught = "let n = 0; loop { try { loop { n += 1; } } catch { } }";
    assert!(peer.script::<i64>(caught).await.unwrap_err().is_limit());
    assert_eq!(peer.script::<i64>("double(1)").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_script_that_waits_too_long_is_ended() {
    let env = || HostingEnv::new().async_function("never", std::future::pending::<()>);
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    let error = peer
        .unwrap()
        .script::<()>("if true { never() }")
        .await
        .unwrap_err();
    assert!(
        error.is_limit() && error.to_string().contains("wall_clock"),
        "{error}"
    );
}

#[tokio::test]
async fn values_survive_the_way_through_a_script() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Dot,
        Circle { radius: f64 },
        Line(i32, i32),
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct All {
        int: i64,
        small: u8,
        float: f64,
        text: String,
        none: Option<u8>,
        some: Option<u8>,
        shapes: Vec<Shape>,
        pair: (bool, char),
        map: std::collections::BTreeMap<String, Vec<u8>>,
    }
    let all = All {
        int: i64::MIN,
        small: 200,
        float: -0.5,
        text: "é \"quoted\"\n".into(),
        none: None,
        some: Some(1),
        shapes: vec![
            Shape::Dot,
            Shape::Circle { radius: 1.5 },
            Shape::Line(-1, 1),
        ],
        pair: (true, 'x'),
        map: [("k".to_owned(), vec![0, 255])].into(),
    };
    let (_server, peer) = joined(HostingEnv::new, HostingEnv::new()).await;
    let peer = peer.unwrap();
    let back: All = peer
        .script("let v = a; if true { v }")
        .bind("a", all.clone())
        .await
        .unwrap();
    assert_eq!(back, all);
    let error = peer
        .script::<u64>("a - 1")
        .bind("a", u64::MAX)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("more than a script can reckon with"),
        "{error}"
    );
    assert_eq!(
        peer.script::<u64>("a").bind("a", u64::MAX).await.unwrap(),
        u64::MAX
    );
}

#[tokio::test]
async fn back_scripts_land_at_the_consumer() {
    #[hbi::service(flat)]
    trait Greeter {
        #[hbi(converse)]
        async fn greet(&self, co: hbi::HoCo) -> hbi::Result<()>;
    }
    struct MyGreeter;
    impl Greeter for MyGreeter {
        async fn greet(&self, co: hbi::HoCo) -> hbi::Result<()> {
            let mut co = co.start_send().await?;
            co.send_code("heard(\"one\")").await?;
            co.send_obj_of("later(41)").await?;
            co.send_obj(&"done").await?;
            co.send_code("nothing_of_that_name()").await?;
            co.send_obj(&"late").await?;
            co.close().await
        }
    }
    let (told, mut heard) = mpsc::unbounded_channel();
    let own = everything().function("heard", move |line: String| {
        told.send(line).expect("the test listens");
    });
    let env = || HostingEnv::new().service(GreeterHost::new(MyGreeter));
    let (_server, peer) = joined(env, own).await;
    let mut co = GreeterStub::new(&peer.unwrap()).greet().await.unwrap();
    assert_eq!(co.recv_obj::<i64>().await.unwrap(), 42);
    assert_eq!(heard.recv().await.unwrap(), "one");
    assert_eq!(co.recv_obj::<String>().await.unwrap(), "done");
    let error = co.recv_obj::<String>().await.unwrap_err();
    assert!(
        error.is_unknown() && !error.is_remote(),
        "it failed here: {error}"
    );
}

#[tokio::test]
async fn a_dropped_script_stops() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let env = move || {
        let told = told.clone();
        HostingEnv::new().async_function("wait", move || {
            struct Gone(mpsc::UnboundedSender<&'static str>);
            impl Drop for Gone {
                fn drop(&mut self) {
                    let _ = self.0.send("gone");
                }
            }
            let gone = Gone(told.clone());
            async move {
                gone.0.send("waits").expect("the test listens");
                std::future::pending::<()>().await;
                drop(gone);
            }
        })
    };
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    let peer = peer.unwrap();
    let script = peer
        .script::<()>("loop { try { wait(); } catch { } }")
        .call();
    let script = tokio::spawn(script);
    assert_eq!(heard.recv().await, Some("waits"));
    script.abort();
    assert_eq!(heard.recv().await, Some("gone"));
    while peer.conversations() != (0, 0) {
        tokio::task::yield_now().await;
    }
    assert!(heard.try_recv().is_err(), "it did not go on");
}

#[tokio::test]
async fn a_conversation_can_have_an_environment_of_its_own() {
    #[hbi::service(flat)]
    trait Greeter {
        #[hbi(converse)]
        async fn greet(&self, co: hbi::HoCo) -> hbi::Result<()>;
    }
    struct MyGreeter;
    impl Greeter for MyGreeter {
        async fn greet(&self, co: hbi::HoCo) -> hbi::Result<()> {
            let mut co = co.start_send().await?;
            co.send_obj_of("double(4)").await?;
            co.send_obj_of("half(4)").await?;
            co.close().await
        }
    }
    let env = || HostingEnv::new().service(GreeterHost::new(MyGreeter));
    let (_server, peer) = joined(env, everything()).await;
    let greeter = GreeterStub::new(peer.as_ref().unwrap());
    let plain = greeter.greet().await.unwrap();
    let own = HostingEnv::new().function("double", |n: i64| n * 200);
    let augmented = greeter.greet().await.unwrap().augment(own).unwrap();
    for (mut co, doubled) in [(plain, 8), (augmented, 800)] {
        assert_eq!(co.recv_obj::<i64>().await.unwrap(), doubled);
        assert_eq!(co.recv_obj::<i64>().await.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_conversation_is_not_augmented_by_what_it_cannot_use() {
    struct Sees;
    impl hbi::Layer for Sees {}
    let (_server, peer) = joined(HostingEnv::new, HostingEnv::new()).await;
    let co = peer.unwrap().po().co().await.unwrap();
    let error = co.augment(HostingEnv::new().layer(Sees)).unwrap_err();
    assert!(error.message().contains("layers"), "{error}");

    let server = hbi::serve("text+tcp://127.0.0.1:0", |_: hbi::Peer| async {
        Ok(HostingEnv::new())
    });
    let server = server.await.unwrap();
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new());
    let peer = peer.await.unwrap();
    let co = peer.po().co().await.unwrap();
    let error = co.augment(HostingEnv::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse);
    assert!(error.message().contains("text wire"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_exposed_comes_before_what_the_interpreter_has() {
    let env = || {
        HostingEnv::new()
            .function("max", |a: i64, b: i64| a * 100 + b)
            .function("abs", |n: f64| n + 0.5)
            .function("parse_int", |text: String| text.len())
            .async_function("sleep", |millis: u64| {
                tokio::time::sleep(std::time::Duration::from_millis(millis))
            })
    };
    let (_server, peer) = joined(env, HostingEnv::new()).await;
    let peer = peer.unwrap();
    let began = tokio::time::Instant::now();
    for (script, expected) in [
        ("if true { max(3, 4) } else { 0 }", 304),
        ("if true { sleep(70); max(1, 2) } else { 0 }", 102),
        ("if abs(1.0) == 1.5 { 1 } else { 0 }", 1),
        ("if true { parse_int(\"12345\") } else { 0 }", 5),
        ("if true { min(3, 4) } else { 0 }", 3),
    ] {
        assert_eq!(peer.script::<i64>(script).await.unwrap(), expected);
    }
    assert_eq!(began.elapsed().as_millis(), 70);
}

#[tokio::test]
async fn names_that_no_script_can_use_are_refused() {
    for name in ["for", "call", "a b", "λ", "env", ""] {
        let env = HostingEnv::new().function(name, || 1);
        let error = hbi::testing::pair(env, HostingEnv::new())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("peer-script") || name == "env",
            "{error}"
        );
    }
    let pair = hbi::testing::pair(HostingEnv::new(), HostingEnv::new())
        .await
        .unwrap();
    let script = pair.client.script::<i64>("1").bind("a b", 1);
    assert!(script.await.unwrap_err().to_string().contains("`a b`"));
}

#[tokio::test]
async fn scripts_of_conversations_have_values_bound() {
    use std::sync::{Arc, Mutex};
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    let env = HostingEnv::new().function("keep", move |line: String, n: i64| {
        keeping.lock().unwrap().push((line, n));
        n
    });
    let pair = hbi::testing::pair(env, HostingEnv::new()).await.unwrap();
    let line = "no \"splicing\"";
    let keep = |n: i64| {
        hbi::Script::new("keep(line, n)")
            .bind("line", line)
            .bind("n", n)
    };
    let mut co = pair.client.po().co().await.unwrap();
    co.send_code(keep(1)).await.unwrap();
    co.send_code(keep(2)).await.unwrap();
    co.start_recv()
        .await
        .unwrap()
        .wait_completed()
        .await
        .unwrap();
    pair.client.notif(keep(3)).await.unwrap();
    assert_eq!(pair.client.run::<i64>(keep(4)).await.unwrap(), 4);
    let kept: Vec<_> = kept.lock().unwrap().iter().map(|kept| kept.1).collect();
    assert_eq!(kept, [1, 2, 3, 4]);
    let twice = keep(5).bind("n", 6);
    let mut co = pair.client.po().co().await.unwrap();
    assert!(co.send_code(twice).await.is_err());
}

#[tokio::test]
async fn an_address_is_free_once_its_server_was_shut_down() {
    let serve = |address: String| async move {
        let served = hbi::serve(&address, |_peer| async { Ok(HostingEnv::new()) });
        served.await.expect("the address is free")
    };
    for address in ["mem://served-again", "tcp://127.0.0.1:0"] {
        let server = serve(address.to_owned()).await;
        let address = server.address().to_string();
        server.shutdown(Duration::ZERO).await;
        serve(address).await;
    }
}

#[tokio::test]
async fn a_server_takes_any_number_of_connections() {
    let mut options = hbi::Options::new();
    let mut defences = hbi::Defences::default();
    defences.connections = usize::MAX;
    options = options.defences(defences);
    let address = "mem://any-number";
    let served = options.serve(address, |_peer| async {
        Ok(HostingEnv::new().function("one", || 1))
    });
    let _server = served.await.expect("the name is free");
    let peer = hbi::connect(address, HostingEnv::new()).await.unwrap();
    let one: i64 = peer.script("one()").await.unwrap();
    assert_eq!(one, 1);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_environments_that_are_never_made() {
    let server = hbi::serve("mem://never-made", |_| async {
        std::future::pending::<hbi::Result<HostingEnv>>().await
    })
    .await
    .unwrap();
    let connecting = tokio::spawn(hbi::connect("mem://never-made", HostingEnv::new()));
    while server.connections() == 0 {
        tokio::task::yield_now().await;
    }
    server.shutdown(Duration::from_secs(60)).await;
    let error = connecting.await.unwrap().unwrap_err();
    assert!(
        error.is_not_landed() && error.to_string().contains("goodbye"),
        "{error}"
    );
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_counted_no_more_while_its_environment_is_made() {
    let server = hbi::serve("mem://gone-early", |_| async {
        std::future::pending::<hbi::Result<HostingEnv>>().await
    })
    .await
    .unwrap();
    let connecting = tokio::spawn(hbi::connect("mem://gone-early", HostingEnv::new()));
    while server.connections() == 0 {
        tokio::task::yield_now().await;
    }
    connecting.abort();
    while server.connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_factory_that_panics_at_once_is_told() {
    async fn env() -> hbi::Result<HostingEnv> {
        Ok(HostingEnv::new())
    }
    let server = hbi::serve("mem://panics", |peer| {
        assert!(peer.address().is_empty(), "on purpose");
        env()
    })
    .await
    .unwrap();
    let error = hbi::connect("mem://panics", HostingEnv::new())
        .await
        .unwrap_err();
    assert!(error.is_panic(), "{error}");
    drop(server);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_no_socket_stays() {
    let path = std::env::temp_dir().join(format!("hbi-file-{}", std::process::id()));
    std::fs::write(&path, "mine").unwrap();
    let address = format!("unix://{}", path.display());
    let served = hbi::serve(address, |_| async { Ok(HostingEnv::new()) }).await;
    assert!(served.unwrap_err().to_string().contains("no socket"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    std::fs::remove_file(&path).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_is_removed_by_its_own_server_only() {
    let folder = tempfile::tempdir().unwrap();
    let (path, beside) = (folder.path().join("socket"), folder.path().join("next"));
    let address = |path: &std::path::Path| format!("unix://{}", path.display());
    let serve = async |path| {
        let served = hbi::serve(address(path), |_| async { Ok(HostingEnv::new()) }).await;
        served.expect("nobody serves it")
    };
    // one that is left of a server that was killed is nobody's
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let old = serve(&path).await;
    // a server takes over from another without a gap
    let next = serve(&beside).await;
    std::fs::rename(&beside, &path).unwrap();
    old.shutdown(Duration::from_secs(5)).await;
    let peer = hbi::connect(address(&path), HostingEnv::new()).await;
    peer.expect("the next is reached there")
        .close(Duration::from_secs(5))
        .await
        .unwrap();
    std::fs::rename(&path, &beside).unwrap();
    next.shutdown(Duration::from_secs(5)).await;
    assert!(!beside.exists(), "it is gone with its server");
}

#[tokio::test]
async fn hooks_of_a_client_that_is_refused_do_not_run() {
    for over in [
        Transport::Mem,
        Transport::Tcp,
        Transport::Tls,
        Transport::Quic,
    ] {
        let options = over.serving(hbi::Options::new());
        let options = options.authenticate(|_| async { Err::<(), _>(hbi::Error::refusal("no")) });
        let served = options.serve(over.address(), |_| async { Ok(HostingEnv::new()) });
        let server = served.await.unwrap();
        let ran = Arc::new(Mutex::new(Vec::new()));
        let (connects, disconnects) = (Arc::clone(&ran), Arc::clone(&ran));
        let env = HostingEnv::new()
            .on_connect(|_| async move { connects.lock().unwrap().push("on_connect") })
            .on_disconnect(move |_| disconnects.lock().unwrap().push("on_disconnect"));
        let connected = hbi::connect(server.address().to_string(), env).await;
        assert!(connected.unwrap_err().is_refused(), "{over:?}");
        // the hooks are gone with the connection
        while Arc::strong_count(&ran) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(ran.lock().unwrap().is_empty(), "{over:?}: {ran:?}");
    }
}

#[tokio::test]
async fn goodbye_with_traffic_on_its_way_ends_well() {
    let env = || HostingEnv::new().function("double", |n: i64| 2 * n);
    for _ in 0..50 {
        let pair = hbi::testing::pair(env(), HostingEnv::new()).await.unwrap();
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let peer = pair.client.peer();
                tokio::spawn(async move {
                    loop {
                        match peer.script::<i64>("double(n)").bind("n", 2).await {
                            Ok(four) => assert_eq!(four, 4),
                            Err(error) => return error,
                        }
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        pair.server.close(Duration::from_secs(60)).await.unwrap();
        for call in calls {
            let error = call.await.unwrap();
            assert!(error.is_not_landed() || !error.was_sent(), "{error}");
        }
    }
}
