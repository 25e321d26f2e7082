//! Landing: from a script's number to what it does. One call of something exposed goes straight to
//! it; a straight line runs step by step; anything else is the interpreter's.

use std::{
    future::ready,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

use super::{
    Environment,
    environment::{Hooks, Target, unheard},
    incoming::{Guarded, Parts, failed, panicked},
    sources::{Sources, Taken},
    straight::{self, Line},
    written,
};
#[cfg(feature = "script")]
use super::{free::Free, script::is_built_in};
#[cfg(feature = "script")]
use crate::script::Callee;
use crate::{
    Error, Failure, Kind, PostingEnd,
    endpoint::{Arrived, BoxFuture, Hosted, Landed, Landing, Link, Prepared, Written},
    script::Straight,
    value::Packed,
};

/// The longest text of a value that is read where it arrives, in bytes: it takes a few milliseconds
/// at most. A longer one is read beside the runtime.
const READ_IN_PLACE: usize = 64 << 10;

/// The environment as a connection's task owns it.
pub(crate) struct EnvLanding {
    env: Arc<Environment>,
    scripts: Vec<Option<Arc<Script>>>,
    /// What they take, with those before them that still wait to land, or run.
    sources: Sources,
    hooks: Hooks,
    /// The connection is up, or was.
    up: bool,
    po: PostingEnd,
    trace: bool,
}

/// A text that the peer gave a number, made ready.
struct Script {
    env: Arc<Environment>,
    source: Box<str>,
    parameters: Vec<Box<str>>,
    /// Found out when it lands first.
    way: OnceLock<Way>,
    sources: Sources,
    _taken: Option<Taken>,
}

/// How a script lands.
enum Way {
    /// One call with the parameters in order.
    Call(Target),
    /// Calls one after the other.
    Straight(Arc<Line>),
    /// Anything else.
    #[cfg(feature = "script")]
    Free(Free),
    /// Not at all.
    Never(Failure),
}

impl EnvLanding {
    /// The environment of a connection.
    pub(crate) fn new(env: Arc<Environment>, hooks: Hooks, link: &Arc<dyn Link>) -> Self {
        let po = PostingEnd::new(Arc::clone(link));
        let trace = po.info().trace;
        let sources = Sources::new(env.bounds.sources);
        Self {
            env,
            scripts: Vec::new(),
            sources,
            hooks,
            up: false,
            po,
            trace,
        }
    }
}

impl Script {
    fn new(env: &Arc<Environment>, parameters: &[&str], source: &str, sources: &Sources) -> Self {
        Self {
            env: Arc::clone(env),
            source: source.into(),
            parameters: parameters.iter().map(|&name| name.into()).collect(),
            way: OnceLock::new(),
            sources: sources.clone(),
            _taken: None,
        }
    }

    /// One that never lands, and is not kept.
    fn refused(env: &Arc<Environment>, failure: Failure, sources: &Sources) -> Self {
        let mut script = Self::new(env, &[], "", sources);
        script.way = OnceLock::from(Way::Never(failure));
        script
    }

    /// How it lands; where that takes more than there is room for, it may be tried again.
    #[inline]
    fn way(&self) -> Result<&Way, Failure> {
        match self.way.get() {
            Some(way) => Ok(way),
            None => {
                let way = self.find_way()?;
                Ok(self.way.get_or_init(|| way))
            }
        }
    }

    #[inline(never)]
    fn find_way(&self) -> Result<Way, Failure> {
        let (env, parameters) = (&self.env, &self.parameters);
        let straight = Straight::recognise(&self.source, parameters);
        #[cfg(feature = "script")]
        let straight = straight.filter(|straight| !needs_interpreter(straight, env));
        let Some(straight) = straight else {
            return self.interpreted();
        };
        let call = straight.as_call(parameters.len());
        if let Some(target) = call.and_then(|name| env.resolve(name)) {
            return Ok(Way::Call(target));
        }
        let calls = env.bounds.calls;
        if straight.steps.len() as u64 > calls {
            let raise = "raise `Bounds::calls` at the host";
            return Ok(Way::Never(Failure::limit("calls", calls, raise)));
        }
        let taken = self.sources.take(straight.size())?;
        Ok(Way::Straight(Arc::new(Line::new(straight, taken))))
    }

    #[cfg(feature = "script")]
    fn interpreted(&self) -> Result<Way, Failure> {
        match Free::compile(&self.env, &self.parameters, &self.source) {
            Ok(code) => Ok(Way::Free(Free::new(code, &self.sources)?)),
            Err(failure) => Ok(Way::Never(failure)),
        }
    }

    #[cfg(not(feature = "script"))]
    fn interpreted(&self) -> Result<Way, Failure> {
        Ok(Way::Never(Failure::new(
            Kind::Script,
            "this peer runs calls and straight lines of calls only: it was built without the \
             feature `script`",
        )))
    }

    /// Lands it as a future.
    fn start(&self, arguments: Packed, hosted: Arc<Hosted>) -> BoxFuture<Result<Packed, Failure>> {
        let way = match self.way() {
            Ok(way) => way,
            Err(failure) => return Box::pin(ready(Err(failure))),
        };
        // they are not taken apart before: a byte of them may become forty
        if !matches!(way, Way::Call(_) | Way::Never(_))
            && let Some(bound) = arguments.count()
            && bound != self.parameters.len()
        {
            let text = format!(
                "{bound} values bound to {} parameters",
                self.parameters.len()
            );
            return Box::pin(ready(Err(Failure::new(Kind::Arguments, text))));
        }
        match way {
            Way::Call(target) => match self.env.call_target(target, arguments, &hosted, None) {
                super::Outcome::Ready(answer) => Box::pin(ready(answer)),
                super::Outcome::Waiting(future) => future,
            },
            Way::Straight(line) => Box::pin(straight::run(
                Arc::clone(&self.env),
                Arc::clone(line),
                arguments,
                hosted,
            )),
            #[cfg(feature = "script")]
            Way::Free(free) => free.run(&self.env, arguments, hosted),
            Way::Never(failure) => Box::pin(ready(Err(failure.clone()))),
        }
    }
}

/// What a parameter's name takes, with what it is kept in.
fn name_size(name: &str) -> usize {
    name.len() + size_of::<Box<str>>()
}

fn too_long(len: usize, limit: usize) -> Failure {
    Failure::limit(
        "source",
        format_args!("a script of {len} bytes, at most {limit}"),
        "bind values as parameters, or raise `Bounds::source` at the host",
    )
}

impl Prepared for Script {
    fn land(
        self: Arc<Self>,
        arguments: Packed,
        hosted: Arc<Hosted>,
    ) -> BoxFuture<Result<Packed, Failure>> {
        let augmented = hosted.augmented().cloned();
        match augmented.map(|augmented| augmented.downcast::<Environment>()) {
            Some(Ok(own)) if !matches!(self.way.get(), Some(Way::Never(_))) => {
                let env = Arc::new(Environment::over(own, Arc::clone(&self.env)));
                let parameters: Vec<_> = self.parameters.iter().map(|name| &**name).collect();
                Script::new(&env, &parameters, &self.source, &self.sources).start(arguments, hosted)
            }
            _ => self.start(arguments, hosted),
        }
    }
}

impl EnvLanding {
    #[inline(always)]
    fn land_any(&mut self, arrived: Arrived<'_>, output: &mut Vec<u8>) -> Landed {
        let Arrived {
            script,
            arguments,
            handles,
            origin,
            ..
        } = arrived;
        let Some(script) = self.scripts.get(script as usize).and_then(Option::as_ref) else {
            return failed(undefined(script));
        };
        let way = match script.way() {
            Ok(way) => way,
            Err(failure) => return failed(failure),
        };
        if self.trace
            && let Way::Call(target) = way
        {
            tracing::Span::current().record("call", target.name());
        }
        match way {
            Way::Call(target) => {
                let mut parts = Parts {
                    callee: target.callee(),
                    arguments,
                    handles,
                    output,
                    origin,
                    hosted: None,
                    literal: None,
                };
                target.land(&self.env, &mut parts)
            }
            Way::Never(failure) => failed(failure.clone()),
            _ => {
                let arguments =
                    Packed::from_parts(bytes::Bytes::copy_from_slice(arguments), handles);
                let hosted = origin.hosted();
                let future = script.start(arguments, Arc::clone(&hosted));
                let current = origin.current;
                current.scope(|| poll_first(future, hosted, output))
            }
        }
    }

    /// For its effect: nobody waits for a failure.
    #[inline(never)]
    fn land_unheard(&mut self, arrived: Arrived<'_>, output: &mut Vec<u8>) -> Landed {
        match self.land_any(arrived, output) {
            Landed::Failed(failure) => {
                self.env.unheard((*failure).clone());
                Landed::Failed(failure)
            }
            Landed::Waiting { future, hosted } => {
                let future = self.unheard(future);
                Landed::Waiting { future, hosted }
            }
            done => done,
        }
    }
}

impl Landing for EnvLanding {
    fn is_defined(&self, number: u32) -> bool {
        matches!(self.scripts.get(number as usize), Some(Some(_)))
    }

    fn define(&mut self, number: u32, parameters: &[&str], source: &str) {
        let place = number as usize;
        if place >= self.scripts.len() {
            self.scripts.resize(place + 1, None);
        }
        // what waits to land has it still, and it counts until then
        self.scripts[place] = None;
        let most = self.env.bounds.source;
        let names: usize = parameters.iter().map(|name| name_size(name)).sum();
        let taken = match source.len() > most {
            true => Err(too_long(source.len(), most)),
            false => self.sources.take(source.len() + names),
        };
        let script = match taken {
            Ok(taken) => Script {
                _taken: Some(taken),
                ..Script::new(&self.env, parameters, source, &self.sources)
            },
            Err(failure) => Script::refused(&self.env, failure, &self.sources),
        };
        self.scripts[place] = Some(Arc::new(script));
    }

    fn land(&mut self, arrived: Arrived<'_>, output: &mut Vec<u8>) -> Landed {
        match arrived.value {
            true => self.land_any(arrived, output),
            false => self.land_unheard(arrived, output),
        }
    }

    fn prepare(&mut self, number: u32) -> Arc<dyn Prepared> {
        match self.scripts.get(number as usize).and_then(Option::as_ref) {
            Some(script) => Arc::clone(script) as Arc<dyn Prepared>,
            None => Arc::new(Script::refused(&self.env, undefined(number), &self.sources)),
        }
    }

    fn means(&self, number: u32, prepared: &Arc<dyn Prepared>) -> bool {
        let script = self.scripts.get(number as usize).and_then(Option::as_ref);
        script.is_some_and(|script| ptr::addr_eq(Arc::as_ptr(script), Arc::as_ptr(prepared)))
    }

    fn unheard(
        &self,
        landing: BoxFuture<Result<Packed, Failure>>,
    ) -> BoxFuture<Result<Packed, Failure>> {
        let env = Arc::clone(&self.env);
        Box::pin(async move {
            let answer = landing.await;
            if let Err(failure) = &answer {
                env.unheard(failure.clone());
            }
            answer
        })
    }

    fn read(&mut self, source: &str) -> Result<Written, Failure> {
        written::read(&self.env, source)
    }

    fn read_value(&mut self, source: &str) -> BoxFuture<Result<Arc<dyn Prepared>, Failure>> {
        if source.len() <= READ_IN_PLACE {
            return Box::pin(ready(written::read_value(&self.env, source)));
        }
        let (env, source) = (Arc::clone(&self.env), source.to_owned());
        let read = tokio::task::spawn_blocking(move || written::read_value(&env, &source));
        Box::pin(async move {
            let broken = |error| Failure::new(Kind::Panic, format!("reading a value: {error}"));
            read.await.map_err(broken)?
        })
    }

    fn connected(&mut self) -> Option<BoxFuture<()>> {
        self.up = true;
        let hook = self.hooks.connect.take()?;
        // it may go on when the connection is gone, and keeps nothing of the environment alive
        let (po, error) = (self.po.clone(), self.env.error.clone());
        let hook = Guarded(Box::pin(async move { hook(po).await }));
        Some(Box::pin(async move {
            if let Err(failure) = hook.await {
                unheard(error.as_ref(), failure.at("on_connect"));
            }
        }))
    }

    fn disconnected(&mut self, reason: &Error) {
        if let Some(hook) = self.hooks.disconnect.take()
            && self.up
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(reason)))
        {
            self.env.unheard(panicked(&*panic).at("on_disconnect"));
        }
    }
}

