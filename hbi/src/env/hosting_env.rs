//! Building a hosting environment: what a peer shall find on this side.

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::Arc};

use serde::Serialize;

use super::{
    AsyncFunction, Bounds, Constructor, Environment, Function, IntoFailure, Kept, Layer, Reactive,
    Service,
    environment::{Artifact, Hooks},
    function::{self, Exposed},
    layer::Layers,
};
use crate::{
    Error, Kind, PostingEnd, Result,
    endpoint::{BoxFuture, Carried},
    script::refuse_name,
    value::{Handles, Packed},
};

/// What a peer finds on this side of a connection: services, functions, constructors, values and
/// objects, by name.
///
/// One environment belongs to one connection. A name taken twice is an error of `connect` or
/// `serve`, which says which.
///
/// ```
/// let env = hbi::HostingEnv::new()
///     .function("double", |n: i64| n * 2)
///     .async_function("later", |n: i64| async move { n + 1 })
///     .value("greeting", "hello");
/// # drop(env);
/// ```
#[must_use]
#[derive(Default)]
pub struct HostingEnv {
    services: Vec<Arc<dyn Service>>,
    artifacts: BTreeMap<String, Artifact>,
    hooks: Hooks,
    bounds: Bounds,
    layers: Vec<Arc<dyn Layer>>,
    withhold: bool,
    kept: Kept,
    problem: Option<String>,
}

impl fmt::Debug for HostingEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.iter().map(|s| s.table().name).collect();
        f.debug_struct("HostingEnv")
            .field("services", &services)
            .field("artifacts", &self.artifacts.keys())
            .finish_non_exhaustive()
    }
}

impl HostingEnv {
    /// An environment that exposes nothing but its description.
    pub fn new() -> Self {
        Self::default()
    }

    /// Exposes a service: its methods stand under its name, or on their own where it is flat.
    pub fn service(mut self, service: impl Service) -> Self {
        let table = service.table();
        if table.name.is_empty() {
            for method in table.methods {
                self.claim(method.name);
            }
        } else {
            self.claim(table.name);
        }
        self.services.push(Arc::new(service));
        self
    }

    /// Exposes a function. One that returns a `Result` answers with that as a value: for one whose
    /// `Err` shall be the caller's error there is [`Self::try_function`].
    pub fn function<A, F>(self, name: &str, function: F) -> Self
    where
        F: Function<A, Output: Serialize + 'static>,
        A: 'static,
    {
        self.expose(name, function::plain(function))
    }

    /// Exposes a function that may fail with an error of its own.
    pub fn try_function<A, F, T, E>(self, name: &str, function: F) -> Self
    where
        F: Function<A, Output = Result<T, E>>,
        A: 'static,
        T: Serialize + 'static,
        E: IntoFailure + 'static,
    {
        self.expose(name, function::fallible(function))
    }

    /// Exposes an async function.
    pub fn async_function<A, F>(self, name: &str, function: F) -> Self
    where
        F: AsyncFunction<A, Answer: Serialize + Send + 'static>,
        A: 'static,
    {
        self.expose(name, function::asynchronous(function))
    }

    /// Exposes an async function that may fail with an error of its own.
    pub fn try_async_function<A, F, T, E>(self, name: &str, function: F) -> Self
    where
        F: AsyncFunction<A, Answer = Result<T, E>>,
        A: 'static,
        T: Serialize + Send + 'static,
        E: IntoFailure + 'static,
    {
        self.expose(name, function::asynchronous_fallible(function))
    }

    fn expose(mut self, name: &str, exposed: impl Exposed + 'static) -> Self {
        self.claim(name);
        self.artifacts
            .insert(name.to_owned(), Artifact::Function(Arc::new(exposed)));
        self
    }

    /// Exposes the constructor of a type that derives `hbi::Value`, under the type's name.
    pub fn constructor<T: Constructor>(mut self) -> Self {
        self.claim(T::NAME);
        let constructor =
            Artifact::Constructor(Arc::new(function::Constructs::<T>(PhantomData)), T::FIELDS);
        self.artifacts.insert(T::NAME.to_owned(), constructor);
        self
    }

