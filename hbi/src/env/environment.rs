//! The environment of one connection: what names mean, and the values that the peer keeps in it.

#![cfg_attr(
    not(feature = "script"),
    allow(dead_code, reason = "only scripts keep values and print")
)]

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;

#[cfg(feature = "script")]
use super::script::Room;
use super::{
    Bounds, Incoming, Kept, Method, Outcome, Reactive, Service, Table, describe,
    function::Exposed,
    incoming::{Callee, Parts, failed, full_name, panic_text},
    layer::Layers,
    share::Pool,
    uncancelled::{self, Uncancelled},
};
use crate::{
    Error, Failure, Kind, PostingEnd,
    endpoint::{BoxFuture, Carried, Hosted, Landed, unbudgeted},
    value::{Dialect, Handles, Packed},
};

/// What a name stands for.
pub(super) enum Artifact {
    Function(Arc<dyn Exposed>),
    Constructor(Arc<dyn Exposed>, &'static [&'static str]),
    Value(Bytes),
    Object(Arc<Reactive>),
    Describe,
}

pub(super) type ConnectHook = Box<dyn FnOnce(PostingEnd) -> BoxFuture<()> + Send>;
pub(super) type DisconnectHook = Box<dyn FnOnce(&Error) + Send>;
pub(super) type ErrorHook = Arc<dyn Fn(Error) + Send + Sync>;
pub(super) type PrintHook = Arc<dyn Fn(&str) + Send + Sync>;

/// What the application wants to hear of.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(super) connect: Option<ConnectHook>,
    pub(super) disconnect: Option<DisconnectHook>,
    pub(super) error: Option<ErrorHook>,
    pub(super) print: Option<PrintHook>,
}

/// The environment of one connection.
pub(crate) struct Environment {
    pub(super) services: Vec<Arc<dyn Service>>,
    /// In the order of their names.
    pub(super) artifacts: Vec<(String, Artifact)>,
    pub(super) bounds: Bounds,
    layers: Option<Arc<Layers>>,
    pub(super) error: Option<ErrorHook>,
    print: Option<PrintHook>,
    pub(super) kept: Kept,
    /// The peer is not told what there is.
    pub(super) withheld: bool,
    /// What all scripts of the connection may hold.
    pool: Pool,
    /// Methods of the connection that run to their end.
    uncancelled: Uncancelled,
    /// Where scripts that run or wait find room.
    #[cfg(feature = "script")]
    room: Arc<Room>,
    /// Of one conversation's environment: what stands before, and what behind it.
    over: Option<(Arc<Environment>, Arc<Environment>)>,
}

/// Where a name leads to a call.
#[derive(Clone)]
pub(super) enum Target {
    /// A method, and its place in the table of its service.
    Method(Arc<dyn Service>, usize, &'static Table, &'static Method),
    Function(String, Arc<dyn Exposed>),
    Describe,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("artifacts", &self.artifacts.len())
            .finish_non_exhaustive()
    }
}

impl Environment {
    pub(super) fn new(
        services: Vec<Arc<dyn Service>>,
        artifacts: Vec<(String, Artifact)>,
        bounds: Bounds,
        layers: Option<Arc<Layers>>,
        error: Option<ErrorHook>,
        print: Option<PrintHook>,
    ) -> Self {
        let pool = Pool::new(bounds.connection_memory);
        Self {
            services,
            artifacts,
            #[cfg(feature = "script")]
            room: Arc::new(Room::new(bounds.fibers, pool.clone())),
            pool,
            uncancelled: Uncancelled::default(),
            bounds,
            layers,
            error,
            print,
            kept: Kept::default(),
            withheld: false,
            over: None,
        }
    }

