//! Services as they are expanded, of odd traits too, called through a connection in memory.
#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all
)]

mod support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use hbi::{CallError, Caller, HoCo, HostingEnv};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use support::pair;

/// Why a division failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DivError {
    /// By zero.
    ByZero,
}

impl std::fmt::Display for DivError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("division by zero")
    }
}

/// Calculates.
///
/// Slowly.
#[hbi::service]
pub trait Calc {
    /// Adds.
    async fn add(&self, a: i64, b: i64) -> i64;
    /// Divides.
    async fn div(&self, cx: &Caller, a: i64, b: i64) -> Result<i64, DivError>;
    /// Takes a line.
    #[hbi(notify, idempotent)]
    async fn log(&self, line: String);
    /// How many lines there are.
    fn lines(&self) -> u64;
    /// Divides at once.
    fn div_now(&self, a: i64, b: i64) -> Result<i64, DivError>;
    /// Takes a line at once.
    #[hbi(notify)]
    fn log_now(&self, line: String);
    /// Opens a room.
    async fn open(&self, room: String) -> hbi::Reactor<RoomStub>;
    /// Opens a room, if it may.
    #[hbi(no_cancel, parallel)]
    async fn try_open(&self, room: String) -> Result<hbi::Reactor<RoomStub>, DivError>;
    /// Sends what it is asked.
    #[hbi(converse)]
    async fn echo(&self, cx: &Caller, co: HoCo, text: String) -> hbi::Result<()>;
    /// Counts items.
    async fn count(&self, items: hbi::Items<i64>, from: u64) -> hbi::Result<u64>;
    /// Calls back.
    async fn call_back(&self, room: hbi::Reactor<RoomStub>) -> String;
}

/// A room.
#[hbi::service(flat)]
pub trait Room {
    /// Answers with its name.
    async fn say(&self, what: String) -> String;
}

#[derive(Debug, Default)]
struct MyCalc {
    lines: AtomicU64,
}

impl Calc for MyCalc {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }
    async fn div(&self, cx: &Caller, a: i64, b: i64) -> Result<i64, DivError> {
        assert!(!cx.is_cancelled());
        a.checked_div(b).ok_or(DivError::ByZero)
    }
    async fn log(&self, _line: String) {
        self.lines.fetch_add(1, Ordering::Relaxed);
    }
    fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }
    fn div_now(&self, a: i64, b: i64) -> Result<i64, DivError> {
        a.checked_div(b).ok_or(DivError::ByZero)
    }
    fn log_now(&self, _line: String) {
        self.lines.fetch_add(10, Ordering::Relaxed);
    }
    async fn open(&self, room: String) -> hbi::Reactor<RoomStub> {
        hbi::Reactor::new(RoomHost::new(MyRoom(room)))
    }
    async fn try_open(&self, room: String) -> Result<hbi::Reactor<RoomStub>, DivError> {
        if room.is_empty() {
            return Err(DivError::ByZero);
        }
        Ok(self.open(room).await)
    }
    async fn echo(&self, cx: &Caller, co: HoCo, text: String) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        co.send_obj(&format!("{text} {}", cx.is_cancelled()))
            .await?;
        co.close().await
    }
    async fn count(&self, mut items: hbi::Items<i64>, from: u64) -> hbi::Result<u64> {
        let mut count = from;
        while items.try_next().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }
    async fn call_back(&self, room: hbi::Reactor<RoomStub>) -> String {
        let stub = room.stub().expect("the room is the caller's");
        stub.say("back")
            .await
            .unwrap_or_else(|error| error.to_string())
    }
}

#[derive(Debug)]
struct MyRoom(String);

impl Room for MyRoom {
    async fn say(&self, what: String) -> String {
        format!("{}: {what}", self.0)
    }
}

