//! Properties of values that are no maps, such as the length of a text, for scripts that run without
//! the interpreter: they mean there what they mean to it.

use std::sync::LazyLock;

use rhai::{Dynamic, Engine, OptimizationLevel, Scope};

use super::{account, convert, engine::STANDARD, run::without_place};
use crate::{Failure, Kind, env::Bounds, value::Packed};

/// It looks at properties only, which is over at once.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut engine = Engine::new_raw();
    engine.register_global_module(STANDARD.clone());
    engine
        .set_max_strings_interned(0)
        .set_optimization_level(OptimizationLevel::None);
    engine
});

/// The property of a value, which holds no streams or objects.
pub(in crate::env) fn property(
    value: Packed,
    name: &str,
    bounds: &Bounds,
) -> Result<Packed, Failure> {
    account::check_packed(value.bytes(), bounds)?;
    let mut scope = Scope::new();
    scope.push_dynamic("value", convert::unpacked(value)?);
    let found = ENGINE.eval_with_scope::<Dynamic>(&mut scope, &format!("value.{name}"));
    let found = found.map_err(|error| Failure::new(Kind::Script, without_place(&error)))?;
    Ok(convert::to_packed(&found)?)
}
