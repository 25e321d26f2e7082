//! Scripts that mean harm. Each runs in a process of its own under a memory limit: that process has
//! to live on, name the bound that was hit, answer a typed call on the same connection, and give the
//! memory back. Those of text alone also come back from a host that was called.

use std::{
    process::{Command, abort},
    thread,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hbi::{Error, HostingEnv, env::Bounds, testing};
use serde::de::IgnoredAny;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Set for the process that is attacked.
const ATTACKED: &str = "HBI_ATTACKED";

/// Virtual memory of that process, in KiB: enough for its threads and stacks, far less than what
/// the attacks are after.
const VIRTUAL: u64 = 2 << 20;

/// Resident memory that an attack may take at most, and that may stay behind after it, in KiB: each of
/// two arenas of the allocator may keep what one script had, though nothing is in it. Three scripts'
/// worth would be a leak.
const MOST: u64 = 48 << 10;
const LEFT: u64 = 20 << 10;

/// How long an attack may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// Runs the test called `name` once more, alone and limited, or is that run.
fn in_process_of_its_own(name: &str, attack: impl FnOnce()) {
    if std::env::var_os(ATTACKED).is_some() {
        thread::spawn(|| {
            thread::sleep(PATIENCE);
            eprintln!("it hangs");
            abort();
        });
        return attack();
    }
    let this = std::env::current_exe().expect("a test is a program");
    let limited = format!("ulimit -v {VIRTUAL}; exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limited])
        .arg(this)
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(ATTACKED, "1")
        // what is freed goes back to the system at once
        .envs([
            ("MALLOC_ARENA_MAX", "2"),
            ("MALLOC_MMAP_THRESHOLD_", "65536"),
            ("MALLOC_TRIM_THRESHOLD_", "65536"),
        ])
        .output()
        .expect("a shell can be run");
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A figure of this process's memory, in KiB.
fn memory(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(figure));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .expect("the system tells how much memory a process takes")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be had")
}

/// What the attacked host exposes.
fn exposed(bounds: Bounds) -> HostingEnv {
    HostingEnv::new()
        .bounds(bounds)
        .function("double", |n: i64| n * 2)
        .function("echo", |text: String| text)
        .function("bytes", |n: usize| bytes::Bytes::from(vec![0; n]))
        .async_function("later", |n: i64| async move {
            tokio::task::yield_now().await;
            n
        })
        .async_function("never", std::future::pending::<()>)
        .on_print(|_| {})
        .on_error(|_| {})
}

type Asked = hbi::ScriptCall<IgnoredAny>;

/// Attacks a host, and checks that it stands.
fn attack(name: &str, bounds: Bounds, ask: impl Fn(&hbi::Peer) -> Asked, expected: &[&str]) {
    let env = (exposed(bounds), HostingEnv::new());
    let ask = async |_: &testing::Pair, attacker: &hbi::Peer| ask(attacker).await.err();
    attack_by(name, env, |pair| &pair.client, ask, expected);
}

#[hbi::service(flat)]
trait Trap {
    /// Sends a script back.
    #[hbi(converse)]
    async fn trap(&self, co: hbi::HoCo, source: String) -> hbi::Result<()>;
}

struct Trapper;

impl Trap for Trapper {
    async fn trap(&self, co: hbi::HoCo, source: String) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        co.send_obj_of(source).await?;
        co.close().await
    }
}

/// Attacks the consumer of a service with what comes back to it.
fn attack_back(name: &str, source: &str, expected: &[&str]) {
    let host = HostingEnv::new().service(TrapHost::new(Trapper));
    let env = (host, exposed(Bounds::default()));
    let ask = async |pair: &testing::Pair, _: &hbi::Peer| {
        let co = TrapStub::new(&pair.client).trap(source).await;
        let mut co = co.expect("it is called");
        co.recv_obj::<IgnoredAny>().await.err()
    };
    attack_by(name, env, |pair| &pair.server, ask, expected);
}

/// Has one side of a pair attack the other.
fn attack_by(
    name: &str,
    (server, client): (HostingEnv, HostingEnv),
    attacker: impl Fn(&testing::Pair) -> &hbi::Peer,
    ask: impl AsyncFn(&testing::Pair, &hbi::Peer) -> Option<Error>,
    expected: &[&str],
) {
    in_process_of_its_own(name, || {
        runtime().block_on(async {
            let pair = testing::pair(server, client)
                .await
                .expect("peers in memory can be joined");
            let peer = attacker(&pair);
            let warm: i64 = peer
                .script("let t = 0; for i in 0..20 { t += later(i); } t")
                .await
                .unwrap();
            assert_eq!(warm, 190);
            let before = memory("VmRSS:");
            for _ in 0..3 {
                stands(ask(&pair, peer).await, expected);
                let four: i64 = peer.script("double(n)").bind("n", 2).await.unwrap();
                assert_eq!(four, 4);
            }
            let (most, left) = (memory("VmHWM:") - before, memory("VmRSS:"));
            let left = left.saturating_sub(before);
            println!("{most} KiB at most, {left} KiB left behind");
            assert!(most < MOST, "{most} KiB at most");
            assert!(left < LEFT, "{left} KiB left behind");
        });
    });
}

fn stands(error: Option<Error>, expected: &[&str]) {
    match error {
        Some(error) => {
            let text = error.to_string();
            println!("{}", text.lines().next().unwrap_or_default());
            let named = expected.iter().any(|expected| text.contains(expected));
            assert!(named, "not {expected:?}, but {text}");
            assert!(!error.is_panic() && !error.is_disconnected(), "{error:?}");
        }
        None => assert!(expected.is_empty(), "no error, expected {expected:?}"),
    }
}

/// Attacks by text alone: a name, the script, and what the error names (one of them); nothing where
/// the script is harmless.
macro_rules! attacks {
    ($($name:ident: $source:expr => $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            let source: &str = &$source;
            let ask = |peer: &hbi::Peer| peer.script(source.to_owned());
            attack(stringify!($name), Bounds::default(), ask, &$expected);
        }
    )*
        mod sent_back {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let name = concat!("sent_back::", stringify!($name));
                    attack_back(name, &$source, &$expected);
                }
            )*
        }
    };
}

