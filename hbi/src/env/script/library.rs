//! What every script finds beside the interpreter's own functions, and in place of those of them
//! that get around the bounds.

use std::sync::LazyLock;

use rhai::{
    Array, Dynamic, EvalAltResult, FLOAT, FuncRegistration, INT, ImmutableString, Module,
    NativeCallContext, Position, Shared,
};

use super::{
    calls::{self, Thrown},
    convert::{self, Opaque},
};
use crate::Failure;

/// `env` in scripts: values that the peer keeps.
#[derive(Debug, Clone)]
pub(super) struct Kept;

type Found<T = Dynamic> = Result<T, Box<EvalAltResult>>;

/// Made once, shared by all scripts. It comes before the interpreter's own package.
pub(super) static LIBRARY: LazyLock<Shared<Module>> = LazyLock::new(|| {
    let mut module = Module::new();
    errors(&mut module);
    kept(&mut module);
    refusals(&mut module);
    replace(&mut module);
    module.into()
});

macro_rules! set {
    ($module:ident, $($registration:expr => $function:expr;)*) => {$(
        $registration.in_global_namespace().set_into_module($module, $function);
    )*};
}

/// What a caught failure shows: `message`, `origin`, `kind`, `payload`.
fn errors(module: &mut Module) {
    use FuncRegistration as F;
    set! { module,
        F::new_getter("message") => |thrown: &mut Thrown| thrown.0.message.clone();
        F::new_getter("origin") => |thrown: &mut Thrown| thrown.0.origin.clone();
        F::new_getter("kind") => |thrown: &mut Thrown| format!("{:?}", thrown.0.kind);
        F::new_getter("payload") => |thrown: &mut Thrown| {
            let bytes = thrown.0.payload.clone();
            bytes.map_or(Dynamic::UNIT, |bytes| {
                let packed = crate::value::Packed::from_parts(bytes, Default::default());
                calls::current()
                    .and_then(|landing| convert::to_dynamic(packed, true, &landing).ok())
                    .unwrap_or(Dynamic::UNIT)
            })
        };
        F::new("to_string") => |thrown: &mut Thrown| thrown.0.to_string();
        F::new("to_debug") => |thrown: &mut Thrown| thrown.0.to_string();
    }
}

/// `env.name` and `env.name = value`.
fn kept(module: &mut Module) {
    use FuncRegistration as F;
    set! { module,
        F::new_index_getter() => |_: &mut Kept, name: ImmutableString| -> Found {
            let Some(landing) = calls::current() else {
                return Ok(Dynamic::UNIT);
            };
            match landing.artifacts.get(&name) {
                Some(packed) => convert::to_dynamic(packed, true, &landing)
                    .map_err(|failure| calls::raised(failure, Position::NONE)),
                None => Ok(Dynamic::UNIT),
            }
        };
        F::new_index_setter() => |_: &mut Kept, name: ImmutableString, value: Dynamic| -> Found<()> {
            let Some(landing) = calls::current() else {
                return Ok(());
            };
            let packed = convert::to_packed(&value);
            packed
                .map_err(Into::into)
                .and_then(|packed| landing.artifacts.set(&name, packed))
                .map_err(|failure| calls::raised(failure, Position::NONE))
        };
    }
}

fn refused(context: &NativeCallContext<'_>) -> Found {
    let name = context.fn_name().to_owned();
    Err(EvalAltResult::ErrorFunctionNotFound(name, context.call_position()).into())
}

/// A script that sleeps would hold the thread; the clock is none of its business. A function given
/// by its name would pile up values that nobody measures.
fn refusals(module: &mut Module) {
    use FuncRegistration as F;
    set! { module,
        F::new("sleep") => |context: NativeCallContext<'_>, _: INT| refused(&context);
        F::new("sleep") => |context: NativeCallContext<'_>, _: FLOAT| refused(&context);
        F::new("timestamp") => |context: NativeCallContext<'_>| refused(&context);
        F::new("parse_json") => |context: NativeCallContext<'_>, _: ImmutableString| {
            refused(&context)
        };
        F::new("get_fn_metadata_list") => |context: NativeCallContext<'_>| refused(&context);
        F::new("get_fn_metadata_list") => |context: NativeCallContext<'_>, _: ImmutableString| {
            refused(&context)
        };
        F::new("get_fn_metadata_list") =>
            |context: NativeCallContext<'_>, _: ImmutableString, _: INT| refused(&context);
    }
    for name in [
        "all",
        "dedup",
        "drain",
        "filter",
        "index_of",
        "map",
        "reduce",
        "reduce_rev",
        "retain",
        "some",
        "sort",
    ] {
        set! { module,
            F::new(name) => |context: NativeCallContext<'_>, _: &mut Array, _: ImmutableString| {
                refused(&context)
            };
        }
    }
    for name in ["index_of", "reduce", "reduce_rev"] {
        set! { module,
            F::new(name) =>
                |context: NativeCallContext<'_>, _: &mut Array, _: ImmutableString, _: INT| {
                    refused(&context)
                };
            F::new(name) =>
                |context: NativeCallContext<'_>, _: &mut Array, _: ImmutableString, _: Dynamic| {
                    refused(&context)
                };
        }
    }
}

