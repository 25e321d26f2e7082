//! Names in peer-scripts: what may be one, and how Rust's names become them.

use syn::{Ident, ext::IdentExt};

/// What peer-script keeps for itself. A method of such a name could be called alone, but in no
/// script and no composition. Sorted.
const RESERVED: [&str; 62] = [
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
    "debug",
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
    "print",
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

/// Why a script cannot use this name, if it cannot.
pub(crate) fn refuse(name: &str) -> Option<String> {
    if RESERVED.binary_search(&name).is_ok() {
        return Some(format!("`{name}` is a reserved word of peer-script"));
    }
    if !is_identifier(name) {
        return Some(format!(
            "`{name}` is no name in peer-script, which has ASCII letters, digits and underscores, a \
             letter before the first digit"
        ));
    }
    None
}

fn is_identifier(name: &str) -> bool {
    name.trim_start_matches('_')
        .starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A Rust name as peers see it: without `r#`.
pub(crate) fn plain(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// `FileStore` as `file_store`, `HTTPServer` as `http_server`.
pub(crate) fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (at, &c) in chars.iter().enumerate() {
        if c.is_uppercase() && at > 0 && chars[at - 1] != '_' {
            let before = !chars[at - 1].is_uppercase();
            let after = chars.get(at + 1).is_some_and(|next| next.is_lowercase());
            if before || after {
                snake.push('_');
            }
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

/// The name that serde gives a field under `#[serde(rename_all = "...")]`: only ASCII letters change.
pub(crate) fn rename_all(rule: &str, field: &str) -> Option<String> {
    let pascal = || -> String {
        let words = field.split('_').flat_map(|word| {
            let mut chars = word.chars();
            let first = chars.next().map(|c| c.to_ascii_uppercase());
            first.into_iter().chain(chars)
        });
        words.collect()
    };
    Some(match rule {
        "lowercase" | "snake_case" => field.to_owned(),
        "UPPERCASE" | "SCREAMING_SNAKE_CASE" => field.to_ascii_uppercase(),
        "PascalCase" => pascal(),
        "camelCase" => {
            let mut name = pascal();
            if let Some(first) = name.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            name
        }
        "kebab-case" => field.replace('_', "-"),
        "SCREAMING-KEBAB-CASE" => field.to_ascii_uppercase().replace('_', "-"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted_and_refused() {
        assert!(RESERVED.is_sorted());
        for word in RESERVED {
            assert!(refuse(word).is_some(), "{word}");
        }
        for name in ["add", "_x", "x_1", "exit", "then", "sleep", "env"] {
            assert_eq!(refuse(name), None);
        }
        for name in ["", "_", "_0", "1a", "größe", "a-b", "a b"] {
            assert!(
                refuse(name).is_some_and(|why| why.contains("is no name")),
                "{name}"
            );
        }
    }

    /// What is refused here is what the interpreter refuses, and nothing more.
    #[cfg(feature = "checked")]
    #[test]
    fn reserved_words_are_those_of_the_interpreter() {
        let engine = rhai::Engine::new_raw();
        let callable = |name: &str| engine.compile(format!("m::{name}(a)")).is_ok();
        for word in RESERVED {
            // `global` parses, but means the script's own globals
            assert!(word == "global" || !callable(word), "{word}");
        }
        for name in [
            "add", "_x", "x_1", "exit", "then", "sleep", "env", "self", "struct",
        ] {
            assert!(callable(name), "{name}");
        }
        assert!(!callable("_0") && !callable("größe"));
    }

    #[test]
    fn names_of_services() {
        for (name, snake) in [
            ("Calc", "calc"),
            ("FileStore", "file_store"),
            ("HTTPServer", "http_server"),
            ("V2Api", "v2_api"),
            ("already_so", "already_so"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn names_of_renamed_fields() {
        for (rule, name) in [
            ("lowercase", "first_name"),
            ("UPPERCASE", "FIRST_NAME"),
            ("PascalCase", "FirstName"),
            ("camelCase", "firstName"),
            ("kebab-case", "first-name"),
            ("SCREAMING-KEBAB-CASE", "FIRST-NAME"),
        ] {
            assert_eq!(rename_all(rule, "first_name").as_deref(), Some(name));
        }
        assert_eq!(
            rename_all("PascalCase", "_über_x").as_deref(),
            Some("überX")
        );
        assert_eq!(rename_all("camelCase", "_x").as_deref(), Some("x"));
        assert_eq!(rename_all("Title Case", "a"), None);
    }
}
