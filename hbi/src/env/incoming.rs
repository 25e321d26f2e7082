//! A call on its way into a method: decoding arguments, polling the method where it stands, and
//! packing its answer.

use std::{
    any::{Any, TypeId},
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    ptr,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Method, Param, Table, unchecked::Slot};
use crate::{
    Error, Failure, Kind,
    endpoint::{Caller, Current, HoCo, Hosted, Landed, Origin, Receiving},
    value::{
        Dialect, Handles, Packed, ValueError, array_parts, integer, is_constructed, literal,
        pack_into, pack_literal_into, pack_written, unpack_from,
    },
};

/// A call of a hosted method or function. What it is made of stays where it was put together: it is
/// handed on several times.
#[derive(Debug)]
pub struct Incoming<'a>(pub(super) &'a mut Parts<'a>);

/// What a call of a hosted method or function is made of.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) callee: Callee<'a>,
    pub(super) arguments: &'a [u8],
    pub(super) handles: Handles,
    pub(super) output: &'a mut Vec<u8>,
    pub(super) origin: &'a Origin<'a>,
    /// The conversation, where the landing shares it already.
    pub(super) hosted: Option<Arc<Hosted>>,
    /// The answer goes to the peer as a literal.
    pub(super) literal: Option<Dialect>,
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub(super) enum Callee<'a> {
    Method(&'static Table, &'static Method),
    Function(&'a str),
}

impl Callee<'_> {
    #[inline]
    fn params(self) -> &'static [Param] {
        match self {
            Callee::Method(_, method) => method.params,
            Callee::Function(_) => &[],
        }
    }

    #[inline]
    fn is_parallel(self) -> bool {
        matches!(self, Callee::Method(_, method) if method.parallel)
    }

    /// Where its futures stand; methods of one table lie next to each other.
    #[inline]
    fn slot(self) -> Slot {
        Slot::new(match self {
            Callee::Method(_, method) => ptr::from_ref(method).addr() / size_of::<Method>(),
            // allocators place names so far apart at least
            Callee::Function(name) => name.as_ptr().addr() / align_of::<u128>(),
        })
    }

    pub(super) fn full_name(self) -> String {
        match self {
            Callee::Method(table, method) => full_name(table.name, method.name),
            Callee::Function(name) => name.to_owned(),
        }
    }
}

/// The arguments of a call, taken one by one.
#[derive(Debug)]
pub struct Args<'a> {
    rest: &'a [u8],
    handles: &'a mut Handles,
    params: &'static [Param],
    taken: usize,
    given: usize,
}

impl<'a> Args<'a> {
    #[inline]
    fn new(
        arguments: &'a [u8],
        handles: &'a mut Handles,
        params: &'static [Param],
    ) -> Result<Self, Failure> {
        let (given, rest) = array_parts(arguments)
            .ok_or_else(|| Failure::new(Kind::Arguments, "the arguments are no list"))?;
        Ok(Self {
            rest,
            handles,
            params,
            taken: 0,
            given,
        })
    }

    /// The next argument. Not an iterator's: each may be of another type.
    ///
    /// # Errors
    /// When there is none, or it is not a `T`.
    #[expect(
        clippy::should_implement_trait,
        reason = "the types differ from one to the next"
    )]
    #[inline]
    pub fn next<T: DeserializeOwned + 'static>(&mut self) -> Result<T, Failure> {
        if self.taken < self.given
            && let Some(integer) = integer::unpack(&mut self.rest)
        {
            self.taken += 1;
            return Ok(integer);
        }
        self.next_any()
    }

    fn next_any<T: DeserializeOwned + 'static>(&mut self) -> Result<T, Failure> {
        if self.taken == self.given {
            return Err(self.missing());
        }
        let value = unpack_from(&mut self.rest, self.handles);
        self.taken += 1;
        value.map_err(|error| {
            let text = match self.params.get(self.taken - 1) {
                Some(Param { name, ty }) => {
                    format!("argument {} (`{name}: {ty}`): {error}", self.taken)
                }
                None => format!("argument {}: {error}", self.taken),
            };
            Failure::new(Kind::Arguments, text)
        })
    }

    #[cold]
    fn missing(&self) -> Failure {
        Failure::new(Kind::Arguments, wrong_count(self.given, self.params))
    }

    #[inline]
    fn end(&self) -> Result<(), Failure> {
        if self.taken == self.given {
            return match self.rest.is_empty() {
                true => Ok(()),
                false => Err(left_over(self.rest.len())),
            };
        }
        Err(match self.params.len() {
            0 => Failure::new(
                Kind::Arguments,
                format!("{} arguments given, {} expected", self.given, self.taken),
            ),
            _ => self.missing(),
        })
    }
}

