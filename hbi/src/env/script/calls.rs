//! What a script may call, bound to the landing it runs in.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rhai::{Dynamic, EvalAltResult, NativeCallContext, Position};

use super::{convert, fiber};
use crate::{
    Failure, Kind, Place,
    env::{Artifacts, Bounds, Outcome},
};

/// One run of a script.
pub(super) struct Landing {
    pub(super) artifacts: Arc<dyn Artifacts>,
    pub(super) bounds: Bounds,
    pub(super) operations: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) until: Option<Instant>,
    pub(super) print: Box<dyn Fn(&str) + Send + Sync>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Landing>>> = const { RefCell::new(None) };
}

/// The run that this thread is in the middle of.
#[inline(never)]
pub(super) fn current() -> Option<Arc<Landing>> {
    CURRENT.with_borrow(Clone::clone)
}

#[inline(never)]
pub(super) fn set_current(landing: Option<Arc<Landing>>) -> Option<Arc<Landing>> {
    CURRENT.replace(landing)
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
    EvalAltResult::ErrorTerminated(Dynamic::from(Ended(failure)), Position::NONE).into()
}

pub(super) fn cancelled() -> Failure {
    Failure::new(Kind::Cancelled, "the caller wants no answer any more")
}

type Called = Result<Dynamic, Box<EvalAltResult>>;

/// Calls something exposed.
pub(super) fn call(
    name: &str,
    context: &NativeCallContext<'_>,
    arguments: &mut [&mut Dynamic],
) -> Called {
    let position = context.call_position();
    invoke(position, |landing| {
        let mut packed = Vec::with_capacity(arguments.len());
        for argument in arguments {
            packed.push(convert::to_packed(argument)?);
        }
        Ok(landing.artifacts.call(name, packed))
    })
}

/// Calls a method of an object.
pub(super) fn call_method(
    name: &str,
    context: &NativeCallContext<'_>,
    arguments: &mut [&mut Dynamic],
) -> Called {
    let position = context.call_position();
    invoke(position, |landing| {
        let mut packed = Vec::with_capacity(arguments.len());
        for argument in arguments {
            packed.push(convert::to_packed(argument)?);
        }
        let object = packed.remove(0);
        Ok(landing.artifacts.call_method(object, name, packed))
    })
}

fn invoke(position: Position, start: impl FnOnce(&Landing) -> Result<Outcome, Failure>) -> Called {
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
    let outcome = start(&landing).map_err(|failure| thrown(failure, position))?;
    let answer = match outcome {
        Outcome::Ready(answer) => answer,
        Outcome::Waiting(future) => {
            // the thread goes on with something else meanwhile
            set_current(None);
            let answer = fiber::wait(future);
            set_current(Some(Arc::clone(&landing)));
            answer.map_err(|fiber::Stopped| ended(cancelled()))?
        }
    };
    let packed = answer.map_err(|failure| match failure.kind {
        Kind::Cancelled | Kind::Timeout | Kind::Limit => ended(match place(position) {
            Some(place) => failure.in_script(place),
            None => failure,
        }),
        _ => thrown(failure, position),
    })?;
    convert::to_dynamic(packed).map_err(|error| thrown(error.into(), position))
}

/// Counts operations, and looks at the time; what it returns ends the script.
pub(super) fn progress(_: u64) -> Option<Dynamic> {
    let landing = current()?;
    let operations = landing.operations.fetch_add(1, Ordering::Relaxed);
    if operations >= landing.bounds.operations {
        let limit = landing.bounds.operations;
        let failure = Failure::limit(
            "operations",
            limit,
            "raise `Bounds::operations` at the host",
        );
        return Some(Dynamic::from(Ended(failure)));
    }
    if operations % 256 == 255 && landing.until.is_some_and(|until| Instant::now() > until) {
        return Some(Dynamic::from(Ended(out_of_time(&landing.bounds))));
    }
    if operations % 10_000 == 9_999 {
        // a long script lets others have the thread
        set_current(None);
        let stopped = fiber::breathe().is_err();
        set_current(Some(landing));
        if stopped {
            return Some(Dynamic::from(Ended(cancelled())));
        }
    }
    None
}

pub(super) fn out_of_time(bounds: &Bounds) -> Failure {
    let limit = format!("{:?}", bounds.wall_clock);
    Failure::limit(
        "wall_clock",
        limit,
        "raise `Bounds::wall_clock` at the host",
    )
}
