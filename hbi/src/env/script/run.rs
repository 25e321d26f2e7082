//! Compiling a script, and running it on a fiber.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rhai::{AST, Dynamic, Engine, EvalAltResult, Scope};
use tokio::sync::Semaphore;

use super::{
    calls::{self, Ended, Landing, Thrown},
    convert,
    engine::{Kept, engine},
    fiber::Fiber,
    names::Names,
};
use crate::{
    Failure, Kind, Place,
    env::{Artifacts, Bounds},
    value::Packed,
};

/// Scripts that run or wait at once in this process; more of them queue, in order.
const FIBERS: usize = 4096;

/// As many more for scripts that others wait for: they would wait for each other otherwise.
const NESTED_FIBERS: usize = 1024;

static ROOM: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(FIBERS));
static NESTED_ROOM: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(NESTED_FIBERS));

/// A script that can run.
pub(in crate::env) struct Compiled {
    engine: Engine,
    ast: AST,
    parameters: Vec<Box<str>>,
    names: Names,
}

impl Compiled {
    /// Compiles a script; `exposed` tells which functions are the host's.
    pub(in crate::env) fn new(
        source: &str,
        parameters: &[Box<str>],
        exposed: impl Fn(&str) -> bool,
        bounds: &Bounds,
    ) -> Result<Self, Failure> {
        let names = Names::of(source);
        let engine = engine(&names, exposed, bounds);
        let ast = engine.compile(source).map_err(|error| {
            let failure = Failure::new(Kind::Script, error.err_type().to_string());
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
            names,
        })
    }

    /// Runs it. Dropping the future ends the script at its next step.
    pub(in crate::env) async fn run(
        self: Arc<Self>,
        arguments: Vec<Packed>,
        artifacts: Arc<dyn Artifacts>,
        bounds: Bounds,
        nested: bool,
        print: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Packed, Failure> {
        let room = if nested { &NESTED_ROOM } else { &ROOM };
        // it is never closed
        let _place = room.acquire().await.map_err(|_| calls::cancelled())?;
        let until = Instant::now().checked_add(bounds.wall_clock);
        let wall_clock = bounds.wall_clock;
        let landing = Arc::new(Landing {
            artifacts,
            bounds,
            operations: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            until,
            print,
        });
        let (code, own) = (Arc::clone(&self), Arc::clone(&landing));
        let fiber = Fiber::new(move || {
            // the thread is another's again whenever the fiber is suspended
            let outer = calls::set_current(Some(Arc::clone(&own)));
            let result = catch_unwind(AssertUnwindSafe(|| code.evaluate(arguments, &own)));
            calls::set_current(outer);
            result.unwrap_or_else(|panic| Err(crate::env::incoming::panicked(&*panic)))
        });
        let fiber = fiber.map_err(|error| {
            Failure::new(
                Kind::Limit,
                format!("no memory for another script: {error}"),
            )
        })?;
        match tokio::time::timeout(wall_clock, fiber).await {
            Ok(result) => result,
            Err(_) => Err(calls::out_of_time(&landing.bounds)),
        }
    }

    fn evaluate(&self, arguments: Vec<Packed>, landing: &Landing) -> Result<Packed, Failure> {
        if arguments.len() != self.parameters.len() {
            let text = format!(
                "{} values bound to {} parameters",
                arguments.len(),
                self.parameters.len()
            );
            return Err(Failure::new(Kind::Arguments, text));
        }
        let mut scope = Scope::new();
        scope.push("env", Kept);
        for name in &self.names.mentioned {
            if let Some(value) = landing.artifacts.exposed(name) {
                scope.push_constant_dynamic(name.as_str(), convert::to_dynamic(value)?);
            }
        }
        for (name, value) in self.parameters.iter().zip(arguments) {
            scope.push_dynamic(&**name, convert::to_dynamic(value)?);
        }
        let result = self
            .engine
            .eval_ast_with_scope::<Dynamic>(&mut scope, &self.ast);
        let limit = landing.bounds.operations;
        if landing.operations.load(Ordering::Relaxed) > limit {
            // whatever the script made of it
            return Err(Failure::limit(
                "operations",
                limit,
                "raise `Bounds::operations` at the host",
            ));
        }
        match result {
            Ok(value) => Ok(convert::to_packed(&value)?),
            Err(error) => Err(failure(*error, landing)),
        }
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

/// The interpreter's error as it travels.
fn failure(error: EvalAltResult, landing: &Landing) -> Failure {
    let position = error.position();
    let at = |failure: Failure| match calls::place(position) {
        Some(place) => failure.in_script(place),
        None => failure,
    };
    let bounds = &landing.bounds;
    let limit = |name: &str, value: usize| {
        Failure::limit(name, value, &format!("raise `Bounds::{name}` at the host"))
    };
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => at(failure(*inner, landing)),
        EvalAltResult::ErrorInModule(_, inner, _) => at(failure(*inner, landing)),
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
        EvalAltResult::ErrorStackOverflow(_) => at(limit("call_depth", bounds.call_depth)),
        EvalAltResult::ErrorDataTooLarge(what, _) => {
            let (name, value) = match what.to_ascii_lowercase() {
                what if what.contains("string") => ("string", bounds.string),
                what if what.contains("map") => ("map", bounds.map),
                _ => ("array", bounds.array),
            };
            at(limit(name, value))
        }
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
                format!("there is no function `{signature}`{hint}"),
            ))
        }
        EvalAltResult::ErrorVariableNotFound(name, _) => at(Failure::new(
            Kind::Unknown,
            format!("there is no variable `{name}`"),
        )),
        other => at(Failure::new(Kind::Script, without_place(&other))),
    }
}

/// The error's text; the place is told on its own.
fn without_place(error: &EvalAltResult) -> String {
    let text = error.to_string();
    match text.rfind(" (line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
