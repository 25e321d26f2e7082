//! The interpreter's engine for one script: what all share, the bounds, and the names it uses.

use std::{any::TypeId, sync::LazyLock};

use rhai::{
    Dynamic, Engine, EvalAltResult, FuncRegistration, ImmutableString, Module, NativeCallContext,
    Position, Shared,
    packages::{Package, StandardPackage},
};

use super::{
    calls::{self, Thrown},
    convert::{self, Held},
    names::Names,
};
use crate::env::Bounds;

/// The functions of the interpreter's standard package, made once.
static STANDARD: LazyLock<Shared<Module>> =
    LazyLock::new(|| StandardPackage::new().as_shared_module());

/// Arguments that a function can be called with from a script.
const MOST_ARGUMENTS: usize = 12;

/// `env` in scripts: values that the peer keeps.
#[derive(Debug, Clone)]
pub(super) struct Kept;

/// An engine for a script that uses these names; `exposed` tells which of them are the host's.
pub(super) fn engine(names: &Names, exposed: impl Fn(&str) -> bool, bounds: &Bounds) -> Engine {
    let mut engine = Engine::new_raw();
    engine.register_global_module(STANDARD.clone());
    engine
        .set_max_expr_depths(bounds.expression_depth, bounds.expression_depth)
        .set_max_call_levels(bounds.call_depth)
        .set_max_string_size(bounds.string)
        .set_max_array_size(bounds.array)
        .set_max_map_size(bounds.map)
        .set_max_variables(256)
        .set_max_functions(64)
        .set_max_modules(0)
        // the interner would have threads wait for each other
        .set_max_strings_interned(0)
        // no closures, no pointers to functions: both get around the bounds
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
    ] {
        engine.disable_symbol(symbol);
    }
    engine.on_progress(calls::progress);
    engine.on_print(|line| {
        if let Some(landing) = calls::current() {
            (landing.print)(line);
        }
    });
    engine.on_debug(|line, _, _| {
        if let Some(landing) = calls::current() {
            (landing.print)(line);
        }
    });
    // a script that sleeps would hold the thread, and the clock is none of its business
    engine.register_raw_fn("sleep", [TypeId::of::<rhai::INT>()], refused);
    engine.register_raw_fn("sleep", [TypeId::of::<rhai::FLOAT>()], refused);
    engine.register_raw_fn("timestamp", [], refused);
    register_thrown(&mut engine);
    register_kept(&mut engine);
    register_names(&mut engine, names, exposed);
    engine
}

fn refused(
    context: NativeCallContext<'_>,
    _: &mut [&mut Dynamic],
) -> Result<Dynamic, Box<EvalAltResult>> {
    let name = context.fn_name().to_owned();
    Err(EvalAltResult::ErrorFunctionNotFound(name, context.call_position()).into())
}

/// What a caught failure shows: `message`, `origin`, `kind`, `payload`.
fn register_thrown(engine: &mut Engine) {
    engine.register_type_with_name::<Thrown>("Error");
    engine.register_get("message", |thrown: &mut Thrown| thrown.0.message.clone());
    engine.register_get("origin", |thrown: &mut Thrown| thrown.0.origin.clone());
    engine.register_get("kind", |thrown: &mut Thrown| format!("{:?}", thrown.0.kind));
    engine.register_get("payload", |thrown: &mut Thrown| {
        let bytes = thrown.0.payload.clone();
        bytes.map_or(Dynamic::UNIT, |bytes| {
            let packed = crate::value::Packed::from_parts(bytes, Default::default());
            convert::to_dynamic(packed).unwrap_or(Dynamic::UNIT)
        })
    });
    engine.register_fn("to_string", |thrown: &mut Thrown| thrown.0.to_string());
    engine.register_fn("to_debug", |thrown: &mut Thrown| thrown.0.to_string());
}

