//! The interpreter's engine for one script: what all share, the bounds, and the names it uses.

use std::{
    any::TypeId,
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use rhai::{
    Dynamic, Engine, FuncRegistration, Module, NativeCallContext, Shared,
    packages::{Package, StandardPackage},
};

use super::{
    calls,
    convert::Held,
    library::{self, LIBRARY},
    names::Names,
};
use crate::{
    Failure,
    env::{Bounds, unchecked::fiber},
};

/// The functions of the interpreter's standard package, made once.
pub(super) static STANDARD: LazyLock<Shared<Module>> =
    LazyLock::new(|| StandardPackage::new().as_shared_module());

/// Arguments that something exposed can be called with from a script: the interpreter looks for a
/// function that takes any in 2 to the power of their number of ways.
pub(super) const MOST_ARGUMENTS: usize = 12;

/// How deep functions may call each other at most, and expressions may stand in each other, whatever
/// the bounds say: the stack of a fiber is made for it, while texts are parsed on a thread's own.
const CALL_DEPTH: usize = 256;
const EXPRESSION_DEPTH: usize = 64;

/// Variables of one function, and functions of one script.
pub(super) const VARIABLES: usize = 256;
pub(super) const FUNCTIONS: usize = 64;

/// How deep a script may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depths {
    pub(super) calls: usize,
    pub(super) expressions: usize,
}

impl Depths {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            calls: bounds.call_depth.min(CALL_DEPTH),
            expressions: bounds.expression_depth.min(EXPRESSION_DEPTH),
        }
    }

    /// The bytes of stack that this takes.
    pub(super) fn stack(self) -> usize {
        /// What one expression takes, in the deepest function.
        const LEVEL: usize = fiber::STACK / (16 * 32);
        self.calls * self.expressions * LEVEL
    }

    /// The failure of functions that call each other too deep.
    pub(super) fn too_many_calls(self) -> Failure {
        too_deep("call_depth", self.calls, CALL_DEPTH)
    }

    /// The failure of expressions that stand in each other too deep.
    pub(super) fn too_many_expressions(self) -> Failure {
        too_deep("expression_depth", self.expressions, EXPRESSION_DEPTH)
    }
}

fn too_deep(name: &str, value: usize, most: usize) -> Failure {
    match value < most {
        true => Failure::limit(name, value, &format!("raise `Bounds::{name}` at the host")),
        false => Failure::limit(name, value, "nest less: this is the most there can be"),
    }
}

/// An engine for a script that uses these names; `exposed` tells which of them are the host's.
pub(super) fn new(names: &Names, exposed: impl Fn(&str) -> bool, bounds: &Bounds) -> Engine {
    let mut engine = Engine::new_raw();
    engine.register_global_module(STANDARD.clone());
    engine.register_global_module(LIBRARY.clone());
    let Depths { calls, expressions } = Depths::new(bounds);
    engine
        .set_max_expr_depths(expressions, expressions)
        .set_max_call_levels(calls)
        .set_max_string_size(bounds.string)
        .set_max_array_size(bounds.array)
        .set_max_map_size(bounds.map)
        .set_max_variables(VARIABLES)
        .set_max_functions(FUNCTIONS)
        .set_max_modules(0)
        // as in a straight line
        .set_fail_on_invalid_map_property(true)
        // the interner would have threads wait for each other
        .set_max_strings_interned(0)
        // no closures, no pointers to functions, no `this`: they get around the bounds
        .set_allow_anonymous_fn(false)
        .set_optimization_level(rhai::OptimizationLevel::None);
    for symbol in [
        "eval",
        "import",
        "export",
        "Fn",
        "call",
        "curry",
        "is_shared",
        "this",
    ] {
        engine.disable_symbol(symbol);
    }
    engine.on_progress(calls::progress);
    watch_variables(&mut engine);
    engine.on_print(calls::print);
    engine.on_debug(|line, _, _| calls::print(line));
    library::name_types(&mut engine);
    register_names(&mut engine, names, exposed);
    engine
}

