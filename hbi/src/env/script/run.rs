//! Compiling a script, and running it on a fiber.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
};

use rhai::{AST, Dynamic, Engine, EvalAltResult, LexError, ParseErrorType, Scope};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    account::{self, Account},
    calls::{self, Ended, Landing, Thrown},
    convert,
    engine::{self, Depths, FUNCTIONS, MOST_ARGUMENTS, VARIABLES},
    library::Kept,
    names::{CALLED, Names},
};
use crate::{
    Failure, Kind, Place,
    env::{
        Artifacts, Bounds,
        share::{Pool, Share},
        sources::Taken,
        unchecked::fiber::Fiber,
    },
    value::Packed,
};

/// Scripts that run or wait at once in this process, and as many more that others wait for: they
/// would wait for each other otherwise. Each has a stack, which takes two of the some 65,000
/// mappings that Linux gives a process by default.
const FIBERS: usize = 16_384;
const NESTED_FIBERS: usize = 4_096;

static FIBERS_OF_ALL: LazyLock<Places> = LazyLock::new(|| Places::new(FIBERS));

/// Room for the scripts of one connection that run or wait at once; more of them queue, in order.
#[derive(Debug)]
pub(in crate::env) struct Room {
    places: Places,
    memory: Pool,
}

impl Room {
    /// Room for so many, and as many that others wait for.
    pub(in crate::env) fn new(fibers: usize, memory: Pool) -> Self {
        let places = Places::new(fibers);
        Self { places, memory }
    }

    /// The memory that a script begins with.
    async fn share(&self, bytes: usize, nested: bool) -> Result<Share, Failure> {
        if nested {
            let mut share = self.memory.share();
            share.resize(bytes)?;
            Ok(share)
        } else {
            self.memory.wait_for(bytes).await
        }
    }
}

/// Places for fibers, and for those that others wait for.
#[derive(Debug)]
struct Places {
    fibers: Semaphore,
    nested: Semaphore,
}

impl Places {
    fn new(fibers: usize) -> Self {
        let fibers = fibers.clamp(1, FIBERS);
        Self {
            fibers: Semaphore::new(fibers),
            nested: Semaphore::new(fibers.min(NESTED_FIBERS)),
        }
    }

    async fn place(&self, nested: bool) -> Result<SemaphorePermit<'_>, Failure> {
        let places = if nested { &self.nested } else { &self.fibers };
        // they are never closed
        places.acquire().await.map_err(|_| calls::cancelled())
    }
}

/// A script that can run.
pub(in crate::env) struct Compiled {
    engine: Engine,
    ast: AST,
    parameters: Vec<Box<str>>,
    names: Names,
    size: usize,
    _taken: Option<Taken>,
}

impl Compiled {
    /// Compiles a script; `exposed` tells which functions are the host's.
    pub(in crate::env) fn new(
        source: &str,
        parameters: &[Box<str>],
        exposed: impl Fn(&str) -> bool,
        bounds: &Bounds,
    ) -> Result<Self, Failure> {
        if parameters.len() > VARIABLES {
            return Err(account::too_many_variables());
        }
        let names = Names::of(source, &exposed);
        let depths = Depths::new(bounds);
        if names.chain > depths.expressions {
            return Err(depths.too_many_expressions());
        }
        if names.calls.len() + names.methods.len() > CALLED {
            return Err(Failure::limit("called", CALLED, "make it several scripts"));
        }
        account::check_pending(names.pending, bounds)?;
        if let Some((name, count)) = names.call_beyond(MOST_ARGUMENTS, &exposed) {
            let most = format!("`{name}` with {count}, at most {MOST_ARGUMENTS}");
            let hint = "call it in a straight line of calls, which takes any number";
            return Err(Failure::limit("arguments", most, hint));
        }
        let text = names.aliased(source, &exposed);
        let engine = engine::new(&names, &exposed, bounds);
        let ast = engine.compile(text).map_err(|error| {
            let failure = not_parsed(error.err_type(), bounds);
            match calls::place(error.position()) {
                Some(place) => failure.in_script(place),
                // at the end of the text
                None => failure.in_script(end_of(source)),
            }
        })?;
        Ok(Self {
            engine,
            ast,
            parameters: parameters.to_vec(),
            size: engine::size(&names, source),
            names,
            _taken: None,
        })
    }

