//! What may be a name in a script.

/// What scripts keep for themselves. `hbi-macros` refuses the same words for methods, and `print` and
/// `debug`, which a host may expose for peers that call them alone. Sorted.
const RESERVED: [&str; 60] = [
    "Fn",
    "as",
    "async",
    "await",
    "break",
    "call",
    "case",
    "catch",
    "const",
    "continue",
    "curry",
    "default",
    "do",
    "else",
    "eval",
    "export",
    "false",
    "fn",
    "for",
    "global",
    "go",
    "goto",
    "if",
    "import",
    "in",
    "is",
    "is_def_fn",
    "is_def_var",
    "is_shared",
    "let",
    "loop",
    "match",
    "module",
    "new",
    "nil",
    "null",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "shared",
    "spawn",
    "static",
    "super",
    "switch",
    "sync",
    "this",
    "thread",
    "throw",
    "true",
    "try",
    "type_of",
    "until",
    "use",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// Bytes of a name, as much as the wire carries.
const MAX_NAME: usize = u8::MAX as usize;

/// Why a script cannot have so many parameters, if it cannot: the wire carries no more.
pub(crate) fn refuse_count(parameters: usize) -> Option<String> {
    const MOST: usize = u16::MAX as usize;
    (parameters > MOST).then(|| format!("{parameters} values bound, at most {MOST} can be"))
}

/// Why a script cannot use this name, if it cannot.
pub(crate) fn refuse_name(name: &str) -> Option<String> {
    if RESERVED.binary_search(&name).is_ok() {
        return Some(format!("`{name}` is a reserved word of peer-script"));
    }
    let starts = name
        .trim_start_matches('_')
        .starts_with(|c: char| c.is_ascii_alphabetic());
    let all = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if name.len() > MAX_NAME {
        return Some(format!(
            "a name of {} bytes, at most {MAX_NAME} are taken",
            name.len()
        ));
    }
    (!starts || !all).then(|| {
        format!(
            "`{}` is no name in peer-script, which has ASCII letters, digits and underscores, a \
             letter before the first digit",
            name.escape_debug()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for name in ["a", "_a1", "my_name", "SendFile", "print"] {
            assert_eq!(refuse_name(name), None, "{name}");
        }
        for name in ["", "_", "1a", "a b", "λ", "for", "call", "a\0"] {
            assert!(refuse_name(name).is_some(), "{name}");
        }
        assert_eq!(refuse_name(&"a".repeat(255)), None);
        assert!(refuse_name(&"a".repeat(256)).is_some());
        assert!(RESERVED.is_sorted());
    }
}
