//! Scripts of both existing peers in an environment, and attacks on its bounds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::*;
use crate::{
    Failure, Kind,
    env::{Artifacts, Bounds, Outcome, share::Pool},
    value::{Handle, Packed, Value},
};

/// An environment with a few functions.
#[derive(Default)]
struct Fake {
    kept: Mutex<HashMap<String, Packed>>,
    called: Mutex<Vec<String>>,
    printed: Arc<Mutex<Vec<String>>>,
}

/// An object, of which there can be many handles, or a stream, of which there is one.
#[derive(Debug)]
struct Held {
    object: bool,
}

impl Handle for Held {
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }

    fn share(&self) -> Option<Box<dyn Handle>> {
        self.object.then(|| Box::new(Held { object: true }) as _)
    }
}

fn copy(packed: &Packed) -> Packed {
    let bytes = bytes::Bytes::copy_from_slice(packed.bytes());
    Packed::from_parts(bytes, Default::default())
}

impl Artifacts for Fake {
    fn call(&self, name: &str, arguments: Vec<Packed>) -> Outcome {
        let values: Vec<_> = arguments.iter().map(copy).map(Value::unpack).collect();
        let shown: Vec<_> = values.iter().flatten().map(|v| format!("{v:?}")).collect();
        let mut called = self.called.lock().expect("not poisoned");
        called.push(format!("{name}({})", shown.join(", ")));
        match name {
            "later" => {
                let first = arguments.into_iter().next().unwrap_or_default();
                Outcome::Waiting(Box::pin(async move {
                    tokio::task::yield_now().await;
                    Ok(first)
                }))
            }
            "never" => Outcome::Waiting(Box::pin(std::future::pending())),
            "open" | "stream" => {
                let object = name == "open";
                Outcome::Ready(Ok(Packed::of_handle(Box::new(Held { object }))))
            }
            "fail" => Outcome::Ready(Err(Failure::new(Kind::App, "it failed").at("fail"))),
            "calc::add" => {
                let sum: i64 = arguments
                    .into_iter()
                    .map(|n| n.unpack::<i64>().unwrap_or(0))
                    .sum();
                Outcome::Ready(Ok(Packed::pack(&sum).expect("packs")))
            }
            _ => Outcome::Ready(Ok(Packed::array(arguments))),
        }
    }

    fn call_method(&self, _: Packed, method: &str, arguments: Vec<Packed>) -> Outcome {
        self.call(&format!("<object>.{method}"), arguments)
    }

    fn has_function(&self, name: &str) -> bool {
        let all = [
            "note",
            "later",
            "never",
            "fail",
            "open",
            "stream",
            "calc::add",
        ];
        all.contains(&name)
    }

    fn exposed(&self, name: &str) -> Option<Packed> {
        (name == "greeting").then(|| Packed::pack("hello").expect("packs"))
    }

    fn get(&self, name: &str) -> Option<Packed> {
        let kept = self.kept.lock().expect("not poisoned");
        self.exposed(name).or_else(|| kept.get(name).map(copy))
    }

    fn set(&self, name: &str, value: Packed) -> Result<(), Failure> {
        if self.has_function(name) || self.exposed(name).is_some() {
            return Err(Failure::new(Kind::Refused, format!("`{name}` is exposed")));
        }
        let mut kept = self.kept.lock().expect("not poisoned");
        kept.insert(name.to_owned(), value);
        Ok(())
    }

    fn resembling(&self, _: &str) -> Vec<String> {
        vec!["note".to_owned()]
    }
}

async fn run_in(fake: &Arc<Fake>, source: &str, bounds: &Bounds) -> Result<Value, Failure> {
    let code = Arc::new(Code::new(source, bounds)?);
    let printed = Arc::clone(&fake.printed);
    let print: Print = Box::new(move |line| {
        printed.lock().expect("not poisoned").push(line.to_owned());
    });
    let artifacts = Arc::clone(fake) as Arc<dyn Artifacts>;
    let share = Pool::new(bounds.connection_memory).share();
    let running = code.run(
        artifacts,
        None,
        bounds.clone(),
        Unknown::Refuse,
        print,
        share,
    );
    Ok(Value::unpack(running.await?)?)
}