#[cold]
fn left_over(bytes: usize) -> Failure {
    let text = format!("{bytes} bytes left over after the arguments");
    Failure::new(Kind::Arguments, text)
}

fn wrong_count(given: usize, params: &[Param]) -> String {
    let list: Vec<_> = params
        .iter()
        .map(|p| format!("{}: {}", p.name, p.ty))
        .collect();
    format!(
        "{given} argument{} given, {} expected: ({})",
        if given == 1 { "" } else { "s" },
        params.len(),
        list.join(", ")
    )
}

/// What a method may end with in place of its value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a method",
    label = "errors travel and are shown, so this needs `serde::Serialize`, `serde::Deserialize` and `Display`",
    note = "where the method has no error type of its own, let it return `hbi::Result<T>`"
)]
pub trait IntoFailure {
    /// The failure as it travels.
    fn into_failure(self) -> Failure;

    /// The failure as a literal, where it has one that names its type.
    fn to_literal(&self, _dialect: Dialect) -> Option<String> {
        None
    }
}

impl IntoFailure for Error {
    fn into_failure(self) -> Failure {
        self.into()
    }
}

#[diagnostic::do_not_recommend]
impl<E: Serialize + fmt::Display> IntoFailure for E {
    fn into_failure(self) -> Failure {
        let mut failure = Failure::new(Kind::App, self.to_string());
        let why = match Packed::pack(&self) {
            Ok(packed) if packed.handles().is_empty() => {
                failure.payload = Some(packed.into_parts().0);
                return failure;
            }
            Ok(_) => "an error carries no stream and no object".to_owned(),
            Err(error) => error.to_string(),
        };
        let text = format!(" (the error itself does not pack: {why})");
        failure.message.push_str(&text);
        failure
    }

    fn to_literal(&self, dialect: Dialect) -> Option<String> {
        if !is_constructed(self) {
            return None;
        }
        literal(self, dialect).ok()
    }
}

/// A method's own error, on its way.
fn own_error<E: IntoFailure>(error: E, dialect: Option<Dialect>) -> Failure {
    let literal = dialect.and_then(|dialect| error.to_literal(dialect));
    let mut failure = error.into_failure();
    failure.literal = literal;
    failure
}

