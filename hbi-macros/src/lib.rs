//! The macros of `hbi`, which re-exports them: use them from there.
//!
//! | macro | makes |
//! |---|---|
//! | [`service`](macro@service) | of a trait: a host that peers can call, and a stub that calls a peer |
//! | [`Value`] | of a struct: a value that scripts construct by its name |
//! | [`Fields`] | of a struct: its fields, of a call that has not been answered yet |
//! | [`script!`] | of Rust source: a peer-script with its variables bound |
//!
//! Each goes `parse` -> `check` -> `expand`. Generated code names `::hbi` only, or what `crate = path` says,
//! and `::core` and `::std`.

mod errors;
mod fields;
mod options;
mod script;
mod serde_attrs;
mod service;
mod types;
mod value;
mod words;

use proc_macro::TokenStream;

/// Makes a trait a service: peers call its methods, through a stub or from scripts.
///
/// ```
/// use hbi::{HostingEnv, HoCo};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Serialize, Deserialize)]
/// # pub enum DivError { ByZero }
/// # impl std::fmt::Display for DivError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("by zero") }
/// # }
///
/// #[hbi::service]
/// pub trait Calc {
///     /// Adds two numbers.
///     async fn add(&self, a: i64, b: i64) -> i64;
///     /// An error of its own arrives typed.
///     async fn div(&self, a: i64, b: i64) -> Result<i64, DivError>;
///     /// Needs no waiting.
///     fn zero(&self) -> i64 {
///         0
///     }
/// }
///
/// struct MyCalc;
///
/// impl Calc for MyCalc {
///     async fn add(&self, a: i64, b: i64) -> i64 {
///         a + b
///     }
///     async fn div(&self, a: i64, b: i64) -> Result<i64, DivError> {
///         a.checked_div(b).ok_or(DivError::ByZero)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hbi::Result<()> {
/// let server = hbi::serve("mem://calc", |_peer| async {
///     Ok(HostingEnv::new().service(CalcHost::new(MyCalc)))
/// })
/// .await?;
///
/// let peer = hbi::connect("mem://calc", HostingEnv::new()).await?;
/// let calc = CalcStub::new(&peer);
/// assert_eq!(calc.add(calc.add(1, 2), 27).await?, 30);
/// assert!(matches!(calc.div(1, 0).await, Err(hbi::CallError::App(DivError::ByZero))));
/// # Ok(())
/// # }
/// ```
///
/// # What is made
///
/// - The trait itself: `async fn` becomes a function that returns a `Send` future, and the trait
///   requires `Send + Sync + 'static`. Implementations write plain `async fn`. The trait is
///   implemented for `Arc<T>` of what implements it, so that a service can be hosted and kept.
/// - `CalcHost`, the hosting side: `CalcHost::new(service)` goes into a hosting environment, or
///   into a reactor.
/// - `CalcStub`, the posting side: it has the trait's methods, with pending calls where values are.
///
/// `#[cfg]` holds for all of them, as do the lints that `#[allow]` and `#[expect]` turn off;
/// documentation of a method stands on the stub's, too.
///
/// # Methods
///
/// A method takes `&self` and owned arguments. Arguments and answers are anything with serde's
/// traits; streams (`hbi::Items`, `hbi::Data`) and objects by reference (`hbi::Reactor`) may stand
/// anywhere in them. How a method answers decides what its stub returns:
///
/// | method | stub returns |
/// |---|---|
/// | `-> T`, also `-> hbi::Result<T>` | `hbi::Call<T>`, failing with `hbi::Error` |
/// | `-> Result<T, E>` | `hbi::Call<T, E>`, failing with `hbi::CallError<E>`; `E` has serde's traits and `Display` |
/// | `-> hbi::Reactor<RoomStub>`, also as a `Result` | what a `RoomStub` can be called on at once |
/// | `#[hbi(notify)]`, without an answer | `hbi::Notify`: sent and forgotten |
/// | `#[hbi(converse)]`, `-> hbi::Result<()>` | `hbi::Exchange`: a conversation |
///
/// A method may ask who calls by a first argument `cx: &Caller`, which is no argument of the stub.
/// One that converses takes the conversation before its arguments: `co: HoCo`. `Result`, `HoCo`,
/// `Caller` and `Reactor` are told by their names as they are written: a type alias hides them.
///
/// What `#[hbi(...)]` says of a method:
///
/// - `notify`: it answers nothing, and nobody waits for it.
/// - `converse`: it takes the conversation.
/// - `no_cancel`: it runs to its end, also when its caller wants no answer any more. As a step of a
///   script it does so, too, and the steps behind it do not begin. Of one peer twice as many run as it
///   may have conversations open; one more fails.
/// - `parallel`: it runs in a task of its own from the start, for work that computes; the order in
///   which calls begin does not hold for it.
/// - `idempotent`: it may safely run twice. Such calls, and no others, are sent again by a client
///   that reconnects, and go in the first packets of a QUIC connection where that is turned on.
/// - `rename = "..."`: its name in scripts, where that is not the method's own.
///
/// # Options
///
/// - `name = "..."`: the namespace in scripts; by default the trait's name in `snake_case`.
/// - `flat`: no namespace, the methods stand by their own names.
/// - `crate = path`: where `hbi` is, for a crate that re-exports it. Methods that fail with its error are
///   written `-> path::Result<T>` there: `path::Error` is not known as hbi's.
///
/// # Generic services
///
/// The trait may have type and const parameters, and conditions on them; the methods may not:
///
/// ```
/// # use serde::{Serialize, de::DeserializeOwned};
/// #[hbi::service]
/// pub trait Store<T: Serialize + DeserializeOwned + Send + Sync + 'static> {
///     async fn put(&self, value: T);
///     async fn last(&self) -> Option<T>;
/// }
///
/// fn stub(peer: &hbi::Peer) -> StoreStub<String> {
///     StoreStub::new(peer)
/// }
/// ```
///
/// # Errors
///
/// What cannot be exposed is refused where it stands, with what to write instead, all of a trait at
/// once. So are names that scripts cannot say, such as `match` or `new`. A type without serde's
/// traits cannot travel:
///
/// ```compile_fail,E0277
/// struct Secret;
///
/// #[hbi::service]
/// trait Vault {
///     async fn open(&self) -> Secret; // error: `Secret` cannot travel between peers
/// }
/// ```
#[proc_macro_attribute]
pub fn service(options: TokenStream, item: TokenStream) -> TokenStream {
    service::service(options.into(), item.into()).into()
}

