//! Composition: calls that stand in each other's arguments become one script, sent in one round
//! trip.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    ops,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Arg, Call,
    post::{Packing, Post, PostText, StubMethod},
};
use crate::{
    Error, Kind, PostingEnd, Result,
    script::{parameter, refuse_count},
    value::Packed,
};

/// One place of the graph that calls and their arguments make.
pub(super) enum Node {
    /// A value; taken when the composition is sent.
    Value(Mutex<Option<Packed>>),
    /// A call of something exposed, or of a method of the first argument.
    Call {
        po: PostingEnd,
        callee: Callee,
        arguments: Vec<Arg>,
        sent: AtomicBool,
    },
    /// A free script, which cannot be a part of another text, or a call that failed already.
    Alone(Option<Error>),
    /// A call that was sent before.
    Sent,
    /// A field of a pending struct.
    Field(Arg, Cow<'static, str>),
    /// Arithmetic on pending numbers.
    Binary(&'static str, Arg, Arg),
    /// Several answers as a list.
    List(Vec<Arg>),
    /// What stands for an element while [`Call::map`] runs.
    Element,
    /// A call for each element of a pending list.
    Map {
        over: Arg,
        element: Arc<Node>,
        body: Arg,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Callee {
    Path(&'static StubMethod),
    Method(&'static StubMethod),
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Value(_) => f.write_str("value"),
            Node::Call {
                callee: Callee::Path(method) | Callee::Method(method),
                ..
            } => f.write_str(method.path),
            Node::Alone(_) => f.write_str("script"),
            Node::Sent => f.write_str("sent"),
            Node::Field(_, name) => write!(f, ".{name}"),
            Node::Binary(op, ..) => f.write_str(op),
            Node::List(_) => f.write_str("list"),
            Node::Element => f.write_str("element"),
            Node::Map { .. } => f.write_str("map"),
        }
    }
}

impl Node {
    pub(super) fn value(packed: Packed) -> Self {
        Node::Value(Mutex::new(Some(packed)))
    }

    /// Whether it may safely run twice, its children aside.
    pub(super) fn is_idempotent(&self) -> bool {
        match self {
            Node::Call {
                callee: Callee::Path(method) | Callee::Method(method),
                ..
            } => method.idempotent,
            Node::Alone(_) | Node::Sent => false,
            Node::Value(_)
            | Node::Field(..)
            | Node::Binary(..)
            | Node::List(_)
            | Node::Element
            | Node::Map { .. } => true,
        }
    }

    /// Whether it is no value that carries a stream or an object.
    #[cfg(feature = "balance")]
    pub(super) fn is_plain(&self) -> bool {
        match self {
            Node::Value(packed) => {
                let packed = packed.lock().unwrap_or_else(|e| e.into_inner());
                packed
                    .as_ref()
                    .is_none_or(|packed| packed.handles().is_empty())
            }
            _ => true,
        }
    }

    fn children(&self) -> Vec<&Arg> {
        match self {
            Node::Value(_) | Node::Element | Node::Alone(_) | Node::Sent => Vec::new(),
            Node::Call { arguments, .. } | Node::List(arguments) => arguments.iter().collect(),
            Node::Field(of, _) => vec![of],
            Node::Binary(_, left, right) => vec![left, right],
            Node::Map { over, body, .. } => vec![over, body],
        }
    }
}

/// All places of a graph, each once.
pub(super) fn nodes(root: &Arg) -> Vec<&Node> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(arg) = open.pop() {
        if seen.insert(Arc::as_ptr(&arg.0)) {
            found.push(&*arg.0);
            open.extend(arg.0.children());
        }
    }
    found
}

impl Post {
    /// The request as a part of a composition.
    pub(super) fn as_node(&mut self) -> Node {
        if let Some(error) = self.error.take() {
            return Node::Alone(Some(error));
        }
        let callee = match self.text {
            PostText::Path(method) => Callee::Path(method),
            PostText::Method(method) => Callee::Method(method),
            PostText::Free { .. } => return Node::Alone(None),
        };
        let bytes = Bytes::copy_from_slice(&self.arguments);
        let arguments = Packed::from_parts(bytes, std::mem::take(&mut self.handles));
        match arguments.elements() {
            Ok(values) => Node::Call {
                po: self.po.clone(),
                callee,
                arguments: values.into_iter().map(Arg::value).collect(),
                sent: AtomicBool::new(false),
            },
            Err(error) => Node::Alone(Some(error.into())),
        }
    }
}

/// Makes one request of a graph.
pub(super) fn compile(po: &PostingEnd, root: &Arg) -> Post {
    let mut compiler = Compiler {
        po,
        names: HashMap::new(),
        open: Vec::new(),
        parameters: Vec::new(),
        values: Vec::new(),
        lets: 0,
    };
    let mut source = String::new();
    let emitted = compiler.emit(root, &mut source, 0);
    let mut post = Post {
        po: po.clone(),
        text: PostText::Free {
            source: Cow::Borrowed(""),
            parameters: Vec::new(),
            again: true,
        },
        arguments: Packing::new(),
        handles: Default::default(),
        error: None,
    };
    let emitted = match refuse_count(compiler.values.len()) {
        Some(why) => emitted.and(Err(misuse(why))),
        None => emitted,
    };
    match emitted {
        Ok(last) => {
            source.push_str(&last);
            let (bytes, handles) = Packed::array(compiler.values).into_parts();
            let parameters = compiler.parameters;
            post.text = PostText::Free {
                source: source.into(),
                parameters,
                again: true,
            };
            post.arguments = Packing::from_slice(&bytes);
            post.handles = handles;
        }
        Err(error) => post.error = Some(error),
    }
    post
}

/// How deep a composition may nest.
const MAX_DEPTH: usize = 512;

struct Compiler<'a> {
    po: &'a PostingEnd,
    /// What was emitted already, by place in the graph.
    names: HashMap<*const Node, String>,
    /// Elements whose loops are open.
    open: Vec<*const Node>,
    parameters: Vec<Cow<'static, str>>,
    values: Vec<Packed>,
    lets: usize,
}

impl Compiler<'_> {
    /// Emits what `arg` needs; returns the name its value has then.
    fn emit(&mut self, arg: &Arg, out: &mut String, depth: usize) -> Result<String> {
        let key = Arc::as_ptr(&arg.0);
        if let Some(name) = self.names.get(&key) {
            return Ok(name.clone());
        }
        if depth > MAX_DEPTH {
            return Err(misuse(format!(
                "a composition of more than {MAX_DEPTH} calls in each other"
            )));
        }
        let expression = match &*arg.0 {
            Node::Value(value) => {
                let value = value.lock().unwrap_or_else(|e| e.into_inner()).take();
                let value =
                    value.ok_or_else(|| misuse("an argument that was sent before".into()))?;
                let name = parameter(self.values.len());
                self.values.push(value);
                self.parameters.push(name.clone());
                self.names.insert(key, name.clone().into());
                return Ok(name.into());
            }
            Node::Call {
                po,
                callee,
                arguments,
                sent,
            } => {
                let (Callee::Path(method) | Callee::Method(method)) = callee;
                if !same(po, self.po) {
                    return Err(misuse(format!(
                        "`{}` goes to another connection than the rest of the composition: await it \
                         first, and pass its value",
                        method.path
                    )));
                }
                if sent.swap(true, Ordering::AcqRel) {
                    return Err(misuse(format!(
                        "this call of `{}` was sent before, and would run twice: await it first, and \
                         pass its value",
                        method.path
                    )));
                }
                let mut names = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    names.push(self.emit(argument, out, depth + 1)?);
                }
                match callee {
                    Callee::Path(method) => format!("{}({})", method.path, names.join(", ")),
                    Callee::Method(method) => {
                        format!("{}.{}({})", names[0], method.name, names[1..].join(", "))
                    }
                }
            }
            Node::Field(of, name) => format!("{}.{name}", self.emit(of, out, depth + 1)?),
            Node::Binary(op, left, right) => {
                let left = self.emit(left, out, depth + 1)?;
                format!("{left} {op} {}", self.emit(right, out, depth + 1)?)
            }
            Node::List(items) => {
                let mut names = Vec::with_capacity(items.len());
                for item in items {
                    names.push(self.emit(item, out, depth + 1)?);
                }
                format!("[{}]", names.join(", "))
            }
            Node::Alone(error) => {
                return Err(error.clone().unwrap_or_else(|| {
                    misuse("a free script cannot be a part of a composition: await it first".into())
                }));
            }
            Node::Sent => {
                return Err(misuse(
                    "a call in this composition was sent before, and would run twice: await it \
                     first, and pass its value"
                        .into(),
                ));
            }
            Node::Element => {
                return Err(misuse(
                    "an element of a `map` outside of its closure".into(),
                ));
            }
            Node::Map {
                over,
                element,
                body,
            } => {
                let over = self.emit(over, out, depth + 1)?;
                self.open.push(Arc::as_ptr(element));
                // what does not depend on the element runs once
                self.hoist(body, out, depth + 1)?;
                self.open.pop();
                let (list, name) = (self.fresh(), self.fresh());
                self.names.insert(Arc::as_ptr(element), name.clone());
                let mut inner = String::new();
                let last = self.emit(body, &mut inner, depth + 1)?;
                let _ = write!(
                    out,
                    "let {list} = [];\nfor {name} in {over} {{\n{inner}{list}.push({last});\n}}\n"
                );
                self.names.insert(key, list.clone());
                return Ok(list);
            }
        };
        let name = self.fresh();
        let _ = writeln!(out, "let {name} = {expression};");
        self.names.insert(key, name.clone());
        Ok(name)
    }

