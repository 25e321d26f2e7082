//! How scripts share the thread and the room they are given, and what they mean, whichever way they
//! land.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, poll};
use hbi::{HostingEnv, PostingEnd, Reactor, env::Bounds, testing};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

fn bounds(set: impl FnOnce(&mut Bounds)) -> Bounds {
    let mut bounds = Bounds::default();
    set(&mut bounds);
    bounds
}

#[tokio::test]
async fn scripts_beyond_the_cap_queue_in_order() {
    let (started, mut starts) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let env = HostingEnv::new()
        .bounds(bounds(|bounds| bounds.fibers = 2))
        .function("double", |n: i64| n * 2)
        .async_function("wait", move |n: i64| {
            let (started, gate) = (started.clone(), Arc::clone(&gate));
            async move {
                started.send(n).expect("the test listens");
                gate.acquire().await.expect("never closed").forget();
                n
            }
        });
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let peer = &pair.client;
    let scripts: Vec<_> = (0..6_i64)
        .map(|n| {
            peer.script::<i64>("if true { wait(n) }")
                .bind("n", n)
                .send()
        })
        .collect();
    for n in 0..2 {
        assert_eq!(starts.recv().await, Some(n));
    }
    // what needs no interpreter queues for nothing
    let four: i64 = peer.script("double(n)").bind("n", 2).await.unwrap();
    assert_eq!(four, 4);
    for next in 2..6 {
        assert!(starts.try_recv().is_err());
        opened.add_permits(1);
        assert_eq!(starts.recv().await, Some(next));
    }
    opened.add_permits(2);
    for (n, script) in scripts.into_iter().enumerate() {
        assert_eq!(script.await.unwrap(), n as i64);
    }
}

#[tokio::test]
async fn a_script_given_up_in_the_queue_leaves_its_place() {
    let env = HostingEnv::new()
        .bounds(bounds(|bounds| bounds.fibers = 1))
        .async_function("never", std::future::pending::<()>);
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let script = |text: &'static str| pair.client.script::<i64>(text).send();
    let first = script("if true { never() } 1");
    let second = script("if true { never() } 2");
    let third = script("if true { 3 }");
    drop((second, first));
    assert_eq!(third.await.unwrap(), 3);
}

#[tokio::test]
async fn scripts_within_a_conversation_have_room_of_their_own() {
    fn bouncing(text: &'static str) -> HostingEnv {
        let po = Arc::new(OnceLock::<PostingEnd>::new());
        let known = Arc::clone(&po);
        HostingEnv::new()
            .bounds(bounds(|bounds| bounds.fibers = 1))
            .async_function("bounce", move || {
                let po = Arc::clone(&po);
                async move {
                    let po = po.get().expect("connected");
                    po.script::<i64>(text).await.map_err(|e| e.to_string())
                }
            })
            .on_connect(move |po| {
                let _ = known.set(po);
                async {}
            })
    }
    let server = bouncing("let answer = bounce(); if \"Ok\" in answer { answer.Ok + 1 }");
    let client = bouncing("if true { 40 + 1 }");
    let pair = testing::pair(server, client).await.unwrap();
    let answer: Result<i64, String> = pair.client.script("if true { bounce() }").await.unwrap();
    assert_eq!(answer, Ok(42));
}

fn endless(counts: &Arc<AtomicU64>) -> HostingEnv {
    let counts = Arc::clone(counts);
    HostingEnv::new()
        .bounds(bounds(|bounds| {
            bounds.operations = u64::MAX;
            bounds.calls = u64::MAX;
            bounds.wall_clock = Duration::from_secs(600);
        }))
        .function("double", |n: i64| n * 2)
        .function("count", move || {
            counts.fetch_add(1, Ordering::SeqCst);
        })
}

/// On one thread, which the script never leaves on its own.
#[tokio::test]
async fn a_long_script_lets_others_have_the_thread() {
    let counts = Arc::default();
    let pair = testing::pair(endless(&counts), HostingEnv::new())
        .await
        .unwrap();
    let other = testing::pair(endless(&counts), HostingEnv::new())
        .await
        .unwrap();
    let texts = [
        "loop { }",
        "let n = 0; while true { n += 1; }",
        "let s = \"x\"; for i in 0..13 { s += s; } loop { let t = s.to_upper(); }",
        "let a = []; for i in 0..900 { a.push(i); } loop { let b = a; b.reverse(); }",
        "loop { count(); }",
    ];
    let mut long: Vec<_> = texts
        .iter()
        .map(|text| pair.client.script::<()>(*text).send())
        .collect();
    for n in 0..20_i64 {
        for peer in [&pair.client, &other.client] {
            let doubled: i64 = peer.script("double(n)").bind("n", n).await.unwrap();
            assert_eq!(doubled, 2 * n);
        }
    }
    for script in &mut long {
        assert!(poll!(script).is_pending());
    }
}