/// `env.name` and `env.name = value`.
fn register_kept(engine: &mut Engine) {
    engine.register_type_with_name::<Kept>("env");
    engine.register_indexer_get(|_: &mut Kept, name: ImmutableString| {
        let Some(landing) = calls::current() else {
            return Ok(Dynamic::UNIT);
        };
        match landing.artifacts.get(&name) {
            Some(packed) => convert::to_dynamic(packed)
                .map_err(|error| calls::thrown(error.into(), Position::NONE)),
            None => Ok(Dynamic::UNIT),
        }
    });
    engine.register_indexer_set(|_: &mut Kept, name: ImmutableString, value: Dynamic| {
        let Some(landing) = calls::current() else {
            return Ok(());
        };
        let packed = convert::to_packed(&value);
        packed
            .map_err(Into::into)
            .and_then(|packed| landing.artifacts.set(&name, packed))
            .map_err(|failure| calls::thrown(failure, Position::NONE))
    });
}

/// Registers a function of a namespace for every number of arguments.
fn register_path(module: &mut Module, path: &str, function: &str) {
    macro_rules! with {
        ($($argument:ident)*) => {{
            let path = path.to_owned();
            FuncRegistration::new(function).set_into_module(
                module,
                move |context: NativeCallContext<'_>, $(mut $argument: Dynamic),*| {
                    calls::call(&path, &context, &mut [$(&mut $argument),*])
                },
            );
        }};
    }
    with!();
    with!(a);
    with!(a b);
    with!(a b c);
    with!(a b c d);
    with!(a b c d e);
    with!(a b c d e f);
    with!(a b c d e f g);
    with!(a b c d e f g h);
    with!(a b c d e f g h i);
    with!(a b c d e f g h i j);
    with!(a b c d e f g h i j k);
    with!(a b c d e f g h i j k l);
}

/// The types of arguments that an exposed function is registered with: any, and those of the
/// interpreter's own functions, which would be found before one that takes any (`max`, `sleep`).
fn signatures() -> impl Iterator<Item = Vec<TypeId>> {
    let types = [
        TypeId::of::<rhai::INT>(),
        TypeId::of::<rhai::FLOAT>(),
        TypeId::of::<bool>(),
        TypeId::of::<char>(),
        TypeId::of::<ImmutableString>(),
        TypeId::of::<rhai::Array>(),
        TypeId::of::<rhai::Blob>(),
        TypeId::of::<rhai::Map>(),
        TypeId::of::<()>(),
    ];
    let any = (0..=MOST_ARGUMENTS).map(|count| vec![TypeId::of::<Dynamic>(); count]);
    let one = types.into_iter().map(|one| vec![one]);
    let two = types
        .into_iter()
        .flat_map(move |one| types.into_iter().map(move |two| vec![one, two]));
    any.chain(one).chain(two)
}

fn register_names(engine: &mut Engine, names: &Names, exposed: impl Fn(&str) -> bool) {
    let mut modules: Vec<(String, Module)> = Vec::new();
    for name in &names.calls {
        match name.rsplit_once("::") {
            Some((namespace, function)) => {
                let at = modules.iter().position(|(known, _)| known == namespace);
                let at = at.unwrap_or_else(|| {
                    modules.push((namespace.to_owned(), Module::new()));
                    modules.len() - 1
                });
                // also where nothing of the name is exposed: the host says what there is instead
                register_path(&mut modules[at].1, name, function);
            }
            None if exposed(name) => {
                for types in signatures() {
                    let path = name.clone();
                    engine.register_raw_fn(
                        name,
                        types,
                        move |context: NativeCallContext<'_>, arguments: &mut [&mut Dynamic]| {
                            calls::call(&path, &context, arguments)
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
    for method in &names.methods {
        for count in 0..MOST_ARGUMENTS {
            let mut types = vec![TypeId::of::<Dynamic>(); count + 1];
            types[0] = TypeId::of::<Held>();
            let name = method.clone();
            engine.register_raw_fn(
                method,
                types,
                move |context: NativeCallContext<'_>, arguments: &mut [&mut Dynamic]| {
                    calls::call_method(&name, &context, arguments)
                },
            );
        }
    }
}
