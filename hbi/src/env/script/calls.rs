//! What a script may call, bound to the landing it runs in.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rhai::{Dynamic, EvalAltResult, NativeCallContext, Position, Scope};

use super::{
    account::{Account, PassedOn},
    convert,
};
use crate::{
    Failure, Kind, Place,
    env::{Artifacts, Bounds, Outcome, incoming::panicked, unchecked::fiber},
    value::Packed,
};

/// One run of a script.
pub(super) struct Landing {
    pub(super) artifacts: Arc<dyn Artifacts>,
    pub(super) bounds: Bounds,
    operations: AtomicU64,
    calls: AtomicU64,
    until: Option<Instant>,
    print: Box<dyn Fn(&str) + Send + Sync>,
    /// Values that the text's argument lists could hold at once.
    pending: usize,
    account: Mutex<Account>,
    /// Why the first value that could not be looked into could not.
    closed: Mutex<Option<Failure>>,
    began: Instant,
    /// When the script got the thread last, in microseconds since it began.
    resumed: AtomicU64,
}

impl Landing {
    pub(super) fn new(
        artifacts: Arc<dyn Artifacts>,
        bounds: Bounds,
        (pending, account): (usize, Account),
        print: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        let began = Instant::now();
        Self {
            artifacts,
            operations: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            until: began.checked_add(bounds.wall_clock),
            bounds,
            print,
            pending,
            account: Mutex::new(account),
            closed: Mutex::default(),
            began,
            resumed: AtomicU64::new(0),
        }
    }

    /// See [`Account::touch`].
    pub(super) fn touch(
        &self,
        name: &str,
        back: usize,
        scope: &Scope<'_>,
        level: usize,
    ) -> Result<(), Box<EvalAltResult>> {
        let mut account = self.account();
        account.touch(name, back, scope, level, self.pending, &self.bounds)
    }

    /// See [`Account::define`].
    pub(super) fn define(&self, scope: &Scope<'_>, level: usize) -> Result<(), Box<EvalAltResult>> {
        let mut account = self.account();
        account.define(scope, level, self.pending, &self.bounds)
    }

    /// See [`Account::pass_on`].
    pub(super) fn pass_on(&self, bytes: usize) -> Result<PassedOn, Failure> {
        self.account().pass_on(bytes, self.pending, &self.bounds)
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A value cannot be looked into.
    pub(super) fn cannot_look(&self, why: Failure) {
        let mut closed = self.closed.lock().unwrap_or_else(|e| e.into_inner());
        closed.get_or_insert(why);
    }

    /// Why a value could not be looked into.
    pub(super) fn closed(&self) -> Option<Failure> {
        let closed = self.closed.lock().unwrap_or_else(|e| e.into_inner());
        closed.clone()
    }

    /// The operations that there may be, if there were more.
    pub(super) fn exceeded_operations(&self) -> Option<Failure> {
        let most = self.bounds.operations;
        (self.operations.load(Ordering::Relaxed) > most).then(|| {
            let raise = "raise `Bounds::operations` at the host";
            Failure::limit("operations", most, raise)
        })
    }

    /// The script has the thread, from now on.
    pub(super) fn has_thread(&self) {
        let now = self.began.elapsed().as_micros() as u64;
        self.resumed.store(now, Ordering::Relaxed);
    }
}

/// How long a script may have the thread before it lets others have it, in microseconds; and how
/// long if many do, together with which everybody has a turn.
const TURN: u64 = 500;
const SHORT_TURN: u64 = 20;

/// Operations between two looks at the clock: a thousand of the costliest take a few milliseconds.
const GLANCE: u64 = 16;

/// Scripts that wait for their next turn.
static IN_LINE: AtomicU64 = AtomicU64::new(0);

/// Lets others have the thread, if this script had it long enough. False where it is to stop.
fn take_turns(landing: &Landing, now: Instant) -> bool {
    let had = (now - landing.began).as_micros() as u64 - landing.resumed.load(Ordering::Relaxed);
    let others = IN_LINE.load(Ordering::Relaxed);
    if had < SHORT_TURN.max(TURN / (1 + others)) {
        return true;
    }
    IN_LINE.fetch_add(1, Ordering::Relaxed);
    let goes_on = fiber::breathe().is_ok();
    IN_LINE.fetch_sub(1, Ordering::Relaxed);
    goes_on
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Landing>>> = const { RefCell::new(None) };
}

/// The run that this thread is in the middle of.
#[inline(never)]
pub(super) fn current() -> Option<Arc<Landing>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Looks at that run, where the script is not suspended meanwhile.
#[inline(never)]
pub(super) fn with_current<T>(look: impl FnOnce(&Landing) -> T) -> Option<T> {
    CURRENT.with_borrow(|landing| landing.as_deref().map(look))
}

#[inline(never)]
fn set_current(landing: Option<Arc<Landing>>) -> Option<Arc<Landing>> {
    CURRENT.replace(landing)
}

/// Runs a step of a landing: the thread is in the middle of it meanwhile.
pub(super) fn within<T>(landing: &Arc<Landing>, step: impl FnOnce() -> T) -> T {
    struct Outer(Option<Arc<Landing>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            set_current(self.0.take());
        }
    }
    let _outer = Outer(set_current(Some(Arc::clone(landing))));
    step()
}

/// A failure on its way through the interpreter: scripts can catch it, and look at it.
#[derive(Debug, Clone)]
pub(super) struct Thrown(pub(super) Failure);