#[tokio::test]
async fn methods_of_every_shape_are_called() {
    let calc = Arc::new(MyCalc::default());
    let hosted = Arc::clone(&calc);
    let (_server, peer) =
        pair(move || HostingEnv::new().service(CalcHost::new(Arc::clone(&hosted)))).await;
    let calc = CalcStub::new(&peer);

    assert_eq!(calc.add(calc.add(1, 2), 27).await.unwrap(), 30);
    assert_eq!(calc.div(6, 2).await.unwrap(), 3);
    match calc.div(1, 0).await {
        Err(CallError::App(DivError::ByZero)) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        calc.div_now(1, 0).await,
        Err(CallError::App(DivError::ByZero))
    ));
    calc.log("one").confirmed().await.unwrap();
    calc.log_now("ten").confirmed().await.unwrap();
    assert_eq!(calc.lines().await.unwrap(), 11);
    assert_eq!(calc.open("tea").say("hi").await.unwrap(), "tea: hi");
    let room = calc.try_open("tea").await.unwrap();
    assert_eq!(room.say("ho").await.unwrap(), "tea: ho");
    assert!(calc.try_open("").await.is_err());
    let mut co = calc.echo("hello").await.unwrap();
    assert_eq!(co.recv_obj::<String>().await.unwrap(), "hello false");
    assert_eq!(calc.count([1, 2, 3], 4u64).await.unwrap(), 7);
    let mine = hbi::Reactor::new(RoomHost::new(MyRoom("mine".into())));
    assert_eq!(calc.call_back(mine).await.unwrap(), "mine: back");
}

#[test]
fn the_table_says_what_the_trait_says() {
    use hbi::service::{Param, Service, Shape};
    let host = CalcHost::new(MyCalc::default());
    let table = host.table();
    assert_eq!((table.name, table.docs), ("calc", "Calculates.\n\nSlowly."));
    let div = &table.methods[table.find("div").unwrap()];
    assert_eq!(
        div.params,
        [
            Param {
                name: "a",
                ty: "i64"
            },
            Param {
                name: "b",
                ty: "i64"
            }
        ]
    );
    assert_eq!(
        (div.docs, div.returns, div.shape),
        ("Divides.", "Result<i64, DivError>", Shape::Value)
    );
    let log = &table.methods[table.find("log").unwrap()];
    assert_eq!(
        (log.shape, log.returns, log.idempotent),
        (Shape::Notify, "()", true)
    );
    let echo = &table.methods[table.find("echo").unwrap()];
    assert_eq!(
        (echo.shape, echo.cancel, echo.parallel),
        (Shape::Converse, true, false)
    );
    let open = &table.methods[table.find("try_open").unwrap()];
    assert_eq!((open.cancel, open.parallel), (false, true));
    let flat = RoomHost::new(MyRoom(String::new()));
    assert_eq!(flat.table().name, "");
    assert_eq!(format!("{host:?} {:?}", host.clone()), "CalcHost CalcHost");
}

/// Keeps values.
#[hbi::service(name = "kv")]
pub trait Store<T: Serialize + DeserializeOwned + Send + Sync + 'static, const N: usize>
where
    Vec<T>: Clone,
{
    /// Puts one in.
    async fn put(&self, value: T) -> u64;
    /// All of them.
    async fn all(&self) -> Vec<T>;
    /// The last of them.
    async fn last(&self) -> Option<T> {
        let mut all = self.all().await;
        all.truncate(N);
        all.pop()
    }
}