    /// What it takes, in bytes.
    pub(in crate::env) fn size(&self) -> usize {
        self.size
    }

    /// The same, where it is counted.
    pub(in crate::env) fn counted(mut self, taken: Taken) -> Self {
        self._taken = Some(taken);
        self
    }

    /// Runs it. Dropping the future ends the script at its next step.
    pub(in crate::env) async fn run(
        self: Arc<Self>,
        arguments: Vec<Packed>,
        artifacts: Arc<dyn Artifacts>,
        bounds: Bounds,
        room: Arc<Room>,
        nested: bool,
        print: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Packed, Failure> {
        let pending = self.names.pending;
        let _place = room.places.place(nested).await?;
        let share = room.share(account::least(pending, &bounds), nested).await?;
        let _place_of_all = FIBERS_OF_ALL.place(nested).await?;
        let wall_clock = bounds.wall_clock;
        let account = Account::new(share);
        let landing = Landing::new(artifacts, bounds, (pending, account), print);
        let landing = Arc::new(landing);
        let (code, own) = (Arc::clone(&self), Arc::clone(&landing));
        let stack = Depths::new(&landing.bounds).stack();
        let fiber = Fiber::new(stack, move || {
            let result = catch_unwind(AssertUnwindSafe(|| code.evaluate(arguments, &own)));
            result.unwrap_or_else(|panic| Err(crate::env::incoming::panicked(&*panic)))
        });
        let fiber = fiber.map_err(|error| {
            Failure::new(
                Kind::Limit,
                format!("no memory for another script: {error}"),
            )
        })?;
        let running = Running {
            fiber: Some(fiber),
            landing: Arc::clone(&landing),
        };
        match tokio::time::timeout(wall_clock, running).await {
            Ok(result) => result,
            Err(_) => Err(calls::out_of_time(&landing.bounds)),
        }
    }

    fn evaluate(&self, arguments: Vec<Packed>, landing: &Landing) -> Result<Packed, Failure> {
        let mut scope = Scope::new();
        scope.push("env", Kept);
        for name in &self.names.mentioned {
            if let Some(value) = landing.artifacts.exposed(name) {
                let value = self.value(name, value, landing)?;
                scope.push_constant_dynamic(name.as_str(), value);
            }
        }
        for (name, value) in self.parameters.iter().zip(arguments) {
            scope.push_dynamic(&**name, self.value(name, value, landing)?);
        }
        let result = self
            .engine
            .eval_ast_with_scope::<Dynamic>(&mut scope, &self.ast);
        if let Some(failure) = landing.exceeded_operations() {
            // whatever the script made of it
            return Err(failure);
        }
        match result {
            Ok(value) => Ok(convert::to_packed(&value)?),
            Err(error) => Err(failure(*error, landing)),
        }
    }

    /// What a variable begins with.
    fn value(&self, name: &str, value: Packed, landing: &Landing) -> Result<Dynamic, Failure> {
        convert::to_dynamic(value, self.names.looks_into(name), landing)
    }
}

/// A script under way. Its thread knows which one it is, from one suspension to the next.
struct Running {
    fiber: Option<Fiber<Result<Packed, Failure>>>,
    landing: Arc<Landing>,
}

impl Future for Running {
    type Output = Result<Packed, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Running { fiber, landing } = self.get_mut();
        match fiber {
            Some(fiber) => {
                landing.has_thread();
                calls::within(landing, || Pin::new(fiber).poll(cx))
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // its last steps, on the way out
        calls::within(&self.landing, || drop(self.fiber.take()));
    }
}

fn end_of(source: &str) -> Place {
    let line = source.lines().count().max(1);
    let column = source.lines().last().unwrap_or("").chars().count() + 1;
    Place {
        line: line as u32,
        column: column as u32,
    }
}

fn limit(name: &str, value: usize) -> Failure {
    Failure::limit(name, value, &format!("raise `Bounds::{name}` at the host"))
}

/// Why a text is no script.
fn not_parsed(error: &ParseErrorType, bounds: &Bounds) -> Failure {
    match error {
        ParseErrorType::ExprTooDeep => Depths::new(bounds).too_many_expressions(),
        ParseErrorType::TooManyFunctions => {
            Failure::limit("functions", FUNCTIONS, "make it several scripts")
        }
        ParseErrorType::LiteralTooLarge(what, _) => too_large(what, bounds),
        ParseErrorType::BadInput(LexError::StringTooLong(_)) => limit("string", bounds.string),
        other => Failure::new(Kind::Script, shortened(&other.to_string())),
    }
}

fn too_large(what: &str, bounds: &Bounds) -> Failure {
    let (name, value) = match what.to_ascii_lowercase() {
        what if what.contains("string") => ("string", bounds.string),
        what if what.contains("map") => ("map", bounds.map),
        _ => ("array", bounds.array),
    };
    limit(name, value)
}

/// As much of a text as an error shall repeat.
fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The interpreter's error as it travels.
fn failure(error: EvalAltResult, landing: &Landing) -> Failure {
    let failed = failure_of(error, landing);
    match landing.closed() {
        // it may have looked into what it could only pass on
        Some(why) if matches!(failed.kind, Kind::Script | Kind::Unknown) => Failure {
            message: format!(
                "{}; a value here can only be passed on: {}",
                failed.message, why.message
            ),
            ..failed
        },
        _ => failed,
    }
}

fn failure_of(error: EvalAltResult, landing: &Landing) -> Failure {
    let position = error.position();
    let at = |failure: Failure| match calls::place(position) {
        Some(place) => failure.in_script(place),
        None => failure,
    };
    let bounds = &landing.bounds;
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _)
        | EvalAltResult::ErrorInModule(_, inner, _) => at(failure_of(*inner, landing)),
        EvalAltResult::ErrorTerminated(token, _) => match token.try_cast::<Ended>() {
            Some(Ended(failure)) => at(failure),
            None => calls::cancelled(),
        },
        EvalAltResult::ErrorRuntime(value, _) => match value.clone().try_cast::<Thrown>() {
            Some(Thrown(failure)) => at(failure),
            None => at(Failure::new(
                Kind::Script,
                format!("the script threw: {value}"),
            )),
        },
        EvalAltResult::ErrorStackOverflow(_) => at(Depths::new(bounds).too_many_calls()),
        EvalAltResult::ErrorDataTooLarge(what, _) => at(too_large(&what, bounds)),
        EvalAltResult::ErrorTooManyVariables(_) => at(account::too_many_variables()),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            let name = signature.split([' ', '(']).next().unwrap_or(&signature);
            let similar = landing.artifacts.resembling(name);
            let hint = if similar.is_empty() {
                String::new()
            } else {
                format!("; exposed there: {}", similar.join(", "))
            };
            at(Failure::new(
                Kind::Unknown,
                format!("there is no function `{}`{hint}", shortened(&signature)),
            ))
        }
        EvalAltResult::ErrorVariableNotFound(name, _) => at(Failure::new(
            Kind::Unknown,
            format!("there is no variable `{name}`"),
        )),
        EvalAltResult::ErrorPropertyNotFound(name, _) => at(Failure::new(
            Kind::Value,
            format!("a value without a field `{name}`"),
        )),
        other => at(Failure::new(Kind::Script, without_place(&other))),
    }
}