/// Makes a struct a value that scripts construct by its name.
///
/// ```
/// #[derive(Debug, PartialEq, hbi::Value)]
/// struct Msg {
///     nick: String,
///     text: String,
///     /// Added later: values of older peers have none.
///     #[serde(default)]
///     weight: f64,
/// }
///
/// let msg = Msg { nick: "Nick".into(), text: "hi".into(), weight: 1.5 };
/// assert_eq!(msg.to_string(), r#"Msg("Nick", "hi", 1.5)"#);
///
/// let env = hbi::HostingEnv::new().constructor::<Msg>();
/// ```
///
/// It implements
///
/// - `Serialize` and `Deserialize`: the value travels as a map of its fields, and is read from a
///   list of them, too. Do not derive serde's traits beside it.
/// - `Display`: the value prints as the call that constructs it.
/// - `hbi::service::Constructor`: `HostingEnv::constructor` exposes it; arguments are the fields in
///   their order.
///
/// The struct has named fields, or is a tuple struct; it cannot be generic. `#[hbi(name = "...")]`
/// gives the constructor another name, `#[hbi(crate = path)]` says where `hbi` is. Of serde's
/// attributes, fields take `default`, `rename` and `alias`, the struct `deny_unknown_fields`.
#[proc_macro_derive(Value, attributes(hbi, serde))]
pub fn value(input: TokenStream) -> TokenStream {
    value::value(syn::parse_macro_input!(input)).into()
}

/// Gives the fields of a struct that a call has not answered yet, as calls: in the same round trip.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, hbi::Fields)]
/// pub struct User {
///     pub id: u64,
///     /// What the user is called.
///     pub name: String,
/// }
///
/// #[hbi::service]
/// pub trait Users {
///     async fn login(&self, token: String) -> User;
///     async fn friends(&self, id: u64) -> Vec<u64>;
/// }
///
/// /// One round trip.
/// async fn friends(users: UsersStub) -> hbi::Result<Vec<u64>> {
///     users.friends(users.login("secret").id()).await
/// }
/// ```
///
/// For a struct `User` it makes a trait `UserFields`, as public as the struct, with a method for
/// each field, and implements it for `hbi::Call<User>`; where it is called, the trait is in scope.
/// Fields that serde renames are asked for by their new names; those it skips or flattens are left
/// out. `#[hbi(crate = path)]` says where `hbi` is.
#[proc_macro_derive(Fields, attributes(hbi, serde))]
pub fn fields(input: TokenStream) -> TokenStream {
    fields::fields(syn::parse_macro_input!(input)).into()
}

/// A peer-script in Rust source, with its variables bound: an `hbi::Script`.
///
/// ```
/// let (n, step) = (3, 10);
/// let script = hbi::script! {
///     let t = 0;
///     for i in 0..$n { t += calc::add(i, $step); }
///     t
/// };
/// # async fn run(peer: hbi::Peer, script: hbi::Script) -> hbi::Result<()> {
/// let sum: i64 = peer.run(script).await?;
/// # Ok(())
/// # }
/// ```
///
/// `$n` is the variable `n` of Rust: its value is moved into the script, beside the text, never
/// within it; used twice it is bound once. Lines and columns are those of the source, less the
/// indentation, so that errors at run time can be found. The script is made by `::hbi`, which has to be
/// a dependency by this name.
///
/// What Rust's tokens cannot carry, as strings in backticks, is written as text, with what is bound
/// behind it:
///
/// ```
/// let name = "Nick".to_owned();
/// let script = hbi::script!("`Hello ${name}, ${n + 1} times`", name, n = 2);
/// ```
///
/// With the feature `checked`, syntax errors are found while the program compiles, on the exact
/// token. It is off by default, for it builds the interpreter once more; without it, syntax errors
/// come when the script is first run.
#[proc_macro]
pub fn script(input: TokenStream) -> TokenStream {
    script::script(input.into()).into()
}