#[derive(Debug)]
struct Memory<T>(Mutex<Vec<T>>);

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + std::fmt::Debug + 'static> Store<T, 2>
    for Memory<T>
{
    async fn put(&self, value: T) -> u64 {
        let mut all = self.0.lock().unwrap();
        all.push(value);
        all.len() as u64
    }
    async fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn generic_services_work() {
    let (_server, peer) = pair(|| {
        HostingEnv::new().service(StoreHost::<_, String, 2>::new(Memory(Mutex::default())))
    })
    .await;
    let store = StoreStub::<String, 2>::new(&peer);
    for word in ["one", "two", "three"] {
        store.put(word).await.unwrap();
    }
    assert_eq!(store.clone().last().await.unwrap().as_deref(), Some("two"));
    assert_eq!(store.all().await.unwrap().len(), 3);
}

/// Names that collide with those of an expansion.
mod odd {
    use super::*;

    /// Not the service's type.
    #[derive(Debug, Clone, Serialize, Deserialize)]
    pub(crate) struct S(pub(crate) i64);

    #[hbi::service]
    pub(crate) trait Odd: std::fmt::Display + Send {
        async fn it(&self, it: S, call: S, args: S, cx: S, co: S) -> S {
            S(it.0 + call.0 + args.0 + cx.0 + co.0)
        }
        #[hbi(rename = "matches")]
        async fn r#match(&self, r#type: String, self_: Option<S>) -> String {
            let _ = self_;
            format!("{self} {}", r#type)
        }
        async fn r#struct(&self, method: i64, a0: i64, mut target: i64) -> i64 {
            target += 1;
            method + a0 + target
        }
        async fn early(&self, text: String) -> Result<i64, String> {
            let number = text.parse::<i64>().map_err(|error| error.to_string())?;
            if number < 0 {
                return Err("negative".into());
            }
            Ok(number)
        }
        async fn target(&self) {}
        async fn over(&self) {}
        async fn clone(&self) {}
        async fn table(&self) {}
        async fn land(&self) {}
        async fn a_b(&self) {}
        #[cfg(any())]
        async fn never(&self, value: NoSuchType) -> NoSuchType;
        #[cfg(not(any()))]
        async fn always(&self) -> i64;
        #[cfg(any())]
        async fn always(&self) -> String;
        #[deprecated]
        #[doc(hidden)]
        async fn old(&self) {}
    }

    #[hbi::service]
    #[cfg(any())]
    pub trait Gone {
        async fn gone(&self, gone: NoSuchType);
    }

    #[hbi::service]
    #[cfg(not(any()))]
    trait Here {
        async fn here(&self);
    }

    #[derive(Debug)]
    pub(crate) struct It;
    impl std::fmt::Display for It {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("it")
        }
    }
    impl Odd for It {
        async fn always(&self) -> i64 {
            7
        }
    }
    impl Here for It {
        async fn here(&self) {}
    }
    pub(crate) fn env() -> HostingEnv {
        HostingEnv::new()
            .service(OddHost::new(Arc::new(It)))
            .service(HereHost::new(It))
    }

    /// Empty.
    #[hbi::service]
    pub(crate) trait Empty {}
}

#[tokio::test]
async fn odd_names_collide_with_nothing() {
    use odd::S;
    let (_server, peer) = pair(odd::env).await;
    let stub = odd::OddStub::new(&peer);
    assert_eq!(stub.it(S(1), S(2), S(3), S(4), S(5)).await.unwrap().0, 15);
    assert_eq!(stub.r#match("x", None::<S>).await.unwrap(), "it x");
    assert_eq!(stub.r#struct(1, 2, 3).await.unwrap(), 7);
    assert_eq!(stub.early("12").await.unwrap(), 12);
    assert!(matches!(stub.early("-1").await, Err(CallError::App(text)) if text == "negative"));
    stub.target().await.unwrap();
    stub.clone().await.unwrap();
    stub.table().await.unwrap();
    assert_eq!(stub.always().await.unwrap(), 7);
    let _ = odd::EmptyStub::new(&peer);
}

/// A service that is on its way out is no warning where it is defined.
#[deny(warnings)]
mod deprecated {
    #[deprecated]
    #[hbi::service]
    pub(crate) trait Old {
        async fn one(&self) -> u8;
    }
}

/// What is allowed in a trait is in what is made of it; the stub of each method has the method's name.
#[deny(warnings)]
mod allowed {
    #[deprecated]
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(crate) struct Old;

    #[allow(non_snake_case)]
    #[hbi::service(flat)]
    pub(crate) trait Loud {
        async fn SetNick(&self, Nick: String) -> String;
    }

    #[expect(deprecated)]
    #[hbi::service]
    pub(crate) trait Takes {
        async fn take(&self, old: Old);
        #[expect(non_snake_case)]
        async fn Give(&self) -> Old;
    }
}