    /// The environment of one conversation: its own names stand before those of the connection.
    pub(super) fn over(own: Arc<Environment>, base: Arc<Environment>) -> Self {
        Self {
            services: Vec::new(),
            artifacts: Vec::new(),
            bounds: base.bounds.clone(),
            layers: base.layers.clone(),
            error: base.error.clone(),
            print: base.print.clone(),
            kept: base.kept.clone(),
            withheld: base.withheld,
            pool: base.pool.clone(),
            uncancelled: base.uncancelled.clone(),
            #[cfg(feature = "script")]
            room: Arc::clone(&base.room),
            over: Some((own, base)),
        }
    }

    /// What all scripts of the connection may hold.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Where scripts that run or wait find room.
    #[cfg(feature = "script")]
    pub(super) fn room(&self) -> Arc<Room> {
        Arc::clone(&self.room)
    }

    /// What is exposed under this name beside services.
    pub(super) fn artifact(&self, name: &str) -> Option<&Artifact> {
        let found = self
            .artifacts
            .binary_search_by(|(other, _)| (**other).cmp(name));
        found.ok().map(|place| &self.artifacts[place].1)
    }

    /// What a call of this name calls.
    pub(super) fn resolve(&self, name: &str) -> Option<Target> {
        if let Some((own, base)) = &self.over {
            return own.resolve(name).or_else(|| base.resolve(name));
        }
        let (namespace, method) = name.rsplit_once("::").unwrap_or(("", name));
        for service in &self.services {
            let table = service.table();
            if table.name == namespace
                && let Some(place) = table.find(method)
            {
                return Some(Target::method(service, place));
            }
        }
        match self.artifact(name)? {
            Artifact::Function(exposed) | Artifact::Constructor(exposed, _) => {
                Some(Target::Function(name.to_owned(), Arc::clone(exposed)))
            }
            Artifact::Describe => Some(Target::Describe),
            Artifact::Value(_) | Artifact::Object(_) => None,
        }
    }

    /// The failure of a name that is not there: what there is in its place.
    pub(super) fn unknown(&self, name: &str) -> Failure {
        unknown(name, &self.resembling(name))
    }

    /// Names like one that is not there: those of its namespace, or those spelt like it.
    pub(super) fn resembling(&self, name: &str) -> Vec<String> {
        if let Some((own, base)) = &self.over {
            let mut names = own.resembling(name);
            names.extend(base.resembling(name));
            return names;
        }
        if self.withheld {
            return Vec::new();
        }
        const MOST: usize = 12;
        let (namespace, _) = name.rsplit_once("::").unwrap_or(("", name));
        let mut names: Vec<String> = Vec::new();
        for service in &self.services {
            let table = service.table();
            if table.name == namespace {
                let methods = table.methods.iter().take(MOST);
                names.extend(methods.map(|method| full_name(table.name, method.name)));
            }
        }
        if names.is_empty() {
            let tables = self.services.iter().map(|service| service.table().name);
            names.extend(
                tables
                    .filter(|name| !name.is_empty())
                    .map(|name| format!("{name}::…")),
            );
        }
        if namespace.is_empty() {
            names.extend(self.artifacts.iter().map(|(name, _)| name.clone()));
        }
        names.truncate(MOST);
        names
    }

    /// An exposed value.
    pub(super) fn exposed(&self, name: &str) -> Option<Packed> {
        if let Some((own, base)) = &self.over {
            return own.exposed(name).or_else(|| base.exposed(name));
        }
        self.artifact(name)?.value()
    }

    /// An exposed value, or one that the peer keeps here.
    pub(super) fn get(&self, name: &str) -> Option<Packed> {
        self.exposed(name).or_else(|| self.kept.packed(name))
    }

    /// Keeps a value for the peer.
    pub(super) fn set(&self, name: &str, value: Packed) -> Result<(), Failure> {
        if let Some((_, base)) = &self.over {
            return base.set(name, value);
        }
        let exposed = self.artifact(name).is_some()
            || self.services.iter().any(|service| {
                let table = service.table();
                table.name == name || table.name.is_empty() && table.find(name).is_some()
            });
        if exposed {
            return Err(Failure::new(
                Kind::Refused,
                format!("`{name}` is exposed by the host and cannot be overwritten"),
            ));
        }
        self.kept.keep(name, value, self.bounds.memory)
    }