/// A map of so many entries, and one called `z` behind them.
fn long_map(entries: u32) -> impl Serialize + Send + 'static {
    let names = (0..entries).map(|n| format!("{n}"));
    let all = names.chain(["z".to_owned()]).map(|name| (name, ()));
    all.collect::<std::collections::BTreeMap<_, _>>()
}

/// Its steps are none of the interpreter's, but looking for a field and copying take time, too.
#[tokio::test]
async fn a_straight_line_lets_others_have_the_thread() {
    let pair = testing::pair(endless(&Arc::default()), HostingEnv::new())
        .await
        .unwrap();
    for text in [
        format!("[{}]", "p.z,".repeat(1_000)),
        format!("[[{}]].x", "p.z,".repeat(1_000)),
        format!("let a = [p.z{}]; describe(a)", ",p.z".repeat(1_000)),
        "describe(p, p);".repeat(1_000),
    ] {
        let peer = &pair.client;
        let mut long = peer
            .script::<serde::de::IgnoredAny>(text)
            .bind("p", long_map(50_000))
            .send();
        for n in 0..3_i64 {
            let doubled: i64 = peer.script("double(n)").bind("n", n).await.unwrap();
            assert_eq!(doubled, 2 * n);
        }
        assert!(poll!(&mut long).is_pending());
    }
}

/// Nor do calls that are answered at once hold it, where they are many.
#[tokio::test]
async fn the_calls_of_a_straight_line_let_others_have_the_thread() {
    let counts = Arc::default();
    let pair = testing::pair(endless(&counts), HostingEnv::new())
        .await
        .unwrap();
    let long = pair.client.script::<()>("count();".repeat(2_000)).send();
    let two: i64 = pair.client.script("double(1)").await.unwrap();
    assert_eq!(two, 2);
    assert!(counts.load(Ordering::SeqCst) < 2_000);
    long.await.unwrap();
    assert_eq!(counts.load(Ordering::SeqCst), 2_000);
}