/// What ends a script uncatchably.
#[derive(Debug, Clone)]
pub(super) struct Ended(pub(super) Failure);

pub(super) fn place(position: Position) -> Option<Place> {
    Some(Place {
        line: position.line()? as u32,
        column: position.position().unwrap_or(1) as u32,
    })
}

pub(super) fn thrown(failure: Failure, position: Position) -> Box<EvalAltResult> {
    let failure = match place(position) {
        Some(place) => failure.in_script(place),
        None => failure,
    };
    EvalAltResult::ErrorRuntime(Dynamic::from(Thrown(failure)), position).into()
}

pub(super) fn ended(failure: Failure) -> Box<EvalAltResult> {
    EvalAltResult::ErrorTerminated(end(failure), Position::NONE).into()
}

/// A failure that a script can catch, unless it is one of those that end it.
pub(super) fn raised(failure: Failure, position: Position) -> Box<EvalAltResult> {
    match failure.kind {
        Kind::Cancelled | Kind::Timeout | Kind::Limit => ended(match place(position) {
            Some(place) => failure.in_script(place),
            None => failure,
        }),
        _ => thrown(failure, position),
    }
}

pub(super) fn cancelled() -> Failure {
    Failure::new(Kind::Cancelled, "the caller wants no answer any more")
}

type Called = Result<Dynamic, Box<EvalAltResult>>;

/// Calls something exposed, whose answer the script may look into or only passes on.
pub(super) fn call(
    name: &Arc<str>,
    looked_into: bool,
    context: &NativeCallContext<'_>,
    arguments: &mut [&mut Dynamic],
) -> Called {
    let (position, name) = (context.call_position(), Arc::clone(name));
    let packed = pack(arguments).map_err(|failure| thrown(failure, position))?;
    invoke(position, looked_into, move |artifacts| {
        artifacts.call(&name, packed)
    })
}

/// Calls a method of an object.
pub(super) fn call_method(
    name: &Arc<str>,
    context: &NativeCallContext<'_>,
    arguments: &mut [&mut Dynamic],
) -> Called {
    let (position, name) = (context.call_position(), Arc::clone(name));
    let mut packed = pack(arguments).map_err(|failure| thrown(failure, position))?;
    let object = packed.remove(0);
    invoke(position, true, move |artifacts| {
        artifacts.call_method(object, &name, packed)
    })
}

fn pack(arguments: &mut [&mut Dynamic]) -> Result<Vec<Packed>, Failure> {
    let packed = arguments
        .iter()
        .map(|argument| convert::to_packed(argument));
    Ok(packed.collect::<Result<_, _>>()?)
}

/// Calls what the host exposes: on the thread's own stack, since how much of it that takes is the
/// host's affair, and the fiber's is small.
fn invoke<F>(position: Position, looked_into: bool, start: F) -> Called
where
    F: FnOnce(&dyn Artifacts) -> Outcome + Send + 'static,
{
    let Some(landing) = current() else {
        return Err(ended(cancelled()));
    };
    if landing.calls.fetch_add(1, Ordering::Relaxed) >= landing.bounds.calls {
        let limit = landing.bounds.calls;
        return Err(ended(Failure::limit(
            "calls",
            limit,
            "raise `Bounds::calls` at the host",
        )));
    }
    let artifacts = Arc::clone(&landing.artifacts);
    let answer = fiber::wait(async move {
        match catch_unwind(AssertUnwindSafe(|| start(&*artifacts))) {
            Ok(Outcome::Ready(answer)) => answer,
            Ok(Outcome::Waiting(future)) => future.await,
            Err(panic) => Err(panicked(&*panic)),
        }
    });
    let answer = answer.map_err(|fiber::Stopped| ended(cancelled()))?;
    let packed = answer.map_err(|failure| raised(failure, position))?;
    convert::to_dynamic(packed, looked_into, &landing).map_err(|failure| raised(failure, position))
}

/// Prints a line: on the thread's own stack, as it is the host's code too.
pub(super) fn print(line: &str) {
    let (landing, line) = (current(), line.to_owned());
    // one that is to stop prints no more
    let _ = fiber::wait(async move {
        if let Some(landing) = landing {
            (landing.print)(&line);
        }
    });
}

/// Counts operations, and looks at the time; what it returns ends the script.
pub(super) fn progress(_: u64) -> Option<Dynamic> {
    let glance = with_current(|landing| {
        let operations = landing.operations.fetch_add(1, Ordering::Relaxed);
        operations >= landing.bounds.operations || operations % GLANCE == GLANCE - 1
    })?;
    if glance { look_up() } else { None }
}

#[cold]
fn look_up() -> Option<Dynamic> {
    let landing = current()?;
    if let Some(failure) = landing.exceeded_operations() {
        return Some(end(failure));
    }
    let now = Instant::now();
    if landing.until.is_some_and(|until| now > until) {
        return Some(end(out_of_time(&landing.bounds)));
    }
    if !take_turns(&landing, now) {
        return Some(end(cancelled()));
    }
    None
}

fn end(failure: Failure) -> Dynamic {
    Dynamic::from(Ended(failure))
}

pub(super) fn out_of_time(bounds: &Bounds) -> Failure {
    let limit = format!("{:?}", bounds.wall_clock);
    Failure::limit(
        "wall_clock",
        limit,
        "raise `Bounds::wall_clock` at the host",
    )
}