/// A text that is `times` long.
fn many(text: &str, times: usize) -> String {
    text.repeat(times)
}

/// A value of `m` elements, made in the script from nothing, and what uses it.
fn with_array(of: &str, then: &str) -> String {
    format!("let a = []; for i in 0..990 {{ a.push({of}); }} {then}")
}

attacks! {
    // never ends
    loops: "loop {}" => ["`operations`"];
    whiles: "while true { double(1) }" => ["`operations`", "`calls`"];
    loops_over_a_range: "for i in 0..9223372036854775807 {}" => ["`operations`"];
    loops_for_its_effect: "let x = 0; do { x += 1 } while x >= 0;" => ["`operations`"];
    loops_in_a_catch: "loop { try { loop {} } catch { } }" => ["`operations`"];
    loops_calling: "loop { double(1); }" => ["`operations`", "`calls`"];
    loops_calling_what_waits: "loop { later(1); }" => ["`operations`", "`calls`"];
    sorts_for_ever: "fn c(a, b) { loop {} } let a = [3, 2, 1]; a.sort(c); a" => ["`c`"];
    maps_for_ever: "fn c(a) { loop {} } [1, 2].map(c)" => ["`c`"];
    points_by_name: "fn c(a) { loop {} } [1, 2].map(\"c\")" => ["map"];

    // code from data
    evaluates: "let s = \"eval(s)\"; eval(s)" => ["eval"];
    evaluates_a_method: "let s = \"1\"; s.eval()" => ["eval", "property"];
    imports: "import \"x\" as x; x::f()" => ["import"];
    curries: "fn f(a, b) { a } let p = f; loop { p = p.curry(1); }" => ["curry", "property"];
    points: "let p = Fn(\"double\"); p.call(1)" => ["Fn"];
    points_plainly: "fn f(a) { a } let p = f; p" => ["`f`"];
    captures: "let x = 1; let f = |a| a + x; f.call(1)" => ["|", "Anonymous", "closures"];
    binds_this: "fn grow() { this = [this]; } let a = []; loop { a.grow(); }" => ["this"];
    parses_json: with_array("#{ \"a\": 1 }", "parse_json(\"[1]\")") => ["parse_json", "`map`", "`value`"];

    // time and the thread
    sleeps: "sleep(1000)" => ["sleep"];
    sleeps_a_fraction: "sleep(1000.5)" => ["sleep"];
    reads_the_clock: "timestamp()" => ["timestamp"];

    // deep values, whose drop recurses
    nests_arrays: "let a = []; loop { a = [a]; }" => ["`array`", "`nesting`"];
    nests_maps: "let m = #{}; loop { m = #{ a: m }; }" => ["`map`", "`nesting`"];
    nests_both: "let m = #{}; loop { m = #{ a: [m] }; }" => ["`map`", "`array`", "`nesting`"];
    nests_by_assigning: "let a = [0]; loop { let b = [0]; b[0] = a; a = b; }"
        => ["`array`", "`nesting`"];
    nests_by_a_property: "let a = #{}; loop { let b = #{}; b.k = a; a = b; }"
        => ["`map`", "`nesting`"];
    nests_by_an_index: "let a = #{}; loop { let b = #{}; b[\"k\"] = a; a = b; }"
        => ["`map`", "`nesting`"];
    nests_by_pushing: "let a = []; loop { let b = []; b.push(a); a = b; }"
        => ["`array`", "`nesting`"];
    nests_inwards: "let a = [0]; loop { a[0] = a; }" => ["`array`", "`nesting`"];
    nests_in_a_function: "fn f(a, n) { if n == 0 { a } else { f([a], n - 1) } } \
        let a = []; loop { a = f(a, 9); }" => ["`array`", "`nesting`"];
    answers_deep: "let a = []; for i in 0..80 { a = [a]; } a" => ["nest"];
    throws_deep: "let a = []; for i in 0..60 { a = [a]; } throw a" => ["threw"];

    // calls in each other
    recurses: "fn f(n) { f(n + 1) } f(0)" => ["`call_depth`"];
    recurses_in_turn: "fn f(n) { g(n + 1) } fn g(n) { f(n + 1) } f(0)" => ["`call_depth`"];
    recurses_and_catches: "fn f(n) { try { f(n + 1) } catch { f(n + 1) } } f(0)"
        => ["`call_depth`", "`operations`"];
    recurses_deep_in_expressions: "fn f(n) { 1 + (2 * (3 - (4 + f(n + 1)))) } f(0)"
        => ["`call_depth`", "`expression_depth`"];
    recurses_in_an_index: "fn f(n) { [[[[1]]]][0][0][f(n)] } f(0)" => ["`call_depth`"];
    recurses_in_text: "fn f(n) { `${`${`${f(n)}`}`}` } f(0)" => ["`call_depth`"];

    // large values
    doubles_text: "let s = \"x\"; loop { s += s; }" => ["`string`"];
    doubles_text_by_adding: "let s = \"x\"; loop { s = s + s; }" => ["`string`"];
    doubles_text_in_text: "let s = \"x\"; loop { s = `${s}${s}`; }" => ["`string`"];
    doubles_an_array: "let a = [1]; loop { a += a; }" => ["`array`"];
    doubles_an_array_by_appending: "let a = [1]; loop { let b = a; a.append(b); }" => ["`array`"];
    doubles_bytes: "let b = blob(1); loop { b += b; }" => ["`array`"];
    asks_for_bytes: "let b = blob(1000000000000); b" => ["`array`"];
    pads_text: "let s = \"\"; s.pad(1000000000000, \"ab\"); s" => ["`string`"];
    pads_an_array: "let a = []; a.pad(1000000000000, \"ab\"); a" => ["`array`", "`string`"];
    pads_with_arrays: "let a = []; a.pad(900, [1, 2, 3, 4, 5, 6, 7, 8]); a" => ["`array`"];
    replaces_each: "let s = \"a\"; for i in 0..13 { s += s; } let t = s; s.replace(\"a\", t); s"
        => ["`string`"];
    replaces_each_character: "let s = \"a\"; for i in 0..13 { s += s; } let t = s; \
        s.replace('a', t); s" => ["`string`"];
    replaces_nothing: "let s = \"a\"; for i in 0..13 { s += s; } let t = s; s.replace(\"\", t); s"
        => ["`string`"];
    grows_a_map: "let m = #{}; let i = 0; loop { m[\"k\" + i] = i; i += 1; }" => ["`map`"];
    grows_keys: "let s = \"k\"; for i in 0..13 { s += s; } let m = #{}; \
        for i in 0..400 { m[s + i] = i; } m" => ["`string`", "`value`"];
    grows_an_array_in_place: "let a = []; for i in 0..900 { a.push(0); } \
        for n in 0..900 { let s = \"x\"; for i in 0..13 { s += s; } a[n] = s + n; } a"
        => ["`string`", "`operations`"];
    grows_a_map_in_place: "let s = \"x\"; for i in 0..13 { s += s; } let m = #{}; \
        for i in 0..400 { m[\"k\" + i] = s + i; } m" => ["`string`"];
    grows_arrays_in_an_array: "let b = []; for i in 0..900 { b.push(i); } let a = []; \
        for i in 0..900 { a.push(0); } for i in 0..900 { a[i] = b; } a" => ["`array`"];

    // many values
    keeps_many: format!("{} a", (0..400).fold(
        with_array("#{ \"a\": i }", "").replace("990", "100"),
        |all, n| format!("{all} let a{n} = a;"))) => ["`memory`", "`variables`"];
    keeps_many_on_every_level: format!(
        "const S = \"x\"; fn f(a, n) {{ {} f(a, n + 1) }} {}",
        (0..100).fold(String::new(), |all, n| format!("{all} let a{n} = a;")),
        with_array("i", "f(a, 0)")) => ["`memory`", "`call_depth`"];
    keeps_many_texts: format!("let s = \"x\"; for i in 0..12 {{ s += s; }} {} 1",
        (0..400).fold(String::new(), |all, n| format!("{all} let a{n} = s + {n};")))
        => ["`memory`", "`variables`"];
    passes_many: format!("{} f({})", with_array("i", ""), many("a,", 7_000)) => ["`memory`"];
    passes_many_on_every_level: format!(
        "fn f(a, n) {{ g({} f(a, n + 1)) }} {}",
        many("a,", 5_000), with_array("i", "f(a, 0)")) => ["`memory`"];
    passes_some_on_every_level: format!(
        "fn f(a, n) {{ g({} f(a, n + 1)) }} {}",
        many("a,", 20), with_array("i", "f(a, 0)")) => ["`memory`"];
    passes_after_odd_text: format!(
        "fn f(a, n) {{ g({} f(a, n + 1)) }} {}",
        many("a, \")\", '(', `)${a[0]}(`, /* ) /* */ ) */", 200), with_array("i", "f(a, 0)"))
        => ["`memory`"];
    holds_what_it_may: format!("fn f(a, n) {{ if n == 0 {{ loop {{}} }} g(a, a, a, f(a, n - 1)) }} {}",
        with_array("i", "let b = a; let c = a; let d = a; f(a, 10)")) => ["`operations`", "`memory`"];
    shadows_many: "let s = \"x\"; for i in 0..12 { s += s; } \
        loop { let t = s + 1; let t = t + 2; let t = t + 3; }" => ["`operations`"];
    keeps_constants: format!("{} {} 1", with_array("i", ""),
        (0..400).fold(String::new(), |all, n| format!("{all} const A{n} = a;")))
        => ["`memory`", "`variables`"];
    iterates_in_iterations: format!("{} {} {{}} {}", with_array("i", ""),
        many("for x in a {", 40), many("}", 40)) => ["`expression_depth`", "complexity"];
    throws_much: "let s = \"x\"; for i in 0..13 { s += s; } throw s" => ["threw"];
    prints_much: "let s = \"x\"; for i in 0..13 { s += s; } loop { print(s); }" => ["`operations`"];
    debugs_much: "let s = \"x\"; for i in 0..13 { s += s; } loop { debug(s); }" => ["`operations`"];

    // straight lines, which run without the interpreter
    straight_lists_of_lists: format!("let a = later(1); {} a",
        many("let a = [a, a, a, a, a, a, a, a, a, a];", 300)) => ["`array`"];
    straight_lists_as_arguments: format!("let a = bytes(4000000); echo([{}])", many("a,", 3_000))
        => ["`memory`"];
    straight_large_answers: many("bytes(4000000);", 1_000) => ["`memory`"];
    straight_members: format!("let a = later(1); {} a", many("let a = a.a;", 1_000))
        => ["`variables`", "a"];

    // what stays in the environment
    fills_env: "let i = 0; loop { env[\"k\" + i] = 1; i += 1; }" => ["`operations`", "`memory`"];
    fills_env_with_text: "let s = \"x\"; for i in 0..13 { s += s; } let i = 0; \
        loop { env[\"k\" + i] = s; i += 1; }" => ["`memory`"];
    overwrites: "env.double = 1" => ["double"];

    // large texts
    many_lets: (0..6_000).fold(String::new(), |all, n| format!("{all}let a{n}={n};"))
        => ["`source`"];
    many_lets_that_fit: (0..1_000).fold(String::new(), |all, n| format!("{all}let a{n}=-{n}-1;"))
        => ["`variables`"];
    many_functions: (0..900).fold(String::new(), |all, n| format!("{all}fn f{n}(){{}}"))
        => ["`functions`"];
    many_names: (0..2_000).fold(String::new(), |all, n| format!("{all}f{n}();")) => ["f0"];
    many_paths: (0..1_400).fold(String::new(), |all, n| format!("{all}a{n}::f();")) => ["a0"];
    many_methods: (0..1_700).fold("let a=1;".to_owned(), |all, n| format!("{all}a.f{n}();"))
        => ["f0"];
    many_names_to_register: (0..2_000).fold("if true {".to_owned(), |all, n| format!("{all}f{n}();")) + "}"
        => ["`called`"];
    many_paths_to_register: (0..1_400).fold("if true {".to_owned(), |all, n| format!("{all}a{n}::f();")) + "}"
        => ["`called`"];
    many_methods_to_register: (0..1_700).fold("if true {let a=1;".to_owned(),
        |all, n| format!("{all}a.f{n}();")) + "}" => ["`called`"];
    opens_brackets: many("[", 16_000) => ["`expression_depth`", "`memory`"];
    opens_parentheses: many("(", 16_000) => ["`expression_depth`", "`memory`"];
    opens_blocks: many("{", 16_000) => ["`expression_depth`", "`memory`"];
    opens_ifs: many("if true {", 1_700) => ["`expression_depth`", "`memory`"];
    opens_texts: many("`${", 5_000) => ["`expression_depth`", "`memory`"];
    negates: many("!", 16_000) => ["`expression_depth`"];
    subtracts: many("-", 16_000) => ["`expression_depth`", "--"];
    chains_dots: format!("let a = 1; a{}", many(".a", 8_000)) => ["`expression_depth`", "a"];
    chains_indexes: format!("let a = 1; a{}", many("[0]", 5_000)) => ["`expression_depth`"];
    chains_sums: format!("1{}", many("+1", 8_000)) => ["`expression_depth`"];
    chains_ands: format!("true{}", many("&&true", 2_000)) => ["`expression_depth`"];
    chains_else: format!("if false {{}}{}", many("else if false {}", 1_000))
        => ["`expression_depth`"];
    comments_in_comments: many("/*", 8_000) => [];
    strange_bytes: "\u{0}\u{1}\u{feff}\u{202e}💥\u{7f}" => ["nexpected"];
    a_lone_quote: "\"" => ["erminated"];
    chains_powers: format!("2{}", many("**2", 4_000)) => ["`expression_depth`", "verflow"];
    chains_paths: format!("a{}()", many("::a", 4_000)) => ["a"];
    chains_namespaces: format!("if true {{ a{}() }}", many("::a", 4_000)) => ["`expression_depth`"];
    chains_maybes: format!("let a = (); a{}", many("?.a", 4_000)) => ["`expression_depth`"];
    chains_calls: format!("let a = 1; a{}", many(".b()", 4_000)) => ["`expression_depth`"];
    chains_calls_and_indexes: format!("let a = 1; a{}", many(".b()[0]", 2_000))
        => ["`expression_depth`"];
    chains_coalescing: format!("let a = (); a{}", many("??a", 5_000)) => ["`expression_depth`"];
    chains_maps: format!("{}1{}", many("#{a:", 100), many("}", 100)) => ["`expression_depth`"];
    chains_assignments: many("a=", 8_000) => [""];
    chains_switches: many("switch 1{1=>", 100) => ["`expression_depth`"];
}