#[tokio::test]
async fn what_a_straight_line_does_is_bounded() {
    let env = HostingEnv::new()
        .bounds(bounds(|bounds| {
            bounds.operations = 10_000;
            bounds.calls = 10;
        }))
        .function("double", |n: i64| n * 2);
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let peer = &pair.client;
    for (text, bound) in [
        (format!("[{}]", "p.z,".repeat(1_000)), "operations"),
        (format!("[{}]", "p,".repeat(1_000)), "memory"),
        ("double(1);".repeat(11), "calls"),
        (
            format!("{}1{}", "double(".repeat(11), ")".repeat(11)),
            "calls",
        ),
    ] {
        let script = peer.script::<()>(text.clone());
        let script = match text.contains('p') {
            true => script.bind("p", long_map(10_000)),
            false => script,
        };
        let error = script.await.unwrap_err().to_string();
        assert!(error.contains(&format!("Bounds::{bound}")), "{error}");
    }
    peer.script::<()>("double(1);".repeat(10)).await.unwrap();
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Answer {
    Bool(bool),
    Int(i64),
    Text(String),
}

/// On its own, in a straight line, and where the interpreter is needed.
#[tokio::test]
async fn a_script_means_the_same_whichever_way_it_lands() {
    #[derive(Serialize)]
    struct User {
        name: &'static str,
        len: i64,
    }
    let env = HostingEnv::new()
        .value("greeting", "hello")
        .function("list", || vec![1, 2, 3])
        .function("echo", |text: String| text);
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let peer = &pair.client;
    peer.script::<()>("env.kept = 1;").await.unwrap();
    let text = |text: &str| Ok(Answer::Text(text.to_owned()));
    let int = |n| Ok(Answer::Int(n));
    let bool = |is| Ok(Answer::Bool(is));
    for (source, expected) in [
        ("items.len", int(2)),
        ("text.len", int(3)),
        ("text.is_empty", bool(false)),
        ("list().len", int(3)),
        ("n.is_odd", bool(true)),
        ("let l = list(); let n = l.len; n", int(3)),
        ("user.len", int(7)),
        ("user.name.len", int(3)),
        ("greeting", text("hello")),
        ("type_of(n)", text("i64")),
        ("n.type_of()", text("i64")),
        ("is_def_var(\"n\")", bool(true)),
        ("is_def_fn(\"f\", 1)", bool(false)),
        ("user.nickname", Err("without a field `nickname`")),
        (
            "let u = user; u.nickname",
            Err("without a field `nickname`"),
        ),
        (
            "let nick = user.nickname; 1",
            Err("without a field `nickname`"),
        ),
        ("user.nickname; 1", Err("without a field `nickname`")),
        ("n.nickname", Err("'nickname'")),
        ("text.nickname", Err("'nickname'")),
        ("kept", Err("`kept`")),
        ("kept; 1", Err("`kept`")),
        ("let k = kept; echo(text)", Err("`kept`")),
    ] {
        for source in [source.to_owned(), format!("if true {{ {source} }}")] {
            let script = peer.script::<Answer>(source.clone());
            let script = script
                .bind("items", [1, 2])
                .bind("text", "abc")
                .bind("n", 5);
            let user = User {
                name: "Ann",
                len: 7,
            };
            match (script.bind("user", user).await, &expected) {
                (Ok(answer), expected) => assert_eq!(Ok(answer), *expected, "{source}"),
                (Err(error), Err(text)) => {
                    assert!(error.to_string().contains(text), "{source}: {error}");
                }
                (Err(error), _) => panic!("{source}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_map_is_written_to_and_asked_for_what_it_has() {
    let pair = testing::pair(HostingEnv::new(), HostingEnv::new());
    let pair = pair.await.unwrap();
    for source in [
        "let m = #{ a: 1 }; m.b = 2; m.b += 1; m[\"c\"] = m.a; m.b + m[\"c\"]",
        "let m = #{ a: #{} }; m.a.b = 4; m.a.b",
        "let m = #{}; if \"a\" in m { m.a } else { m.get(\"a\") ?? 4 }",
        "let m = #{}; let n = 1; try { n = m[\"a\"]; } catch { n = 4; } n",
    ] {
        let four = pair.client.script::<i64>(source).await;
        assert_eq!(four.unwrap(), 4, "{source}");
    }
}

#[tokio::test]
async fn a_long_script_that_is_given_up_ends() {
    let counts = Arc::default();
    let pair = testing::pair(endless(&counts), HostingEnv::new())
        .await
        .unwrap();
    let double = async || -> i64 { pair.client.script("double(1)").await.unwrap() };
    for text in [
        "loop { count(); }",
        "loop { try { loop { count(); } } catch { } }",
        "fn f() { try { loop { count(); } } catch { f() } } f()",
    ] {
        let before = counts.load(Ordering::SeqCst);
        let long = pair.client.script::<()>(text).send();
        while counts.load(Ordering::SeqCst) < before + 100 {
            double().await;
        }
        assert!(long.now_or_never().is_none());
        // its end is under way before these
        double().await;
        double().await;
        let ended = counts.load(Ordering::SeqCst);
        for _ in 0..10 {
            double().await;
        }
        assert_eq!(counts.load(Ordering::SeqCst), ended, "{text}");
    }
}

#[tokio::test]
async fn an_exposed_name_comes_before_the_interpreters_own() {
    let env = HostingEnv::new()
        .function("max", |a: i64, b: i64| format!("{a} and {b}"))
        .function("range", |a: i64, b: i64, c: i64| format!("{a}, {b}, {c}"))
        .function("set_bits", |a: i64, b: i64, c: i64, d: i64| a + b + c + d)
        .function("sub_string", |a: String, b: i64, c: i64| {
            format!("{a}{b}{c}")
        })
        .function("print", |n: i64| n + 1)
        .async_function(
            "debug",
            |a: String, n: i64| async move { format!("{a}{n}") },
        )
        .function("index_of", |a: String, b: String, c: i64| {
            format!("{a}{b}{c}")
        });
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    for (text, expected) in [
        ("if true { max(1, 2) }", "1 and 2"),
        ("if true { range(1, 5, 2) }", "1, 5, 2"),
        ("if true { `${set_bits(1, 2, 3, 4)}` }", "10"),
        ("if true { sub_string(\"a\", 1, 2) }", "a12"),
        ("if true { index_of(\"a\", \"b\", 2) }", "ab2"),
        (
            "let n = print(1) + print(print(3)); `${n}${debug(\"a\", 2)}`",
            "7a2",
        ),
        // not exposed: the interpreter's own, in a straight line too
        ("let m = min(1, 2); `${m}`", "1"),
        ("let s = \"abc\"; s.pad(5, \"-\"); s", "abc--"),
        ("let s = \"abc\"; s.to_upper()", "ABC"),
    ] {
        let answer: String = pair.client.script(text).await.unwrap();
        assert_eq!(answer, expected, "{text}");
    }
}

/// What a script only passes on stays as it was packed; what it looks into, it can look into.
#[tokio::test]
async fn what_is_passed_on_is_not_unpacked() {
    type Numbered = std::collections::BTreeMap<i64, u64>;
    let made = || Numbered::from([(-1, u64::MAX), (7, 1)]);
    let env = HostingEnv::new()
        .function("made", made)
        .function("same", |value: Numbered| value)
        .function("largest", || u64::MAX)
        .function("echo", |value: u64| value)
        .function("list", || vec![3_i64, 4])
        .function("sum", |all: Vec<i64>| all.into_iter().sum::<i64>());
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let peer = &pair.client;
    for text in [
        "for i in 0..2 { same(v); } same(v)",
        "for i in 0..2 { made(); } same(same(made()))",
        "let w = v; let x = same(w); for i in 0..2 { same(x); } x",
        "if 1 < 2 { same(v); } v",
    ] {
        let back: Numbered = peer.script(text).bind("v", made()).await.unwrap();
        assert_eq!(back, made(), "{text}");
    }
    for text in [
        "for i in 0..1 { } echo(largest())",
        "let n = largest(); for i in 0..1 { echo(n); } n",
        "if true { echo(v) }",
        "let m = [v, largest()]; m[0]",
    ] {
        let back: u64 = peer.script(text).bind("v", u64::MAX).await.unwrap();
        assert_eq!(back, u64::MAX, "{text}");
    }
    for (text, expected) in [
        ("list()[1]", 4),
        ("let l = list(); l.push(5); sum(l)", 12),
        ("let l = list(); sum(l) + l[0]", 10),
        ("let t = 0; for n in list() { t += n; } t", 7),
        ("sum(list() + [1])", 8),
        ("fn first(l) { l[0] } first(list())", 3),
        ("fn sum(l) { l[0] } sum(list())", 3),
        ("let l = list(); let m = l; m[0] = 1; sum(l) + sum(m)", 12),
        ("let l = v; for n in l { sum(v); } l.len()", 2),
        ("switch v { [1, 2] => 1, _ => 2 }", 1),
        ("if list() == [3, 4] { 1 } else { 2 }", 1),
        (
            "let t = 0; try { sum(v); throw v } catch (e) { t = e[1]; } t",
            2,
        ),
        ("env.v = v; sum(v); sum(env.v)", 3),
        ("const L = list(); sum(v); L[0]", 3),
    ] {
        let answer = peer.script::<i64>(text).bind("v", [1, 2]).await;
        assert_eq!(answer.unwrap(), expected, "{text}");
    }
    // what it cannot look into says why
    let looked = peer.script::<u64>("v + 1").bind("v", u64::MAX).await;
    let error = looked.unwrap_err().to_string();
    assert!(
        error.contains("18446744073709551615 is more than"),
        "{error}"
    );
}

#[tokio::test]
async fn a_value_beyond_the_bounds_is_passed_on_untouched() {
    let env = HostingEnv::new()
        .function("bytes", |n: usize| bytes::Bytes::from(vec![7; n]))
        .function("length", |data: bytes::Bytes| data.len())
        .function("sum", |all: Vec<i64>| all.into_iter().sum::<i64>());
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let peer = &pair.client;
    let n: usize = peer
        .script("if true { let all = bytes(1000000); length(all) + length(all) }")
        .await
        .unwrap();
    assert_eq!(n, 2_000_000);
    let all: Vec<i64> = (0..50_000).collect();
    let sum: i64 = peer
        .script("if true { sum(all) }")
        .bind("all", all.clone())
        .await
        .unwrap();
    assert_eq!(sum, all.iter().sum::<i64>());
    let back: Vec<i64> = peer
        .script("if true { all }")
        .bind("all", all.clone())
        .await
        .unwrap();
    assert_eq!(back, all);
    for text in [
        "all[0]",
        "all.len",
        "for n in all { }",
        "all + 1",
        "fn add(n) { n + 1 } fn add_in(n) { add(n) } add_in(all)",
    ] {
        let text = format!("if true {{ }} {text}");
        let looked = peer.script::<i64>(text).bind("all", all.clone()).await;
        let error = looked.unwrap_err().to_string();
        // told once
        assert_eq!(error.matches("Bounds::array").count(), 1, "{error}");
    }
}

#[hbi::service(flat)]
trait Thing {
    async fn touch(&self);
}

#[hbi::service]
trait Things {
    async fn many(&self, count: usize) -> Vec<Reactor<ThingStub>>;
    async fn count(&self, things: Vec<Reactor<ThingStub>>) -> usize;
}

struct Still;

impl Thing for Still {
    async fn touch(&self) {}
}

impl Things for Still {
    async fn many(&self, count: usize) -> Vec<Reactor<ThingStub>> {
        let made = (0..count).map(|_| Reactor::new(ThingHost::new(Still)));
        made.collect()
    }

    async fn count(&self, things: Vec<Reactor<ThingStub>>) -> usize {
        things.len()
    }
}

#[tokio::test]
async fn objects_beyond_the_bounds_are_passed_on_as_often_as_one_likes() {
    let env = HostingEnv::new()
        .bounds(bounds(|bounds| bounds.array = 10))
        .service(ThingsHost::new(Still));
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    for source in [
        // passed on only, and looked into in vain
        "let all = things::many(20); if true { things::count(all) + things::count(all) }",
        "let all = things::many(20); try { all.len } catch { } things::count(all) + things::count(all)",
    ] {
        let counted: usize = pair.client.script(source).await.unwrap();
        assert_eq!(counted, 40, "{source}");
    }
}

#[tokio::test]
async fn calls_are_found_however_they_are_written() {
    let env = HostingEnv::new()
        .function("sum", |a: i64, b: i64| a + b)
        .service(ThingsHost::new(Still));
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let peer = &pair.client;
    for source in [
        "if true { sum /* of */ (1, // and\n 2) }",
        "let all = things :: /* a path */ many(3); if true { things\n::\ncount(all) }",
        "let all = things::many(3); all[0] . /* it */ touch(); things::count(all)",
    ] {
        let three = peer.script::<i64>(source).await;
        assert_eq!(three.unwrap(), 3, "{source}");
    }
}

#[tokio::test]
async fn calls_with_more_arguments_than_the_interpreter_takes_say_so() {
    let pair = testing::pair(HostingEnv::new(), HostingEnv::new());
    let pair = pair.await.unwrap();
    // it takes any, and looks at none
    let describe = |arguments: usize| format!("describe({})", "1,".repeat(arguments));
    for source in [describe(13), format!("if true {{ {} }}", describe(12))] {
        let script = pair.client.script::<serde::de::IgnoredAny>(source);
        script.await.unwrap();
    }
    let source = format!("if true {{ {} }}", describe(13));
    let error = pair.client.script::<()>(source).await.unwrap_err();
    let text = "`describe` with 13, at most 12";
    assert!(
        error.is_limit() && error.to_string().contains(text),
        "{error}"
    );
}

#[tokio::test]
async fn texts_that_wait_to_land_count_among_those_that_are_kept() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let env = HostingEnv::new()
        .bounds(bounds(|bounds| bounds.sources = 100 << 10))
        .function("double", |n: i64| n * 2)
        .async_function("wait", move || {
            let gate = Arc::clone(&waiting);
            async move { gate.acquire().await.expect("never closed").forget() }
        });
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let peer = &pair.client;
    let mut co = peer.po().co().await.unwrap();
    co.send_code("wait()").await.unwrap();
    for n in 0..20 {
        let text = format!("double({n}){}", " ".repeat(11_000));
        co.send_obj_of(text).await.unwrap();
    }
    // all that came before it is there
    let two: i64 = peer.script("double(1)").await.unwrap();
    assert_eq!(two, 2);
    gate.add_permits(1);
    let mut co = co.start_recv().await.unwrap();
    let mut landed = 0;
    let error = loop {
        match co.recv_obj::<i64>().await {
            Ok(_) => landed += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("Bounds::sources"), "{error}");
    assert!((5..10).contains(&landed), "{landed} of 20 landed");
    // there is room again
    let four: i64 = peer.script("double(2)").await.unwrap();
    assert_eq!(four, 4);
}
