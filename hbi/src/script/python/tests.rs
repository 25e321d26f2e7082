//! What is read, and what is refused with its place.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::{
    Place,
    value::{Dialect, Value, literal},
};

fn value(source: &str) -> Value {
    let packed = read_value(source).unwrap_or_else(|failure| panic!("{source}: {failure}"));
    Value::unpack(packed).expect("a value")
}

fn text(source: &str) -> String {
    match value(source) {
        Value::Text(text) => text,
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn every_script_of_the_recordings_is_read() {
    let sources = [
        "\nmy_name = \"Nick\"\nhello()\t\n",
        "\nprint(\"Welcome to HBI world!\")\n",
        "\nNickChanged('Stranger$127.0.0.1:56694')\nInRoom('Lobby')\nShowNotice(\"\\n@@ There're 1\\t\")\n",
        "\nUploadReq('Tea', \"up load'1.bin\", 5000)\n",
        "\nInRoom('Tea')\nShowNotice('\\n@@ You are.\\n')\nRoomMsgs(MsgsInRoom(('Tea'),([])))\n",
        "\nRoomMsgs(MsgsInRoom((\'Tea\'),([Msg((\'Bob \"the\" O\\\'Neil é\'),(\'pushed\'),(1795398990.3431904))])))\n",
        "\nRoomMsgs(MsgsInRoom(\"Tea\", [\n  Msg(\"Nick\",\"hi\",1795398997),\n]))\n",
        "\nRoomMsgs(MsgsInRoom(\"Tea\", [\n]))\n",
        "'it\\'s \"quoted\" back\\\\slash [9#co_end] é你好😀'",
    ];
    for source in sources {
        let program = Program::parse(source, 32).unwrap_or_else(|f| panic!("{source}: {f}"));
        assert!(!program.statements.is_empty());
    }
}

#[test]
fn answers_arrive_as_values_of_the_type_asked_for() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Msg {
        from: String,
        text: String,
        time: f64,
    }
    let read = |source| read_value(source).expect("a value");
    let (size, when): (i64, String) = read("[5000, 'last modified: 2026-11-23 01:56:31']")
        .unpack()
        .expect("a pair");
    assert_eq!((size, &*when), (5000, "last modified: 2026-11-23 01:56:31"));
    assert_eq!(read("0x49f047e1").unpack(), Ok(1_240_483_809u32));
    for nothing in ["None", "nil", "null", "", "\n"] {
        assert_eq!(read(nothing).unpack(), Ok(None::<String>), "{nothing:?}");
    }
    let messages: Vec<Msg> = read("[Msg((\"Nick\"),('hi'),(1.5)), Msg('Bob','yo',-2.0)]")
        .unpack()
        .expect("structs read from lists");
    assert_eq!(messages[1].from, "Bob");
    assert_eq!(messages[0].time, 1.5);
    let files: Vec<(u64, String)> = read("[[2048,\"brackets].bin\"],[5000,\"up load'1.bin\"]]")
        .unpack()
        .expect("pairs");
    assert_eq!(files[1].1, "up load'1.bin");
    let json = read("{\"a\": null, \"b\": [true, \"\\u003c\\ud83d\\ude00\"]}");
    let shown = format!("{:?}", Value::unpack(json).expect("a value"));
    assert!(shown.contains("<😀"), "{shown}");
    for lowest in ["-9223372036854775808", "(-9223372036854775807 - 1)"] {
        assert_eq!(read(lowest).unpack(), Ok(i64::MIN));
    }
}

#[test]
fn strings_have_all_the_spellings_of_both_peers() {
    for (source, expected) in [
        (r#"'Bob "the" O\'Neil é'"#, "Bob \"the\" O'Neil é"),
        (r#""Bob \"the\" O'Neil é""#, "Bob \"the\" O'Neil é"),
        (
            r#""\n\t\r\\\'\"\a\b\f\v\0\x1b\xa0\u200b\U0001f600""#,
            "\n\t\r\\'\"\x07\x08\x0c\x0b\0\x1b\u{a0}\u{200b}😀",
        ),
        (r#""\ud83d\ude00\101""#, "😀A"),
        (r#"r'\n\''"#, "\\n\\'"),
        ("`\\n`", "\\n"),
        ("'''a\n'b'''", "a\n'b"),
        ("\"\"\"\"x\"\"\"", "\"x"),
        ("'a' \"b\"", "ab"),
        (r#""\/ \q""#, "\\/ \\q"),
        ("'\x1b\x7f\u{2028}'", "\x1b\x7f\u{2028}"),
        ("u'x'", "x"),
        ("'a\\\nb'", "ab"),
    ] {
        assert_eq!(text(source), expected, "{source}");
    }
    assert_eq!(value(r"b'a\xff\n'"), Value::Bytes(b"a\xff\n".to_vec()));
}

#[test]
fn numbers_have_all_the_spellings_of_both_peers() {
    for (source, expected) in [
        ("0x49f047e1", 0x49f0_47e1),
        ("0b11", 3),
        ("0o17", 15),
        ("010", 10),
        ("1_000", 1000),
        ("+5", 5),
        ("- 5", -5),
        ("18446744073709551615", u64::MAX.into()),
    ] {
        assert_eq!(value(source), Value::Int(expected), "{source}");
    }
    for (source, expected) in [
        ("1795398990.3431904", 1_795_398_990.343_190_4),
        ("1e+21", 1e21),
        ("-1.5E-3", -1.5e-3),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e400", f64::INFINITY),
    ] {
        assert_eq!(value(source), Value::Float(expected), "{source}");
    }
    assert!(matches!(value("NaN"), Value::Float(x) if x.is_nan()));
}

#[test]
fn what_cannot_be_read_is_shown_with_its_place() {
    for (source, line, column, reason) in [
        ("f(1\nimport os", 2, 1, "`import` does not land here"),
        (
            "f(\n  1,\n  2\n",
            4,
            1,
            "expected `)` or `,`, found the end of the script",
        ),
        (
            "a = \n",
            1,
            5,
            "expected a value, found the end of the line",
        ),
        (
            "x = 'abc\ny = 1",
            1,
            5,
            "without its end on the line, in `x = 'abc`",
        ),
        ("def f():\n  pass", 1, 1, "`def` does not land here"),
        ("func f() { }", 1, 6, "`func` does not land here"),
        ("f(a=1)", 1, 4, "arguments by name"),
        ("f(**a)", 1, 3, "arguments by name"),
        ("'\\ud83d'", 1, 1, "half of a surrogate pair"),
        ("'\\ude00'", 1, 2, "half of a surrogate pair"),
        ("'\\U00110000'", 1, 2, "beyond the last character"),
        ("'\\x1'", 1, 2, "2 hexadecimal digits"),
        ("1 = x", 1, 1, "cannot be assigned to"),
        ("f() = x", 1, 1, "cannot be assigned to"),
        ("None = x", 1, 1, "cannot be assigned to"),
        ("a, b += 1", 1, 1, "cannot be changed at once"),
        ("if x:\n  f()", 1, 5, "blocks by indentation"),
        ("a[::2]", 1, 4, "slices with a step"),
        ("é = $", 1, 5, "`$` means nothing here"),
        (
            "f() g()",
            1,
            5,
            "expected the end of the statement, found `g`",
        ),
        ("12abc", 1, 1, "runs into a word"),
        ("(1)(2)", 1, 4, "only what has a name can be called"),
        ("break", 1, 1, "expected"),
        ("f'{a'", 1, 3, "without its `}`"),
        ("f'{a b}'", 1, 6, "plain value"),
        ("f'{1\n2}'", 1, 3, "without its `}` on the line"),
        ("fb'a{x}b'", 1, 3, "cannot begin with `fb`"),
        ("rR'a'", 1, 3, "cannot begin with `rR`"),
        ("'\\N{BULLET}'", 1, 2, "characters by name"),
        ("b'é'", 1, 3, "ASCII and escapes only"),
        ("b'\\é'", 1, 4, "ASCII and escapes only"),
        ("br'\\é'", 1, 5, "ASCII and escapes only"),
    ] {
        let failure = Program::parse(source, 32).expect_err(source);
        assert!(failure.message.contains(reason), "{source}: {failure}");
        assert_eq!(
            failure.place,
            Some(Place { line, column }),
            "{source}: {failure}"
        );
        assert!(!failure.message.contains('\n'), "{source}");
    }
    for no_value in ["x = 1", "a", "1 + 1", "f'{1}'", "1\n2", "f(*a)", "'a'.f(1)"] {
        assert!(read_value(no_value).is_err(), "{no_value}");
    }
}

#[test]
fn nesting_is_limited_whatever_nests() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("f(", ")"),
        ("{1: ", "}"),
        ("-", ""),
        ("not ", ""),
        ("2 ** ", ""),
        ("1 if 1 else ", ""),
        ("if 1 { ", "}"),
    ] {
        let nested = |n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        let failure = Program::parse(&nested(5_000), 1_000).expect_err(open);
        assert!(
            failure.message.contains("`expression_depth` (64)"),
            "{failure}"
        );
        assert!(
            !failure.message.contains("raise"),
            "no more is read: {failure}"
        );
        let failure = Program::parse(&nested(5_000), 63).expect_err(open);
        assert!(failure.message.contains("raise"), "{failure}");
        assert!(Program::parse(&nested(10), 32).is_ok(), "{open}");
    }
    for (first, more) in [("f", "()"), ("a", "[0]"), ("a", ".b")] {
        let failure = Program::parse(&format!("{first}{}", more.repeat(5_000)), 32);
        assert!(failure.is_err(), "{more}");
    }
    // these nest in the text only
    for (first, more) in [("1", "+1"), ("1", "*1"), ("1", " and 1"), ("1", " < 1")] {
        let program = Program::parse(&format!("{first}{}", more.repeat(5_000)), 32);
        assert!(program.is_ok(), "{more}");
    }
}

proptest! {
    #[test]
    fn anything_is_read_or_refused(source in "[-a-c0-9 '\"`\\\\(){}\\[\\]=+*/.,:;#!<>\nfrbué]{0,60}") {
        let _ = Program::parse(&source, 32);
        let _ = read_value(&source);
    }

    #[test]
    fn what_this_side_writes_it_reads(
        text in any::<String>().prop_filter("NUL", |s| !s.contains('\0')),
        n in any::<i64>(),
        x in any::<f64>().prop_filter("infinite", |x| x.is_finite()),
        list in prop::collection::vec(any::<Option<bool>>(), 0..5),
    ) {
        type All = (String, i64, f64, Vec<Option<bool>>, std::collections::BTreeMap<String, i64>);
        let value: All = (text.clone(), n, x, list, [(text, n)].into());
        for dialect in [Dialect::Python, Dialect::Go] {
            let written = literal(&value, dialect).expect("has a spelling");
            prop_assert!(!written.contains('\n'));
            let read: All = read_value(&written).expect("reads").unpack().expect("fits");
            prop_assert_eq!(&read, &value);
        }
    }
}

#[test]
fn values_in_strings_count_with_the_others() {
    let most = 1 << 18;
    let list = |n: usize| format!("[{}]", "1,".repeat(n));
    let inner = list(most / 2);
    for source in [
        format!("[f'{{{inner}}}', f'{{{inner}}}']"),
        format!("[f'{{{inner}}}', {inner}]"),
    ] {
        let failure = Program::parse(&source, 32).expect_err("too many");
        assert!(failure.message.contains("values"), "{failure}");
    }
    assert!(Program::parse(&format!("f'{{{inner}}}'"), 32).is_ok());
}

#[test]
fn what_is_around_values_counts_with_them() {
    let most = 1 << 18;
    for (front, part, behind) in [
        ("f'", "{}", "'"),
        ("f'", "{1}a", "'"),
        ("", "return;", ""),
        ("for a in b {", "break;", "}"),
        ("[", "a.b.b,", "]"),
        ("[", "a[:],", "]"),
        ("[", "--1,", "]"),
    ] {
        let source = format!("{front}{}{behind}", part.repeat(most + 1));
        let failure = Program::parse(&source, 32).expect_err(part);
        assert!(failure.message.contains("`values`"), "{part}: {failure}");
    }
    // these are one value each
    let source = format!("[{}]", "-1,f(),(((1))),".repeat((most - 3) / 3));
    assert!(Program::parse(&source, 32).is_ok());
}

#[test]
fn the_lowest_integer_has_no_opposite() {
    let failure = read_value(&format!("-(-{} - 1)", i128::MAX)).expect_err("it fits nothing");
    assert!(failure.place.is_some(), "{failure}");
}
