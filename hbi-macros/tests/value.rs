//! Values that scripts construct, and fields of values that are still pending.
#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all
)]

mod support;

use hbi::{HostingEnv, service::Constructor, value::Packed};
use serde::{Deserialize, Serialize};
use support::pair;

/// A message.
#[derive(Debug, Clone, PartialEq, hbi::Value, hbi::Fields)]
pub struct Msg {
    /// Who said it.
    pub nick: String,
    text: String,
    #[serde(default, rename = "weight")]
    r#type: f64,
}

/// Its inner parts have constructors, too.
#[derive(Debug, Clone, PartialEq, hbi::Value)]
#[hbi(name = "Said")]
struct Line(Msg, Option<Id>, Vec<Id>);

#[derive(Debug, Clone, PartialEq, hbi::Value)]
struct Id(u64);

#[derive(Debug, Clone, PartialEq, hbi::Value)]
struct Nothing;

#[derive(Debug, Clone, PartialEq, hbi::Value)]
#[serde(deny_unknown_fields)]
struct S {
    #[serde(default = "seven")]
    a: i64,
}

fn seven() -> i64 {
    7
}

/// Names of an expansion's own.
#[derive(Debug, Clone, PartialEq, hbi::Value)]
struct Visitor {
    args: S,
    serializer: A,
}

#[derive(Debug, Clone, PartialEq, hbi::Value)]
struct A();

fn msg() -> Msg {
    Msg {
        nick: "Nick".into(),
        text: "hi".into(),
        r#type: 1.5,
    }
}

fn line() -> Line {
    Line(msg(), None, vec![Id(1), Id(2)])
}

#[test]
fn a_value_prints_as_its_constructor() {
    assert_eq!(msg().to_string(), r#"Msg("Nick", "hi", 1.5)"#);
    assert_eq!(
        line().to_string(),
        r#"Said(Msg("Nick", "hi", 1.5), (), [Id(1), Id(2)])"#
    );
    assert_eq!(Nothing.to_string(), "Nothing()");
    assert_eq!(
        (Msg::NAME, Msg::FIELDS),
        ("Msg", &["nick", "text", "weight"][..])
    );
    assert_eq!((Line::NAME, Line::FIELDS), ("Said", &["0", "1", "2"][..]));
}

#[test]
fn a_value_is_read_from_what_it_was_written_as() {
    fn there_and_back<T>(value: T)
    where
        T: hbi::service::Travels
            + Constructor
            + for<'de> Deserialize<'de>
            + std::fmt::Debug
            + PartialEq,
    {
        let packed = Packed::pack(&value).unwrap();
        assert_eq!(packed.unpack::<T>().unwrap(), value);
    }
    there_and_back(msg());
    there_and_back(line());
    there_and_back(Id(3));
    there_and_back(Nothing);
    there_and_back(Visitor {
        args: S { a: 1 },
        serializer: A(),
    });
    there_and_back(S { a: 3 });
}

/// The same fields, as another peer may know them.
#[derive(Serialize)]
struct Older {
    nick: &'static str,
    text: &'static str,
}

#[test]
fn a_value_is_read_from_a_map_and_from_a_list() {
    let short = Msg {
        r#type: 0.0,
        ..msg()
    };
    let older = Packed::pack(&Older {
        nick: "Nick",
        text: "hi",
    })
    .unwrap();
    assert_eq!(older.unpack::<Msg>().unwrap(), short);
    let list = Packed::pack(&("Nick", "hi", 1.5)).unwrap();
    assert_eq!(list.unpack::<Msg>().unwrap(), msg());
    let list = Packed::pack(&("Nick", "hi")).unwrap();
    assert_eq!(list.unpack::<Msg>().unwrap(), short);
    let error = Packed::pack(&("Nick",))
        .unwrap()
        .unpack::<Msg>()
        .unwrap_err();
    assert!(error.to_string().contains("struct Msg"), "{error}");
    let empty = Packed::pack(&std::collections::HashMap::<String, i64>::new()).unwrap();
    assert_eq!(empty.unpack::<S>().unwrap(), S { a: 7 });
    let unknown = Packed::pack(&Older {
        nick: "Nick",
        text: "hi",
    })
    .unwrap();
    assert!(unknown.unpack::<S>().is_err());
}

/// Tells.
#[hbi::service]
pub trait Teller {
    /// One message.
    async fn tell(&self, text: String) -> Msg;
    /// One message, perhaps.
    async fn try_tell(&self, text: String) -> Result<Msg, String>;
    /// A page of them.
    async fn page(&self) -> Page<Msg>;
}

/// A page.
#[derive(Debug, Serialize, Deserialize, hbi::Fields)]
#[serde(rename_all = "camelCase")]
pub struct Page<E> {
    #[serde(rename = "all")]
    items: Vec<E>,
    /// How many follow.
    how_many: u64,
    #[serde(skip)]
    _hidden: (),
}

/// Names that an expansion might have for its own.
mod odd {
    use hbi::Call;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) struct B(u8);

    #[derive(Debug, Serialize, Deserialize, hbi::Fields)]
    pub(crate) struct E {
        pub(crate) b: B,
    }

    #[derive(Debug, Serialize, Deserialize, hbi::Fields)]
    pub(crate) struct Two<E, E_> {
        pub(crate) one: E,
        pub(crate) other: E_,
    }

    pub(crate) fn b_of(call: &Call<Two<E, u8>>) -> (Call<B>, Call<u8>) {
        (call.one().b(), call.other())
    }

    pub(crate) mod consts {
        use serde::{Deserialize, Serialize};

        #[derive(Debug, Serialize, Deserialize, hbi::Fields)]
        pub(crate) struct Sheet<const B: usize> {
            pub(crate) lines: u64,
        }

        pub(crate) fn lines<const N: usize>(call: &hbi::Call<Sheet<N>>) -> hbi::Call<u64> {
            call.lines()
        }
    }
}

