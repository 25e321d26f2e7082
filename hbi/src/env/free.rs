//! Free peer-script in an environment: what the interpreter sees of it.

use std::sync::Arc;

use super::{Environment, script::Compiled, sources::Sources, within::Within};
use crate::{
    Failure,
    endpoint::{BoxFuture, Hosted},
    value::Packed,
};

/// A script for the interpreter.
pub(super) struct Free(Arc<Compiled>);

impl Free {
    /// Compiles a script.
    pub(super) fn compile(
        env: &Environment,
        parameters: &[Box<str>],
        source: &str,
    ) -> Result<Compiled, Failure> {
        let exposed = |name: &str| env.resolve(name).is_some();
        Compiled::new(source, parameters, exposed, &env.bounds)
    }

    /// A compiled script, which counts among those of its connection as long as anything has it.
    pub(super) fn new(code: Compiled, sources: &Sources) -> Result<Self, Failure> {
        let taken = sources.take(code.size())?;
        Ok(Self(Arc::new(code.counted(taken))))
    }

    /// Runs it.
    pub(super) fn run(
        &self,
        env: &Arc<Environment>,
        arguments: Packed,
        hosted: Arc<Hosted>,
    ) -> BoxFuture<Result<Packed, Failure>> {
        let arguments = match arguments.elements() {
            Ok(arguments) => arguments,
            Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
        };
        let nested = hosted.current().depth > 1;
        let printed = Arc::clone(env);
        let artifacts = Arc::new(Within {
            env: Arc::clone(env),
            hosted,
            text: false,
            literal: None,
        });
        let (code, bounds) = (Arc::clone(&self.0), env.bounds.clone());
        let print = Box::new(move |line: &str| printed.print(line));
        let room = env.room();
        Box::pin(code.run(arguments, artifacts, bounds, room, nested, print))
    }
}