/// Attacks with parameters, or under bounds of their own.
macro_rules! attacks_with {
    ($($name:ident: $bounds:expr, $ask:expr => $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            attack(stringify!($name), $bounds, $ask, &$expected);
        }
    )*};
}

#[derive(Clone, serde::Serialize)]
struct Small {
    a: u8,
}

fn with(set: impl FnOnce(&mut Bounds)) -> Bounds {
    let mut bounds = Bounds::default();
    set(&mut bounds);
    bounds
}

/// A map with many entries, and one called `z` behind them.
fn large_map() -> impl serde::Serialize + Send + 'static {
    let names = (0..100_000).map(|n| n.to_string());
    let all = names.chain(["z".to_owned()]).map(|name| (name, ()));
    all.collect::<std::collections::BTreeMap<_, _>>()
}

/// Bounds that only time is left of.
fn huge_times() -> Bounds {
    with(|bounds| {
        bounds.operations = u64::MAX;
        bounds.calls = u64::MAX;
        bounds.wall_clock = Duration::from_millis(300);
    })
}

attacks_with! {
    spins_too_long: huge_times(),
        |peer| peer.script("loop {}") => ["`wall_clock`"];
    calls_too_long: huge_times(),
        |peer| peer.script("loop { double(1); }") => ["`wall_clock`"];
    waits_too_long: huge_times(),
        |peer| peer.script("if true { never() }") => ["`wall_clock`"];
    waits_and_catches: huge_times(),
        |peer| peer.script("loop { try { never() } catch { } }") => ["`wall_clock`"];
    many_empty_lists: Bounds::default(), |peer| peer
        .script("let y = x; y[0] + 1")
        .bind("x", vec![[0_u8; 0]; 4_000_000]) => ["`array`"];
    many_small_maps: Bounds::default(), |peer| peer
        .script("let y = x; y[0] + 1")
        .bind("x", vec![Small { a: 1 }; 900_000]) => ["`string`"];
    a_long_text: Bounds::default(), |peer| peer
        .script("let y = x; y + 1")
        .bind("x", "x".repeat(4_000_000)) => ["`string`"];
    passes_on_long_texts: with(|bounds| bounds.calls = 100), |peer| peer
        .script("let n = 0; loop { n += 1; bytes(4000000); }") => ["`calls`"];
    keeps_long_answers: Bounds::default(), |peer| peer
        .script("if true { let a = bytes(3900000); let b = bytes(3900000); let c = bytes(3900000); c }")
        => ["`memory`"];
    piles_up_long_answers: Bounds::default(), |peer| peer
        .script("let a = []; for i in 0..1000 { a.push(bytes(3900000)); }") => ["`memory`"];
    keeps_long_answers_in_env: Bounds::default(), |peer| peer
        .script("for i in 0..1000 { env[\"k\" + i] = bytes(3900000); }") => ["`memory`"];
    looks_for_fields: with(|bounds| bounds.operations = 20_000), |peer| peer
        .script(format!("[{}]", many("p.z,", 4_000)))
        .bind("p", large_map()) => ["`operations`"];
    copies_for_nothing: Bounds::default(), |peer| peer
        .script(many("describe(p,p);", 1_000))
        .bind("p", bytes::Bytes::from(vec![0; 3_900_000])) => ["`operations`"];
    looks_at_properties: Bounds::default(), |peer| peer
        .script(format!("[{}]", many("p.len,", 2_600)))
        .bind("p", "x".repeat(16_000)) => ["`operations`"];
    many_parameters: Bounds::default(), |peer| (0..1_000)
        .fold(peer.script("loop { b; }").bind("b", 1), |script, n| script.bind(format!("p{n}"), 1))
        => ["`variables`"];
    large_bounds_nest: with(|bounds| {
        bounds.array = 1_000_000;
        bounds.map = 1_000_000;
        bounds.value = 10 << 20;
        bounds.memory = 200 << 20;
    }), |peer| peer.script("let a = []; loop { a = [a]; }") => ["`nesting`"];
    large_bounds_nest_maps: with(|bounds| {
        bounds.array = 1_000_000;
        bounds.map = 1_000_000;
        bounds.value = 10 << 20;
        bounds.memory = 200 << 20;
    }), |peer| peer.script("let a = #{}; loop { let b = #{}; b.k = a; a = b; }") => ["`nesting`"];
}

