//! Values on their way from Rust into a script and back: what the table in the guide promises.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use hbi::{HostingEnv, testing};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Round(f64),
    Square(i32, u32),
    Named { name: String, sides: Option<u8> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    id: u32,
    title: String,
    weight: Option<f32>,
    tags: Vec<String>,
    shape: Shape,
    at: (i16, i16),
    more: BTreeMap<String, bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(i64);

/// Passes values through the interpreter: bound, as a constant of a list, through an exposed
/// function, by way of `env`; each has to come back as it was.
fn survives<T>(values: impl Strategy<Value = T>)
where
    T: Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static,
{
    survives_as(values, |value| value)
}

/// The same, where it comes back as something else.
fn survives_as<T, U>(values: impl Strategy<Value = T>, expected: impl Fn(T) -> U)
where
    T: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    U: DeserializeOwned + PartialEq + Debug + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had");
    let env = HostingEnv::new().function("echo", |value: T| value);
    let pair = runtime
        .block_on(testing::pair(env, HostingEnv::new()))
        .expect("peers in memory can be joined");
    let mut config = Config::with_cases(48);
    config.failure_persistence = None;
    let passed = TestRunner::new(config).run(&values, |value| {
        for text in [
            "if true { v }",
            "let all = [v, 1]; all[0]",
            "let held = #{ v: v }; held.v",
            "env.v = v; if true { env.v }",
            "let copy = v; if true { copy }",
            "fn same(v) { v } same(v)",
        ] {
            let script = pair.client.script::<U>(text).bind("v", value.clone());
            let back = runtime.block_on(async { script.await });
            let back = back.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(back, expected(value.clone()), "{}", text);
        }
        Ok(())
    });
    passed.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn whole_numbers() {
    survives(any::<i64>());
    survives(any::<(i8, i16, i32, u8, u16, u32)>());
    survives(any::<u64>().prop_map(|n| n >> 1));
    survives(any::<i64>().prop_map(Wrapped));
}

#[test]
fn numbers_with_fractions() {
    survives(any::<f64>());
    survives(any::<f32>());
    // a float that is whole stays a float
    survives((-1000_i32..1000).prop_map(f64::from));
    survives(Just(f64::INFINITY));
    survives_as(Just(f64::NAN), |_| NotANumber);
}

/// What `f64::NAN` has to come back as, since it is not equal to itself.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
struct NotANumber;

impl TryFrom<f64> for NotANumber {
    type Error = String;

    fn try_from(n: f64) -> Result<Self, String> {
        n.is_nan().then_some(Self).ok_or_else(|| format!("{n}"))
    }
}

#[test]
fn words_and_truth() {
    survives(any::<String>());
    survives(any::<char>());
    survives(any::<bool>());
    survives(Just(()));
}

#[test]
fn bytes() {
    // the list that they are put in counts too: all together at most `Bounds::array`
    survives(vec(any::<u8>(), 0..990).prop_map(Bytes::from));
    survives(vec(any::<u8>(), 0..990));
    // beyond what a script may look into
    survives_whole(Bytes::from(vec![1; 100_000]));
}

#[test]
fn options() {
    survives(option::of(any::<i64>()));
    survives(option::of(any::<String>()));
    survives(vec(option::of(any::<bool>()), 0..9));
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Nothing),
        any::<f64>().prop_map(Shape::Round),
        any::<(i32, u32)>().prop_map(|(a, b)| Shape::Square(a, b)),
        any::<(String, Option<u8>)>().prop_map(|(name, sides)| Shape::Named { name, sides }),
    ]
}

#[test]
fn enums() {
    survives(shapes());
    survives(vec(shapes(), 0..9));
    survives(any::<Result<i32, String>>());
}

#[test]
fn structs() {
    let words = || vec("[a-z]{0,9}", 0..5);
    let items = (
        (any::<u32>(), any::<String>(), option::of(any::<f32>())),
        (words(), shapes(), any::<(i16, i16)>()),
        btree_map(any::<String>(), any::<bool>(), 0..5),
    );
    survives(
        items.prop_map(|((id, title, weight), (tags, shape, at), more)| Item {
            id,
            title,
            weight,
            tags,
            shape,
            at,
            more,
        }),
    );
}

#[test]
fn maps_lists_and_tuples() {
    survives(btree_map(any::<String>(), any::<i64>(), 0..20));
    survives(btree_map("[a-z]{1,3}", vec(any::<i16>(), 0..5), 0..9));
    survives(vec(vec(any::<i32>(), 0..9), 0..9));
    survives(any::<(i64, String, (bool, f64))>());
    survives(any::<[u16; 4]>());
    // keys of a script's maps are strings
    survives_as(btree_map(any::<i64>(), any::<i64>(), 0..9), |map| {
        let map = map.into_iter().map(|(key, value)| (key.to_string(), value));
        map.collect::<BTreeMap<_, _>>()
    });
}

#[test]
fn what_has_a_form_for_people() {
    /// serde takes these apart by itself, and asks no more how they were written.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Joined { from: IpAddr },
        Left,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u16),
        At(SocketAddr),
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Flattened {
        port: u16,
        #[serde(flatten)]
        rest: BTreeMap<String, IpAddr>,
    }
    survives(any::<Ipv4Addr>());
    survives(any::<IpAddr>());
    survives(any::<IpAddr>().prop_map(|from| Tagged::Joined { from }));
    survives(Just(Tagged::Left));
    survives(any::<(IpAddr, u16)>().prop_map(|at| Untagged::At(at.into())));
    survives(any::<u16>().prop_map(Untagged::Number));
    survives((any::<u16>(), any::<IpAddr>()).prop_map(|(port, ip)| {
        let rest = BTreeMap::from([("host".to_owned(), ip)]);
        Flattened { port, rest }
    }));
}

/// What a script is not to look into comes back too, if it is passed on as a whole.
fn survives_whole<T>(value: T)
where
    T: Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had");
    runtime.block_on(async {
        let env = HostingEnv::new().function("echo", |value: T| value);
        let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
        for text in ["if true { v }", "let w = v; if true { echo(w) }"] {
            let script = pair.client.script::<T>(text).bind("v", value.clone());
            assert_eq!(script.await.unwrap(), value);
        }
    });
}

#[tokio::test]
async fn what_a_script_cannot_reckon_with_is_passed_on_only() {
    let env = HostingEnv::new().function("echo", |n: u64| n);
    let pair = testing::pair(env, HostingEnv::new()).await.unwrap();
    let big = u64::MAX;
    for text in ["echo(n)", "if true { echo(n) }"] {
        let passed: u64 = pair.client.script(text).bind("n", big).await.unwrap();
        assert_eq!(passed, big);
    }
    for text in ["if true { echo(n - 1) }", "n + 1"] {
        let refused = pair.client.script::<u64>(text).bind("n", big).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("i64"), "{error}");
    }
}