impl Incoming<'_> {
    /// A method that answers with its future's value.
    pub fn value<A, T, F>(
        self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(A) -> F,
    ) -> Landed
    where
        T: Serialize + Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.drive(decode, run, |answer, _| Ok(answer))
    }

    /// A method that answers with its future's value, or its own error.
    pub fn result<A, T, E, F>(
        self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(A) -> F,
    ) -> Landed
    where
        T: Serialize + Send + 'static,
        E: IntoFailure + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.drive(decode, run, |answer, dialect| {
            answer.map_err(|error| own_error(error, dialect))
        })
    }

    /// A method that answers nothing.
    pub fn effect<A, F>(
        self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(A) -> F,
    ) -> Landed
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.drive(decode, run, |answer, _| Ok(answer))
    }

    /// A method that takes the conversation.
    pub fn converse<A, F>(
        mut self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(HoCo<Receiving>, A) -> F,
    ) -> Landed
    where
        F: Future<Output = crate::Result<()>> + Send + 'static,
    {
        let arguments = match guarded(|| self.decoded(decode)) {
            Ok(arguments) => arguments,
            Err(failure) => return failed(self.named(failure)),
        };
        let hosted = self.hosted();
        let co = match hosted.take() {
            Ok(co) => co,
            Err(failure) => return failed(self.named(failure)),
        };
        let run = match catch_unwind(AssertUnwindSafe(|| run(co, arguments))) {
            Ok(future) => future,
            Err(panic) => return failed(self.named(panicked(&*panic))),
        };
        let name = self.0.callee.full_name();
        let future = Box::pin(async move {
            match Guarded(Box::pin(run)).await {
                Ok(Ok(())) => Ok(Packed::nil()),
                Ok(Err(error)) => Err(Failure::from(error).at(&name)),
                Err(failure) => Err(failure.at(&name)),
            }
        });
        Landed::Waiting {
            future,
            hosted: Some(hosted),
        }
    }

    /// A method without a future, that answers with its value.
    pub fn value_now<A, T: Serialize + 'static>(
        self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(A) -> T,
    ) -> Landed {
        self.now(decode, run, |answer, _| Ok(answer))
    }

    /// A method without a future, that answers with its value or its own error.
    pub fn result_now<A, T: Serialize + 'static, E: IntoFailure>(
        self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(A) -> Result<T, E>,
    ) -> Landed {
        self.now(decode, run, |answer, dialect| {
            answer.map_err(|error| own_error(error, dialect))
        })
    }

    /// A method without a future, that answers nothing.
    pub fn effect_now<A>(
        self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(A),
    ) -> Landed {
        self.now(decode, run, |answer, _| Ok(answer))
    }

    /// Who calls, for a method that asks.
    pub fn caller(&mut self) -> Caller {
        Caller::new(self.hosted())
    }

    fn hosted(&mut self) -> Arc<Hosted> {
        Arc::clone(self.0.hosted.get_or_insert_with(|| self.0.origin.hosted()))
    }

    /// The arguments. The application's code may panic.
    #[inline(always)]
    fn decoded<A>(
        &mut self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
    ) -> Result<A, Failure> {
        let callee = self.0.callee;
        let mut args = Args::new(self.0.arguments, &mut self.0.handles, callee.params())?;
        let arguments = decode(&mut args)?;
        args.end()?;
        Ok(arguments)
    }

    fn named(&self, failure: Failure) -> Failure {
        failure.at(&self.0.callee.full_name())
    }

    fn drive<A, T, R, F>(
        mut self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(A) -> F,
        outcome: impl Fn(R, Option<Dialect>) -> Result<T, Failure> + Send + 'static,
    ) -> Landed
    where
        T: Serialize + Send + 'static,
        F: Future<Output = R> + Send + 'static,
        R: 'static,
    {
        let (parallel, literal) = (self.0.callee.is_parallel(), self.0.literal);
        let slot = self.0.callee.slot();
        // the method is polled here first: most are ready at once, and need no task
        let landed = self.guarded(|call, handles| {
            let arguments = call.decoded(decode)?;
            if parallel {
                return Ok(Some(Box::pin(run(arguments))));
            }
            let mut future = slot.place(|| run(arguments));
            let mut cx = Context::from_waker(Waker::noop());
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(value) => {
                    slot.keep(future);
                    call.answer(handles, &outcome(value, literal)?)?;
                    Ok(None)
                }
                Poll::Pending => Ok(Some(future)),
            }
        });
        let future = match landed {
            Ok((None, handles)) => return Landed::Done(handles),
            Ok((Some(future), _)) => future,
            Err(failure) => return Landed::Failed(failure),
        };
        let name = self.0.callee.full_name();
        let future = Box::pin(async move {
            let answer = Guarded(future).await;
            let answer = answer.and_then(|answer| guarded(|| outcome(answer, literal)));
            let packed = answer.and_then(|value| pack(value, literal));
            packed.map_err(|failure| failure.at(&name))
        });
        Landed::Waiting {
            future,
            hosted: self.0.hosted.take(),
        }
    }

    fn now<A, T: Serialize + 'static, R>(
        mut self,
        decode: impl FnOnce(&mut Args<'_>) -> Result<A, Failure>,
        run: impl FnOnce(A) -> R,
        outcome: impl FnOnce(R, Option<Dialect>) -> Result<T, Failure>,
    ) -> Landed {
        let literal = self.0.literal;
        let landed = self.guarded(|call, handles| {
            let arguments = call.decoded(decode)?;
            call.answer(handles, &outcome(run(arguments), literal)?)
        });
        match landed {
            Ok(((), handles)) => Landed::Done(handles),
            Err(failure) => Landed::Failed(failure),
        }
    }

    /// Packs the answer.
    fn answer<T: Serialize + 'static>(
        &mut self,
        handles: &mut Handles,
        value: &T,
    ) -> Result<(), Failure> {
        pack_answer(self.0.output, handles, value, self.0.literal).map_err(Failure::from)
    }

    /// Runs what is the application's: its types' `Deserialize` and `Serialize`, and its methods, any of
    /// which may panic.
    fn guarded<T>(
        &mut self,
        land: impl FnOnce(&mut Self, &mut Handles) -> Result<T, Failure>,
    ) -> Result<(T, Handles), Box<Failure>> {
        let mut handles = Handles::new();
        let from = self.0.output.len();
        let origin = self.0.origin;
        let landed = origin
            .current
            .scope(|| catch_unwind(AssertUnwindSafe(|| land(self, &mut handles))));
        let failure = match landed {
            Ok(Ok(value)) => return Ok((value, handles)),
            Ok(Err(failure)) => failure,
            Err(panic) => panicked(&*panic),
        };
        self.0.output.truncate(from);
        Err(Box::new(self.named(failure)))
    }
}