/// Has variables measured when they are read, and when there is one more.
#[allow(
    deprecated,
    reason = "the interpreter calls these volatile, not deprecated"
)]
fn watch_variables(engine: &mut Engine) {
    engine.on_var(|name, back, context| {
        let (scope, level) = (context.scope(), context.call_level());
        calls::with_current(|landing| landing.touch(name, back, scope, level))
            .unwrap_or(Ok(()))
            .map(|()| None)
    });
    engine.on_def_var(|runs, _, context| {
        if !runs {
            return Ok(true);
        }
        let (scope, level) = (context.scope(), context.call_level());
        calls::with_current(|landing| landing.define(scope, level))
            .unwrap_or(Ok(()))
            .map(|()| true)
    });
}

/// Registers a function of a namespace for so many arguments.
fn register_path(
    module: &mut Module,
    path: &str,
    function: &str,
    arguments: usize,
    looked_into: bool,
) {
    macro_rules! with {
        ($($argument:ident)*) => {{
            let path: Arc<str> = path.into();
            FuncRegistration::new(function).set_into_module(
                module,
                move |context: NativeCallContext<'_>, $(mut $argument: Dynamic),*| {
                    calls::call(&path, looked_into, &context, &mut [$(&mut $argument),*])
                },
            );
        }};
    }
    match arguments {
        0 => with!(),
        1 => with!(a),
        2 => with!(a b),
        3 => with!(a b c),
        4 => with!(a b c d),
        5 => with!(a b c d e),
        6 => with!(a b c d e f),
        7 => with!(a b c d e f g),
        8 => with!(a b c d e f g h),
        9 => with!(a b c d e f g h i),
        10 => with!(a b c d e f g h i j),
        11 => with!(a b c d e f g h i j k),
        12 => with!(a b c d e f g h i j k l),
        _ => {}
    }
}

fn register_names(engine: &mut Engine, names: &Names, exposed: impl Fn(&str) -> bool) {
    let mut modules: Vec<(String, Module)> = Vec::new();
    let called: BTreeSet<&str> = names.calls.iter().map(|(name, _)| &**name).collect();
    for name in called {
        let arguments = names.arguments(name);
        match name.rsplit_once("::") {
            Some((namespace, function)) => {
                let at = modules.iter().position(|(known, _)| known == namespace);
                let at = at.unwrap_or_else(|| {
                    modules.push((namespace.to_owned(), Module::new()));
                    modules.len() - 1
                });
                // also where nothing of the name is exposed: the host says what there is instead
                let looked_into = names.looks_into(name);
                for count in arguments {
                    register_path(&mut modules[at].1, name, function, count, looked_into);
                }
            }
            None if exposed(name) => {
                let looked_into = names.looks_into(name);
                for count in arguments {
                    let path: Arc<str> = name.into();
                    engine.register_raw_fn(
                        names.alias(name),
                        vec![TypeId::of::<Dynamic>(); count],
                        move |context: NativeCallContext<'_>, arguments: &mut [&mut Dynamic]| {
                            calls::call(&path, looked_into, &context, arguments)
                        },
                    );
                }
            }
            // the interpreter's own, or defined in the script, or not there
            None => {}
        }
    }
    for (namespace, module) in modules {
        engine.register_static_module(namespace, module.into());
    }
    for (method, count) in &names.methods {
        let mut types = vec![TypeId::of::<Dynamic>(); count + 1];
        types[0] = TypeId::of::<Held>();
        let name: Arc<str> = method.as_str().into();
        engine.register_raw_fn(
            method,
            types,
            move |context: NativeCallContext<'_>, arguments: &mut [&mut Dynamic]| {
                calls::call_method(&name, &context, arguments)
            },
        );
    }
}

/// What a script takes once it is compiled, in bytes: as much as was measured, rounded up.
pub(super) fn size(names: &Names, source: &str) -> usize {
    const ENGINE: usize = 4 << 10;
    const NAMESPACE: usize = 2 << 10;
    const FUNCTION: usize = 400;
    const TOKEN: usize = 256;
    let paths = names.calls.iter();
    let paths = paths.filter_map(|(path, _)| path.rsplit_once("::"));
    let namespaces: BTreeSet<_> = paths.map(|(namespace, _)| namespace).collect();
    let namespaces = namespaces.iter().map(|path| path.split("::").count());
    let functions = names.calls.len() + names.methods.len();
    ENGINE
        + namespaces.sum::<usize>() * NAMESPACE
        + functions * FUNCTION
        + names.tokens * TOKEN
        + source.len()
}