/// Many scripts at once: the typed calls beside them are answered.
fn crowd(name: &str, source: &'static str, mut bounds: Bounds, expected: &str) {
    in_process_of_its_own(name, || {
        runtime().block_on(async {
            // a debug build has large stacks
            bounds.fibers = 64;
            let pair = testing::pair(exposed(bounds), HostingEnv::new())
                .await
                .expect("peers in memory can be joined");
            let scripts: Vec<_> = (0..300)
                .map(|_| pair.client.script::<IgnoredAny>(source).send())
                .collect();
            for n in 0..20 {
                let double: i64 = pair.client.script("double(n)").bind("n", n).await.unwrap();
                assert_eq!(double, 2 * n);
            }
            for script in scripts {
                stands(script.await.err(), &[expected]);
            }
            let four: i64 = pair.client.script("double(n)").bind("n", 2).await.unwrap();
            assert_eq!(four, 4);
        });
    });
}

#[test]
fn many_that_wait() {
    let source = "if true { never() }";
    crowd("many_that_wait", source, huge_times(), "`wall_clock`");
}

#[test]
fn many_that_spin() {
    let bounds = with(|bounds| bounds.operations = 20_000);
    crowd("many_that_spin", "loop {}", bounds, "`operations`");
}

/// Many scripts at once that each keep a good deal, and wait: those that no memory is left for end.
fn hoard(name: &str, source: String, room_for: usize) {
    const SCRIPTS: usize = 100;
    in_process_of_its_own(name, || {
        runtime().block_on(async {
            let bounds = with(|bounds| {
                bounds.fibers = SCRIPTS;
                bounds.connection_memory = 16 << 20;
            });
            let pair = testing::pair(exposed(bounds), HostingEnv::new())
                .await
                .expect("peers in memory can be joined");
            let peer = &pair.client;
            let warm: i64 = peer.script("let t = later(1); t += 1; t").await.unwrap();
            assert_eq!(warm, 2);
            let before = memory("VmRSS:");
            for _ in 0..3 {
                let asked = (0..SCRIPTS).map(|_| peer.script::<IgnoredAny>(source.clone()));
                let mut scripts: FuturesUnordered<_> = asked.map(Asked::send).collect();
                for _ in room_for..SCRIPTS {
                    let ended = scripts.next().await.expect("some are left");
                    stands(ended.err(), &["`connection_memory`"]);
                }
                let four: i64 = peer.script("double(n)").bind("n", 2).await.unwrap();
                assert_eq!(four, 4);
                // the others wait for ever
                drop(scripts);
                let warm: i64 = peer.script("let t = later(1); t += 1; t").await.unwrap();
                assert_eq!(warm, 2);
            }
            let most = memory("VmHWM:") - before;
            println!("{most} KiB at most");
            assert!(most < MOST, "{most} KiB at most");
        });
    });
}