    /// Exposes a value.
    pub fn value<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        self.claim(name);
        match Packed::pack(value) {
            Ok(packed) if packed.handles().is_empty() => {
                self.artifacts
                    .insert(name.to_owned(), Artifact::Value(packed.into_parts().0));
            }
            Ok(_) => self.problem(format!("value `{name}` holds a stream or reactor")),
            Err(error) => self.problem(format!("value `{name}` does not pack: {error}")),
        }
        self
    }

    /// Exposes an object by reference: scripts call its methods, as in `room.say("hi")`.
    pub fn reactor(mut self, name: &str, object: impl Service) -> Self {
        self.claim(name);
        let object = Arc::new(Reactive::new(Arc::new(object)));
        self.artifacts
            .insert(name.to_owned(), Artifact::Object(object));
        self
    }

    /// Runs once the connection is up: not where the peer refuses this side. It starts before anything
    /// of the peer lands; once it waits, that may begin.
    pub fn on_connect<F>(mut self, hook: impl FnOnce(PostingEnd) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.hooks.connect = Some(Box::new(|po| Box::pin(hook(po)) as BoxFuture<()>));
        self
    }

    /// Runs once the connection is gone that was up, with why.
    pub fn on_disconnect(mut self, hook: impl FnOnce(&Error) + Send + 'static) -> Self {
        self.hooks.disconnect = Some(Box::new(hook));
        self
    }

    /// Hears of failures that nobody waits for: of notifications, of scripts that land for their
    /// effect, of hooks that panic. Without it each is a `tracing` event, and so is a panic of this hook.
    pub fn on_error(mut self, hook: impl Fn(Error) + Send + Sync + 'static) -> Self {
        self.hooks.error = Some(Arc::new(hook));
        self
    }

    /// Hears what scripts `print`. Without it each line is a `tracing` event. A panic of it is one, too.
    pub fn on_print(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.hooks.print = Some(Arc::new(hook));
        self
    }

    /// Puts a layer around every hosted call: it sees the call before and after, and may refuse it.
    /// The one that is put first is the outermost.
    pub fn layer(mut self, layer: impl Layer) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// Bounds each landing. The default suits strangers.
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Keeps the description of what is exposed from the peer: there is no `describe` then, and errors of
    /// unknown names do not say what there is.
    pub fn withhold_description(mut self) -> Self {
        self.withhold = true;
        self
    }

    /// The values that the peer keeps in this environment with `env.name = value`, for services that
    /// look at them.
    pub fn kept(&self) -> Kept {
        self.kept.clone()
    }

    fn claim(&mut self, name: &str) {
        if let Some(why) = refuse_name(name) {
            self.problem(why);
        } else if name == "env" {
            self.problem("`env` is where peers keep values, it cannot be exposed".to_owned());
        }
        let taken = self.artifacts.contains_key(name)
            || self.services.iter().any(|service| {
                let table = service.table();
                if table.name.is_empty() {
                    table.find(name).is_some()
                } else {
                    table.name == name
                }
            });
        if taken {
            self.problem(format!("the name `{name}` is exposed twice"));
        }
    }

    fn problem(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    /// The environment of one connection.
    pub(crate) fn build(self) -> Result<(Arc<Environment>, Hooks)> {
        let describes = !self.withhold;
        self.built(describes)
    }

    /// What stands before the environment of a connection, in one of its conversations.
    pub(super) fn build_beside(mut self) -> Result<Arc<Environment>> {
        if !self.layers.is_empty() {
            self.problem(
                "layers see what is beside the connection's environment, too: put them around that"
                    .to_owned(),
            );
        }
        // of the description there is one, the connection's
        Ok(self.built(false)?.0)
    }

    fn built(self, describes: bool) -> Result<(Arc<Environment>, Hooks)> {
        if let Some(problem) = self.problem {
            return Err(Error::new(
                Kind::Misuse,
                format!("the hosting environment: {problem}"),
            ));
        }
        let mut hooks = self.hooks;
        // in the order of their names
        let mut artifacts: Vec<_> = self.artifacts.into_iter().collect();
        if describes
            && let Err(place) = artifacts.binary_search_by(|(name, _)| (**name).cmp("describe"))
        {
            artifacts.reserve_exact(1);
            artifacts.insert(place, ("describe".to_owned(), Artifact::Describe));
        }
        let (error, print) = (hooks.error.take(), hooks.print.take());
        let mut env = Environment::new(
            self.services,
            artifacts,
            self.bounds,
            Layers::new(self.layers, error.as_ref()),
            error,
            print,
        );
        env.kept = self.kept;
        env.withheld = self.withhold;
        Ok((Arc::new(env), hooks))
    }
}

impl Artifact {
    /// The value of a name that is not a call.
    pub(super) fn value(&self) -> Option<Packed> {
        match self {
            Artifact::Value(bytes) => Some(Packed::from_parts(bytes.clone(), Handles::new())),
            Artifact::Object(object) => Some(Packed::of_handle(Box::new(Carried::Object(
                Arc::clone(object) as _,
            )))),
            _ => None,
        }
    }
}
