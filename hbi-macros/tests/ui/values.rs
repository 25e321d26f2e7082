//! What cannot be a value that scripts construct, and fields that cannot be asked for.

#[derive(hbi::Value)]
enum Kind {
    One,
}

#[derive(hbi::Value)]
struct Pair<T>(T, T);

#[derive(hbi::Value)]
#[hbi(name = "new", colour = "red")]
#[serde(rename_all = "camelCase")]
struct Msg {
    #[serde(skip)]
    text: String,
    #[serde(with = "module")]
    other: String,
}

#[derive(hbi::Value)]
struct Fn {}

#[derive(hbi::Fields)]
enum NoFields {}

#[derive(hbi::Fields)]
struct Tuple(i64);

#[derive(hbi::Fields)]
#[serde(rename_all = "kebab-case")]
struct Names<'a> {
    first_name: &'a str,
    #[serde(rename = "default")]
    other: String,
    #[serde(rename = "fine")]
    r#match: String,
}

#[derive(hbi::Fields)]
struct Letter {
    send: bool,
    #[serde(rename = "time")]
    within: u64,
}

fn main() {}