#[test]
fn many_that_keep_much() {
    let keep = (0..200).fold(String::new(), |all, n| format!("{all} let a{n} = s + {n};"));
    let source = format!("let s = \"x\"; for i in 0..13 {{ s += s; }} {keep} never(); s");
    hoard("many_that_keep_much", source, 10);
}

#[test]
fn many_that_pass_on_much() {
    let source = "if true { let a = bytes(3900000); never(); a }".to_owned();
    hoard("many_that_pass_on_much", source, 4);
}

#[test]
fn many_straight_lines_that_keep_much() {
    let source = "let a = bytes(3900000); let b = never(); a".to_owned();
    hoard("many_straight_lines_that_keep_much", source, 4);
}

/// Lists in lists are a byte each while they are packed. Over the text wire what hits a bound ends the
/// connection.
#[test]
fn lists_in_lists_over_the_text_wire() {
    in_process_of_its_own("lists_in_lists_over_the_text_wire", || {
        runtime().block_on(async {
            let nest = |inner: &str| format!("{}{inner}{}", many("[", 30), many("]", 30));
            let source = format!(
                "e = {}\nf = {}\na = [{}]\nlen([{}])",
                nest("1"),
                nest("e"),
                many("f,", 1_000),
                many("a,", 100)
            );
            let server = hbi::serve("text+mem://lists", |_: hbi::Peer| async {
                Ok(exposed(Bounds::default()))
            });
            let server = server.await.expect("serves");
            let before = memory("VmRSS:");
            for _ in 0..3 {
                let peer = hbi::connect(server.address().to_string(), HostingEnv::new());
                let peer = peer.await.expect("connects");
                let error = peer.script::<IgnoredAny>(source.clone()).await;
                let error = error.expect_err("it is too much").to_string();
                assert!(error.contains("`memory`"), "{error}");
            }
            let most = memory("VmHWM:") - before;
            println!("{most} KiB at most");
            assert!(most < MOST, "{most} KiB at most");
        });
    });
}