    fn hoist(&mut self, arg: &Arg, out: &mut String, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(misuse(format!(
                "a composition of more than {MAX_DEPTH} calls in each other"
            )));
        }
        if !self.depends(arg) {
            return self.emit(arg, out, depth).map(|_| ());
        }
        for child in arg.0.children() {
            self.hoist(child, out, depth + 1)?;
        }
        Ok(())
    }

    /// Whether it needs an element that has no name yet.
    fn depends(&self, arg: &Arg) -> bool {
        let key = Arc::as_ptr(&arg.0);
        if self.names.contains_key(&key) {
            return false;
        }
        matches!(*arg.0, Node::Element) || arg.0.children().iter().any(|child| self.depends(child))
    }

    fn fresh(&mut self) -> String {
        self.lets += 1;
        format!("v{}", self.lets)
    }
}

fn same(a: &PostingEnd, b: &PostingEnd) -> bool {
    Arc::as_ptr(a.link()).cast::<()>() == Arc::as_ptr(b.link()).cast::<()>()
}

fn misuse(text: String) -> Error {
    Error::new(Kind::Misuse, text)
}

/// Several calls whose answers come together; see [`all`].
pub trait Bundle {
    /// The answers, as a tuple.
    type Output;

    /// One call of all of them.
    fn into_call(self) -> Call<Self::Output>;
}