    /// Calls what a name stands for.
    pub(super) fn call(&self, name: &str, arguments: Packed, hosted: &Arc<Hosted>) -> Outcome {
        match self.resolve(name) {
            Some(target) => self.call_target(&target, arguments, hosted, None),
            None => Outcome::Ready(Err(self.unknown(name))),
        }
    }

    /// Calls a method of an object; the first argument is the object.
    pub(super) fn call_method(
        &self,
        object: Packed,
        method: &str,
        arguments: Packed,
        hosted: &Arc<Hosted>,
    ) -> Outcome {
        match self.method_of(object, method) {
            Ok(target) => self.call_target(&target, arguments, hosted, None),
            Err(failure) => Outcome::Ready(Err(failure)),
        }
    }

    /// A method of an object.
    pub(super) fn method_of(&self, object: Packed, method: &str) -> Result<Target, Failure> {
        let reactive = match object.into_handle().map(Carried::from_handle) {
            Ok(Some(Carried::Object(object))) => object.into_any().downcast::<Reactive>().ok(),
            Ok(Some(Carried::Missing(number))) => {
                return refuse(
                    Kind::Unknown,
                    format!("object {number} was not given out, or was released"),
                );
            }
            Ok(Some(Carried::Remote(_))) => {
                let text =
                    format!("`.{method}` of an object that the caller owns: call it where it is");
                return refuse(Kind::Misuse, text);
            }
            Ok(_) => None,
            Err(_) => None,
        };
        let Some(reactive) = reactive else {
            return refuse(
                Kind::Unknown,
                format!("`.{method}` of a value that is no reactor"),
            );
        };
        let table = reactive.service.table();
        let Some(place) = table.find(method) else {
            let mut text = format!("the reactor has no method `{method}`");
            if !self.withheld {
                let names: Vec<_> = table.methods.iter().map(|method| method.name).collect();
                text.push_str(&format!("; it has: {}", names.join(", ")));
            }
            return refuse(Kind::Unknown, text);
        };
        Ok(Target::method(&reactive.service, place))
    }

    pub(super) fn call_target(
        &self,
        target: &Target,
        arguments: Packed,
        hosted: &Arc<Hosted>,
        literal: Option<Dialect>,
    ) -> Outcome {
        let (bytes, handles) = arguments.into_parts();
        let mut output = Vec::new();
        let origin = &hosted.current().origin(hosted);
        let landed = {
            let mut parts = Parts {
                callee: target.callee(),
                arguments: &bytes,
                handles,
                output: &mut output,
                origin,
                hosted: Some(Arc::clone(hosted)),
                literal,
            };
            unbudgeted(|| target.land(self, &mut parts))
        };
        match landed {
            Landed::Done(handles) => Outcome::Ready(Ok(Packed::from_parts(output.into(), handles))),
            Landed::Failed(failure) => Outcome::Ready(Err(*failure)),
            Landed::Waiting { future, .. } => Outcome::Waiting(future),
        }
    }

    /// A failure that nobody waits for.
    pub(super) fn unheard(&self, failure: Failure) {
        unheard(self.error.as_ref(), failure);
    }

    /// What a script prints.
    pub(super) fn print(&self, line: &str) {
        match &self.print {
            Some(hook) => guard("on_print", || hook(line)),
            None => tracing::debug!(target: "hbi::script", "{line}"),
        }
    }
}

/// A failure that nobody waits for.
pub(super) fn unheard(hook: Option<&ErrorHook>, failure: Failure) {
    match hook {
        Some(hook) => guard("on_error", || hook(failure.into())),
        None => tracing::warn!(target: "hbi", %failure, "a failure that nobody waits for"),
    }
}