/// Values over the text wire, of which more stand in one text than may: what is read takes many times the
/// memory of its text, and a value may be as long as a message.
macro_rules! long_values {
    ($($name:ident: $front:literal $part:literal $behind:literal;)*) => {$(
        #[test]
        fn $name() {
            let part = $part;
            let source = format!("{}{}{}", $front, many(part, 2_000_000 / part.len()), $behind);
            long_value(stringify!($name), &source);
        }
    )*};
}

long_values! {
    a_string_of_many_values: "f'" "{}" "'";
    a_string_of_many_texts: "f'" "{1}a" "'";
    many_statements: "" "return;" "";
    many_fields: "[" "a.b.b.b.b.b.b.b," "]";
    many_signs: "[" "-------1," "]";
}

fn long_value(name: &str, source: &str) {
    in_process_of_its_own(name, || {
        runtime().block_on(async {
            let server = hbi::serve("text+tcp://127.0.0.1:0", |_: hbi::Peer| async {
                Ok(exposed(Bounds::default()))
            });
            let server = server.await.expect("serves");
            let hbi::Scheme::Tcp(address) = server.address().scheme() else {
                panic!("a TCP server");
            };
            let before = memory("VmRSS:");
            let mut stream = TcpStream::connect(address).await.expect("connects");
            let head = format!("[3#co_begin]101[{}#co_send]", source.len());
            for bytes in [&head, source] {
                stream.write_all(bytes.as_bytes()).await.expect("it reads");
            }
            let mut came = String::new();
            stream.read_to_string(&mut came).await.expect("it writes");
            assert!(came.contains("`values`"), "{came}");
            let most = memory("VmHWM:") - before;
            println!("{most} KiB at most");
            assert!(most < MOST, "{most} KiB at most");
        });
    });
}