async fn run(source: &str) -> Result<Value, Failure> {
    run_in(&Arc::default(), source, &Bounds::default()).await
}

async fn int(source: &str) -> i128 {
    match run(source).await {
        Ok(Value::Int(n)) => n,
        other => panic!("{source}: {other:?}"),
    }
}

async fn shown(source: &str) -> String {
    match run(&format!("str({source})")).await {
        Ok(Value::Text(text)) => text,
        other => panic!("{source}: {other:?}"),
    }
}

#[tokio::test]
async fn assignments_stay_and_the_last_statement_is_the_value() {
    let fake = Arc::default();
    let bounds = Bounds::default();
    let value = run_in(&fake, "\nmy_name = 'Nick'\nnote(my_name)\t\n", &bounds).await;
    assert_eq!(value, Ok(Value::List(vec![Value::Text("Nick".into())])));
    let value = run_in(&fake, "my_name", &bounds).await;
    assert_eq!(value, Ok(Value::Text("Nick".into())));
    let value = run_in(&fake, "x = 5", &bounds).await;
    assert_eq!(value, Ok(Value::Nil), "an assignment has no value");
    assert_eq!(run_in(&fake, "", &bounds).await, Ok(Value::Nil));
    assert_eq!(
        run_in(&fake, "x += 2; env.x", &bounds).await,
        Ok(Value::Int(7))
    );
    let several = "a, b = 1, [2, 3]\nc = d = b[1]\nb[0] = {'k': 9}\nb[0]['n'] = a; env.e = 4\n\
                   str([a, b, c, d, e])";
    assert_eq!(
        run_in(&fake, several, &bounds).await,
        Ok(Value::Text(r#"[1, [{"k": 9, "n": 1}, 3], 3, 3, 4]"#.into()))
    );
    for (source, reason) in [
        ("note = 5", "is exposed"),
        ("greeting = 5", "is exposed"),
        ("a, b = [1]", "1 values for 2 names"),
        ("a, b = 5", "an integer is no list"),
        (
            "unheard_of += 1",
            "`unheard_of` is not exposed by the peer; exposed there: note",
        ),
    ] {
        let failure = run(source).await.expect_err(source);
        assert!(failure.message.contains(reason), "{source}: {failure}");
    }
}

#[tokio::test]
async fn calls_go_to_what_is_exposed_and_wait_for_it() {
    let fake = Arc::<Fake>::default();
    let bounds = Bounds::default();
    let value = run_in(&fake, "note(later(1), calc.add(later(2), 3))", &bounds).await;
    assert_eq!(value, Ok(Value::List(vec![Value::Int(1), Value::Int(5)])));
    let value = run_in(&fake, "room = 5\nroom.say('hi')\n", &bounds).await;
    assert_eq!(value, Ok(Value::List(vec![Value::Text("hi".into())])));
    run_in(&fake, "note(*[1, 2])\nnote([3]...)\nnote()", &bounds)
        .await
        .expect("lands");
    let called = fake.called.lock().expect("not poisoned").clone();
    assert_eq!(called[4], "<object>.say(Text(\"hi\"))");
    assert_eq!(
        called[5..],
        ["note(Int(1), Int(2))", "note(Int(3))", "note()"]
    );
    let failure = run("note(1)\n  fail(2)").await.expect_err("it fails");
    assert_eq!((failure.kind, &*failure.origin), (Kind::App, "fail"));
    assert_eq!(
        failure.place.map(|place| (place.line, place.column)),
        Some((2, 3))
    );
    let failure = run("nobody(1)").await.expect_err("it is not there");
    assert_eq!(failure.kind, Kind::Unknown);
}

#[tokio::test]
async fn unknown_constructors_are_lists_where_a_value_is_read() {
    let code = Arc::new(Code::new("Msgs('Tea', [Msg(1, 2)])", &Bounds::default()).expect("reads"));
    let fake = Arc::<Fake>::default();
    let print: Print = Box::new(|_| {});
    let share = Pool::new(usize::MAX).share();
    let running = code.run(
        fake,
        None,
        Bounds::default(),
        Unknown::Construct,
        print,
        share,
    );
    let value = Value::unpack(running.await.expect("lands")).expect("a value");
    let inner = Value::List(vec![Value::Int(1), Value::Int(2)]);
    let expected = vec![Value::Text("Tea".into()), Value::List(vec![inner])];
    assert_eq!(value, Value::List(expected));
}

#[tokio::test]
async fn operators_do_what_python_does() {
    for (source, expected) in [
        ("1 + 2 * 3 - 4", 3),
        ("7 // 2", 3),
        ("-7 // 2", -4),
        ("7 // -2", -4),
        ("-7 % 3", 2),
        ("7 % -3", -2),
        ("2 ** 10", 1024),
        ("-2 ** 2", -4),
        ("2 ** 3 ** 2", 512),
        ("[1, 2, 3][-1]", 3),
        ("{'a': 1, 'b': 2, 'a': 3}['a']", 3),
        ("len('né') + len([1]) + len({})", 3),
        ("1 if 2 > 3 else 4", 4),
        ("0 or 5 and 6", 6),
        ("0 || 5", 5),
        ("5 && 0", 0),
        ("True + True", 2),
        ("int('12') + int(3.9) + int(true)", 16),
        ("- -1", 1),
        ("len(range(3)) + range(2, 9)[0]", 5),
        ("# a comment\n1 # and another", 1),
        ("f'{1 + 1}' == '2' and 8", 8),
        ("return 5\n6", 5),
        ("note(*[1])[0]", 1),
        ("k = 'a'\nlen({k: 1})", 1),
        (
            "{greeting: 1, calc.add(1, 2): 2}['hello'] + {calc.add(1, 2): 2}[3]",
            3,
        ),
        ("{1: 3, True: 4, 1.0: 5}[1]", 5),
        ("d = {1: 3}\nd[True] = 4\nd[1.0]", 4),
    ] {
        assert_eq!(int(source).await, expected, "{source}");
    }
    for (source, expected) in [
        ("7 / 2", "3.5"),
        ("8 / 2", "4.0"),
        ("7.5 // 2", "3.0"),
        ("-7.5 % 2", "0.5"),
        ("2 ** -1", "0.5"),
        ("1 + 0.5", "1.5"),
        ("not 0", "True"),
        ("!1", "False"),
        ("1 < 2 < 3", "True"),
        ("3 > 2 > 2", "False"),
        ("1 == 1.0", "True"),
        ("'a' < 'b'", "True"),
        ("2 in [1, 2]", "True"),
        ("'k' not in {'k': 1}", "False"),
        ("'el' in 'hello'", "True"),
        ("'ab' * 2 + 'c'", "ababc"),
        ("[1, 2, 3, 4][1:-1]", "[2, 3]"),
        ("'hello'[:2] + 'hello'[-2:]", "helo"),
        ("[1] + [2] * 2", "[1, 2, 2]"),
        ("note([1]) == [[1]]", "True"),
        ("[note()] == [[]]", "True"),
        ("1 in note(1)", "True"),
        ("True == 1", "True"),
        ("False != 0.0", "False"),
        ("1 in [True]", "True"),
        ("[True, {0: 1}] == [1, {False: True}]", "True"),
        ("'1' == 1", "False"),
        ("{1: 'a', 'b': 2, True: 'c'}", "{1: \"c\", \"b\": 2}"),
        ("2**53 + 1 == 2.0**53", "False"),
        ("2**53 + 1 > 2.0**53", "True"),
        ("2.0**53 < 2**53 + 1", "True"),
        ("2**53 == 2.0**53", "True"),
        ("0 > 1 > fail(1)", "False"),
        ("0 < 1 < calc.add(1, 1) == 2 in [2]", "True"),
        ("1 // 0.1", "9.0"),
        ("1 % 0.1", "0.09999999999999995"),
        ("-1 // 0.1", "-10.0"),
        ("7 // -2.0", "-4.0"),
        ("7 % -2.0", "-1.0"),
        ("5.0 % 1e400", "5.0"),
        ("-5.0 // 1e400", "-1.0"),
        ("-0.0 % 3.0", "0.0"),
        ("6.0 % -3.0", "-0.0"),
        ("-0.0 // 3", "-0.0"),
        ("4 ** 0.5", "2.0"),
        ("1e400 ** 2", "inf"),
        ("'a'in'abc'", "True"),
        ("''or'y'", "y"),
        ("None == nil", "True"),
        ("100000 in [1, 2, 3]", "False"),
        ("[1] == 100000", "False"),
        ("[] * 18446744073709551616", "[]"),
        ("170141183460469231731687303715884105727 * []", "[]"),
        ("'' * 18446744073709551616", ""),
        ("[1] * -18446744073709551616", "[]"),
        ("(1)", "1"),
        ("(1,)", "[1]"),
        ("()", "[]"),
        (
            "{1: None, 'a': [True, nan]}",
            "{1: None, \"a\": [True, nan]}",
        ),
        ("f'{{{greeting}}} {1,}'", "{hello} [1]"),
        ("NaN == NaN", "False"),
        ("b'a\\xff'", "b\"a\\xff\""),
        ("bool('') or float(2)", "2.0"),
        ("0b11 + 1_000 + 010 + +5 + .5", "1018.5"),
    ] {
        let source = source.replace("{1,}", "{[1]}");
        assert_eq!(shown(&source).await, expected, "{source}");
    }
    for (source, reason) in [
        ("1 + 'a'", "`+` does not fit an integer and a string"),
        ("1 / 0", "division by zero"),
        ("[1][1]", "no element 1 among 1"),
        ("{'a': 1}['b']", "no key \"b\""),
        ("-'a'", "a string has no sign"),
        ("None < 1", "`<` does not fit None and an integer"),
        ("2 ** 200", "more than 127 bits"),
        ("note(2 ** 100)", "does not fit 64 bits"),
        ("5[0]", "an integer has no elements"),
        ("(5).x", "an integer has no field `x`"),
        ("greeting.x", "has no field `x`"),
        ("{[1]: 2}", "a list cannot be a key"),
        ("k = [1]\n{k: 2}", "a list cannot be a key"),
        ("d = {}\nd[[1]] = 2", "a list cannot be a key"),
        ("{open(): 2}", "a stream or object cannot be a key"),
        ("(-8) ** 0.5", "complex"),
        ("2.0 ** 5000", "too large for a float"),
    ] {
        let failure = run(source).await.expect_err(source);
        assert!(failure.message.contains(reason), "{source}: {failure}");
        assert!(failure.place.is_some(), "{source}: {failure}");
    }
}

#[tokio::test]
async fn loops_and_conditions_of_go_scripts_land() {
    let source = "s = 0\nfor n in range(10) {\n  if n == 2 { continue }\n  if n > 5 { break }\n  \
                  s += n\n}\nif s > 100 { s = 1 } else if s == 13 { note(s) } else { s = 2 }\ns";
    assert_eq!(int(source).await, 13);
    let nested =
        "t = ''\nfor a in ['x', 'y'] {\n for b in ({'1': 0, '2': 0}) { t += a + b }\n}\nlen(t)";
    assert_eq!(int(nested).await, 8);
    assert_eq!(int("for n in [1, 2] { if n { return n * 7 } }").await, 7);
}

#[tokio::test]
async fn print_is_heard_where_it_is_not_exposed() {
    let fake = Arc::<Fake>::default();
    let source = "print('Welcome', 1, None, [1.0])";
    let value = run_in(&fake, source, &Bounds::default()).await;
    assert_eq!(value, Ok(Value::Nil));
    let printed = fake.printed.lock().expect("not poisoned").clone();
    assert_eq!(printed, ["Welcome 1 None [1.0]"]);
}

/// A script that makes much of lists in lists: each is a byte while it is packed.
fn lists_in_lists(then: &str) -> String {
    let nest = |inner: &str| format!("{}{inner}{}", "[".repeat(30), "]".repeat(30));
    let (e, f) = (nest("1"), nest("e"));
    format!("e = {e}\nf = {f}\na = [{}]\n{then}", "f, ".repeat(1000))
}

#[tokio::test(start_paused = true)]
async fn each_bound_holds_and_is_named() {
    let long = format!("'{}'", "x".repeat(20 << 10));
    let entries: String = (0..501).map(|n| format!("{n}: 0, ")).collect();
    let entries = format!("{{{entries}}}");
    for (source, name) in [
        (&*long, "source"),
        (
            "a = 0\nfor x in range(1000) { for y in range(1000) { a = y } }",
            "operations",
        ),
        ("a = 'x'\nfor x in range(100) { a = a + a }", "string"),
        ("a = 'x' * 10 ** 18", "string"),
        ("a = [1]\nfor x in range(100) { a = a + a }", "array"),
        ("a = [1] * 10 ** 18", "array"),
        ("a = [1] * 2 ** 64", "array"),
        ("range(10 ** 9)", "array"),
        (&*entries, "map"),
        (
            "a = 'x' * 16000\nfor x in range(1000) { b = a + 'y' }",
            "memory",
        ),
        (
            "a = ['x' * 16000] * 1000\nfor x in range(1000) { b = a[0] }",
            "memory",
        ),
        (
            "for x in range(1000) { for y in range(100) { note() } }",
            "calls",
        ),
        ("never()", "wall_clock"),
        (
            "a = [1]\nfor x in range(1000) { a = [a] }",
            "deeper than 64",
        ),
        (
            "for x in [1] { for y in range(1000) { x = [x] } }",
            "deeper than 64",
        ),
        ("a = ['x' * 16000] * 1000", "memory"),
        ("a = b = c = d = e = ['x' * 9999] * 600", "memory"),
        (
            "a = range(1000)\nfor x in range(100) { a == a }",
            "operations",
        ),
        (
            &lists_in_lists(&format!("len([{}])", "a, ".repeat(20))),
            "memory",
        ),
        (
            &lists_in_lists(&format!("len({{1: [{}]}})", "a, ".repeat(20))),
            "memory",
        ),
        (
            &lists_in_lists(&format!("[{}] == 1", "a, ".repeat(20))),
            "memory",
        ),
        (
            &lists_in_lists(&format!("len(f'{{[{}]}}')", "a, ".repeat(20))),
            "memory",
        ),
        ("a = 'x' * 9000\nprint(a, a)", "string"),
        ("print(['x' * 9000] * 2)", "string"),
        (&"f(".repeat(100), "expression_depth"),
        (&"(".repeat(10_000), "expression_depth"),
    ] {
        let started = tokio::time::Instant::now();
        let failure = run(source).await.expect_err(source);
        let named = failure.message.contains(name);
        assert!(named, "{name}: {failure}");
        assert!(started.elapsed() < Duration::from_secs(40), "{source}");
    }
}

#[tokio::test]
async fn dicts_of_many_keys_cost_what_stands_in_them() {
    let bounds = Bounds {
        source: usize::MAX,
        map: usize::MAX,
        ..Bounds::default()
    };
    let entries: String = (0..20_000).map(|n| format!("{n}: 0, ")).collect();
    let large = format!("len({{{entries}}})");
    let value = run_in(&Arc::default(), &large, &bounds).await;
    assert_eq!(value, Ok(Value::Int(20_000)));
}

#[tokio::test]
async fn what_is_changed_is_looked_for_once() {
    let fake = Arc::<Fake>::default();
    let source = "a = [[1, 2], {'k': 3}]\na[note(1)[0]][later('k')] += calc.add(10, 20)\n\
                  a[0][-1] *= 4\nstr(a)";
    let value = run_in(&fake, source, &Bounds::default()).await;
    assert_eq!(value, Ok(Value::Text(r#"[[1, 8], {"k": 33}]"#.into())));
    let called = fake.called.lock().expect("not poisoned").clone();
    let expected = [
        "note(Int(1))",
        "later(Text(\"k\"))",
        "calc::add(Int(10), Int(20))",
    ];
    assert_eq!(called, expected, "in the order of Python");
}

#[tokio::test]
async fn names_share_objects_and_pass_streams_on() {
    let fake = Arc::<Fake>::default();
    let bounds = Bounds::default();
    let source = "_1 = open()\n_1.say('hi')\n_1.say('ho')\n_2 = [_1, 1]\n[_1, _2]";
    let value = run_in(&fake, source, &bounds).await.expect("lands");
    assert_eq!(value.pack().expect("packs").handles().len(), 2);
    let called = fake.called.lock().expect("not poisoned").clone();
    let said = ["<object>.say(Text(\"hi\"))", "<object>.say(Text(\"ho\"))"];
    assert_eq!(called[1..], said);
    let passed_on = run_in(&fake, "_1 = stream()\nnote(_1)", &bounds).await;
    assert_eq!(
        passed_on
            .expect("lands")
            .pack()
            .expect("packs")
            .handles()
            .len(),
        1
    );
    for twice in ["note(_1)", "_1.say('hi')"] {
        let source = format!("_1 = stream()\nnote(_1)\n{twice}");
        let failure = run(&source).await.expect_err("there is one only");
        assert!(failure.message.contains("taken before"), "{failure}");
    }
}

#[tokio::test]
async fn comparisons_in_a_row_are_counted() {
    let source = "a = range(1000)\nfor x in range(20) { a == a == a == a == a }";
    let failure = run(source).await.expect_err("it takes too much");
    assert!(failure.message.contains("operations"), "{failure}");
}

/// A peer that nests as deep as it may needs a small part of a thread's stack, in a debug build too.
#[test]
fn the_deepest_scripts_and_values_need_little_stack() {
    let bounds = Bounds {
        expression_depth: 1_000,
        ..Bounds::default()
    };
    let small = std::thread::Builder::new().stack_size(512 << 10);
    let ran = small.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("f(", ")"),
            ("f([", "])"),
            ("{1: ", "}"),
            ("-", ""),
            ("not ", ""),
            ("2 ** ", ""),
            ("[1 or 1 and not 1 == 1 + 1 * -", "]"),
            ("[(1 + ", ") * 2]"),
            ("1 if 1 else ", ""),
            ("if 1 { ", "}"),
        ] {
            let nested = |n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
            let fits = |n: &usize| Code::new(&nested(*n), &bounds).is_ok();
            let most = (1..100).take_while(fits).last().expect("one fits");
            assert!((6..65).contains(&most), "{open}: {most}");
            let source = nested(most);
            // whether it has a value is not the question
            let _ = runtime.block_on(run_in(&Arc::default(), &source, &bounds));
            if let Ok(packed) = crate::script::python::read_value(&source) {
                let value = Value::unpack(copy(&packed)).expect("a value");
                assert_eq!(value.pack().expect("packs").bytes(), packed.bytes());
            }
        }
    });
    ran.expect("a thread").join().expect("no panic");
}

#[tokio::test]
async fn what_a_script_calls_is_known_before_it_runs() {
    let code = |source| Code::new(source, &Bounds::default()).expect("reads");
    let two = code("x = f(1)\ncalc.add(g(), [h(1, 2)])\n");
    let calls: Vec<_> = two.calls().iter().map(|(n, c)| (&**n, *c)).collect();
    assert_eq!(calls, [("f", 1), ("g", 0), ("h", 2), ("calc::add", 2)]);
    let last = |code: &Code| {
        code.last_calls()
            .iter()
            .map(|(n, _)| n.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(last(&two), ["g", "h", "calc::add"]);
    assert_eq!(two.last_call(), Some("calc::add"));
    let sum = code("f(1) + 1");
    assert_eq!((last(&sum), sum.last_call()), (vec!["f".to_owned()], None));
    let len = code("x = f(1)\nlen(g(x))");
    assert_eq!(
        (last(&len), len.last_call()),
        (vec!["g".to_owned(), "len".to_owned()], Some("len"))
    );
    assert!(len.names_answers());
    assert!(code("x = f(1)\ny = g(2)\n[x, y]").names_answers());
    for none in ["x = 1\nx", "x = f(1)", "f()\n1", "", "if 1 { f() }"] {
        let none = code(none);
        assert!(last(&none).is_empty() && !none.names_answers(), "{none:?}");
    }
}
