//! Scripts of the text wire in an environment: what they may take off the wire, and what they answer.

use std::sync::Arc;

use super::{
    Artifacts, Bounds, Environment, Outcome, Shape,
    environment::{Artifact, Target},
    python::{Code, Print, Unknown},
    within::Within,
};
use crate::{
    Failure, Kind,
    endpoint::{BoxFuture, Encoding, Holds, Hosted, Link, Prepared, Written},
    script::python::{self, Program},
    value::{Dialect, MAX_DEPTH, Packed},
};

/// A script that lands, and answers the value of its last call.
struct Script {
    env: Arc<Environment>,
    code: Arc<Code>,
    answer: Answer,
}

/// What a script answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nothing.
    Nothing,
    /// Its value, whatever it is.
    Value,
    /// What its last call answers, which may be nothing.
    OfCall,
}

/// Reads a script.
pub(super) fn read(env: &Arc<Environment>, source: &str) -> Result<Written, Failure> {
    let code = Code::new(source, &env.bounds)?;
    let loops = code.loops();
    let mut holds = Holds::Nothing;
    let mut calls_something = false;
    for (name, _) in code.calls() {
        let callee = callee(env, name);
        calls_something |= callee != Callee::Other;
        holds = match (callee, holds) {
            (Callee::Converses, _) | (_, Holds::Conversation) => Holds::Conversation,
            // how often is seen as it runs
            (Callee::TakesData, _) if loops => Holds::Conversation,
            (Callee::TakesData, Holds::Data(times)) => Holds::Data(times + 1),
            (Callee::TakesData, Holds::Nothing) => Holds::Data(1),
            (_, holds) => holds,
        };
    }
    let mut last_calls = code.last_calls().iter();
    let of_calls = calls_something && code.names_answers()
        || last_calls.any(|(name, _)| callee(env, name) != Callee::Other);
    let answer = match code.last_call() {
        Some(name) if callee(env, name) != Callee::Other => Answer::OfCall,
        // it has no value
        Some("print") => Answer::Nothing,
        _ if of_calls => Answer::Value,
        _ => Answer::Nothing,
    };
    let prepared = Arc::new(Script {
        env: Arc::clone(env),
        code: Arc::new(code),
        answer,
    });
    Ok(Written { prepared, holds })
}

/// What a name that is called stands for, as far as the wire has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Callee {
    /// A method or a function.
    Plain,
    /// One whose last argument is data.
    TakesData,
    /// One that takes the conversation.
    Converses,
    /// A constructor, what is always there, or nothing.
    Other,
}

fn callee(env: &Environment, name: &str) -> Callee {
    if let Some(Artifact::Constructor(..)) = env.artifact(name) {
        return Callee::Other;
    }
    let target = env.resolve(name).or_else(|| {
        // a method of an exposed object
        let (object, method) = name.split_once("::")?;
        let Some(Artifact::Object(object)) = env.artifact(object) else {
            return None;
        };
        let place = object.service.table().find(method)?;
        Some(Target::method(&object.service, place))
    });
    match target {
        None => match name.split_once("::") {
            // a method of what the script has in a name of its own
            Some((object, _)) if python::is_local(object) => Callee::Plain,
            _ => Callee::Other,
        },
        Some(Target::Describe) => Callee::Plain,
        Some(target) if target.takes_data() => Callee::TakesData,
        Some(Target::Function(..)) => Callee::Plain,
        Some(Target::Method(.., method)) => match method.shape {
            Shape::Converse => Callee::Converses,
            _ => Callee::Plain,
        },
    }
}

impl Target {
    /// Whether the last argument is data.
    pub(super) fn takes_data(&self) -> bool {
        match self {
            Target::Describe => false,
            Target::Function(_, exposed) => exposed.takes_data(),
            Target::Method(.., method) => {
                let last = method.params.last();
                last.is_some_and(|param| param.ty.rsplit("::").next() == Some("Data"))
            }
        }
    }
}

fn dialect(link: &Arc<dyn Link>) -> Dialect {
    match link.info().encoding {
        Encoding::Literal(dialect) => dialect,
        Encoding::Bound => Dialect::default(),
    }
}

fn print(env: &Arc<Environment>) -> Print {
    let env = Arc::clone(env);
    Box::new(move |line| env.print(line))
}

impl Prepared for Script {
    /// An empty literal stands for no answer.
    fn land(
        self: Arc<Self>,
        _arguments: Packed,
        hosted: Arc<Hosted>,
    ) -> BoxFuture<Result<Packed, Failure>> {
        let dialect = dialect(hosted.link());
        let within = |literal| -> Arc<dyn Artifacts> {
            Arc::new(Within {
                env: Arc::clone(&self.env),
                hosted: Arc::clone(&hosted),
                text: true,
                literal,
            })
        };
        let last = (self.answer == Answer::OfCall).then(|| within(Some(dialect)));
        let (artifacts, bounds, print) = (within(None), self.env.bounds.clone(), print(&self.env));
        let (code, answer) = (Arc::clone(&self.code), self.answer);
        let share = self.env.pool().share();
        Box::pin(async move {
            let run = code.run(artifacts, last, bounds, Unknown::Refuse, print, share);
            match run.await {
                Ok(_) if answer == Answer::Nothing => Packed::written(""),
                Ok(value) => Ok(value),
                // the method's own error, which the peer reads as a value
                Err(Failure {
                    literal: Some(text),
                    ..
                }) => Packed::written(&text),
                Err(failure) => Err(failure),
            }
        })
    }
}