/// Many scripts at once over the text wire, where what hits a bound ends the connection.
#[test]
fn many_of_the_text_wire_that_keep_much() {
    in_process_of_its_own("many_of_the_text_wire_that_keep_much", || {
        runtime().block_on(async {
            let server = hbi::serve("text+mem://hoard", |_: hbi::Peer| async {
                let bounds = with(|bounds| bounds.connection_memory = 16 << 20);
                Ok(exposed(bounds))
            });
            let server = server.await.expect("serves");
            let peer = hbi::connect(server.address().to_string(), HostingEnv::new());
            let peer = peer.await.expect("connects");
            let before = memory("VmRSS:");
            let source = "_1 = ['x' * 16000] * 60\nnever()";
            let asked = (0..100).map(|_| peer.script::<IgnoredAny>(source));
            for script in asked.map(Asked::send).collect::<Vec<_>>() {
                let error = script.await.expect_err("too much is kept").to_string();
                assert!(error.contains("`connection_memory`"), "{error}");
            }
            let most = memory("VmHWM:") - before;
            println!("{most} KiB at most");
            assert!(most < MOST, "{most} KiB at most");
        });
    });
}

/// What is made of scripts to run them stays as long as they have numbers: of all that a peer sends,
/// no more than it may.
fn keep_scripts(name: &str, env: impl FnOnce() -> HostingEnv, text: impl Fn(usize) -> String) {
    in_process_of_its_own(name, || {
        runtime().block_on(async {
            let pair = testing::pair(env(), HostingEnv::new())
                .await
                .expect("peers in memory can be joined");
            let peer = &pair.client;
            let before = memory("VmRSS:");
            for n in 0..250 {
                // a text has a number from its second use on
                for _ in 0..2 {
                    let landed = peer.script::<IgnoredAny>(text(n)).await;
                    if let Err(error) = landed {
                        stands(Some(error), &["`sources`"]);
                    }
                }
            }
            let four: i64 = peer.script("double(n)").bind("n", 2).await.unwrap();
            assert_eq!(four, 4);
            let most = memory("VmHWM:") - before;
            println!("{most} KiB at most");
            assert!(most < MOST, "{most} KiB at most");
        });
    });
}

#[test]
fn many_that_call_much() {
    let calls = (0..250).fold(String::new(), |all, m| format!("{all}a::x{m}();"));
    let text = |n| format!("if false {{ {calls} }} {n}");
    keep_scripts("many_that_call_much", || exposed(Bounds::default()), text);
}

