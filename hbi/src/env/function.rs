//! Exposed functions: closures with typed arguments.

use std::{fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use super::{Args, Constructor, Incoming, IntoFailure};
use crate::{Data, Failure, endpoint::Landed};

/// A function that can be exposed: `Fn(A, B, ...) -> T` with up to eight arguments.
///
/// `A` is the tuple of its arguments.
pub trait Function<A>: Send + Sync + 'static {
    /// Its value.
    type Output;

    /// Calls it.
    fn call(&self, arguments: A) -> Self::Output;

    /// Decodes its arguments.
    ///
    /// # Errors
    /// When they do not fit.
    fn decode(args: &mut Args<'_>) -> Result<A, Failure>;
}

/// An async function that can be exposed: `Fn(A, B, ...) -> impl Future<Output = T>`.
pub trait AsyncFunction<A>:
    Function<A, Output: Future<Output = Self::Answer> + Send + 'static>
{
    /// Its future's value.
    type Answer;
}

impl<A, F> AsyncFunction<A> for F
where
    F: Function<A>,
    F::Output: Future + Send + 'static,
{
    type Answer = <F::Output as Future>::Output;
}

macro_rules! function {
    ($($arg:ident),*) => {
        impl<F, R, $($arg),*> Function<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> R + Send + Sync + 'static,
            $($arg: DeserializeOwned + Send + 'static,)*
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn call(&self, ($($arg,)*): ($($arg,)*)) -> R {
                self($($arg),*)
            }

            fn decode(_args: &mut Args<'_>) -> Result<($($arg,)*), Failure> {
                Ok(($(_args.next::<$arg>()?,)*))
            }
        }
    };
}
function!();
function!(A);
function!(A, B);
function!(A, B, C);
function!(A, B, C, D);
function!(A, B, C, D, E);
function!(A, B, C, D, E, G);
function!(A, B, C, D, E, G, H);
function!(A, B, C, D, E, G, H, I);

/// An exposed function of any type.
pub(super) trait Exposed: Send + Sync {
    /// Lands a call of it.
    fn land(&self, call: Incoming<'_>) -> Landed;

    /// Whether its last argument is data.
    fn takes_data(&self) -> bool {
        false
    }
}

impl fmt::Debug for dyn Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposed")
    }
}

/// A function with the way it lands, and whether its last argument is data.
pub(super) struct Landable<F, L>(F, L, bool);

/// Whether the last of a function's arguments is data.
fn takes_data<A>() -> bool {
    let arguments = std::any::type_name::<A>().trim_end_matches([')', ',']);
    arguments.ends_with(std::any::type_name::<Data>())
}

impl<F, L> Exposed for Landable<F, L>
where
    F: Send + Sync + 'static,
    L: Fn(&F, Incoming<'_>) -> Landed + Send + Sync + 'static,
{
    fn land(&self, call: Incoming<'_>) -> Landed {
        (self.1)(&self.0, call)
    }

    fn takes_data(&self) -> bool {
        self.2
    }
}

pub(super) fn plain<A, F>(function: F) -> impl Exposed
where
    F: Function<A, Output: Serialize + 'static>,
{
    Landable(
        function,
        |f: &F, call: Incoming<'_>| call.value_now(F::decode, |args| f.call(args)),
        takes_data::<A>(),
    )
}

pub(super) fn fallible<A, F, T, E>(function: F) -> impl Exposed
where
    F: Function<A, Output = Result<T, E>>,
    T: Serialize + 'static,
    E: IntoFailure + 'static,
{
    Landable(
        function,
        |f: &F, call: Incoming<'_>| call.result_now(F::decode, |args| f.call(args)),
        takes_data::<A>(),
    )
}

pub(super) fn asynchronous<A, F>(function: F) -> impl Exposed
where
    F: AsyncFunction<A, Answer: Serialize + Send + 'static>,
{
    Landable(
        function,
        |f: &F, call: Incoming<'_>| call.value(F::decode, |args| f.call(args)),
        takes_data::<A>(),
    )
}

pub(super) fn asynchronous_fallible<A, F, T, E>(function: F) -> impl Exposed
where
    F: AsyncFunction<A, Answer = Result<T, E>>,
    T: Serialize + Send + 'static,
    E: IntoFailure + 'static,
{
    Landable(
        function,
        |f: &F, call: Incoming<'_>| call.result(F::decode, |args| f.call(args)),
        takes_data::<A>(),
    )
}

/// A constructor: it makes a value of its arguments, which travels on as that value.
pub(super) struct Constructs<T>(pub(super) PhantomData<fn() -> T>);

impl<T: Constructor> Exposed for Constructs<T> {
    fn land(&self, call: Incoming<'_>) -> Landed {
        call.value_now(T::construct, |made| made)
    }
}