/// Runs a hook of the application. A panic of it ends nothing else: what it was told of goes on.
fn guard(name: &str, hook: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(hook)) {
        let panic = panic_text(&*panic);
        tracing::error!(target: "hbi", "the hook `{name}` panicked: {panic}");
    }
}

/// The failure of a name that is not there, with names like it that are.
pub(super) fn unknown(name: &str, similar: &[String]) -> Failure {
    let mut text = format!("`{name}` is not exposed by the peer");
    if !similar.is_empty() {
        text.push_str(&format!("; exposed there: {}", similar.join(", ")));
    }
    Failure::new(Kind::Unknown, text)
}

/// Answers what the environment has.
#[inline(never)]
fn describe(env: &Environment, output: &mut Vec<u8>) -> Landed {
    match Packed::pack(&describe::describe(env)) {
        Ok(packed) => {
            output.extend_from_slice(packed.bytes());
            Landed::Done(Handles::new())
        }
        Err(error) => failed(error.into()),
    }
}

fn refuse<T>(kind: Kind, text: String) -> Result<T, Failure> {
    Err(Failure::new(kind, text))
}

impl Target {
    /// The method at a place of a service's table.
    pub(super) fn method(service: &Arc<dyn Service>, place: usize) -> Self {
        let table = service.table();
        Target::Method(Arc::clone(service), place, table, &table.methods[place])
    }

    /// Lands a call.
    #[inline(always)]
    pub(super) fn land<'a>(&self, env: &Environment, parts: &'a mut Parts<'a>) -> Landed {
        match self {
            Target::Method(.., method) if !method.cancel => self.land_uncancelled(env, parts),
            _ => self.land_in_layers(env, parts),
        }
    }

    /// Lands a call of a method that runs to its end, also where it is a step of a script.
    #[inline(never)]
    fn land_uncancelled<'a>(&self, env: &Environment, parts: &'a mut Parts<'a>) -> Landed {
        let origin = parts.origin;
        let counted = match env.uncancelled.begin(origin.link.info().conversations) {
            Ok(counted) => counted,
            Err(failure) => return failed(failure.at(&self.name())),
        };
        match self.land_in_layers(env, parts) {
            Landed::Waiting { future, hosted } => {
                let hook = env.error.clone();
                let future = uncancelled::run(future, counted, origin.current, hook);
                Landed::Waiting { future, hosted }
            }
            landed => landed,
        }
    }

    /// Lands a call, within the layers of the environment.
    #[inline(always)]
    fn land_in_layers<'a>(&self, env: &Environment, parts: &'a mut Parts<'a>) -> Landed {
        match &env.layers {
            None => self.land_bare(env, parts),
            Some(layers) => self.land_within(layers, env, parts),
        }
    }

    #[inline(never)]
    fn land_within<'a>(
        &self,
        layers: &Arc<Layers>,
        env: &Environment,
        parts: &'a mut Parts<'a>,
    ) -> Landed {
        let arguments = parts.arguments.len();
        let hosted = parts.hosted.get_or_insert_with(|| parts.origin.hosted());
        layers.around(self.name(), arguments, Arc::clone(hosted), || {
            self.land_bare(env, parts)
        })
    }

    /// What it calls.
    #[inline]
    pub(super) fn callee(&self) -> Callee<'_> {
        match self {
            Target::Method(_, _, table, method) => Callee::Method(table, method),
            Target::Function(name, _) => Callee::Function(name),
            Target::Describe => Callee::Function("describe"),
        }
    }

    /// What it calls, as it is exposed.
    pub(super) fn name(&self) -> String {
        self.callee().full_name()
    }

    #[inline(always)]
    fn land_bare<'a>(&self, env: &Environment, parts: &'a mut Parts<'a>) -> Landed {
        match self {
            Target::Method(service, place, ..) => service.land(*place, Incoming(parts)),
            Target::Function(_, exposed) => exposed.land(Incoming(parts)),
            Target::Describe => describe(env, parts.output),
        }
    }
}