#[test]
fn many_that_call_in_many_places() {
    let calls = (0..250).fold(String::new(), |all, m| format!("{all}a{m}::x();"));
    let text = |n| format!("if false {{ {calls} }} {n}");
    let name = "many_that_call_in_many_places";
    keep_scripts(name, || exposed(Bounds::default()), text);
}

#[test]
fn many_that_call_what_the_interpreter_has() {
    let env = || exposed(Bounds::default()).function("get", |a: i64, b: i64, c: i64| a + b + c);
    let text = |n| format!("if true {{ get(1, 2, 3) }} {n}");
    keep_scripts("many_that_call_what_the_interpreter_has", env, text);
}

#[test]
fn many_that_consist_of_much() {
    let sums = many("1+1;", 3_900);
    let text = |n| format!("if true {{ return {n}; }} {sums}");
    let name = "many_that_consist_of_much";
    keep_scripts(name, || exposed(Bounds::default()), text);
}

#[test]
fn many_straight_lines_that_consist_of_much() {
    let ones = many("1,", 7_900);
    let text = |n| format!("[{ones}{n}]");
    let name = "many_straight_lines_that_consist_of_much";
    keep_scripts(name, || exposed(Bounds::default()), text);
}

/// A host that lets scripts go deep gives them the stack for it.
#[test]
fn goes_as_deep_as_it_may() {
    in_process_of_its_own("goes_as_deep_as_it_may", || {
        runtime().block_on(async {
            let bounds = with(|bounds| {
                bounds.call_depth = usize::MAX;
                bounds.expression_depth = usize::MAX;
                bounds.memory = 1 << 30;
                bounds.connection_memory = 1 << 30;
            });
            let pair = testing::pair(exposed(bounds), HostingEnv::new())
                .await
                .expect("peers in memory can be joined");
            let peer = &pair.client;
            let nest = |open: &str, inner: &str, close: &str, times: usize| {
                format!("{}{inner}{}", many(open, times), many(close, times))
            };
            for (open, close) in [
                ("1+(", ")"),
                ("-(", ")"),
                ("`${", "}`"),
                ("[", "][0]"),
                ("[0][", "]"),
                ("#{a:", "}.a"),
                ("true && (", ") == 0"),
                ("if true {", "}"),
                ("for i in 0..1 {", "}"),
                ("try {", "} catch {}"),
                ("switch 1 { 1 => ", "}"),
                ("double(", ")/2"),
                ("later(", ")"),
                ("max(0, ", ")"),
            ] {
                let deep = |times: usize, calls: usize| {
                    let body = nest(open, "f(n - 1)", close, times);
                    format!("fn f(n) {{ if n == 0 {{ 0 }} else {{ {body} }} }} f({calls})")
                };
                // as deep as is taken
                let mut times = 64;
                while let Err(error) = peer.script::<IgnoredAny>(deep(times, 0)).await {
                    stands(Some(error), &["`expression_depth` (64)"]);
                    times -= 1;
                }
                println!("{open} {times} times");
                let landed = peer.script::<IgnoredAny>(deep(times, 250)).await;
                assert!(landed.is_ok(), "{landed:?}");
                let error = peer.script::<IgnoredAny>(deep(times, 300)).await.err();
                stands(error, &["`call_depth` (256)"]);
            }
        });
    });
}

#[test]
fn anything_in_a_row() {
    const TOKENS: &[&str] = &[
        "a",
        "1",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ";",
        ",",
        ".",
        "?.",
        "?[",
        "..",
        "..=",
        "::",
        "=",
        "+",
        "-",
        "!",
        "*",
        "**",
        "&&",
        "??",
        "<",
        "#{",
        "a:",
        "=>",
        "|",
        "||",
        "if ",
        "else ",
        "switch ",
        "while ",
        "for a in ",
        "do ",
        "try ",
        "catch ",
        "fn a()",
        "let a",
        "return ",
        "throw ",
        "const ",
        "in ",
        "`",
        "${",
        "\"",
        "'",
        "//",
        "/*",
        "\n",
        "@",
        "_",
        "é",
    ];
    in_process_of_its_own("anything_in_a_row", || {
        runtime().block_on(async {
            let bounds = with(|bounds| bounds.operations = 1_000);
            let pair = testing::pair(exposed(bounds), HostingEnv::new())
                .await
                .expect("peers in memory can be joined");
            let pairs = TOKENS
                .iter()
                .flat_map(|one| TOKENS.iter().map(move |two| (format!("{one}{two}"), 2_000)));
            let alone = TOKENS.iter().map(|one| (one.to_string(), 15_000));
            for (row, length) in alone.chain(pairs) {
                let source = format!("let a = later(1); a{}", row.repeat(length / row.len()));
                let error = pair.client.script::<IgnoredAny>(source).await.err();
                let harmless = error.is_none_or(|e| !e.is_panic() && !e.is_disconnected());
                assert!(harmless, "{row:?}");
            }
        });
    });
}
