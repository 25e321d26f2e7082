//! Composition: calls that stand in each other's arguments become one script, sent in one round
//! trip.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    ops::{self, RangeInclusive},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    Arg, Arguments, Call,
    post::{FreeText, Post, PostText, StubMethod},
    scope::Scope,
};
use crate::{
    Error, Kind, PostingEnd, Result,
    script::{parameter, refuse_count},
    value::Packed,
};

/// One place of the graph that calls and their arguments make.
pub(super) struct Node {
    pub(super) op: Op,
    /// What it is made of; a map's are the list and the body.
    pub(super) args: Vec<Arg>,
}

/// What a place of the graph does.
pub(super) enum Op {
    /// A value; taken when the composition is sent.
    Value(Mutex<Option<Packed>>),
    /// A call of something exposed, or of a method of the first argument.
    Call {
        po: PostingEnd,
        callee: Callee,
        sent: AtomicBool,
    },
    /// A free script, which cannot be a part of another text, or a call that failed already.
    Alone(Option<Error>),
    /// A call that was sent before.
    Sent,
    /// A field of a pending struct.
    Field(&'static str),
    /// Arithmetic on pending numbers.
    Binary(&'static str),
    /// Several answers as a list.
    List,
    /// What stands for an element while [`Call::map`] runs.
    Element,
    /// A call for each element of a pending list. What was made in its scopes belongs to its body.
    Map {
        element: Arc<Node>,
        scopes: RangeInclusive<u64>,
    },
    /// A call that is given so long.
    Within(Duration),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Callee {
    Path(&'static StubMethod),
    Method(&'static StubMethod),
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.op {
            Op::Value(_) => f.write_str("value"),
            Op::Call {
                callee: Callee::Path(method) | Callee::Method(method),
                ..
            } => f.write_str(method.path),
            Op::Alone(_) => f.write_str("script"),
            Op::Sent => f.write_str("sent"),
            Op::Field(name) => write!(f, ".{name}"),
            Op::Binary(op) => f.write_str(op),
            Op::List => f.write_str("list"),
            Op::Element => f.write_str("element"),
            Op::Map { .. } => f.write_str("map"),
            Op::Within(time) => write!(f, "within {time:?}"),
        }
    }
}

impl Drop for Node {
    /// One after the other: a graph may be deeper than the stack.
    fn drop(&mut self) {
        let mut rest = std::mem::take(&mut self.args);
        while let Some(arg) = rest.pop() {
            if let Some(mut node) = Arc::into_inner(arg.node) {
                rest.append(&mut node.args);
            }
        }
    }
}

impl Node {
    pub(super) fn new(op: Op, args: Vec<Arg>) -> Self {
        Self { op, args }
    }

    pub(super) fn value(packed: Packed) -> Self {
        Self::new(Op::Value(Mutex::new(Some(packed))), Vec::new())
    }

    pub(super) fn call(po: &PostingEnd, callee: Callee, args: Vec<Arg>) -> Self {
        let op = Op::Call {
            po: po.clone(),
            callee,
            sent: AtomicBool::new(false),
        };
        Self::new(op, args)
    }

    /// Whether it may safely run twice, what it is made of aside.
    pub(super) fn is_idempotent(&self) -> bool {
        match &self.op {
            Op::Call {
                callee: Callee::Path(method) | Callee::Method(method),
                ..
            } => method.idempotent,
            Op::Alone(_) | Op::Sent => false,
            _ => true,
        }
    }

    /// Whether it is no value that carries a stream or an object.
    #[cfg(feature = "balance")]
    pub(super) fn is_plain(&self) -> bool {
        match &self.op {
            Op::Value(packed) => {
                let packed = packed.lock().unwrap_or_else(|e| e.into_inner());
                packed
                    .as_ref()
                    .is_none_or(|packed| packed.handles().is_empty())
            }
            _ => true,
        }
    }
}

/// All places of a graph, each once.
pub(super) fn nodes(root: &Arg) -> Vec<&Node> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(arg) = open.pop() {
        if seen.insert(Arc::as_ptr(&arg.node)) {
            found.push(&*arg.node);
            open.extend(&arg.node.args);
        }
    }
    found
}

impl Post {
    /// The request as a part of a composition.
    pub(super) fn as_node(&mut self, po: &PostingEnd) -> Node {
        let arguments = &mut self.arguments;
        if let Some(error) = arguments.take_error() {
            return Node::new(Op::Alone(Some(error)), Vec::new());
        }
        let callee = match self.text {
            PostText::Path(method) => Callee::Path(method),
            PostText::Method(method) => Callee::Method(method),
            PostText::Free(_) | PostText::Shared(_) => {
                return Node::new(Op::Alone(None), Vec::new());
            }
        };
        if arguments.is_apart() {
            return Node::call(po, callee, arguments.take_apart());
        }
        match arguments.take().elements() {
            Ok(values) => {
                let args = values.into_iter().map(Arg::value).collect();
                Node::call(po, callee, args)
            }
            Err(error) => Node::new(Op::Alone(Some(error.into())), Vec::new()),
        }
    }
}

/// Makes one request of a graph.
pub(super) fn compile(po: &PostingEnd, root: &Arg) -> Post {
    let mut compiler = Compiler {
        po,
        names: HashMap::new(),
        bound: HashMap::new(),
        closed: HashSet::new(),
        parameters: Vec::new(),
        values: Vec::new(),
        calls: Vec::new(),
        within: None,
        idempotent: true,
        lets: 0,
        loops: 0,
    };
    let mut source = String::new();
    let emitted = compiler.emit(root, &mut source, 0);
    let taken = emitted.and_then(|last| {
        source.push_str(&last);
        compiler.take()
    });
    let text = PostText::Free(Box::new(FreeText {
        source: source.into(),
        parameters: compiler.parameters,
        again: true,
        idempotent: compiler.idempotent,
        within: compiler.within,
    }));
    let arguments = match taken {
        Ok(values) => Arguments::whole(Packed::array(values)),
        Err(error) => Arguments::failed(error),
    };
    Post::new(text, arguments)
}

/// How deep a composition may nest.
const MAX_DEPTH: usize = 512;

/// How many maps may stand in each other's closures: more than an interpreter takes by default.
const MAX_LOOPS: usize = 32;

struct Compiler<'a> {
    po: &'a PostingEnd,
    /// What was emitted already, by place in the graph.
    names: HashMap<*const Node, String>,
    /// Parameters, which are there everywhere.
    bound: HashMap<*const Node, Cow<'static, str>>,
    /// What was emitted in loops that are over.
    closed: HashSet<*const Node>,
    parameters: Vec<Cow<'static, str>>,
    /// What is taken once all is found to be good.
    values: Vec<&'a Mutex<Option<Packed>>>,
    calls: Vec<(&'static str, &'a AtomicBool)>,
    /// The shortest time that a part of it is given.
    within: Option<Duration>,
    /// Whether all calls in it may safely run twice.
    idempotent: bool,
    lets: usize,
    /// How many loops are open.
    loops: usize,
}

impl<'a> Compiler<'a> {
    /// Emits what `root` needs, arguments before their calls; returns the name its value has then.
    /// Without recursion, since graphs may be deep; but for maps in maps.
    fn emit(&mut self, root: &'a Arg, out: &mut String, depth: usize) -> Result<String> {
        // what is to be emitted, and whether all that it needs was
        let mut open = vec![(root, depth, false)];
        while let Some((arg, depth, ready)) = open.pop() {
            if ready {
                self.make(arg, out, depth)?;
            } else if self.name(arg).is_none() {
                self.check(arg, depth)?;
                open.push((arg, depth, true));
                let node = &arg.node;
                let first = match node.op {
                    // the body has a text of its own
                    Op::Map { .. } => 1,
                    _ => node.args.len(),
                };
                let deeper = depth + usize::from(!matches!(node.op, Op::Within(_)));
                let needed = node.args[..first].iter().rev();
                open.extend(needed.map(|arg| (arg, deeper, false)));
            }
        }
        self.named(root)
    }

    fn name(&self, arg: &Arg) -> Option<String> {
        let key = Arc::as_ptr(&arg.node);
        let bound = || self.bound.get(&key).map(|name| name.clone().into());
        self.names.get(&key).cloned().or_else(bound)
    }

    fn named(&self, arg: &Arg) -> Result<String> {
        self.name(arg)
            .ok_or_else(|| misuse("a composition that is made of itself".into()))
    }

    /// Why it cannot be a part of this composition, if it cannot.
    fn check(&mut self, arg: &'a Arg, depth: usize) -> Result<()> {
        if self.closed.contains(&Arc::as_ptr(&arg.node)) {
            return Err(misuse(
                "a call made in the closure of a `map` is used outside of it".into(),
            ));
        }
        too_deep(depth)?;
        self.idempotent &= arg.node.is_idempotent();
        match &arg.node.op {
            Op::Call { po, callee, sent } => {
                let (Callee::Path(method) | Callee::Method(method)) = callee;
                if !same(po, self.po) {
                    return Err(misuse(format!(
                        "`{}` goes to another connection than the rest of the composition: await it \
                         first, and pass its value",
                        method.path
                    )));
                }
                if sent.load(Ordering::Acquire) {
                    return Err(sent_before(method.path));
                }
                self.calls.push((method.path, sent));
                Ok(())
            }
            Op::Within(time) => {
                self.within = Some(self.within.map_or(*time, |other| other.min(*time)));
                Ok(())
            }
            Op::Alone(error) => Err(error.clone().unwrap_or_else(|| {
                misuse("a free script cannot be a part of a composition: await it first".into())
            })),
            Op::Sent => Err(misuse(
                "a call in this composition was sent before, and would run twice: await it first, \
                 and pass its value"
                    .into(),
            )),
            Op::Element => Err(misuse(
                "an element of a `map` outside of its closure".into(),
            )),
            Op::Field(name)
                if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') =>
            {
                Err(misuse(format!(
                    "`{}` is no name of a field",
                    name.escape_debug()
                )))
            }
            Op::Value(_) | Op::Field(_) | Op::Binary(_) | Op::List | Op::Map { .. } => Ok(()),
        }
    }

    /// Emits a place whose arguments have names.
    fn make(&mut self, arg: &'a Arg, out: &mut String, depth: usize) -> Result<()> {
        let node = &*arg.node;
        let key = Arc::as_ptr(&arg.node);
        let mut names = Vec::with_capacity(node.args.len());
        for argument in &node.args {
            if let Some(name) = self.name(argument) {
                names.push(name);
            }
        }
        let expression = match &node.op {
            Op::Value(value) => {
                let name = parameter(self.values.len());
                self.values.push(value);
                self.parameters.push(name.clone());
                self.bound.insert(key, name);
                return Ok(());
            }
            Op::Within(_) => {
                self.names.insert(key, self.named(&node.args[0])?);
                return Ok(());
            }
            Op::Call { callee, .. } => match callee {
                Callee::Path(method) => format!("{}({})", method.path, names.join(",")),
                Callee::Method(method) => {
                    format!("{}.{}({})", names[0], method.name, names[1..].join(","))
                }
            },
            Op::Field(name) => format!("{}.{name}", names[0]),
            Op::Binary(op) => names.join(op),
            Op::List => format!("[{}]", names.join(",")),
            Op::Map { element, scopes } => {
                let list = self.map(&names[0], element, scopes, &node.args[1], out, depth)?;
                self.names.insert(key, list);
                return Ok(());
            }
            // checked before
            Op::Alone(_) | Op::Sent | Op::Element => return Ok(()),
        };
        let name = self.fresh();
        let _ = writeln!(out, "let {name}={expression};");
        self.names.insert(key, name);
        Ok(())
    }

    /// Emits a loop; returns the name of the list it makes.
    fn map(
        &mut self,
        over: &str,
        element: &Arc<Node>,
        scopes: &RangeInclusive<u64>,
        body: &'a Arg,
        out: &mut String,
        depth: usize,
    ) -> Result<String> {
        if self.loops == MAX_LOOPS {
            return Err(misuse(format!("more than {MAX_LOOPS} maps in each other")));
        }
        self.hoist(body, scopes, out, depth + 1)?;
        let (list, name) = (self.fresh(), self.fresh());
        let outside = self.names.clone();
        self.names.insert(Arc::as_ptr(element), name.clone());
        let mut inner = String::new();
        self.loops += 1;
        let last = self.emit(body, &mut inner, depth + 1)?;
        self.loops -= 1;
        let _ = write!(
            out,
            "let {list}=[];\nfor {name} in {over} {{\n{inner}{list}.push({last});\n}}\n"
        );
        let all = std::mem::replace(&mut self.names, outside);
        let made = all.into_keys();
        let made = made.filter(|made| !self.names.contains_key(made));
        self.closed.extend(made);
        Ok(list)
    }

    /// Emits what the body of a map uses and was made outside of its closure: it runs once.
    fn hoist(
        &mut self,
        body: &'a Arg,
        scopes: &RangeInclusive<u64>,
        out: &mut String,
        depth: usize,
    ) -> Result<()> {
        let mut seen = HashSet::new();
        let mut open = vec![(body, depth)];
        while let Some((arg, depth)) = open.pop() {
            too_deep(depth)?;
            if !seen.insert(Arc::as_ptr(&arg.node)) {
                continue;
            }
            if scopes.contains(&arg.scope) {
                let needed = arg.node.args.iter().rev();
                open.extend(needed.map(|arg| (arg, depth + 1)));
            } else {
                self.emit(arg, out, depth)?;
            }
        }
        Ok(())
    }

    /// Takes the values, and marks the calls as sent: all of them, or none.
    fn take(&self) -> Result<Vec<Packed>> {
        if let Some(why) = refuse_count(self.values.len()) {
            return Err(misuse(why));
        }
        for (i, (path, sent)) in self.calls.iter().enumerate() {
            if sent.swap(true, Ordering::AcqRel) {
                self.untake(i);
                return Err(sent_before(path));
            }
        }
        let mut values: Vec<_> = self.values.iter().map(|value| lock(value)).collect();
        if values.iter().any(|value| value.is_none()) {
            self.untake(self.calls.len());
            return Err(misuse("an argument that was sent before".into()));
        }
        Ok(values.iter_mut().filter_map(|value| value.take()).collect())
    }

    fn untake(&self, calls: usize) {
        for (_, sent) in &self.calls[..calls] {
            sent.store(false, Ordering::Release);
        }
    }

    fn fresh(&mut self) -> String {
        self.lets += 1;
        format!("v{}", self.lets)
    }
}

fn too_deep(depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(misuse(format!(
            "a composition of more than {MAX_DEPTH} calls in each other"
        )));
    }
    Ok(())
}

fn sent_before(path: &str) -> Error {
    misuse(format!(
        "this call of `{path}` was sent before, or given up with a composition that it was a part of: a \
         call is sent once, or it would run twice; make it anew, or await it first, and pass its value"
    ))
}

fn lock(value: &Mutex<Option<Packed>>) -> MutexGuard<'_, Option<Packed>> {
    value.lock().unwrap_or_else(|e| e.into_inner())
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
    ($($T:ident $E:ident $B:ident $v:ident),*) => {
        impl<$($T, $E, $B),*> Bundle for ($(Call<$T, $E, $B>,)*) {
            type Output = ($($T,)*);

            fn into_call(self) -> Call<Self::Output> {
                let ($($v,)*) = self;
                let po = [$($v.po()),*][0].clone();
                Call::composed(po, Node::new(Op::List, vec![$($v.share()),*]))
            }
        }
    };
}
bundle!(A EA BA a);
bundle!(A EA BA a, B EB BB b);
bundle!(A EA BA a, B EB BB b, C EC BC c);
bundle!(A EA BA a, B EB BB b, C EC BC c, D ED BD d);
bundle!(A EA BA a, B EB BB b, C EC BC c, D ED BD d, F EF BF f);
bundle!(A EA BA a, B EB BB b, C EC BC c, D ED BD d, F EF BF f, G EG BG g);
bundle!(A EA BA a, B EB BB b, C EC BC c, D ED BD d, F EF BF f, G EG BG g, H EH BH h);
bundle!(A EA BA a, B EB BB b, C EC BC c, D ED BD d, F EF BF f, G EG BG g, H EH BH h, I EI BI i);

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
        impl<T: Numeric, E, B, R: super::IntoArg<T>> ops::$Trait<R> for Call<T, E, B> {
            type Output = Call<T, Error, B>;

            fn $method(self, right: R) -> Self::Output {
                let po = self.po().clone();
                let mut arguments = super::Arguments::new(1, &po);
                arguments.add(right);
                let right = arguments.apart().pop();
                let error = arguments.take_error();
                match right {
                    Some(right) if error.is_none() => {
                        Call::composed(po, Node::new(Op::Binary($op), vec![self.share(), right]))
                    }
                    _ => Call::failed(po, error.unwrap_or_else(|| misuse("no argument".into()))),
                }
            }
        }
    )*};
}
arithmetic!(Add add "+", Sub sub "-", Mul mul "*", Div div "/", Rem rem "%");