/// Whether a straight line calls something that the interpreter brings along.
#[cfg(feature = "script")]
fn needs_interpreter(straight: &Straight, env: &Environment) -> bool {
    straight.steps.iter().any(|step| match &step.callee {
        Callee::Path(name) => is_built_in(name) && env.resolve(name).is_none(),
        Callee::Method(name) => is_built_in(name),
    })
}

fn undefined(number: u32) -> Failure {
    Failure::new(
        Kind::Protocol,
        format!("script {number} was used before it was defined"),
    )
}

/// Polls a landing where it stands, as it is outside of tokio's budget: most are ready at once.
fn poll_first(
    mut future: BoxFuture<Result<Packed, Failure>>,
    hosted: Arc<Hosted>,
    output: &mut Vec<u8>,
) -> Landed {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let mut cx = Context::from_waker(Waker::noop());
        future.as_mut().poll(&mut cx)
    }));
    match polled {
        Ok(Poll::Pending) => Landed::Waiting {
            future,
            hosted: Some(hosted),
        },
        Ok(Poll::Ready(Ok(_))) if hosted.is_taken() => Landed::Waiting {
            future: Box::pin(ready(Ok(Packed::nil()))),
            hosted: Some(hosted),
        },
        Ok(Poll::Ready(Ok(packed))) => {
            let (bytes, handles) = packed.into_parts();
            output.extend_from_slice(&bytes);
            Landed::Done(handles)
        }
        Ok(Poll::Ready(Err(failure))) => failed(failure),
        Err(panic) => failed(panicked(&*panic)),
    }
}