/// A script of which only the value is wanted.
enum Wanted {
    Code(Arc<Environment>, Arc<Code>, Bounds),
    Value(bytes::Bytes),
}

/// Reads a script of which only the value is wanted.
pub(super) fn read_value(
    env: &Arc<Environment>,
    source: &str,
) -> Result<Arc<dyn Prepared>, Failure> {
    let program = Program::parse(source, MAX_DEPTH)?;
    match python::value_of(&program, &|name| env.resolve(name).is_some()) {
        Ok(value) => return Ok(Arc::new(Wanted::Value(value.into_parts().0))),
        Err(failure) if !source.contains('(') => return Err(failure),
        // it is for what it calls
        Err(_) => {}
    }
    let code = Code::of(program);
    let (code, bounds) = match code.height() {
        Some(height) if height <= env.bounds.expression_depth => {
            let bounds = as_large_as(&code, &env.bounds);
            (code, bounds)
        }
        // a script like any other
        _ => (Code::new(source, &env.bounds)?, env.bounds.clone()),
    };
    Ok(Arc::new(Wanted::Code(
        Arc::clone(env),
        Arc::new(code),
        bounds,
    )))
}

/// The most that one object of a peer may take while it is read, in bytes.
const VALUE_MEMORY: usize = 64 << 20;

/// The bounds of a value that was written down with constructors in it: a peer sends as large ones as it
/// likes, so what stands in the text is allowed, each of its steps once. What it is padded with is not.
fn as_large_as(code: &Code, bounds: &Bounds) -> Bounds {
    let (steps, (longest, strings)) = (code.len(), code.strings());
    let memory = steps.saturating_mul(512).saturating_add(32 * strings);
    let operations = 8 * (steps + strings / 256);
    Bounds {
        string: bounds.string.max(longest),
        array: bounds.array.max(steps),
        map: bounds.map.max(steps),
        memory: bounds.memory.max(memory.min(VALUE_MEMORY)),
        operations: bounds.operations.max(operations as u64),
        calls: bounds.calls.max(steps as u64),
        ..bounds.clone()
    }
}

impl Prepared for Wanted {
    fn land(
        self: Arc<Self>,
        _arguments: Packed,
        hosted: Arc<Hosted>,
    ) -> BoxFuture<Result<Packed, Failure>> {
        let (env, code, bounds) = match &*self {
            Wanted::Value(bytes) => {
                let packed = Packed::from_parts(bytes.clone(), Default::default());
                return Box::pin(std::future::ready(Ok(packed)));
            }
            Wanted::Code(env, code, bounds) => (env, Arc::clone(code), bounds.clone()),
        };
        let artifacts = Arc::new(Within {
            env: Arc::clone(env),
            hosted,
            text: true,
            literal: None,
        });
        let (print, share) = (print(env), env.pool().share());
        Box::pin(async move {
            let run = code.run(artifacts, None, bounds, Unknown::Construct, print, share);
            run.await
        })
    }
}

/// What a call of something that takes data is to be given in place of its length: the data that
/// stands behind the script.
pub(super) fn data_behind(hosted: &Hosted, length: Packed) -> Result<Packed, Failure> {
    use crate::endpoint::{Carried, DATA_BEHIND, Inlet, Messages};
    let bytes: u64 = length.unpack().map_err(|_| {
        Failure::new(
            Kind::Arguments,
            "the last argument is the number of bytes that follow as raw data",
        )
    })?;
    let (link, co) = (hosted.link(), hosted.number());
    link.expect_data(co, DATA_BEHIND, bytes);
    let inlet = Inlet::new(Arc::clone(link), co, DATA_BEHIND);
    let stream = Carried::Stream(Messages::Arrived(inlet), Some(bytes));
    Ok(Packed::of_handle(Box::new(stream)))
}

impl Within {
    /// The arguments of a call on the text wire: where the last is data, its length stands for it.
    pub(super) fn on_text(
        &self,
        target: &Target,
        mut arguments: Vec<Packed>,
    ) -> Result<Vec<Packed>, Failure> {
        if self.text
            && target.takes_data()
            && let Some(length) = arguments.pop_if(|last| last.handles().is_empty())
        {
            arguments.push(data_behind(&self.hosted, length)?);
        }
        Ok(arguments)
    }

    /// Calls on the text wire what a name stands for.
    pub(super) fn call_target(&self, target: &Target, arguments: Vec<Packed>) -> Outcome {
        match self.on_text(target, arguments) {
            Ok(arguments) => {
                let arguments = Packed::array(arguments);
                self.env
                    .call_target(target, arguments, &self.hosted, self.literal)
            }
            Err(failure) => Outcome::Ready(Err(failure)),
        }
    }
}