impl<T, E, B> Call<Vec<T>, E, B> {
    /// A call for each element of a pending list, all in one round trip. Needs the peer's
    /// interpreter.
    ///
    /// `f` is called once, here, with a call that stands for an element. What is made in it runs for
    /// each element, whether it uses the element or not; what was made outside of it runs once.
    pub fn map<U, F, C>(
        self,
        f: impl FnOnce(Call<T, Error, B>) -> Call<U, F, C>,
    ) -> Call<Vec<U>, Error, B> {
        let po = self.po().clone();
        let over = self.share();
        let element = Arc::new(Node::new(Op::Element, Vec::new()));
        let scope = Scope::enter();
        let standing = Arg::new(Arc::clone(&element));
        let body = f(Call::of(po.clone(), standing)).share();
        let scopes = scope.leave();
        let map = Op::Map { element, scopes };
        Call::composed(po, Node::new(map, vec![over, body]))
    }
}

impl<T, E, B> Call<T, E, B> {
    /// A field of a pending struct, in the same round trip. `#[derive(hbi::Fields)]` makes typed
    /// methods of it.
    pub fn field<U>(&self, name: &'static str) -> Call<U> {
        let field = Op::Field(name);
        Call::composed(self.po().clone(), Node::new(field, vec![self.share()]))
    }
}

impl<T, E, B> FromIterator<Call<T, E, B>> for Call<Vec<T>, Error, B> {
    /// One call for the list of what several calls answer.
    ///
    /// # Panics
    /// When there is no call: it would not be known where to send it.
    fn from_iter<I: IntoIterator<Item = Call<T, E, B>>>(calls: I) -> Self {
        let mut po = None;
        let mut items = Vec::new();
        for call in calls {
            po.get_or_insert_with(|| call.po().clone());
            items.push(call.share());
        }
        let list = Node::new(Op::List, items);
        Call::composed(po.expect("at least one call"), list)
    }
}
