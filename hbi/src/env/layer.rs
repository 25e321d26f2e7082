//! Layers around hosting: what an application does before and after each hosted call.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    environment::{ErrorHook, unheard},
    incoming::{failed, panic_text},
};
use crate::{
    Error, Failure, Kind, Result,
    endpoint::{Caller, Hosted, Landed},
};

/// Sees every hosted call before it runs and once it is over: for logging, metrics, rate limits,
/// authorisation. It is put around an environment with
/// [`HostingEnv::layer`](crate::HostingEnv::layer).
///
/// Every call is seen, whichever way it comes: from a stub, as a part of a composition, out of a
/// script, to a method of an object, from a script that a hosted conversation sends back. Reading an
/// exposed value is no call.
///
/// Both methods run where the call lands, on the task that serves the whole connection: they must
/// not block. A panic in [`before`](Self::before) refuses the call with an error of
/// [`Kind::Panic`](crate::Kind::Panic), one in [`after`](Self::after) is told to
/// [`HostingEnv::on_error`](crate::HostingEnv::on_error).
///
/// # Why it is not tower's
/// A tower `Service` answers each request with a future of its own, and is asked whether it is ready
/// first. Most hosted calls have neither: they are decoded, run and answered in place, out of the
/// buffer they came in, without a task or an allocation, and what a connection takes is bounded
/// already. A `Service` around them would cost every call what only slow ones need. Where there is
/// no layer, a call pays one branch for this.
///
/// # Example
/// ```
/// use std::{sync::atomic::{AtomicUsize, Ordering}, sync::Arc, time::Duration};
/// use hbi::{Error, HostedCall, HostingEnv, Layer, testing};
///
/// /// Counts calls, and lets nobody reboot.
/// struct Guard(Arc<AtomicUsize>);
///
/// impl Layer for Guard {
///     fn before(&self, call: &HostedCall) -> hbi::Result<()> {
///         match call.name() {
///             "reboot" => Err(Error::refusal("only the console may do that")),
///             _ => Ok(()),
///         }
///     }
///
///     fn after(&self, call: &HostedCall, outcome: Result<(), &Error>, took: Duration) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         println!("{}: {} in {took:?}", call.name(), if outcome.is_ok() { "ok" } else { "failed" });
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let calls = Arc::new(AtomicUsize::new(0));
/// let server = HostingEnv::new()
///     .layer(Guard(Arc::clone(&calls)))
///     .function("double", |n: i64| n * 2)
///     .function("reboot", || ());
/// let pair = testing::pair(server, HostingEnv::new()).await?;
///
/// let four: i64 = pair.client.script("double(n)").bind("n", 2).await?;
/// assert_eq!(four, 4);
/// let refused: hbi::Result<()> = pair.client.script("reboot()").await;
/// assert!(refused.unwrap_err().is_refused());
/// // a call that a layer refuses is not its own any more
/// assert_eq!(calls.load(Ordering::Relaxed), 1);
/// # Ok::<(), hbi::Error>(()) }).unwrap();
/// ```
pub trait Layer: Send + Sync + 'static {
    /// A call is about to run. By default it may.
    ///
    /// # Errors
    /// To refuse it: that is the caller's error then, and neither layers further in nor the method
    /// hear of the call. [`Error::refusal`] makes one.
    fn before(&self, call: &HostedCall) -> Result<()> {
        let _ = call;
        Ok(())
    }

    /// A call that this layer let pass is over, by itself or because a layer further in refused it.
    ///
    /// `outcome` is the error that the caller gets, and one of
    /// [`Kind::Cancelled`](crate::Kind::Cancelled) where the call was dropped before its end: its
    /// caller let go of it, its time ran out, or the connection is gone. `took` is the time since
    /// before the first layer, on tokio's clock. A call that answers with a stream is over once it
    /// has answered, one that takes the conversation when its method ends.
    fn after(&self, call: &HostedCall, outcome: Result<(), &Error>, took: Duration) {
        let _ = (call, outcome, took);
    }
}