/// The name of a method in scripts.
pub(super) fn full_name(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}::{name}")
    }
}

/// Packs what a method answers. What answers nothing at all is an empty literal.
#[inline(always)]
fn pack_answer<T: Serialize + 'static>(
    out: &mut Vec<u8>,
    handles: &mut Handles,
    value: &T,
    literal: Option<Dialect>,
) -> Result<(), ValueError> {
    match literal {
        None => pack_into(out, handles, value),
        Some(_) if TypeId::of::<T>() == TypeId::of::<()>() => pack_written(out, ""),
        Some(dialect) => pack_literal_into(out, handles, value, dialect),
    }
}

/// Packs what a method answered, and drops it.
fn pack<T: Serialize + 'static>(value: T, literal: Option<Dialect>) -> Result<Packed, Failure> {
    guarded(move || {
        let (mut bytes, mut handles) = (Vec::new(), Handles::new());
        pack_answer(&mut bytes, &mut handles, &value, literal)?;
        Ok(Packed::from_parts(bytes.into(), handles))
    })
}

pub(super) fn failed(failure: Failure) -> Landed {
    Landed::Failed(Box::new(failure))
}

/// Runs code of a user's type, its `Deserialize`, `Serialize`, `Display` or `Drop`, which may panic.
fn guarded<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// A future whose panics become failures.
pub(super) struct Guarded<F>(pub(super) Pin<Box<F>>);

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panicked(&*panic))),
        }
    }
}

/// What a panic said, as the failure that the caller gets.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic_text(panic);
    Failure::new(Kind::Panic, format!("the method panicked: {text}"))
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}

impl Current {
    pub(super) fn origin<'a>(self, hosted: &'a Hosted) -> Origin<'a> {
        Origin {
            link: hosted.link(),
            co: hosted.number(),
            current: self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_one_whole_list() {
        let ended = |bytes: &[u8]| {
            let mut handles = Handles::new();
            let mut args = Args::new(bytes, &mut handles, &[]).expect("it is a list");
            assert_eq!(args.next::<u8>(), Ok(1));
            args.end()
        };
        assert_eq!(ended(&[0x91, 1]), Ok(()));
        let over = ended(&[0x91, 1, 0xc1]).unwrap_err();
        assert_eq!(over.kind, Kind::Arguments);
        assert!(over.message.contains("1 bytes left over"), "{over}");
    }
}
