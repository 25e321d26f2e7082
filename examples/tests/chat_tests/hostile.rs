//! Names and lines that mean harm: kept where they belong, shown without harm.

use std::path::{Path, PathBuf};

use hbi::CallError;

use super::{Member, content, process::Program, serve, upload};
use crate::{
    names,
    protocol::{LINE, LOBBY, Refusal, Refused, RoomsStub, TransfersStub},
};

const NAMES: [&str; 13] = [
    "../../x",
    "..",
    ".",
    "/etc/passwd",
    "C:\\x\\..\\y",
    "😀.bin",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\u{202e}txt.exe",
    "%2E%2E%2F",
    ".hidden",
    " ",
    "new\nline",
    "x\u{9b}31m",
];

/// All files below a directory.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(below(&path));
        } else {
            all.push(path);
        }
    }
    all
}

#[test]
fn each_name_is_kept_under_one_of_its_own_and_comes_back() {
    let mut all = Vec::new();
    for name in NAMES {
        let kept = names::kept(name).expect("can be kept");
        assert!(
            !kept.contains(['/', '\\', '\0']) && !kept.starts_with('.'),
            "{kept}"
        );
        assert_eq!(names::original(&kept).as_deref(), Some(name));
        all.push(kept);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), NAMES.len());
    assert!(names::kept(&"x".repeat(4096)).is_err());
    assert!(names::kept("").is_err());
    assert!(names::kept("a\0b").is_err());
    assert!(names::original("%").is_none() && names::original("%+1").is_none());
}

#[test]
fn names_that_would_look_like_others_become_those() {
    for (wanted, nick) in [
        ("server\u{ad}", "not the server"),
        ("ad\u{34f}min", "not the admin"),
        ("Ann\u{34f}", "Ann"),
        ("Ann\u{fe0f}", "Ann"),
        ("A\u{61c}nn", "Ann"),
        ("\u{3164}", ""),
        ("\u{2800} \u{115f}", ""),
    ] {
        assert_eq!(names::nick(wanted), nick, "{wanted:?}");
    }
    assert_eq!(names::room("#\u{ffa0}"), LOBBY);
    assert_eq!(names::shown("a\u{61c}b"), r"a\u{61c}b");
    // an emoji in a line stays one
    assert_eq!(names::shown("❤\u{fe0f}"), "❤\u{fe0f}");
}

#[tokio::test]
async fn files_of_any_name_stay_in_their_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let deep = dir.path().join("a/b/c/server");
    let (_serving, address) = serve(&deep).await;
    let member = Member::join(&address, "Ann", "Tea").await;
    let transfers = TransfersStub::new(&member.connection);
    for (name, seed) in NAMES.into_iter().zip(0..) {
        let content = content(2000, seed);
        let file = upload("Tea", name, &content);
        transfers
            .upload(file, 0, content.clone())
            .await
            .expect("is taken");
        let (_, data) = transfers.download("Tea", name, 0).await.expect("is there");
        assert!(data.to_bytes(2000).await.expect("arrives") == content);
    }
    let mut listed: Vec<_> = NAMES
        .into_iter()
        .map(|name| (2000, name.to_owned()))
        .collect();
    listed.sort();
    let mut files = member.chat.list_files("Tea").await.expect("an answer");
    files.sort();
    assert_eq!(files, listed);

    let room = deep.join("rooms/Tea");
    let below = below(dir.path());
    assert_eq!(
        below
            .iter()
            .filter(|path| path.parent() == Some(&room))
            .count(),
        NAMES.len()
    );
    // but for them there is nothing else than the database
    assert_eq!(below.len(), NAMES.len() + 1, "{below:?}");

    let long = "x".repeat(4096);
    let outcome = transfers.begin(upload("Tea", &long, b"")).await;
    assert!(
        matches!(
            outcome,
            Err(CallError::App(Refusal {
                why: Refused::Name(_)
            }))
        ),
        "{outcome:?}"
    );
    let refused = member
        .chat
        .upload_req("Tea", &long, 5000)
        .await
        .expect("an answer");
    assert!(refused.is_some_and(|why| why.contains("4096 bytes")));
    let outcome = transfers.download("Tea", &long, 0).await.map(drop);
    assert!(
        matches!(
            outcome,
            Err(CallError::App(Refusal {
                why: Refused::Name(_)
            }))
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn rooms_and_nicks_of_any_name_are_made_presentable() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(&dir.path().join("server")).await;
    let mut member = Member::join(&address, "Ann", "Tea").await;
    for name in NAMES.into_iter().chain(["a\0b", &*"x".repeat(4096)]) {
        let nick = member.chat.set_nick(name).await.expect("an answer");
        assert!(!nick.is_empty() && nick.chars().count() <= 32, "{nick:?}");
        assert_eq!(names::shown_line(&nick), nick);
        member.chat.goto_room(name).await.expect("an answer");
        let room = match member
            .hear(|heard| matches!(heard, super::Heard::Room(_)))
            .await
        {
            super::Heard::Room(room) => room,
            other => unreachable!("{other:?}"),
        };
        assert!(!room.is_empty() && room.chars().count() <= 48, "{room:?}");
        assert_eq!(names::shown_line(&room), room);
        let members = RoomsStub::new(&member.connection).members(&room).await;
        assert_eq!(members.expect("an answer"), [nick]);
        let crc = member.chat.recv_file(name, "f", vec![1; 10]).await;
        assert_eq!(crc.expect("is taken"), crc32fast::hash(&[1; 10]));
    }
    let server = dir.path().join("server");
    assert!(
        below(dir.path())
            .iter()
            .all(|path| path.starts_with(&server))
    );
}

#[tokio::test]
async fn lines_too_long_or_no_text_are_refused_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let member = Member::join(&address, "Ann", "Tea").await;
    assert!(member.say(1, &"x".repeat(LINE)).await.is_ok());
    let error = member
        .say(2, &"x".repeat(LINE + 1))
        .await
        .expect_err("is refused");
    assert!(error.is_limit() || error.is_refused(), "{error}");
    let error = member
        .chat
        .say(3, vec![0xff])
        .await
        .expect_err("is refused");
    assert!(error.is_refused(), "{error}");
    assert!(member.say(4, "ok").await.is_ok());
}

#[tokio::test]
async fn nothing_that_commands_a_terminal_is_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let member = Member::join(&address, "Ann", "Tea").await;
    let mut bob = Program::start(&["join", "--plain", "--room", "Tea", &address]);
    bob.expect("@@ You are in #Tea now").await;
    for name in NAMES {
        member.say(1, name).await.expect("is said");
        member
            .chat
            .recv_file("Tea", name, vec![0; 5])
            .await
            .expect("is taken");
    }
    bob.send("^").await;
    bob.expect("files of #Tea: 13").await;
    bob.send("< \u{1b}[2J").await;
    bob.expect("! no such file").await;
    member.say(2, "the end").await.expect("is said");
    bob.expect("<Ann> the end").await;
    let printed = bob.end().await;
    let harmful: Vec<_> = printed
        .iter()
        .filter(|line| names::shown_line(line) != **line)
        .collect();
    assert!(harmful.is_empty(), "{harmful:?}");
    assert!(
        printed.iter().any(|line| line.contains(r"\u{1b}[2J")),
        "{printed:?}"
    );
}