/// A hosted call, as a [`Layer`] sees it.
pub struct HostedCall {
    name: String,
    arguments: usize,
    caller: Caller,
}

impl fmt::Debug for HostedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostedCall({}, {} bytes)", self.name, self.arguments)
    }
}

impl HostedCall {
    /// What is called, as it is exposed: `chat::say`, `double`. A method of an object goes by the name
    /// of its service.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of the arguments in bytes, as they travelled.
    pub fn arguments(&self) -> usize {
        self.arguments
    }

    /// Who calls: address, identity, deadline, nesting, trace.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// The layers of one environment, the outermost first.
pub(super) struct Layers {
    layers: Vec<Arc<dyn Layer>>,
    error: Option<ErrorHook>,
}

impl Layers {
    /// `None` where there are none.
    pub(super) fn new(layers: Vec<Arc<dyn Layer>>, error: Option<&ErrorHook>) -> Option<Arc<Self>> {
        let error = error.cloned();
        (!layers.is_empty()).then(|| Arc::new(Self { layers, error }))
    }

    /// Lands a call within the layers.
    pub(super) fn around(
        self: &Arc<Self>,
        name: String,
        arguments: usize,
        hosted: Arc<Hosted>,
        land: impl FnOnce() -> Landed,
    ) -> Landed {
        let current = hosted.current();
        let mut under_way = UnderWay {
            layers: Arc::clone(self),
            call: HostedCall {
                name,
                arguments,
                caller: Caller::new(hosted),
            },
            began: Instant::now(),
            passed: 0,
        };
        if let Err(failure) = current.scope(|| under_way.enter()) {
            under_way.over(Err(&failure));
            return failed(failure);
        }
        match land() {
            Landed::Waiting { future, hosted } => {
                let future = Box::pin(async move {
                    let mut under_way = under_way;
                    let answer = future.await;
                    under_way.over(answer.as_ref().map(|_| ()));
                    answer
                });
                Landed::Waiting { future, hosted }
            }
            landed => {
                let outcome = match &landed {
                    Landed::Failed(failure) => Err(&**failure),
                    _ => Ok(()),
                };
                current.scope(|| under_way.over(outcome));
                landed
            }
        }
    }
}

/// A call that layers let pass, and that is not over.
struct UnderWay {
    layers: Arc<Layers>,
    call: HostedCall,
    began: Instant,
    /// How many layers let it pass, and did not hear of its end.
    passed: usize,
}

impl UnderWay {
    fn enter(&mut self) -> Result<(), Failure> {
        for layer in &self.layers.layers {
            match catch_unwind(AssertUnwindSafe(|| layer.before(&self.call))) {
                Ok(Ok(())) => self.passed += 1,
                Ok(Err(error)) => return Err(Failure::from(error).at(&self.call.name)),
                Err(panic) => return Err(panicked(&*panic).at(&self.call.name)),
            }
        }
        Ok(())
    }

    /// Tells the layers, the innermost first.
    fn over(&mut self, outcome: Result<(), &Failure>) {
        let took = self.began.elapsed();
        let error = outcome.err().map(|failure| Error::from(failure.clone()));
        while let Some(next) = self.passed.checked_sub(1) {
            self.passed = next;
            let outcome = error.as_ref().map_or(Ok(()), Err);
            let after = || self.layers.layers[next].after(&self.call, outcome, took);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(after)) {
                unheard(
                    self.layers.error.as_ref(),
                    panicked(&*panic).at(&self.call.name),
                );
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.passed > 0 {
            self.over(Err(&Failure::new(
                Kind::Cancelled,
                "the call was dropped before its end",
            )));
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    Failure::new(
        Kind::Panic,
        format!("a layer panicked: {}", panic_text(panic)),
    )
}
