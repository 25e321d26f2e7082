//! Free peer-script: what only an interpreter can run.

use std::sync::Arc;

use super::Environment;
use crate::{
    Failure, Kind,
    endpoint::{BoxFuture, Hosted},
    value::Packed,
};

/// A compiled script.
pub(super) struct Free;

impl Free {
    pub(super) fn compile(_: &Arc<Environment>, _: &[Box<str>], _: &str) -> Result<Self, Failure> {
        Err(Failure::new(Kind::Script, "no interpreter yet"))
    }

    pub(super) fn run(
        &self,
        _: &Arc<Environment>,
        _: usize,
        _: Packed,
        _: Arc<Hosted>,
    ) -> BoxFuture<Result<Packed, Failure>> {
        Box::pin(std::future::ready(Err(Failure::new(
            Kind::Script,
            "no interpreter yet",
        ))))
    }
}