#[test]
fn fields_of_odd_names_are_calls_of_their_types() {
    // that they compile is the test
    let _ = (odd::b_of, odd::consts::lines::<1>);
}

#[derive(Debug)]
struct It;

impl Teller for It {
    async fn tell(&self, text: String) -> Msg {
        Msg { text, ..msg() }
    }
    async fn try_tell(&self, text: String) -> Result<Msg, String> {
        if text.is_empty() {
            Err("empty".into())
        } else {
            Ok(self.tell(text).await)
        }
    }
    async fn page(&self) -> Page<Msg> {
        Page {
            items: vec![msg()],
            how_many: 3,
            _hidden: (),
        }
    }
}

#[tokio::test]
async fn fields_of_pending_values_compose() {
    let (_server, peer) = pair(|| {
        HostingEnv::new()
            .service(TellerHost::new(It))
            .constructor::<Msg>()
    })
    .await;
    let teller = TellerStub::new(&peer);
    assert_eq!(teller.tell("a").text().await.unwrap(), "a");
    assert_eq!(
        teller
            .tell(teller.try_tell("b").text())
            .r#type()
            .await
            .unwrap(),
        1.5
    );
    assert_eq!(teller.page().how_many().await.unwrap(), 3);
    assert_eq!(teller.page().items().await.unwrap(), [msg()]);
    let made: Msg = peer.script("Msg(\"Nick\", \"hi\", 1.5)").await.unwrap();
    assert_eq!(made, msg());
}

#[tokio::test]
async fn scripts_in_rust_source_bind_their_variables() {
    let (_server, peer) = pair(|| HostingEnv::new().service(TellerHost::new(It))).await;
    let text = "said".to_owned();
    let told: Msg = peer
        .run(hbi::script! { teller::tell($text) })
        .await
        .unwrap();
    assert_eq!(told.text, "said");
    let told: Msg = peer
        .run(hbi::script!("teller::tell(t)", t = "text"))
        .await
        .unwrap();
    assert_eq!(told.text, "text");
    let n = 1;
    #[rustfmt::skip]
    let script = hbi::script! { let t = 0;
        for i in 0..$n {
            t += calc::add(i, $n);
        }
        t };
    assert_eq!(
        script.source(),
        "let t = 0;\nfor i in 0.. n {\n    t += calc::add(i,  n);\n}\nt"
    );
    macro_rules! told {
        ($name:ident, $value:expr) => {
            hbi::script! { teller::$name($value, #{ a: 1 }) }
        };
    }
    let source: String = told!(tell, 1 + 2).source().split_whitespace().collect();
    assert_eq!(source, "teller::tell(1+2,#{a:1})");
}

/// A crate that gives hbi on under another name.
mod other {
    pub(crate) use hbi as bus;
}

#[test]
fn hbi_may_be_found_elsewhere() {
    #[derive(hbi::Value, hbi::Fields)]
    #[hbi(crate = other::bus)]
    struct Named {
        name: String,
    }
    #[hbi::service(crate = other::bus)]
    #[cfg(not(any()))]
    trait Renamed {
        async fn say(&self) -> Named;
    }
    struct It;
    impl Renamed for It {
        async fn say(&self) -> Named {
            Named { name: "it".into() }
        }
    }
    let host = RenamedHost::new(It);
    assert_eq!(hbi::service::Service::table(&host).name, "renamed");
}