/// The interpreter's own looks at the size of what it made only when it has been made.
fn replace(module: &mut Module) {
    use FuncRegistration as F;
    type Text = ImmutableString;
    set! { module,
        F::new("replace") => |text: &mut Text, from: Text, to: Text| replaced(text, &from, &to);
        F::new("replace") => |text: &mut Text, from: Text, to: char| {
            replaced(text, &from, to.encode_utf8(&mut [0; 4]))
        };
        F::new("replace") => |text: &mut Text, from: char, to: Text| {
            replaced(text, from.encode_utf8(&mut [0; 4]), &to)
        };
        F::new("replace") => |text: &mut Text, from: char, to: char| {
            replaced(text, from.encode_utf8(&mut [0; 4]), to.encode_utf8(&mut [0; 4]))
        };
    }
}

fn replaced(text: &mut ImmutableString, from: &str, to: &str) -> Found<()> {
    let Some(landing) = calls::current() else {
        return Ok(());
    };
    let most = landing.bounds.string;
    let times = text.matches(from).count();
    let size = text.len() - times * from.len() + times.saturating_mul(to.len());
    if size > most {
        let raise = "raise `Bounds::string` at the host";
        return Err(calls::ended(Failure::limit("string", most, raise)));
    }
    *text = text.replace(from, to).into();
    Ok(())
}

/// What these types are called in errors.
pub(super) fn name_types(engine: &mut rhai::Engine) {
    engine.register_type_with_name::<Thrown>("Error");
    engine.register_type_with_name::<Kept>("env");
    engine.register_type_with_name::<Opaque>("packed value");
    engine.register_type_with_name::<convert::Held>("stream or reactor");
}

/// Whether the interpreter has a function of this name of its own, which it would find before one that
/// takes arguments of any type.
pub(in crate::env) fn is_built_in(name: &str) -> bool {
    BUILT_IN.binary_search(&name).is_ok()
}

const BUILT_IN: &[&str] = &[
    "E",
    "PI",
    "abs",
    "acos",
    "acosh",
    "all",
    "append",
    "as_string",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "bits",
    "blob",
    "bytes",
    "ceiling",
    "chars",
    "chop",
    "clear",
    "contains",
    "cos",
    "cosh",
    "crop",
    "debug",
    "dedup",
    "drain",
    "elapsed",
    "end",
    "ends_with",
    "exit",
    "exp",
    "extract",
    "fill_with",
    "filter",
    "find",
    "find_map",
    "floor",
    "for_each",
    "fraction",
    "get",
    "get_bit",
    "get_bits",
    "get_fn_metadata_list",
    "hypot",
    "index_of",
    "insert",
    "int",
    "is_anonymous",
    "is_empty",
    "is_even",
    "is_exclusive",
    "is_finite",
    "is_inclusive",
    "is_infinite",
    "is_nan",
    "is_odd",
    "is_zero",
    "keys",
    "len",
    "ln",
    "log",
    "make_lower",
    "make_upper",
    "map",
    "max",
    "min",
    "mixin",
    "name",
    "order",
    "order_by",
    "order_desc",
    "pad",
    "parse_be_float",
    "parse_be_int",
    "parse_float",
    "parse_int",
    "parse_json",
    "parse_le_float",
    "parse_le_int",
    "pop",
    "print",
    "push",
    "range",
    "reduce",
    "reduce_rev",
    "remove",
    "replace",
    "retain",
    "reverse",
    "round",
    "set",
    "set_bit",
    "set_bits",
    "set_tag",
    "shift",
    "sign",
    "sin",
    "sinh",
    "sleep",
    "some",
    "sort",
    "sort_by",
    "sort_desc",
    "splice",
    "split",
    "split_rev",
    "sqrt",
    "start",
    "starts_with",
    "sub_string",
    "tag",
    "take",
    "tan",
    "tanh",
    "timestamp",
    "to_array",
    "to_binary",
    "to_blob",
    "to_chars",
    "to_debug",
    "to_degrees",
    "to_float",
    "to_hex",
    "to_int",
    "to_json",
    "to_lower",
    "to_octal",
    "to_radians",
    "to_string",
    "to_upper",
    "trim",
    "truncate",
    "values",
    "write_ascii",
    "write_be",
    "write_le",
    "write_utf8",
    "zip",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_its_own_are_in_order() {
        assert!(BUILT_IN.is_sorted());
        assert!(is_built_in("max") && !is_built_in("double"));
    }
}
