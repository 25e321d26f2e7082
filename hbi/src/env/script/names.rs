//! The names that a script's text uses: found by its tokens, without parsing it.

/// What a script's text calls and mentions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Called on their own or by a path: `f(`, `calc::add(`.
    pub(super) calls: Vec<String>,
    /// Called as methods: `.say(`.
    pub(super) methods: Vec<String>,
    /// Mentioned without a call.
    pub(super) mentioned: Vec<String>,
}

impl Names {
    /// Finds the names. A name in a string or comment may be among them, which does no harm.
    pub(super) fn of(source: &str) -> Self {
        let mut names = Names::default();
        let bytes = source.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if !is_start(bytes[at]) {
                at += 1;
                continue;
            }
            let start = at;
            while at < bytes.len() && (is_part(bytes[at]) || is_separator(bytes, at)) {
                at += if bytes[at] == b':' { 2 } else { 1 };
            }
            if start > 0 && is_part(bytes[start - 1]) {
                continue;
            }
            let name = source[start..at].trim_end_matches(':').to_owned();
            let before = source[..start].trim_end();
            let called = source[at..].trim_start().starts_with('(');
            let member = before.ends_with('.') && !before.ends_with("..");
            let list = match (member, called) {
                (true, true) => &mut names.methods,
                (true, false) => continue,
                (false, true) => &mut names.calls,
                (false, false) => &mut names.mentioned,
            };
            if !list.contains(&name) {
                list.push(name);
            }
        }
        names
    }
}

fn is_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_separator(bytes: &[u8], at: usize) -> bool {
    bytes[at..].starts_with(b"::") && bytes.get(at + 2).is_some_and(|&byte| is_start(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_methods_and_mentions() {
        let names =
            Names::of("let t = a; for i in 0..n { t += calc::add (i, f(1)) } room.say(t); x.y");
        assert_eq!(names.calls, ["calc::add", "f"]);
        assert_eq!(names.methods, ["say"]);
        for name in ["a", "n", "t", "room", "x"] {
            assert!(names.mentioned.contains(&name.to_owned()), "{name}");
        }
        assert!(!names.mentioned.contains(&"y".to_owned()));
    }
}
