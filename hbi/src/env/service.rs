//! What the macro makes of a trait: a static table of methods, and how each one lands.

use std::{collections::HashMap, sync::OnceLock};

use serde::{Serialize, de::DeserializeOwned};

use super::{Args, Incoming};
use crate::{Failure, endpoint::Landed};

/// How a method of a host lands: generated, one per method.
pub type Land<H> = for<'a> fn(&H, Incoming<'a>) -> Landed;

/// The hosting side of a service; generated code implements it for `CalcHost`.
pub trait Service: Send + Sync + 'static {
    /// The methods, the same for all objects of the type.
    fn table(&self) -> &'static Table;

    /// Lands a call of the method at this place of the table.
    fn land(&self, method: usize, call: Incoming<'_>) -> Landed;
}

/// The methods of a service.
#[derive(Debug)]
pub struct Table {
    /// The namespace in scripts; empty for a flat service.
    pub name: &'static str,
    /// The trait's documentation.
    pub docs: &'static str,
    /// The methods, in the order of the trait.
    pub methods: &'static [Method],
    /// Places by name, made at the first look.
    pub index: OnceLock<HashMap<&'static str, usize>>,
}

impl Table {
    /// A table.
    pub const fn new(name: &'static str, docs: &'static str, methods: &'static [Method]) -> Self {
        Self {
            name,
            docs,
            methods,
            index: OnceLock::new(),
        }
    }

    /// The place of a method.
    pub fn find(&self, name: &str) -> Option<usize> {
        let index = self.index.get_or_init(|| {
            self.methods
                .iter()
                .enumerate()
                .map(|(place, method)| (method.name, place))
                .collect()
        });
        index.get(name).copied()
    }
}

/// One method of a service.
#[derive(Debug)]
pub struct Method {
    /// Its name in scripts.
    pub name: &'static str,
    /// Its documentation.
    pub docs: &'static str,
    /// Its parameters, without the conversation and the caller.
    pub params: &'static [Param],
    /// The type of its answer, as it was written.
    pub returns: &'static str,
    /// How it answers.
    pub shape: Shape,
    /// Whether it is dropped at its next await when its caller wants no answer any more.
    pub cancel: bool,
    /// Whether it runs in a task of its own from the start.
    pub parallel: bool,
    /// Whether it may safely run twice.
    pub idempotent: bool,
}

impl Method {
    /// A method that answers with a value.
    pub const fn new(
        name: &'static str,
        docs: &'static str,
        params: &'static [Param],
        returns: &'static str,
    ) -> Self {
        let (shape, cancel, parallel, idempotent) = (Shape::Value, true, false, false);
        Self {
            name,
            docs,
            params,
            returns,
            shape,
            cancel,
            parallel,
            idempotent,
        }
    }

    /// The same method, of another shape.
    pub const fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// The same method, that runs to its end whatever its caller does.
    pub const fn no_cancel(mut self) -> Self {
        self.cancel = false;
        self
    }

    /// The same method, in a task of its own from the start.
    pub const fn parallel(mut self) -> Self {
        self.parallel = true;
        self
    }

    /// The same method, that may safely run twice.
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

/// A parameter of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Its type, as it was written.
    pub ty: &'static str,
}

/// How a method answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// With a value.
    Value,
    /// Not at all.
    Notify,
    /// In a conversation of its own making.
    Converse,
}

/// A type that scripts construct by its name: made by `#[derive(hbi::Value)]`.
pub trait Constructor: Serialize + Send + Sized + 'static {
    /// The name in scripts.
    const NAME: &'static str;
    /// The fields, in the order of the constructor's arguments.
    const FIELDS: &'static [&'static str];

    /// Makes one of the arguments of a call.
    ///
    /// # Errors
    /// When they are not the fields' values.
    fn construct(args: &mut Args<'_>) -> Result<Self, Failure>;
}

/// What can travel between peers as a value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel between peers",
    label = "arguments and answers travel, so this needs `serde::Serialize` and `serde::Deserialize`",
    note = "derive them: `#[derive(serde::Serialize, serde::Deserialize)]`; it must own what it holds, too"
)]
pub trait Travels {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Travels for T {}

/// Compiles only for what can travel; generated code has one for each argument and answer.
pub const fn travels<T: Travels + ?Sized>() {}