/// The error's text; the place is told on its own.
pub(super) fn without_place(error: &EvalAltResult) -> String {
    let text = error.to_string();
    match text.rfind(" (line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, task::Waker};

    use super::*;
    use crate::env::Outcome;

    /// Exposes `later`, which is there when it is polled the second time.
    struct Later;

    impl Artifacts for Later {
        fn call(&self, name: &str, mut arguments: Vec<Packed>) -> Outcome {
            assert_eq!(name, "later");
            let answer = arguments.remove(0);
            Outcome::Waiting(Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(answer)
            }))
        }

        fn call_method(&self, _: Packed, name: &str, _: Vec<Packed>) -> Outcome {
            unreachable!("no script calls `.{name}`")
        }

        fn has_function(&self, name: &str) -> bool {
            name == "later"
        }

        fn exposed(&self, _: &str) -> Option<Packed> {
            None
        }

        fn get(&self, _: &str) -> Option<Packed> {
            None
        }

        fn set(&self, _: &str, _: Packed) -> Result<(), Failure> {
            Ok(())
        }

        fn resembling(&self, _: &str) -> Vec<String> {
            Vec::new()
        }
    }

    type Script = Pin<Box<dyn Future<Output = Result<Packed, Failure>> + Send>>;

    const SOURCE: &str = r#"
        fn deep(n, k) {
            if n == 0 { later(k) } else { try { deep(n - 1, k) } catch { 0 } }
        }
        let all = [];
        for i in 0..20 {
            let item = #{ n: later(i) + deep(3, k), text: `${later("x")}${i}` };
            all.push(item);
        }
        let sum = 0;
        for item in all { sum += item.n + item.text.len(); }
        sum
    "#;

    fn script(k: i64) -> Script {
        let (bounds, parameters) = (Bounds::default(), ["k".into()]);
        let code = Compiled::new(SOURCE, &parameters, |name| name == "later", &bounds);
        let code = Arc::new(code.expect("it parses"));
        let arguments = vec![Packed::pack(&k).expect("a number packs")];
        let room = Arc::new(Room::new(1, Pool::new(bounds.connection_memory)));
        let print = Box::new(|_: &str| {});
        Box::pin(code.run(arguments, Arc::new(Later), bounds, room, false, print))
    }

    fn expected(k: i64) -> i64 {
        (0..20).map(|i| i + k + if i < 10 { 2 } else { 3 }).sum()
    }

    /// Polls scripts in turn on four threads that pass them on to each other, each until it is done;
    /// tells the answers and how often one went on on another thread.
    fn passed_around(scripts: Vec<Script>, polls: usize) -> (Vec<i64>, usize) {
        const THREADS: usize = 4;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime can be had");
        let total = scripts.len();
        let (done, answers) = mpsc::channel();
        let (ways, inboxes): (Vec<_>, Vec<_>) = (0..THREADS)
            .map(|_| mpsc::channel::<Option<(usize, usize, Script)>>())
            .unzip();
        for (n, script) in scripts.into_iter().enumerate() {
            ways[n % THREADS]
                .send(Some((n, 0, script)))
                .expect("it listens");
        }
        std::thread::scope(|scope| {
            for (thread, inbox) in inboxes.into_iter().enumerate() {
                let next = ways[(thread + 1) % THREADS].clone();
                let (done, handle) = (done.clone(), runtime.handle().clone());
                scope.spawn(move || {
                    let _entered = handle.enter();
                    let mut cx = Context::from_waker(Waker::noop());
                    while let Ok(Some((n, polled, mut script))) = inbox.recv() {
                        match script.as_mut().poll(&mut cx) {
                            Poll::Ready(answer) => {
                                let _ = done.send((n, polled, Some(answer)));
                            }
                            Poll::Pending if polled == polls => {
                                drop(script);
                                let _ = done.send((n, polled, None));
                            }
                            Poll::Pending => {
                                let _ = next.send(Some((n, polled + 1, script)));
                            }
                        }
                    }
                });
            }
            let mut ended: Vec<_> = answers.iter().take(total).collect();
            ways.iter()
                .for_each(|way| way.send(None).expect("it listens"));
            ended.sort_by_key(|(n, ..)| *n);
            let moved = ended.iter().map(|(_, polled, _)| polled).sum();
            let answers = ended.into_iter().filter_map(|(.., answer)| {
                let packed = answer?.expect("it has an answer");
                Some(packed.unpack().expect("a number"))
            });
            (answers.collect(), moved)
        })
    }

    #[test]
    fn scripts_go_on_on_other_threads() {
        let scripts = (0..100).map(script).collect();
        let (answers, moved) = passed_around(scripts, usize::MAX);
        assert_eq!(answers, (0..100).map(expected).collect::<Vec<_>>());
        assert!(moved >= 6_000, "{moved}");
    }

    #[test]
    fn scripts_end_on_other_threads() {
        // each is dropped somewhere in the middle, wherever it is by then
        for polls in [1, 2, 17, 18, 19] {
            let scripts = (0..40).map(script).collect();
            let (answers, moved) = passed_around(scripts, polls);
            assert_eq!((answers, moved), (Vec::new(), 40 * polls));
        }
    }
}