macro_rules! bundle {
    ($($T:ident $E:ident $v:ident),*) => {
        impl<$($T, $E),*> Bundle for ($(Call<$T, $E>,)*) {
            type Output = ($($T,)*);

            fn into_call(self) -> Call<Self::Output> {
                let ($($v,)*) = self;
                let po = [$($v.po()),*][0].clone();
                Call::composed(po, Node::List(vec![$($v.share()),*]), "")
            }
        }
    };
}
bundle!(A EA a);
bundle!(A EA a, B EB b);
bundle!(A EA a, B EB b, C EC c);
bundle!(A EA a, B EB b, C EC c, D ED d);
bundle!(A EA a, B EB b, C EC c, D ED d, F EF f);
bundle!(A EA a, B EB b, C EC c, D ED d, F EF f, G EG g);
bundle!(A EA a, B EB b, C EC c, D ED d, F EF f, G EG g, H EH h);
bundle!(A EA a, B EB b, C EC c, D ED d, F EF f, G EG g, H EH h, I EI i);

/// Several calls in one round trip, their answers as a tuple. They run one after the other; an
/// error of one ends them all.
pub fn all<B: Bundle>(calls: B) -> Call<B::Output> {
    calls.into_call()
}

/// Numbers that pending calls of can be reckoned with at the peer.
pub trait Numeric {}

macro_rules! numeric {
    ($($t:ty)*) => {$(impl Numeric for $t {})*};
}
numeric!(i8 i16 i32 i64 u8 u16 u32 f32 f64);

macro_rules! arithmetic {
    ($($Trait:ident $method:ident $op:literal),*) => {$(
        /// Reckons at the peer, within the same round trip. Needs the peer's interpreter.
        impl<T: Numeric, E, R: super::IntoArg<T>> ops::$Trait<R> for Call<T, E> {
            type Output = Call<T>;

            fn $method(self, right: R) -> Call<T> {
                let po = self.po().clone();
                let mut arguments = super::Arguments::new(1, &po);
                arguments.add(right);
                let right = arguments.apart().pop();
                let error = arguments.error.take();
                match right {
                    Some(right) if error.is_none() => {
                        Call::composed(po, Node::Binary($op, self.share(), right), "")
                    }
                    _ => Call::failed(po, error.unwrap_or_else(|| misuse("no argument".into()))),
                }
            }
        }
    )*};
}
arithmetic!(Add add "+", Sub sub "-", Mul mul "*", Div div "/", Rem rem "%");

impl<T, E> Call<Vec<T>, E> {
    /// A call for each element of a pending list, all in one round trip. `f` is called once, here,
    /// with a call that stands for an element. Needs the peer's interpreter.
    pub fn map<U, F>(self, f: impl FnOnce(Call<T>) -> Call<U, F>) -> Call<Vec<U>> {
        let po = self.po().clone();
        let element = Arc::new(Node::Element);
        let body = f(Call::of(po.clone(), Arg(Arc::clone(&element)), ""));
        let body = body.share();
        Call::composed(
            po,
            Node::Map {
                over: self.share(),
                element,
                body,
            },
            "",
        )
    }
}

impl<T, E> Call<T, E> {
    /// A field of a pending struct, in the same round trip. `#[derive(hbi::Value)]` makes typed
    /// methods of it.
    pub fn field<U>(&self, name: &'static str) -> Call<U> {
        Call::composed(
            self.po().clone(),
            Node::Field(self.share(), Cow::Borrowed(name)),
            "",
        )
    }
}

impl<T, E> FromIterator<Call<T, E>> for Call<Vec<T>> {
    /// One call for the list of what several calls answer.
    ///
    /// # Panics
    /// When there is no call: it would not be known where to send it.
    fn from_iter<I: IntoIterator<Item = Call<T, E>>>(calls: I) -> Self {
        let mut po = None;
        let mut items = Vec::new();
        for call in calls {
            po.get_or_insert_with(|| call.po().clone());
            items.push(call.share());
        }
        Call::composed(po.expect("at least one call"), Node::List(items), "")
    }
}
